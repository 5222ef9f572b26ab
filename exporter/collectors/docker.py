"""Background collector `docker`: the expected services' containers as Docker's API tells them.

In: `containers/json`, `containers/<id>/json`, `images/json`, `info`, and `containers/<id>/stats` where cgroup files
cannot be read. Out: states, limits, exit codes, image drift; an expected service without a container is `missing`. It
must never show a container that is not of our project and expected, nor do anything but GET.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from docker import APIClient
from docker.errors import NotFound

from exporter.catalog import containers as catalog
from exporter.collector_settings import DockerCollector as DockerSettings
from exporter.collectors.base import Collector
from exporter.collectors.containers import Reader
from exporter.collectors.images import drifted, tag_of, tagged
from exporter.collectors.inventory import Inventory, Reading, Running
from exporter.docker_api import DockerApi
from exporter.errors import Transient
from exporter.samples import Collected, Sample, state_set
from exporter.workers import Worker

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_ONE_OFF = "com.docker.compose.oneoff"
"""Labels of Compose; `docker compose run` makes one-off containers, which are not the service."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a container without a limit may use."""

    cores: int
    memory: int


@dataclass(frozen=True, slots=True)
class Container:
    """One container, as far as the samples need it. Times in UNIX seconds, None where Docker has none."""

    id: str
    service: str
    status: str
    health: str
    started: float | None
    finished: float | None
    exit_code: int
    oom_killed: bool
    restarts: int
    cores: float
    memory: int
    cgroup_parent: str
    image: str
    """What it was made from, as its maker wrote it."""
    image_id: str

    @property
    def runs(self) -> bool:
        """Whether it has processes: a paused one has."""
        return self.status in ("running", "paused")


class DockerCollector:
    """One look at all containers of the project, in a thread, since the SDK blocks."""

    name = "docker"

    def __init__(self, settings: DockerSettings, inventory: Inventory, read: Reader, stats_fallback: bool) -> None:
        """`read` tells whether a container's cgroup files can be read here; if not, stats are asked for."""
        self._settings = settings
        self._inventory = inventory
        self._read = read
        self._stats_fallback = stats_fallback
        self._api = DockerApi(settings.base_url, settings.timeout)
        self._worker = Worker("docker")

    async def collect(self, deadline: float) -> Collected:
        containers, running, ids = await self._worker.run(lambda: self._look(deadline), deadline)
        self._inventory.put(running, asyncio.get_running_loop().time())
        return Collected(tuple(samples(containers, self._settings.expected_services, ids)))

    def inherit(self, predecessor: Collector) -> None:
        """Take over what was seen running, of the same project on the same engine: until the first look of its own
        `containers` would have nothing to read, and CPU seconds a gap at every reload.
        """
        if not isinstance(predecessor, DockerCollector):
            return
        before, now = predecessor._settings, self._settings
        if (before.base_url, before.project) == (now.base_url, now.project):
            self._inventory.inherit(predecessor._inventory, now.expected_services)

    async def close(self) -> None:
        self._worker.close()
        self._api.forget()

    def _look(self, deadline: float) -> tuple[list[Container], tuple[Running, ...], dict[str, str]]:
        """In the worker's thread. `deadline` in the loop's time, which is time.monotonic()."""
        with self._api.client() as client:
            machine = _machine(client.info())
            found = [parse(raw, machine) for raw in self._inspected(client, deadline)]
            running = tuple(self._running(client, one, deadline) for one in found if one.runs)
            _in_time(deadline)
            return found, running, _named(client, found)

    def _inspected(self, client: APIClient, deadline: float) -> Iterable[Mapping[str, Any]]:
        listed = client.containers(all=True, filters={"label": [f"{_PROJECT}={self._settings.project}"]})
        expected = set(self._settings.expected_services)
        for one in listed:
            labels = one.get("Labels") or {}
            if labels.get(_SERVICE) not in expected or labels.get(_ONE_OFF, "False").lower() == "true":
                continue
            _in_time(deadline)
            try:
                yield client.inspect_container(one["Id"])
            except NotFound:
                continue  # removed since it was listed

    def _running(self, client: APIClient, one: Container, deadline: float) -> Running:
        running = Running(one.service, one.id, one.cgroup_parent)
        if not self._stats_fallback or self._read(running) is not None:
            return running
        _in_time(deadline)
        try:
            stats = client.stats(one.id, stream=False, one_shot=True)
        except NotFound:
            return running
        return Running(one.service, one.id, one.cgroup_parent, parse_stats(stats))


def _in_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Transient("docker: the look at the containers took too long")


def _named(client: APIClient, containers: Iterable[Container]) -> dict[str, str]:
    """The image that each of the containers' tags names now; other images of the machine are not asked for."""
    tags = sorted({tag for one in containers if (tag := tag_of(one.image)) is not None})
    return tagged(client.images(filters={"reference": tags})) if tags else {}


def _machine(info: Mapping[str, Any]) -> Machine:
    return Machine(int(info["NCPU"]), int(info["MemTotal"]))


def parse(raw: Mapping[str, Any], machine: Machine) -> Container:
    """Docker's inspection of a container. Fields: https://docs.docker.com/reference/api/engine/version/v1.41/"""
    state, host = raw["State"], raw["HostConfig"]
    status = state["Status"]
    return Container(
        id=raw["Id"],
        service=raw["Config"]["Labels"][_SERVICE],
        status="dead" if status == "removing" else status,
        health=(state.get("Health") or {}).get("Status", "none"),
        started=timestamp(state["StartedAt"]),
        finished=timestamp(state["FinishedAt"]),
        exit_code=int(state["ExitCode"]),
        oom_killed=bool(state["OOMKilled"]),
        restarts=int(raw.get("RestartCount", 0)),
        cores=cores(host, machine),
        memory=min(int(host.get("Memory") or machine.memory), machine.memory),
        cgroup_parent=host.get("CgroupParent") or "",
        image=raw["Config"]["Image"],
        image_id=raw["Image"],
    )


def cores(host: Mapping[str, Any], machine: Machine) -> float:
    """How many cores a container may use: `--cpus` (NanoCpus), else quota over period, else the machine's."""
    if nano := int(host.get("NanoCpus") or 0):
        return min(nano / 1e9, float(machine.cores))
    quota, period = int(host.get("CpuQuota") or 0), int(host.get("CpuPeriod") or 100_000)
    return min(quota / period, float(machine.cores)) if quota > 0 else float(machine.cores)


def timestamp(text: str) -> float | None:
    """Docker's RFC 3339 time to UNIX seconds; None for its zero time, year 1."""
    moment = datetime.fromisoformat(text)
    return None if moment.year == 1 else moment.timestamp()


def parse_stats(stats: Mapping[str, Any]) -> Reading | None:
    """Docker's stats to a reading; None when the container had just ended (no CPU use in it)."""
    total = stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage")
    if not total:
        return None
    memory = stats.get("memory_stats", {})
    usage, detail = memory.get("usage"), memory.get("stats", {})
    inactive = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    return Reading(total / 1e9, None if usage is None else max(0, usage - inactive))


def samples(containers: Sequence[Container], expected: Iterable[str], ids: Mapping[str, str]) -> Iterable[Sample]:
    """All samples of the expected services; a service may have several containers, or none.

    `ids` is the image that each tag names now.
    """
    for service in expected:
        yield from _service(service, [one for one in containers if one.service == service], ids)


def _service(service: str, containers: Sequence[Container], ids: Mapping[str, str]) -> Iterable[Sample]:
    label = (service,)
    states = {one.status for one in containers} or {"missing"}
    yield from state_set(catalog.CONTAINER_STATE, label, states)
    if not containers:
        return
    running = [one for one in containers if one.runs]
    yield from state_set(catalog.CONTAINER_HEALTH, label, {one.health for one in running} or {"none"})
    yield Sample(catalog.CONTAINER_RESTARTS, label, float(sum(one.restarts for one in containers)))
    yield Sample(catalog.CONTAINER_OOM_KILLED, label, float(any(one.oom_killed for one in containers)))
    other = any(drifted(one.image, one.image_id, ids) for one in containers)
    yield Sample(catalog.CONTAINER_IMAGE_OUTDATED, label, float(other))
    ended = [one for one in containers if one.finished is not None]
    last = max(ended, key=lambda one: one.finished or 0.0, default=None)
    yield Sample(catalog.CONTAINER_EXIT_CODE, label, float(last.exit_code if last else 0))
    started = [one.started for one in containers if one.started is not None]
    if started:
        yield Sample(catalog.CONTAINER_START, label, max(started))
    if running:
        yield Sample(catalog.CONTAINER_CPU_LIMIT, label, sum(one.cores for one in running))
        yield Sample(catalog.CONTAINER_MEMORY_LIMIT, label, float(sum(one.memory for one in running)))
