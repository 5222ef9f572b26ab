"""`prep-exporter`: reads its configuration, builds the collectors and serves /metrics until it is told to stop.

In: command line and configuration. Out: exit code 0 after SIGTERM or SIGINT, 2 for a wrong configuration, 1 when the
address cannot be had.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import structlog
from aiohttp import web

from exporter.build import build
from exporter.checks import check
from exporter.errors import ConfigError, Fault
from exporter.server import Routes, build_info
from exporter.settings import Settings, check_files, load
from exporter.yaml_file import Document

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_log = structlog.get_logger("exporter")


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = load(options.config_file)
        if options.config_check:
            _check(settings, options.config_file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        print(
            f"{len(error.faults)} {'mistake' if len(error.faults) == 1 else 'mistakes'} in the configuration",
            file=sys.stderr,
        )
        return 2
    if options.config_check:
        print(f"{options.config_file}: good")
        return 0
    _set_up_logging(options.log_level, options.log_format, sys.stderr)
    return asyncio.run(_serve(settings, options.listen_address or settings.web.listen_address))


def _check(settings: Settings, file: Path) -> None:
    """What the file alone cannot say: about the files it names, and by the servers. Raises ConfigError."""
    found: list[Fault] = []
    try:
        check_files(settings)
    except ConfigError as error:
        found += error.faults
    document = Document.read(file.read_text(encoding="utf-8"), str(file))
    found += asyncio.run(check(settings, document.where))
    if found:
        raise ConfigError(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prep-exporter", description="Golden signals of a Compose platform, at /metrics."
    )
    add = parser.add_argument
    add(
        "--config.file",
        dest="config_file",
        type=Path,
        default=Path("/etc/prep/exporter.yml"),
        metavar="FILE",
        help="configuration (default: %(default)s)",
    )
    add(
        "--config.check",
        dest="config_check",
        action="store_true",
        help="tell every mistake in the configuration, ask its servers for what is missing there, and end",
    )
    add("--web.listen-address", dest="listen_address", metavar="HOST:PORT", help="instead of web.listen_address")
    add("--log.level", dest="log_level", choices=sorted(_LEVELS), default="info")
    add("--log.format", dest="log_format", choices=("json", "console"), default="json")
    add("--version", action="version", version=f"prep-exporter {build_info().labels[0]}")
    return parser


def _set_up_logging(level: str, form: str, stream: TextIO) -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    logging.basicConfig(level=logging.WARNING, stream=stream, format="%(levelname)s %(name)s: %(message)s")


async def _serve(settings: Settings, address: str) -> int:
    """Run until a signal says stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine = build(settings)
    runner = web.AppRunner(Routes(settings, engine).application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        # The engine ends first: scrapes that wait are answered with what there is, instead of being waited for.
        async with engine:
            return await _listen(runner, address, stop)
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, address: str, stop: asyncio.Event) -> int:
    """Serve on `address` until `stop`; the exit code."""
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]") or None, int(port), backlog=256).start()
    except OSError as error:
        _log.error("cannot listen", address=address, error=error.strerror)
        return 1
    _log.info("listening", addresses=[f"{name[0]}:{name[1]}" for name in runner.addresses])
    await stop.wait()
    _log.info("stopping")
    return 0


if __name__ == "__main__":
    sys.exit(main())
