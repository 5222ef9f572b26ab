"""What is going on now, gathered once for all who look: episodes, questions, pauses, doubts, and what it stands on.

In: the journal and the footings. Out: frozen values, at most a second old. Bounded: so many episodes a page, so many
questions, whatever there is. A footing that is slow to answer is told as such and holds no page up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from remediator.api import Footing
from remediator.decisions import Decisions
from remediator.events import Event
from remediator.journal import Demotion, EpisodeRow, Journal, Pause, Running, Storm
from remediator.ledger import Approval, Attempt, fold
from remediator.narrative import state

A_PAGE, MOST_QUESTIONS, MOST_LINES = 50, 20, 50
KEEP = 1.0  # seconds for which what was gathered is good
FOOTING_KEEP, FOOTING_WAIT = 5.0, 0.5
MOST_PAGES = 8  # kept at once


@dataclass(frozen=True, slots=True)
class Open:
    """An open episode with its target, and the sentence of where it stands."""

    row: EpisodeRow
    target: str
    why: str


@dataclass(frozen=True, slots=True)
class Footings:
    """What it stands on, as found at `at` (UNIX seconds); `at` None while nobody has answered yet."""

    found: tuple[Footing, ...]
    at: float | None

    @property
    def sound(self) -> bool:
        return bool(self.found) and all(one.ok for one in self.found)


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at one moment. `episodes` is one page of `total`; `waiting` counts the questions."""

    now: float
    episodes: tuple[Open, ...]
    page: int
    pages: int
    total: int
    questions: tuple[tuple[EpisodeRow, Approval], ...]
    waiting: int
    doubts: tuple[tuple[str, Attempt], ...]
    running: tuple[Running, ...]
    pauses: tuple[Pause, ...]
    storm: Storm | None
    demoted: tuple[Demotion, ...]
    pause_file: bool


class Gatherer:
    """Keeps what it found for a second, or until `version` says that something changed: fifty cost as much as one."""

    def __init__(
        self,
        journal: Journal,
        decisions: Decisions,
        ready: Callable[[], Awaitable[Sequence[Footing]]],
        pause_file: Callable[[], bool],
        clock: Callable[[], float],
        version: Callable[[], int],
    ) -> None:
        self._journal, self._decisions, self._ready = journal, decisions, ready
        self._pause_file, self._clock, self._version = pause_file, clock, version
        self._kept: dict[int, tuple[int, float, Overview]] = {}
        self._lock = asyncio.Lock()
        self._footings = Footings((), None)
        self._asked = -FOOTING_KEEP
        self._asking: asyncio.Task[None] | None = None

    async def overview(self, page: int) -> Overview:
        """Page 1 is the first; one that is not there is the last."""
        async with self._lock:
            kept = self._kept.get(page)
            began = self._version(), self._clock()  # of before the look: what changes meanwhile is looked at again
            if kept is not None and kept[0] == began[0] and began[1] - kept[1] < KEEP:
                return kept[2]
            found = await self._gather(page)
            if len(self._kept) >= MOST_PAGES:
                self._kept.clear()
            self._kept[page] = (*began, found)
            return found

    async def _gather(self, page: int) -> Overview:
        journal = self._journal
        rows = await journal.open_episodes()
        asking = [row for row in rows if row.refused == "needs_approval"]
        rows.sort(key=lambda row: (row.runbook is None, row.severity or "P9", row.opened_at))
        pages = max(1, -(-len(rows) // A_PAGE))
        page = min(max(1, page), pages)
        now = await journal.now()
        shown = rows[(page - 1) * A_PAGE : page * A_PAGE]
        looked = asking[:MOST_QUESTIONS]
        stories = await journal.histories(sorted({row.episode for row in (*shown, *looked)}))
        doubts = await self._decisions.doubts() if await journal.open_ends() else []
        return Overview(
            now=now,
            episodes=tuple(_open(row, stories.get(row.episode, []), now) for row in shown),
            page=page,
            pages=pages,
            total=len(rows),
            questions=tuple(_questions(looked, stories, now)),
            waiting=len(asking),
            doubts=tuple(doubts[:MOST_LINES]),
            running=tuple((await journal.running())[:MOST_LINES]),
            pauses=tuple((await journal.pauses())[:MOST_LINES]),
            storm=await journal.storm(),
            demoted=tuple(await journal.demoted()),
            pause_file=self._pause_file(),
        )

    async def footings(self) -> Footings:
        """At most some seconds old; without waiting longer than a moment for a new look."""
        if self._asking is None and self._clock() - self._asked >= FOOTING_KEEP:
            self._asked = self._clock()
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=FOOTING_WAIT)
        return self._footings

    async def _ask(self) -> None:
        try:
            found = tuple(await self._ready())
            self._footings = Footings(found, await self._journal.now())
        finally:
            self._asking = None

    async def close(self) -> None:
        """Leave nothing behind."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)


def _open(row: EpisodeRow, events: Sequence[Event] | None, now: float) -> Open:
    return Open(row, target_of(fold(events).target) if events else "", state(events, now))


def _questions(
    rows: Iterable[EpisodeRow], stories: Mapping[str, Sequence[Event] | None], now: float
) -> Iterator[tuple[EpisodeRow, Approval]]:
    """What can be answered now; that of an episode that cannot be read is left alone."""
    for row in rows:
        events = stories.get(row.episode)
        asked = fold(events).approval if events else None
        if asked is not None and asked.open and asked.good_until > now:
            yield row, asked


def target_of(target: Mapping[str, str]) -> str:
    """A target in a few characters."""
    return " ".join(target.values())
