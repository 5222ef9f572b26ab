"""The command line: flags in the way of Prometheus' exporters, and which setting each one stands for.

In: arguments. Out: an `Options`; its `flags` are settings that count instead of the file's, each with its flag's name,
so that a mistake in one is told there. A flag that is not given changes nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exporter.collector_settings import Collectors
from exporter.fault_words import Location
from exporter.settings import Flag

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "console")
DEFAULT_FILE = Path("/etc/prep/exporter.yml")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    config_file: Path
    config_check: bool
    log_level: str
    log_format: str
    flags: Mapping[Location, Flag] = field(default_factory=dict)


def read(arguments: Sequence[str] | None, version: str) -> Options:
    """Parse; argparse ends the process with exit code 2 for a flag that does not exist."""
    given = vars(_parser(version).parse_args(arguments))
    flags = {
        location: Flag(name, given[name]) for name, location in _SETTINGS.items() if given.get(name) is not None
    } | {
        ("collectors", collector, "enabled"): Flag(f"--{'' if wanted else 'no-'}collector.{collector}", wanted)
        for collector in Collectors.model_fields
        if (wanted := given[f"collector.{collector}"]) is not None
    }
    return Options(given["config_file"], given["config_check"], given["log_level"], given["log_format"], flags)


_SETTINGS: Mapping[str, Location] = {
    "--web.listen-address": ("web", "listen_address"),
    "--web.telemetry-path": ("web", "telemetry_path"),
    "--web.config.file": ("web", "config_file"),
    "--web.max-requests": ("web", "max_requests"),
    "--web.enable-reload": ("web", "enable_reload"),
}


def _parser(version: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prep-exporter",
        description="Golden signals of a Compose platform, at /metrics. A flag counts instead of its setting.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"prep-exporter {version}")
    add = parser.add_argument
    add("--config.file", dest="config_file", type=Path, default=DEFAULT_FILE, metavar="FILE",
        help="configuration (default: %(default)s)")  # fmt: skip
    add("--config.check", dest="config_check", action="store_true",
        help="tell every mistake in the configuration and in the files that it names, and end")  # fmt: skip
    add("--log.level", dest="log_level", choices=LEVELS, default="info", help="default: %(default)s")
    add("--log.format", dest="log_format", choices=FORMATS, default="json", help="default: %(default)s")
    add("--web.listen-address", dest="--web.listen-address", metavar="HOST:PORT", help="where to listen")
    add("--web.telemetry-path", dest="--web.telemetry-path", metavar="PATH", help="where the metrics are")
    add("--web.config.file", dest="--web.config.file", type=_absolute, metavar="FILE",
        help="TLS and users, in the format of Prometheus' exporter-toolkit")  # fmt: skip
    add("--web.max-requests", dest="--web.max-requests", type=int, metavar="NUMBER", help="scrapes answered at once")
    add("--web.enable-reload", dest="--web.enable-reload", action=argparse.BooleanOptionalAction,
        help="whether POST /-/reload reads the configuration anew (SIGHUP always does)")  # fmt: skip
    for collector in Collectors.model_fields:
        add(f"--collector.{collector}", dest=f"collector.{collector}", action=argparse.BooleanOptionalAction,
            help=f"whether `{collector}` runs; what it needs to know stands in the file")  # fmt: skip
    return parser


def _absolute(text: str) -> str:
    """A path on the command line is seen from where the command was given."""
    return str(Path(text).absolute())
