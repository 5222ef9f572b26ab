"""Collector `compliance`: checks of the platform's own table, counted when they become final, and the queue.

In: the rows after the cursor. Out: a histogram and a counter that only ever rise, the pending checks, and what people
must know of the cursor. Totals are saved and synced before they are shown: shown first, a kill would take them back.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from exporter.catalog import compliance as catalog
from exporter.collector_settings import ComplianceCollector as ComplianceSettings
from exporter.cursor import Advance, Bounds, Row, State, Totals, View, advance, fresh, resume
from exporter.errors import Permanent
from exporter.samples import AnySample, Collected, HistogramSample, Sample
from exporter.sessions import PostgresSession
from exporter.statefile import StateFile
from exporter.workers import Worker

INDEXES = """
create index concurrently if not exists compliance_checks_finished
    on compliance_checks (finished_at) where finished_at is not null;
create index concurrently if not exists compliance_checks_pending
    on compliance_checks (created_at) where finished_at is null;
"""
"""What keeps the cost independent of the table's size; told in docs/metrics.md."""

# Read *before* the rows, as a statement of its own: a transaction that ends between the two has its rows seen, one
# that is still open (or begins later) stamps its rows no earlier than `oldest`. Autovacuum (hours against wraparound),
# walsenders and sessions of other databases do not write the table; background workers of extensions may. A prepared
# transaction shows when it was prepared, not when it began, so it is taken to have begun the overlap ($1) before.
BOUNDS_QUERY = """
select
    pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees_all,
    pg_is_in_recovery() as in_recovery,
    (select system_identifier from pg_control_system())::text as source,
    (extract(epoch from clock_timestamp()) * 1000000)::bigint as now,
    (extract(epoch from least(
        (select min(xact_start) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()
           and backend_type not in ('autovacuum worker', 'walsender')),
        (select min(prepared) - $1::interval from pg_prepared_xacts where database = current_database())
    )) * 1000000)::bigint as oldest
"""

# A row stamped `infinity` is not final; the bound also keeps it out of the arithmetic.
ROWS_QUERY = """
select id,
    (extract(epoch from finished_at) * 1000000)::bigint as at,
    (extract(epoch from finished_at - created_at) * 1000000)::bigint as duration,
    result = 'error' as failed
from compliance_checks
where finished_at >= $1 and finished_at < 'infinity' and not (id = any($2::bigint[]))
order by finished_at, id
limit $3
"""

PENDING_QUERY = """
select
    (select count(*) from (select 1 from compliance_checks where finished_at is null limit 100000) as queue) as pending,
    (select extract(epoch from min(created_at)) from compliance_checks where finished_at is null) as oldest
"""

_BUCKETS = catalog.COMPLIANCE_DURATION.buckets
LAYOUT = "buckets " + " ".join(str(bound) for bound in _BUCKETS)
"""What the saved totals mean: with other buckets they cannot be added to."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One final check: its duration in microseconds, and whether it ended without an answer."""

    duration: int
    failed: bool


def count(check: Check) -> Totals:
    """What one check adds to the totals. A duration below 0 (clocks) counts as 0."""
    duration = max(0, check.duration)
    bucket = bisect.bisect_left(_BUCKETS, duration / _MICROSECONDS)
    return {f"bucket {bucket}": 1, "duration": duration, "failed": int(check.failed)}


def samples(totals: Totals) -> tuple[AnySample, ...]:
    """Totals to the histogram (seconds) and the counter; nothing counted yet is shown as 0."""
    counts = tuple(totals.get(f"bucket {index}", 0) for index in range(len(_BUCKETS) + 1))
    duration = totals.get("duration", 0) / _MICROSECONDS
    return (
        HistogramSample(catalog.COMPLIANCE_DURATION, (), counts, duration),
        Sample(catalog.COMPLIANCE_FAILED, (), float(totals.get("failed", 0))),
    )


class ComplianceCollector:
    """The cursor over `compliance_checks` and the look at its queue, on the primary's kept session."""

    name = "compliance"

    def __init__(self, session: PostgresSession, settings: ComplianceSettings, state_file: StateFile) -> None:
        self._session = session
        self._file = state_file
        self._worker = Worker("compliance state file")
        self._bounds = Bounds(
            overlap=round(settings.overlap * _MICROSECONDS),
            margin=round(settings.margin * _MICROSECONDS),
            batch=settings.batch_rows,
            remembered=settings.remembered_rows,
            catching_up_after=round(settings.catching_up_after * _MICROSECONDS),
        )
        self._state: State | None = None
        self._loaded = False
        self._foreign = False

    async def collect(self, deadline: float) -> Collected:
        if not self._loaded:
            self._state = await self._worker.run(self._file.load, deadline)
            self._loaded = True
        async with self._session.transaction(deadline) as connection:
            state, view = await self._look(connection)
            queue = await connection.fetchrow(PENDING_QUERY)
        step = advance(state, view, count, self._bounds)
        await self._worker.run(lambda: self._file.save(step.state), deadline)
        self._state = step.state
        return Collected((*samples(step.state.totals), *_pending(queue), *self._about(step)))

    async def close(self) -> None:
        self._worker.close()
        self._file.close()

    async def _look(self, connection: asyncpg.Connection) -> tuple[State, View[Check]]:
        """The state to go on from, and what is new in the table since."""
        bounds = await connection.fetchrow(BOUNDS_QUERY, timedelta(microseconds=self._bounds.overlap))
        _refuse_blind(bounds)
        state = self._place(bounds)
        found = await connection.fetch(ROWS_QUERY, _time(state.floor), list(state.seen), self._bounds.batch)
        rows = [Row(row["id"], row["at"], Check(row["duration"], bool(row["failed"]))) for row in found]
        return state, View(bounds["now"], bounds["oldest"], rows)

    def _place(self, bounds: Mapping[str, Any]) -> State:
        source, now = bounds["source"], bounds["now"]
        if self._state is None:
            return fresh(source, LAYOUT, now)
        self._foreign = self._foreign or self._state.source != source
        return resume(self._state, source, LAYOUT, now)

    def _about(self, step: Advance) -> tuple[Sample, ...]:
        return (
            Sample(catalog.COMPLIANCE_CATCHING_UP, (), float(step.catching_up)),
            Sample(catalog.COMPLIANCE_INEXACT, (), float(step.overlap_cut)),
            Sample(catalog.COMPLIANCE_STATE_DISCARDED, (), float(self._file.put_aside or self._foreign)),
        )


def _refuse_blind(bounds: Mapping[str, Any]) -> None:
    """Raise Permanent when open transactions cannot be seen: their late rows would be lost without a sign."""
    if bounds["in_recovery"]:
        raise Permanent(
            "compliance: the server is a replica, which does not know the open transactions; name the primary"
        )
    if not bounds["sees_all"]:
        raise Permanent("compliance: the role does not see other sessions; GRANT pg_monitor to it")


def _pending(queue: Mapping[str, Any]) -> tuple[Sample, ...]:
    pending = Sample(catalog.COMPLIANCE_PENDING, (), float(queue["pending"]))
    if queue["oldest"] is None:
        return (pending,)
    return (pending, Sample(catalog.COMPLIANCE_OLDEST_PENDING, (), float(queue["oldest"])))


def _time(microseconds: int) -> datetime:
    """Exact: a float of seconds would round."""
    return _EPOCH + timedelta(microseconds=microseconds)
