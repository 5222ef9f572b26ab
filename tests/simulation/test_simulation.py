"""The real planner, engine and journal in a simulated world: whatever happens, no effect twice and none unseen.

Each seed is an hour of incidents on three services. A failing seed is in the test's name; `SIM_SEEDS`
(how many) and `SIM_FIRST` choose others.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from remediator import settings
from remediator.engine import Engine
from remediator.episodes import Episodes
from remediator.events import Kind
from remediator.journal import InboxRow, Journal, Routed
from remediator.ledger import Ledger, fold
from remediator.runbooks import Runbook
from remediator.webhook import split
from simulation.small_world import (
    START,
    Crash,
    Effect,
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

FIRST = int(os.environ.get("SIM_FIRST", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("SIM_SEEDS", "4")))
HORIZON = 3600.0
BOOK: Runbook = book()
SETTINGS = sim_settings()


def draw(seed: int) -> SimWorld:
    """A world from its seed: who falls ill when, what a restart does, what else is wrong, when the process dies."""
    world = SimWorld(seed)
    rng = world.random
    for name in ("engine", "billing", "search"):
        service = SimService(name, after=rng.choice(["heals", "heals", "stays", "dies", "returns"]))
        service.sick_since = START + rng.uniform(10, HORIZON / 2)
        world.services[name] = service
    for what in ("prometheus down", "gate down", "silenced", "cause firing", "answers lost", "no evidence"):
        spans = [rng.uniform(0, HORIZON) for _ in range(rng.randrange(3))]
        world.spans[what] = [(START + at, START + at + rng.uniform(20, 600)) for at in spans]
    return world


@asynccontextmanager
async def process(world: SimWorld, path: Path) -> AsyncIterator[tuple[Engine, Journal]]:
    """One life of the remediator: everything but the journal's file is new."""
    journal = await Journal.open(
        settings.Journal(url=f"sqlite:///{path}"),
        owner="sim",
        clock=world.clock,
        mode="auto",
        config_digest="sim",
        hold_off=30.0,
    )
    clean = False
    try:
        yield engine_over(world, MortalJournal(journal, world)), journal  # type: ignore[arg-type]
        clean = True
    finally:
        await journal.close(clean=clean)


def engine_over(world: SimWorld, journal: Journal) -> Engine:
    """The real engine in this world, on this journal."""
    action = SimRestart(world)
    return Engine(
        journal=journal,
        sight=SimSight(world, action),
        actions={action.name: action},
        people=SimPeople(world),
        diagnoses=SimDiagnoses(world),
        settings=SETTINGS,
        episodes=Episodes(journal, SETTINGS, (BOOK,), record(world), journal.owner),
        clock=world.clock,
    )


def to_alerts(row: InboxRow) -> list[Routed]:
    """What a delivery becomes, by the only runbook."""
    return split(row, (BOOK,), SETTINGS.environment)


async def live(world: SimWorld, engine: Engine, until: float, *, only_one: bool = False) -> None:
    """Deliver, claim and drive until the horizon, or until the only episode is over; Crash ends it."""
    rng = world.random
    told: dict[str, bool] = {}
    while world.clock.now() < until:
        for name in world.services:
            true = world.rule_true(name) and not world.during("prometheus down", slack=240)
            if true != told.get(name, False) or (true and rng.random() < 0.02):
                status = "firing" if true else "resolved"
                copies = [("delivery", world.body(name, status))] * rng.choice([1, 1, 2])
                await engine.journal.store(copies)
                told[name] = true
        for claim in await engine.journal.take_in(to_alerts, 16):
            await engine.drive(claim)
        await engine.journal.renew()
        world.clock.t += rng.uniform(0.5, 9.0)
        if only_one and world.clock.t > 60 and not await engine.journal.open_episodes():
            return


async def history(journal: Journal) -> dict[str, Ledger]:
    """Every episode's state, by the journal alone."""
    rows = await journal.episodes(limit=None)
    return {row.episode: fold(await journal.events(row.episode)) for row in rows}


def check_effects(world: SimWorld, episodes: dict[str, Ledger]) -> None:
    """The safety case, counted at the target."""
    attempts = {attempt.id: (ledger, attempt) for ledger in episodes.values() for attempt in ledger.attempts}
    counts = Counter(effect.attempt for effect in world.effects)
    assert all(count == 1 for count in counts.values()), f"twice: {counts}"
    assert counts.keys() <= attempts.keys(), "an effect without an intent"
    for effect in world.effects:
        ledger, attempt = attempts[effect.attempt]
        assert attempt.at <= effect.at <= attempt.start_by + 2, "an effect outside its window"
        assert not attempt.did_not_begin, "called not begun, and it happened"
        assert ledger.target["service"] == effect.service
    for before, after in pairs(world):
        same = attempts[before.attempt][0].episode == attempts[after.attempt][0].episode
        apart = after.at - before.at
        assert same or apart >= BOOK.limits.cooldown - 2, f"{after.service}: {apart:.0f} s apart in two episodes"
        if not same:
            continue
        first = attempts[before.attempt][1]
        assert first.verdict is not None, "a second effect before the first was judged"
    for name in world.services:
        at = [effect.at for effect in world.effects if effect.service == name]
        assert all(sum(a <= b < a + 3600 for b in at) <= BOOK.limits.per_hour for a in at), f"{name}: over its limit"


def pairs(world: SimWorld) -> list[tuple[Effect, Effect]]:
    """Successive effects on one service."""
    found: list[tuple[Effect, Effect]] = []
    for name in world.services:
        mine = [effect for effect in world.effects if effect.service == name]
        found += list(pairwise(mine))
    return found


def check_nothing_forbidden(world: SimWorld) -> None:
    """No effect while silenced or while a cause fires, but for the seconds between look and effect."""
    for effect in world.effects:
        for what in ("silenced", "cause firing"):
            spans = world.spans[what]
            assert not any(start + 11 <= effect.at < end for start, end in spans), f"acted while {what}"


def check_nobody_forgotten(world: SimWorld, episodes: dict[str, Ledger]) -> None:
    """What is ill at the end has an open episode, and every open doubt has reached people."""
    for name in world.services:
        if world.rule_true(name):
            mine = [ledger for ledger in episodes.values() if ledger.target.get("service") == name]
            assert any(ledger.closed is None for ledger in mine), f"{name} is ill and nobody owns it"
    paged = {page.episode for page in world.pages}
    for episode, ledger in episodes.items():
        if ledger.last is not None and ledger.last.in_doubt and world.clock.now() > ledger.last.at + 300:
            assert episode in paged, f"the doubt of {episode} reached nobody"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
async def test_an_hour_of_incidents(seed: int, tmp_path: Path) -> None:
    """Faults, dead servers, silences, lost answers and crashes at drawn moments: the safety case holds."""
    world = draw(seed)
    while world.clock.t < HORIZON:
        world.crash_at = world.steps + world.random.randrange(5, 150)
        try:
            async with process(world, tmp_path / "journal.db") as (engine, _):
                await live(world, engine, START + HORIZON)
        except Crash:
            world.clock.t += world.random.uniform(1, 60)
    world.crash_at = -1
    async with process(world, tmp_path / "journal.db") as (engine, journal):
        await live(world, engine, START + HORIZON + 600)
        episodes = await history(journal)
        assert await journal.verify() == []
    check_effects(world, episodes)
    check_nothing_forbidden(world)
    check_nobody_forgotten(world, episodes)


async def test_one_seed_gives_one_story(tmp_path: Path) -> None:
    """Deterministic: the same seed twice gives the same effects at the same times."""
    stories = []
    for turn in ("a", "b"):
        world = draw(3)
        async with process(world, tmp_path / f"{turn}.db") as (engine, _):
            await live(world, engine, START + 1800)
        stories.append([(effect.at, effect.service) for effect in world.effects])
    assert stories[0] == stories[1]
    assert stories[0], "the seed has no effect in it: it shows nothing"


@pytest.mark.timeout(600)
async def test_killed_at_every_step_of_one_remediation(tmp_path: Path) -> None:
    """One fault, and the process dies at each step in turn: exactly one effect, or a doubt that reached people."""
    steps = await _one_remediation(tmp_path / "whole.db", -1)
    assert steps > 20
    for crash_at in range(1, steps + 1):
        await _one_remediation(tmp_path / f"{crash_at}.db", crash_at)


async def _one_remediation(path: Path, crash_at: int) -> int:
    world = SimWorld(7)
    world.services["engine"] = SimService("engine", sick_since=START)
    world.crash_at = crash_at
    steps = 0
    try:
        async with process(world, path) as (engine, _):
            await live(world, engine, START + 600, only_one=True)
            steps = world.steps
    except Crash:
        world.clock.t += 5
        async with process(world, path) as (engine, _):
            await live(world, engine, START + 900, only_one=True)
    async with process(world, path) as (_, journal):
        episodes = await history(journal)
    check_effects(world, episodes)
    check_nobody_forgotten(world, episodes)
    last = next((ledger.last for ledger in episodes.values() if ledger.last), None)
    assert len(world.effects) == 1 or (last is not None and (last.in_doubt or last.did_not_begin)), crash_at
    assert all(ledger.closed for ledger in episodes.values()) or world.pages, f"killed at {crash_at}: stuck"
    assert Kind.INTENT in {event.kind for event in world.events} or crash_at > 0
    return steps
