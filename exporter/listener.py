"""The sockets that the exporter listens on, and the web configuration that they are served with.

In: an address, and the web configuration's file. Out: sites of aiohttp that follow the file: it is read again when it,
or a file that it names, changes. A mistake in it changes nothing, is told once in the log and shown as a series. It
must never stop listening for a change: the same sockets are handed from the old sites to the new ones, so clients that
are just connecting wait in the kernel's queue, and requests under way go on.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import structlog
from aiohttp import web

from exporter import web_config
from exporter.catalog import itself as catalog
from exporter.errors import ConfigError, Fault, Transient
from exporter.samples import Sample
from exporter.web_config import WebConfig
from exporter.workers import Worker

_log = structlog.get_logger("exporter.listener")

_LOOK_EVERY = 1.0
"""Seconds from one look at the files' times and sizes to the next."""
_READ_WITHIN = 10.0
"""Seconds for reading the files; one on a dead mount hangs."""
_BACKLOG = 256

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Listener:
    """Open it, and it serves until it is closed."""

    def __init__(self, file: Path | None, first: WebConfig) -> None:
        """`file`: the web configuration file; `first`: what was read from it at the start."""
        self.file = file
        self.config = first
        self._stamp = _stamp(first.watched)
        self._worker = Worker("web configuration")
        self._reading = asyncio.Lock()
        self._runner: web.AppRunner | None = None
        self._sockets: list[socket.socket] = []
        self._sites: list[web.SockSite] = []
        self._successful = True
        self._told: tuple[Fault, ...] = ()

    async def open(self, runner: web.AppRunner, address: str) -> None:
        """Listen on `host:port`; an empty host is every interface. Raises OSError."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, host.strip("[]") or None, int(port), start_serving=False)
        try:
            self._sockets = [each.dup() for each in server.sockets]
        finally:
            server.close()
        self._runner = runner
        await self._serve()

    def close(self) -> None:
        """Let the sockets go; the runner's clean-up ends the sites."""
        for each in self._sockets:
            each.close()
        self._worker.close()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, `host:port`."""
        return tuple(f"{name[0]}:{name[1]}" for name in (each.getsockname() for each in self._sockets))

    def samples(self) -> tuple[Sample, ...]:
        """Whether the file was good when it was last read; nothing without a file."""
        if self.file is None:
            return ()
        return (Sample(catalog.WEB_CONFIG_SUCCESSFUL, (), float(self._successful)),)

    async def watch(self) -> None:
        """Follow the files for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self.file is not None:
                await self._look()

    async def read(self, file: Path | None) -> tuple[Fault, ...]:
        """Read the file, which may be another one than before, and serve by it; the mistakes, () when there are none.

        With a mistake what was read before still holds, and the file before is still the one that is watched.
        """
        if file is None and self.file is None:
            return ()
        async with self._reading:
            return await self._read(file)

    async def _look(self) -> None:
        """Read again what has changed; and, after a mistake, until there is none: a file that is new may mend it."""
        loop = asyncio.get_running_loop()
        async with self._reading:
            try:
                stamp = await self._worker.run(lambda: _stamp(self.config.watched), loop.time() + _LOOK_EVERY)
            except Transient:
                return  # a mount hangs: what was read holds
            if stamp != self._stamp or not self._successful:
                await self._read(self.file)

    async def _read(self, file: Path | None) -> tuple[Fault, ...]:
        loop = asyncio.get_running_loop()
        try:
            stamp, config = await self._worker.run(lambda: _read(file), loop.time() + _READ_WITHIN)
        except ConfigError as error:
            return self._refuse(error.faults)
        except Transient as error:
            return self._refuse((Fault(str(file), str(error)),))
        self.file, self.config, self._stamp = file, config, stamp
        self._successful, self._told = True, ()
        await self._serve()
        _log.info("web configuration taken over", file=str(file), tls=config.ssl is not None, users=len(config.users))
        return ()

    def _refuse(self, faults: Sequence[Fault]) -> tuple[Fault, ...]:
        found = tuple(faults)
        self._successful = False
        if found != self._told:
            _log.error("web configuration refused, the former one holds", faults=[str(fault) for fault in found])
        self._told = found
        return found

    async def _serve(self) -> None:
        """New sites on the same sockets, then the end of the old ones."""
        if self._runner is None:
            return
        old, self._sites = self._sites, []
        for each in self._sockets:
            site = web.SockSite(self._runner, each.dup(), ssl_context=self.config.ssl, backlog=_BACKLOG)
            await site.start()
            self._sites.append(site)
        for site in old:
            await site.stop()


def _read(file: Path | None) -> tuple[_Stamp, WebConfig]:
    """The configuration, and the stamp of what it was made of.

    Which files those are is known only after a reading; when one changed meanwhile, what was read may be of both times
    and is read once more.
    """
    config = web_config.load(file)
    stamp = _stamp(config.watched)
    again = web_config.load(file)
    return (stamp, again) if again.watched == config.watched else (_stamp(()), again)


def _stamp(files: Sequence[Path]) -> _Stamp:
    """What tells that a file has changed: its time, size and number (a renamed one has another)."""
    return tuple(_one_stamp(file) for file in files)


def _one_stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
