"""Catalog: containers: what Docker says of them, and what they use."""

from __future__ import annotations

from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

_CONTAINERS = SUBJECT.collector(
    "containers",
    "at scrape time",
    "CPU and memory of the expected services, out of cgroup files; out of Docker's stats call, taken in the background,"
    " where the files cannot be read.",
    "the collector `docker` (it knows the containers' ids) and /sys/fs/cgroup of the host, mounted read-only",
)
_DOCKER = SUBJECT.collector(
    "docker",
    "in the background",
    "State of the expected services' containers, also of exited and of missing ones, their limits, and whether they run"
    " the image that their tag names now.",
    "GET on /containers, /images, /info and /version of Docker's API, best through the gate",
)
_ENGINE_DISK = SUBJECT.collector(
    "engine_disk",
    "in the background",
    "What the engine holds on its disk, and what of it can be given back. Costly for the engine, so on a slow interval"
    " of its own.",
    "GET on /system/df and /version of Docker's API, best through the gate",
)
_COMPOSE_SERVICE = Label("compose_service", "a name of `collectors.docker.expected_services`")

CONTAINER_CPU = SUBJECT.metric(
    "prep_container_cpu_seconds_total",
    "counter",
    "seconds",
    "CPU time used by the service's running containers; as of Docker's last look where cgroup files cannot be read.",
    _CONTAINERS,
    _COMPOSE_SERVICE,
)
CONTAINER_MEMORY = SUBJECT.metric(
    "prep_container_memory_working_set_bytes",
    "gauge",
    "bytes",
    "Memory in use less the inactive file cache: what the kernel cannot take back cheaply.",
    _CONTAINERS,
    _COMPOSE_SERVICE,
)
CONTAINER_CPU_LIMIT = SUBJECT.metric(
    "prep_container_cpu_limit_cores",
    "gauge",
    "cores",
    "Cores that the service's running containers may use; the machine's cores where no limit is set.",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_MEMORY_LIMIT = SUBJECT.metric(
    "prep_container_memory_limit_bytes",
    "gauge",
    "bytes",
    "Memory that the service's running containers may use; the machine's memory where no limit is set.",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_STATE = SUBJECT.metric(
    "prep_container_state",
    "gauge",
    "",
    "1 for each state that a container of the service is in, 0 for the others; `missing` when it has none.",
    _DOCKER,
    _COMPOSE_SERVICE,
    Label(
        "state",
        "State.Status of Docker; `removing` counts as `dead`",
        ("running", "restarting", "exited", "paused", "dead", "created", "missing"),
    ),
)
CONTAINER_HEALTH = SUBJECT.metric(
    "prep_container_health",
    "gauge",
    "",
    "1 for each health that a container of the service has, 0 for the others; `none` when it has no health check.",
    _DOCKER,
    _COMPOSE_SERVICE,
    Label("health", "State.Health.Status of Docker", ("healthy", "unhealthy", "starting", "none")),
)
CONTAINER_RESTARTS = SUBJECT.metric(
    "prep_container_restarts_total",
    "counter",
    "",
    "Restarts by Docker's restart policy since the containers were made (not those by people or the remediator).",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_START = SUBJECT.metric(
    "prep_container_start_timestamp_seconds",
    "gauge",
    "seconds",
    "When the service's youngest container was last started; absent when none was ever started.",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_EXIT_CODE = SUBJECT.metric(
    "prep_container_last_exit_code",
    "gauge",
    "",
    "Exit code of the service's container that ended last; 0 when it runs again or none has ended.",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_OOM_KILLED = SUBJECT.metric(
    "prep_container_oom_killed",
    "gauge",
    "",
    "1 when a container of the service was ended by the kernel for want of memory in its present or last run.",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_IMAGE_OUTDATED = SUBJECT.metric(
    "prep_container_image_outdated",
    "gauge",
    "",
    "1 when a container of the service was made from another image than its tag names now, or the tag names none any"
    " more: making it anew would change what runs. An image named by digest or id is never outdated.",
    _DOCKER,
    _COMPOSE_SERVICE,
)
_KIND = Label("kind", "what holds the disk", ("images", "containers", "volumes", "build_cache"))
ENGINE_DISK_USED = SUBJECT.metric(
    "prep_engine_disk_used_bytes",
    "gauge",
    "bytes",
    "What the engine's images, containers' own layers, local volumes and build cache hold, as of its last reckoning.",
    _ENGINE_DISK,
    _KIND,
)
ENGINE_DISK_RECLAIMABLE = SUBJECT.metric(
    "prep_engine_disk_reclaimable_bytes",
    "gauge",
    "bytes",
    "What removing the unused would give back at least: images without a container, containers that do not run, volumes"
    " that no container has (data!), build cache that is not in use. As of the engine's last reckoning.",
    _ENGINE_DISK,
    _KIND,
)
