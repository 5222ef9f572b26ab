"""The exporter's configuration file: shapes, ranges and units. Unknown keys are refused.

In: one YAML file. Out: one frozen `Settings`, or ConfigError with every mistake at its line. Secrets come by file
only and are read when they are used, so a rotated one needs no restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from exporter.durations import Duration
from exporter.errors import ConfigError, Fault
from exporter.yaml_file import Document

Name = Annotated[str, Field(min_length=1, max_length=128)]
"""A configured name: it becomes a label's value."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("is not an absolute path")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Strict(BaseModel):
    """Frozen; a key that is not known is a mistake, not a wish."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Web(Strict):
    """Where /metrics is served."""

    listen_address: str = Field(default="0.0.0.0:11470", pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]*):\d{1,5}$")
    """`host:port`; an empty host means every interface, port 0 a free one."""
    max_requests: int = Field(default=40, ge=1)
    """Scrapes answered at once; more get 503. They share one run of each collector, so this bounds memory only."""


class Scrape(Strict):
    """The deadline of a scrape: what Prometheus allows less what the way back needs."""

    timeout: Duration = 10.0
    """Taken when a request has no X-Prometheus-Scrape-Timeout-Seconds header."""
    timeout_offset: Duration = 0.5
    """Kept back from what Prometheus allows, for rendering and the way back."""


class PostgresServer(Strict):
    """One PostgreSQL server, read over one kept session."""

    host: str = Field(min_length=1)
    """Name, address, or the directory of a Unix socket."""
    port: int = Field(default=5432, ge=1, le=65535)
    """TCP port, or the number in the socket's name."""
    database: str = Field(min_length=1)
    """Of the cursors' tables; the core's numbers are the whole server's."""
    user: str = Field(min_length=1)
    """A role with `pg_monitor`."""
    password_file: AbsolutePath | None = None
    """None where the server asks for no password (peer, certificate)."""
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """As libpq has it; `verify-*` read the certificates that libpq reads."""
    connect_timeout: Duration = 2.0
    """For one login."""
    query_timeout: Duration = 5.0
    """The longest that one scrape's reading may take, when the scrape itself has longer."""
    session_age: Duration = 600.0
    """The kept session is replaced when it is older: a name that moved to another server is followed."""


class PostgresCollector(Strict):
    """Collector `postgres`. Its servers are also those that the cursors read."""

    enabled: bool = True
    """Whether it runs."""
    long_query_seconds: float = Field(default=300.0, gt=0)
    """From how many seconds on a query is a long one."""
    servers: Mapping[Name, PostgresServer] = Field(min_length=1)
    """By the value of the label `server`."""


class DockerCollector(Strict):
    """Background collector `docker`."""

    enabled: bool = True
    """Whether it runs."""
    base_url: str = Field(default="tcp://docker-gate:2375", pattern=r"^(tcp|http|https|unix)://.+")
    """The gate in front of Docker's socket, or the socket itself (`unix:///var/run/docker.sock`)."""
    project: Name = "prep"
    """The Compose project; containers of others are not seen."""
    expected_services: tuple[Name, ...] = Field(min_length=1)
    """Services that must be there, and the only ones that are shown: one without a container is `missing`."""
    interval: Duration = 15.0
    """From one look to the next. Samples older than three intervals are not shown."""
    timeout: Duration = 10.0
    """For one whole look at all containers."""


class ContainersCollector(Strict):
    """Collector `containers`: CPU and memory of the containers that `docker` found."""

    enabled: bool = True
    """Whether it runs."""
    cgroup_roots: tuple[AbsolutePath, ...] = (Path("/host/cgroup"), Path("/sys/fs/cgroup"))
    """Where the host's cgroup tree may be, version 1 or 2; the first that holds a container's files is read."""
    stats_fallback: bool = True
    """Ask Docker's stats call, in the background, for containers whose files cannot be read."""


class ComplianceCollector(Strict):
    """Collector `compliance`: a cursor over the platform's table."""

    enabled: bool = True
    """Whether it runs."""
    server: Name = "postgres"
    """A key of `collectors.postgres.servers`; it must be the primary."""
    state_file: AbsolutePath = Path("/var/lib/prep-exporter/compliance.json")
    """Where the cursor's position and totals are kept; a file of this exporter's own, on a volume that stays."""
    overlap: Duration = 600.0
    """How far back the cursor looks at most for rows that were committed late. A transaction that stays open for
    longer may be missed, which is shown."""
    margin: Duration = 10.0
    """How far back it looks always, for clocks that differ."""
    batch_rows: int = Field(default=20_000, ge=1, le=1_000_000)
    """New rows counted in one scrape at most; the rest follows in the next ones."""
    remembered_rows: int = Field(default=100_000, ge=1)
    """Ids remembered at most; some 100 bytes of memory each."""
    catching_up_after: Duration = 120.0
    """After this long without counting, what is then counted is flagged as catching up."""


class DiskCollector(Strict):
    """Collector `disk`."""

    enabled: bool = True
    """Whether it runs."""
    paths: Mapping[Name, AbsolutePath] = Field(min_length=1)
    """The label's value, and the path in this container where that filesystem is seen."""
    timeout: Duration = 2.0
    """For each path."""


class Collectors(Strict):
    """The collectors. One that is not named, or has `enabled: false`, does not run."""

    postgres: PostgresCollector | None = None
    """PostgreSQL's core."""
    docker: DockerCollector | None = None
    """State of the containers."""
    containers: ContainersCollector | None = None
    """CPU and memory of the containers."""
    compliance: ComplianceCollector | None = None
    """Compliance checks out of the platform's table."""
    disk: DiskCollector | None = None
    """Room on named paths."""


class Settings(Strict):
    """Everything the exporter is told at start."""

    web: Web = Web()
    """The HTTP side."""
    scrape: Scrape = Scrape()
    """The deadline of a scrape."""
    collectors: Collectors
    """What is collected."""


def parse(text: str, file: str) -> Settings:
    """YAML text to settings. Raises ConfigError listing every mistake as `file:line: path`."""
    document = Document.read(text, file)
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        found = [_fault(document, item["loc"], item["type"], item["msg"]) for item in error.errors(include_url=False)]
        raise ConfigError([*document.faults, *found]) from error
    if found := [*document.faults, *_reference_faults(settings, document)]:
        raise ConfigError(found)
    return settings


def load(path: Path) -> Settings:
    """Read the file. Raises ConfigError, also when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Fault(str(path), f"cannot be read: {error}")]) from error
    return parse(text, str(path))


def secret(path: Path) -> str:
    """A secret's value now: re-read at each use, trailing newline dropped. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError([Fault(str(path), f"secret cannot be read: {reason}")]) from error


def check_files(settings: Settings) -> None:
    """Whether the files that the settings name can be used now; raises ConfigError with every one that cannot."""
    found: list[Fault] = []
    postgres, disk = settings.collectors.postgres, settings.collectors.disk
    for server in postgres.servers.values() if postgres else ():
        if server.password_file is not None:
            try:
                secret(server.password_file)
            except ConfigError as error:
                found += error.faults
    for path in disk.paths.values() if disk and disk.enabled else ():
        if not path.exists():
            found.append(Fault(str(path), "does not exist", "mount it into the exporter's container"))
    if found:
        raise ConfigError(found)


_WORDS = {
    "extra_forbidden": ("is not a setting", "remove it, or look for a spelling mistake; docs/metrics.md lists all"),
    "missing": ("is missing", "add it"),
    "too_short": ("is empty", "name at least one"),
}


def _fault(document: Document, location: tuple[int | str, ...], kind: str, message: str) -> Fault:
    what, remedy = _WORDS.get(kind, (message.removeprefix("Value error, ").removeprefix("Input "), ""))
    return Fault(document.where(location), what, remedy)


def _reference_faults(settings: Settings, document: Document) -> list[Fault]:
    """Names that must exist elsewhere in the file, and values that only make sense together."""
    found, collectors = [], settings.collectors
    if not any(part is not None and part.enabled for part in vars(collectors).values()):
        found.append(Fault(document.where(("collectors",)), "no collector is enabled", "enable at least one"))
    compliance, postgres = collectors.compliance, collectors.postgres
    if compliance and compliance.enabled:
        servers = postgres.servers if postgres else {}
        if compliance.server not in servers:
            at = document.where(("collectors", "compliance", "server"))
            names = ", ".join(sorted(servers)) or "none"
            found.append(
                Fault(at, f"{compliance.server!r} is no server of collectors.postgres.servers", f"there: {names}")
            )
        if compliance.margin >= compliance.overlap:
            at = document.where(("collectors", "compliance", "margin"))
            found.append(Fault(at, "is not below the overlap", "make overlap larger"))
    if (
        collectors.containers
        and collectors.containers.enabled
        and not (collectors.docker and collectors.docker.enabled)
    ):
        at = document.where(("collectors", "containers"))
        found.append(Fault(at, "needs the collector docker, which knows the containers", "enable collectors.docker"))
    if settings.scrape.timeout_offset >= settings.scrape.timeout:
        at = document.where(("scrape", "timeout_offset"))
        found.append(Fault(at, "leaves no time for the scrape", "make it smaller than scrape.timeout"))
    return found
