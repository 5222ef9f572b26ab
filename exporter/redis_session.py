"""One kept connection per Redis server, alone on it, cut at a deadline.

In: a server's settings. Out: answers to a few commands, or the errors Unreachable, Transient and Permanent. It must
never hold more than one connection, write, walk over keys (SCAN, KEYS), or keep a connection that did not answer.

Redis' protocol has no query ids: an answer that comes late would be taken for the next one's. So a connection on which
anything was left unanswered is thrown away. One that the server has closed meanwhile (its `timeout`, a restart) is
replaced in the same scrape; one that is silent is not, since a second try would only wait again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hiredis import ReplyError

from exporter.collector_settings import RedisServer
from exporter.errors import ConfigError, Permanent, Transient, Unreachable
from exporter.redis_wire import Answer, Command, NotRedisError, RedisConnection
from exporter.settings import secret

CLIENT_NAME = "prep_exporter"

_CUT_BEFORE = 0.05
"""Seconds before the caller's deadline at which a silent connection is cut."""

_PERMANENT = ("NOAUTH", "WRONGPASS", "NOPERM")
"""First words of errors that no waiting mends."""


class RedisSession:
    """The kept connection of one server."""

    def __init__(self, name: str, settings: RedisServer, *, bare: bool = False) -> None:
        """`bare`: log in without a name and without choosing a database, so with nothing that needs a right."""
        self._name = name
        self._settings = settings
        self._bare = bare
        self._kept: RedisConnection | None = None
        self._opened = 0.0

    async def open(self, until: float) -> None:
        """Have a connection that is logged in and clean, before `until` (loop's time, seconds).

        Raises Unreachable or Permanent.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(until - _CUT_BEFORE):
                if self._kept is not None and (
                    loop.time() - self._opened > self._settings.session_age or self._kept.broken is not None
                ):
                    self._drop()
                if self._kept is None:
                    await self._connect(until)
        except TimeoutError as error:
            self._drop()
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
                    answers = await connection.ask(commands)
            whole = True
        except TimeoutError as error:
            raise Unreachable(f"{self._where('ask')}: no answer until the deadline") from error
        finally:
            if not whole:
                self._drop()
        return answers

    async def close(self) -> None:
        """Cut the connection; Redis needs no goodbye."""
        self._drop()

    def _drop(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def refusal(self, answer: Answer, what: str) -> Transient | Permanent:
        """What the server answered to `what` instead of what was asked for, as one of ours."""
        if not isinstance(answer, ReplyError):
            return Transient(f"{self._where(what)}: the answer is not the one that was asked for")
        text = f"{self._where(what)}: {_words(answer)}"
        return Permanent(text) if code(answer) in _PERMANENT else Transient(text)

    async def _connect(self, until: float) -> None:
        loop, settings = asyncio.get_running_loop(), self._settings
        with self._translated("log in to"):
            hello = _hello(settings, self._bare)
            async with asyncio.timeout(min(settings.connect_timeout, max(0.0, until - loop.time() - _CUT_BEFORE))):
                connection = await RedisConnection.connect(settings.host, settings.port, _tls(settings))
                try:
                    answers = await connection.ask(hello)
                except BaseException:
                    connection.close()
                    raise
        for answer, command in zip(answers, hello, strict=True):
            if answer != b"OK":
                connection.close()
                cause = answer if isinstance(answer, ReplyError) else None
                raise self.refusal(answer, f"say {command[0]} to") from cause
        self._kept, self._opened = connection, loop.time()

    def _where(self, verb: str) -> str:
        return f"cannot {verb} redis {self._name} ({self._settings.host}:{self._settings.port})"

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            raise Permanent(f"{self._where(verb)}: {error}") from error
        except OSError as error:
            raise Unreachable(f"{self._where(verb)}: no answer ({_words(error)})") from error
        except NotRedisError as error:
            raise Unreachable(f"{self._where(verb)}: what answers there is no Redis: {error}") from error


def code(error: ReplyError) -> str:
    """The first word of an error that the server answered: NOAUTH, LOADING, ..."""
    return str(error).split(" ", 1)[0]


def _hello(settings: RedisServer, bare: bool) -> list[Command]:
    """What is said first on a connection. RESP 2: HELLO would need one more permission and says nothing needed."""
    said: list[Command] = []
    if settings.password_file:
        password = secret(settings.password_file)
        said.append(("AUTH", settings.user, password) if settings.user else ("AUTH", password))
    if bare:
        return said
    said.append(("CLIENT", "SETNAME", CLIENT_NAME))
    database = settings.sessions.database if settings.sessions else 0
    if database:
        said.append(("SELECT", database))
    return said


def _tls(settings: RedisServer) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    return ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)


def _words(error: Exception) -> str:
    """The first line of an error's message, with its class, since some have no text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
