"""A connection to a Redis server as the remediator's own user: commands out, an answer to each in, in order.

In: an entry of `settings.redis`. Out: bytes, numbers, lists, None, or `ReplyError` for an error that the server
answered. Password by file, read at each use. It must never send a command twice, nor use a connection again on which
an answer is missing: Redis' protocol has no ids, a late answer would be taken for the next one's.

A connection is short, but for one that `redis_spare.py` may keep: where every connection of the server is taken, it is
the only way in. It is lent to one at a time, and kept on only when every answer on it was read.

The parser is hiredis, Redis' own. Not redis-py (docs/decisions/0005): it reconnects and sends again by itself, which an
effect must not, and would cost 22 MB of memory.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import hiredis
from hiredis import ReplyError

from remediator.errors import ConfigError, Permanent, RemediatorError, Transient
from remediator.fetch import describe
from remediator.settings import Redis, secret

NAME = "prep-remediator"
Command = Sequence[str | int | bytes]
Answer = Any  # bytes, int, None, a list of these, or ReplyError: narrowed where it is read
LONGEST = 8_000_000
"""Bytes of one answer; CLIENT LIST of 10,000 clients has some 4 million."""
AGAIN = 0.1  # seconds until the next try where every connection is taken: clients come and go
_MORE = object()
_REFUSED = ("NOAUTH", "WRONGPASS", "NOPERM")


class Link:
    """An open connection. After any exception it is of no more use."""

    def __init__(self, where: str, timeout: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.where = where
        self._timeout = timeout
        self._reader, self._writer = reader, writer
        self._parser = hiredis.Reader(notEnoughData=_MORE)
        self._missing = 0
        self.lent = False
        """Is it the kept one, to be given back?"""

    @property
    def whole(self) -> bool:
        """Has every command had its answer? Only then may anything else be asked on it."""
        return self._missing == 0 and not self._writer.transport.is_closing() and not self._reader.at_eof()

    def send(self, commands: Sequence[Command]) -> None:
        """All of them in one write: short ones leave in one segment and are read by the server at once."""
        packed = (hiredis.pack_command(tuple(command)) for command in commands)  # type: ignore[arg-type] # any length
        self._missing += len(commands)
        self._writer.write(b"".join(packed))

    async def receive(self) -> Answer:
        """The next answer. Raises Transient when the connection breaks before it."""
        try:
            while (answer := self._parser.gets()) is _MORE:
                data = await self._reader.read(65536)
                if not data:
                    raise Transient(f"{self.where} closed the connection")
                self._parser.feed(data)
                if self._parser.len() > LONGEST:
                    raise Transient(f"{self.where}: an answer of more than {LONGEST:,} bytes")
        except OSError as error:
            raise Transient(f"{self.where}: {describe(error)}") from error
        except hiredis.HiredisError as error:
            raise Permanent(f"{self.where} is no Redis: {describe(error)}") from error
        self._missing -= 1
        return answer

    async def ask(self, *commands: Command) -> list[Answer]:
        """Send all at once, read an answer to each. Errors that the server answers are values.

        Raises Transient also when they have not all come within the settings' timeout.
        """
        try:
            async with asyncio.timeout(self._timeout):
                self.send(commands)
                return [await self.receive() for _ in commands]
        except TimeoutError as error:
            words = " ".join(str(word) for word in commands[0][:2])
            raise Transient(f"{self.where}: no answer to {words} within {self._timeout:g} s") from error

    def close(self) -> None:
        """Cut it at once; Redis needs no goodbye, and drops what it has not begun."""
        self._writer.transport.abort()


SPARE: dict[tuple[str, int, str | None], Link] = {}
"""The kept connection of each server while nobody has it; filled by `redis_spare.py`, empty where that does not run."""


def key_of(redis: Redis) -> tuple[str, int, str | None]:
    """Which server, as whom."""
    return redis.host, redis.port, redis.user


@asynccontextmanager
async def connected(
    redis: Redis, name: str = NAME, *, within: float | None = None, spare: bool = True
) -> AsyncIterator[Link]:
    """A connection that is logged in and carries `name`; `within` seconds (default: the settings') bounds the login.

    The kept one where the server lets nobody in; with `spare` False never: a probe asks whether it lets in. Raises
    Transient when the server does not take it now, Permanent when it refuses user or password. A server that still
    loads its data lets in; it then says so to every question.
    """
    limit = redis.timeout if within is None else within
    where = f"Redis {redis.host}:{redis.port}"
    turned_away: list[str] = []
    try:
        async with asyncio.timeout(limit):
            link = await _admitted(redis, name, where, turned_away, spare=spare)
    except TimeoutError as error:
        why = f": {turned_away[-1]}" if turned_away else ""
        raise Transient(f"{where} did not let us in within {limit:g} s{why}") from error
    try:
        yield link
    except RemediatorError:
        _give_back(redis, link)  # refused, and every answer was read: it may be the only way in
        raise
    except BaseException:
        link.close()
        raise
    _give_back(redis, link)


def _give_back(redis: Redis, link: Link) -> None:
    """The kept one is kept on while no answer is missing on it; any other is closed."""
    if link.lent and link.whole and key_of(redis) not in SPARE:
        SPARE[key_of(redis)] = link
    else:
        link.close()


async def _admitted(redis: Redis, name: str, where: str, turned_away: list[str], *, spare: bool) -> Link:
    """Logged in; asked again while it takes the connection and closes it: it is full, until any client leaves."""
    while True:
        reader, writer = await _open(redis, where)
        link = Link(where, redis.timeout, reader, writer)
        try:
            await _log_in(link, redis, name)
            return link
        except Transient as error:
            link.close()
            turned_away.append(str(error))
        except BaseException:
            link.close()
            raise
        if spare and (kept := await lend(redis, name)) is not None:
            return kept
        await asyncio.sleep(AGAIN)


async def open_once(redis: Redis, name: str = NAME) -> Link:
    """One try, within the settings' timeout. Raises Transient, also when the server is full, or Permanent."""
    where = f"Redis {redis.host}:{redis.port}"
    try:
        async with asyncio.timeout(redis.timeout):
            reader, writer = await _open(redis, where)
            link = Link(where, redis.timeout, reader, writer)
            try:
                await _log_in(link, redis, name)
            except BaseException:
                link.close()
                raise
            return link
    except TimeoutError as error:
        raise Transient(f"{where} did not let us in within {redis.timeout:g} s") from error


async def lend(redis: Redis, name: str = NAME) -> Link | None:
    """The kept connection, if there is one that still answers; now it belongs to the caller, and carries `name`."""
    link = SPARE.pop(key_of(redis), None)
    if link is None:
        return None
    try:
        (named,) = await link.ask(("CLIENT", "SETNAME", name))
        if named != b"OK":
            raise refusal(link.where, named)
    except RemediatorError:
        link.close()
        return None
    except BaseException:
        link.close()
        raise
    link.lent = True
    return link


async def _open(redis: Redis, where: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        context = ssl.create_default_context(cafile=redis.ca_file) if redis.tls else None
        return await asyncio.open_connection(redis.host, redis.port, ssl=context)
    except (OSError, UnicodeError) as error:  # the latter: a host that can be no name
        raise Transient(f"{where} takes no connection: {describe(error)}") from error


async def _log_in(link: Link, redis: Redis, name: str) -> None:
    hello: list[Command] = []
    if redis.password_file is not None:
        try:
            password = secret(redis.password_file)
        except ConfigError as error:
            raise Permanent(f"{link.where}: {error}") from error
        hello.append(("AUTH", redis.user, password) if redis.user else ("AUTH", password))
    for answer in await link.ask(*hello, ("CLIENT", "SETNAME", name)):
        if isinstance(answer, ReplyError):
            raise refusal(link.where, answer)


def code(answer: Answer) -> str:
    """The first word of an error that the server answered: NOAUTH, LOADING, …; "" for what is no error."""
    return str(answer).split(" ", 1)[0] if isinstance(answer, ReplyError) else ""


def refusal(where: str, answer: Answer) -> RemediatorError:
    """What was answered instead of what was asked for, as one of ours."""
    text = f"{where}: {str(answer)[:200]}"
    return Permanent(text) if code(answer) in _REFUSED else Transient(text)
