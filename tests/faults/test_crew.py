"""Three remediators on one PostgreSQL journal: killed, frozen, and their PostgreSQL restarted, under many alerts at once.

As they ship: a lease of 6 s. Each webhook goes to all three in the same moment, as a cluster of Alertmanagers behind no
balancer sends it. The numbers are printed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import pytest

from tests.faults.chains import note
from tests.faults.crew import TAKE_OVER, Crew, Judged, send
from tests.faults.outside import Outside
from tests.faults.targets import Web
from tests.support.docker_engine import DockerEngine
from tests.support.remediation import Remediator, World, delivery
from tests.support.servers import PostgresServer, Run, wait_until

pytestmark = pytest.mark.e2e  # three remediators and a judged time

FEW, MANY, JOURNALED = 20, 50, 12  # targets
ROUNDS = {FEW: 2, MANY: 10}
SECONDS = 900


@dataclass
class Round:
    """One kill and one freeze: effects that were under way at either, seconds until somebody else had each episode."""

    killed: int
    frozen: int
    killed_taken: list[float]
    frozen_taken: list[float]
    judged: Judged = field(default_factory=Judged)


@pytest.fixture
def crew(request: pytest.FixtureRequest, run: Run, docker_engine: DockerEngine) -> Iterator[Crew]:
    """Running, over so many targets as the parameter says, with a PostgreSQL of their own."""
    names = [f"web{number}" for number in range(request.param)]
    docker_engine.base_image()  # once, before several ask for it
    with World(run, docker_engine, names) as world:
        with ThreadPoolExecutor(4) as pool:
            services = list(pool.map(lambda name: Web(world, name, stubborn=True), names))
        server = PostgresServer(run, name="journal").start()
        database = server.fresh_database()
        crew = Crew(world, services, database)
        try:
            crew.start()
            yield crew
        finally:
            crew.close()
            server.stop()


def one_killed_one_frozen(crew: Crew) -> Round:
    """All ill, all alerts at all three, two struck with effects under way; the frozen one goes on before they are settled."""
    since = crew.sicken()
    assert set(crew.deliver()) == {200}
    killed, frozen = crew.wait_under_way(2)[:2]
    owners = crew.owner(killed), crew.owner(frozen)
    with ThreadPoolExecutor(2) as pool:
        at = time.time()
        for struck in (pool.submit(killed.process.kill), pool.submit(frozen.process.freeze)):
            struck.result()
    left = crew.under_way()
    had = [crew.owned(owner) for owner in owners]
    theirs, its = [crew.wait_taken_over(*each, at) for each in zip(owners, had, strict=True)]
    frozen.process.thaw()
    crew.start()
    crew.recover(since)
    done = Round(left.get(killed, 0), left.get(frozen, 0), theirs, its, crew.judge(since))
    crew.clear()
    return done


def table(rounds: list[Round]) -> str:
    """The counts over all rounds."""
    effects = Counter(count for each in rounds for count in each.judged.effects)
    settled = sum((each.judged.settled for each in rounds), Counter[str]())
    taken = [at for each in rounds for at in (*each.killed_taken, *each.frozen_taken)]
    rows: dict[str, object] = {
        "episodes": effects.total(),
        "one effect": effects[1],
        "no effect": effects[0],
        "two effects": sum(number for count, number in effects.items() if count > 1),
        "attempts": sum(each.judged.attempts for each in rounds),
        "of them refused at the target or not sent": sum(each.judged.failed for each in rounds),
        "under way at a kill": sum(each.killed for each in rounds),
        "under way at a freeze": sum(each.frozen for each in rounds),
        "doubts settled by the target": f"{settled.total()} {dict(settled)}",
        "doubts for people": sum(each.judged.doubts for each in rounds),
        "episodes that people were told of": sum(each.judged.people for each in rounds),
    }
    if taken:
        rows["taken over"] = len(taken)
        rows["seconds to that, median and longest"] = f"{median(taken):.1f} {max(taken):.1f}"
    return "\n".join(f"{name:45}{value}" for name, value in rows.items())


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize(
    "crew", [FEW, pytest.param(MANY, marks=pytest.mark.campaign(seconds=SECONDS))], indirect=True, ids=["few", "many"]
)
def test_one_killed_one_frozen(crew: Crew, capsys: pytest.CaptureFixture[str]) -> None:
    """One effect for each alert, whoever had it; taken over within 10 s; nothing begun anew before its deadline."""
    begun = time.monotonic()
    rounds = [one_killed_one_frozen(crew) for _ in range(ROUNDS[len(crew.services)])]
    with capsys.disabled():
        print(f"\n{table(rounds)}\n{time.monotonic() - begun:.0f} s")
    wrong = [word for each in rounds for word in each.judged.wrong]
    assert not wrong, "\n\n".join(wrong)
    assert sum(each.killed for each in rounds), "killed in the middle of effects"
    assert sum(each.frozen for each in rounds), "frozen in the middle of effects"
    assert max(at for each in rounds for at in (*each.killed_taken, *each.frozen_taken)) < TAKE_OVER


# -- the journal's own server -------------------------------------------------------------------------------

DOWN = 4.0  # seconds without a PostgreSQL: under the lease, and over it with the start
EVERY = 0.05  # seconds between two deliveries to each replica


@dataclass
class Told:
    """Deliveries that concern nobody: when each was answered, how, and the word that it can be found by."""

    at: float
    status: int
    word: str


@contextmanager
def foreign(crew: Crew) -> Iterator[list[Told]]:
    """At every replica one after the other, all the while."""
    over, told = threading.Event(), list[Told]()

    def deliver(replica: Remediator) -> None:
        while not over.wait(EVERY):
            word = note()
            status = send(replica, delivery(["other"], environment="staging", note=word))
            told.append(Told(time.time(), status, word))

    with ThreadPoolExecutor(len(crew.replicas)) as pool:
        for each in crew.replicas:
            pool.submit(deliver, each)
        try:
            yield told
        finally:
            over.set()


def stopped(server: PostgresServer) -> None:
    """As for a change of a setting that needs a restart: a fast shutdown."""
    server.stop()


def killed(server: PostgresServer) -> None:
    """kill -9, its sessions too: recovery at the next start."""
    server.kill()


def taken_at_last(crew: Crew, late: Sequence[Web]) -> None:
    """As Alertmanager does: each delivery again and again, until every replica has acknowledged it."""
    for each in late:
        body = delivery([each.name])
        for replica in crew.replicas:
            wait_until(partial(_taken, replica, body), f"{each.name} to be taken", 40, 0.5)


def _taken(replica: Remediator, body: Mapping[str, Any]) -> bool:
    return send(replica, body) == 200


@pytest.mark.timeout(240)
@pytest.mark.parametrize("crew", [JOURNALED], indirect=True, ids=["journal"])
@pytest.mark.parametrize("end", [stopped, killed])
def test_the_journals_postgresql_is_restarted(
    crew: Crew, end: Callable[[PostgresServer], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of effects: 503 to every sender meanwhile, then on by itself; nothing lost, nothing done twice."""
    server, pids = crew.database.server, [each.process.pid for each in crew.replicas]
    early, late = crew.services[: JOURNALED // 2], crew.services[JOURNALED // 2 :]
    since = crew.sicken()
    with foreign(crew) as told:
        assert set(crew.deliver(early)) == {200}
        crew.wait_under_way(1)
        end(server)
        down = time.time()
        with ThreadPoolExecutor(1) as pool:
            taken = pool.submit(taken_at_last, crew, late)
            wait_until(lambda: time.time() > down + DOWN, "a while to pass", DOWN + 5)
            starting = time.time()
            server.start()
            up = time.time()
            taken.result()
        wait_until(lambda: all(word.status == 200 for word in told[-9:]), "every replica to take alerts", 30)
        back = next(word.at for word in told if word.at > up and word.status == 200) - up
        crew.recover(since)
    meanwhile = Counter(word.status for word in told if down + 1 < word.at < starting)
    kept = Outside.database(crew.database).kept(since)
    judged = crew.judge(since)
    acknowledged = [word.word for word in told if word.status == 200]
    with capsys.disabled():
        print(f"\n{table([Round(0, 0, [], [], judged)])}")
        print(f"{'deliveries meanwhile, by status':45}{dict(meanwhile)}")
        print(f"{'deliveries acknowledged, all kept':45}{len(acknowledged)} of {len(told)}")
        print(f"{'seconds from the start to the next yes':45}{back:.1f}")
    assert set(meanwhile) == {503}
    assert [word for word in acknowledged if word not in kept] == []
    assert judged.wrong == [], "\n\n".join(judged.wrong)
    assert [each.process.pid for each in crew.replicas] == pids, "nobody was restarted"
