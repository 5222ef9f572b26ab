"""Redis' protocol on one connection: commands out, an answer to each in, in their order.

In: commands as words. Out: bytes, whole numbers, or `ReplyError` for an error that the server answered. The parser is
hiredis, Redis' own; the whole redis-py would cost the process a quarter of its memory for PING and INFO. It must never
hold more than one long answer in memory, nor give an answer to a command that did not ask for it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from hiredis import ReplyError

Command = tuple[str | int, ...]
Answer = bytes | int | ReplyError
"""What came back of one command."""

LONGEST = 1_000_000
"""Bytes of one answer; INFO has some thousands."""

_MORE = object()
"""What the parser says when an answer is not complete."""


class NotRedisError(Exception):
    """What came is no answer of Redis to what was asked."""


class RedisConnection(asyncio.Protocol):
    """A connection, opened by `connect`. Once `broken` is set it is of no more use, and closed."""

    def __init__(self) -> None:
        self._parser = hiredis.Reader(notEnoughData=_MORE)
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._transport: asyncio.Transport | None = None
        self.broken: Exception | None = None
        """Why: the peer closed it, it is not Redis, or it said something that nobody had asked for."""
        self._refusal: ReplyError | None = None
        """The last error that the server answered: one that closes the connection says why just before."""

    @classmethod
    async def connect(cls, host: str, port: int, tls: ssl.SSLContext | None) -> RedisConnection:
        """Raises OSError (ssl.SSLError among them)."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, host, port, ssl=tls)
        return connection

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        """Send all at once and wait for an answer to each. A caller that gives up must `close`.

        Raises OSError when the connection is gone and NotRedisError.
        """
        if self.broken is not None or self._transport is None:
            raise self.broken or ConnectionError("not connected")
        if not commands:
            return []
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in commands]
        self._waiting.extend(answers)
        packed = (hiredis.pack_command(command) for command in commands)  # type: ignore[arg-type] # tuples of any length
        self._transport.write(b"".join(packed))
        await asyncio.wait(answers)
        return [answer.result() for answer in answers]

    def close(self) -> None:
        """Cut it at once; Redis needs no goodbye."""
        self._break(ConnectionAbortedError("closed here"))

    # --- What asyncio calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # of a stream it is one
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.broken is not None:
            return
        try:
            self._parser.feed(data)
            while self.broken is None and (answer := self._parser.gets()) is not _MORE:
                self._give(answer)
        except (hiredis.HiredisError, ValueError) as error:
            self._break(NotRedisError(f"no answer of Redis ({str(error)[:100]})"))
        if self._parser.len() > LONGEST:
            self._break(NotRedisError(f"an answer of more than {LONGEST:,} bytes"))

    def connection_lost(self, error: Exception | None) -> None:
        if self._refusal is not None and self._waiting:
            self._break(ConnectionResetError(str(self._refusal)))
        self._break(error or ConnectionResetError("the server closed the connection"))

    def _give(self, answer: Any) -> None:
        if not isinstance(answer, bytes | int | ReplyError):
            self._break(NotRedisError("neither text nor number"))
        elif self._waiting:
            self._refusal = answer if isinstance(answer, ReplyError) else None
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(answer)
        elif isinstance(answer, ReplyError):
            self._break(ConnectionResetError(str(answer)))  # as a server does that is full, before it closes
        else:
            self._break(NotRedisError("an answer that nobody asked for"))

    def _break(self, reason: Exception) -> None:
        """The first reason stays: what follows are its consequences."""
        if self.broken is None:
            self.broken = reason
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(self.broken)
                future.exception()  # whoever waited may have given up; then nobody else looks at it
