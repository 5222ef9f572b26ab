"""kill -9 at random instants under a load of alerts at several targets: never two effects, never a lost alert.

Each kill is one remediator's, which has containers to restart and a database with a query to cancel, all of them ill at
once and for good. Each alert comes twice in the same moment, as two Alertmanagers send it, while deliveries that concern
nobody come all the time. The instants are drawn: half of them up to the last effect of an undisturbed run, where most
happens, half over the whole run.

The journal is on SQLite or on PostgreSQL; 200 kills each, in pieces that can be run one by one (`-k postgresql-2`).
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from statistics import median

import pytest

from tests.faults.chains import REST, Chain, Judged, chain, note, shared
from tests.faults.outside import Outside
from tests.support.docker_engine import DockerEngine
from tests.support.remediation import World, delivery
from tests.support.servers import PostgresServer, Run, wait_until

CHAINS = 6
WEBS = 2  # containers of each remediator, beside its database
KILLS, PIECES = 200, 8  # of each journal
LEASE = 3.0  # seconds until a started replica on PostgreSQL has what the killed one had claimed
TWICE = 2
FOREIGN_EVERY = 0.1  # seconds between two deliveries that concern nobody
FOREIGN = 5  # names of services in them
SECONDS = 240  # of a piece


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: seconds after the alerts were sent, the last event that outlived it, what was acknowledged."""

    after: float
    last: str
    sent: int
    taken: int
    judged: Judged


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, [f"web{number}" for number in range(CHAINS * WEBS)]) as world:
        yield world


@pytest.fixture(scope="module")
def chains(request: pytest.FixtureRequest, world: World) -> Iterator[list[Chain]]:
    """Started, their journals where the test says."""
    made = on_sqlite if request.param == "sqlite" else on_postgresql
    with ExitStack() as stack:
        chains = [made(world, number, request, stack) for number in range(CHAINS)]
        for each in chains:
            stack.callback(each.close)
        with ThreadPoolExecutor(CHAINS) as pool:
            list(pool.map(Chain.start, chains))
        yield chains


def on_sqlite(world: World, number: int, _: pytest.FixtureRequest, __: ExitStack) -> Chain:
    return chain(world, webs(number), [f"db{number}"])


def on_postgresql(world: World, number: int, request: pytest.FixtureRequest, stack: ExitStack) -> Chain:
    """A database of its own; a lease stands in the place of the hold-off."""
    server: PostgresServer = request.getfixturevalue("postgres_server")
    database = server.fresh_database()
    stack.callback(database.drop)
    url = database.dsn(scheme="postgresql+asyncpg")
    journal = {"url": url, "lease": f"{LEASE:g}s", "renew": f"{LEASE / 3:g}s"}
    made = chain(world, webs(number), [f"db{number}"], journal=journal)
    made.outside, made.hold_off = Outside.database(database), LEASE
    return made


def webs(number: int) -> list[str]:
    return [f"web{WEBS * number + each}" for each in range(WEBS)]


@contextmanager
def foreign(chain: Chain, taken: dict[str, bool]) -> Iterator[None]:
    """Deliveries of another environment all the while; notes each in `taken`, True when it was acknowledged."""
    over = threading.Event()

    def deliver() -> None:
        while not over.wait(FOREIGN_EVERY):
            word = note()
            services = [f"other{random.randrange(FOREIGN)}"]
            try:
                answer = chain.remediator.send(delivery(services, environment="staging", note=word), 5)
                taken[word] = answer.status == 200
            except (OSError, HTTPException):
                taken[word] = False

    thread = threading.Thread(target=deliver)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def at_once(chain: Chain, taken: dict[str, bool], pool: ThreadPoolExecutor) -> None:
    """Each target's alert twice in the same moment; returns at once, the pool's end has their answers."""

    def deliver(word: str, number: int) -> None:
        taken[word] = chain.post(chain.targets[number], word)

    for number in range(len(chain.targets)):
        for _ in range(TWICE):
            pool.submit(deliver, note(), number)


def undisturbed(chain: Chain, _: int) -> tuple[float, float]:
    """Seconds from the alerts to the last effect, and to the end; nothing is wrong."""
    since = chain.ready()
    taken: dict[str, bool] = {}
    with ThreadPoolExecutor(TWICE * len(chain.targets)) as pool, foreign(chain, taken):
        at_once(chain, taken, pool)
        wait_until(
            lambda: all(each.effects for each in chain.targets), "all effects", REST, 0.1, chain.remediator.story
        )
        effects = time.time() - since
        chain.recover(since)
    whole = time.time() - since
    judged = chain.judge(since, taken, chain.outside.kept(since))
    assert judged.wrong == []
    assert all(taken.values())
    chain.clear(since)
    return effects, whole


def kill(chain: Chain, after: float) -> Kill:
    """Ill, alerts, killed after so many seconds, started again, at rest, judged."""
    since = chain.ready()
    taken: dict[str, bool] = {}
    with ThreadPoolExecutor(TWICE * len(chain.targets) + 1) as pool, foreign(chain, taken):
        at_once(chain, taken, pool)
        mended = pool.submit(wait_until, chain.over(since), "the kill or the end", REST, 0.1)
        wait_until(lambda: time.time() > since + after, "the instant", REST, 0.01)
        chain.remediator.process.kill()
        mended.result()
    kept, last = chain.outside.kept(since), chain.outside.last(since)
    chain.again()
    # What was not acknowledged comes again; here all that is ill, since who got which answer is not known by target.
    chain.take(chain.targets)
    chain.recover(since)
    judged = chain.judge(since, taken, kept)
    chain.clear(since)
    return Kill(after, last, len(taken), sum(taken.values()), judged)


def table(kills: Sequence[Kill]) -> str:
    """By the last event that outlived the kill, and the sum. Doubts: for people; settled: by the target itself."""
    groups: dict[str, list[Kill]] = defaultdict(list)
    for each in kills:
        groups[each.last].append(each)
    rows = [*((name, groups[name]) for name in sorted(groups, key=lambda name: groups[name][0].after)), ("all", kills)]
    head = f"{'killed after':14}{'kills':>6}{'sent':>7}{'acknowledged':>14}{'targets':>9}{'one effect':>12}"
    lines = [f"{head}{'no effect':>11}{'settled':>9}{'doubts':>8}{'doubled':>9}{'lost':>6}"]
    for name, here in rows:
        effects = Counter(count for each in here for count in each.judged.effects)
        lines.append(
            f"{name:14}{len(here):6}{sum(each.sent for each in here):7}{sum(each.taken for each in here):14}"
            f"{effects.total():9}{effects[1]:12}{effects[0]:11}"
            f"{sum(each.judged.settled for each in here):9}{sum(each.judged.doubts for each in here):8}"
            f"{sum(each.judged.doubled for each in here):9}{sum(each.judged.lost for each in here):6}"
        )
    return "\n".join(lines)


@pytest.mark.campaign(seconds=SECONDS)
@pytest.mark.timeout(4 * SECONDS)
@pytest.mark.parametrize("chains", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("piece", range(PIECES))
def test_killed_at_random_instants(chains: list[Chain], piece: int, capsys: pytest.CaptureFixture[str]) -> None:
    """200 kills in all: each acknowledged alert is in the journal, each target has one effect, or people know better."""
    begun = time.monotonic()
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    runs = shared(chains, range(CHAINS), undisturbed)
    effects, whole = median(run[0] for run in runs), max(run[1] for run in runs)
    instants = [rng.uniform(0, effects if number % 2 else whole) for number in range(KILLS // PIECES)]
    kills = shared(chains, instants, kill)
    with capsys.disabled():
        print(f"\npiece {piece}, seed {seed}; last effect after {effects:.1f} s, end after {whole:.1f} s")
        print(f"{table(kills)}\n{time.monotonic() - begun:.0f} s of {SECONDS} s")
    wrong = [
        f"killed {each.after:.2f} s after the alerts, {each.last}: {each.judged.wrong}"
        for each in kills
        if each.judged.wrong
    ]
    assert not wrong, "\n\n".join(wrong)
    assert len(kills) == KILLS // PIECES
    # Of 25 instants a few come before the end of an effect; the milliseconds between two of these words not always.
    assert {"diagnosed", "intent", "outcome"} & {each.last for each in kills}, "every kill came too early or too late"
