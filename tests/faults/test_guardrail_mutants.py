"""Each guardrail, replaced by "allowed" in the program as it ships: what it stops happens at the target.

Real parts around it. First with the guardrail: no effect and the named reason. Then without it, in the same situation: an
effect, or what else stops it. So a test that counts effects fails for each guardrail that is lost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.faults.situations import CROWD, READER, SITUATIONS, WEB, Bench, Situation, Stage, Undo
from tests.faults.targets import Reader, Web
from tests.support.docker_engine import DockerEngine
from tests.support.postgres import PostgresServer
from tests.support.remediation import World
from tests.support.run import Run
from tests.support.waiting import wait_until

LONGER = 2.0  # seconds after the refusal for which nothing may happen
SOON = 25.0  # seconds for an effect that nothing forbids
SECONDS = 15  # of the campaign for one situation


@pytest.fixture(scope="module")
def bench(run: Run, docker_engine: DockerEngine, postgres_server: PostgresServer) -> Iterator[Bench]:
    with World(run, docker_engine, [WEB, *CROWD]) as world:
        reader = Reader(world, READER)
        yield Bench(world, Web(world, WEB), [Web(world, name) for name in CROWD], reader, postgres_server)
        reader.close()


def cases() -> list[object]:
    """A few in every run, the others in the campaign."""
    marks = {True: [], False: [pytest.mark.campaign(seconds=SECONDS)]}
    return [
        pytest.param(each, id=f"{each.guardrail}-{each.reason}-{number}", marks=marks[each.quick])
        for number, each in enumerate(SITUATIONS)
    ]


@pytest.mark.parametrize("situation", cases())
def test_what_it_stops_happens_without_it(bench: Bench, situation: Situation) -> None:
    """No effect and the reason with it; an effect, or the next thing that says no, without it."""
    stopped(bench, situation, "")
    if situation.also:
        stopped(bench, situation, situation.guardrail)
    without = ",".join(filter(None, (situation.guardrail, situation.also)))
    if situation.still:
        stopped(bench, situation, without)
    else:
        happens(bench, situation, without)


def stopped(bench: Bench, situation: Situation, without: str) -> None:
    """Nothing more than what was right before is done; with all guardrails the reason is said, else another one."""
    with Undo() as undo:
        stage, right = played(bench, situation, undo, without)
        wait_until(
            lambda: bool(stage.said() & {situation.reason} if not without else stage.said() & OTHERWISE),
            f"{situation.reason} to be said" if not without else "something else to say no",
            SOON,
            0.2,
            stage.ours.story,
        )
        end = time.monotonic() + LONGER
        wait_until(lambda: time.monotonic() > end or stage.effects > right, "a while to pass", LONGER + 10, 0.2)
        assert stage.effects == right, stage.ours.story()


OTHERWISE = {"refused", "handed_over", "outcome"}


def happens(bench: Bench, situation: Situation, without: str) -> None:
    """One effect more than what was right before, at least."""
    with Undo() as undo:
        stage, right = played(bench, situation, undo, without)
        wait_until(lambda: stage.effects > right, "an effect", SOON, 0.1, stage.ours.story)


def played(bench: Bench, situation: Situation, undo: Undo, without: str) -> tuple[Stage, int]:
    """The situation is brought about; how many effects were right."""
    undo.callback(well, bench)
    ours = situation.remediator(bench, undo, without)
    undo.enter_context(ours)
    target = bench.reader if situation.reads else bench.web
    target.sicken()
    for each in bench.targets:
        each.begin()
    stage = Stage(bench, ours, target, undo)
    return stage, situation.play(stage)


def well(bench: Bench) -> None:
    """Everything as it was."""
    for target in bench.targets:
        target.incurable = False
        target.heal()
