"""Whatever order two replicas act in, lose their leases or come too late: the journal's invariants hold.

The real journal over SQLite in memory, shared by two replicas, with a clock that the test owns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
WHO = st.integers(0, 1)
KEYS = st.sampled_from(["a", "b", "c"])
RESOURCES = st.sampled_from(["docker:p/x", "docker:p/y"])


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


class Replicas(RuleBasedStateMachine):
    """Two replicas; each remembers the episodes it believes it owns, also after it has lost them."""

    def __init__(self) -> None:
        super().__init__()
        self.journals: list[Journal] = []
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.stored = 0
        self.taken: list[int] = []
        self.paused: int | None = None
        self.begun: list[tuple[float, str, str]] = []  # time, resource, episode
        self.attempts: list[tuple[str, str]] = []  # episode, attempt without an outcome

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def start(self) -> None:
        store = SQLiteStore(None, self.clock.now, shared=True)
        self.do(store.open())
        options: dict[str, Any] = {"clock": self.clock, "mode": "auto", "config_digest": "", "hold_off": 60.0}
        self.journals += [self.do(Journal.over(store, owner=name, lease=LEASE, **options)) for name in "ab"]
        self.owned: list[dict[str, int]] = [{}, {}]  # episode: last place that this replica has read

    def teardown(self) -> None:
        if self.journals:
            self.do(self.journals[0].close())
        self.loop.close()

    @rule(who=WHO, keys=st.lists(KEYS, min_size=1, max_size=3))
    def deliver(self, who: int, keys: list[str]) -> None:
        self.do(self.journals[who].store([("delivery", delivery(key)) for key in keys]))
        self.stored += len(keys)

    @rule(who=WHO)
    def route(self, who: int) -> None:
        self.do(self.journals[who].route(split, 2))

    @rule(who=WHO, most=st.integers(1, 3))
    def claim(self, who: int, most: int) -> None:
        for claim in self.do(self.journals[who].claim(most)):
            last = len(self.do(self.journals[who].events(claim.episode)))
            if claim.taken_over:
                new = event(claim.episode, last + 1, Kind.CLAIMED, owner=str(who), epoch=claim.epoch)
                self.do(self.journals[who].append([new]))
                last += 1
            self.owned[who][claim.episode] = last

    @rule(who=WHO, pick=st.integers(0, 5), close=st.booleans(), due=st.sampled_from([None, 0.0, 1e4]))
    def append(self, who: int, pick: int, close: bool, due: float | None) -> None:
        if not self.owned[who]:
            return
        journal, episode = self.journals[who], self.episode(who, pick)
        rows = [row.id for row in self.do(journal.inbox(episode))]
        new = event(episode, self.owned[who][episode] + 1, Kind.CLOSED if close else Kind.REFUSED, self.clock.t)
        unfinished = any(one == episode for one, _ in self.attempts)
        try:
            self.do(journal.append([new], takes=rows, close=close and not unfinished, due_at=due))
        except Conflict:
            self.owned[who].pop(episode)
        else:
            self.taken += rows
            self.owned[who][episode] += 1
            if close and not unfinished:
                self.owned[who].pop(episode)

    @rule(who=WHO, pick=st.integers(0, 5), resource=RESOURCES)
    def intend(self, who: int, pick: int, resource: str) -> None:
        if not self.owned[who]:
            return
        episode = self.episode(who, pick)
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
            self.owned[who][episode] += 1
            self.begun.append((self.clock.t, resource, episode))
            self.attempts.append((episode, new.data["attempt"]))

    @precondition(lambda self: self.attempts)
    @rule(who=WHO, pick=st.integers(0, 5), result=st.sampled_from(["done", "failed", "in_doubt"]))
    def outcome(self, who: int, pick: int, result: str) -> None:
        """Written by whoever made the attempt, long after it has lost the episode, too; and proved by its owner."""
        episode, attempt = self.attempts.pop(pick % len(self.attempts))
        new = event(episode, 0, Kind.OUTCOME, self.clock.t, attempt=attempt, result=result)
        placed = self.do(self.journals[who].outcome(new))
        verdict = event(episode, placed.seq + 1, Kind.VERDICT, self.clock.t, attempt=attempt, verdict="unknown")
        for journal, owned in zip(self.journals, self.owned, strict=True):
            if episode in owned:
                try:
                    self.do(journal.append([verdict]))
                    owned[episode] = verdict.seq
                    return
                except Conflict:
                    owned.pop(episode)

    @rule(who=WHO, pick=st.integers(0, 5), wait=st.sampled_from([0.0, 5.0, 1e9, float("nan")]))
    def release(self, who: int, pick: int, wait: float) -> None:
        if self.owned[who]:
            episode = self.episode(who, pick)
            self.do(self.journals[who].release(episode, self.clock.t + wait))
            self.owned[who].pop(episode)

    @rule(who=WHO)
    def renew(self, who: int) -> None:
        self.do(self.journals[who].renew())

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0, 400.0, 3700.0]))
    def wait(self, seconds: float) -> None:
        self.clock.t += seconds

    @rule(who=WHO)
    def pause_or_resume(self, who: int) -> None:
        if self.paused is None:
            self.paused = self.do(self.journals[who].pause("all", "ann", "why", None))
        else:
            assert self.do(self.journals[who].resume(self.paused, "ann"))
            self.paused = None

    @rule(who=WHO)
    def sweep(self, who: int) -> None:
        assert self.do(self.journals[who].sweep()) == 0, "something could not have been woken"

    def episode(self, who: int, pick: int) -> str:
        names = sorted(self.owned[who])
        return names[pick % len(names)]

    @invariant()
    def limits_hold(self) -> None:
        """Per resource a cooldown between episodes, two an hour on all; and the charges are what the events say."""
        for index, (at, resource, episode) in enumerate(self.begun):
            for earlier, same, other in self.begun[:index]:
                assert resource != same or episode == other or at >= earlier + COOLDOWN
            assert sum(at - 3600 < earlier <= at for earlier, _, _ in self.begun[: index + 1]) <= 2
        if self.journals:
            assert self.do(self.journals[0].verify()) == []

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every alert is somewhere: waiting to be routed, waiting for an owner of an open episode, or taken, once."""
        if not self.journals:
            return
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

    @invariant()
    def what_waits_for_an_owner_is_due(self) -> None:
        """No alert waits for a timer: its episode is owned, or due now."""
        if not self.journals:
            return
        for row in self.do(self.journals[0].open_episodes()):
            if row.owner is None and self.do(self.journals[0].inbox(row.episode)):
                assert row.due_at is not None
                assert row.due_at <= self.clock.t


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
