"""Collector `postgres`: the core of each configured server.

In: one row of the statistics views. Out: the catalog's `prep_postgres_*` samples; `prep_postgres_up` also when there is
no row. It must never show another session's text or user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from exporter.catalog import postgres as catalog
from exporter.catalog.entries import Metric
from exporter.errors import ExporterError, Permanent, Transient, Unreachable
from exporter.samples import Collected, Sample, state_set
from exporter.sessions import PostgresSession, Turn

# Columns: https://www.postgresql.org/docs/15/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW. Walsenders have
# slots of their own since version 12, so `client backend` is what counts against max_connections. pg_blocking_pids
# takes the lock manager's locks for a moment, so it is asked for sessions that wait for a lock only.
QUERY = """
with client as (
    select pid, state, query_start, xact_start, wait_event_type
    from pg_stat_activity
    where backend_type = 'client backend'
), other as (
    select * from client where pid <> pg_backend_pid()
)
select
    pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees_all,
    (select count(*) from client) as connections,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0) as connections_max,
    (select extract(epoch from min(query_start)) from other where state = 'active') as oldest_query,
    (select count(*) from other
     where state = 'active' and query_start < clock_timestamp() - make_interval(secs => $1)) as long_queries,
    (select extract(epoch from min(xact_start)) from other where state = 'active') as oldest_active,
    (select extract(epoch from min(xact_start)) from other where state like 'idle in transaction%') as oldest_idle,
    (select count(*) from other
     where wait_event_type = 'Lock' and cardinality(pg_blocking_pids(pid)) > 0) as blocked,
    (select max(age(datfrozenxid)) from pg_database) as xid_age,
    pg_is_in_recovery() as in_recovery,
    extract(epoch from pg_postmaster_start_time()) as started
"""


class PostgresCollector:
    """All configured servers, side by side; one that is ill takes nothing from the others."""

    name = "postgres"

    def __init__(self, sessions: Mapping[str, PostgresSession], long_query_seconds: float) -> None:
        self._sessions = sessions
        self._long_query = long_query_seconds

    async def collect(self, deadline: float) -> Collected:
        turns = {name: session.turn() for name, session in self._sessions.items()}  # before any cursor's
        try:
            parts = await asyncio.gather(*(self._server(name, turn, deadline) for name, turn in turns.items()))
        finally:
            for turn in turns.values():
                turn.end()
        samples = tuple(sample for part in parts for sample in part.samples)
        return Collected(samples, "; ".join(part.fault for part in parts if part.fault) or None)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def _server(self, name: str, turn: Turn, deadline: float) -> Collected:
        session = self._sessions[name]
        samples: tuple[Sample, ...] = ()
        fault: ExporterError | None = None
        try:
            async with session.transaction(deadline, turn) as connection:
                row = await connection.fetchrow(QUERY, self._long_query)
            samples = parse(name, row)
        except (Transient, Permanent) as error:
            fault = error
        up = not isinstance(fault, Unreachable)
        if up:
            try:
                await session.log_in(deadline)
            except (Transient, Permanent) as error:
                fault, up = fault or error, False
        return Collected(
            (Sample(catalog.POSTGRES_UP, (name,), float(up)), *samples), None if fault is None else str(fault)
        )


def parse(server: str, row: Mapping[str, Any]) -> tuple[Sample, ...]:
    """One row of `QUERY` to samples; times in UNIX seconds, NULL means that there is none and gives no sample.

    Raises Permanent when the role does not see other sessions: their columns are NULL then and would count as idle.
    """
    if not row["sees_all"]:
        raise Permanent(f"postgres {server}: the role does not see other sessions; GRANT pg_monitor to it")
    values: tuple[tuple[Metric, tuple[str, ...], Any], ...] = (
        (catalog.POSTGRES_CONNECTIONS, (), row["connections"]),
        (catalog.POSTGRES_CONNECTIONS_MAX, (), row["connections_max"]),
        (catalog.POSTGRES_OLDEST_QUERY, (), row["oldest_query"]),
        (catalog.POSTGRES_LONG_QUERIES, (), row["long_queries"]),
        (catalog.POSTGRES_OLDEST_TRANSACTION, ("active",), row["oldest_active"]),
        (catalog.POSTGRES_OLDEST_TRANSACTION, ("idle in transaction",), row["oldest_idle"]),
        (catalog.POSTGRES_BLOCKED, (), row["blocked"]),
        (catalog.POSTGRES_XID_AGE, (), row["xid_age"]),
        (catalog.POSTGRES_START, (), row["started"]),
    )
    role = "replica" if row["in_recovery"] else "primary"
    return (
        *(Sample(metric, (server, *labels), float(value)) for metric, labels, value in values if value is not None),
        *state_set(catalog.POSTGRES_ROLE, (server,), (role,)),
    )
