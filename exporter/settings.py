"""The exporter's configuration file: shapes, ranges and units. Unknown keys are refused.

In: one YAML file. Out: one frozen `Settings`, or ConfigError with every mistake at its line. Secrets come by file
only and are read when they are used, so a rotated one needs no restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from exporter.background_settings import needed_files
from exporter.collector_settings import Collectors
from exporter.cursor_settings import CursorSettings
from exporter.durations import Duration
from exporter.errors import ConfigError, Fault
from exporter.fault_words import Location, words
from exporter.redaction import remember
from exporter.repair import is_stand_in, repaired
from exporter.setting_types import AbsolutePath, Strict
from exporter.yaml_file import Document


class Web(Strict):
    """Where /metrics is served."""

    listen_address: str = Field(default="0.0.0.0:11470", pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]*):\d{1,5}$")
    """`host:port`; an empty host means every interface, port 0 a free one."""
    telemetry_path: str = Field(default="/metrics", pattern=r"^/[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*$")
    """Path of the metrics; the exporter's own pages (`/`, `/-/...`, `/docs/...`) cannot be it."""
    config_file: AbsolutePath | None = None
    """Web configuration of Prometheus' exporter-toolkit: TLS, users with bcrypt, headers. It is read again when it
    changes. None: plain HTTP for everybody."""
    max_requests: int = Field(default=40, ge=1)
    """Scrapes answered at once; more get 503. They share one run of each collector, so this bounds memory only."""
    enable_reload: bool = False
    """Whether `POST /-/reload` reads the configuration anew. SIGHUP always does."""


class Scrape(Strict):
    """The deadline of a scrape: what Prometheus allows less what the way back needs."""

    timeout: Duration = 10.0
    """Taken when a request has no X-Prometheus-Scrape-Timeout-Seconds header."""
    timeout_offset: Duration = 0.5
    """Kept back from what Prometheus allows, for rendering and the way back."""
    max_series: int = Field(default=1000, ge=10, le=100_000)
    """Of one family, from one collector. Those beyond it are dropped, told in the log and counted in
    `prep_exporter_series_dropped_total`."""


class Settings(Strict):
    """Everything the exporter is told at start."""

    web: Web = Web()
    """The HTTP side."""
    scrape: Scrape = Scrape()
    """The deadline of a scrape."""
    collectors: Collectors
    """What is collected."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A setting given on the command line: the flag's name as it was written, and its value."""

    name: str
    value: Any


def parse(text: str, file: str, flags: Mapping[Location, Flag] | None = None, *, files: bool = False) -> Settings:
    """YAML text to settings, `flags` counting instead of the text.

    `files`: look also whether the files that the settings name can be used now. Raises ConfigError listing every
    mistake as `file:line: path`, or by the flag that made it.
    """
    document, flags = Document.read(text, file), flags or {}
    _lay_over(document.data, _that_matter(document.data, flags))
    found = list(document.faults)
    settings: Settings | None
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        found += [_fault(document, flags, item) for item in error.errors(include_url=False, include_input=False)]
        settings = repaired(Settings, document.data)
    if settings is not None:
        told = {fault.where for fault in found}
        found += [fault for fault in _reference_faults(settings, document) if fault.where not in told]
        found += _file_faults(settings, document) if files else []
    if found or settings is None:
        raise ConfigError(found)
    return settings


def load(path: Path, flags: Mapping[Location, Flag] | None = None, *, files: bool = False) -> Settings:
    """`parse` of a file. Raises ConfigError, also when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(str(path), "is not UTF-8", "save it as UTF-8")]) from error
    except OSError as error:
        remedy = "name the file with --config.file, readable for the exporter's user"
        raise ConfigError([Fault(str(path), f"cannot be read: {error.strerror}", remedy)]) from error
    return parse(text, str(path), flags, files=files)


def unchangeable(old: Settings, new: Settings) -> list[Fault]:
    """What a reload cannot take over, because it is fixed when the process starts."""
    return [
        Fault(f"web.{name}", f"cannot change from {before} to {after} by a reload", "restart the exporter")
        for name in ("listen_address", "telemetry_path")
        if (before := getattr(old.web, name)) != (after := getattr(new.web, name))
    ]


def _that_matter(data: dict[str, Any], flags: Mapping[Location, Flag]) -> dict[Location, Flag]:
    """Without those that switch off a collector which is not in the file: that is so already."""
    there = data.get("collectors")
    return {
        location: flag
        for location, flag in flags.items()
        if flag.value is not False
        or location[0] != "collectors"
        or (isinstance(there, dict) and there.get(location[1]))
    }


def _lay_over(data: dict[str, Any], flags: Mapping[Location, Flag]) -> None:
    """Put the flags' values into the file's data. Where something else stands in the way, validation tells it."""
    for location, flag in flags.items():
        *parents, last = location
        place: Any = data
        for step in parents:
            if isinstance(place, dict) and place.get(step) is None:
                place[step] = {}
            place = place[step] if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = flag.value


def secret(path: Path) -> str:
    """A secret's value now: re-read at each use, trailing newline dropped, and masked in the log from now on.

    Raises ConfigError.
    """
    try:
        value = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        remedy = "put the file there, readable for the exporter's user"
        raise ConfigError([Fault(str(path), f"secret cannot be read: {reason}", remedy)]) from error
    remember(value)
    return value


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


def _fault(document: Document, flags: Mapping[Location, Flag], error: Mapping[str, Any]) -> Fault:
    location = error["loc"]
    where = flags[location].name if location in flags else document.where(location)
    return Fault(where, *words(Settings, error, "docs/configuration.md"))


def _file_faults(settings: Settings, document: Document) -> list[Fault]:
    """What `check_files` finds, at the line that names the file (a default has none); nothing about stand-ins."""
    try:
        check_files(settings)
    except ConfigError as error:
        return [_placed(fault, document) for fault in error.faults if not is_stand_in(fault.where)]
    return []


def _placed(fault: Fault, document: Document) -> Fault:
    place = document.place_of(fault.where)
    return Fault(f"{place}: {fault.where}", fault.what, fault.remedy) if place else fault


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
    if settings.web.telemetry_path.startswith(("/-/", "/docs/")):
        at = document.where(("web", "telemetry_path"))
        found.append(Fault(at, "is a place of the exporter's own pages", "take another, /metrics is usual"))
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
