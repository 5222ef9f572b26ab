"""The loop's own promises, on simulated time."""

from __future__ import annotations

from pathlib import Path

from remediator.loop import BEHIND, Loop
from simulation.small_world import SimWorld
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
