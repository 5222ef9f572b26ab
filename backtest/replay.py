"""The past once more, on a clock of its own: the real intake, journal, matching, guardrails, planner and engine.

In: a `Past` that was read, runbooks, settings. Out: the events of every episode. Time jumps from one moment at which
something can change to the next; between two of them nothing that the remediator sees is different, so nothing would
be decided otherwise. Limits and storms are looked at each minute at the latest.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backtest.deliveries import Firing, body, merged, timeline
from backtest.errors import Unusable
from backtest.past import Past, Progress
from backtest.pretended import NoEvidence, NoPeople, PastSight, actions
from backtest.spans import Series, Span
from remediator import settings as remediator_settings
from remediator.engine import Engine
from remediator.episodes import Episodes
from remediator.errors import Transient
from remediator.events import Event, Kind
from remediator.journal import Claim, InboxRow, Journal, Routed
from remediator.ledger import Ledger
from remediator.matching import key_of
from remediator.reasons import Reason
from remediator.runbooks import Runbook
from remediator.settings import Settings
from remediator.watch import Watch
from remediator.webhook import split

LIMITS_AGAIN = 60.0
"""Seconds between two decisions where a limit or a storm forbids it, and between two looks at a storm."""
RELEASE_AGAIN = 30.0
AT_ONCE = 64
NEVER = 1e12
OF_THE_WORLD = frozenset({Reason.BLOCKED_BY_CAUSE, Reason.RULE_UNKNOWN, Reason.TARGET_NOT_ALLOWED, Reason.CLOCK})
"""Reasons that last as long as the recorded world stays as it is."""
ROUNDS = 3
"""Rounds of proof within the hold time; between two of them the clock stops where the rule changes."""


@dataclass
class Moments:
    """A clock that moves only when it is told to. Both of its times begin with the history."""

    began: float
    passed: float = 0.0

    def now(self) -> float:
        return self.began + self.passed

    def boottime(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        self.passed += max(0.0, seconds)

    def jump(self, moment: float) -> None:
        """To this moment, always a little ahead."""
        self.passed = max(moment - self.began, self.passed + 0.05)


class PatientJournal(Journal):
    """The real journal in memory. An episode that is given back is due when something can be different, not sooner."""

    when: Callable[[str, float], Awaitable[float]]
    due: dict[str, float]
    failed: set[str]

    async def release(
        self, episode: str, due_at: float, *, failed: bool = False, proof_at: float | None = None
    ) -> None:
        if failed:
            self.failed.add(episode)
        try:
            due = await self.when(episode, due_at)
        except Transient:  # Prometheus went away: `Past.broken` says so, and ends it all
            due = due_at
        self.due[episode] = due
        await super().release(episode, due, proof_at=proof_at)


@dataclass
class Replayed:
    """What came of it: every episode's events, in the order in which they were opened, and its key."""

    events: dict[str, list[Event]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


class Replay:
    """One pass over the past with one set of numbers.

    fired   only what has a runbook; every other alert is nothing to drive
    known   the settings are the remediator's own, and say what it may act on
    """

    def __init__(
        self, past: Past, fired: Sequence[Firing], books: Sequence[Runbook], settings: Settings, known: bool
    ) -> None:
        self._past, self._books = past, tuple(_patient(book) for book in books)
        self._settings = _unattended(settings)
        self._known = known
        self._clock = Moments(past.since)
        self._told = Replayed()
        self._ledgers: dict[str, Ledger] = {}
        self._queue = [(at, number, what) for number, (at, what) in enumerate(timeline(fired))]
        heapq.heapify(self._queue)
        self._number = len(self._queue)
        self._fired: dict[str, list[Firing]] = {}
        for firing in fired:
            self._fired.setdefault(self.key(firing), []).append(firing)
        self._when = {key: Series({}, merged(mine)) for key, mine in self._fired.items()}

    def key(self, firing: Firing) -> str:
        """Of the episode that it belongs to."""
        return key_of(firing.alert(), self._books, self._settings.environment)

    def spans(self, key: str) -> list[Span]:
        """When any alert of this key fired."""
        return self._when[key].spans

    async def run(self, progress: Progress) -> Replayed:
        """To the end of the past. Raises Unusable when Prometheus goes away meanwhile."""
        self._past.clock = self._clock.now
        began, length = self._past.since, max(1.0, self._past.until - self._past.since)
        async with self._engine() as (engine, journal):
            watch = Watch(engine)
            while self._clock.now() < self._past.until:
                await self._deliver(engine)
                storm = await self._work(engine, watch)
                progress(min(1.0, (self._clock.now() - began) / length))
                upcoming = [self._queue[0][0]] if self._queue else []
                upcoming += journal.due.values()
                upcoming += [self._clock.now() + LIMITS_AGAIN] if storm else []
                if not upcoming:
                    break
                self._clock.jump(min(upcoming))
            self._sound(journal)
        progress(1.0)
        return self._told

    @contextlib.asynccontextmanager
    async def _engine(self) -> AsyncIterator[tuple[Engine, PatientJournal]]:
        journal = await PatientJournal.open(
            self._settings.journal,
            owner="backtest",
            clock=self._clock,
            mode="auto",
            config_digest="backtest",
            hold_off=0.0,
        )
        journal.when, journal.due, journal.failed = self._due, {}, set()
        self._journal = journal
        pretended = actions(self._settings, self._known, self._clock.now)
        engine = Engine(
            journal=journal,
            sight=PastSight(self._past, pretended),
            actions=pretended,
            people=NoPeople(),
            diagnoses=NoEvidence(),
            settings=self._settings,
            episodes=Episodes(journal, self._settings, self._books, self._observe, journal.owner),
            clock=self._clock,
        )
        try:
            yield engine, journal
        finally:
            await journal.close(clean=True)

    async def _deliver(self, engine: Engine) -> None:
        bodies = []
        while self._queue and self._queue[0][0] <= self._clock.now():
            bodies.append(("delivery", heapq.heappop(self._queue)[2]))
        await engine.journal.store(bodies)

    async def _work(self, engine: Engine, watch: Watch) -> bool:
        """Everything that is due now. Does a storm hold?"""
        while claims := await engine.journal.take_in(self._split, AT_ONCE, 4 * AT_ONCE):
            await watch.tick()
            for claim in await self._in_order(claims):
                self._journal.due.pop(claim.episode, None)
                await engine.drive(claim)
                self._sound(self._journal)
        await watch.tick()
        storm = await engine.journal.storm()
        return storm is not None

    async def _in_order(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Most severe first as ever, then by age; episodes' ids are drawn anew each time, and must decide nothing."""
        if len(claims) < 2:
            return claims
        found = {claim.episode: await self._journal.episode(claim.episode) for claim in claims}
        order = {name: (row.severity or "P2", row.opened_at, row.key) for name, row in found.items() if row is not None}
        return sorted(claims, key=lambda claim: order[claim.episode])

    def _split(self, row: InboxRow) -> list[Routed]:
        return split(row, self._books, self._settings.environment)

    def _sound(self, journal: PatientJournal) -> None:
        if isinstance(self._past.broken, Transient):
            raise Unusable(3, f"Prometheus went away meanwhile: {self._past.broken}", "Start it again.")
        if journal.failed:
            raise Unusable(
                1, "The engine fails on an episode of this history; see its log above.", "It is a bug of ours."
            )

    def _observe(self, event: Event, ledger: Ledger) -> None:
        episode = event.episode
        self._ledgers[episode] = ledger
        self._told.events.setdefault(episode, []).append(event)
        if event.kind is Kind.OPENED:
            self._told.keys[episode] = key_of(ledger.alert, self._books, self._settings.environment)
        if event.kind is Kind.CLOSED:
            self._journal.due.pop(episode, None)
            self._again(self._told.keys[episode], event.at)

    def _again(self, key: str, closed_at: float) -> None:
        """Still firing when its episode closed: the active alerts are read each minute, and open another one.

        While its rule is not true (`keep_firing_for`) that one closes at once, each minute anew; reports leave it out.
        """
        for firing in self._fired[key]:
            over = firing.ends_at is not None and firing.ends_at <= closed_at + LIMITS_AGAIN
            if firing.starts_at <= closed_at and not over:
                self._number += 1
                heapq.heappush(self._queue, (closed_at + LIMITS_AGAIN, self._number, body(firing, "firing")))
                return

    # -- when something can be different -------------------------------------------------------------------

    async def _due(self, episode: str, due: float) -> float:
        """The first moment, not before `due` where waiting is all there is, at which it may be decided otherwise."""
        now, ledger = self._clock.now(), self._ledgers.get(episode)
        book = None if ledger is None else self._book(ledger)
        if ledger is None or book is None:
            return due
        last = ledger.last
        proving = last is not None and last.took_effect and last.verdict is None
        names = book.match.alertnames if proving else (ledger.alert.name,)  # as `PastSight.proof` looks at all of them
        change = await self._past.change(names, ledger.target, book.blocked_by)
        until = self._patience(ledger, book, now, due)
        return max(now + 0.1, min(until, change))

    def _patience(self, ledger: Ledger, book: Runbook, now: float, due: float) -> float:
        """How long nothing but the recorded world can change its mind."""
        last = ledger.last
        stale = ledger.alert.starts_at + book.stale_after + 1.0
        if ledger.handed_over:
            told_until = ledger.handed_over_at + max(LIMITS_AGAIN, book.proof.hold)
            return due if now < told_until else NEVER
        if last is not None and last.took_effect and last.verdict is None:
            if last.good_since is None:
                return max(due, last.effect_at + book.proof.timeout)
            return min(due, max(now, last.good_since + book.proof.hold))
        if ledger.approval is not None and ledger.approval.open and not ledger.refused:
            return min(max(due, ledger.approval.good_until), stale)
        if ledger.refused in OF_THE_WORLD:
            return max(due, stale)
        if ledger.refused in (Reason.SETTLING, Reason.COOLDOWN) and (ledger.earliest or 0.0) > now:
            return min(ledger.earliest or due, stale)
        if ledger.refused == Reason.RELEASING:
            return now + RELEASE_AGAIN
        return max(due, now + LIMITS_AGAIN) if ledger.refused else due

    def _book(self, ledger: Ledger) -> Runbook | None:
        return next((book for book in self._books if book.name == ledger.runbook), None)


def _unattended(settings: Settings) -> Settings:
    """Mode auto, so that the runbook's own decides; no pause file, no disk, no budget, which rests on verdicts."""
    guards = settings.guards.model_copy(update={"budget_failures": 1_000_000})
    journal = remediator_settings.Journal(url="sqlite:///:memory:")
    changes = {"mode": "auto", "pause_file": Path("/nonexistent/backtest"), "guards": guards, "journal": journal}
    return settings.model_copy(update=changes)


def _patient(book: Runbook) -> Runbook:
    """The same runbook with fewer rounds of proof: what they ask is asked again wherever the answer changes.

    One that only watches by now is replayed as if it might act: what it would do then is what is asked.
    """
    every = max(book.proof.every, book.proof.hold / ROUNDS)
    mode = "auto" if book.mode == "shadow" else book.mode
    return book.model_copy(update={"mode": mode, "proof": book.proof.model_copy(update={"every": every})})
