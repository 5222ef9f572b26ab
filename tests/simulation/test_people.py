"""People and the real engine in the simulated world: questions, answers, storms, the pause file, a budget that is spent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from remediator.console.checks import ORDER
from remediator.engine import UNTOLD_WAIT, Engine
from remediator.events import CLICKS, OWN, Event, Kind
from remediator.journal import Journal
from remediator.ledger import fold
from remediator.reasons import Reason
from remediator.telling import STANDING
from remediator.watch import Watch
from simulation.small_world import START, SimPeople, SimService, SimSight, SimWorld
from tests.simulation.test_engine import sick
from tests.simulation.test_simulation import BOOK, live, process


@asynccontextmanager
async def asking(world: SimWorld, path: Path) -> AsyncIterator[tuple[Engine, Journal]]:
    """A remediator that must ask for everything."""
    async with process(world, path) as (engine, journal):
        await journal.heartbeat("approve")
        yield engine, journal


async def say(journal: Journal, kind: str, who: str = "ada", **changes: Any) -> None:
    """A person clicks: what the API puts into the inbox."""
    (row,) = await journal.open_episodes()
    asked = fold(await journal.events(row.episode)).approval
    assert asked is not None
    body = {"kind": kind, "approval": asked.id, "digest": asked.digest, "who": who, "reason": "because"}
    await journal.click(row.episode, json.dumps(body | changes).encode())


def told(world: SimWorld, name: str) -> list[bool]:
    """What was said under one alertname, in order: resolved?"""
    return [page.resolved for page in world.pages if page.alertname == name]


def kinds(world: SimWorld, kind: Kind) -> list[Event]:
    return [event for event in world.events if event.kind is kind]


async def test_a_no_during_the_look_is_read_before_the_intent(tmp_path: Path) -> None:
    """The mode has risen to auto, so that nobody needs to be asked any more, and just then somebody declines."""
    world = sick()

    class Looking(SimSight):
        async def look(self, *asked: Any, **more: Any) -> Any:
            found = await super().look(*asked, **more)
            if not kinds(world, Kind.DECLINED) and not said:
                said.append(world.clock.now())
                await say(journal, "decline")
            return found

    said: list[float] = []
    async with asking(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 300)
        engine.sight = Looking(world, engine.actions["restart_service"])  # type: ignore[arg-type]
        await journal.heartbeat("auto")
        await journal.nudge()
        await live(world, engine, START + 420)
    assert len(said) == 1
    assert len(kinds(world, Kind.DECLINED)) == 1
    assert world.effects == []


async def test_nothing_is_done_before_a_person_says_yes_and_once_after(tmp_path: Path) -> None:
    """Two click at once, and one clicks again when it is done: one effect. People are told that it was answered."""
    world = sick()
    async with asking(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 300)
        assert world.effects == []
        assert told(world, "RemediationNeedsApproval")[-1] is False
        await say(journal, "approve")
        await say(journal, "approve", "bob")
        await live(world, engine, START + 330)
        assert len(world.effects) == 1
        if await journal.open_episodes():
            await say(journal, "approve", "cyd")
        await live(world, engine, START + 1200)
        clicks = [(event.data["who"], event.data["code"]) for event in await journal.events(CLICKS)]
    assert clicks in ([("bob", "answered")], [("bob", "answered"), ("cyd", "answered")])
    assert len(world.effects) == 1
    assert told(world, "RemediationNeedsApproval")[-1] is True
    assert [event.data["who"] for event in kinds(world, Kind.APPROVED)] == ["ada"]
    (intent,) = kinds(world, Kind.INTENT)
    assert intent.data["approval"] == kinds(world, Kind.NEEDS_APPROVAL)[0].id


@pytest.mark.parametrize("change", [{"digest": "0" * 64}, {"approval": "0" * 32}])
async def test_an_answer_to_another_question_is_none(tmp_path: Path, change: dict[str, str]) -> None:
    """Of an older preview, or of another episode."""
    world = sick()
    async with asking(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 300)
        await say(journal, "approve", **change)
        await live(world, engine, START + 600)
    assert world.effects == []
    assert kinds(world, Kind.APPROVED) == []


async def test_a_container_that_was_started_anew_is_another_question(tmp_path: Path) -> None:
    """Somebody restarted it between the question and the click: the yes is worth nothing, a new question is asked."""
    world = sick()
    async with asking(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 300)
        world.services["engine"].started_at = world.clock.now()
        await say(journal, "approve")
        await live(world, engine, START + 400)
        assert world.effects == []
        assert len(kinds(world, Kind.NEEDS_APPROVAL)) == 2
        await say(journal, "approve")
        await live(world, engine, START + 500)
    assert len(world.effects) == 1


async def test_a_silence_after_the_yes_holds(tmp_path: Path) -> None:
    """Approved, and silenced before it was done: the silence is looked for again."""
    world = sick(silenced=[(START + 290, START + 10_000)])
    async with asking(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 280)
        await say(journal, "approve")
        world.clock.t = max(world.clock.t, 291)
        await live(world, engine, START + 900)
    assert world.effects == []


async def test_a_decline_costs_no_limit_and_is_the_end_of_it(tmp_path: Path) -> None:
    """It says who and why, and people are not asked any more."""
    world = sick()
    async with asking(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 300)
        await say(journal, "decline")
        await live(world, engine, START + 900)
        facts = await journal.facts("other", BOOK.name, "docker:sim/engine")
        (row,) = await journal.open_episodes()
        assert row.refused == Reason.DECLINED
    assert world.effects == []
    assert (facts.all_day, facts.last_effect_at) == (0, None)
    assert told(world, "RemediationNeedsApproval")[-1] is True
    assert len(kinds(world, Kind.NEEDS_APPROVAL)) == 1


async def test_a_question_that_nobody_answers_goes_to_people(tmp_path: Path) -> None:
    """After its time; a yes that comes later does nothing."""
    world = sick()
    async with asking(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 2100)
        assert "RemediationNeedsPeople" in {page.alertname for page in world.pages}
        await say(journal, "approve")
        await live(world, engine, START + 2400)
    assert world.effects == []


async def test_a_storm_is_one_page_and_is_released_one_by_one(tmp_path: Path) -> None:
    """Twelve services fall ill at once: nothing is begun; a person ends the storm; then one after the other."""
    world = SimWorld(5)
    for number in range(12):
        world.services[f"s{number:02}"] = SimService(f"s{number:02}", sick_since=START)
    async with process(world, tmp_path / "j.db") as (engine, journal):
        watch = Watch(engine)
        while world.clock.t < 400:
            await live(world, engine, world.clock.now() + 5)
            await watch.tick()
            await watch.tell()
        assert world.effects == []
        pages = {(page.alertname, page.symptom, page.episode) for page in world.pages}
        assert pages == {("RemediationStorm", "remediation-storm", "")}
        assert len(told(world, "RemediationStorm")) >= 4, "told once is not told: it is a standing state"
        await journal.end_storm("ada", "the cause is gone")
        await watch.tick()
        await watch.tell()
        assert told(world, "RemediationStorm")[-1] is True
        while world.clock.t < 1500:
            await live(world, engine, world.clock.now() + 5)
            await watch.tick()
            await watch.tell()
    at = sorted(effect.at for effect in world.effects)
    assert len(at) == BOOK.limits.per_hour
    assert all(later - before >= BOOK.proof.hold for before, later in pairwise(at)), at


async def test_the_journal_tells_what_each_guardrail_said(tmp_path: Path) -> None:
    """Held by a pause, then done: the refusal has the pause's sentence and no answer after it, the intent all of them."""
    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, journal):
        number = await journal.pause("all", "ada", "deploying", None)
        await live(world, engine, START + 120)
        await journal.resume(number, "ada")
        await live(world, engine, START + 600)
    (paused,) = [event for event in kinds(world, Kind.REFUSED) if event.data["reason"] == "paused"]
    assert paused.data["answers"] == {"stale": "", "journal_regressed": "", "paused": paused.data["sentence"]}
    (intent, *_) = kinds(world, Kind.INTENT)
    assert intent.data["answers"] == {rule.__name__: "" for rule in ORDER}
    for event in world.events:
        noes = [said for said in event.data.get("answers", {}).values() if said]
        if event.kind is Kind.REFUSED and event.data.get("answers"):
            assert event.data["sentence"] in noes
        elif event.kind is not Kind.REFUSED:
            assert noes == []


async def test_the_pause_file_is_a_pause_of_the_journal(tmp_path: Path) -> None:
    """Every replica sees it there; it ends with the file, also when another process wrote it before a restart."""
    world = sick()
    file = tmp_path / "pause"
    async with process(world, tmp_path / "j.db") as (engine, journal):
        engine.settings = engine.settings.model_copy(update={"pause_file": file})
        file.touch()
        await Watch(engine).tick()
        await Watch(engine).tick()
        (pause,) = await journal.pauses()
        assert str(file) in pause.who
        file.unlink()
        await Watch(engine).tick()
        assert await journal.pauses() == []
        assert [event.kind for event in await journal.events(OWN)] == [Kind.PAUSED, Kind.RESUMED]


async def test_what_people_have_in_hand_is_posted_each_minute_and_soon_when_nobody_took_it(tmp_path: Path) -> None:
    """An Alertmanager that was restarted has forgotten it: told once is not told. Counted at who is told."""
    world = sick()
    world.services["engine"].after = "stays"
    async with process(world, tmp_path / "j.db") as (engine, _):
        inbox = SimPeople(world)
        engine.people = inbox
        await live(world, engine, START + 1800)
        first = inbox.posted[0]
        inbox.takes = False
        await live(world, engine, START + 2000)
        inbox.takes = True
        await live(world, engine, START + 2600)
    gaps = [later - before for before, later in pairwise(inbox.posted)]
    deaf = [gap for gap, at in zip(gaps, inbox.posted, strict=False) if START + 1800 < at < START + 1980]
    taken = [gap for gap, at in zip(gaps, inbox.posted, strict=False) if first <= at < START + 1700]
    turn = 9.5  # seconds at most from one turn of this loop to the next, with what it does in it
    assert len(deaf) > 10
    assert max(deaf) <= UNTOLD_WAIT + turn
    assert len(taken) > 5
    assert max(taken) <= STANDING + turn
    assert sorted(taken)[len(taken) // 2] > STANDING - turn
    assert {page.alertname for page in world.pages} == {"RemediationFailed"}


async def test_two_turns_at_once_write_one_pause_for_the_file(tmp_path: Path) -> None:
    """The watch has a round of its own, and a turn after each claim: both may find the file in the same moment."""
    async with process(sick(), tmp_path / "j.db") as (engine, journal):
        engine.settings = engine.settings.model_copy(update={"pause_file": tmp_path / "pause"})
        (tmp_path / "pause").touch()
        watch = Watch(engine)
        await asyncio.gather(watch.tick(), watch.tick(), Watch(engine).tick())
        assert len(await journal.pauses()) == 1
        (tmp_path / "pause").unlink()
        await asyncio.gather(watch.tick(), watch.tick())
        assert await journal.pauses() == []
        assert [event.kind for event in await journal.events(OWN)] == [Kind.PAUSED, Kind.RESUMED]


async def test_a_pause_file_that_cannot_be_looked_for_counts_as_there(tmp_path: Path) -> None:
    """Its name is too long for the file system, as good as a disk that fails: a pause, no effect, and no end of the process."""
    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, journal):
        engine.settings = engine.settings.model_copy(update={"pause_file": tmp_path / ("p" * 300)})
        await Watch(engine).tick()
        assert len(await journal.pauses()) == 1
        await live(world, engine, START + 300)
        assert world.effects == []
        assert kinds(world, Kind.INTENT) == []


async def test_a_runbook_that_does_not_help_is_demoted(tmp_path: Path) -> None:
    """Both rungs fail on one service after the other: with the third failure it asks, also for the next rung."""
    world = SimWorld(7)
    for number in range(4):
        name = f"s{number}"
        world.services[name] = SimService(name, after="stays", sick_since=START + 90_000 * number)
    async with process(world, tmp_path / "j.db") as (engine, journal):
        for number in range(4):
            await live(world, engine, START + 90_000 * number + 1300)
            world.services[f"s{number}"].sick_since = None
            await live(world, engine, START + 90_000 * number + 1500)
            world.clock.t = max(world.clock.t, 90_000.0 * (number + 1))
        demoted = await journal.demoted()
        assert [one.runbook for one in demoted] == [BOOK.name]
        assert [effect.service for effect in world.effects] == ["s0", "s0", "s1", "s1", "s2"]
        assert "RemediationNeedsApproval" in {page.alertname for page in world.pages}
        await journal.restore(BOOK.name, "ada", "mended")
        assert await journal.demoted() == []
