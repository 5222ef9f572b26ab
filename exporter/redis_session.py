"""One kept connection per Redis server, alone on it, cut at a deadline.

In: a server's settings. Out: answers to a few commands, or the errors Unreachable, Transient and Permanent. It must
never hold more than one connection, write, walk over keys (SCAN, KEYS), or keep a connection that did not answer.

Redis' protocol has no query ids: an answer that comes late would be taken for the next one's. So a connection on which
anything was left unanswered is thrown away. One that the server has closed meanwhile (its `timeout`, a restart) is
replaced in the same scrape; one that is silent is not, since a second try would only wait again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import exceptions
from redis.asyncio import Connection, SSLConnection

from exporter.collector_settings import RedisServer
from exporter.errors import ConfigError, Permanent, Transient, Unreachable
from exporter.settings import secret

CLIENT_NAME = "prep_exporter"

_CUT_BEFORE = 0.05
"""Seconds before the caller's deadline at which a silent connection is cut."""

Command = tuple[str | int, ...]
Answer = bytes | int | Exception
"""What came back of one command; an exception is an error that the server answered."""


class RedisSession:
    """The kept connection of one server."""

    def __init__(self, name: str, settings: RedisServer, *, bare: bool = False) -> None:
        """`bare`: log in without a name and without choosing a database, so with nothing that needs a right."""
        self._name = name
        self._settings = settings
        self._bare = bare
        self._kept: Connection | None = None
        self._opened = 0.0

    async def open(self, until: float) -> None:
        """Have a connection that is logged in and clean, before `until` (loop's time, seconds).

        Raises Unreachable or Permanent.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(until - _CUT_BEFORE):
                if self._kept is not None and (
                    loop.time() - self._opened > self._settings.session_age or await self._is_spent(self._kept)
                ):
                    await self.close()
                if self._kept is None:
                    await self._connect(until)
        except TimeoutError as error:
            await self.close()
            raise Unreachable(f"{self._where('log in to')}: no answer until the deadline") from error

    async def ask(self, commands: Sequence[Command], until: float) -> list[Answer]:
        """Send the commands at once and read an answer to each, in order; `open` comes before.

        Errors that the server answers are values. Raises Unreachable when an answer is missing at `until`, or is none.
        """
        connection = self._kept
        if connection is None:
            raise Unreachable(f"{self._where('ask')}: not connected")
        whole = False
        try:
            async with asyncio.timeout_at(until - _CUT_BEFORE):
                with self._translated("ask"):
                    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                    answers = [await _answer(connection) for _ in commands]
            whole = True
        except TimeoutError as error:
            raise Unreachable(f"{self._where('ask')}: no answer until the deadline") from error
        finally:
            if not whole:
                await self.close()
        return answers

    async def close(self) -> None:
        """Cut the connection; Redis needs no goodbye."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.disconnect(nowait=True)

    def refusal(self, answer: Answer, what: str) -> Transient | Permanent:
        """What the server answered to `what` instead of what was asked for, as one of ours."""
        if not isinstance(answer, Exception):
            return Transient(f"{self._where(what)}: the answer is not the one that was asked for")
        text = f"{self._where(what)}: {_words(answer)}"
        return Permanent(text) if isinstance(answer, _PERMANENT) else Transient(text)

    async def _is_spent(self, connection: Connection) -> bool:
        """Whether the server has closed it, or has said something that nobody asked for."""
        try:
            return bool(await connection.can_read())
        except (exceptions.RedisError, OSError):
            return True

    async def _connect(self, until: float) -> None:
        loop, settings = asyncio.get_running_loop(), self._settings
        with self._translated("log in to"):
            connection = _new(settings, self._bare)
            try:
                async with asyncio.timeout(min(settings.connect_timeout, max(0.0, until - loop.time() - _CUT_BEFORE))):
                    await connection.connect()  # type: ignore[no-untyped-call] # as redis has it
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
        self._kept, self._opened = connection, loop.time()

    def _where(self, verb: str) -> str:
        return f"cannot {verb} redis {self._name} ({self._settings.host}:{self._settings.port})"

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            raise Permanent(f"{self._where(verb)}: {error}") from error
        except _PERMANENT as error:
            raise Permanent(f"{self._where(verb)}: {_words(error)}") from error
        except (exceptions.RedisError, OSError) as error:
            raise Unreachable(f"{self._where(verb)}: no answer ({_words(error)})") from error
        except (ValueError, EOFError) as error:  # a line without an end, a length that is no number
            raise Unreachable(f"{self._where(verb)}: what answers there is no Redis") from error


_PERMANENT = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.NoPermissionError,
)


async def _answer(connection: Connection) -> Answer:
    """One answer. redis-py raises some of the server's errors and returns others; here all are values.

    Only those that say that the connection itself is gone are raised.
    """
    try:
        answer: Any = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except (exceptions.BusyLoadingError, exceptions.AuthenticationError, exceptions.ResponseError) as error:
        return error
    if not isinstance(answer, bytes | int):
        raise exceptions.InvalidResponse("neither text nor number")
    return answer


def _new(settings: RedisServer, bare: bool) -> Connection:
    """A connection that is not opened yet. No deadline of redis-py's own, no retry, no library's name told.

    RESP 2, because HELLO would need one more permission and says nothing that is needed.
    """
    common: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "username": settings.user,
        "password": secret(settings.password_file) if settings.password_file else None,
        "db": settings.sessions.database if settings.sessions and not bare else 0,
        "client_name": None if bare else CLIENT_NAME,
        "driver_info": None,
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": settings.connect_timeout,
    }
    if settings.tls:
        return SSLConnection(**common, ssl_ca_certs=str(settings.ca_file) if settings.ca_file else None)
    return Connection(**common)


def _words(error: Exception) -> str:
    """The first line of an error's message, with its class, since some have no text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
