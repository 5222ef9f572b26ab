"""The socket that webhook, API and metrics are served on, in plain or by TLS that follows its files.

In: `listen` of the settings and a runner. Out: a listening socket until `close`. A certificate that changes counts
within a second; one that cannot be used changes nothing and is told once. It never stops listening for a change: the
same sockets are handed from the old site to the new one, and whoever is just connecting waits in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

import structlog
from aiohttp import web

from remediator import tls
from remediator.errors import ConfigError
from remediator.settings import Listen

log = structlog.get_logger(__name__)

LOOK_EVERY = 1.0  # seconds from one look at the files to the next


class Listener:
    """Open it, and it serves until the runner is cleaned up; `watch` is a task of the server's group."""

    def __init__(self, settings: Listen, runner: web.AppRunner) -> None:
        self._settings = settings
        self._runner = runner
        self._sockets: list[socket.socket] = []
        self._sites: list[web.SockSite] = []
        self._stamp: tls.Stamp = ()
        self._told = ""

    async def open(self) -> tuple[str, int]:
        """Listen; the address and port. Raises OSError, and ConfigError for TLS files that cannot be used."""
        self._stamp, context = await asyncio.to_thread(self._read)
        running = asyncio.get_running_loop()
        server = await running.create_server(
            asyncio.Protocol, self._settings.host, self._settings.port, start_serving=False
        )
        try:
            self._sockets = [each.dup() for each in server.sockets]
        finally:
            server.close()
        await self._serve(context)
        address = self._sockets[0].getsockname()
        return str(address[0]), int(address[1])

    def close(self) -> None:
        """Let the sockets go; the runner's clean-up ends the sites."""
        for each in self._sockets:
            each.close()

    async def watch(self) -> None:
        """Follow the files until cancelled."""
        while (settings := self._settings.tls) is not None:
            await asyncio.sleep(LOOK_EVERY)
            if await asyncio.to_thread(tls.stamp, settings) != self._stamp:
                await self._take_over()

    async def _take_over(self) -> None:
        """Read anew. What cannot be used is tried again each time: certificate and key change one after the other."""
        try:
            self._stamp, context = await asyncio.to_thread(self._read)
        except ConfigError as error:
            if str(error) != self._told:
                log.error("TLS files refused, the former ones hold", faults=[str(fault) for fault in error.faults])
            self._told = str(error)
            return
        self._told = ""
        await self._serve(context)
        # Whoever was let in by an authority that may be gone now must show a certificate again.
        for connection in self._runner.server.connections if self._runner.server else ():
            connection.close()
        log.info("TLS files taken over")

    def _read(self) -> tuple[tls.Stamp, ssl.SSLContext | None]:
        """The stamp from before the reading: a change in between is then seen at the next look."""
        settings = self._settings.tls
        return ((), None) if settings is None else (tls.stamp(settings), tls.context(settings))

    async def _serve(self, context: ssl.SSLContext | None) -> None:
        """New sites on the same sockets, then the end of the old ones."""
        old, self._sites = self._sites, []
        for each in self._sockets:
            site = web.SockSite(self._runner, each.dup(), ssl_context=context)
            await site.start()
            self._sites.append(site)
        for site in old:
            await site.stop()
