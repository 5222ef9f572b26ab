"""Two remediators on one PostgreSQL journal: one effect each, whoever of them gets the alert, freezes or comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.support.docker_engine import DockerEngine
from tests.support.remediation import (
    DEADLINE,
    SLOW_MACHINE,
    Remediator,
    SickService,
    World,
    delivery,
    restart_book,
    service_entries,
)
from tests.support.servers import Database, PostgresServer, Run, wait_until
from tests.support.tcp_proxy import Hold, TcpProxy

NAMES = ("one", "two", "three", "four")
ROUNDS = 5  # of four targets each
LEASE = {"lease": "3s", "renew": "1s", "poll": "500ms"}


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, NAMES) as world:
        yield world


@pytest.fixture(scope="module")
def services(world: World) -> list[SickService]:
    return [world.service(name) for name in NAMES]


@dataclass
class Pair:
    """Two replicas, `first` with its gate behind a proxy; the journal's database."""

    first: Remediator
    second: Remediator
    proxy: TcpProxy
    database: Database


def replica(
    world: World, services: list[SickService], database: Database, name: str, gate_url: str, deadline: float
) -> Remediator:
    url = database.dsn(scheme="postgresql+asyncpg")
    books = [restart_book([each.name for each in services], deadline)]
    return Remediator(
        world,
        books,
        name=name,
        services=service_entries(services),
        journal={"url": url, **LEASE},
        docker={"gate_url": gate_url},
    )


@pytest.fixture
def pair(
    request: pytest.FixtureRequest, world: World, services: list[SickService], postgres_server: PostgresServer
) -> Iterator[Pair]:
    """Both running. With a parameter, that deadline of an action in seconds."""
    deadline = getattr(request, "param", DEADLINE)
    database = postgres_server.fresh_database()
    proxy = world.proxy(world.gate.port)
    proxy.lasting = True
    first = replica(world, services, database, "first", proxy.url, deadline)
    second = replica(world, services, database, "second", world.gate.url, deadline)
    with ThreadPoolExecutor(2) as both:
        list(both.map(Remediator.start, (first, second)))
    with first, second:
        yield Pair(first, second, proxy, database)
        for each in (first, second):
            each.process.thaw()
    proxy.close()
    database.drop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("pair", [SLOW_MACHINE], indirect=True)
def test_the_same_alerts_at_both_at_once(pair: Pair, services: list[SickService]) -> None:
    """Five times four targets, each delivery at both replicas in the same moment: each target restarted once."""
    for number in range(ROUNDS):
        for service in services:
            service.sicken()
            service.begin()
        since, body = time.time(), delivery(NAMES)
        with ThreadPoolExecutor(2) as both:
            posts = [both.submit(each.send, body) for each in (pair.first, pair.second)]
            assert [post.result().status for post in posts] == [200, 200]
        pair.first.wait_rest(since, 90)
        assert [service.effects for service in services] == [1] * len(services), f"round {number}"
        rows = pair.second.episodes(since)
        assert sorted(row["runbook"] for row in rows) == ["restart"] * len(services), "one episode a target"
        intents = [pair.first.kinds(row["id"]).count("intent") for row in rows]
        assert intents == [1] * len(services), pair.first.story()


def held_at_the_call(pair: Pair, service: SickService) -> tuple[float, Hold]:
    """The first replica alone takes the alert, writes its intent and sends its call, which is held."""
    hold = pair.proxy.hold_on(b"POST /v1.41/containers")
    return _taken_by_first(pair, service), hold.wait(60)


def held_before_the_call(pair: Pair, service: SickService) -> tuple[float, Hold]:
    """As above, and held between intent and call: the last read of the container before it."""
    pattern = f"GET /containers/{service.container.id}/json".encode()
    hold = pair.proxy.hold_on(pattern)
    since = _taken_by_first(pair, service)
    while pair.database.value("select count(*) from events where kind = 'intent'") == "0":
        hold.wait(60)
        following = pair.proxy.hold_on(pattern)
        hold.release()
        hold = following
        hold.wait(60)
    return since, hold


def held_at_the_answer(pair: Pair, service: SickService) -> tuple[float, Hold]:
    """As above, and held on the way back: it is done and the first replica does not know."""
    hold = pair.proxy.hold_answer_on(b"HTTP/1.1 204")
    return _taken_by_first(pair, service), hold.wait(60)


def _taken_by_first(pair: Pair, service: SickService) -> float:
    service.sicken()
    service.begin()
    pair.second.process.freeze()
    since = time.time()
    assert pair.first.post(service.name)
    return since


@pytest.mark.timeout(300)
@pytest.mark.parametrize("thaw_first", [False, True], ids=["call-first", "thaw-first"])
@pytest.mark.parametrize("held", [held_before_the_call, held_at_the_call, held_at_the_answer])
def test_frozen_between_intent_and_answer(
    pair: Pair, services: list[SickService], held: object, thaw_first: bool
) -> None:
    """Frozen with an effect under way, taken over, thawed when the other is through: one effect, both go on."""
    service = services[0]
    assert callable(held)
    since, hold = held(pair, service)
    pair.first.process.freeze()
    pair.second.process.thaw()
    pair.second.wait_rest(since, 90)
    assert service.effects == 1, pair.second.story()
    for step in (pair.first.process.thaw, hold.release) if thaw_first else (hold.release, pair.first.process.thaw):
        step()
    end = time.monotonic() + 2 * DEADLINE
    wait_until(lambda: time.monotonic() > end or service.effects > 1, "a while to pass", 4 * DEADLINE, 0.2)
    assert service.effects == 1, pair.second.story()
    # The one that was frozen works again, and nothing is left in doubt.
    service.sicken()
    service.begin()
    again = time.time()
    assert pair.first.post(service.name)
    pair.first.wait_rest(again, 60)
    assert service.effects == 1, pair.first.story()
    assert pair.first.ask("doubts")["doubts"] == []
