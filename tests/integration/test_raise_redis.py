"""Raising maxmemory on a real Redis in a container: one step, under every bound, and never over somebody else's value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from remediator.actions.base import Call, Preview, Result, Settlement
from remediator.actions.raise_redis_maxmemory import MEMINFO, RaiseRedisMaxmemory
from remediator.reasons import Reason
from tests.integration.adapting import CLOCK, call_of
from tests.integration.redis_container import RedisPlatform, redis_platform
from tests.integration.redis_parts import SERVICE, preview, reasons
from tests.support.docker_engine import DockerEngine
from tests.support.redis_container import redis_image
from tests.support.servers import Run

MIB = 1024 * 1024
CAP = {"maxmemory_cap": 500 * MIB}


@pytest.fixture(scope="module")
def platform(
    run: Run, docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisPlatform]:
    """One Redis for all tests, its container limited to 128 MiB: 60 % are 76.8 MiB."""
    image = redis_image(docker_engine)
    with redis_platform(run, docker_engine, image, tmp_path_factory.mktemp("raise")) as made:
        made.start()
        yield made
    docker_engine.client.images.remove(image, force=True)


@pytest.fixture(autouse=True)
def emptied(platform: RedisPlatform) -> None:
    platform.server.command("CONFIG", "SET", "maxmemory", str(40 * MIB), "maxmemory-policy", "noeviction")
    platform.server.flush()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def call(action: RaiseRedisMaxmemory, found: Preview, **params: Any) -> Call:
    return call_of(action, found, {"service": SERVICE, **params}, attempt=uuid4().hex)


def maxmemory(platform: RedisPlatform) -> int:
    info: Any = platform.server.command("INFO", "memory")
    return int(info["maxmemory"])


def meminfo(folder: Path, free: int) -> Path:
    """The machine's own, with so many bytes free."""
    total = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemTotal:"))
    file = folder / "meminfo"
    file.write_text(f"{total}\nMemAvailable:   {free // 1024} kB\n")
    return file


async def test_it_is_raised_and_the_way_back_is_told(platform: RedisPlatform, session: aiohttp.ClientSession) -> None:
    """By a quarter, as Redis itself says; the outcome has what it was, and the same attempt does nothing more."""
    action = RaiseRedisMaxmemory(platform.settings(**CAP), session, CLOCK)
    found = await preview(action)
    assert found.resource == f"docker:{platform.project}/{SERVICE}"
    made = call(action, found)
    outcome = await action.execute(made)
    assert (outcome.result, outcome.touched) == (Result.DONE, found.items), outcome.detail
    assert maxmemory(platform) == 50 * MIB
    assert f"CONFIG SET maxmemory {40 * MIB}" in outcome.detail
    assert (await action.settle(made)).settlement is Settlement.DONE
    platform.server.command("CONFIG", "SET", "maxmemory", str(40 * MIB))
    again = await action.execute(made)
    assert (again.result, "repeated" in again.detail) == (Result.IN_DOUBT, True)
    assert maxmemory(platform) == 40 * MIB


async def test_the_least_of_all_bounds_holds(
    platform: RedisPlatform, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The settings' cap, 60 % of the container's limit, half of what the host has free: whichever is least."""
    config = platform.settings(**CAP)
    found = await preview(RaiseRedisMaxmemory(config, session, CLOCK), factor=2.0)
    assert found.items[0]["to"] == int(128 * MIB * 0.6)
    small = platform.settings(maxmemory_cap=44 * MIB)
    assert (await preview(RaiseRedisMaxmemory(small, session, CLOCK), factor=2.0)).items[0]["to"] == 44 * MIB
    tight = RaiseRedisMaxmemory(config, session, CLOCK, meminfo(tmp_path, 90 * MIB))
    found = await preview(tight, factor=2.0)
    assert 45 * MIB < found.items[0]["to"] < 48 * MIB  # what it uses (about 1 MiB) and half of 90 MiB
    platform.server.command("CONFIG", "SET", "maxmemory", str(int(128 * MIB * 0.6)))
    assert reasons(await preview(RaiseRedisMaxmemory(config, session, CLOCK))) == [Reason.REDIS_AT_CAP]


async def test_what_is_not_known_is_refused(
    platform: RedisPlatform, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """No cap in the settings, a Redis on another machine, no memory file, no limit at all: nothing is raised."""
    assert reasons(await preview(RaiseRedisMaxmemory(platform.settings(), session, CLOCK))) == [Reason.REDIS_AT_CAP]
    config = platform.settings(**CAP)
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 900 kB\n")
    for file in (tmp_path / "meminfo", tmp_path / "nothing"):
        elsewhere = RaiseRedisMaxmemory(config, session, CLOCK, file)
        assert reasons(await preview(elsewhere)) == [Reason.REDIS_AT_CAP]
    platform.server.command("CONFIG", "SET", "maxmemory", "0")
    assert reasons(await preview(RaiseRedisMaxmemory(config, session, CLOCK))) == [Reason.NOTHING_TO_DO]


async def test_a_changed_value_is_not_overwritten(platform: RedisPlatform, session: aiohttp.ClientSession) -> None:
    """Somebody set it meanwhile: Redis compares in the guard's script, their value stays, and it is no doubt."""
    action = RaiseRedisMaxmemory(platform.settings(**CAP), session, CLOCK)
    found = await preview(action)
    platform.server.command("CONFIG", "SET", "maxmemory", str(41 * MIB))
    outcome = await action.execute(call(action, found))
    assert (outcome.result, "by now" in outcome.detail) == (Result.FAILED, True), outcome.detail
    assert maxmemory(platform) == 41 * MIB


async def test_room_that_is_gone_by_then_is_not_taken(
    platform: RedisPlatform, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The host's memory was taken between look and effect: nothing is sent."""
    action = RaiseRedisMaxmemory(platform.settings(**CAP), session, CLOCK, meminfo(tmp_path, 400 * MIB))
    found = await preview(action)
    meminfo(tmp_path, 10 * MIB)
    assert (await action.execute(call(action, found))).result is Result.FAILED
    assert maxmemory(platform) == 40 * MIB


async def test_a_full_redis_can_be_raised(platform: RedisPlatform, session: aiohttp.ClientSession) -> None:
    """Full, and evicting nothing: each write is refused. The guard's own marks must be taken all the same."""
    platform.server.command("CONFIG", "SET", "maxmemory", str(4 * MIB))
    with pytest.raises(redis.ResponseError, match=r"used memory > .maxmemory."):
        for number in range(100):
            platform.server.command("SET", f"key:{number}", "x" * 100_000)
    action = RaiseRedisMaxmemory(platform.settings(**CAP), session, CLOCK)
    found = await preview(action, factor=2.0)
    outcome = await action.execute(call(action, found, factor=2.0))
    assert outcome.result is Result.DONE, outcome.detail
    platform.server.command("SET", "key:more", "x" * 100_000)


@given(
    before=st.integers(10, 90),
    cap=st.integers(1, 120),
    factor=st.floats(1.01, 2.0),
    meanwhile=st.one_of(st.none(), st.integers(10, 90)),
)
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_never_over_the_preview_nor_the_cap(
    platform: RedisPlatform, before: int, cap: int, factor: float, meanwhile: int | None
) -> None:
    """Any value, cap and step, changed meanwhile or not: Redis has exactly the preview's value, or what it had."""

    async def once() -> None:
        platform.server.command("CONFIG", "SET", "maxmemory", str(before * MIB))
        async with aiohttp.ClientSession() as session:
            action = RaiseRedisMaxmemory(platform.settings(maxmemory_cap=cap * MIB), session, CLOCK)
            found = await preview(action, factor=factor)
            if not found.items:
                assert reasons(found) == [Reason.REDIS_AT_CAP]
                assert before * MIB >= min(cap * MIB, int(128 * MIB * 0.6))
                return
            if meanwhile is not None:
                platform.server.command("CONFIG", "SET", "maxmemory", str(meanwhile * MIB))
            outcome = await action.execute(call(action, found, factor=factor))
            now = maxmemory(platform)
            if meanwhile is not None and meanwhile != before:
                assert (outcome.result, now) == (Result.FAILED, meanwhile * MIB)
            else:
                assert (outcome.result, now) == (Result.DONE, found.items[0]["to"])
                assert before * MIB < now <= min(cap * MIB, int(128 * MIB * 0.6))

    asyncio.run(once())
