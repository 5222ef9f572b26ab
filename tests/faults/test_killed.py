"""kill -9 at every write of one remediation, and in the middle of its effect: never two effects, never a lost alert.

What was done is counted at the target: a container's own lives, PostgreSQL's own log. A kill on entering the sync of a
write is tried both ways: the write is there after the restart (the page cache has it), and it is not (power loss).

The alert stays true after the effect until all that could lead to a second one is over: nothing but the remediator's
own knowledge stands between the two.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import pytest

from tests.faults.kills import Trace, lose_last_commit
from tests.faults.targets import Reader, Target, Web
from tests.support.docker_engine import DockerEngine
from tests.support.remediation import (
    DEADLINE,
    HOLD_OFF,
    START_WITHIN,
    Remediator,
    World,
    database_entry,
    query_book,
    restart_book,
    service_entries,
)
from tests.support.servers import NotInTime, Run, wait_until
from tests.support.tcp_proxy import Hold, TcpProxy

CHAINS = 6  # remediators that are killed side by side, each with a target and a journal of its own
REST = 90.0  # seconds until what a kill left behind is settled, on a busy machine
AFTER = 2.0  # seconds after the effect, and after the hold-off, in which a second effect would come
PATIENCE = 60.0  # seconds until an effect that does not help has not helped
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
                wait_until(self._over(since), f"write {at} or the end", REST, 0.3, self.remediator.story) == "killed"
            )
            syncs = trace.syncs()
        last = "nothing"
        if killed:
            ended = time.time()
            self.again(lost=lost and syncs[-1].endswith("-wal"))
            last = self.last_before(since, ended)
            if not acknowledged:
                wait_until(self.post, "the delivery that was not acknowledged to be taken", 20)
        self.recover(since)
        trial = Trial(at, killed, last, self.target.effects, len(syncs), self.judge(since))
        self.clear(since)
        return trial

    def ready(self) -> float:
        """Running and ill, nothing held off any more; the time from which on episodes count."""
        if not self.remediator.process.alive:  # a trial that failed has left it dead
            self.again()
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
        ids = {row["id"] for row in rows}
        if any(doubt["episode"] in ids for doubt in self.remediator.ask("doubts")["doubts"]):
            problems += self.untold(ids, "RemediationInDoubt")
        elif effects == 0:
            problems += self.untold(ids, "RemediationFailed")
        return f"{'; '.join(problems)}\n{self.remediator.story()}" if problems else ""

    def untold(self, episodes: set[str], alertname: str) -> list[str]:
        """Empty when people have got this alert about one of these, which takes Alertmanager a moment."""
        try:
            wait_until(lambda: any(alertname in self.world.people(each) for each in episodes), alertname, 15, 0.2)
        except NotInTime:
            return [f"{self.target.effects} effects, and people never got {alertname}"]
        return []

    def recover(self, since: float) -> None:
        """At rest: with people, or healed once the hold-off is over and nothing more was done, and closed."""
        wait_until(self._over(since), "the started one to be at rest", REST, 0.3, self.remediator.story)

    def clear(self, since: float) -> None:
        """Leave nothing open: a person settles the doubts and mends the target, Alertmanager says resolved."""
        for doubt in self.remediator.ask("doubts")["doubts"]:
            self.remediator.settle(doubt["attempt"], "done" if self.target.effects else "not_done")
        self.target.heal()
        if any(row["closed_at"] is None for row in self.remediator.episodes(since)):
            assert self.remediator.post(self.target.name, alertname=self.target.alertname, status="resolved")
            closed = lambda: all(row["closed_at"] for row in self.remediator.episodes(since))  # noqa: E731
            wait_until(closed, "the episodes to close", REST, 0.3, self.remediator.story)

    def _over(self, since: float) -> Callable[[], str]:
        """`killed`, `at rest`, or "" for not yet. Heals the target on the way: only then can it come to an end."""
        heal_at = 0.0

        def over() -> str:
            nonlocal heal_at
            if not self.remediator.process.alive:
                return "killed"
            if heal_at == 0.0 and self.target.effects:
                heal_at = max(time.time(), self._rested) + AFTER
            if 0.0 < heal_at < time.time():
                self.target.heal()
                heal_at = math.inf
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
    """The chains of an action; each has gone through one remediation: the runbook is in its journal already."""
    if action not in chains:
        chains[action] = [chain(world, action, number) for number in range(CHAINS)]
        with ThreadPoolExecutor(CHAINS) as pool:
            first = list(pool.map(lambda each: each.trial(None), chains[action]))
        assert [(trial.wrong, trial.effects) for trial in first] == [("", 1)] * CHAINS
    return chains[action]


def chain(world: World, action: str, number: int, proxy: TcpProxy | None = None) -> Chain:
    """A target and its remediator, running; past `proxy` where one is given."""
    target: Target
    if action == "restart":
        target = web = Web(world, f"web{number}")
        gate = {"docker": {"gate_url": proxy.url}} if proxy else {}
        book = restart_book([web.name], patience=PATIENCE)
        ours = Remediator(world, [book], services=service_entries([web]), **gate)
    else:
        target = reader = Reader(world, f"db{number}")
        if proxy is not None:
            proxy.upstream = reader.server.port
        entry = database_entry(world.folder, proxy.port if proxy else reader.server.port)
        ours = Remediator(world, [query_book(reader.name, PATIENCE)], databases={reader.name: entry})
    target.incurable = True
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
@pytest.mark.parametrize(
    "lost", [False, pytest.param(True, marks=pytest.mark.campaign(seconds=180))], ids=["written", "lost"]
)
@pytest.mark.parametrize("action", ACTIONS)
def test_killed_at_every_write(world: World, chains: dict[str, list[Chain]], action: str, lost: bool) -> None:
    """From the delivery to the episode's end, at each of its writes: one effect, or people know better."""
    ours = chains_of(chains, world, action)
    undisturbed = ours[0].trial(None)
    assert (undisturbed.wrong, undisturbed.effects) == ("", 1)
    assert undisturbed.syncs > 8
    trials = all_of(ours, range(1, undisturbed.syncs + SPARE + 1), lost=lost)
    # The two writes that everything rests on, the intent's and the outcome's: a heartbeat may have moved them.
    rest_on = {"diagnosed", "intent"} if lost else {"intent", "outcome"}
    for _ in range(3):
        near = sorted(
            each.at for each in trials if each.at and each.last in ("opened", "diagnosed", "intent", "outcome")
        )
        if not rest_on <= {each.last for each in trials if each.killed}:
            trials += all_of(ours, range(near[0], near[-1] + 2), lost=lost)
    table = "\n".join(f"write {each.at}: last {each.last}, {each.effects} effects" for each in trials)
    print(f"{undisturbed.syncs} writes in an undisturbed run\n{table}")
    wrong = [f"killed at write {each.at} after {each.last}: {each.wrong}" for each in trials if each.wrong]
    assert not wrong, "\n\n".join(wrong)
    assert rest_on <= {each.last for each in trials if each.killed}


# ---- in the middle of the effect --------------------------------------------------------------------------------------


@dataclass
class Middle:
    """A chain whose calls to its target pass a proxy; `asks` and `answers` are in the bytes of the effect alone."""

    chain: Chain
    proxy: TcpProxy
    asks: bytes
    answers: bytes


@pytest.fixture(scope="module", params=ACTIONS)
def middle(request: pytest.FixtureRequest, world: World) -> Iterator[Middle]:
    proxy = world.proxy(world.gate.port)
    proxy.lasting = True
    ours = chain(world, request.param, CHAINS, proxy)
    if isinstance(ours.target, Reader):
        # Of all that is sent, only the effect has the server's own id as a parameter.
        made = Middle(ours, proxy, ours.target.server.system_identifier.encode(), b"SELECT 1\x00")
    else:
        made = Middle(ours, proxy, b"POST /v1.41/containers", b"HTTP/1.1 204")
    yield made
    proxy.reset()
    ours.remediator.process.kill()
    ours.target.close()


def held_and_killed(middle: Middle) -> tuple[float, Hold]:
    """Ill, alert, intent; the call is on its way and has not arrived; kill -9."""
    chain = middle.chain
    since = chain.ready()
    hold = middle.proxy.hold_on(middle.asks)
    assert chain.post()
    hold.wait(REST)
    chain.remediator.process.kill()
    assert chain.target.effects == 0
    return since, hold


def finished(middle: Middle, since: float) -> tuple[int, list[str]]:
    """At rest and judged: effects, and what people were told."""
    chain = middle.chain
    chain.recover(since)
    wrong, effects = chain.judge(since), chain.target.effects
    assert not wrong, wrong
    return effects, [name for row in chain.remediator.episodes(since) for name in chain.world.people(row["id"])]


@pytest.mark.timeout(300)
def test_killed_while_the_call_is_on_its_way(middle: Middle) -> None:
    """The call arrives after its sender's death: done once, found out, and proven."""
    since, hold = held_and_killed(middle)
    hold.release()
    wait_until(lambda: middle.chain.target.effects, "the call to take effect", START_WITHIN + 5)
    middle.chain.again()
    assert finished(middle, since) == (1, [])
    middle.chain.clear(since)


@pytest.mark.timeout(300)
def test_killed_before_the_answer(middle: Middle) -> None:
    """Done, and the answer never heard: done once, found out, and proven."""
    chain = middle.chain
    since = chain.ready()
    request = middle.proxy.hold_on(middle.asks)
    assert chain.post()
    request.wait(REST)
    answer = middle.proxy.hold_answer_on(middle.answers)
    request.release()
    answer.wait(20)
    chain.remediator.process.kill()
    answer.drop()
    chain.again()
    assert finished(middle, since) == (1, [])
    middle.chain.clear(since)


@pytest.mark.timeout(300)
def test_killed_and_the_call_lost(middle: Middle) -> None:
    """The call never arrives: the target says so, and it is done once by another attempt."""
    since, hold = held_and_killed(middle)
    hold.drop()
    middle.chain.again()
    assert finished(middle, since) == (1, [])
    middle.chain.clear(since)


@pytest.mark.timeout(300)
def test_killed_and_the_call_comes_late(middle: Middle) -> None:
    """The call arrives when all is settled: the target refuses it. Never two effects, whatever was concluded."""
    since, hold = held_and_killed(middle)
    middle.chain.again()
    effects, told = finished(middle, since)
    hold.release()
    late = time.monotonic() + 2 * DEADLINE
    wait_until(lambda: time.monotonic() > late or middle.chain.target.effects > effects, "a while", 3 * DEADLINE, 0.2)
    assert middle.chain.target.effects == effects
    # The gate is a witness; PostgreSQL still has a session of the attempt and cannot be one: a doubt, for people.
    assert (effects, told) == ((0, ["RemediationInDoubt"]) if isinstance(middle.chain.target, Reader) else (1, []))
    middle.chain.clear(since)
