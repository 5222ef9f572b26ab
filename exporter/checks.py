"""What only the configured servers can say, for `--config.check`: can they be reached, may we read, by an index?

In: settings. Out: every fault with the statement that mends it: the GRANT to run, the CREATE INDEX to run; of Redis the
ACL SETUSER. Every query of a cursor is explained on the server it will run on; nothing is executed and nothing is
written. It must never stop at the first fault, or take a server that says nothing for a good one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from exporter import redis_checks
from exporter.build import cursors
from exporter.collector_settings import Heartbeat, PostgresServer
from exporter.errors import ExporterError, Fault
from exporter.sessions import PostgresSession
from exporter.settings import Settings
from exporter.table_reading import Read, Reading, plain, quoted, quoted_name

PATIENCE = 15.0
"""Seconds for one server, login included; each statement has the server's `query_timeout` besides."""
ON_PRIMARY = "run on its primary: "
"""How a remedy of a replica begins."""
SMALL = 4 * 1024 * 1024
"""Bytes of a table up to which the planner may prefer to read it as a whole; its index must be there all the same."""

Where = Callable[[Sequence[str]], str]
"""A path in the configuration to the words that lead a fault: file, line and path."""

# Who we are, and whether other sessions can be seen: https://www.postgresql.org/docs/15/functions-info.html.
_ROLE_QUERY = """
select current_user::text as role,
    pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees_all,
    pg_is_in_recovery() as in_recovery
"""

# By catalog only, so that a table in a schema that the role may not use is found as well.
_TABLE_QUERY = """
select c.oid, n.nspname::text as schema, has_schema_privilege(n.oid, 'usage') as may_use
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relname = $2 and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and case when $1::text is null then n.nspname = any(current_schemas(false)) else n.nspname = $1 end
order by array_position(current_schemas(false), n.nspname)
limit 1
"""

_COLUMNS_QUERY = """
select wanted.name, a.attnum is not null as there,
    coalesce(has_column_privilege($1::oid, a.attnum, 'select'), false) as may_read
from unnest($2::text[]) with ordinality as wanted (name, place)
left join pg_attribute a on a.attrelid = $1::oid and a.attname = wanted.name and not a.attisdropped and a.attnum > 0
order by place
"""

# The first column of each index, and whether it holds only some of the rows.
_INDEXES_QUERY = """
select c.relname::text as name, a.attname::text as lead, i.indpred is not null as partial
from pg_index i
join pg_class c on c.oid = i.indexrelid
left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
where c.relname = any($1::text[])
"""


@dataclass(frozen=True, slots=True)
class Task:
    """What is looked at on one PostgreSQL server, and where the configuration speaks of it."""

    at: str
    readings: Sequence[Reading[Any]] = ()
    heartbeat: Heartbeat | None = None
    is_replica: bool = False
    """Whether `collectors.replication` takes it for one."""


async def check(settings: Settings, where: Where) -> list[Fault]:
    """Everything that is wrong on the configured servers, all of them asked at once; empty when nothing is."""
    postgres, redis = settings.collectors.postgres, settings.collectors.redis
    tasks = _tasks(settings, where)
    servers = redis.servers if redis is not None and redis.enabled else {}
    found, of_redis = await asyncio.gather(
        asyncio.gather(*(_server(name, postgres.servers[name], tasks[name], where) for name in tasks if postgres)),
        asyncio.gather(
            *(
                redis_checks.check(name, server, where(("collectors", "redis", "servers", name)))
                for name, server in servers.items()
            )
        ),
    )
    by_server = dict(zip(tasks, found, strict=True))
    told = {fault.what for name, faults in by_server.items() if not tasks[name].is_replica for fault in faults}
    of_postgres = [
        fault
        for name, faults in by_server.items()
        for fault in faults
        if not (fault.remedy.startswith(ON_PRIMARY) and fault.what in told)  # mended there, it is mended here
    ]
    return [*of_postgres, *(fault for faults in of_redis for fault in faults)]


def _tasks(settings: Settings, where: Where) -> dict[str, Task]:
    """By the name of every PostgreSQL server that somebody would log in to."""
    postgres, replication = settings.collectors.postgres, settings.collectors.replication
    if postgres is None:
        return {}
    readings: dict[str, list[Reading[Any]]] = {name: [] for name in postgres.servers}
    for cursor, reading in cursors(settings.collectors):
        readings[cursor.server].append(reading)
    followed: set[str] = set()
    replicas: set[str] = set()
    if replication is not None and replication.enabled:
        replicas = {one.server for one in replication.replicas.values() if one.server is not None}
        followed = {replication.primary, *replicas}
    heartbeat = replication.heartbeat if replication is not None else None
    return {
        name: Task(
            where(("collectors", "postgres", "servers", name)),
            readings[name],
            heartbeat if name in followed else None,
            name in replicas,
        )
        for name in postgres.servers
        if postgres.enabled or readings[name] or name in followed
    }


async def _server(name: str, settings: PostgresServer, task: Task, where: Where) -> list[Fault]:
    session = PostgresSession(name, settings)
    deadline = asyncio.get_running_loop().time() + PATIENCE
    found: list[Fault] = []
    try:
        async with session.transaction(deadline) as connection:
            role = await connection.fetchrow(_ROLE_QUERY)
            found += _role_faults(task.at, role, bool(task.readings))
        if (beat := task.heartbeat) is not None:
            at = task.at if task.is_replica else where(("collectors", "replication", "heartbeat"))
            async with session.transaction(deadline) as connection:
                found += await _table(connection, beat.table, [beat.column], role, at)
        for reading in task.readings:
            found += await _reading(session, deadline, reading, role, where(("collectors", reading.name)))
    except ExporterError as error:
        found.append(Fault(task.at, str(error), _login_remedy(settings, error.__cause__)))
    finally:
        await session.close()
    return found


def _role_faults(at: str, role: Mapping[str, Any], has_cursors: bool) -> Iterator[Fault]:
    if not role["sees_all"]:
        what = f"role {role['role']} does not see other sessions"
        yield Fault(at, what, _to_run(role, f"GRANT pg_monitor TO {quoted_name(role['role'])};"))
    if has_cursors and role["in_recovery"]:
        what = "is a replica, which does not know the open transactions, and a cursor reads it"
        yield Fault(at, what, "name the primary under the cursor's `server`")


def _to_run(role: Mapping[str, Any], statement: str) -> str:
    """A replica takes no GRANT: it gets it from its primary."""
    return f"{ON_PRIMARY if role['in_recovery'] else 'run: '}{statement}"


def _login_remedy(settings: PostgresServer, cause: BaseException | None) -> str:
    """What to do about a login that was refused; "" where the words say it, or nobody answered."""
    words, role = str(cause), quoted_name(settings.user)
    if isinstance(cause, asyncpg.InvalidPasswordError):
        file = settings.password_file or "the file that `password_file` names"
        return f"write the role's password to {file}; where there is no such role, run: CREATE ROLE {role} LOGIN;"
    if isinstance(cause, asyncpg.InvalidAuthorizationSpecificationError) and "not permitted to log in" in words:
        return f"run: ALTER ROLE {role} LOGIN;"
    if isinstance(cause, asyncpg.InsufficientPrivilegeError) and "permission denied for database" in words:
        return f"run: GRANT CONNECT ON DATABASE {quoted_name(settings.database)} TO {role};"
    if isinstance(cause, asyncpg.InvalidCatalogNameError):
        return "name one that is there under `database`"
    return ""


async def _reading(
    session: PostgresSession, deadline: float, reading: Reading[Any], role: Mapping[str, Any], at: str
) -> list[Fault]:
    """What is wrong with the tables of one cursor. A table that cannot be read cannot be explained either."""
    found: list[Fault] = []
    tables: dict[str, list[Read]] = {}
    for read in reading.reads:
        tables.setdefault(read.index.table, []).append(read)
    for table, reads in tables.items():
        async with session.transaction(deadline) as connection:
            columns = list(dict.fromkeys(column for read in reads for column in read.columns))
            faults = await _table(connection, table, columns, role, at)
        found += faults
        if not faults:
            for read in reads:
                async with session.transaction(deadline) as connection:
                    found += await _plan_faults(connection, read, at)
    return found


async def _table(
    connection: asyncpg.Connection, table: str, columns: Sequence[str], by: Mapping[str, Any], at: str
) -> list[Fault]:
    """What is missing before the table can be read: itself, a column, a right. `by` is the row of `_ROLE_QUERY`."""
    role = by["role"]
    schema, _, name = table.rpartition(".")
    there = await connection.fetchrow(_TABLE_QUERY, schema or None, name)
    if there is None:
        return [Fault(at, f"there is no table {table}", "create it, or name yours under `table`")]
    found: list[Fault] = []
    if not there["may_use"]:
        remedy = _to_run(by, f"GRANT USAGE ON SCHEMA {quoted_name(there['schema'])} TO {quoted_name(role)};")
        found.append(Fault(at, f"role {role} may not use the schema of {table}", remedy))
    rows = await connection.fetch(_COLUMNS_QUERY, there["oid"], columns)
    for row in rows:
        if not row["there"]:
            found.append(Fault(at, f"table {table} has no column {row['name']}", "name yours under `table`"))
    refused = [row["name"] for row in rows if row["there"] and not row["may_read"]]
    if refused:
        listed = ", ".join(plain(column) for column in refused)
        remedy = _to_run(by, f"GRANT SELECT ({listed}) ON {plain(table)} TO {quoted_name(role)};")
        found.append(Fault(at, f"role {role} may not read {listed} of {table}", remedy))
    return found


@dataclass(frozen=True, slots=True)
class Scan:
    """A node of a plan that reads a table: by which index (None: all of it), and whether a condition bounds it."""

    index: str | None
    bounded: bool


async def _plan_faults(connection: asyncpg.Connection, read: Read, at: str) -> list[Fault]:
    """Faults of one query's plan.

    A small table is read as a whole by any sane planner, so a sequential scan is forbidden and the plan looked at
    again: then it stays only where no index can serve.
    """
    table, column = read.index.table, read.index.column
    if await _good(connection, read):
        return []
    await connection.execute("set local enable_seqscan = off")
    if not await _good(connection, read):
        remedy = f"run: {' '.join(read.index.ddl.split())}"
        return [Fault(at, f"a query would read the whole of {table} in each scrape", remedy)]
    size = await connection.fetchval("select pg_table_size($1::text::regclass)", quoted(table))
    if size > SMALL:
        what = f"the planner would rather read the whole of {table} ({size} bytes) than its index on {column}"
        return [Fault(at, what, f"run: ANALYZE {plain(table)};")]
    return []


async def _explain(connection: asyncpg.Connection, read: Read) -> list[Scan]:
    """The scans in the plan of a query as the cursor asks it: from now on, with a handful of ids to leave out."""
    statement = f"explain (format json) {read.sql}"
    arguments = (datetime.now(UTC), list(range(1, 20)), 20_000) if "$1" in read.sql else ()
    plan = json.loads(await connection.fetchval(statement, *arguments))
    return list(scans_of(plan[0]["Plan"]))


def scans_of(node: Mapping[str, Any]) -> Iterator[Scan]:
    """Every node of a plan (EXPLAIN's JSON) that reads a table; of a bitmap the index's node."""
    kind = node["Node Type"]
    if kind in ("Index Scan", "Index Only Scan", "Bitmap Index Scan"):
        yield Scan(node["Index Name"], "Index Cond" in node)
    elif kind.endswith("Scan") and kind not in ("Bitmap Heap Scan", "Subquery Scan", "Function Scan", "Result"):
        yield Scan(None, bounded=False)
    for below in node.get("Plans", ()):
        yield from scans_of(below)


async def _good(connection: asyncpg.Connection, read: Read) -> bool:
    """Whether the plan goes by an index that begins with the right column, and reads a part of it only.

    An index that holds the column in another place is read from end to end, which costs as much as the table.
    """
    scans = await _explain(connection, read)
    names = [scan.index for scan in scans if scan.index is not None]
    if not scans or len(names) < len(scans):
        return False
    rows = await connection.fetch(_INDEXES_QUERY, names)
    leads = {row["name"] for row in rows if row["lead"] == read.index.column}
    partial = {row["name"] for row in rows if row["partial"]}
    return all(scan.index in leads and (scan.bounded or scan.index in partial) for scan in scans)
