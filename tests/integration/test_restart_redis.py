"""Restarting a real Redis in a container: never what would be lost without a person, never what a restart cannot mend."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from remediator.actions.base import Action, Call, Preview, Result
from remediator.actions.restart_redis import RestartRedis
from remediator.actions.restart_service import RestartService
from remediator.reasons import Reason
from tests.integration.adapting import CLOCK, call_of
from tests.integration.redis_container import RedisPlatform, redis_platform
from tests.integration.redis_parts import SERVICE, Client, preview, reasons
from tests.support.docker_engine import DockerEngine
from tests.support.redis_container import redis_image
from tests.support.servers import RedisServer, Run, wait_until

AOF = ("--appendonly", "yes", "--enable-debug-command", "yes")


@pytest.fixture(scope="module")
def image(docker_engine: DockerEngine) -> Iterator[str]:
    made = redis_image(docker_engine)
    yield made
    docker_engine.client.images.remove(made, force=True)


@pytest.fixture
def platform(run: Run, docker_engine: DockerEngine, image: str, tmp_path: Path) -> Iterator[RedisPlatform]:
    with redis_platform(run, docker_engine, image, tmp_path) as made:
        yield made


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def call(action: Action, found: Preview) -> Call:
    return call_of(action, found, {"service": SERVICE}, attempt=uuid4().hex)


async def test_what_is_saved_is_restarted_and_still_there(
    platform: RedisPlatform, session: aiohttp.ClientSession
) -> None:
    """With the append-only file nothing is lost and nobody is asked: one restart, by Docker's word, and every key."""
    container = platform.start(*AOF)
    platform.server.command("MSET", "session:1", "ana", "session:2", "ben")
    action = RestartRedis(platform.settings(), session, CLOCK)
    began, before = time.time(), container.started_at
    found = await preview(action)
    assert (found.refusals, found.asks) == ((), "")
    assert found.resource == f"docker:{platform.project}/{SERVICE}"
    outcome = await action.execute(call(action, found))
    assert (outcome.result, outcome.touched) == (Result.DONE, found.items), outcome.detail
    platform.wait()
    assert container.started_at > before
    assert container.restarts(began) == 1
    assert platform.server.command("DBSIZE") == 2


async def test_what_it_would_lose_needs_a_person(platform: RedisPlatform, session: aiohttp.ClientSession) -> None:
    """Sessions without persistence: it asks, with their number; `cache_only` is said aloud, an empty one loses none."""
    platform.start()
    sessions = {"count": "dbsize"}
    action = RestartRedis(platform.settings(sessions=sessions), session, CLOCK)
    assert (await preview(action)).asks == ""
    platform.server.command("MSET", "session:1", "ana", "session:2", "ben")
    found = await preview(action)
    assert found.refusals == ()
    assert "2 sessions in 2 keys" in found.asks
    assert found.asks in found.summary
    cache = RestartRedis(platform.settings(cache_only=True), session, CLOCK)
    assert (await preview(cache)).asks == ""


async def test_what_came_after_the_look_is_not_lost(platform: RedisPlatform, session: aiohttp.ClientSession) -> None:
    """Empty at the look, and then somebody logs in: it is not restarted, for nobody agreed to that."""
    container = platform.start()
    action = RestartRedis(platform.settings(), session, CLOCK)
    found = await preview(action)
    platform.server.command("SET", "session:1", "ana")
    began = time.time()
    outcome = await action.execute(call(action, found))
    assert (outcome.result, "come to lose 1 keys" in outcome.detail) == (Result.FAILED, True), outcome.detail
    assert container.restarts(began) == 0


async def test_a_silent_redis_needs_a_person(platform: RedisPlatform, session: aiohttp.ClientSession) -> None:
    """Frozen: what it would lose nobody knows. A person agrees, and it is restarted; `cache_only` needs none."""
    container = platform.start(*AOF)
    container.container.pause()  # type: ignore[no-untyped-call] # docker has no types for it
    frozen = RestartRedis(platform.settings(timeout="300ms"), session, CLOCK)
    assert Reason.TARGET_NOT_RUNNING in reasons(await preview(frozen))
    container.container.unpause()  # type: ignore[no-untyped-call] # as above
    platform.server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    # A server that sleeps in one command answers nobody, as one that hangs.
    sleeping = _sleep(platform.server, 5)
    try:
        found = await preview(frozen)
        assert "nobody knows" in found.asks
        assert found.refusals == ()
        cache = RestartRedis(platform.settings(timeout="300ms", cache_only=True), session, CLOCK)
        assert (await preview(cache)).asks == ""
        outcome = await frozen.execute(call(frozen, found))
        assert outcome.result is Result.DONE, outcome.detail
    finally:
        sleeping.close()
    platform.wait()


async def test_replicas_are_not_emptied(platform: RedisPlatform, session: aiohttp.ClientSession, run: Run) -> None:
    """Another Redis follows it: what it loses that one would lose too, so it is refused by name."""
    platform.start(*AOF)
    replica = RedisServer(run, options=["--replicaof", f"127.0.0.1 {platform.server.port}"], name="replica").start()
    try:
        wait_until(lambda: _replicas(platform.server) == 1, "the replica to follow", 15)
        action = RestartRedis(platform.settings(), session, CLOCK)
        assert Reason.REDIS_ROLE in reasons(await preview(action))
    finally:
        replica.stop()


async def test_no_other_action_restarts_a_redis(platform: RedisPlatform, session: aiohttp.ClientSession) -> None:
    """restart_service does not know what would be lost, and refuses; restart_redis only what is listed as a Redis."""
    container = platform.start(*AOF)
    config = platform.settings()
    found = await RestartService(config, session, CLOCK).preview(RestartService.params_model(service=SERVICE))
    assert reasons(found) == [Reason.TARGET_NOT_ALLOWED]
    assert RestartService.obstacles(config, SERVICE)
    assert RestartRedis.obstacles(config, SERVICE) == ()
    bare = config.model_copy(update={"redis": {}})
    found = await preview(RestartRedis(bare, session, CLOCK))
    assert (found.items, reasons(found)) == ((), [Reason.TARGET_NOT_ALLOWED])
    young = RestartRedis(platform.settings(young="10m"), session, CLOCK)
    assert reasons(await preview(young)) == [Reason.TARGET_YOUNG]
    assert container.status == "running"


async def test_late_is_refused_by_the_gate(platform: RedisPlatform, session: aiohttp.ClientSession) -> None:
    """`start_by` is over by the gate's clock: not restarted."""
    container = platform.start(*AOF)
    action = RestartRedis(platform.settings(), session, CLOCK)
    found = await preview(action)
    began = time.time()
    outcome = await action.execute(replace(call(action, found), start_by=found.target_now - 1.0))
    assert outcome.result is Result.FAILED
    assert container.restarts(began) == 0


def _sleep(server: RedisServer, seconds: int) -> Client:
    client = Client(server.port)
    client.say("DEBUG", "SLEEP", str(seconds), answered=False)
    time.sleep(0.1)
    return client


def _replicas(server: RedisServer) -> int:
    info: object = server.command("INFO", "replication")
    assert isinstance(info, dict)
    return int(info["connected_slaves"])
