"""Evidence for the cause behind a database's symptom: what people need for the permanent fix. Reads only, bounded.

In: an entry of `settings.databases` and its neighbours. Out: text and one sentence for people. Statements come without
literals. Counters are sums since the server's last reset, which is said: they tell what is usual, not what is new.

Source: PostgreSQL 13 to 18 manual, "The Cumulative Statistics System" and "pg_stat_statements" (columns as of 1.8).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncpg

from remediator.actions.queries import read_server
from remediator.errors import Permanent, Transient
from remediator.fetch import describe
from remediator.postgres import LOST, connected
from remediator.redaction import sql_shape
from remediator.settings import Database

Databases = Mapping[str, Database]
Told = tuple[str, str]
"""The text for the file, and the sentence for the journal. Not redacted yet."""
Telling = Callable[[Databases, str], Awaitable[Told]]

LARGE = 10_000  # rows: below that reading all of a table is often the fastest way, and needs no index

SCANS = f"""
SELECT schemaname || '.' || relname AS "table", seq_scan AS scans, seq_tup_read AS rows_read,
       seq_tup_read / seq_scan AS rows_a_scan, coalesce(idx_scan, 0) AS index_scans, n_live_tup AS rows,
       n_dead_tup AS dead_rows, pg_table_size(relid) AS bytes,
       (SELECT count(*) FROM pg_index WHERE indrelid = relid) AS indexes, last_autoanalyze, last_analyze,
       (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()) AS counted_since
FROM pg_stat_user_tables
WHERE seq_scan > 0 AND seq_tup_read / seq_scan >= {LARGE}
ORDER BY seq_tup_read DESC LIMIT 20
"""  # noqa: S608 - a constant of this module

INSTALLED = """
SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements'
"""

REPLICATION = """
WITH here AS MATERIALIZED (
  SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
         ELSE pg_current_wal_lsn() END AS lsn
)
SELECT json_build_object(
  'in_recovery', pg_is_in_recovery(), 'started', pg_postmaster_start_time(), 'position', here.lsn::text,
  'received', pg_last_wal_receive_lsn()::text, 'replayed', pg_last_wal_replay_lsn()::text,
  'last_replayed_commit', pg_last_xact_replay_timestamp(),
  'replay_paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END,
  'synchronous_standby_names', current_setting('synchronous_standby_names'),
  'base_backups', (SELECT count(*) FROM pg_stat_progress_basebackup),
  'receiver', (SELECT row_to_json(r) FROM (
     SELECT status, sender_host, sender_port, slot_name, last_msg_receipt_time,
            extract(epoch FROM clock_timestamp() - last_msg_receipt_time) AS silent_seconds
     FROM pg_stat_wal_receiver) r),
  'standbys', (SELECT coalesce(json_agg(row_to_json(s)), '[]') FROM (
     SELECT application_name, client_addr, state, sync_state, here.lsn - replay_lsn AS behind_bytes,
            extract(epoch FROM replay_lag) AS lag_seconds, reply_time
     FROM pg_stat_replication ORDER BY application_name LIMIT 20) s),
  'slots', (SELECT coalesce(json_agg(row_to_json(s)), '[]') FROM (
     SELECT slot_name, slot_type, active, temporary, wal_status, safe_wal_size, here.lsn - restart_lsn AS kept_bytes
     FROM pg_replication_slots ORDER BY slot_name LIMIT 20) s)
)::text FROM here
"""


CONNECTIONS = """
SELECT coalesce(usename, '')::text AS "user", application_name AS application, coalesce(datname, '')::text AS database,
       coalesce(state, backend_type) AS state, count(*) AS connections,
       round(max(extract(epoch FROM clock_timestamp() - state_change)))::int8 AS longest_in_state_seconds
FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender')
GROUP BY 1, 2, 3, 4 ORDER BY connections DESC, 1, 2 LIMIT 50
"""
LIMITS = """
SELECT current_setting('max_connections')::int AS most,
       current_setting('superuser_reserved_connections')::int AS reserved,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used
"""


async def connections(databases: Databases, service: str) -> Told:
    """How many connections of how many, and whose: by role, application and state, this one's own among them."""
    told: Told = await _asked(databases, service, _connections)
    return told


async def sequential_scans(databases: Databases, service: str) -> Told:
    """Large tables that are read from end to end: how often, how much, and how many indexes they have."""
    rows = await _asked(databases, service, lambda connection: connection.fetch(SCANS))
    if not rows:
        return "", f"no table of {LARGE:,} rows or more was read without an index"
    first = rows[0]
    most = f"{first['table']} {first['scans']:,} times, {first['rows_a_scan']:,} rows each"
    return _lines(rows), f"{len(rows)} large tables were read without an index, most of all {most}"


async def top_statements(databases: Databases, service: str) -> Told:
    """The 20 statements that took the most time, without literals; where the extension is missing, that is said."""
    told: Told = await _asked(databases, service, _statements)
    return told


async def replication_state(databases: Databases, service: str) -> Told:
    """Receivers, standbys, slots and positions as the server, its primary and its replicas tell them.

    Raises when the server itself does not answer; that another one does not is part of the evidence.
    """
    own = await _asked(databases, service, _replication)
    beside = {name for name, item in databases.items() if item.replica_of == service}
    primary = databases[service].replica_of
    names = sorted(beside | ({primary} if primary in databases and primary else set()))
    found = await asyncio.gather(*(_asked(databases, name, _replication) for name in names), return_exceptions=True)
    states = {service: own} | {
        name: {"no answer": describe(item)} if isinstance(item, Exception) else item
        for name, item in zip(names, found, strict=True)
    }
    return json.dumps(states, indent=2, ensure_ascii=False), "; ".join(
        f"{name}: {_sentence(state)}" for name, state in states.items()
    )


async def _connections(connection: asyncpg.Connection) -> Told:
    limits = await connection.fetchrow(LIMITS)
    rows = await connection.fetch(CONNECTIONS)
    first = (
        f"; most by {rows[0]['user']} {rows[0]['application']} ({rows[0]['state']}): {rows[0]['connections']}"
        if rows
        else ""
    )
    said = f"{limits['used']} of {limits['most']} connections, {limits['reserved']} of them for superusers only{first}"
    return _lines(rows), said


async def _statements(connection: asyncpg.Connection) -> Told:
    where, missing = await connection.fetchval(INSTALLED), "pg_stat_statements is not installed in this database"
    if where is None:
        return f"{missing}: CREATE EXTENSION pg_stat_statements; it must be in shared_preload_libraries too", missing
    # `where` is the quoted name of a schema, from the server's own catalog.
    statement = f"""
SELECT calls, round(total_exec_time::numeric) AS total_ms, round(mean_exec_time::numeric, 1) AS mean_ms, rows,
       shared_blks_hit AS blocks_hit, shared_blks_read AS blocks_read, left(query, 4000) AS query
FROM {where}.pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY total_exec_time DESC LIMIT 20
"""  # noqa: S608
    try:
        rows = await connection.fetch(statement)
    except asyncpg.ObjectNotInPrerequisiteStateError as error:
        return f"{describe(error)}", "pg_stat_statements is there and not loaded"
    shown = [{**row, "query": sql_shape(row["query"])} for row in rows]
    if not shown:
        return "", "no statement was counted yet"
    first = shown[0]
    return _lines(shown), f"most time, {first['total_ms']:,} ms in {first['calls']:,} calls: {first['query'][:120]}"


async def _replication(connection: asyncpg.Connection) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(await connection.fetchval(REPLICATION))
    return found


def _sentence(state: Mapping[str, Any]) -> str:
    if "no answer" in state:
        return "does not answer"
    standbys = ", ".join(f"{item['application_name']} {item['state']}" for item in state["standbys"]) or "no standby"
    if not state["in_recovery"]:
        return f"takes writes, {standbys}, {len(state['slots'])} slots"
    receiver = state["receiver"]
    heard = f"{receiver['status']}, silent for {receiver['silent_seconds']:.0f} s" if receiver else "no receiver"
    return f"in recovery, {heard}"


async def _asked(databases: Databases, service: str, ask: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
    """An answer, and a refusal to show half of the truth: a role without the grants sees NULLs."""
    database = databases.get(service)
    if database is None:
        raise Permanent(f"{service} is not in the settings' list of databases")
    try:
        async with connected(database) as connection:
            server = await read_server(connection)
            if blind := [grant for grant in server.missing_grants if "pg_read_all_stats" in grant]:
                raise Permanent(f"the role cannot see: {' '.join(blind)}")
            return await ask(connection)
    except (*LOST, asyncpg.PostgresError) as error:
        raise Transient(f"PostgreSQL {service}: {describe(error)}") from error


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(json.dumps(dict(row), ensure_ascii=False, default=str) for row in rows)
