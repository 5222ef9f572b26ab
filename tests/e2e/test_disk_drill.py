"""The drill that fills the engine's disk: on the whole compose stack, in an engine that has a small disk of its own."""

from __future__ import annotations

import pytest

from demo import tour
from demo.drills import base, disk_space_full
from demo.stack import PROJECT, Stack
from tests.e2e import compare
from tests.e2e.own_engine import small_engine, talking
from tests.support.run import Run

pytestmark = [pytest.mark.timeout(900), pytest.mark.campaign(seconds=900)]


def test_old_images_go_when_two_persons_agree(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Firing, evidence, two persons on one list, exactly that list gone, room back, proven; the volume as it was."""
    drill = disk_space_full.HEALS
    here = Stack()
    assert not here.docker.containers.list(filters={"label": f"com.docker.compose.project={PROJECT}"}), (
        "containers of a demo are there already; take it down first: make demo-down"
    )
    with small_engine(run, monkeypatch):
        stack = Stack()
        try:
            tour.prepare(stack, drill.mode, adapt=drill.adapt)
            with talking(stack):
                stack.up()
                story = base.run(drill, stack, lambda story: None)
                if not story.error:
                    compare.held(drill, stack, story)
        finally:
            stack.down()
    assert not story.error, story.error
    wrong = [f"{found.what}: {found.seen}" for found in story.findings if not found.holds]
    assert not wrong, f"{wrong}\n{story.notes}"
    print({step: story.since_fault(step) for step in base.STEPS if step in story.times}, story.notes["fault"])
