"""What people read of the journal, in bounded pieces: a page of events, the pulse of what changes, what runbooks did.

In: filters and limits. Out: frozen values. Reads only; each question is one transaction that an index serves, so that a
journal of hundreds of thousands of events answers as a small one does.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, func, or_, select, tuple_, union_all

from remediator.events import Event, Unknown, read
from remediator.journal import clicks, index, limits, lines, seals
from remediator.journal.lifetime import Replica
from remediator.journal.tables import charges, episodes, events
from remediator.journal.transaction import Tx, filled
from remediator.journal.values import EpisodeRow

FEW = 500  # episodes of a runbook
SEALS, ACTED = 5, 200  # seals and episodes that are recomputed in one piece: others read in between
FRESH = 20  # events that the pulse looks at: a late COMMIT of another replica lands among these
_ROW = (events.c.id, events.c.episode, events.c.seq, events.c.kind, events.c.version, events.c.at, events.c.data)
_NEWEST_FIRST = (events.c.at.desc(), events.c.episode.desc(), events.c.seq.desc())
_PULSE = select(events.c.id).order_by(*_NEWEST_FIRST).limit(FRESH)
_OPEN = select(func.count(), func.coalesce(func.max(episodes.c.opened_at), 0.0)).where(episodes.c.closed_at.is_(None))
_BOOKS_EPISODES = select(episodes.c.episode).where(episodes.c.runbook == bindparam("book")).limit(FEW + 1)
_OPEN_BOOKS = (
    select(func.coalesce(episodes.c.runbook, ""), func.count())
    .where(episodes.c.closed_at.is_(None))
    .group_by(episodes.c.runbook)
)
_DOUBTFUL = (
    select(charges.c.episode)
    .join(episodes, episodes.c.episode == charges.c.episode)
    .where(limits.OPEN_END, episodes.c.closed_at.is_(None))
    .group_by(charges.c.episode, episodes.c.opened_at)
    .order_by(episodes.c.opened_at, charges.c.episode)
)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


_DID_NOT_BEGIN = or_(
    charges.c.settlement == "not_done",
    and_(charges.c.result == "failed", or_(charges.c.settlement.is_(None), charges.c.settlement != "done")),
)
_EFFECTS = (
    select(
        charges.c.runbook,
        func.count(),
        _count(charges.c.verdict == "fixed"),
        _count(charges.c.verdict == "not_fixed"),
        _count(charges.c.verdict == "worse"),
        _count(charges.c.verdict == "unknown"),
        _count(_DID_NOT_BEGIN),
        _count(limits.OPEN_END),
        func.max(charges.c.at),
    )
    .where(charges.c.at >= bindparam("since"))
    .group_by(charges.c.runbook)
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events of the journal; all of them when nothing is said.

    since   UNIX seconds: none before
    """

    kinds: tuple[str, ...] = ()
    episode: str | None = None
    runbook: str | None = None
    since: float | None = None


Place = tuple[float, str, int]
"""Where an event stands in the order of times: at, episode, seq."""


@dataclass(frozen=True, slots=True)
class Page:
    """Events of one piece of the journal. `older` is where the next one begins, None when this was the last."""

    events: tuple[Event, ...]
    older: Place | None


@dataclass(frozen=True, slots=True)
class Effects:
    """What a runbook's attempts came to. `open` are those whose end is not known; `last_at` UNIX seconds."""

    attempts: int
    fixed: int
    not_fixed: int
    worse: int
    unknown: int
    not_begun: int
    open: int
    last_at: float


@dataclass(frozen=True, slots=True)
class Verified:
    """How far a verification has come.

    episode  the charges of the episodes up to this one are; None: of all of them
    seal     the last seal that is, None before the first
    """

    episode: str | None = ""
    seal: seals.Seal | None = None

    def __str__(self) -> str:
        """As a cursor: `episode:3f2a…` or `seal:12`."""
        return f"seal:{self.seal.number if self.seal else 0}" if self.episode is None else f"episode:{self.episode}"


START = Verified()


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of a verification has found.

    seal   the last one that was recomputed
    after  where it goes on, None at the end
    """

    problems: tuple[str, ...]
    seal: seals.Seal | None
    after: Verified | None


class Readings(Replica):
    """The part of the journal that answers people; every method may raise JournalError."""

    async def pulse(self) -> tuple[object, ...]:
        """Another value after any event, episode opened or closed, or pause over. Cheap: it is asked each second."""
        return await self._store.read(pulse)

    async def page(self, wanted: Wanted, before: Place | None, most: int) -> Page:
        """At most `most` events, the newest first; those of newer programs are left out."""
        return await self._store.read(lambda tx: page(tx, wanted, before, most))

    async def effects(self, since: float) -> dict[str, Effects]:
        """What came of the attempts since then (UNIX seconds), by runbook."""
        return await self._store.read(
            lambda tx: {row[0]: Effects(*row[1:]) for row in tx.rows(_EFFECTS, {"since": since})}
        )

    async def open_by_runbook(self) -> dict[str, int]:
        """How many episodes are open, by runbook; "" for those without one."""
        return await self._store.read(lambda tx: {row[0]: row[1] for row in tx.rows(_OPEN_BOOKS)})

    async def doubtful(self) -> list[str]:
        """Open episodes with an attempt whose end is not known, running ones included; the oldest first."""
        return await self._store.read(lambda tx: [row.episode for row in tx.rows(_DOUBTFUL)])

    async def events(self, episode: str) -> list[Event]:
        """All events of an episode. Raises events.Unreadable when a newer program wrote one, or one is missing."""
        return await self._store.read(lambda tx: lines.of_episode(tx, episode))

    async def histories(self, episodes: Sequence[str]) -> dict[str, list[Event] | None]:
        """All events of some episodes; None for one that cannot be read whole. Ask for a hundred at a time."""
        return await self._store.read(lambda tx: lines.of_episodes(tx, episodes))

    async def episode(self, id: str) -> EpisodeRow | None:
        """The index entry of an episode."""
        return await self._store.read(lambda tx: index.one(tx, id))

    async def open_episodes(self) -> list[EpisodeRow]:
        """All open episodes, the oldest first."""
        return await self._store.read(index.open_ones)

    async def episodes(self, *, open: bool | None = None, limit: int | None = 100) -> list[EpisodeRow]:
        """The latest episodes, the newest last: all, only open or only closed ones."""
        return await self._store.read(lambda tx: index.latest(tx, open, limit))

    async def episode_of(self, attempt: str) -> str | None:
        """The episode of an attempt."""
        return await self._store.read(lambda tx: index.episode_of(tx, attempt))

    async def episode_of_event(self, id: str) -> str | None:
        """The episode of an event, None when there is no event with this id."""
        return await self._store.read(lambda tx: clicks.episode_of(tx, id))

    async def clicks_about(self, episode: str, since: float) -> list[Event]:
        """Clicks about an episode that were not taken, in order, as far as they are among the latest 500 since then."""
        return await self._store.read(lambda tx: clicks.about(tx, episode, since, 500))

    async def tail(self, after: str | None, limit: int) -> tuple[list[Event], str]:
        """Events of all episodes in the order of their times, for people to follow; and the next `after`.

        Without `after`, the newest. An event may be written a little after its time, so the cursor stays
        some seconds behind: events come again, with the same id, rather than never.
        """
        return await self._store.read(lambda tx: lines.tail(tx, after, limit))

    async def verify(self) -> list[str]:
        """Recompute the charges and the seals from the events and tell each difference, and which episodes are torn."""
        part = await self.verify_part(START, math.inf)
        return list(part.problems)

    async def verify_part(self, after: Verified, lasting: float) -> Part:
        """Go on from `after`, one step and for so many seconds: one of years takes longer than an answer may."""
        until = self._clock.boottime() + lasting
        problems: list[str] = []
        while True:
            if after.episode is not None:
                acted = await self._store.read(functools.partial(limits.acted, after=after.episode, most=ACTED))
                problems += await self._charges(acted)
                after = Verified(acted[-1] if len(acted) == ACTED else None)
            else:
                piece = functools.partial(seals.differences, before=after.seal, most=SEALS)
                found, last = await self._store.read(piece)
                problems += found
                if last is None:
                    problems += [*await self._store.read(seals.loose), *await self._store.read(lines.gaps)]
                    return Part(tuple(problems), after.seal, None)
                after = Verified(None, last)
            if self._clock.boottime() >= until:
                return Part(tuple(problems), after.seal, after)

    async def _charges(self, acted: Sequence[str]) -> list[str]:
        """Of these episodes. What comes in between two of its statements shows as a difference once, and not again."""
        if not acted:
            return []
        piece = functools.partial(limits.verify, acted=acted)
        first = await self._store.read(piece)
        again = await self._store.read(piece) if first else []
        return [each for each in first if each in again]

    async def seal_of(self, number: int) -> seals.Seal | None:
        """The seal of this number, None when there is none."""
        return await self._store.read(lambda tx: seals.one(tx, number))

    async def oldest_unsealed(self) -> float | None:
        """When the oldest event that no seal holds was written, UNIX seconds; None when each is in one."""
        return await self._store.read(seals.oldest_unsealed)

    async def unsealed(self) -> int:
        """How many events no seal holds yet; each minute they get one."""
        return await self._store.read(seals.unsealed)


def pulse(tx: Tx) -> tuple[object, ...]:
    """See `Readings.pulse`."""
    newest = tuple(row.id for row in tx.rows(_PULSE))
    paused = tuple(pause.id for pause in limits.paused(tx, tx.now()))
    return newest, tuple(tx.rows(_OPEN)[0]), paused


def page(tx: Tx, wanted: Wanted, before: Place | None, most: int) -> Page:
    """See `Readings.page`. What is left out counts: else a page would look like the last one."""
    found = []
    few: list[str] | None = [wanted.episode] if wanted.episode is not None else None
    if wanted.runbook is not None:
        theirs = [row.episode for row in tx.rows(_BOOKS_EPISODES, {"book": wanted.runbook})]
        if len(theirs) <= FEW:
            few = theirs if few is None else [each for each in few if each in theirs]
            if not few:
                return Page((), None)
    rows = tx.rows(*_asked(wanted, before, most, few))
    for row in rows:
        with contextlib.suppress(Unknown):
            found.append(read(*row))
    return Page(tuple(found), (rows[-1].at, rows[-1].episode, rows[-1].seq) if len(rows) == most else None)


def _asked(
    wanted: Wanted, before: Place | None, most: int, few: Sequence[str] | None
) -> tuple[Select[tuple[object, ...]], dict[str, object]]:
    """The statement and its values: only what is asked for is in it, so that the planner can use the right index.

    few  these episodes only. They are read whole, by their own index: time and kind are told as expressions then, or a
         planner without statistics would go through the whole journal by time, or by kind, to find them
    """
    at, kind = (events.c.at, events.c.kind) if few is None else (events.c.at + 0.0, events.c.kind.concat(""))
    conditions: list[ColumnElement[bool]] = []
    values: dict[str, object] = {"most": most}
    if few is not None:
        conditions.append(events.c.episode.in_(bindparam("few", expanding=True)))
        values["few"] = filled(few)
    elif wanted.runbook is not None:
        # Of many episodes a page is soon full, event by event.
        theirs = select(episodes.c.episode).where(episodes.c.runbook == bindparam("book"))
        conditions.append(theirs.where(episodes.c.episode == events.c.episode).exists())
        values["book"] = wanted.runbook
    if wanted.since is not None:
        conditions.append(at >= bindparam("since"))
        values["since"] = wanted.since
    if before is not None:
        there = tuple_(bindparam("at"), bindparam("of"), bindparam("place"))
        conditions += [at <= bindparam("at"), tuple_(at, events.c.episode, events.c.seq) < there]
        values |= {"at": before[0], "of": before[1], "place": before[2]}
    order = (at.desc(), events.c.episode.desc(), events.c.seq.desc())
    statement = select(*_ROW).where(*conditions).order_by(*order).limit(bindparam("most"))
    if not wanted.kinds:
        return statement, values
    if few is not None:
        one_of = kind.in_(bindparam("kinds", expanding=True))
        return statement.where(one_of), values | {"kinds": list(wanted.kinds)}
    return _of_kinds(statement, wanted.kinds), values | {f"kind{n}": each for n, each in enumerate(wanted.kinds)}


def _of_kinds(statement: Select[tuple[object, ...]], kinds: Sequence[str]) -> Select[tuple[object, ...]]:
    """Of each kind a page by its own piece of the index, and the newest of all these: no kind is read to its end."""
    each = [statement.where(events.c.kind == bindparam(f"kind{n}")) for n in range(len(kinds))]
    if len(each) == 1:
        return each[0]
    found = union_all(*(select(one.subquery()) for one in each)).subquery()
    newest = (found.c.at.desc(), found.c.episode.desc(), found.c.seq.desc())
    return select(found).order_by(*newest).limit(bindparam("most"))
