"""A reload in the middle of an episode, in the simulated world: nothing is done on what was seen before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from remediator.engine import Engine, Parts
from remediator.events import Kind
from remediator.reasons import Reason
from remediator.runbooks import Runbook, Rung
from remediator.world import World
from simulation.small_world import START, SimSight, SimWorld
from tests.simulation.test_engine import sick
from tests.simulation.test_simulation import BOOK, SETTINGS, live, process


def reconfigure(engine: Engine, *books: Runbook) -> None:
    """Take over these runbooks; all else stays what it is."""
    parts = Parts(SETTINGS, engine.sight, engine.actions, engine.people, engine.diagnoses)
    engine.reconfigure(parts, books)


def kinds(world: SimWorld) -> list[Kind]:
    return [event.kind for event in world.events]


def reasons(world: SimWorld) -> list[str]:
    return [event.data["reason"] for event in world.events if event.kind is Kind.REFUSED]


async def test_what_was_seen_before_a_reload_is_not_acted_upon(tmp_path: Path) -> None:
    """The runbook is taken away while the target is looked at: nothing is intended, it only says what it would do."""
    world = sick()

    class Meanwhile(SimSight):
        async def look(
            self, book: Runbook, rung: Rung, params: BaseModel | None, labels: Mapping[str, str], now: float
        ) -> World:
            seen = await super().look(book, rung, params, labels, now)
            if engine.episodes.books:
                reconfigure(engine)
            return seen

    async with process(world, tmp_path / "j.db") as (engine, _):
        engine.sight = Meanwhile(world, engine.actions["restart_service"])  # type: ignore[arg-type]
        await live(world, engine, START + 300)
    assert world.effects == []
    assert Kind.INTENT not in kinds(world)
    assert Kind.WOULD_ACT in kinds(world)


async def test_a_reload_between_decision_and_lock_is_seen_under_the_lock(tmp_path: Path) -> None:
    """The last moment: decided and about to be written. It is refused, looked at again, and then done once."""
    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, journal):
        reloads = 0

        async def intend(*args: Any, **kwargs: Any) -> Any:
            nonlocal reloads
            reloads += 1
            if reloads == 1:
                reconfigure(engine, BOOK)
            return await journal.intend(*args, **kwargs)

        engine.journal.intend = intend  # type: ignore[method-assign]
        await live(world, engine, START + 300)
    assert reasons(world).count(Reason.LOOK_STALE) == 1
    assert len(world.effects) == 1


async def test_what_was_unmatched_is_matched_after_a_reload(tmp_path: Path) -> None:
    """No runbook: it stays open. With one, the same episode is remediated; no new delivery is needed."""
    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, journal):
        reconfigure(engine)
        await live(world, engine, START + 200)
        assert (reasons(world), world.effects) == ([Reason.NO_RUNBOOK], [])
        (before,) = await journal.open_episodes()
        reconfigure(engine, BOOK)
        assert await journal.nudge() == 1
        await live(world, engine, START + 400)
        assert len(world.effects) == 1
    matched = [event for event in world.events if event.kind is Kind.MATCHED]
    assert [event.episode for event in matched] == [before.episode]


@pytest.mark.parametrize(("attempts_an_hour", "effects"), [(2, 2), (1, 1)])
async def test_a_ladder_under_way_keeps_its_rungs_and_obeys_the_new_limit(
    tmp_path: Path, attempts_an_hour: int, effects: int
) -> None:
    """The first rung did not help. The new version has no second one; the episode does, as far as the new limit lets it."""
    world = sick()
    world.services["engine"].after = "stays"
    async with process(world, tmp_path / "j.db") as (engine, _):
        while not world.effects:
            await live(world, engine, world.clock.now() + 10)
        limits = BOOK.limits.model_copy(update={"per_hour": attempts_an_hour})
        newest = BOOK.model_copy(update={"ladder": BOOK.ladder[:1], "limits": limits})
        assert newest.digest() != BOOK.digest()
        reconfigure(engine, newest)
        await live(world, engine, world.clock.now() + 1500)
    assert len(world.effects) == effects
    if effects == 1:
        assert Reason.RATE_LIMIT in reasons(world)


async def test_an_effect_under_way_goes_on_with_its_own_action(tmp_path: Path) -> None:
    """Reloaded after the intent: what was looked at with one configuration is not done with another."""
    world = sick()
    async with process(world, tmp_path / "j.db") as (engine, journal):

        async def intend(*args: Any, **kwargs: Any) -> Any:
            refusal = await journal.intend(*args, **kwargs)
            broken = replace(Parts(SETTINGS, engine.sight, engine.actions, engine.people, engine.diagnoses), actions={})
            engine.reconfigure(broken, (BOOK,))
            return refusal

        actions = engine.actions
        engine.journal.intend = intend  # type: ignore[method-assign]
        while not world.effects:
            await live(world, engine, world.clock.now() + 10)
        engine.actions = actions
        await live(world, engine, world.clock.now() + 600)
    assert len(world.effects) == 1
    assert Kind.VERDICT in kinds(world)
