"""A position in a growing table: rows are counted once, when they become final, however late they are committed.

In: the saved `State`, what one look at the table saw (`View`), the time. Out: the next `State`. Pure: reading the
table is the collector's, saving is `statefile`'s. It must never count a row twice or go back.

How it works. A row is final at the time in its own column (`finished_at`). Everything before `floor` has been
settled; at or after it, `seen` holds the exact ids that were counted, so a look reads "final at or after floor, id
not in seen", and re-reading is harmless. The floor may only pass a time at which nothing more can appear. A row that
is committed later belongs to a transaction that is open now, and was stamped no earlier than that transaction began,
so the floor stops at the start of the oldest open transaction (`pg_stat_activity.xact_start`), less a margin for
clocks that differ and for the moment between a transaction's start and its showing.

Why not `pg_snapshot_xmin`: it names a transaction id, and rows would have to be asked by their `xmin`, which no index
can serve; besides, a transaction has no id before its first write, but may already hold the `now()` that it will
write. The price: a reader that stays open for hours holds the floor back too. It is bounded: the floor is never
further back than `overlap` and `seen` never larger than `remembered`; when either bound lets the floor pass the start
of an open transaction less the margin, or the server's clock was set back by more than the margin (`set_back`) or
behind the floor, `overlap_cut` says so and is counted. One set back while no exporter ran is seen by the latter alone.

All times are integer microseconds since the epoch, PostgreSQL's own resolution, so nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

T = TypeVar("T")

Totals = Mapping[str, int]
"""Counters by a key of the collector's choice; integers, so that sums do not drift."""


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """A final row: its id, when it became final (microseconds), and what the collector counts of it."""

    id: int
    at: int
    value: T


@dataclass(frozen=True, slots=True)
class Bounds:
    """The cursor's limits, times in microseconds."""

    overlap: int
    margin: int
    batch: int
    """Rows that one look reads at most."""
    remembered: int
    """Ids kept at most."""
    catching_up_after: int


@dataclass(frozen=True, slots=True)
class Clocks:
    """The server's clock and ours (monotonic) at one moment, microseconds."""

    server: int
    own: int


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """What one look at the table saw.

    `now` is the server's clock *before* `rows` was read, `oldest` the start of the oldest transaction that was open
    then (None: none was). `rows` are final at or after the asked floor, none of them in `seen`, oldest first, at most
    `Bounds.batch` of them.
    """

    now: int
    oldest: int | None
    rows: Sequence[Row[T]]
    set_back: bool = False
    """Whether the server's clock went back since the look before."""


@dataclass(frozen=True, slots=True)
class State:
    """The durable part, saved before its totals are shown.

    `source` names the database cluster: with another one the position means nothing. `layout` names what the totals
    mean (buckets): with another one they begin again. `looked` is when the table was last read in full.
    """

    source: str
    layout: str
    floor: int
    looked: int
    seen: Mapping[int, int] = field(default_factory=dict)
    """Counted ids with the time at which each became final; all at or after `floor`."""
    totals: Totals = field(default_factory=dict)
    cuts: int = 0
    """Looks in which `overlap_cut` was said, since the file was made."""


@dataclass(frozen=True, slots=True)
class Advance:
    """The next state, and what people must know about it."""

    state: State
    catching_up: bool
    overlap_cut: bool


def fresh(source: str, layout: str, now: int) -> State:
    """A cursor that begins now: what became final before is not counted, so there is no jump at the first scrape."""
    return State(source, layout, floor=now, looked=now)


def resume(saved: State, source: str, layout: str, now: int) -> State:
    """The saved state as far as it still holds for this database and these totals."""
    if saved.source != source:
        saved = replace(saved, source=source, floor=now, looked=now, seen={})
    if saved.layout != layout:
        saved = replace(saved, layout=layout, totals={})
    return saved


def advance(state: State, view: View[T], count: Callable[[T], Totals], bounds: Bounds) -> Advance:
    """Count the rows of one look and move the floor as far as is safe.

    A full batch may hide older rows behind it, so the floor then stops at the last row that was read. Worked
    example, in seconds: floor 100, margin 10, now 200, oldest transaction began at 150, rows at 120 and 199 ->
    both counted, floor 140 (150 - 10), seen keeps the row at 199.
    """
    totals, seen = dict(state.totals), dict(state.seen)
    for row in view.rows:
        if row.id in seen:
            raise ValueError(f"row {row.id} was counted before")
        seen[row.id] = row.at
        for key, amount in count(row.value).items():
            totals[key] = totals.get(key, 0) + amount
    full = len(view.rows) >= bounds.batch
    begun = view.now if view.oldest is None else min(view.now, view.oldest)
    reach = max(begun - bounds.margin, view.now - bounds.overlap)
    if full:
        reach = min(reach, view.rows[-1].at)
    floor = max(state.floor, reach)
    seen = {id_: at for id_, at in seen.items() if at >= floor}
    if len(seen) > bounds.remembered:
        floor, seen = _forget(seen, bounds.remembered)
    unread = full and floor > view.rows[-1].at  # more rows of one time than are remembered: the rest is passed
    cut = view.now < floor or view.set_back or unread or state.floor < floor > begun - bounds.margin
    late = view.now - state.looked > bounds.catching_up_after
    looked = state.looked if full else view.now
    after = replace(state, floor=floor, looked=looked, seen=seen, totals=totals, cuts=state.cuts + cut)
    return Advance(after, full or late, cut)


def set_back(before: Clocks | None, now: Clocks, margin: int) -> bool:
    """Whether the server's clock went back by more than the margin between two looks, by our own clock.

    Rows stamped while it was behind may lie below the floor, and by the next look it may have caught up.
    Worked example, in seconds, margin 10: the server says 100, then 103, and 15 have passed here: by 12, set back.
    """
    return before is not None and now.server - before.server < now.own - before.own - margin


def must_be_saved(saved: State | None, after: State, bounds: Bounds) -> bool:
    """Whether `after` has to be durable before its totals are shown, when `saved` is what the disk has.

    A look that found nothing new only moves the position, and an older position is as good: what lies between is read
    again and is in `seen`. So it is saved from time to time, that a restart does not take itself for a long downtime.
    """
    if saved is None:
        return True
    if after.looked - saved.looked > bounds.catching_up_after // _SAVED_WITHIN:
        return True
    return after != replace(saved, floor=after.floor, looked=after.looked, seen=after.seen)


_SAVED_WITHIN = 4
"""The position on the disk is never older than this part (1/4) of the time after which a gap is told."""


def _forget(seen: Mapping[int, int], keep: int) -> tuple[int, dict[int, int]]:
    """The floor just above the oldest ids that are too many, and the ids that stay: at most `keep`."""
    floor = sorted(seen.values())[-keep - 1] + 1
    return floor, {id_: at for id_, at in seen.items() if at >= floor}
