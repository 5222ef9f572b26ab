"""A TCP proxy that breaks connections on purpose, between any client and any server.

It knows nothing of what it carries; patterns are looked for in the bytes that the client sends, also across two reads.
It runs an event loop in a thread of its own; every method may be called from a test, with or without a loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.support.waiting import NotInTime, free_port, wait_until

T = TypeVar("T")
_CHUNK = 65536
Address = int | tuple[str, int] | Path


class Hold:
    """A place where the proxy stops: the request that holds `pattern` waits, not a byte of it sent on yet.

    skip   how many requests that match pass before one is held
    """

    def __init__(self, proxy: TcpProxy, pattern: bytes, where: str, skip: int) -> None:
        self._proxy = proxy
        self.pattern = pattern
        self.where = where
        self._skip = skip
        self._verdict: asyncio.Future[bool] | None = None
        self.held = threading.Event()

    def wait(self, deadline: float = 15.0) -> Self:
        """Wait until a request is held here."""
        if not self.held.wait(deadline):
            raise NotInTime(f"no {self.where} with {self.pattern!r} came by within {deadline:g} s")
        return self

    def release(self) -> None:
        """Send on what is held; later matches pass."""
        self._proxy.call(self._decide(True))

    def drop(self) -> None:
        """Reset both sides of the connection that is held, its bytes never sent on."""
        self._proxy.call(self._decide(False))

    async def _decide(self, verdict: bool) -> None:
        if self in self._proxy.holds:
            self._proxy.holds.remove(self)
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(verdict)

    def counts(self) -> bool:
        """Is this match the one to hold? Called for each match, in the proxy's loop."""
        if self.held.is_set():
            return False
        self._skip -= 1
        return self._skip < 0

    async def ask(self) -> bool:
        """Hold here until the test decides; True = send on."""
        self._verdict = asyncio.get_running_loop().create_future()
        self.held.set()
        return await self._verdict


class TcpProxy:
    """A proxy on 127.0.0.1 in front of `upstream`: a port on 127.0.0.1, (host, port), or the path of a Unix socket.

    delay           seconds before each piece is sent on, in both directions
    garbage         what the client gets instead of each piece of the server's answer; None = the answer
    connections     how many have been accepted since the start
    sent, received  bytes sent on to the server, and back to the client
    lasting         a client that is gone only ends its requests: what it had sent before still arrives at the server
    """

    def __init__(self, upstream: Address) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.upstream = upstream
        self.delay = 0.0
        self.garbage: bytes | None = None
        self.connections = 0
        self.sent = 0
        self.received = 0
        self.lasting = False
        self.holds: list[Hold] = []
        self._resets: dict[str, int] = {}
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._going: asyncio.Event | None = None
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._run, name="tcp-proxy", daemon=True)

    # Life

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        self.call(self._listen())
        return self

    def close(self) -> None:
        """End every connection and stop listening, for good."""
        if self._loop.is_closed():
            return
        self.call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # Faults

    def freeze(self) -> None:
        """Carry nothing from now on; connections stay open and new ones are accepted."""
        self.call(self._set_frozen(True))

    def thaw(self) -> None:
        """Carry again, what has waited first."""
        self.call(self._set_frozen(False))

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        self.call(self._stop_listening())

    def accept(self) -> None:
        """Accept again after refuse()."""
        self.call(self._listen())

    def reset(self) -> None:
        """Reset (RST) every open connection on both sides."""
        self.call(self._reset_all())

    def reset_after_request(self, count: int) -> None:
        """Reset a connection once the client has sent `count` bytes over it, those sent on. None are reset for 0."""
        self._resets["request"] = count

    def reset_after_answer(self, count: int) -> None:
        """Reset a connection once the server has answered `count` bytes, those sent on: a torn answer."""
        self._resets["answer"] = count

    def hold_on(self, pattern: bytes, skip: int = 0) -> Hold:
        """Hold the request in which `pattern` is seen, before any byte of that piece reaches the server."""
        return self.call(self._add(Hold(self, pattern, "request", skip)))

    def hold_answer_on(self, pattern: bytes, skip: int = 0) -> Hold:
        """Hold the server's answer in which `pattern` is seen: the effect is done, the client does not know."""
        return self.call(self._add(Hold(self, pattern, "answer", skip)))

    def wait_connections(self, count: int, deadline: float = 10.0) -> None:
        """Wait until `count` connections have been accepted since the start."""
        wait_until(lambda: self.connections >= count, f"{count} connections through the proxy", deadline)

    @property
    def open_connections(self) -> int:
        return len(self._links)

    # The loop's side

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something in the proxy's loop and wait for it, 10 s at most."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _listen(self) -> None:
        if self._going is None:
            self._going = asyncio.Event()
            self._going.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _shut(self) -> None:
        await self._stop_listening()
        await self._reset_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _set_frozen(self, frozen: bool) -> None:
        assert self._going is not None
        if frozen:
            self._going.clear()
        else:
            self._going.set()

    async def _reset_all(self) -> None:
        for link in list(self._links):
            link.abort()

    async def _add(self, hold: Hold) -> Hold:
        self.holds.append(hold)
        return hold

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # Only close() cancels this; the streams of Python 3.11 would report it as a failure of theirs.
        with contextlib.suppress(asyncio.CancelledError):
            await self._link(reader, writer)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await self._connect()
        except OSError:
            _abort(writer)
            return
        link = _Link(self, writer, upstream_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                link.pump("request", reader, upstream_writer), link.pump("answer", upstream_reader, writer)
            )
        finally:
            self._links.discard(link)
            link.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.upstream, Path):
            return await asyncio.open_unix_connection(str(self.upstream))
        host, port = ("127.0.0.1", self.upstream) if isinstance(self.upstream, int) else self.upstream
        return await asyncio.open_connection(host, port)

    async def pass_through(self, link: _Link, where: str, piece: bytes, seen: bytes) -> bool:
        """Wait as the faults say before `piece` is sent on; False = reset instead. `seen` ends with the piece."""
        for hold in list(self.holds):
            matches = hold.where == where and _fresh_match(hold.pattern, seen, len(piece))
            if matches and hold.counts() and not await hold.ask():
                return False
        if self.delay:
            await asyncio.sleep(self.delay)
        assert self._going is not None
        await self._going.wait()
        return not link.aborted

    def said(self, where: str, piece: bytes) -> bytes:
        """What is sent on of this piece: an answer may be made garbage."""
        return piece if where == "request" or self.garbage is None else self.garbage

    def allowance(self, where: str, already: int) -> int | None:
        """How many more bytes a connection may carry in this direction before it is reset; None = any number."""
        limit = self._resets.get(where, 0)
        return max(0, limit - already) if limit else None

    def count(self, where: str, size: int) -> None:
        """Add to the bytes carried."""
        if where == "request":
            self.sent += size
        else:
            self.received += size

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Link:
    """One connection through the proxy: two writers that end together."""

    def __init__(self, proxy: TcpProxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writers = (client, server)
        self.aborted = False

    async def pump(self, where: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction until its end; an error or a fault resets both."""
        carried = 0
        seen = b""
        try:
            while piece := await reader.read(_CHUNK):
                seen = seen[-1024:] + piece
                if not await self._proxy.pass_through(self, where, piece, seen):
                    return self.abort()
                piece = self._proxy.said(where, piece)
                allowed = self._proxy.allowance(where, carried)
                piece = piece if allowed is None else piece[:allowed]
                carried += len(piece)
                self._proxy.count(where, len(piece))  # before the peer can know
                writer.write(piece)
                await writer.drain()
                if allowed is not None and len(piece) >= allowed:
                    return self.abort()
            writer.write_eof()
        except (ConnectionError, OSError, RuntimeError):
            if where != "request" or not self._proxy.lasting:
                return self.abort()
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()  # a reset could overtake what has just been sent on

    def abort(self) -> None:
        """Reset both sides."""
        self.aborted = True
        for writer in self._writers:
            _abort(writer)


def _fresh_match(pattern: bytes, seen: bytes, fresh: int) -> bool:
    """Does the pattern end within the last `fresh` bytes? (One that ended before has been looked at.)"""
    return seen.find(pattern, max(0, len(seen) - fresh - len(pattern) + 1)) >= 0


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN: SO_LINGER with 0 seconds (socket(7))."""
    found = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if found is not None and found.family != socket.AF_UNIX:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
