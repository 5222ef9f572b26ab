"""The shadow report against the world's own truth: the real engine writes the history, the report must say what happened.

What is expected comes from the script of each story, or from a plain count over the journal's lines; never from the
report's own code.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from remediator.engine import Engine
from remediator.events import OWN, Event, Kind
from remediator.journal import Journal
from remediator.sameness import digest_of_preview
from remediator.settings import Promotion
from remediator.shadow import Came, Seen, Wrong
from remediator.shadow_report import Past, report
from simulation.small_world import START, SimWorld
from tests.simulation.test_engine import sick
from tests.simulation.test_people import asking, say
from tests.simulation.test_simulation import BOOK, HORIZON, draw, live, process

NUMBERS = Promotion()
POLL = 75.0  # seconds: a look each minute, and the world's steps of up to 9 s


@asynccontextmanager
async def watching(world: SimWorld, path: Path) -> AsyncIterator[tuple[Engine, Journal]]:
    """A remediator that only watches."""
    async with process(world, path) as (engine, journal):
        await journal.heartbeat("shadow")
        yield engine, journal


async def events_of(journal: Journal) -> dict[str, list[Event]]:
    rows = await journal.episodes(limit=None)
    return {name: await journal.events(name) for name in (OWN, *(row.episode for row in rows))}


async def look_back(world: SimWorld, journal: Journal) -> list[Seen]:
    """The report's episodes, as of the world's present."""
    past = Past(world.clock.now(), START, await events_of(journal), books={BOOK.name: BOOK})
    return list(report(past, NUMBERS).seen)


async def story(world: SimWorld, path: Path, *, until: float, heals: float = 0.0, restarted: float = 0.0) -> Seen:
    """One service, ill from the start, up to `until`; it heals by itself, or a hand restarts it, at these times."""
    service = world.services["engine"]
    async with watching(world, path) as (engine, journal):
        for at in sorted({heals, restarted} - {0.0}):
            await live(world, engine, START + at)
            if at == restarted:
                service.restart(world.clock.now())
            else:
                service.sick_since = None
        await live(world, engine, START + until)
        (seen, *_) = await look_back(world, journal)
        proposed = [event for event in await journal.events(seen.episode) if event.kind is Kind.WOULD_ACT]
    assert world.effects == []
    assert seen.proposal is not None
    assert (seen.proposal.mode, seen.proposal.resource) == ("shadow", "docker:sim/engine")
    assert (seen.proposal.rung, seen.proposal.step, seen.proposal.steps) == ("mild", 1, 2)
    assert seen.proposal.at == proposed[0].at
    assert seen.proposal.at >= START + 20 + BOOK.settle
    return seen


async def test_healed_right_afterwards_would_have_been_for_nothing(tmp_path: Path) -> None:
    """It is over within two minutes of the moment to act."""
    seen = await story(sick(), tmp_path / "j.db", heals=90, until=2000)
    assert seen.came is Came.HEALED
    assert seen.came_after is not None
    assert seen.came_after <= NUMBERS.heals_within
    assert [one.kind for one in seen.against] == [Wrong.HEALED_SOON]
    assert seen.wrong


async def test_healed_long_afterwards_is_an_outage_that_it_could_have_ended(tmp_path: Path) -> None:
    """Nothing speaks against it; the seconds are those of the world, but for the time between two looks."""
    seen = await story(sick(), tmp_path / "j.db", heals=1500, until=2000)
    assert seen.proposal is not None
    assert (seen.came, seen.against, seen.judged, seen.wrong) == (Came.HEALED, (), True, False)
    assert seen.came_after is not None
    assert 0 <= seen.proposal.at + seen.came_after - (START + 1500) <= POLL


async def test_what_lasts_reaches_people(tmp_path: Path) -> None:
    """Nobody does anything for more than the hour after which the alert is a person's."""
    seen = await story(sick(), tmp_path / "j.db", until=BOOK.stale_after + 300)
    assert (seen.came, seen.against, seen.judged) == (Came.LASTED, (), True)
    assert seen.came_after is not None
    assert abs(seen.came_after - BOOK.stale_after) <= POLL


async def test_a_hand_that_mends_it_is_a_person_who_acted(tmp_path: Path) -> None:
    """Restarted by somebody, and over with that: by then the container is another one."""
    seen = await story(sick(), tmp_path / "j.db", restarted=400, until=2000)
    assert (seen.came, seen.against, seen.judged) == (Came.PERSON, (), True)
    assert seen.proposal is not None
    assert seen.came_after is not None
    assert 0 <= seen.proposal.at + seen.came_after - (START + 400) <= POLL


async def test_a_hand_that_does_not_mend_it_speaks_against(tmp_path: Path) -> None:
    """Restarted by somebody and ill all the same: the same action would not have helped."""
    world = sick()
    world.services["engine"].after = "stays"
    seen = await story(world, tmp_path / "j.db", restarted=300, until=2000)
    assert [one.kind for one in seen.against] == [Wrong.ANOTHER_TARGET]
    assert seen.came is Came.OPEN


@pytest.mark.parametrize(
    ("span", "kind"), [("cause firing", Wrong.CAUSE_ELSEWHERE), ("silenced", Wrong.PERSON_SAID_NO)]
)
async def test_what_a_guardrail_would_have_said_too_late_speaks_against(span: str, kind: Wrong, tmp_path: Path) -> None:
    """A cause, or a silence, three minutes after it would have acted; ten minutes later they would not count."""
    world = sick()
    world.spans[span] = [(START + 240, START + 500)]
    seen = await story(world, tmp_path / "j.db", heals=1500, until=2000)
    assert [one.kind for one in seen.against] == [kind]
    assert 0 <= seen.against[0].at - (START + 240) <= POLL
    late = sick()
    late.spans[span] = [(START + 1000, START + 1200)]
    seen = await story(late, tmp_path / "late.db", heals=1500, until=2000)
    assert (seen.against, seen.judged) == ((), True)


async def test_what_comes_back_is_told(tmp_path: Path) -> None:
    """Over by itself, and twenty minutes later the same alert on the same target."""
    world = sick()
    async with watching(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 900)
        world.services["engine"].sick_since = None
        await live(world, engine, START + 2100)
        world.services["engine"].sick_since = world.clock.now()
        await live(world, engine, START + 3500)
        first, second = await look_back(world, journal)
    assert first.came is Came.HEALED
    assert first.back_after is not None
    assert abs(first.back_after - 1200) <= 2 * POLL
    assert second.back_after is None


async def test_a_persons_own_command_is_told_by_name(tmp_path: Path) -> None:
    """Done by `prepctl act` while the shadow watches: who and what, and that the target changed is no mystery."""
    world = sick()
    async with watching(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 300)
        await command(world, engine, journal)
        await live(world, engine, START + 1500)
        (seen,) = await look_back(world, journal)
    assert len(world.effects) == 1
    assert (seen.came, seen.person, seen.against) == (Came.PERSON, "ada did restart_service", ())


async def command(world: SimWorld, engine: Engine, journal: Journal) -> None:
    """As `commands.py` writes it, once it was previewed and confirmed."""
    action = engine.actions["restart_service"]
    preview = await action.preview(action.params_model.model_validate({"service": "engine"}))
    book = BOOK.model_copy(update={"ladder": BOOK.ladder[:1]})
    said = {"action": "restart_service", "who": "ada", "reason": "now", "break_glass": False}
    said["digest"] = digest_of_preview(book.ladder[0], preview)
    body = {"book": book.body(), "target": {"service": "engine"}, "command": said}
    await journal.command(uuid.uuid4().hex, "Command", json.dumps(body).encode())


async def test_a_yes_that_helped_is_evidence_by_name(tmp_path: Path) -> None:
    """Asked, approved, done once at the target, proven: what auto needs and no shadow can give."""
    world = sick()
    async with asking(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 200)
        await say(journal, "approve")
        await live(world, engine, START + 1500)
        (seen,) = await look_back(world, journal)
    assert len(world.effects) == 1
    assert seen.proposal is not None
    assert (seen.proposal.mode, seen.came, seen.approved_by, seen.against) == ("approve", Came.HELPED, ("ada",), ())
    assert seen.proposal.at < START + 200 < world.effects[0].at
    assert seen.came_after is not None
    assert seen.proposal.at + seen.came_after >= world.effects[0].at + BOOK.proof.hold


async def test_a_no_speaks_against_it(tmp_path: Path) -> None:
    """Declined a minute after it was asked; nothing is done, and the person is named."""
    world = sick()
    async with asking(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 120)
        await say(journal, "decline", reason="a deployment")
        await live(world, engine, START + 900)
        world.services["engine"].sick_since = None
        await live(world, engine, START + 1200)
        (seen,) = await look_back(world, journal)
    assert world.effects == []
    assert [(one.kind, one.detail) for one in seen.against] == [(Wrong.PERSON_SAID_NO, "ada declined it: a deployment")]
    assert seen.wrong


async def test_what_does_not_help_speaks_against_it(tmp_path: Path) -> None:
    """In auto, a restart after which it stays ill: done by both steps, and not shown to have helped."""
    world = sick()
    world.services["engine"].after = "stays"
    async with process(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + 1500)
        (seen,) = await look_back(world, journal)
    assert len(world.effects) == 2
    assert seen.proposal is not None
    assert (seen.proposal.mode, seen.came) == ("auto", Came.NOT_HELPED)
    assert [one.kind for one in seen.against] == [Wrong.NOT_HELPED]


@pytest.mark.parametrize("seed", (31, 33))
async def test_the_facts_are_the_journals(seed: int, tmp_path: Path) -> None:
    """An hour of drawn incidents on three services: every episode once, every number a plain count over its lines."""
    world = draw(seed)
    async with watching(world, tmp_path / "j.db") as (engine, journal):
        await live(world, engine, START + HORIZON + 1200)
        told = await events_of(journal)
        past = Past(world.clock.now(), START, told, books={BOOK.name: BOOK})
    found = report(past, NUMBERS)
    assert world.effects == []
    lines = {name: events for name, events in told.items() if name != OWN}
    assert sorted(one.episode for one in found.seen) == sorted(lines)
    for one in found.seen:
        events = lines[one.episode]
        refused = [event for event in events if event.kind is Kind.REFUSED]
        assert [(each.at, each.reason, each.sentence) for each in one.answers] == [
            (event.at, event.data["reason"], event.data["sentence"]) for event in refused
        ]
        would = [event for event in events if event.kind is Kind.WOULD_ACT]
        assert (one.proposal is not None) == bool(would)
        if one.proposal is not None:
            data = would[0].data
            assert (one.proposal.at, one.proposal.rung) == (would[0].at, data["rung"])
            assert (one.proposal.action, one.proposal.summary) == (data["action"], data["summary"])
        assert (one.ended_at is None) == (events[-1].kind is not Kind.CLOSED)
        assert all(one.proposal is not None and 0 <= each.at - one.proposal.at <= NUMBERS.watch for each in one.against)
    (record,) = found.records
    given = Counter(
        reason
        for events in lines.values()
        for reason in {event.data["reason"] for event in events if event.kind is Kind.REFUSED}
    )
    assert record.refused == given
    assert record.episodes == len(lines)
    assert record.proposals == sum(any(event.kind is Kind.WOULD_ACT for event in events) for events in lines.values())
    assert record.judged == sum(one.judged for one in found.seen)
    assert record.wrong == sum(one.judged and bool(one.against) for one in found.seen)
    assert (record.fixed, record.approved) == (0, 0)
