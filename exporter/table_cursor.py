"""A cursor over a table as a collector: what `compliance`, `payments` and `security` have in common.

In: a `Reading`, the primary's kept session, a state file. Out: totals that only ever rise, the table's present state,
and what people must know of the cursor. Totals are saved and synced before they are shown: shown first, a kill would
take them back. It must never show a total that is not on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import asyncpg

from exporter.collectors.base import Collector
from exporter.cursor import Advance, Bounds, Clocks, Row, State, View, advance, fresh, must_be_saved, resume, set_back
from exporter.cursor_settings import CursorSettings
from exporter.errors import Permanent
from exporter.samples import AnySample, Collected, Sample
from exporter.sessions import PostgresSession
from exporter.statefile import StateFile
from exporter.table_reading import MICROSECONDS, Reading
from exporter.workers import Worker

T = TypeVar("T")

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

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CursorCollector(Generic[T]):
    """One table, counted row by row, and a look at its present state."""

    def __init__(
        self, session: PostgresSession, reading: Reading[T], settings: CursorSettings, state_file: StateFile
    ) -> None:
        self.name = reading.name
        self._reading = reading
        self._rows_query = reading.rows_query
        self._session = session
        self._file = state_file
        self._worker = Worker(f"{reading.name} state file")
        self._bounds = Bounds(
            overlap=round(settings.overlap * MICROSECONDS),
            margin=round(settings.margin * MICROSECONDS),
            batch=settings.batch_rows,
            remembered=settings.remembered_rows,
            catching_up_after=round(settings.catching_up_after * MICROSECONDS),
        )
        self._state: State | None = None
        self._saved: State | None = None
        """What the disk has."""
        self._clocks: Clocks | None = None
        """Of the last look at this server."""
        self._loaded = False
        self._foreign = False
        self._discarded = False
        """Whether a cursor before this one, of the same process and file, had to begin again."""

    async def collect(self, deadline: float) -> Collected:
        if not self._loaded:
            self._state = self._saved = await self._worker.run(self._file.load, deadline)
            self._loaded = True
        async with self._session.transaction(deadline) as connection:
            state, view = await self._look(connection)
            present = await self._look_around(connection)
        step = advance(state, view, self._reading.count, self._bounds)
        if must_be_saved(self._saved, step.state, self._bounds):
            await self._worker.run(lambda: self._file.save(step.state), deadline)
            self._saved = step.state
        self._state = step.state
        return Collected((*self._reading.samples(step.state.totals), *present, *self._about(step)))

    def inherit(self, predecessor: Collector) -> None:
        """Go on telling that this process found the same file unreadable or foreign; all counts are in the file."""
        if isinstance(predecessor, CursorCollector) and predecessor._file.path == self._file.path:
            self._discarded = self._discarded or predecessor._was_discarded

    async def close(self) -> None:
        self._worker.close()
        self._file.close()

    @property
    def _was_discarded(self) -> bool:
        return self._discarded or self._foreign or self._file.put_aside

    async def _look(self, connection: asyncpg.Connection) -> tuple[State, View[T]]:
        """The state to go on from, and what is new in the table since."""
        bounds = await connection.fetchrow(BOUNDS_QUERY, timedelta(microseconds=self._bounds.overlap))
        _refuse_blind(self.name, bounds)
        before, self._clocks = self._clocks, Clocks(bounds["now"], round(time.monotonic() * MICROSECONDS))
        back = set_back(before, self._clocks, self._bounds.margin)
        state = self._place(bounds)
        found = await connection.fetch(self._rows_query, _time(state.floor), list(state.seen), self._bounds.batch)
        rows = [Row(row["id"], row["at"], self._reading.read(row)) for row in found]
        return state, View(bounds["now"], bounds["oldest"], rows, back)

    async def _look_around(self, connection: asyncpg.Connection) -> tuple[AnySample, ...]:
        if self._reading.present is None:
            return ()
        return self._reading.show_present(await connection.fetchrow(self._reading.present.sql))

    def _place(self, bounds: Mapping[str, Any]) -> State:
        source, now = bounds["source"], bounds["now"]
        if self._state is None:
            return fresh(source, self._reading.layout, now)
        self._foreign = self._foreign or self._state.source != source
        return resume(self._state, source, self._reading.layout, now)

    def _about(self, step: Advance) -> tuple[Sample, ...]:
        metrics = self._reading.metrics
        return (
            Sample(metrics.catching_up, (), float(step.catching_up)),
            Sample(metrics.overlap_cut, (), float(step.overlap_cut)),
            Sample(metrics.overlap_cuts, (), float(step.state.cuts)),
            Sample(metrics.state_discarded, (), float(self._was_discarded)),
        )


def _refuse_blind(name: str, bounds: Mapping[str, Any]) -> None:
    """Raise Permanent when open transactions cannot be seen: their late rows would be lost without a sign."""
    if bounds["in_recovery"]:
        raise Permanent(f"{name}: the server is a replica, which does not know the open transactions; name the primary")
    if not bounds["sees_all"]:
        raise Permanent(f"{name}: the role does not see other sessions; GRANT pg_monitor to it")


def _time(microseconds: int) -> datetime:
    """Exact: a float of seconds would round."""
    return _EPOCH + timedelta(microseconds=microseconds)
