"""kill -9 in the middle of an effect: the call is on its way, its answer is, or both are lost. Never two effects.

What was done is counted at the target. A kill at every boundary of the process is in test_boundaries.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults.chains import REST, Chain, chain
from tests.faults.targets import Reader
from tests.support.docker_engine import DockerEngine
from tests.support.remediation import DEADLINE, START_WITHIN, World
from tests.support.servers import Run, wait_until
from tests.support.tcp_proxy import Hold, TcpProxy

ACTIONS = ("restart", "cancel")


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, ["web"]) as world:
        yield world


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
    if request.param == "restart":
        ours = chain(world, ["web"], gate_url=proxy.url)
    else:
        ours = chain(world, readers=["db"], database_port=proxy.port)
    if isinstance(ours.target, Reader):
        proxy.upstream = ours.target.server.port
        # Of all that is sent, only the effect has the server's own id as a parameter.
        made = Middle(ours, proxy, ours.target.server.system_identifier.encode(), b"SELECT 1\x00")
    else:
        made = Middle(ours, proxy, b"POST /v1.41/containers", b"HTTP/1.1 204")
    ours.start()
    yield made
    proxy.reset()
    ours.close()


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
    judged = chain.judge(since)
    assert not judged.wrong, "\n".join(judged.wrong)
    return judged.effects[0], [
        name for row in chain.remediator.episodes(since) for name in chain.world.people(row["id"])
    ]


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
