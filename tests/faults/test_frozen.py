"""Frozen between the intent and the sending, thawed when its time is over: the target's side refuses.

strace stops the whole process at a call of its own, found in a recording of the same remediation: the sync of the intent,
and the last question before the effect. Both are carried out, and the process does not see their answer before it thaws.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults.boundaries import EVERYTHING, SENDS
from tests.faults.chains import Chain, chain, note
from tests.faults.kills import Call, Point, Scope
from tests.faults.outside import Outside
from tests.faults.targets import Reader
from tests.support.docker_engine import DockerEngine
from tests.support.remediation import START_WITHIN, World
from tests.support.servers import Run, wait_until

TRIES = 6  # a heartbeat may have moved the numbers of the recording: then it froze elsewhere, and it is recorded anew
WAL = "journal.db-wal"
FROZEN = START_WITHIN + 2.0  # seconds; longer than the effect's time, on a clock of whole seconds
Find = Callable[[Chain, Sequence[Call]], Point]


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, ["web"]) as world:
        yield world


@pytest.fixture(scope="module", params=["restart", "cancel"])
def ours(request: pytest.FixtureRequest, world: World) -> Iterator[Chain]:
    """Has gone through one remediation: the runbook is in its journal already."""
    made = chain(world, ["web"]) if request.param == "restart" else chain(world, readers=["db"])
    made.start()
    remediate(made)
    yield made
    made.close()


def remediate(chain: Chain) -> list[Call]:
    """One whole remediation; its calls."""
    since = chain.ready()
    with chain.traced(chain.over(since), note(), EVERYTHING) as (trace, _):
        chain.recover(since)
    assert chain.judge(since).wrong == []
    chain.clear(since)
    return trace.calls()


def asks(chain: Chain) -> str:
    """What only the effect has in its bytes."""
    target = chain.target
    return target.server.system_identifier if isinstance(target, Reader) else "POST /v1.41/containers"


def at_the_intent(chain: Chain, calls: Sequence[Call]) -> Point:
    """The last sync of the journal before the effect is sent."""
    return Point(Scope(("fdatasync",), WAL), "fdatasync", _before(chain, calls)[0], "STOP")


def at_the_last_question(chain: Chain, calls: Sequence[Call]) -> Point:
    """What the main thread sent last before the effect, counted from the intent on."""
    sent = _before(chain, calls)[1]
    return Point(Scope(("sendto",), threads=False), "sendto", sent, "STOP", after=at_the_intent(chain, calls))


def undisturbed(chain: Chain, find: Find) -> Point:
    """The point in the one of two recordings that has fewer syncs before it: what an earlier story still writes adds some."""
    return min((find(chain, remediate(chain)) for _ in range(2)), key=lambda point: (point.after or point).when)


def _before(chain: Chain, calls: Sequence[Call]) -> tuple[int, int]:
    """Before the effect: syncs of the journal, and what the main thread has sent since the last of them."""
    effect = next(number for number, call in enumerate(calls) if call.name in SENDS and asks(chain) in call.text)
    syncs = [n for n, call in enumerate(calls[:effect]) if call.name == "fdatasync" and call.on.endswith(WAL)]
    main = chain.remediator.process.pid
    sent = [call for call in calls[syncs[-1] + 1 : effect] if call.name == "sendto" and call.thread == main]
    return len(syncs), len(sent)


def frozen(chain: Chain, point: Point, folder: Path) -> float | None:
    """Ill, alert, frozen there until the effect's time is over, thawed, at rest; the time from which episodes count.

    None when it froze elsewhere: the intent was not the last event.
    """
    since = chain.ready()
    with chain.traced(chain.over(since), note(), point.scope, point) as (trace, posted):
        wait_until(trace.stopped, "the process to stop", 30, 0.02)
        there = kept(chain, folder).last(since) == "intent" and chain.target.effects == 0
        if there:
            already, end = len(arrived(chain)), time.time() + FROZEN
            wait_until(lambda: time.time() > end, "the effect's time to be over", FROZEN + 5)
            assert (len(arrived(chain)), chain.target.effects) == (already, 0), "nothing leaves a frozen process"
        chain.remediator.process.thaw()
        assert posted.result()
    chain.recover(since)
    if not there:
        chain.clear(since)
    return since if there else None


def kept(chain: Chain, folder: Path) -> Outside:
    """What its journal would hold if it never woke: the index that readers share is written after the sync."""
    for name in (chain.remediator.journal.name, WAL):
        shutil.copy(chain.remediator.journal.with_name(name), folder / name)
    (folder / f"{chain.remediator.journal.name}-shm").unlink(missing_ok=True)
    return Outside.file(folder / chain.remediator.journal.name)


def arrived(chain: Chain) -> list[str]:
    """Each call for an effect that came as far as the target's side, by its own log: what was answered."""
    target = chain.target
    if isinstance(target, Reader):
        lines = target.server.log_text().splitlines()
        return ["executed" for line in lines if re.search(r"execute .*prep-remediator attempt", line)]
    calls = [line.split() for line in chain.world.gate.log_text().splitlines() if "POST /v1.41/containers" in line]
    return [words[1] for words in calls]


@pytest.mark.timeout(500)
@pytest.mark.parametrize(("find", "late"), [(at_the_intent, 1), (at_the_last_question, 0)])
def test_frozen_between_intent_and_sending(ours: Chain, find: Find, late: int, tmp_path: Path) -> None:
    """So many late calls arrive, and that of the next attempt; there is one effect.

    After the intent it has still to begin, sends what is late, and is refused. Frozen in the middle of a question it
    finds its own time limit passed, and sends nothing.
    """
    since: float | None = None
    for _ in range(TRIES):
        point = undisturbed(ours, find)
        already = len(arrived(ours))
        if point.when and (since := frozen(ours, point, tmp_path)) is not None:
            break
    assert since is not None, f"{TRIES} times not frozen after the intent"
    judged, answers = ours.judge(since), arrived(ours)[already:]
    assert judged.wrong == []
    assert (len(answers), judged.effects) == (late + 1, [1]), ours.remediator.story()
    if not isinstance(ours.target, Reader):
        assert answers == ["412"] * late + ["204"], "the gate refuses what is late"
    ours.clear(since)
