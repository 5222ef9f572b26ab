"""PostgreSQL, replication and Redis in one exporter, from the configuration to the page."""

from __future__ import annotations

import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from exporter.build import build
from exporter.exposition import render
from exporter.negotiation import negotiate
from exporter.samples import Result
from exporter.scrape import ScrapeEngine, self_samples
from exporter.settings import parse
from tests.integration.exporter_parts import ROLE, platform, postgres_settings, values
from tests.support.servers import PostgresServer, RedisServer, Run, program

STORES = ("postgres", "replication", "redis")


@pytest.fixture(scope="module")
def own_redis(run: Run) -> Iterator[RedisServer]:
    """A Redis that these tests may freeze."""
    server = RedisServer(run, name="of-stores").start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def own_postgres(run: Run) -> Iterator[PostgresServer]:
    """A PostgreSQL that these tests may freeze."""
    server = PostgresServer(run, name="of-stores").start()
    yield server
    server.stop()


@pytest.fixture
async def engine(own_postgres: PostgresServer, own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[ScrapeEngine]:
    database = platform(own_postgres)
    server = postgres_settings(database, tmp_path / "secret")
    address = {"host": server.host, "port": server.port, "database": server.database}
    login = {"user": ROLE, "password_file": str(server.password_file)}
    collectors = {
        "postgres": {"servers": {"postgres": {**address, **login}}},
        "replication": {"replicas": {"absent-replica": {}}, "slots": ["absent"], "heartbeat": {}},
        "redis": {"servers": {"redis": {"host": "127.0.0.1", "port": own_redis.port, "sessions": {"database": 1}}}},
    }
    async with build(parse(yaml.safe_dump({"collectors": collectors}), "exporter.yml")) as engine:
        yield engine
    database.drop()


def well(results: tuple[Result, ...]) -> dict[str, bool]:
    return {result.collector: result.success for result in results}


async def test_page_of_all_stores(engine: ScrapeEngine) -> None:
    """All three are well over one scrape, and promtool has nothing to object to the page."""
    results = await engine.scrape(5.0)
    assert well(results) == dict.fromkeys(STORES, True)
    samples = [sample for result in results for sample in result.samples]
    found = values(samples)
    assert found["replication_streaming", "absent-replica", "primary"] == 0
    assert found["redis_sessions", "redis"] == 0
    text = render([*samples, *self_samples(results)], negotiate(""), zipped=False)
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("ill", ["postgres", "redis"])
async def test_frozen_store_takes_nothing_from_the_other(
    engine: ScrapeEngine, own_postgres: PostgresServer, own_redis: RedisServer, ill: str
) -> None:
    """Inside the budget the other one's samples, success 0 for the ill one, none of its old values; then all well."""
    await engine.scrape(5.0)
    with (own_postgres if ill == "postgres" else own_redis).frozen():
        began = time.monotonic()
        results = await engine.scrape(0.8)
        assert time.monotonic() - began < 0.9
    assert well(results) == {name: (name == "redis") != (ill == "redis") for name in STORES}
    found = values(sample for result in results for sample in result.samples)
    assert found[f"{ill}_up", ill] == 0
    assert ("redis_clients" in {key[0] for key in found}) == (ill != "redis")
    assert ("postgres_connections" in {key[0] for key in found}) == (ill != "postgres")
    assert ("replication_streaming" in {key[0] for key in found}) == (ill != "postgres")
    end = time.monotonic() + 10
    while not all(well(await engine.scrape(2.0)).values()):
        assert time.monotonic() < end
