"""One kept PostgreSQL session per server, and the fresh login that says whether others could come in.

In: a server's settings. Out: a read-only transaction whose statements end before a deadline, `log_in()`, or the errors
Unreachable, Transient and Permanent. It must never hold more than one session, write, or leave a session behind that
did not answer.

**One session, and `up` by a fresh login.** Readings go over one kept session, so a server whose slots are all taken
still tells its numbers (which is when they matter). But a kept session proves nothing to a client that has yet to
log in, so `up` is a second, full login per scrape: only that one sees "too many clients", reserved slots, a revoked
role or a postmaster that no longer forks. It is made after the readings, only on a server that has just answered, and
closed at once; when the kept session had to be opened in this scrape, that login was the fresh one. A server that did
not answer gets no second attempt in the same scrape: at most one connection is ever left hanging, and it is cut at
the deadline.

**Deadlines.** The server is told first (`SET LOCAL statement_timeout`, so nothing leaks through a pooler), a little
before ours, so that a live server ends its query itself and the session stays good. If it stays silent, the
connection is cut at our end without asking it (PostgreSQL's own cancel request needs a new connection, which a frozen
server would not answer either); the server notices when it writes, at the latest at its own statement_timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import asyncpg

from exporter.collector_settings import PostgresServer
from exporter.errors import ConfigError, ExporterError, Permanent, Transient, Unreachable
from exporter.settings import secret

APPLICATION_NAME = "prep_exporter"

_CUT_BEFORE = 0.05
"""Seconds before the caller's deadline at which a silent connection is cut."""
_TELL_BEFORE = 0.2
"""Seconds before the deadline at which the server is to give up by itself."""
_LOCK_SHARE = 4
"""A lock is waited for during this part of the time (1/4): the rest is for the collectors that wait behind."""
_FRESH = 1.0
"""A session that was opened less than this many seconds ago proves that a client can log in."""

_PERMANENT = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.SyntaxOrAccessError,
)

# The last one is what asyncpg raises when the server's goodbye and our next statement cross.
_LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Turn:
    """A place in the row before a session, held from the moment of asking: who is asked first reads first.

    With a plain lock a slow cursor could come before the core's numbers, by the chance of the event loop's order.
    """

    def __init__(self, before: Turn | None) -> None:
        self._before = before
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def come(self, deadline: float) -> bool:
        """Wait until those before are done; False when they are not by `deadline` (loop's time)."""
        if self._before is not None and not self._before._over.done():
            await asyncio.wait({self._before._over}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
            if not self._before._over.done():
                return False
        self._before = None
        return True

    def end(self) -> None:
        """Let the next one in, at once or when those before are done; again does nothing."""
        if self._before is not None and not self._before._over.done():
            self._before._over.add_done_callback(lambda _: self._finish())
        else:
            self._finish()

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


class PostgresSession:
    """The kept session of one server. Collectors of that server use it one after the other."""

    def __init__(self, name: str, settings: PostgresServer) -> None:
        self._name = name
        self._settings = settings
        self._last: Turn | None = None
        self._kept: asyncpg.Connection | None = None
        self._opened = 0.0
        self._proved = float("-inf")
        """When a login last succeeded (loop's time); never, once one has failed since."""
        self._refused: tuple[float, ExporterError] | None = None
        """The deadline of the scrape whose login failed last, and why. None once one has succeeded."""
        self._leaving: asyncio.Task[None] | None = None
        """The goodbye of the last fresh login, which no scrape waits for."""

    def turn(self) -> Turn:
        """Take a place in the row now, for a `transaction` soon. Whoever takes one must `end()` it."""
        self._last = turn = Turn(self._last)
        return turn

    @asynccontextmanager
    async def transaction(self, deadline: float, turn: Turn | None = None) -> AsyncIterator[asyncpg.Connection]:
        """A read-only transaction on the kept session, alone on it, over at `deadline` (loop's time, seconds).

        `turn`: a place taken before; None takes one now. Raises Unreachable (no answer), Transient (starting up, ended
        by its own limit, others still before us) or Permanent (a grant or table is missing).
        """
        loop = asyncio.get_running_loop()
        until = min(deadline, loop.time() + self._settings.query_timeout)
        turn = turn or self.turn()
        try:
            if not await turn.come(until):
                raise Transient(f"postgres {self._name}: the session was busy until the deadline")
            with self._translated("read from"):
                connection = await self._connection(deadline, until)
                async with self._begun(connection, until):
                    yield connection
        finally:
            turn.end()

    async def log_in(self, deadline: float) -> None:
        """Log in as a new client would; raises Unreachable, Transient or Permanent when that fails before `deadline`.

        A login within the last second, for whatever purpose, is the answer already.
        """
        loop = asyncio.get_running_loop()
        if loop.time() - self._proved < _FRESH:
            return
        await self._have_left()
        connection = await self._connect(deadline)
        self._leaving = asyncio.create_task(self._leave(connection), name=f"goodbye to {self._name}")

    async def close(self) -> None:
        """Say goodbye to the server, or cut the connection when it does not answer at once."""
        await self._have_left()
        if self._kept is not None:
            with suppress(ExporterError), self._translated("leave"):
                await self._kept.close(timeout=_TELL_BEFORE)
        self._drop()

    async def _leave(self, connection: asyncpg.Connection) -> None:
        with suppress(ExporterError), self._translated("leave"):
            await connection.close(timeout=_TELL_BEFORE)
        connection.terminate()

    async def _have_left(self) -> None:
        """See the last login out, so that there is never a second one beside it."""
        if self._leaving is not None:
            await asyncio.wait({self._leaving})
            self._leaving = None

    @asynccontextmanager
    async def _begun(self, connection: asyncpg.Connection, deadline: float) -> AsyncIterator[None]:
        """Between begin and rollback; the connection is cut at the deadline, and when something unforeseen happens."""
        loop = asyncio.get_running_loop()
        guard = loop.call_at(deadline - _CUT_BEFORE, connection.terminate)
        try:
            await connection.execute(_begin(deadline - loop.time()))
            yield
            await connection.execute("rollback")
        except (asyncpg.PostgresError, ExporterError):
            await self._roll_back(connection)
            raise
        except BaseException:
            self._drop()
            raise
        finally:
            guard.cancel()

    async def _connection(self, deadline: float, until: float) -> asyncpg.Connection:
        loop = asyncio.get_running_loop()
        if self._kept is not None and loop.time() - self._opened > self._settings.session_age:
            await self.close()
        if self._kept is None or self._kept.is_closed():
            self._kept = await self._connect(deadline, until)
            self._opened = loop.time()
        return self._kept

    async def _connect(self, deadline: float, until: float | None = None) -> asyncpg.Connection:
        """Log in before `until`; `deadline` is the scrape's, by which one scrape is told from the next."""
        loop = asyncio.get_running_loop()
        if self._refused is not None and deadline == self._refused[0]:
            error = self._refused[1]  # whoever is next in the same scrape need not wait for the same silence
            raise type(error)(str(error))
        try:
            with self._translated("log in to"):
                connection = await self._open((deadline if until is None else until) - loop.time() - _CUT_BEFORE)
        except ExporterError as error:
            self._refused, self._proved = (deadline, error), float("-inf")  # what held a moment ago does no longer
            raise
        self._proved, self._refused = loop.time(), None
        return connection

    async def _open(self, left: float) -> asyncpg.Connection:
        settings = self._settings
        if left <= 0:
            raise TimeoutError
        whole = str(round(settings.query_timeout * 1000))
        return await asyncpg.connect(
            host=settings.host,
            port=settings.port,
            database=settings.database,
            user=settings.user,
            password=secret(settings.password_file) if settings.password_file else None,
            ssl=settings.sslmode,
            timeout=min(settings.connect_timeout, left),
            command_timeout=settings.query_timeout,
            server_settings={
                "application_name": APPLICATION_NAME,
                "default_transaction_read_only": "on",
                "statement_timeout": whole,
                "lock_timeout": whole,
                "idle_in_transaction_session_timeout": whole,
                "jit": "off",
                "plan_cache_mode": "force_custom_plan",
            },
        )

    async def _roll_back(self, connection: asyncpg.Connection) -> None:
        """Keep a session whose statement was refused; drop one that is gone."""
        try:
            await connection.execute("rollback", timeout=_TELL_BEFORE)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self._drop()

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.terminate()
            self._kept = None

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        where = f"cannot {verb} postgres {self._name} ({self._settings.host}:{self._settings.port})"
        try:
            yield
        except ConfigError as error:
            raise Permanent(f"{where}: {error}") from error
        except _PERMANENT as error:
            raise Permanent(f"{where}: {_words(error)}") from error
        except (TimeoutError, OSError, *_LOST) as error:
            raise Unreachable(f"{where}: no answer ({_words(error)})") from error
        except asyncpg.PostgresError as error:
            raise Transient(f"{where}: {_words(error)}") from error


def _begin(left: float) -> str:
    """Open a read-only transaction that the server itself ends before `left` seconds are over."""
    statement = max(1, round((left - _TELL_BEFORE) * 1000))
    lock = max(1, statement // _LOCK_SHARE)
    begin = "begin isolation level read committed read only"  # each statement sees what is committed by then
    return f"{begin}; set local statement_timeout = {statement}; set local lock_timeout = {lock}"


def _words(error: Exception) -> str:
    """The first line of an error's message, with its class, since some have no text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
