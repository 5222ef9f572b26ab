"""`prep-exporter`: reads its configuration, builds the collectors and serves /metrics until it is told to stop.

In: command line and configuration. Out: exit code 0 after SIGTERM or SIGINT, 2 for a wrong configuration, 1 when the
address cannot be had. SIGHUP reads the configuration anew; a mistake in it changes nothing.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

import structlog
from aiohttp import web

from exporter import flags, logs, web_config
from exporter.build import build
from exporter.checks import check
from exporter.errors import ConfigError, Fault
from exporter.flags import Options
from exporter.listener import Listener
from exporter.redaction import clean
from exporter.running import Running
from exporter.series_limit import SeriesLimit
from exporter.server import Routes, build_info
from exporter.settings import Settings, load, unchangeable
from exporter.web_config import WebConfig
from exporter.yaml_file import Document

_log = structlog.get_logger("exporter")


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    options = flags.read(arguments, build_info().labels[0])
    try:
        settings, served = _read_first(options)
        if options.config_check:
            _check(settings, options)
    except ConfigError as error:
        print(clean(str(error)), file=sys.stderr)
        print(
            f"{len(error.faults)} {'mistake' if len(error.faults) == 1 else 'mistakes'} in the configuration",
            file=sys.stderr,
        )
        return 2
    if options.config_check:
        print(f"{options.config_file}: good")
        return 0
    logs.set_up(options.log_level, options.log_format, sys.stderr)
    return asyncio.run(_serve(options, settings, served))


def _check(settings: Settings, options: Options) -> None:
    """What the file alone cannot say: of the files that it names, and by its servers. Raises ConfigError."""
    found: list[Fault] = []
    try:
        load(options.config_file, options.flags, files=True)
    except ConfigError as error:
        found += error.faults
    document = Document.read(options.config_file.read_text(encoding="utf-8"), str(options.config_file))
    found += asyncio.run(check(settings, document.where))
    if found:
        raise ConfigError(found)


def _read_first(options: Options) -> tuple[Settings, WebConfig]:
    """`read` for a start, or for a check: of a configuration with mistakes the files that it names are checked too."""
    try:
        return read(options, files=False)
    except ConfigError:
        if options.config_check:
            read(options, files=True)  # raises the same mistakes and those of the files
        raise


def read(options: Options, *, files: bool) -> tuple[Settings, WebConfig]:
    """The configuration and the web configuration that it names. Raises ConfigError with the mistakes of both.

    `files`: look also whether the other files that are named can be used.
    """
    settings = load(options.config_file, options.flags, files=files)
    return settings, web_config.load(settings.web.config_file)


class Process:
    """What runs, and how all of it is read anew."""

    def __init__(self, options: Options, settings: Settings, served: WebConfig) -> None:
        self._options = options
        limit = SeriesLimit(settings.scrape.max_series)
        self.listener = Listener(settings.web.config_file, served)
        self.running = Running(settings, self._read, lambda found: build(found, limit))
        self.routes = Routes(self.running, self.listener, self.reload)
        self._asked = asyncio.Event()

    def ask_for_reload(self) -> None:
        """SIGHUP: several in a row are one."""
        self._asked.set()

    async def follow(self) -> None:
        """Reload whenever it was asked for, for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.reload()

    async def reload(self) -> tuple[Fault, ...]:
        """Read the configuration anew, and the web configuration with it; a mistake in either refuses both."""
        faults = await self.running.reload()
        return faults or await self.listener.read(self.running.settings.web.config_file)

    def _read(self, before: Settings) -> Settings:
        settings, _ = read(self._options, files=True)
        if faults := unchangeable(before, settings):
            raise ConfigError(faults)
        return settings


async def _serve(options: Options, settings: Settings, served: WebConfig) -> int:
    """Run until a signal says stop."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    process = Process(options, settings, served)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, process.ask_for_reload)
    runner = web.AppRunner(process.routes.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    tasks = [asyncio.create_task(work) for work in (process.listener.watch(), process.follow())]
    try:
        # The engine ends first: scrapes that wait are answered with what there is, instead of being waited for.
        async with process.running:
            return await _listen(process.listener, runner, settings.web.listen_address, stop)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()
        process.listener.close()


async def _listen(listener: Listener, runner: web.AppRunner, address: str, stop: asyncio.Event) -> int:
    """Serve on `address` until `stop`; the exit code."""
    try:
        await listener.open(runner, address)
    except OSError as error:
        _log.error("cannot listen", address=address, error=error.strerror)
        return 1
    _log.info("listening", addresses=list(listener.addresses), tls=listener.config.ssl is not None)
    await stop.wait()
    _log.info("stopping")
    return 0


if __name__ == "__main__":
    sys.exit(main())
