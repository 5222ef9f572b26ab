"""What a restart touches is a subset of what its preview listed, whatever happens in between, and the rest is said.

Real engine, real gate, real servers; restarts are counted by Docker's events. Cancelling and terminating queries are
held to the same in test_random_sessions.py, by PostgreSQL's log.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

import aiohttp
import pytest

from remediator.actions.base import Outcome, Preview, Result
from remediator.actions.restart_replica import RestartReplica
from remediator.actions.restart_service import RestartService
from tests.integration import test_restart_replica as replicas
from tests.integration import test_restart_service as services
from tests.integration.adapting import CLOCK
from tests.integration.test_restart_replica import primary  # noqa: F401 - a fixture
from tests.support.docker_engine import DockerEngine, ServiceContainer
from tests.support.replica_container import ReplicaContainer, network
from tests.support.servers import PostgresServer, Run

SEED = 20261128
ROUNDS = 12


def agree(found: Preview, outcome: Outcome, restarted: set[str]) -> None:
    """By the engine's events: restarted = touched, a subset of the preview; a difference has a sentence."""
    listed = {item["container"] for item in found.items}
    touched = {item["container"] for item in outcome.touched}
    assert restarted == touched <= listed, f"listed {listed}, touched {touched}, restarted {restarted}"
    assert (outcome.result is Result.DONE) == bool(touched), outcome
    if touched != listed:
        assert "othing was sent: " in outcome.detail, outcome


def _remove(container: ServiceContainer) -> None:
    container.remove()


def _recreate(container: ServiceContainer) -> None:
    container.remove()
    container.engine.service_container(
        container.name.rsplit(f"-{services.SERVICE}", 1)[0], services.SERVICE, labels=services.OPTED_IN, stop_timeout=1
    )


MEANWHILE: dict[str, Callable[[ServiceContainer], object]] = {
    "nothing": lambda container: None,
    "restarted": lambda container: container.container.restart(timeout=1),
    "stopped": lambda container: container.container.stop(timeout=1),
    "paused": lambda container: container.container.pause(),
    "removed": _remove,
    "recreated": _recreate,
}


@pytest.mark.timeout(300)
async def test_a_service(run: Run, docker_engine: DockerEngine, tmp_path: services.Path) -> None:
    """Somebody restarts, stops, pauses, removes or recreates the container between look and action, or nobody does."""
    dice, seen = random.Random(SEED), Counter[str]()
    order = [*MEANWHILE, *dice.choices(list(MEANWHILE), k=ROUNDS - len(MEANWHILE))]
    dice.shuffle(order)
    for what in order:
        platform = services.Platform(run, docker_engine, tmp_path)
        with platform.gate:
            async with aiohttp.ClientSession() as session:
                one, neighbour = platform.container(), platform.container("payments")
                action = RestartService(platform.settings(), session, CLOCK)
                found = await services.preview(action)
                MEANWHILE[what](one)
                began = time.time()
                outcome = await action.execute(services.call(action, found))
                events = docker_engine.events(began, type="container", action="restart")
        ours = {event["Actor"]["Attributes"]["name"] for event in events}
        agree(found, outcome, {name for name in ours if name.startswith(platform.project)})
        assert neighbour.name not in ours
        assert bool(outcome.touched) == (what == "nothing"), f"{what}: {outcome}"
        seen[what] += 1
        docker_engine.remove_all(platform.project)
    assert set(seen) == set(MEANWHILE)


def _thaw(replica: ReplicaContainer) -> None:
    replica.container.exec("kill", "-CONT", replica.value("select pid from pg_stat_wal_receiver"))


def _heals(replica: ReplicaContainer) -> None:
    _thaw(replica)
    replica.wait_streaming()
    time.sleep(0.5)


def _promoted(replica: ReplicaContainer) -> None:
    _thaw(replica)
    replica.promote()


def _restarted(replica: ReplicaContainer) -> None:
    replica.container.container.restart(timeout=1)
    replica.wait_ready()


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda replica: None,
        _heals,
        _promoted,
        _restarted,
        lambda replica: replica.container.container.kill(),
        lambda replica: replica.sql("select pg_wal_replay_pause()"),
    ],
    ids=["nothing", "heals", "promoted", "restarted", "killed", "paused"],
)
async def test_a_replica(
    run: Run,
    docker_engine: DockerEngine,
    primary: PostgresServer,  # noqa: F811
    tmp_path: services.Path,
    meanwhile: Callable[[ReplicaContainer], object],
    request: pytest.FixtureRequest,
) -> None:
    """The same of a replica, with what may happen to a server besides."""
    folder = tmp_path / docker_engine.project()
    folder.mkdir()
    with network(docker_engine, folder.name) as gateway:
        platform = replicas.Platform(run, docker_engine, primary, gateway, folder)
        replica = platform.replica()
        replica.wait_streaming()
        replica.hang_receiver()
        with platform.gate:
            async with aiohttp.ClientSession() as session:
                action = RestartReplica(platform.settings(replica), session, CLOCK)
                found = await replicas.preview(action)
                assert [item["container"] for item in found.items] == [replica.container.name]
                meanwhile(replica)
                began = time.time()
                outcome = await action.execute(replicas.call(action, found))
                agree(found, outcome, {replica.container.name} if replica.container.restarts(began) else set())
    assert bool(outcome.touched) == request.node.callspec.id.startswith("nothing")
