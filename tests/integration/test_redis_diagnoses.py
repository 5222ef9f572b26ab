"""Evidence of a real Redis: what fills it and who holds it, without a key's name, a value or a secret; bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from remediator import redis_diagnoses
from remediator.diagnosis import Diagnoses
from remediator.errors import Permanent
from tests.integration.redis_parts import PASSWORD, SERVICE, USER, Client, clients, give_rights, redis_settings
from tests.support.servers import RedisServer, Run

CANARIES = ("ana@example.com", "4111111111111111", "s3cret-value", PASSWORD)


@pytest.fixture
def server(run: Run) -> Iterator[RedisServer]:
    server = RedisServer(run, options=["--maxmemory", "100mb"], name="diagnosed").start()
    give_rights(server)
    yield server
    server.stop()


async def test_the_evidence_of_an_episode(server: RedisServer, tmp_path: Path) -> None:
    """All three, written and redacted: state, who holds how many connections, sizes by prefix."""
    server.command("SET", "session:ana@example.com", "s3cret-value")
    server.command("SET", "4111111111111111", "s3cret-value")
    server.command("SET", "report:2026", "x" * (2 * 1024 * 1024))
    with clients() as held:
        held += [Client(server.port, "leaky") for _ in range(4)]
        held[0].say("GET", "session:ana@example.com")
        async with aiohttp.ClientSession() as session:
            diagnoses = Diagnoses(redis_settings(tmp_path, server.port), session)
            evidence = await diagnoses.run(
                "episode", ["redis_info", "redis_clients", "redis_keys"], {"service": SERVICE}
            )
    assert evidence.complete, evidence.summary
    texts = {file.name: file.read_text() for file in Path(evidence.path).iterdir()}
    everything = "\n".join([*texts.values(), *evidence.summary.values()])
    assert not [canary for canary in CANARIES if canary in everything]
    assert "state: ready" in texts["redis_info.txt"]
    assert "a restart would lose: 3 keys" in texts["redis_info.txt"]
    assert '"source": "leaky from 127.0.0.1", "user": "default", "connections": 4' in texts["redis_clients.txt"]
    assert '{"size": "1 MiB and more", "keys": 1' in texts["redis_keys.txt"]
    assert '{"pattern": "session:*", "keys": 1' in texts["redis_keys.txt"]
    assert evidence.summary["redis_keys"].startswith(
        "3 of 3 keys measured, 1 of 1 MiB and more, most bytes under report"
    )
    assert "leaky from 127.0.0.1: 4" in evidence.summary["redis_clients"]


async def test_a_large_keyspace_is_only_sampled(server: RedisServer, tmp_path: Path) -> None:
    """A hundred thousand keys cost a thousand questions, and some milliseconds of Redis' time."""
    server.command("EVAL", "for i = 1, 100000 do redis.call('SET', 'key:' .. i, i) end", 0)
    server.command("CONFIG", "RESETSTAT")
    _, sentence = await redis_diagnoses.keys(redis_settings(tmp_path, server.port).redis[SERVICE])
    assert sentence.endswith("of 100000 keys measured, 0 of 1 MiB and more, most bytes under key:*")
    stats: object = server.command("INFO", "commandstats")
    assert isinstance(stats, dict)
    assert stats["cmdstat_memory|usage"]["calls"] <= redis_diagnoses.SAMPLE + redis_diagnoses.PAGE


async def test_a_missing_right_is_told(server: RedisServer, tmp_path: Path) -> None:
    """Evidence that may not be read is missing, and says why: never half of it as if it were all."""
    server.command("SET", "key", "value")
    server.command("ACL", "SETUSER", USER, "-memory", "-client")
    redis = redis_settings(tmp_path, server.port).redis[SERVICE]
    with pytest.raises(Permanent, match="NOPERM"):
        await redis_diagnoses.keys(redis)
    with pytest.raises(Permanent, match="NOPERM"):
        await redis_diagnoses.clients(redis)
