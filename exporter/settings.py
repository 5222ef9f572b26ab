"""The exporter's configuration file: shapes, ranges and units. Unknown keys are refused.

In: one YAML file. Out: one frozen `Settings`, or ConfigError with every mistake at its line. Secrets come by file
only and are read when they are used, so a rotated one needs no restart.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from exporter.background_settings import needed_files
from exporter.collector_settings import Collectors
from exporter.cursor_settings import CursorSettings
from exporter.durations import Duration
from exporter.errors import ConfigError, Fault
from exporter.setting_types import Strict
from exporter.yaml_file import Document


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
    postgres, redis, disk = settings.collectors.postgres, settings.collectors.redis, settings.collectors.disk
    servers = [*(postgres.servers.values() if postgres else ()), *(redis.servers.values() if redis else ())]
    for server in servers:
        if server.password_file is not None:
            try:
                secret(server.password_file)
            except ConfigError as error:
                found += error.faults
    for server in redis.servers.values() if redis else ():
        if server.ca_file is not None and not server.ca_file.is_file():
            found.append(Fault(str(server.ca_file), "does not exist", "mount it into the exporter's container"))
    for path in disk.paths.values() if disk and disk.enabled else ():
        if not path.exists():
            found.append(Fault(str(path), "does not exist", "mount it into the exporter's container"))
    for path, is_text in needed_files(settings.collectors.probes, settings.collectors.backups):
        try:
            if is_text:
                secret(path)
            elif not path.is_dir():
                found.append(Fault(str(path), "is no directory", "mount it into the exporter's container"))
        except ConfigError as error:
            found += error.faults
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
    found += _cursor_faults(settings, document)
    found += _replication_faults(collectors, document)
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


def _cursor_faults(settings: Settings, document: Document) -> list[Fault]:
    """What does not fit together about the cursors: their servers, their bounds, their files."""
    found, collectors, files = list[Fault](), settings.collectors, dict[Path, str]()
    servers = collectors.postgres.servers if collectors.postgres else {}
    for name, cursor in vars(collectors).items():
        if not isinstance(cursor, CursorSettings) or not cursor.enabled:
            continue
        at = ("collectors", name)
        if cursor.server not in servers:
            names = ", ".join(sorted(servers)) or "none"
            what = f"{cursor.server!r} is no server of collectors.postgres.servers"
            found.append(Fault(document.where((*at, "server")), what, f"there: {names}"))
        if cursor.margin >= cursor.overlap:
            found.append(Fault(document.where((*at, "margin")), "is not below the overlap", "make overlap larger"))
        if cursor.state_file in files:
            what = f"is also the file of collectors.{files[cursor.state_file]}"
            found.append(Fault(document.where((*at, "state_file")), what, "give each cursor its own"))
        files[cursor.state_file] = name
    return found


def _replication_faults(collectors: Collectors, document: Document) -> list[Fault]:
    """The primary and each replica are servers of their own."""
    replication, found = collectors.replication, list[Fault]()
    if replication is None or not replication.enabled:
        return found
    servers = collectors.postgres.servers if collectors.postgres else {}
    place = ("collectors", "replication")
    named: list[tuple[tuple[str, ...], str]] = [((*place, "primary"), replication.primary)]
    for name, replica in replication.replicas.items():
        if replica.server is not None:
            named.append(((*place, "replicas", name, "server"), replica.server))
    seen: set[str] = set()
    for at, server in named:
        if server not in servers:
            there = ", ".join(sorted(servers)) or "none"
            what = f"{server!r} is no server of collectors.postgres.servers"
            found.append(Fault(document.where(at), what, f"there: {there}"))
        elif server in seen:
            found.append(Fault(document.where(at), f"{server!r} is named twice", "each is a server of its own"))
        seen.add(server)
    return found
