"""The one table of metrics: name, kind, unit, help, labels with their closed sets, and the collector that makes them.

In: nothing. Out: `METRICS` and `COLLECTORS`, read by the exposition, `docs/metrics.md`, the dashboards and the
tests of the alert rules. It must never hold a value, do I/O or import another module of this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]

DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0)
"""Upper bounds in seconds; 5 is the handbook's limit for a compliance check, so a bucket ends exactly there."""


@dataclass(frozen=True, slots=True)
class Label:
    """One label. `values` is its closed set; None means "a name out of the configuration", told in `source`."""

    name: str
    source: str
    values: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. `unit` is the base unit in the name ("" for a plain number or a state).

    `name` is as PromQL writes it: counters with `_total`, histograms without `_bucket`.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    collector: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Label names in the order in which samples give their values."""
        return tuple(label.name for label in self.labels)


@dataclass(frozen=True, slots=True)
class CollectorDoc:
    """What an operator must know of a collector."""

    name: str
    runs: Literal["at scrape time", "in the background", "inside each service"]
    summary: str
    needs: str


COLLECTORS: dict[str, CollectorDoc] = {}
METRICS: dict[str, Metric] = {}


def _collector(
    name: str, runs: Literal["at scrape time", "in the background", "inside each service"], summary: str, needs: str
) -> str:
    COLLECTORS[name] = CollectorDoc(name, runs, summary, needs)
    return name


def _metric(
    name: str, kind: Kind, unit: str, help_: str, collector: str, *labels: Label, buckets: tuple[float, ...] = ()
) -> Metric:
    if name in METRICS:
        raise ValueError(f"{name} is twice in the catalog")
    METRICS[name] = metric = Metric(name, kind, unit, help_, collector, labels, buckets)
    return metric


# --- The exporter itself -----------------------------------------------------------------------------------------

_SELF = _collector(
    "exporter", "at scrape time", "How the scrape itself went. Always there, also when every backend is ill.", "nothing"
)
_COLLECTOR = Label("collector", "a collector of this page")

BUILD_INFO = _metric(
    "prep_build_info",
    "gauge",
    "",
    "Always 1; which exporter runs here.",
    _SELF,
    Label("version", "version of the distribution"),
    Label("revision", "PREP_REVISION of the image, else `unknown`"),
    Label("python", "version of the interpreter"),
)
COLLECTOR_SUCCESS = _metric(
    "prep_scrape_collector_success",
    "gauge",
    "",
    "1 when the collector gave all its samples in this scrape (background: in its last run), 0 when not.",
    _SELF,
    _COLLECTOR,
)
COLLECTOR_DURATION = _metric(
    "prep_scrape_collector_duration_seconds",
    "gauge",
    "seconds",
    "How long the collector ran for this scrape (background: in its last run).",
    _SELF,
    _COLLECTOR,
)
COLLECTOR_LAST_SUCCESS = _metric(
    "prep_collector_last_success_timestamp_seconds",
    "gauge",
    "seconds",
    "When a background collector last succeeded; absent before the first time. Its samples vanish when they are older"
    " than three of its intervals.",
    _SELF,
    _COLLECTOR,
)

# --- postgres ----------------------------------------------------------------------------------------------------

_POSTGRES = _collector(
    "postgres",
    "at scrape time",
    "The core of one or more PostgreSQL servers, over one kept session each; `up` by a fresh login.",
    "a role with `pg_monitor` (without it other sessions look empty, so the collector refuses to count them)",
)
_SERVER = Label("server", "a key of `collectors.postgres.servers`")

POSTGRES_UP = _metric(
    "prep_postgres_up",
    "gauge",
    "",
    "1 when a new client could log in during this scrape, 0 when not: the kept session alone does not make it 1.",
    _POSTGRES,
    _SERVER,
)
POSTGRES_CONNECTIONS = _metric(
    "prep_postgres_connections", "gauge", "", "Client sessions, this exporter's own included.", _POSTGRES, _SERVER
)
POSTGRES_CONNECTIONS_MAX = _metric(
    "prep_postgres_connections_max",
    "gauge",
    "",
    "Client sessions that roles without privileges can have: max_connections less the reserved ones.",
    _POSTGRES,
    _SERVER,
)
POSTGRES_OLDEST_QUERY = _metric(
    "prep_postgres_oldest_query_start_timestamp_seconds",
    "gauge",
    "seconds",
    "When the oldest query that now runs in a client session began; absent when none runs.",
    _POSTGRES,
    _SERVER,
)
POSTGRES_LONG_QUERIES = _metric(
    "prep_postgres_long_running_queries",
    "gauge",
    "",
    "Queries running in client sessions for longer than `long_query_seconds` of the configuration (300 as shipped).",
    _POSTGRES,
    _SERVER,
)
POSTGRES_OLDEST_TRANSACTION = _metric(
    "prep_postgres_oldest_transaction_start_timestamp_seconds",
    "gauge",
    "seconds",
    "When the oldest open transaction of a client session in that state began; absent when there is none.",
    _POSTGRES,
    _SERVER,
    Label("state", "state of the session, aborted transactions included", ("active", "idle in transaction")),
)
POSTGRES_BLOCKED = _metric(
    "prep_postgres_blocked_sessions",
    "gauge",
    "",
    "Sessions waiting for a lock that another session holds.",
    _POSTGRES,
    _SERVER,
)
POSTGRES_XID_AGE = _metric(
    "prep_postgres_xid_age_transactions",
    "gauge",
    "transactions",
    "Age of the oldest datfrozenxid of any database, in transactions; wraparound protection stops writes near 2^31.",
    _POSTGRES,
    _SERVER,
)
POSTGRES_ROLE = _metric(
    "prep_postgres_role",
    "gauge",
    "",
    "1 for the role that the server has now, 0 for the other.",
    _POSTGRES,
    _SERVER,
    Label("role", "pg_is_in_recovery()", ("primary", "replica")),
)
POSTGRES_START = _metric(
    "prep_postgres_start_timestamp_seconds", "gauge", "seconds", "When the server was started.", _POSTGRES, _SERVER
)

# --- containers and docker ---------------------------------------------------------------------------------------

_CONTAINERS = _collector(
    "containers",
    "at scrape time",
    "CPU and memory of the expected services, out of cgroup files; out of Docker's stats call, taken in the background,"
    " where the files cannot be read.",
    "the collector `docker` (it knows the containers' ids) and /sys/fs/cgroup of the host, mounted read-only",
)
_DOCKER = _collector(
    "docker",
    "in the background",
    "State of the expected services' containers, also of exited and of missing ones, and their limits.",
    "GET on /containers, /info and /version of Docker's API, best through the gate",
)
_COMPOSE_SERVICE = Label("compose_service", "a name of `collectors.docker.expected_services`")

CONTAINER_CPU = _metric(
    "prep_container_cpu_seconds_total",
    "counter",
    "seconds",
    "CPU time used by the service's running containers; as of Docker's last look where cgroup files cannot be read.",
    _CONTAINERS,
    _COMPOSE_SERVICE,
)
CONTAINER_MEMORY = _metric(
    "prep_container_memory_working_set_bytes",
    "gauge",
    "bytes",
    "Memory in use less the inactive file cache: what the kernel cannot take back cheaply.",
    _CONTAINERS,
    _COMPOSE_SERVICE,
)
CONTAINER_CPU_LIMIT = _metric(
    "prep_container_cpu_limit_cores",
    "gauge",
    "cores",
    "Cores that the service's running containers may use; the machine's cores where no limit is set.",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_MEMORY_LIMIT = _metric(
    "prep_container_memory_limit_bytes",
    "gauge",
    "bytes",
    "Memory that the service's running containers may use; the machine's memory where no limit is set.",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_STATE = _metric(
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
CONTAINER_HEALTH = _metric(
    "prep_container_health",
    "gauge",
    "",
    "1 for each health that a container of the service has, 0 for the others; `none` when it has no health check.",
    _DOCKER,
    _COMPOSE_SERVICE,
    Label("health", "State.Health.Status of Docker", ("healthy", "unhealthy", "starting", "none")),
)
CONTAINER_RESTARTS = _metric(
    "prep_container_restarts_total",
    "counter",
    "",
    "Restarts by Docker's restart policy since the containers were made (not those by people or the remediator).",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_START = _metric(
    "prep_container_start_timestamp_seconds",
    "gauge",
    "seconds",
    "When the service's youngest container was last started; absent when none was ever started.",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_EXIT_CODE = _metric(
    "prep_container_last_exit_code",
    "gauge",
    "",
    "Exit code of the service's container that ended last; 0 when it runs again or none has ended.",
    _DOCKER,
    _COMPOSE_SERVICE,
)
CONTAINER_OOM_KILLED = _metric(
    "prep_container_oom_killed",
    "gauge",
    "",
    "1 when a container of the service was ended by the kernel for want of memory in its present or last run.",
    _DOCKER,
    _COMPOSE_SERVICE,
)

# --- compliance --------------------------------------------------------------------------------------------------

_COMPLIANCE = _collector(
    "compliance",
    "at scrape time",
    "Compliance checks as the platform's own table tells them, counted once each when they become final.",
    "SELECT on (id, created_at, finished_at, result) of compliance_checks on the primary, `pg_monitor`, and the two"
    " indexes below",
)

COMPLIANCE_DURATION = _metric(
    "prep_compliance_check_duration_seconds",
    "histogram",
    "seconds",
    "Time from a check's arrival to its result, of all checks that ended since the cursor began.",
    _COMPLIANCE,
    buckets=DURATION_BUCKETS,
)
COMPLIANCE_FAILED = _metric(
    "prep_compliance_checks_failed_total",
    "counter",
    "",
    "Checks that ended without an answer (result `error`); an order that breaks a rule (`fail`) is an answer.",
    _COMPLIANCE,
)
COMPLIANCE_PENDING = _metric(
    "prep_compliance_checks_pending",
    "gauge",
    "",
    "Checks that have arrived and have no result; counted up to 100000.",
    _COMPLIANCE,
)
COMPLIANCE_OLDEST_PENDING = _metric(
    "prep_compliance_oldest_pending_start_timestamp_seconds",
    "gauge",
    "seconds",
    "When the oldest check without a result arrived; absent when there is none.",
    _COMPLIANCE,
)
COMPLIANCE_CATCHING_UP = _metric(
    "prep_compliance_cursor_catching_up",
    "gauge",
    "",
    "1 while the counters hold a jump of rows from a time in which nobody counted; alerts on their rates should wait"
    " until max_over_time() of it over their range is 0.",
    _COMPLIANCE,
)
COMPLIANCE_INEXACT = _metric(
    "prep_compliance_cursor_overlap_cut",
    "gauge",
    "",
    "1 while a transaction is open for longer than the cursor's overlap reaches back: its rows may be missed.",
    _COMPLIANCE,
)
COMPLIANCE_STATE_DISCARDED = _metric(
    "prep_compliance_cursor_state_discarded",
    "gauge",
    "",
    "1 when this process found the cursor's saved state unreadable or foreign and began again from its start time.",
    _COMPLIANCE,
)

# --- disk --------------------------------------------------------------------------------------------------------

_DISK = _collector(
    "disk",
    "at scrape time",
    "Room on named paths. A mount that hangs makes only its own path silent.",
    "the paths to be visible inside the exporter's container",
)
_PATH = Label("path", "a key of `collectors.disk.paths`")

FILESYSTEM_FREE = _metric(
    "prep_filesystem_free_bytes", "gauge", "bytes", "Bytes that users without privileges can still write.", _DISK, _PATH
)
FILESYSTEM_SIZE = _metric("prep_filesystem_size_bytes", "gauge", "bytes", "Size of the filesystem.", _DISK, _PATH)
FILESYSTEM_FILES_FREE = _metric(
    "prep_filesystem_files_free",
    "gauge",
    "",
    "Inodes that users without privileges can still use; absent on filesystems without a fixed number.",
    _DISK,
    _PATH,
)
FILESYSTEM_FILES = _metric(
    "prep_filesystem_files",
    "gauge",
    "",
    "Inodes of the filesystem; absent where they have no fixed number.",
    _DISK,
    _PATH,
)

# --- What every service of the platform publishes itself ---------------------------------------------------------

_SERVICES = _collector(
    "services",
    "inside each service",
    "The services' own request metrics (`exporter.instrument`), scraped by Prometheus from the services: the second"
    " source of the business signals when PostgreSQL is ill.",
    "the middleware in the service, a target label `service` in prometheus.yml",
)
_HANDLER = Label("handler", "the route's template; `unmatched` for the rest")
_METHOD = Label("method", "HTTP method", ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"))

HTTP_REQUESTS = _metric(
    "prep_http_requests_total",
    "counter",
    "",
    "Requests answered.",
    _SERVICES,
    _HANDLER,
    _METHOD,
    Label("code_class", "class of the status", ("2xx", "3xx", "4xx", "5xx")),
)
HTTP_DURATION = _metric(
    "prep_http_request_duration_seconds",
    "histogram",
    "seconds",
    "Time from a request's head to its answer's end.",
    _SERVICES,
    _HANDLER,
    _METHOD,
    buckets=DURATION_BUCKETS,
)
HTTP_IN_FLIGHT = _metric("prep_http_requests_in_flight", "gauge", "", "Requests being answered now.", _SERVICES)
ENGINE_SESSIONS = _metric(
    "prep_compliance_engine_sessions",
    "gauge",
    "",
    "Sessions of the rule engine.",
    _SERVICES,
    Label("state", "what the session does", ("free", "busy")),
)
CACHE_REQUESTS = _metric(
    "prep_compliance_cache_requests_total",
    "counter",
    "",
    "Look-ups in the RegEngine cache.",
    _SERVICES,
    Label("result", "how it ended", ("hit", "miss")),
)
