"""Whatever order two replicas act in, lose their leases or come too late: the journal's invariants hold.

The real journal over SQLite in memory, shared by two replicas, with a clock that the test owns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remediator.errors import Conflict
from remediator.events import Kind
from remediator.facts import Facts
from remediator.journal import Journal, intake
from remediator.journal.sqlite import SQLiteStore
from remediator.reasons import Reason, Refusal
from tests.support.journals import BOOK, delivery, event, intent, split

T = TypeVar("T")
LEASE = 6.0
COOLDOWN = 600.0
KEYS, RESOURCES = ("a", "b", "c"), ("docker:p/x", "docker:p/y")
WAITS, DUES = (0.1, 1.0, 7.0, 400.0, 3700.0), (None, 0.0, 5.0, 1e9, float("nan"))
RESULTS = ("done", "failed", "in_doubt")
STEP = st.tuples(
    st.sampled_from(
        [
            "deliver",
            "deliver",
            "route",
            "route",
            "claim",
            "claim",
            "claim",
            "append",
            "append",
            "append",
            "intend",
            "intend",
            "intend",
            "outcome",
            "release",
            "release",
            "renew",
            "wait",
            "wait",
            "pause",
            "sweep",
        ]
    ),
    st.integers(0, 1),
    st.integers(0, 29),
)


@dataclass
class Clock:
    """Moves only when told."""

    t: float = 1_800_000_000.0

    def now(self) -> float:
        return self.t

    def boottime(self) -> float:
        return self.t

    async def sleep(self, seconds: float) -> None:
        self.t += seconds


def careful(facts: Facts) -> Refusal | None:
    """No effect beside another's, none within the cooldown, two an hour on all."""
    if facts.paused or facts.doubts or facts.holds or facts.all_hour >= 2:
        return Refusal(Reason.TARGET_BUSY, "busy")
    if facts.last_effect_at is not None and facts.now < facts.last_effect_at + COOLDOWN:
        return Refusal(Reason.COOLDOWN, "cooldown")
    return None


class Replicas:
    """Two replicas; each remembers the episodes it believes it owns, also after it has lost them."""

    def __init__(self) -> None:
        self.journals: list[Journal] = []
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.stored = 0
        self.taken: list[int] = []
        self.paused: int | None = None
        self.begun: list[tuple[float, str, str]] = []  # time, resource, episode
        self.attempts: list[tuple[str, str]] = []  # episode and attempt, not proved yet
        self.unproved: dict[str, tuple[str, str]] = {}  # attempt that may have begun: resource, episode

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def start(self) -> None:
        """Two journals over one store."""
        store = SQLiteStore(None, self.clock.now, shared=True)
        self.do(store.open())
        options: dict[str, Any] = {"clock": self.clock, "mode": "auto", "config_digest": "", "hold_off": 60.0}
        self.journals += [self.do(Journal.over(store, owner=name, lease=LEASE, **options)) for name in "ab"]
        self.owned: list[dict[str, int]] = [{}, {}]  # episode: last place that this replica has read

    def end(self) -> None:
        """Close them."""
        self.do(self.journals[0].close())
        self.loop.close()

    def step(self, what: str, who: int, pick: int) -> None:
        """One thing that one replica does; `pick` chooses among whatever there is to choose."""
        getattr(self, what)(who, pick)

    def deliver(self, who: int, pick: int) -> None:
        """No two say the very same: that would be told once, and here each is counted."""
        for more in range(1 + pick % 2):
            self.stored += 1
            body = delivery(KEYS[(pick + more) % 3], number=self.stored)
            self.do(self.journals[who].store([("delivery", body)]))

    def route(self, who: int, pick: int) -> None:
        self.do(self.journals[who].route(split, 1 + pick % 3))

    def claim(self, who: int, pick: int) -> None:
        for claim in self.do(self.journals[who].claim(1 + pick % 3)):
            last = len(self.do(self.journals[who].events(claim.episode)))
            if last == 0:
                self.do(self.journals[who].append([event(claim.episode, 1, Kind.OPENED, self.clock.t)]))
                last = 1
            if claim.taken_over:
                new = event(claim.episode, last + 1, Kind.CLAIMED, owner=str(who), epoch=claim.epoch)
                self.do(self.journals[who].append([new]))
                last += 1
            self.owned[who][claim.episode] = last

    def append(self, who: int, pick: int) -> None:
        """With all that waits, and perhaps as the last event."""
        if not self.owned[who]:
            return
        journal, episode = self.journals[who], self.episode(who, pick)
        close = pick % 3 == 0 and not any(one == episode for one, _ in self.attempts)
        rows = [row.id for row in self.do(journal.inbox(episode))] if pick % 7 else []
        new = event(episode, self.owned[who][episode] + 1, Kind.CLOSED if close else Kind.REFUSED, self.clock.t)
        try:
            self.do(journal.append([new], takes=rows, close=close, due_at=None if close else DUES[pick % 5]))
        except Conflict:
            self.owned[who].pop(episode)
            return
        self.taken += rows
        self.owned[who][episode] += 1
        if close:
            self.owned[who].pop(episode)

    def intend(self, who: int, pick: int) -> None:
        if not self.owned[who]:
            return
        episode, resource = self.episode(who, pick), RESOURCES[pick % 2]
        if any(one == episode for one, _ in self.attempts):
            return
        new = intent(episode, self.owned[who][episode] + 1, self.clock.t, resource=resource)
        try:
            refusal = self.do(self.journals[who].intend(new, runbook=BOOK, resource=resource, decide=careful))
        except Conflict:
            self.owned[who].pop(episode)
            return
        if refusal is None:
            assert self.paused is None
            assert not any(on == resource for on, _ in self.unproved.values()), "two at once on one target"
            self.owned[who][episode] += 1
            self.begun.append((self.clock.t, resource, episode))
            self.attempts.append((episode, new.data["attempt"]))
            self.unproved[new.data["attempt"]] = (resource, episode)

    def outcome(self, who: int, pick: int) -> None:
        """Written by whoever made the attempt, long after it has lost the episode, too; proved by its owner."""
        if not self.attempts:
            return
        episode, attempt = self.attempts[pick % len(self.attempts)]
        new = event(episode, 0, Kind.OUTCOME, self.clock.t, attempt=attempt, result=RESULTS[pick % 3])
        placed = self.do(self.journals[who].outcome(new))
        if pick % 3 == 1:
            self.unproved.pop(attempt, None)
        verdict = event(episode, placed.seq + 1, Kind.VERDICT, self.clock.t, attempt=attempt, verdict="unknown")
        for journal, owned in zip(self.journals, self.owned, strict=True):
            try:
                self.do(journal.append([verdict]))
            except Conflict:
                continue
            self.attempts.remove((episode, attempt))
            self.unproved.pop(attempt, None)
            if episode in owned:
                owned[episode] = verdict.seq
            return

    def release(self, who: int, pick: int) -> None:
        if self.owned[who]:
            episode = self.episode(who, pick)
            self.do(self.journals[who].release(episode, self.clock.t + (DUES[pick % 5] or 0.0)))
            self.owned[who].pop(episode)

    def renew(self, who: int, pick: int) -> None:
        self.do(self.journals[who].renew())

    def wait(self, who: int, pick: int) -> None:
        self.clock.t += WAITS[pick % 5]

    def pause(self, who: int, pick: int) -> None:
        """Pause, or resume when it is paused."""
        if self.paused is None:
            self.paused = self.do(self.journals[who].pause("all", "ann", "why", None))
        else:
            assert self.do(self.journals[who].resume(self.paused, "ann"))
            self.paused = None

    def sweep(self, who: int, pick: int) -> None:
        assert self.do(self.journals[who].sweep()) == 0, "something could not have been woken"

    def episode(self, who: int, pick: int) -> str:
        names = sorted(self.owned[who])
        return names[pick % len(names)]

    def limits_hold(self) -> None:
        """Per resource a cooldown between episodes, two an hour on all; and the charges are what the events say."""
        for index, (at, resource, episode) in enumerate(self.begun):
            for earlier, same, other in self.begun[:index]:
                assert resource != same or episode == other or at >= earlier + COOLDOWN
            assert sum(at - 3600 < earlier <= at for earlier, _, _ in self.begun[: index + 1]) <= 2
        assert self.do(self.journals[0].verify()) == []

    def nothing_is_lost(self) -> None:
        """Every alert is somewhere: waiting to be routed, waiting for an owner of an open episode, or taken, once."""
        journal = self.journals[0]
        rows = self.do(journal.open_episodes())
        waiting = [row.id for one in rows for row in self.do(journal.inbox(one.episode))]
        assert len(self.taken) == len(set(self.taken))
        assert not set(self.taken) & set(waiting)
        assert len(self.taken) + len(waiting) + self.unrouted() == self.stored
        assert all(row.due_at is not None for row in rows)
        for row in rows:
            seqs = [one.seq for one in self.do(journal.events(row.episode))]
            assert seqs == list(range(1, len(seqs) + 1))

    def unrouted(self) -> int:
        return len(self.do(self.journals[0]._store.read(lambda tx: intake.unrouted(tx, 10_000))))

    def what_waits_is_due(self) -> None:
        """No alert waits for a timer, not even when its owner dies: its episode is due now."""
        for row in self.do(self.journals[0].open_episodes()):
            if self.do(self.journals[0].inbox(row.episode)):
                assert row.due_at is not None
                assert row.due_at <= self.clock.t


@given(st.lists(STEP, min_size=60, max_size=160))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_order_of_events_breaks_an_invariant(steps: list[tuple[str, int, int]]) -> None:
    """Nothing is lost, nothing is written twice, no limit is exceeded, and whatever waits is due."""
    replicas = Replicas()
    replicas.start()
    try:
        for what, who, pick in steps:
            replicas.step(what, who, pick)
            replicas.what_waits_is_due()
        replicas.limits_hold()
        replicas.nothing_is_lost()
    finally:
        replicas.end()
