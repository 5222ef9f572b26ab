"""The loop's own promises, on simulated time."""

from __future__ import annotations

from pathlib import Path

from remediator.loop import BEHIND, Loop
from simulation.small_world import SimPeople, SimWorld
from tests.simulation.test_people import told
from tests.simulation.test_simulation import process


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
