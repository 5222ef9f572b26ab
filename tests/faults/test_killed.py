"""kill -9 at every write of one remediation, and in the middle of its effect: never two effects, never a lost alert.

What was done is counted at the target: a container's own lives, PostgreSQL's own log. A kill on entering the sync of a
write is tried both ways: the write is there after the restart (the page cache has it), and it is not (power loss).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import pytest

from tests.faults.kills import Trace, lose_last_commit
from tests.faults.targets import Reader, Target, Web
from tests.support.docker_engine import DockerEngine
from tests.support.remediation import (
    HOLD_OFF,
    Remediator,
    World,
    database_entry,
    query_book,
    restart_book,
    service_entries,
)
from tests.support.servers import Run, wait_until
from tests.support.tcp_proxy import TcpProxy

CHAINS = 6  # remediators that are killed side by side, each with a target and a journal of its own
REST = 90.0  # seconds until what a kill left behind is settled, on a busy machine
SPARE = 2  # kills beyond the last write of the undisturbed run: a heartbeat may have come in between
ACTIONS = ("restart", "cancel")


@dataclass(frozen=True, slots=True)
class Trial:
    """One kill and what came of it. `last` is the last event of the journal that outlived the kill."""

    at: int | None
    killed: bool
    last: str
    effects: int
    syncs: int
    wrong: str


class Chain:
    """One remediator that is killed again and again over one target, its journal growing all the while."""

    def __init__(self, world: World, target: Target, remediator: Remediator) -> None:
        self.world, self.target, self.remediator = world, target, remediator
        self._rested = 0.0

    def trial(self, at: int | None, *, lost: bool = False) -> Trial:
        """Ill, alert, killed at the `at`-th write, started again, at rest; what is wrong with it, if anything.

        `lost`: that write did not reach the disk.
        """
        since = self.ready()
        with Trace(self.world.run, self.remediator.process.pid, self.remediator.folder, at) as trace:
            acknowledged = self.post()
            killed = (
                wait_until(self._over(since), f"write {at} or the end", REST, 0.1, self.remediator.story) == "killed"
            )
            syncs = trace.syncs()
        last = "nothing"
        if killed:
            ended = time.time()
            self.again(lost=lost and syncs[-1].endswith("-wal"))
            last = self.last_before(since, ended)
            if not acknowledged:
                wait_until(self.post, "the delivery that was not acknowledged to be taken", 20)
        self.remediator.wait_rest(since, REST)
        trial = Trial(at, killed, last, self.target.effects, len(syncs), self.judge(since))
        self.clear(since)
        return trial

    def ready(self) -> float:
        """Ill, nothing held off any more; the time from which on episodes count."""
        wait_until(lambda: time.time() > self._rested, "the hold-off to be over", HOLD_OFF + 1)
        self.target.sicken()
        self.target.begin()
        return time.time()

    def post(self) -> bool:
        """Deliver the alert; was it acknowledged?"""
        try:
            return self.remediator.post(self.target.name, alertname=self.target.alertname)
        except OSError:
            return False

    def again(self, *, lost: bool = False) -> None:
        """Start the killed one again; `lost`: as after a power loss that took its last write."""
        self.remediator.process.kill()
        if lost:
            lose_last_commit(self.remediator.journal.with_name("journal.db-wal"))
        self.remediator.start()
        self._rested = time.time() + HOLD_OFF

    def last_before(self, since: float, ended: float) -> str:
        events = [each for row in self.remediator.episodes(since) for each in self.remediator.events(row["id"])]
        return max(((each["at"], each["kind"]) for each in events if each["at"] <= ended), default=(0, "nothing"))[1]

    def judge(self, since: float) -> str:
        """What is wrong, as words: a second effect, a lost alert, a doubt that nobody was told of."""
        effects, rows = self.target.effects, self.remediator.episodes(since)
        problems = [f"{effects} effects"] if effects > 1 else []
        problems += [] if rows else ["acknowledged, and no episode"]
        told = [name for row in rows for name in self.world.people(row["id"])]
        doubts = [
            each for each in self.remediator.ask("doubts")["doubts"] if each["episode"] in {r["id"] for r in rows}
        ]
        if doubts and "RemediationInDoubt" not in told:
            problems.append("in doubt, and nobody was told")
        if effects == 0 and not {"RemediationInDoubt", "RemediationFailed"} & set(told):
            problems.append(f"no effect, and people were told {told or 'nothing'}")
        return f"{'; '.join(problems)}\n{self.remediator.story()}" if problems else ""

    def clear(self, since: float) -> None:
        """Leave nothing open: a person settles the doubts and mends the target, Alertmanager says resolved."""
        for doubt in self.remediator.ask("doubts")["doubts"]:
            self.remediator.settle(doubt["attempt"], "done" if self.target.effects else "not_done")
        self.target.heal()
        if any(row["closed_at"] is None for row in self.remediator.episodes(since)):
            assert self.remediator.post(self.target.name, alertname=self.target.alertname, status="resolved")
            closed = lambda: all(row["closed_at"] for row in self.remediator.episodes(since))  # noqa: E731
            wait_until(closed, "the episodes to close", REST, 0.3, self.remediator.story)

    def _over(self, since: float) -> object:
        def over() -> str:
            if not self.remediator.process.alive:
                return "killed"
            return "at rest" if self.remediator.at_rest(since) else ""

        return over


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, [f"web{number}" for number in range(CHAINS + 1)]) as world:
        yield world


@pytest.fixture(scope="module")
def chains(world: World) -> Iterator[dict[str, list[Chain]]]:
    """For each action, chains that are made when they are first asked for."""
    made: dict[str, list[Chain]] = {}
    yield made
    for chain in [chain for each in made.values() for chain in each]:
        chain.remediator.process.kill()
        chain.target.close()


def chains_of(chains: dict[str, list[Chain]], world: World, action: str) -> list[Chain]:
    if action not in chains:
        chains[action] = [chain(world, action, number) for number in range(CHAINS)]
    return chains[action]


def chain(world: World, action: str, number: int, proxy: TcpProxy | None = None) -> Chain:
    """A target and its remediator, running; past `proxy` where one is given."""
    target: Target
    if action == "restart":
        target = web = Web(world, f"web{number}")
        gate = {"docker": {"gate_url": proxy.url}} if proxy else {}
        ours = Remediator(world, [restart_book([web.name])], services=service_entries([web]), **gate)
    else:
        target = reader = Reader(world, f"db{number}")
        if proxy is not None:
            proxy.upstream = reader.server.port
        entry = database_entry(world.folder, proxy.port if proxy else reader.server.port)
        ours = Remediator(world, [query_book(reader.name)], databases={reader.name: entry})
    return Chain(world, target, ours.start())


def all_of(chains: Sequence[Chain], kills: Sequence[int], *, lost: bool) -> list[Trial]:
    """Every kill once, the chains taking the next one each as they are free."""
    todo: SimpleQueue[int] = SimpleQueue()
    for at in kills:
        todo.put(at)

    def work(chain: Chain) -> list[Trial]:
        done = []
        with contextlib.suppress(Empty):
            while True:
                done.append(chain.trial(todo.get_nowait(), lost=lost))
        return done

    with ThreadPoolExecutor(len(chains)) as pool:
        return [trial for done in pool.map(work, chains) for trial in done]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lost", [False, True], ids=["written", "lost"])
@pytest.mark.parametrize("action", ACTIONS)
def test_killed_at_every_write(world: World, chains: dict[str, list[Chain]], action: str, lost: bool) -> None:
    """From the delivery to the episode's end, at each of its writes: one effect, or people know better."""
    ours = chains_of(chains, world, action)
    undisturbed = ours[0].trial(None)
    assert (undisturbed.wrong, undisturbed.effects) == ("", 1)
    assert undisturbed.syncs > 8
    trials = all_of(ours, range(1, undisturbed.syncs + SPARE + 1), lost=lost)
    table = "\n".join(f"write {each.at}: last {each.last}, {each.effects} effects" for each in trials)
    print(f"{undisturbed.syncs} writes in an undisturbed run\n{table}")
    wrong = [f"killed at write {each.at} after {each.last}: {each.wrong}" for each in trials if each.wrong]
    assert not wrong, "\n\n".join(wrong)
    # The two writes that everything rests on were among them: the intent, and the outcome.
    assert {"diagnosed", "intent"} if lost else {"intent", "outcome"} <= {each.last for each in trials if each.killed}
