"""What only the configured servers can say, for `--config.check`: can they be reached, may we read, by an index?

In: settings. Out: every fault with the statement that mends it: the GRANT to run, the CREATE INDEX to run. Every query
of a cursor is explained on the server it will run on; nothing is executed and nothing is written. It must never stop
at the first fault, or take a server that says nothing for a good one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from exporter.build import cursors
from exporter.collector_settings import PostgresServer
from exporter.errors import ExporterError, Fault
from exporter.sessions import PostgresSession
from exporter.settings import Settings
from exporter.table_reading import Read, Reading, plain, quoted

PATIENCE = 15.0
"""Seconds for one server, login included; each statement has the server's `query_timeout` besides."""
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


async def check(settings: Settings, where: Where) -> list[Fault]:
    """Everything that is wrong on the configured servers, all of them asked at once; empty when nothing is."""
    postgres = settings.collectors.postgres
    readings: dict[str, list[Reading[Any]]] = {name: [] for name in (postgres.servers if postgres else ())}
    for cursor, reading in cursors(settings.collectors):
        readings[cursor.server].append(reading)
    servers = postgres.servers if postgres else {}
    found = await asyncio.gather(
        *(_server(name, servers[name], readings[name], where) for name in servers if _used(settings, readings, name))
    )
    return [fault for faults in found for fault in faults]


def _used(settings: Settings, readings: Mapping[str, Sequence[object]], name: str) -> bool:
    """Whether anybody would log in to the server."""
    postgres = settings.collectors.postgres
    return bool(readings[name]) or (postgres is not None and postgres.enabled)


async def _server(name: str, settings: PostgresServer, readings: Sequence[Reading[Any]], where: Where) -> list[Fault]:
    at = where(("collectors", "postgres", "servers", name))
    session = PostgresSession(name, settings)
    deadline = asyncio.get_running_loop().time() + PATIENCE
    found: list[Fault] = []
    try:
        async with session.transaction(deadline) as connection:
            role = await connection.fetchrow(_ROLE_QUERY)
            found += _role_faults(at, role, bool(readings))
        for reading in readings:
            found += await _reading(session, deadline, reading, role["role"], where(("collectors", reading.name)))
    except ExporterError as error:
        found.append(Fault(at, str(error)))
    finally:
        await session.close()
    return found


def _role_faults(at: str, role: Mapping[str, Any], has_cursors: bool) -> Iterator[Fault]:
    if not role["sees_all"]:
        what = f"role {role['role']} does not see other sessions"
        yield Fault(at, what, f"run: GRANT pg_monitor TO {quoted(role['role'])};")
    if has_cursors and role["in_recovery"]:
        what = "is a replica, which does not know the open transactions, and a cursor reads it"
        yield Fault(at, what, "name the primary under the cursor's `server`")


async def _reading(session: PostgresSession, deadline: float, reading: Reading[Any], role: str, at: str) -> list[Fault]:
    """What is wrong with the tables of one cursor. A table that cannot be read cannot be explained either."""
    found: list[Fault] = []
    tables: dict[str, list[Read]] = {}
    for read in reading.reads:
        tables.setdefault(read.index.table, []).append(read)
    for table, reads in tables.items():
        async with session.transaction(deadline) as connection:
            faults = await _table(connection, table, reads, role, at)
        found += faults
        if not faults:
            for read in reads:
                async with session.transaction(deadline) as connection:
                    found += await _plan_faults(connection, read, at)
    return found


async def _table(connection: asyncpg.Connection, table: str, reads: Sequence[Read], role: str, at: str) -> list[Fault]:
    """What is missing before the table can be read: itself, a column, a right."""
    schema, _, name = table.rpartition(".")
    there = await connection.fetchrow(_TABLE_QUERY, schema or None, name)
    if there is None:
        return [Fault(at, f"there is no table {table}", "create it, or name yours under `table`")]
    found: list[Fault] = []
    if not there["may_use"]:
        remedy = f"run: GRANT USAGE ON SCHEMA {quoted(there['schema'])} TO {quoted(role)};"
        found.append(Fault(at, f"role {role} may not use the schema of {table}", remedy))
    columns = list(dict.fromkeys(column for read in reads for column in read.columns))
    rows = await connection.fetch(_COLUMNS_QUERY, there["oid"], columns)
    for row in rows:
        if not row["there"]:
            found.append(Fault(at, f"table {table} has no column {row['name']}", "name yours under `table`"))
    refused = [row["name"] for row in rows if row["there"] and not row["may_read"]]
    if refused:
        listed = ", ".join(plain(column) for column in refused)
        remedy = f"run: GRANT SELECT ({listed}) ON {plain(table)} TO {quoted(role)};"
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
