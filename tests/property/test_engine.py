"""Whatever order alerts, people, faults and crashes come in: the safety case holds, counted at the target.

Two replicas of the real engine, planner and guardrails over one real journal (SQLite in memory), in the simulated world of
tests/simulation, whose time only the test moves. Hypothesis chooses the order; a failing one is shrunk and replays exactly.
`make campaign` tries 10,000.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remediator.commands import by_hand
from remediator.engine import Engine
from remediator.episodes import Episodes
from remediator.errors import RemediatorError
from remediator.journal import InboxRow, Journal, Routed
from remediator.journal.sqlite import SQLiteStore
from remediator.ledger import Attempt, Command, Ledger, fold
from remediator.matching import params_of
from remediator.sameness import digest_of_preview
from remediator.watch import Watch
from remediator.webhook import split
from simulation.small_world import (
    START,
    Crash,
    MortalJournal,
    SimDiagnoses,
    SimPeople,
    SimRestart,
    SimService,
    SimSight,
    SimWorld,
    record,
)
from tests.unit.cases import book
from tests.unit.cases import settings as sim_settings

T = TypeVar("T")
LEASE = 6.0
SERVICES = ("engine", "billing", "search")
FOREVER = [(START - 1e6, START + 1e9)]
FORBIDS = ("silenced", "cause firing")
FAULTS = (*FORBIDS, "prometheus down", "gate down", "answers lost", "no evidence", "target silent")
WAITS = (1.0, 3.0, 10.0, 40.0, 150.0, 700.0, 2000.0)
BOOK = book()
SETTINGS = sim_settings()
SETTINGS = SETTINGS.model_copy(update={"guards": SETTINGS.guards.model_copy(update={"storm_episodes": 3})})
STEP = st.tuples(
    st.sampled_from(
        ["sicken"] * 3 + ["heal", "deliver", "deliver", "forget", "fault", "well", "pause", "resume", "mode"]
        + ["approve"] * 4 + ["decline", "end_storm", "clock", "crash", "command", "command"]
        + ["drive"] * 12 + ["wait"] * 6
    ),
    st.integers(0, 1),
    st.integers(0, 29),
)  # fmt: skip

MODE = st.sampled_from(["auto", "approve"])


@dataclass
class Acted:
    """One effect as it happened: what held at that moment."""

    attempt: str
    service: str
    at: float
    forbidden: str


@dataclass
class Platform:
    """Two replicas, and everything around them. Every step leaves the clock where it is but `wait` and what waits itself."""

    world: SimWorld = field(default_factory=lambda: SimWorld(1))
    acted: list[Acted] = field(default_factory=list)
    mode: str = "auto"
    pauses: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.world.services = {
            name: SimService(name, after=after)
            for name, after in zip(SERVICES, ("heals", "stays", "dies"), strict=True)
        }
        self.store = SQLiteStore(None, self.world.clock.now, shared=True)
        self.do(self.store.open())
        self.engines = [self.replica(), self.replica()]

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def replica(self) -> Engine:
        """A new process on the same journal; what an old one had claimed is free when its lease ends."""
        journal = self.do(
            Journal.over(
                self.store, owner="r", clock=self.world.clock, mode=self.mode, config_digest="", hold_off=0, lease=LEASE
            )
        )
        mortal: Any = MortalJournal(journal, self.world)
        action = SimRestart(self.world)
        return Engine(
            journal=mortal,
            sight=SimSight(self.world, action),
            actions={action.name: action},
            people=SimPeople(self.world),
            diagnoses=SimDiagnoses(self.world),
            settings=SETTINGS,
            episodes=Episodes(mortal, SETTINGS, (BOOK,), record(self.world), journal.owner),
            clock=self.world.clock,
        )

    def close(self) -> None:
        self.do(self.store.close())
        self.loop.close()

    # -- steps ------------------------------------------------------------------------------------------

    def step(self, what: str, who: int, pick: int) -> None:
        """One thing happens; a crash ends the replica that it happened to, and another one starts in its place."""
        before = len(self.world.effects)
        try:
            getattr(self, what)(who, pick)
        except Crash:
            self.world.crash_at = -1
            self.note(before)
            self.engines[who] = self.replica()
        self.note(before)

    def note(self, before: int) -> None:
        """Judge each new effect by what held when it happened: nothing of it changes within a step."""
        for effect in self.world.effects[max(before, len(self.acted)) :]:
            forbidden = [what for what in FORBIDS if self.world.spans.get(what)] + [f"pause {p}" for p in self.pauses]
            self.acted.append(Acted(effect.attempt, effect.service, effect.at, ", ".join(forbidden)))

    def sicken(self, _: int, pick: int) -> None:
        service = self.world.services[SERVICES[pick % 3]]
        service.sick_since, service.down = self.world.clock.now() - 25, False

    def heal(self, _: int, pick: int) -> None:
        service = self.world.services[SERVICES[pick % 3]]
        service.sick_since, service.down, service.relapse_at = None, False, None

    def deliver(self, who: int, pick: int) -> None:
        """Firing or resolved, whatever is true; twice at times."""
        status = "firing" if pick % 4 else "resolved"
        bodies = [("delivery", self.world.body(SERVICES[pick % 3], status))] * (1 + pick % 2)
        self.do(self.engines[who].journal.store(bodies))

    def forget(self, who: int, _: int) -> None:
        """The replica freezes: nothing of its claims is given back or renewed."""
        self.engines[who] = self.replica()

    def fault(self, _: int, pick: int) -> None:
        self.world.spans[FAULTS[pick % len(FAULTS)]] = FOREVER

    def well(self, _: int, pick: int) -> None:
        self.world.spans[FAULTS[pick % len(FAULTS)]] = []

    def pause(self, who: int, pick: int) -> None:
        if len(self.pauses) < 2:
            self.pauses.append(self.do(self.engines[who].journal.pause("all", "ada", "because", None)))

    def resume(self, who: int, _: int) -> None:
        if self.pauses:
            self.do(self.engines[who].journal.resume(self.pauses.pop(), "ada"))

    def mode_(self, mode: str) -> None:
        self.mode = mode
        for engine in self.engines:
            self.do(engine.journal.heartbeat(mode))

    def clock(self, _: int, pick: int) -> None:
        """Somebody sets the wall clock, ahead or back."""
        self.world.clock.stepped += (600.0, -600.0, 3700.0, 2.0)[pick % 4]

    def crash(self, who: int, pick: int) -> None:
        """The process dies a few writes or calls later."""
        self.world.crash_at = self.world.steps + 1 + pick
        with suppress(AttributeError):
            self.drive(who, pick)
        self.world.crash_at = -1

    def approve(self, who: int, pick: int) -> None:
        self.say(who, "approve", pick)

    def decline(self, who: int, pick: int) -> None:
        self.say(who, "decline", pick)

    def say(self, who: int, kind: str, pick: int) -> None:
        """A person answers the latest question, or one of before."""
        journal = self.engines[who].journal
        ledgers = [
            fold(self.do(journal.events(row.episode))) for row in self.do(journal.open_episodes()) if row.runbook
        ]
        asked = [(ledger.episode, one) for ledger in ledgers for one in ledger.approvals]
        if asked:
            episode, one = asked[-1 - (pick % len(asked) if pick > 19 else 0)]
            body = {"kind": kind, "approval": one.id, "digest": one.digest, "who": "ab"[pick % 2], "reason": "x"}
            self.do(journal.click(episode, json.dumps(body).encode()))

    def command(self, who: int, pick: int) -> None:
        """A person has something done by hand; at times the glass is broken for it, at times it was of another life."""
        name, journal = SERVICES[pick % 3], self.engines[who].journal
        action, rung = self.engines[who].actions["restart_service"], BOOK.ladder[0]
        made = by_hand(BOOK, rung, {})
        try:
            params = action.params_model.model_validate(params_of(rung, {"service": name}))
            seen = digest_of_preview(made.ladder[0], self.do(action.preview(params)))
        except RemediatorError:
            return
        said = Command(action.name, seen if pick % 7 else "0" * 64, "ada", "x", pick % 2 == 0)
        body = {"command": asdict(said), "target": {"service": name}, "book": made.body()}
        self.do(journal.command(uuid4().hex, f"{name} by ada", json.dumps(body).encode()))

    def end_storm(self, who: int, _: int) -> None:
        self.do(self.engines[who].journal.end_storm("ada", "over"))

    def drive(self, who: int, pick: int) -> None:
        """One turn of a replica's loop; at times somebody has just answered what was asked."""
        engine = self.engines[who]
        if pick % 3 == 1:
            self.say(who, "decline" if pick % 5 == 4 else "approve", 0)
        if engine.clock_stepped() is not None:
            self.do(engine.hold_off_after_step())
        self.do(engine.journal.heartbeat(self.mode))
        self.do(engine.journal.route(_split))
        self.do(Watch(engine).tick())
        for claim in self.do(engine.journal.claim(4)):
            self.do(engine.drive(claim))

    def wait(self, _: int, pick: int) -> None:
        self.world.clock.t += WAITS[pick % len(WAITS)]

    # -- what must hold -----------------------------------------------------------------------------------

    def ledgers(self) -> list[Ledger]:
        journal = self.engines[0].journal
        rows = self.do(journal.episodes(limit=None))
        found = [self.do(journal.events(row.episode)) for row in rows]
        return [fold(events) for events in found if events]

    def check(self) -> None:
        """Once, within its window, with what allowed it; cooldown and limits kept; nobody forgotten."""
        ledgers = self.ledgers()
        attempts = {one.id: (ledger, one) for ledger in ledgers for one in ledger.attempts}
        twice = {attempt: count for attempt, count in Counter(each.attempt for each in self.acted).items() if count > 1}
        assert not twice, "an attempt took effect twice"
        for each in self.acted:
            assert each.attempt in attempts, "an effect without an intent"
            assert not self.binds(each, attempts[each.attempt][0].command), f"acted while {each.forbidden}"
            assert not attempts[each.attempt][1].did_not_begin, "called not begun, and it happened"
        for name in SERVICES:
            self.check_service([each for each in self.acted if each.service == name], attempts)
        for ledger in ledgers:
            assert ledger.closed is None or ledger.settled or ledger.handed_over, "closed with something open in it"
        self.check_approvals(ledgers)
        assert self.do(self.engines[0].journal.verify()) == []

    def binds(self, each: Acted, command: Command | None) -> str:
        """What should have stopped it: a person's command is not about the alert, and a broken glass is before pauses."""
        if command is None:
            return each.forbidden
        return "" if command.break_glass or "pause" not in each.forbidden else each.forbidden

    def check_service(self, acted: Sequence[Acted], attempts: dict[str, tuple[Ledger, Attempt]]) -> None:
        """By the journal's times: the wall clock was set, and what it showed is what people see."""
        for before, after in pairwise(acted):
            (first, one), (second, other) = attempts[before.attempt], attempts[after.attempt]
            if first.episode == second.episode:
                assert one.verdict is not None or one.did_not_begin, "a second effect before the first was judged"
            elif second.command is None or not second.command.break_glass:
                apart = other.at - one.at
                assert not 0 <= apart < BOOK.limits.cooldown - 2, f"{apart:.0f} s apart in two episodes"

    def check_approvals(self, ledgers: Sequence[Ledger]) -> None:
        for ledger in ledgers:
            used = [one for one in ledger.approvals if one.used is not None]
            assert len({one.used for one in used}) == len(used), "one approval for two attempts"
            assert all(one.given and not one.declined_by for one in used), "used without a yes"

    def come_to_rest(self) -> None:
        """Everything is well again: what is still ill must have an episode that somebody works on, or people have."""
        for what in FAULTS:
            self.world.spans[what] = []
        while self.pauses:
            self.resume(0, 0)
        before, told = len(self.world.effects), set[str]()
        for _ in range(40):
            self.tell(told)
            self.drive(0, 0)
            self.world.clock.t += 7.0
        ill = self.tell(told)
        self.drive(0, 0)
        self.note(before)
        rows = self.do(self.engines[0].journal.open_episodes())
        for name in ill:
            if self.world.rule_true(name):
                assert any(name in row.label or row.due_at is not None for row in rows), f"{name} is nobody's"
        assert all(row.due_at is not None for row in rows), "an open episode that nobody will wake"

    def tell(self, told: set[str]) -> set[str]:
        """As Alertmanager does: each whose rule has become true is delivered. By a clock that was set back that is late."""
        ill = {name for name in SERVICES if self.world.rule_true(name)}
        for name in sorted(ill - told):
            self.do(self.engines[0].journal.store([("delivery", self.world.body(name, "firing"))]))
        told.intersection_update(ill)
        told.update(ill)
        return ill


def _split(row: InboxRow) -> list[Routed]:
    return split(row, (BOOK,), SETTINGS.environment)


def _mode(platform: Platform, pick: int) -> None:
    platform.mode_(("auto", "approve", "shadow", "auto")[pick % 4])


def play(mode: str, steps: Sequence[tuple[str, int, int]]) -> None:
    """One order of steps, then everything is checked."""
    platform = Platform()
    try:
        platform.mode_(mode)
        for what, who, pick in steps:
            if what == "mode":
                _mode(platform, pick)
            else:
                platform.step(what, who, pick)
        platform.check()
        platform.come_to_rest()
        platform.check()
    finally:
        platform.close()


def test_an_illness_that_the_clock_shows_late() -> None:
    """Set back by 20 minutes: by the wall clock the service falls ill while all comes to rest, and it is told then."""
    steps = [("sicken", 0, 0), ("clock", 0, 1), ("clock", 0, 1), ("wait", 0, 4), ("wait", 0, 18), ("wait", 0, 26)]
    play("auto", steps)


@given(MODE, st.lists(STEP, min_size=10, max_size=70))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_no_order_breaks_the_safety_case(mode: str, steps: list[tuple[str, int, int]]) -> None:
    """No limit exceeded, nothing done while forbidden or without a needed yes, nothing twice, nobody forgotten."""
    play(mode, steps)


@pytest.mark.campaign(seconds=1800)
@pytest.mark.timeout(4000)
@pytest.mark.parametrize("piece", range(4))
@given(MODE, st.lists(STEP, min_size=20, max_size=120))
@settings(max_examples=2_500, suppress_health_check=list(HealthCheck))
def test_no_order_of_many_breaks_the_safety_case(piece: int, mode: str, steps: list[tuple[str, int, int]]) -> None:
    """As above, ten thousand times; in four pieces, so that two cores can share them (`-n 2`)."""
    play(mode, steps)
