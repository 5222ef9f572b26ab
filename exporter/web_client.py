"""HTTP requests to strangers: a session that trusts nothing of what comes back, and names looked up without queueing.

In: the hosts that will be asked. Out: an aiohttp session that keeps no connection, no cookie and no address, takes no
proxy from the environment, and unpacks nothing. It must never let one name's look-up that hangs hold up another's: the
system's resolver blocks, so each host has one thread of its own, and no second one while it hangs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection

from exporter.errors import Transient
from exporter.workers import Worker

_LOOK_UP_TIMEOUT = 60.0
"""Seconds after which nobody waits for a name; every caller has a shorter timeout of its own."""


_Found = tuple[int, int, str]
"""Family, protocol, address."""


class Unresolved(OSError):
    """The name has no address, or nobody said so in time."""


class Resolver(AbstractResolver):
    """getaddrinfo(3) in a thread for each host. Those who ask for one host at once share one look-up. Hosts that were
    not named before (of redirects) take turns on one thread.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._workers = {host: Worker(f"name {host}") for host in hosts}
        self._others = Worker("names of redirects")
        self._turn = asyncio.Lock()
        self._running: dict[str, asyncio.Task[list[_Found]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses, in the system's order. Raises Unresolved."""
        task = self._running.get(host)
        if task is None:
            task = self._running[host] = asyncio.create_task(self._look_up(host), name=f"name {host}")
            task.add_done_callback(lambda ended: self._ended(host, ended))
        try:
            found = await asyncio.shield(task)
        except (Transient, OSError, UnicodeError) as error:
            raise Unresolved(f"no address for {host}") from error
        return [_result(host, port, *each) for each in found if family in (socket.AF_UNSPEC, each[0])]

    async def close(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for worker in (*self._workers.values(), self._others):
            worker.close()

    def _ended(self, host: str, task: asyncio.Task[list[_Found]]) -> None:
        del self._running[host]
        if not task.cancelled():
            task.exception()  # seen: all who waited may have gone

    async def _look_up(self, host: str) -> list[_Found]:
        worker = self._workers.get(host)
        if worker is None:
            async with self._turn:
                return await self._ask(self._others, host)
        return await self._ask(worker, host)

    async def _ask(self, worker: Worker, host: str) -> list[_Found]:
        deadline = asyncio.get_running_loop().time() + _LOOK_UP_TIMEOUT
        found = await worker.run(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM), deadline)
        return [(each[0], each[2], str(each[4][0])) for each in found]


def _result(name: str, port: int, family: int, proto: int, address: str) -> ResolveResult:
    return ResolveResult(
        hostname=name,
        host=address,
        port=port,
        family=family,
        proto=proto,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )


class Answer(aiohttp.ClientResponse):
    """An answer that knows the certificate of whoever gave it: of the connection nothing is left when it was short."""

    certificate: Mapping[str, Any] = {}
    """As `ssl.SSLSocket.getpeercert` has it; empty without TLS."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        if connection.transport is not None:
            self.certificate = connection.transport.get_extra_info("peercert") or {}
        return await super().start(connection)


def open_session(resolver: Resolver) -> aiohttp.ClientSession:
    """A session, each of whose requests has a timeout of its caller's; the resolver stays the caller's too."""
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True, limit=0)
    return aiohttp.ClientSession(
        connector=connector,
        response_class=Answer,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"User-Agent": "prep-exporter", "Accept-Encoding": "identity"},
    )


async def read_capped(response: aiohttp.ClientResponse, cap: int) -> bytes:
    """The body up to `cap` bytes, or to its end."""
    body = bytearray()
    while len(body) < cap and (part := await response.content.read(cap - len(body))):
        body += part
    return bytes(body)
