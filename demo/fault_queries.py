"""The runaway query: a reading query of a person's session that burns one core of the primary.

The query is one SELECT that makes and hashes numbers without end; it needs no table, takes no lock, writes nothing to
disk (the numbers are streamed, never stored) and sends nothing until it ends. It ends by the server's own clock
(statement_timeout), and when this process dies: the server is told to look after its client each second.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass

import asyncpg

from demo.environment import Environment, Postgres
from demo.fault_report import FaultError, tell

APPLICATION_NAME = "adhoc-report"
BACKUP_NAME = "pg_dump"
CONNECT_SECONDS = 5.0
AGAIN_SECONDS = 0.2
"""Pause before a cancelled query is run again."""

_ADMINISTRATOR = "terminating connection due to administrator command"
"""What the server says to a session that pg_terminate_backend() ends."""

# A set-returning function in the select list is streamed; in FROM it would be stored first, in temporary files.
QUERY = """
SELECT count(*) AS cancelled_orders, count(DISTINCT left(fingerprint, 2)) AS kitchens
FROM (SELECT md5(n::text) AS fingerprint FROM (SELECT generate_series(1, 9000000000000000) AS n) AS numbers) AS hashed
WHERE fingerprint = 'no order has this fingerprint'
"""


@dataclass
class _End:
    """How the session's query ended: `how` is cancelled, terminated or finished."""

    how: str
    cancels: int


async def runaway_query(options: argparse.Namespace, environment: Environment) -> None:
    """Run it until somebody ends it or `options.seconds` are over; tells pid and backend_start first."""
    login = Postgres.read(environment, "prep_analyst", "analyst")
    name = BACKUP_NAME if options.as_backup else APPLICATION_NAME
    connection = await _connect(login, name)
    began = time.monotonic()
    try:
        pid, since = await connection.fetchrow(
            "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        )
        if options.after_write:
            await connection.execute("BEGIN")
            await connection.execute("INSERT INTO analyst_reports (title) VALUES ('a report that never ends')")
        tell(
            "started", fault="runaway-query", pid=pid, backend_start=since.isoformat(), application_name=name,
            user=login.user, after_write=options.after_write, ignore_cancel=options.ignore_cancel,
        )  # fmt: skip
        end = await _burn(connection, began + options.seconds, options.ignore_cancel and not options.after_write)
    finally:
        connection.terminate()
    tell("ended", how=end.how, cancels=end.cancels, seconds=round(time.monotonic() - began, 1), pid=pid)


async def stop_queries(_: argparse.Namespace, environment: Environment) -> None:
    """End every other session of the role; a role may end its own (manual, 9.27.2)."""
    connection = await _connect(Postgres.read(environment, "prep_analyst", "analyst"), "stop-queries")
    try:
        # In the select list: in WHERE the planner may end sessions before it has looked whose they are.
        rows = await connection.fetch(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = current_user AND pid <> pg_backend_pid()"
        )
    finally:
        connection.terminate()
    tell("stopped", fault="runaway-query", pids=[row["pid"] for row in rows])


async def _connect(login: Postgres, name: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(
            host=login.host, port=login.port, database=login.database, user=login.user, password=login.password,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": name, "client_connection_check_interval": "1s"},
        )  # fmt: skip
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise FaultError(f"cannot log in to {login.host}:{login.port} as {login.user}: {error}") from error


async def _burn(connection: asyncpg.Connection, until: float, again: bool) -> _End:
    """Run the query until time.monotonic() is `until`; with `again` also after a cancel."""
    cancels = 0
    while True:
        left = until - time.monotonic()
        if left <= 0:
            return _End("finished", cancels)
        try:
            await connection.execute(f"SET statement_timeout = {max(1, int(left * 1000))}")
            # asyncpg's own timeout is only a net under the server's.
            await connection.fetch(QUERY, timeout=left + 5.0)
            return _End("finished", cancels)
        except asyncpg.QueryCanceledError as error:
            if "statement timeout" in str(error):
                return _End("finished", cancels)
            cancels += 1
            if not again:
                return _End("cancelled", cancels)
            tell("cancelled", again=True, cancels=cancels)
            await asyncio.sleep(AGAIN_SECONDS)
        except (asyncpg.AdminShutdownError, asyncpg.CrashShutdownError):
            return _End("terminated", cancels)
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
            if _ADMINISTRATOR in str(error):  # the same, when the connection closed before its message was taken
                return _End("terminated", cancels)
            raise FaultError(f"the session broke: {type(error).__name__}: {error}") from error
