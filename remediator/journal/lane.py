"""A lane to a SQLite file: one connection in one thread, and one transaction for all who waited for it.

In: bodies. Out: their results, once COMMIT has synced what they wrote. A body that raises takes nothing of the others
with it: then each goes alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, PoolProxiedConnection, StaticPool, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError

from remediator.errors import JournalError
from remediator.journal.store import Body, undisturbed
from remediator.journal.transaction import Tx, new_id

T = TypeVar("T")

BUSY_MS = 2000
TOGETHER = 64  # bodies in one transaction at most
WAL_LIMIT = 64 * 1024 * 1024  # bytes; the file is cut back to this after a checkpoint
LOOK_SECONDS = 10.0  # for which one look may last: others wait for its thread, those who are about to act too
STEPS = 100_000  # of SQLite's machine between two looks at the time, some milliseconds
DATA_FAULTS = (DataError, IntegrityError, InterfaceError, UnicodeError, OverflowError)
"""The values are at fault, and will be again."""


class Lane:
    """One connection in one thread, and who waits for it.

    told    makes the caller's error of the database's, in the thread: the next transaction must know of it
    sound   raises when nothing may be written any more; a lane without it only reads
    """

    def __init__(
        self,
        path: Path | None,
        clock: Callable[[], float],
        told: Callable[[BaseException], BaseException],
        sound: Callable[[], None] | None = None,
        ids: Callable[[], str] = new_id,
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._told = told
        self._sound = sound
        self._until = 0.0  # monotonic seconds at which a look is ended
        self._engine = _engine(path, None if sound is not None else self._is_late)
        self._connection: Connection | None = None
        self._waiting: deque[tuple[Body[Any], Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, "journal-write" if sound else "journal-read") if path else None

    async def start(self) -> None:
        """Open the connection. Raises JournalError when the file cannot be used."""
        try:
            await self._call(self._connect)
        except DBAPIError as error:
            raise JournalError(f"journal cannot be opened: {error.orig}") from error

    async def run(self, body: Body[T]) -> T:
        """The body's result once its transaction is durable: its own, or that of all who waited when it began."""
        done: Future[T] = Future()
        self._waiting.append((body, done))
        if self._thread is None:
            self._next()
            return done.result()
        self._thread.submit(self._next)
        return await undisturbed(asyncio.wrap_future(done))

    async def close(self) -> None:
        await self._call(self._disconnect)
        if self._thread is not None:
            self._thread.shutdown()

    async def _call(self, function: Callable[[], T]) -> T:
        if self._thread is None:
            return function()
        return await undisturbed(asyncio.get_running_loop().run_in_executor(self._thread, function))

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _is_late(self) -> bool:
        return time.monotonic() > self._until

    def _next(self) -> None:
        """In the thread: do what waits. Called once for each that waits, so a later call may find nothing to do."""
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER))]
        if len(group) > 1 and self._together(group):
            return
        for body, done in group:
            try:
                done.set_result(self._transaction(body))
            except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the caller
                done.set_exception(_caused(self._told(error), error))

    def _together(self, group: Sequence[tuple[Body[Any], Future[Any]]]) -> bool:
        """All in one transaction. False: one of them raised, nothing was written, and each is to go alone.

        A fault of the disk is told to all, and nothing is tried again.
        """
        try:
            found = self._transaction(lambda tx: [body(tx) for body, _ in group])
        except DBAPIError as error:
            if isinstance(error, DATA_FAULTS) or _is_interrupt(error):
                return False
            for _, done in group:
                done.set_exception(_caused(self._told(error), error))
            return True
        except Exception:  # noqa: BLE001 - a body's own word (a conflict, a refusal): alone it says it to its caller
            return False
        for (_, done), result in zip(group, found, strict=True):
            done.set_result(result)
        return True

    def _transaction(self, body: Body[T]) -> T:
        if self._sound is not None:
            self._sound()
        connection = self._connect()
        self._until = time.monotonic() + LOOK_SECONDS
        with connection.begin():
            return body(Tx(connection, self._clock, ids=self._ids))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()


def _is_interrupt(error: DBAPIError) -> bool:
    """One of those who look was too slow; the others were not."""
    return getattr(error.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    if error is not cause:
        error.__cause__ = cause
    return error


def _engine(path: Path | None, late: Callable[[], bool] | None) -> Engine:
    """`late` ends a statement when it says so; without it the connection writes."""
    writes = late is None
    engine = create_engine(
        f"sqlite:///{path or ':memory:'}",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000},
        query_cache_size=1000,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself; `do_begin` below does
        if path is not None:
            _pragmas(connection, writes=writes)
            connection.set_progress_handler(late, STEPS)

    def do_begin(dbapi_connection: PoolProxiedConnection) -> None:
        dbapi_connection.cursor().execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    # The dialect's own does nothing. A listener on "begin" would do as well, and would cost every statement a look
    # for listeners.
    engine.dialect.do_begin = do_begin  # type: ignore[method-assign]
    return engine


def _pragmas(connection: sqlite3.Connection, *, writes: bool) -> None:
    """WAL with a sync at every COMMIT, read back: a build of SQLite or a file system may say no in silence."""
    if not writes:
        connection.execute("PRAGMA query_only = ON")
        return
    for pragma, value, expected in (
        ("journal_mode", "WAL", "wal"),
        ("synchronous", "FULL", 2),
        ("journal_size_limit", WAL_LIMIT, WAL_LIMIT),
    ):
        connection.execute(f"PRAGMA {pragma} = {value}")
        found = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
        if found != expected:
            raise JournalError(f"journal cannot be durable: PRAGMA {pragma} is {found!r} and not {expected!r}")
