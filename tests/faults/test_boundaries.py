"""kill -9 at every boundary of one remediation, found from the running process: never two effects, never a lost alert.

One undisturbed remediation is recorded by strace: a real webhook POST, real Prometheus, Alertmanager and gate, a real
target. Each call of the recording that leaves something behind (boundaries.py says which, and which are alike) is then a
trial of its own: strace kills the process on entering exactly that call. A kill may strike another boundary than the one
that was meant, since a heartbeat moves the numbers; it is counted as what it struck, and what is missing is tried again.
The journal is SQLite here; test_wire.py does the same on PostgreSQL.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from tests.faults.boundaries import EVERYTHING, Places, names, points
from tests.faults.chains import AFTER, REST, Chain, Judged, chain, note, shared
from tests.faults.kills import Call, Point, lose_last_commit
from tests.faults.targets import Reader, Web
from tests.support.docker_engine import DockerEngine
from tests.support.remediation import World
from tests.support.servers import NotInTime, Run, wait_until

pytestmark = pytest.mark.e2e  # a dozen remediators at once: they would be in others' time

CHAINS = 13  # remediators that are killed side by side, each with a target and a journal of its own: they mostly wait
FEW = 8  # where there are fewer boundaries, or each chain costs more
AGAIN = 2  # more rounds for the boundaries that no kill has struck yet
SHORT = 4.0  # seconds after an effect until it counts as no help, where it is to be handed over


# The last events that must be among those which outlived a kill: before and after the writes that everything rests on.
KEY = {
    ("restart", False): {"diagnosed", "intent", "outcome", "verdict"},
    ("cancel", False): {"diagnosed", "intent", "outcome", "verdict"},
    ("people", False): {"verdict", "handed_over"},
    ("restart", True): {"diagnosed", "intent"},
    ("cancel", True): {"diagnosed", "intent"},
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One kill. `meant` and `struck` are names of boundaries; `last` is the last event that outlived the kill."""

    meant: str
    struck: str
    last: str
    taken: bool
    judged: Judged


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, [f"web{number}" for number in range(CHAINS)]) as world:
        yield world


@contextmanager
def running(world: World, kind: str, count: int) -> Iterator[list[Chain]]:
    """Chains that have gone through one remediation, so that the runbook is in their journals already.

    Those of `people` have not: they begin each trial with an empty journal.
    """
    chains = [_made(world, kind, number) for number in range(count)]
    try:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(Chain.start, chains))
        if kind != "people":
            first = shared(chains, range(count), lambda each, _: trial(each, "", None))
            assert [(each.judged.wrong, each.judged.effects) for each in first] == [([], [1])] * count
        yield chains
    finally:
        for each in chains:
            each.close()


def _made(world: World, kind: str, number: int) -> Chain:
    if kind == "cancel":
        return chain(world, readers=[f"db{number}"])
    made = chain(world, [f"web{number}"], patience=SHORT if kind == "people" else 60.0)
    made.heals = kind != "people"
    return made


def places(chain: Chain) -> Places:
    """Where this chain's remediator writes and sends."""
    ours, world, target = chain.remediator, chain.world, chain.target
    servers = {world.gate.port: "gate", world.prometheus.port: "prometheus", world.alertmanager.port: "alertmanager"}
    if isinstance(target, Web):
        servers[target.port] = "service"
    elif isinstance(target, Reader):
        servers[target.server.port] = "target"
    return Places(ours.port, servers, ours.journal, ours.folder, ours.process.log)


def trial(chain: Chain, meant: str, point: Point | None, *, lost: bool = False) -> Trial:
    """Ill, alert, killed at the point, started again, at rest, judged.

    lost  as after a power loss: the last transaction in the file did not reach the disk
    """
    since, word = chain.ready(), note()
    calls, taken, killed = watched(chain, since, word, point)
    before = point.after.when if point and point.after else 0
    struck = (names(calls, places(chain), before)[-1] or "a question") if killed else ""
    if killed and lost:
        lose_last_commit(chain.remediator.journal.with_name("journal.db-wal"))
    kept, last = chain.outside.kept(since), chain.outside.last(since)
    if killed:
        chain.again()
        if not taken or word not in kept:  # a lost one is judged below; sent again so that the trial has an end
            chain.take(chain.targets)
    chain.recover(since)
    judged = chain.judge(since, {word: taken}, kept)
    chain.clear(since)
    return Trial(meant, struck, last, taken, judged)


def watched(chain: Chain, since: float, word: str, point: Point | None) -> tuple[list[Call], bool, bool]:
    """One delivery until the kill or the end: the calls, whether it was acknowledged, and whether it was killed."""
    over = chain.over(since)
    with chain.traced(over, word, point.scope if point else EVERYTHING, point) as (trace, posted):
        killed = wait_until(over, "the kill or the end", REST, 0.3, chain.remediator.story) == "killed"
        killed = killed or (point is not None and ended(chain))
    return trace.calls(), posted.result(), killed


def ended(chain: Chain) -> bool:
    """Killed after all, a moment after its journal said that it was at rest?"""
    with suppress(NotInTime):
        wait_until(lambda: not chain.remediator.process.alive, "the kill", AFTER)
    return not chain.remediator.process.alive


def recorded(chain: Chain) -> dict[str, Point]:
    """The boundaries of one undisturbed remediation, in their order."""
    since, pid = chain.ready(), chain.remediator.process.pid
    calls, taken, killed = watched(chain, since, note(), None)
    assert (taken, killed) == (True, False)
    assert chain.judge(since).wrong == []
    chain.clear(since)
    return points(calls, places(chain), pid)


def struck_all(chains: Sequence[Chain], wanted: Mapping[str, Point], lost: bool) -> list[Trial]:
    """Trials until every boundary was struck, or was tried so often that it is not there any more."""

    def strike(chain: Chain, job: tuple[str, Point]) -> Trial:
        return trial(chain, *job, lost=lost)

    trials: list[Trial] = []
    for _ in range(1 + AGAIN):
        done = {each.struck for each in trials}
        trials += shared(chains, [(name, point) for name, point in wanted.items() if name not in done], strike)
    return trials


def table(wanted: Mapping[str, Point], trials: Sequence[Trial], seconds: float) -> str:
    """What was struck, and what came of it, in the order of the recording."""
    rows = [f"{len(wanted)} boundaries, {sum(bool(each.struck) for each in trials)} kills, {seconds:.0f} s"]
    for name in [*wanted, *sorted({each.struck for each in trials if each.struck} - set(wanted))]:
        here = [each for each in trials if each.struck == name]
        rows.append(
            f"{name:28} kills {len(here)}  last event {'/'.join(sorted({each.last for each in here})) or '-':22} "
            f"acknowledged {sum(each.taken for each in here)}  effects {[each.judged.effects[0] for each in here]}  "
            f"doubts {sum(each.judged.doubts for each in here)}  doubled {sum(each.judged.doubled for each in here)}  "
            f"lost {sum(each.judged.lost for each in here)}"
        )
    return "\n".join(rows)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("restart", False),
        ("people", False),
        pytest.param("cancel", False, marks=pytest.mark.campaign(seconds=240)),
        pytest.param("restart", True, marks=pytest.mark.campaign(seconds=240)),
        pytest.param("cancel", True, marks=pytest.mark.campaign(seconds=240)),
    ],
)
def test_killed_at_every_boundary(world: World, capsys: pytest.CaptureFixture[str], kind: str, lost: bool) -> None:
    """At each boundary: one effect with its proof, or people know better; what was acknowledged is in the journal.

    kind  restart: a container, healed; people: not healed, and handed over; cancel: a query
    lost  the transaction under way at the kill did not reach the disk
    """
    begun = time.monotonic()
    with running(world, kind, CHAINS if kind == "restart" else FEW) as chains:
        wanted = recorded(chains[0])
        if lost:
            wanted = {name: point for name, point in wanted.items() if name.endswith("its sync")}
        if kind == "people":
            # Up to the verdict it is the path of `restart`: two transactions lie between that and the first post.
            order = list(wanted)
            wanted = {name: wanted[name] for name in order[order.index("alertmanager: POST") - 4 :]}
        trials = struck_all(chains, wanted, lost)
    with capsys.disabled():
        print(f"\n{table(wanted, trials, time.monotonic() - begun)}")
    wrong = [f"killed at {each.struck} after {each.last}: {each.judged.wrong}" for each in trials if each.judged.wrong]
    assert not wrong, "\n\n".join(wrong)
    # A proof may take fewer rounds than in the recording, and then there are fewer transactions: the trial was over first.
    over = {each.meant for each in trials if not each.struck}
    missed = set(wanted) - {each.struck for each in trials} - over
    assert not missed, f"no kill struck {missed}"
    assert KEY[kind, lost] <= {each.last for each in trials}
