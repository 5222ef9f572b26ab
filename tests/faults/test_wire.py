"""kill -9 at every boundary of one remediation whose journal is on PostgreSQL: never two effects, never a lost alert.

As tests/faults/test_boundaries.py, with kills that strike exactly what is meant (wire.py). An undisturbed remediation is
recorded first; each word of it that changes something at somebody else's is a trial of its own. What the process writes
into files of its own is left to the journal on SQLite; the witness is held by the journal's own tests.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException

import pytest

from tests.faults.chains import REST, Chain, Judged, chain, note, shared
from tests.faults.outside import Outside
from tests.faults.wire import HttpWire, JournalWire, Wires
from tests.support.docker_engine import DockerEngine
from tests.support.processes import Identity
from tests.support.remediation import TOKEN, World, delivery
from tests.support.servers import PostgresServer, Run, post_json, wait_until

CHAINS = 8
LEASE = 3.0  # seconds until a started replica has what the killed one had claimed
AGAIN = 1  # more tries of what did not come by
SECONDS = 180
# A proof takes as many rounds as it takes, and a heartbeat comes when it comes: of these the first ones count.
REPEATED, ROUNDS = ("commit work lease_until", "commit replicas seen_at", "commit work owner", "commit work due_at"), 3


@dataclass(frozen=True, slots=True)
class Trial:
    """One kill; `struck` is False when what was meant did not come by until the end."""

    meant: str
    struck: bool
    last: str
    taken: bool
    judged: Judged


@dataclass
class Wired:
    """A chain with its ways."""

    chain: Chain
    wires: Wires
    webhook: HttpWire

    def post(self, word: str) -> bool:
        """The target's alert, by the way on which answers are named."""
        body = delivery([self.chain.target.name], note=word)
        try:
            return (
                post_json(f"{self.webhook.url}/alertmanager", body, {"Authorization": f"Bearer {TOKEN}"}).status == 200
            )
        except (OSError, HTTPException):
            return False


def wired(world: World, server: PostgresServer, number: int, stack: ExitStack) -> Wired:
    """One remediator behind proxies, started."""
    wires, database = Wires(), server.fresh_database()
    journal = stack.enter_context(JournalWire(wires, server.port))
    gate = stack.enter_context(HttpWire(wires, world.gate.port, "gate: POST"))
    people = stack.enter_context(HttpWire(wires, world.alertmanager.port, "alertmanager: POST"))
    url = database.dsn(scheme="postgresql+asyncpg").replace(f":{server.port}/", f":{journal.port}/")
    lease = {"lease": f"{LEASE:g}s", "renew": f"{LEASE / 3:g}s"}
    made = chain(
        world,
        [f"web{number}"],
        gate_url=gate.url,
        journal={"url": url, **lease},
        alertmanager={"urls": [people.url]},
    )
    made.outside, made.hold_off = Outside.database(database), LEASE
    made.start()
    stack.callback(made.close)
    webhook = stack.enter_context(HttpWire(wires, made.remediator.port, "webhook: its answer", answers=True))
    return Wired(made, wires, webhook)


@pytest.fixture
def ways(run: Run, docker_engine: DockerEngine, postgres_server: PostgresServer) -> Iterator[list[Wired]]:
    docker_engine.base_image()
    with World(run, docker_engine, [f"web{number}" for number in range(CHAINS)]) as world, ExitStack() as stack:
        yield [wired(world, postgres_server, number, stack) for number in range(CHAINS)]


def trial(ways: Wired, meant: str) -> tuple[Trial, list[str]]:
    """Ill, alert, killed at what is meant, started again, at rest, judged; and all that went by."""
    chain = ways.chain
    since, word = chain.ready(), note()
    process = Identity.of(chain.remediator.process.pid)
    assert process is not None
    ways.wires.begin(process, meant)
    taken = ways.post(word)
    killed = wait_until(chain.over(since), "the kill or the end", REST, 0.2, chain.remediator.story) == "killed"
    said = ways.wires.end()
    kept, last = chain.outside.kept(since), chain.outside.last(since)
    if not chain.remediator.process.alive:
        chain.again()
        if not taken or word not in kept:
            chain.take(chain.targets)
    chain.recover(since)
    judged = chain.judge(since, {word: taken}, kept)
    chain.clear(since)
    return Trial(meant, killed, last, taken, judged), said


def boundaries(said: list[str]) -> list[str]:
    """Of all that went by, what is tried: each once, of what repeats itself the first few."""
    few = {f"{name} {number}" for name in REPEATED for number in range(2, ROUNDS + 1)} | set(REPEATED)
    return [name for name in said if name in few or not name.startswith(REPEATED)]


def table(wanted: list[str], trials: list[Trial]) -> str:
    """What came of each."""
    rows = []
    for name in wanted:
        here = [each for each in trials if each.meant == name and each.struck]
        effects = Counter(each.judged.effects[0] for each in here)
        rows.append(
            f"{name:42} kills {len(here)}  last event {'/'.join(sorted({each.last for each in here})) or '-':12} "
            f"acknowledged {sum(each.taken for each in here)}  effects {dict(effects)}  "
            f"settled {sum(each.judged.settled for each in here)}  doubts {sum(each.judged.doubts for each in here)}  "
            f"doubled {sum(each.judged.doubled for each in here)}  lost {sum(each.judged.lost for each in here)}"
        )
    return "\n".join(rows)


@pytest.mark.campaign(seconds=SECONDS)
@pytest.mark.timeout(2 * SECONDS)
def test_killed_at_every_boundary_on_postgresql(ways: list[Wired], capsys: pytest.CaptureFixture[str]) -> None:
    """At each boundary: one effect with its proof, or people know better; what was acknowledged is in the journal."""
    begun = time.monotonic()
    with ThreadPoolExecutor(CHAINS) as pool:  # the runbook is in each journal from then on
        first = list(pool.map(lambda each: trial(each, ""), ways))
    assert [one.judged.wrong for one, _ in first] == [[]] * CHAINS
    recording, said = trial(ways[0], "")
    assert (recording.judged.wrong, recording.struck) == ([], False)
    wanted = boundaries(said)
    by_chain = {id(each.chain): each for each in ways}
    trials: list[Trial] = []
    for _ in range(1 + AGAIN):
        struck = {each.meant for each in trials if each.struck}
        left = [name for name in wanted if name not in struck]
        trials += shared([each.chain for each in ways], left, lambda one, name: trial(by_chain[id(one)], name)[0])
    with capsys.disabled():
        kills = sum(each.struck for each in trials)
        print(f"\n{len(wanted)} boundaries, {kills} kills, {time.monotonic() - begun:.0f} s of {SECONDS} s")
        print(table(wanted, trials))
    wrong = [f"killed at {each.meant} after {each.last}: {each.judged.wrong}" for each in trials if each.judged.wrong]
    assert not wrong, "\n\n".join(wrong)
    missed = set(wanted) - {each.meant for each in trials if each.struck}
    assert {name for name in missed if not name.startswith((*REPEATED, "commit proving"))} == set()
    assert {"diagnosed", "intent", "outcome", "verdict"} <= {each.last for each in trials if each.struck}
