"""The collector `redis` on real servers, well and ill: honest numbers, one kept connection, back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from exporter.collector_settings import RedisServer as RedisSettings
from exporter.collectors.redis import RedisCollector
from exporter.redis_session import CLIENT_NAME
from exporter.samples import Collected
from tests.integration.exporter_parts import in_seconds, shown, values
from tests.support.servers import RedisServer, Run, TcpProxy, free_port, wait_until

UP = ("redis_up", "redis")
PASSWORD = "secret of\\the exporter"
DOWN = {UP: 0.0}
BUDGET = 0.8


def collector_for(port: int, **changes: object) -> RedisCollector:
    settings = RedisSettings.model_validate({"host": "127.0.0.1", "port": port, **changes})
    return RedisCollector({"redis": settings})


@pytest.fixture
async def collector(redis: RedisServer) -> AsyncIterator[RedisCollector]:
    collector = collector_for(redis.port)
    yield collector
    await collector.close()


@pytest.fixture(scope="module")
def ill_server(run: Run) -> Iterator[RedisServer]:
    """A server that these tests may freeze, fill and restart; each leaves it well."""
    options = ["--save", "900", "1", "--enable-debug-command", "yes", "--busy-reply-threshold", "50"]
    server = RedisServer(run, options=[*options, "--loading-process-events-interval-bytes", "1024"], name="ill").start()
    yield server
    server.stop()


def connections_of_ours(server: RedisServer) -> list[str]:
    listed = server.command("CLIENT", "LIST")
    assert isinstance(listed, bytes)
    return [line.split()[0] for line in listed.decode().splitlines() if f"name={CLIENT_NAME}" in line]


async def timed(collector: RedisCollector, budget: float = BUDGET) -> tuple[float, Collected]:
    began = time.monotonic()
    collected = await collector.collect(in_seconds(budget))
    return time.monotonic() - began, collected


async def back_to_health(collector: RedisCollector, within: float = 10.0) -> None:
    """Scrape until all is well again, as Prometheus does."""
    end = time.monotonic() + within
    while (collected := await collector.collect(in_seconds(2))).fault is not None:
        assert time.monotonic() < end, collected.fault
        await asyncio.sleep(0.1)
    assert values(collected.samples)[UP] == 1


def states(found: dict[tuple[str, ...], float]) -> list[str]:
    return [key[2] for key, value in found.items() if key[0] == "redis_state" and value == 1]


async def test_core_of_a_healthy_server(collector: RedisCollector, redis: RedisServer) -> None:
    """Every number is the server's own, of now."""
    redis.command("SET", "plain", "x")
    redis.command("SET", "fleeting", "x", "EX", 1000)
    redis.command("CONFIG", "SET", "maxmemory", "64mb")
    redis.command("GET", "plain")
    redis.command("GET", "absent")
    found = dict(shown(await collector.collect(in_seconds(5))))
    redis.command("CONFIG", "SET", "maxmemory", "0")
    assert found[UP] == 1
    assert states(found) == ["ready"]
    assert 0 < found["redis_ping_seconds", "redis"] < 1
    assert 500_000 < found["redis_memory_used_bytes", "redis"] < 64 * 1024**2
    assert found["redis_memory_max_bytes", "redis"] == 64 * 1024**2
    assert found["redis_memory_limited", "redis"] == 1
    assert found["redis_clients", "redis"] >= 1
    assert found["redis_clients_max", "redis"] > 100
    assert (found["redis_keys", "redis"], found["redis_expiring_keys", "redis"]) == (2, 1)
    assert found["redis_lookups_total", "redis", "hit"] >= 1
    assert found["redis_lookups_total", "redis", "miss"] >= 1
    assert found["redis_rdb_unsaved_changes", "redis"] >= 2
    assert time.time() - 86400 < found["redis_rdb_last_save_timestamp_seconds", "redis"] <= time.time() + 1
    assert found["redis_rdb_last_save_successful", "redis"] == found["redis_aof_last_write_successful", "redis"] == 1
    assert found["redis_aof_enabled", "redis"] == 0
    assert ("redis_sessions", "redis") not in found


async def test_without_a_limit_the_machine_is_the_limit(collector: RedisCollector) -> None:
    """maxmemory 0: the maximum is a number that a share can be taken of, and that there is no limit is told."""
    found = shown(await collector.collect(in_seconds(5)))
    assert found["redis_memory_limited", "redis"] == 0
    assert found["redis_memory_max_bytes", "redis"] > found["redis_memory_used_bytes", "redis"]


async def test_one_connection_is_kept_over_many_scrapes(collector: RedisCollector, redis: RedisServer) -> None:
    """Scrape after scrape it is the same connection, and there is no second one."""
    shown(await collector.collect(in_seconds(5)))
    kept = connections_of_ours(redis)
    assert len(kept) == 1
    for _ in range(3):
        shown(await collector.collect(in_seconds(5)))
        assert connections_of_ours(redis) == kept


async def test_old_connection_is_replaced(redis: RedisServer) -> None:
    """A connection older than its age is closed and opened anew, so that a moved name is followed."""
    collector = collector_for(redis.port, session_age="50ms")
    shown(await collector.collect(in_seconds(5)))
    first = connections_of_ours(redis)
    await asyncio.sleep(0.1)
    shown(await collector.collect(in_seconds(5)))
    wait_until(lambda: len(connections_of_ours(redis)) == 1, "one connection", 5)
    assert connections_of_ours(redis) != first
    await collector.close()


async def test_connection_that_the_server_closed_costs_no_scrape(collector: RedisCollector, redis: RedisServer) -> None:
    """Redis' own `timeout` closes idle clients: the next scrape opens a new connection and is well."""
    shown(await collector.collect(in_seconds(5)))
    redis.command("CLIENT", "KILL", "ID", connections_of_ours(redis)[0].removeprefix("id="))
    await asyncio.sleep(0.05)
    assert shown(await collector.collect(in_seconds(5)))[UP] == 1


@pytest.mark.parametrize(
    ("fill", "sessions"),
    [
        (("SADD", "live", "a", "b", "c"), {"count": "scard", "key": "live"}),
        (("ZADD", "live", 1, "a", 2, "b", 3, "c"), {"count": "zcard", "key": "live"}),
        (("HSET", "live", "a", 1, "b", 1, "c", 1), {"count": "hlen", "key": "live"}),
        (("MSET", "s:a", 1, "s:b", 1, "s:c", 1), {"count": "dbsize"}),
    ],
    ids=lambda value: value["count"] if isinstance(value, dict) else "",
)
async def test_least_rights_are_enough_for_the_sessions(
    redis: RedisServer, tmp_path: Path, fill: tuple[str | int, ...], sessions: dict[str, str]
) -> None:
    """The store's size by one command, by an ACL user with the rights that the page lists; nothing is refused to it."""
    redis.command(*fill)
    count = sessions["count"]
    keys = ["~live"] if "key" in sessions else []
    rights = ["+ping", "+info", "+client|setname", f"+{count}", *keys]
    redis.command("ACL", "SETUSER", "prep_exporter", "reset", "on", f">{PASSWORD}", *rights)
    redis.command("ACL", "LOG", "RESET")
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    collector = collector_for(
        redis.port, user="prep_exporter", password_file=str(tmp_path / "secret"), sessions=sessions
    )
    found = shown(await collector.collect(in_seconds(5)))
    await collector.close()
    assert found["redis_sessions", "redis"] == 3
    assert redis.command("ACL", "LOG") == []
    redis.command("ACL", "DELUSER", "prep_exporter")


async def test_sessions_of_another_database(redis: RedisServer) -> None:
    """A database of its own is counted apart from the others."""
    redis.command("SET", "elsewhere", 1)
    collector = collector_for(redis.port, sessions={"database": 3})
    assert shown(await collector.collect(in_seconds(5)))["redis_sessions", "redis"] == 0
    await collector.close()


async def test_sessions_that_cannot_be_counted_take_nothing_else(redis: RedisServer) -> None:
    """A key of another type: that part is missing and told, all others are there."""
    redis.command("SET", "live", "text")
    collector = collector_for(redis.port, sessions={"count": "scard", "key": "live"})
    collected = await collector.collect(in_seconds(5))
    await collector.close()
    assert collected.fault is not None
    assert "count sessions" in collected.fault
    assert ("redis_sessions", "redis") not in values(collected.samples)
    assert values(collected.samples)["redis_keys", "redis"] == 1


async def test_wrong_password_and_missing_right(redis: RedisServer, tmp_path: Path) -> None:
    """Nobody can log in with it: up 0, and the secret is in no message; a rotated one is read anew."""
    redis.command("ACL", "SETUSER", "prep_exporter", "reset", "on", f">{PASSWORD}", "+ping", "+client|setname")
    secret = tmp_path / "secret"
    secret.write_text("wrong-password")
    collector = collector_for(redis.port, user="prep_exporter", password_file=str(secret))
    refused = await collector.collect(in_seconds(5))
    assert values(refused.samples) == DOWN
    assert "WRONGPASS" in str(refused.fault) or "AuthenticationError" in str(refused.fault)
    assert "wrong-password" not in str(refused.fault)
    secret.write_text(PASSWORD)
    limited = await collector.collect(in_seconds(5))
    assert values(limited.samples)[UP] == 1
    assert "INFO" in str(limited.fault)
    assert "redis_keys" not in {key[0] for key in values(limited.samples)}
    redis.command("ACL", "SETUSER", "prep_exporter", "+info")
    await back_to_health(collector)
    await collector.close()
    redis.command("ACL", "DELUSER", "prep_exporter")


async def test_missing_secret_is_told(redis: RedisServer, tmp_path: Path) -> None:
    """A secret's file that is not there: up 0, with the file's name."""
    collector = collector_for(redis.port, password_file=str(tmp_path / "absent"))
    collected = await collector.collect(in_seconds(5))
    assert values(collected.samples) == DOWN
    assert "absent" in str(collected.fault)


async def test_frozen_server(ill_server: RedisServer) -> None:
    """SIGSTOP: an answer by the deadline, up 0 and nothing else, at most one connection, back by itself."""
    collector = collector_for(ill_server.port)
    shown(await collector.collect(in_seconds(5)))
    with ill_server.frozen():
        for _ in range(3):
            took, collected = await timed(collector, 0.4)
            assert took < 0.45
            assert values(collected.samples) == DOWN
            assert collected.fault is not None
    await back_to_health(collector)
    wait_until(lambda: len(connections_of_ours(ill_server)) == 1, "the connections of the frozen time to be gone", 5)
    await collector.close()


async def test_restarted_server(ill_server: RedisServer) -> None:
    """Down is up 0 at once; the first scrape after the start is well."""
    collector = collector_for(ill_server.port)
    shown(await collector.collect(in_seconds(5)))
    ill_server.stop()
    took, collected = await timed(collector, 5.0)
    assert took < 1
    assert values(collected.samples) == DOWN
    ill_server.start()
    assert shown(await collector.collect(in_seconds(5)))[UP] == 1
    await collector.close()


async def test_as_many_clients_as_allowed(ill_server: RedisServer) -> None:
    """The kept connection has the numbers, the maximum reached and the refusals among them; a new one is up 0."""
    kept, late = collector_for(ill_server.port), collector_for(ill_server.port)
    before = shown(await kept.collect(in_seconds(5)))
    ill_server.command("CONFIG", "SET", "maxclients", 8)
    with contextlib.ExitStack() as crowd:
        for _ in range(12):
            crowd.enter_context(socket.create_connection(("127.0.0.1", ill_server.port), 1.0))
        refused = await late.collect(in_seconds(2))
        found = shown(await kept.collect(in_seconds(2)))
    wait_until(lambda: ill_server.command("CONFIG", "SET", "maxclients", 10000), "the crowd to be gone", 5)
    assert values(refused.samples) == DOWN
    assert "max number of clients" in str(refused.fault)
    assert found["redis_clients", "redis"] == found["redis_clients_max", "redis"] == 8
    rejected = "redis_rejected_connections_total", "redis"
    assert found[rejected] >= before[rejected] + 5
    await back_to_health(late)
    await asyncio.gather(kept.close(), late.close())


async def test_loading_is_not_down(ill_server: RedisServer) -> None:
    """While it reads its data set: up 1 in state `loading`, memory and clients, no number of keys; then all again."""
    collector = collector_for(ill_server.port, sessions={"count": "dbsize"})
    ill_server.command("DEBUG", "POPULATE", 1000)
    ill_server.command("CONFIG", "SET", "key-load-delay", 1000)
    reload = asyncio.create_task(asyncio.to_thread(ill_server.command, "DEBUG", "RELOAD"))
    collected = await during(collector, "loading")
    await reload
    ill_server.command("CONFIG", "SET", "key-load-delay", 0)
    found = values(collected.samples)
    assert found[UP] == 1
    assert found["redis_memory_used_bytes", "redis"] > 0
    assert not {"redis_keys", "redis_expiring_keys", "redis_sessions"} & {key[0] for key in found}
    assert "loading" in str(collected.fault)
    await back_to_health(collector)
    ill_server.flush()
    await collector.close()


async def during(collector: RedisCollector, state: str, within: float = 5.0) -> Collected:
    """Scrape until the server is in that state."""
    end = time.monotonic() + within
    while states(values((collected := await collector.collect(in_seconds(1))).samples)) != [state]:
        assert time.monotonic() < end, collected
        await asyncio.sleep(0.02)
    return collected


async def test_refused_writes_are_seen(ill_server: RedisServer) -> None:
    """MISCONF after a snapshot that failed: up 1, state `writes_refused`, the failed save, and all numbers."""
    collector = collector_for(ill_server.port)
    (ill_server.folder / "dump.rdb").unlink(missing_ok=True)
    obstacle = ill_server.folder / "dump.rdb"
    obstacle.mkdir()
    ill_server.command("SET", "x", 1)
    ill_server.command("BGSAVE")
    found = dict(shown(await during(collector, "writes_refused")))
    obstacle.rmdir()
    ill_server.command("BGSAVE")
    assert found[UP] == 1
    assert found["redis_rdb_last_save_successful", "redis"] == 0
    assert found["redis_keys", "redis"] >= 1
    well = values((await during(collector, "ready")).samples)
    assert well["redis_rdb_last_save_successful", "redis"] == 1
    await collector.close()


async def test_busy_script_is_seen(ill_server: RedisServer) -> None:
    """A script that blocks the server: up 1, state `busy`, nothing else; inside the deadline; then all again."""
    collector = collector_for(ill_server.port)
    shown(await collector.collect(in_seconds(5)))
    script = asyncio.create_task(asyncio.to_thread(run_quietly, ill_server, "EVAL", "while true do end", 0))
    collected = await during(collector, "busy")
    ill_server.command("SCRIPT", "KILL")
    await script
    assert {key[0] for key in values(collected.samples)} == {"redis_up", "redis_state", "redis_ping_seconds"}
    assert "BUSY" in str(collected.fault)
    await back_to_health(collector)
    await collector.close()


def run_quietly(server: RedisServer, *words: str | int) -> None:
    """A command that is to be killed or to time out."""
    with contextlib.suppress(Exception):
        server.command(*words)


async def test_slow_link(redis: RedisServer) -> None:
    """An answer that takes longer than there is time: what came in time is shown, the rest is not, then all again."""
    with contextlib.closing(TcpProxy(redis.port).start()) as proxy:
        collector = collector_for(proxy.port)
        shown(await collector.collect(in_seconds(5)))
        proxy.delay = 0.2
        took, collected = await timed(collector, 0.7)
        assert took < 0.75
        found = values(collected.samples)
        assert {key[0] for key in found} == {"redis_up", "redis_state", "redis_ping_seconds"}
        assert 0.3 < found["redis_ping_seconds", "redis"] < 0.7
        proxy.delay = 2.0
        took, collected = await timed(collector, 0.5)
        assert took < 0.55
        assert values(collected.samples) == DOWN
        proxy.delay = 0.0
        await back_to_health(collector)
        await collector.close()
        await asyncio.sleep(0)  # asyncio closes the socket in its next round
        wait_until(lambda: proxy.open_connections == 0, "every connection to be closed", 5)


GARBAGE = {
    "http": b"HTTP/1.1 400 Bad Request\r\nServer: other\r\n\r\n",
    "endless": b"\x00\xff" * 200_000,
    "length": b"$many\r\n",
    "array": b"*1\r\n+PONG\r\n",
    "number": b":7\r\n",
    "closed": b"",
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_on_the_port(kind: str) -> None:
    """Something else listens there: up 0 and nothing else, inside the deadline."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(GARBAGE[kind])
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    collector = collector_for(server.sockets[0].getsockname()[1])
    took, collected = await timed(collector)
    await collector.close()
    server.close()
    await server.wait_closed()
    assert took < BUDGET + 0.05
    assert values(collected.samples) == DOWN
    assert collected.fault is not None


async def test_a_server_that_closes_with_a_reason(tmp_path: Path) -> None:
    """Protected mode answers the first command with why and hangs up: the reason is told, not only the end."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-DENIED Redis is running in protected mode\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    (tmp_path / "secret").write_text(PASSWORD)
    collector = collector_for(server.sockets[0].getsockname()[1], user="x", password_file=str(tmp_path / "secret"))
    collected = await collector.collect(in_seconds(2))
    await collector.close()
    server.close()
    await server.wait_closed()
    assert values(collected.samples) == DOWN
    assert "protected mode" in str(collected.fault)


async def test_silent_and_refusing_ports() -> None:
    """Nobody accepts, or nobody answers: up 0 by the deadline, at once where it is refused."""
    refusing = collector_for(free_port())
    took, collected = await timed(refusing)
    assert took < 0.3
    assert values(collected.samples) == DOWN
    with socket.create_server(("127.0.0.1", 0)) as silent:
        collector = collector_for(silent.getsockname()[1], connect_timeout="300ms")
        took, collected = await timed(collector)
    assert 0.25 < took < 0.4
    assert values(collected.samples) == DOWN


async def test_ill_server_takes_nothing_from_a_healthy_one(ill_server: RedisServer, redis: RedisServer) -> None:
    """Two servers in one collector: the frozen one is up 0, the other has all its numbers."""
    settings = {
        name: RedisSettings.model_validate({"host": "127.0.0.1", "port": server.port})
        for name, server in (("good", redis), ("ill", ill_server))
    }
    collector = RedisCollector(settings)
    with ill_server.frozen():
        collected = await collector.collect(in_seconds(0.4))
    await collector.close()
    found = values(collected.samples)
    assert (found["redis_up", "good"], found["redis_up", "ill"]) == (1, 0)
    assert found["redis_memory_used_bytes", "good"] > 0
    assert ("redis_memory_used_bytes", "ill") not in found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return cert, key


async def test_tls_is_verified(run: Run, certificate: tuple[Path, Path]) -> None:
    """With the right authority all numbers; with another one up 0, and no word is exchanged."""
    cert, key = certificate
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    server = RedisServer(run, options=[*options, "--tls-auth-clients", "no"], name="tls").start()
    trusting = collector_for(port, tls=True, ca_file=str(cert))
    doubting = collector_for(port, tls=True)
    assert shown(await trusting.collect(in_seconds(5)))[UP] == 1
    refused = await doubting.collect(in_seconds(5))
    assert values(refused.samples) == DOWN
    assert "certificate" in str(refused.fault).lower()
    await asyncio.gather(trusting.close(), doubting.close())
    server.stop()
