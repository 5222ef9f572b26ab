"""PostgreSQL: one journal for several replicas, and what an unknown COMMIT means.

A transaction ends in one of three ways, and only here it is decided which:
    committed      COMMIT was acknowledged without a WARNING
    not committed  an error came before COMMIT was sent, or instead of its acknowledgement from the server
    unknown        the connection ended, or the wait was cancelled, between the two
After an unknown COMMIT the same body runs again on a fresh connection with `tx.again`: its inserts wait for the
first try when that is still in flight, and then find their own ids. A connection is never asked to cancel: to
cancel a COMMIT that waits for a standby makes PostgreSQL answer success for what only the primary has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import URL, Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from remediator.errors import JournalError
from remediator.journal.store import Body, NoSpace, Unstorable, undisturbed
from remediator.journal.tables import meta
from remediator.journal.transaction import Tx
from remediator.settings import secret

T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
BODY_TIMEOUT = 10.0  # seconds for the statements of one transaction; over that the connection is dropped
COMMIT_TIMEOUT = 15.0  # seconds for COMMIT, which may wait for a standby; over that it is unknown
TRIES = 4
# Errors after which PostgreSQL has rolled back and another try may succeed (appendix A): serialization failure,
# deadlock, lock not available (a frozen owner's session ends when its lock_timeout and ours have passed).
RETRY = frozenset({"40001", "40P01", "55P03"})
DISK_FULL = "53100"
SESSION = {
    "timezone": "UTC",
    "jit": "off",
    "synchronous_commit": "on",
    # An owner that is frozen inside a transaction must not hold everybody up: the server ends its session.
    "idle_in_transaction_session_timeout": "2s",
    "lock_timeout": "2s",
    # Would strike at COMMIT too; the statements have a limit on this side instead (BODY_TIMEOUT).
    "statement_timeout": "0",
    # Notice a vanished client within half a minute, so that its advisory locks end.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
DURABLE = frozenset({"on", "remote_apply"})
# Whom the log is sent to, and for whom COMMIT waits (manual, 28.2.4 and 20.6.2). To a role without pg_read_all_stats
# `state` is NULL; a base backup, which ends by itself, is left out where it can be told.
# An owner that is frozen between preparing a statement and running it: asyncpg ends the first with Flush, not Sync, so
# that its session counts as active, and idle_in_transaction_session_timeout does not strike (manual, 55.2.3). A role
# may end sessions of its own. One that waits for a standby or for a lock waits for something else than its client.
_SILENT = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = current_user "
    "AND datname = current_database() AND application_name LIKE 'prep-remediator %' AND pid <> pg_backend_pid() "
    "AND state = 'active' AND wait_event = 'ClientRead' AND state_change < clock_timestamp() - interval '2 s'"
)
_STANDBYS = text(
    "SELECT coalesce(string_agg(application_name, ', ' ORDER BY application_name), '') FROM pg_stat_replication "
    "WHERE coalesce(state, 'streaming') IN ('streaming', 'catchup', 'startup') "
    # A base backup streams as well, but nobody fails over to it.
    "AND application_name <> 'pg_basebackup' AND current_setting('synchronous_standby_names') = ''"
)


class Unknown(Exception):
    """COMMIT was sent; whether it happened is not known."""


class PostgresStore:
    """A journal in a PostgreSQL database.

    on_connect  runs once on every new connection before it is used: the journal looks whether what it wrote
                last is there (a promoted standby may have lost it)
    """

    shared = True

    def __init__(self, url: URL, password_file: Path | None, owner: str) -> None:
        self.broken: str | None = None
        self.on_connect: Callable[[Tx], None] | None = None
        self._where = f"{url.host}:{url.port or 5432}/{url.database}"
        arguments: dict[str, Any] = {
            "timeout": CONNECT_TIMEOUT,
            "server_settings": {**SESSION, "application_name": f"prep-remediator {owner}"[:63]},
            "prepared_statement_cache_size": 256,
        }
        if password_file is not None:
            arguments["password"] = lambda: secret(password_file)
        self._engine: AsyncEngine = create_async_engine(
            url,
            isolation_level="READ COMMITTED",
            pool_size=5,
            max_overflow=5,
            pool_timeout=CONNECT_TIMEOUT,
            connect_args=arguments,
            query_cache_size=1000,
        )
        event.listen(self._engine.sync_engine, "connect", _listen)

    async def open(self) -> None:
        """Connect once. Raises JournalError when it cannot, or when a COMMIT here would not be durable."""
        found = await self.read(lambda tx: str(tx.run(text("SHOW synchronous_commit")).scalar_one()))
        if found not in DURABLE:
            raise JournalError(f"journal {self._where}: synchronous_commit is {found}; it must be on or remote_apply")

    async def unwaited(self) -> str:
        """Names of the standbys of this server for which no COMMIT waits; "" for none."""
        return await self.read(lambda tx: str(tx.run(_STANDBYS).scalar_one()))

    async def relieve(self) -> int:
        """End sessions of replicas that are silent in the middle of a statement, and their locks; returns how many."""
        return await self.read(lambda tx: int(tx.run(_SILENT).scalar_one()))

    async def write(self, body: Body[T], *, patient: bool = False) -> T:
        return await undisturbed(self._tried(body, commit=True, limit=None if patient else BODY_TIMEOUT))

    async def read(self, body: Body[T]) -> T:
        return await undisturbed(self._tried(body, commit=False))

    async def now(self) -> float:
        return await self.read(lambda tx: tx.now())

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):  # a network that hangs must not hold up the end of the process
            await asyncio.wait_for(self._engine.dispose(), CONNECT_TIMEOUT)

    async def _tried(self, body: Body[T], *, commit: bool, limit: float | None = BODY_TIMEOUT) -> T:
        """Until it is committed or certainly not; the last error says which."""
        again = False
        for last in (*[False] * (TRIES - 1), True):
            try:
                return await self._once(body, again=again, commit=commit, limit=limit)
            except Unknown as error:
                again = True
                if last:
                    raise JournalError(f"journal {self._where}: the result of COMMIT is unknown: {error}") from error
            except DBAPIError as error:
                if _refused(error):
                    raise Unstorable(f"journal {self._where}: {error.orig}") from error
                if last or not (error.connection_invalidated or _state(error) in RETRY):
                    raise self._told(error, again=again) from error
            except (OSError, TimeoutError, PoolTimeout, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if last or not again:
                    said = str(error) or "no answer in time"
                    raise JournalError(f"journal {self._where}: {type(error).__name__}: {said}") from error
            await asyncio.sleep(0.05)
        raise AssertionError("the last try returns or raises")

    async def _once(self, body: Body[T], *, again: bool, commit: bool, limit: float | None) -> T:
        """One try on one connection. Raises Unknown when COMMIT was sent and its answer is not known."""
        connection = await asyncio.wait_for(self._engine.connect(), 3 * CONNECT_TIMEOUT)
        raw = await connection.get_raw_connection()
        driver: asyncpg.Connection = raw.driver_connection
        try:
            result = await _limited(connection.run_sync(self._body, body, again), driver, limit)
            if commit:
                raw.info.pop("warning", None)
                await _commit(connection, driver)
                if "warning" in raw.info:
                    raise Unknown(raw.info["warning"])
            return result
        except Unknown:
            await connection.invalidate()
            raise
        finally:
            await _limited(connection.close(), driver, BODY_TIMEOUT)

    def _body(self, connection: Connection, body: Body[T], again: bool) -> T:
        tx = Tx(connection, _no_clock, again=again)
        if self.on_connect is not None and not connection.info.get("looked"):
            self.on_connect(tx)
            connection.info["looked"] = True
        if again:
            # A transaction that finds its rows there writes nothing, and its COMMIT would wait for no standby.
            tx.run(tx.insert.replace(meta, "value"), {"key": "tried_again", "value": str(tx.now())})
        return body(tx)

    def _told(self, error: DBAPIError, *, again: bool) -> JournalError:
        said = f"journal {self._where}: {error.orig}"
        if again:
            said += "; an earlier COMMIT of the same rows is unknown"
        return NoSpace(said) if _state(error) == DISK_FULL else JournalError(said)


async def _commit(connection: AsyncConnection, driver: asyncpg.Connection) -> None:
    """COMMIT. Raises Unknown, or DBAPIError when the server answered that it has rolled back."""
    try:
        await _limited(connection.commit(), driver, COMMIT_TIMEOUT)
    except DBAPIError as error:
        state = _state(error)
        # 57P01 to 57P05: the session is being ended, perhaps while it waits for a standby after committing.
        if state is None or state.startswith("57P") or error.connection_invalidated:
            raise Unknown(str(error.orig)) from error
        raise
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        raise Unknown(f"{type(error).__name__}: {error}") from error


def _no_clock() -> float:
    raise AssertionError("on PostgreSQL time comes from the database")


def _state(error: DBAPIError) -> str | None:
    """SQLSTATE of a server's answer; None when there was no answer."""
    state = getattr(error.orig, "sqlstate", None)
    return None if state is None or state.startswith("08") else str(state)


def _refused(error: DBAPIError) -> bool:
    """Is it the values? Class 22 data exception, 23 constraint violation; or the driver cannot encode them."""
    state = _state(error)
    cause = error.orig.__cause__ if error.orig is not None else None
    return state[:2] in ("22", "23") if state is not None else isinstance(cause, asyncpg.DataError | ValueError)


def _listen(connection: Any, record: Any) -> None:
    """Keep a WARNING that comes while COMMIT waits: it means that a standby may not have it (syncrep.c)."""

    def keep(_: Any, message: Any) -> None:
        if message.severity_en == "WARNING":
            record.info["warning"] = str(message)

    connection.driver_connection.add_log_listener(keep)


async def _limited(work: Coroutine[Any, Any, T], driver: asyncpg.Connection, seconds: float | None) -> T:
    """Await `work`; when it takes too long, drop the connection under it, never cancel it."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        driver.terminate()
        await asyncio.wait({task}, timeout=1.0)
        if task.done() and not task.cancelled():
            task.exception()
        raise TimeoutError(f"no answer within {seconds:g} s")
    return task.result()
