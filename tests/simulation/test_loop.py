"""The loop's own promises, on simulated time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from remediator.journal import Claim
from remediator.loop import BEHIND, Loop
from remediator.webhook import split
from simulation.small_world import START, SimPeople, SimWorld
from tests.simulation.test_engine import sick
from tests.simulation.test_people import told
from tests.simulation.test_simulation import BOOK, SETTINGS, process


async def test_deliveries_go_first_but_never_for_long(tmp_path: Path) -> None:
    """While senders wait for their answer nothing else is begun; under endless load it is begun all the same."""
    world = SimWorld(5)
    async with process(world, tmp_path / "j.db") as (engine, _):
        answers = iter([True, True, True, False])
        few = Loop(engine, lambda row: [], busy=lambda: next(answers))
        endless = Loop(engine, lambda row: [], busy=lambda: True)
        began = world.clock.boottime()
        await few._deliveries_first()
        assert next(answers, None) is None
        assert 0 < world.clock.boottime() - began < BEHIND
        began = world.clock.boottime()
        await endless._deliveries_first()
        assert BEHIND <= world.clock.boottime() - began < 2 * BEHIND


async def test_a_dead_letter_of_before_a_restart_is_told_once(tmp_path: Path) -> None:
    """It came a moment before the process ended, and no Alertmanager takes the first word of it: the next life tells."""
    world = SimWorld(5)
    async with process(world, tmp_path / "j.db") as (_, journal):
        await journal.dead_letter("not_json", b"{", quota=10)
    async with process(world, tmp_path / "j.db") as (engine, journal):
        loop = Loop(engine, lambda row: [])
        deaf = SimPeople(world)
        deaf.takes = False
        engine.people = deaf
        await loop._tell_dead_letters()
        engine.people = SimPeople(world)
        assert told(world, "RemediatorDeadLetter") == [False]
        await loop._tell_dead_letters()
        await loop._tell_dead_letters()
        assert told(world, "RemediatorDeadLetter") == [False, False]
    async with process(world, tmp_path / "j.db") as (engine, journal):
        await Loop(engine, lambda row: [])._tell_dead_letters()
        assert len(told(world, "RemediatorDeadLetter")) == 2
        await journal.dead_letter("not_json", b"{", quota=10)
        await Loop(engine, lambda row: [])._tell_dead_letters()
        assert len(told(world, "RemediatorDeadLetter")) == 3
        assert "2 not_json" in world.pages[-1].summary


async def test_the_room_of_the_journal_is_in_what_stands(tmp_path: Path) -> None:
    """Read with the gauges, so that the alert on it sees the volume as it is."""
    world = SimWorld(5)
    async with process(world, tmp_path / "j.db") as (engine, journal):
        now = await Loop(engine, lambda row: []).standing()
        assert now is not None
        assert now.journal_room == journal.room()
        assert 0 < (now.journal_room or 0) <= 1


async def test_an_episode_that_is_due_again_before_its_turn_is_over_ends_nothing(tmp_path: Path) -> None:
    """It is given back, and claimed anew before the task of its first turn has ended: a process of ours ended by that."""
    world = sick(silenced=[(START, START + 9999)])
    async with process(world, tmp_path / "j.db") as (engine, journal):
        drive, go_on, turns = engine.drive, asyncio.Event(), []

        async def lingering(claim: Claim) -> float:
            due = await drive(claim)
            turns.append(claim.episode)
            await go_on.wait()
            return due

        async def turned(count: int) -> None:
            while len(turns) < count:
                await asyncio.sleep(0.01)

        engine.drive = lingering  # type: ignore[method-assign]
        loop = Loop(engine, lambda row: split(row, (BOOK,), SETTINGS.environment))
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            world.clock.t += 30
            for count in (1, 2):
                await journal.store([("delivery", world.body("engine", "firing"))])
                await journal.nudge()
                await loop._round(group)
                await turned(count)
            go_on.set()
    assert len(set(turns)) == 1
    assert loop._running == set()


async def test_a_place_is_free_before_the_loop_looks_for_the_next_episode(tmp_path: Path) -> None:
    """Else the seventeenth would wait for the next poll, in a storm above all."""
    async with process(SimWorld(5), tmp_path / "j.db") as (engine, journal):
        loop = Loop(engine, lambda row: [])
        journal.wake.clear()
        turn = asyncio.ensure_future(loop._drive(Claim("e" * 32, 1, False, 1)))  # of no episode: it ends at once
        loop._running.add(turn)
        turns = []
        await journal.wake.wait()
        turns.append(set(loop._running))
        await asyncio.gather(turn, return_exceptions=True)
    assert turns == [set()]
