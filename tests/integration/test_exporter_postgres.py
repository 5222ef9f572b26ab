"""The collector `postgres` on real servers, well and ill: honest numbers, one kept session, back by itself."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from exporter.collectors.postgres import PostgresCollector
from exporter.errors import Transient
from exporter.samples import Collected
from exporter.sessions import PostgresSession
from tests.integration.exporter_parts import ROLE, in_seconds, platform, postgres_settings, shown, values
from tests.support.servers import Database, PostgresServer, Run, wait_until

UP = ("postgres_up", "postgres")


@pytest.fixture
def own_server(run: Run) -> Iterator[PostgresServer]:
    """A server that this test may freeze, fill and restart."""
    server = PostgresServer(run, {"max_connections": "12", "superuser_reserved_connections": "3"}, name="ill").start()
    yield server
    server.stop()


def collector_for(database: Database, tmp_path: Path, **changes: object) -> PostgresCollector:
    settings = postgres_settings(database, tmp_path / "secret", **changes)
    return PostgresCollector({"postgres": PostgresSession("postgres", settings)}, long_query_seconds=0.5)


@pytest.fixture
async def collector(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[PostgresCollector]:
    database = platform(postgres_server)
    collector = collector_for(database, tmp_path)
    yield collector
    await collector.close()
    database.drop()


def sessions_of_ours(server: PostgresServer) -> list[int]:
    return server.backends("application_name = 'prep_exporter'")


async def test_core_of_a_healthy_server(collector: PostgresCollector, postgres_server: PostgresServer) -> None:
    """Connections, limit, role, start and up; what does not exist has no sample."""
    found = shown(await collector.collect(in_seconds(5)))
    assert found[UP] == 1
    assert found["postgres_connections", "postgres"] >= 1
    assert found["postgres_connections_max", "postgres"] == 60 - 3
    assert (found["postgres_role", "postgres", "primary"], found["postgres_role", "postgres", "replica"]) == (1, 0)
    assert found["postgres_start_timestamp_seconds", "postgres"] == pytest.approx(
        float(postgres_server.value("select extract(epoch from pg_postmaster_start_time())")), abs=0.001
    )
    assert found["postgres_xid_age_transactions", "postgres"] > 0
    assert ("postgres_oldest_query_start_timestamp_seconds", "postgres") not in found
    assert found["postgres_long_running_queries", "postgres"] == 0


async def test_running_idle_and_blocked_sessions(collector: PostgresCollector, postgres_server: PostgresServer) -> None:
    """A long query, an idle transaction and a session behind its lock are each seen, by their start."""
    began = time.time()
    with (
        postgres_server.session("begin; create table held (id int); insert into held values (1)") as idle,
        postgres_server.session("select pg_sleep(60)") as long,
    ):
        long.wait_active()
        wait_until(lambda: postgres_server.backends(f"pid = {idle.pid} and state = 'idle in transaction'"), "idle", 10)
        with postgres_server.session("begin; lock table pg_catalog.pg_largeobject in access exclusive mode"):
            wait_until(
                lambda: len(postgres_server.backends("state = 'idle in transaction'")) == 2, "the lock to be held", 10
            )
            with postgres_server.session("select count(*) from pg_catalog.pg_largeobject") as blocked:
                blocked.wait_active()
                await asyncio.sleep(max(0.0, began + 1.0 - time.time()))
                found = shown(await collector.collect(in_seconds(5)))
    assert found["postgres_blocked_sessions", "postgres"] == 1
    assert found["postgres_long_running_queries", "postgres"] >= 1
    assert began - 1 < found["postgres_oldest_query_start_timestamp_seconds", "postgres"] < time.time()
    for state in ("active", "idle in transaction"):
        name = "postgres_oldest_transaction_start_timestamp_seconds"
        assert began - 1 < found[name, "postgres", state] < time.time()


async def test_one_session_is_kept_over_many_scrapes(
    collector: PostgresCollector, postgres_server: PostgresServer
) -> None:
    """Scrape after scrape it is the same session, and the login that proves `up` is gone with the answer."""
    await collector.collect(in_seconds(5))
    kept = sessions_of_ours(postgres_server)
    assert len(kept) == 1
    for _ in range(3):
        await asyncio.sleep(0.4)
        shown(await collector.collect(in_seconds(5)))
        wait_until(lambda: sessions_of_ours(postgres_server) == kept, "only the kept session to be there", 5)
    settings = postgres_server.sql(f"select query from pg_stat_activity where pid = {kept[0]}")
    assert settings == [["rollback"]]


async def test_old_session_is_replaced(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """A session older than its age is closed and opened anew, so that a moved name is followed."""
    database = platform(postgres_server)
    collector = collector_for(database, tmp_path, session_age="200ms")
    await collector.collect(in_seconds(5))
    first = sessions_of_ours(postgres_server)
    await asyncio.sleep(0.3)
    shown(await collector.collect(in_seconds(5)))
    wait_until(lambda: len(sessions_of_ours(postgres_server)) == 1, "one session", 5)
    assert sessions_of_ours(postgres_server) != first
    await collector.close()
    database.drop()


async def test_replica_says_so(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Role is what the server is now; the numbers come from a replica too."""
    database = platform(postgres_server)
    replica = postgres_server.replica()
    replica.wait_caught_up()
    collector = collector_for(Database(replica, database.name), tmp_path)
    found = shown(await collector.collect(in_seconds(5)))
    await collector.close()
    replica.stop()
    assert (found["postgres_role", "postgres", "replica"], found["postgres_role", "postgres", "primary"]) == (1, 0)
    assert found[UP] == 1


async def test_role_that_sees_nothing_is_refused(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Without pg_monitor other sessions look empty: no number is shown, and the grant is named."""
    database = platform(postgres_server)
    postgres_server.sql(f"revoke pg_monitor from {ROLE}")
    collector = collector_for(database, tmp_path)
    collected = await collector.collect(in_seconds(5))
    await collector.close()
    postgres_server.sql(f"grant pg_monitor to {ROLE}")
    assert collected.fault is not None
    assert "pg_monitor" in collected.fault
    assert values(collected.samples) == {UP: 1.0}


async def test_wrong_password_is_down_for_us(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Nobody can log in with it, so `up` is 0; one attempt a scrape, and the password is in no message."""
    database = platform(postgres_server)
    collector = collector_for(database, tmp_path)
    (tmp_path / "secret").write_text("wrong-password")
    since = len(postgres_server.log_text())
    collected = await collector.collect(in_seconds(5))
    assert values(collected.samples) == {UP: 0.0}
    assert collected.fault is not None
    assert "wrong-password" not in collected.fault
    assert postgres_server.log_text()[since:].count("password authentication failed") == 1
    (tmp_path / "secret").write_text("secret-of-the-exporter")
    await asyncio.sleep(1.1)
    assert shown(await collector.collect(in_seconds(5)))[UP] == 1, "a rotated secret is read anew"
    await collector.close()
    database.drop()


async def test_all_slots_taken_keeps_the_numbers(own_server: PostgresServer, tmp_path: Path) -> None:
    """Numbers come over the kept session when they matter most; `up` is 0, since nobody else could come in."""
    collector = collector_for(platform(own_server), tmp_path)
    shown(await collector.collect(in_seconds(5)))
    own_server.sql("create role crowd login password 'x'")
    crowd = [own_server.session("select 1", user="crowd", password="x") for _ in range(12 - 3 - 1)]
    for each in crowd:
        each.__enter__()
    await asyncio.sleep(1.1)
    collected = await collector.collect(in_seconds(5))
    found = values(collected.samples)
    assert found[UP] == 0
    assert found["postgres_connections", "postgres"] == found["postgres_connections_max", "postgres"] == 9
    assert collected.fault is not None
    for each in crowd:
        each.__exit__(None, None, None)
    await back_to_health(collector)
    await collector.close()


async def back_to_health(collector: PostgresCollector, within: float = 15.0) -> None:
    """Scrape until all is well again, as Prometheus does."""
    end = time.monotonic() + within
    while (collected := await collector.collect(in_seconds(2))).fault is not None:
        assert time.monotonic() < end, collected.fault
        await asyncio.sleep(0.2)
    assert values(collected.samples)[UP] == 1


async def timed(collector: PostgresCollector, budget: float) -> tuple[float, Collected]:
    began = time.monotonic()
    collected = await collector.collect(in_seconds(budget))
    return time.monotonic() - began, collected


async def test_frozen_server(own_server: PostgresServer, tmp_path: Path) -> None:
    """SIGSTOP of the whole server: an answer by the deadline, up 0, at most one connection, back by itself."""
    collector = collector_for(platform(own_server), tmp_path)
    shown(await collector.collect(in_seconds(5)))
    with own_server.frozen():
        for _ in range(4):
            took, collected = await timed(collector, 0.8)
            assert took < 0.85
            assert values(collected.samples) == {UP: 0.0}
            assert collected.fault is not None
    await back_to_health(collector)
    wait_until(lambda: len(sessions_of_ours(own_server)) == 1, "the sessions of the frozen time to be gone", 10)
    await collector.close()


async def test_frozen_postmaster(own_server: PostgresServer, tmp_path: Path) -> None:
    """Backends that live under a postmaster that does not: the numbers are there, but nobody could log in."""
    collector = collector_for(platform(own_server), tmp_path, connect_timeout="500ms")
    shown(await collector.collect(in_seconds(5)))
    await asyncio.sleep(1.1)
    own_server.signal(signal.SIGSTOP)
    took, collected = await timed(collector, 3.0)
    own_server.signal(signal.SIGCONT)
    assert took < 1.0
    found = values(collected.samples)
    assert found[UP] == 0
    assert found["postgres_connections", "postgres"] >= 1
    await back_to_health(collector)
    await collector.close()


async def test_slow_query_is_ended_by_the_server_and_the_session_kept(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """A query that takes longer than there is time ends at the server, before our deadline, and costs no new login."""
    database = platform(postgres_server)
    session = PostgresSession("postgres", postgres_settings(database, tmp_path / "secret"))
    pids = []
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(Transient, match="statement timeout"):
            async with session.transaction(in_seconds(1.0)) as connection:
                pids.append(connection.get_server_pid())
                await connection.execute("select pg_sleep(30)")
        assert time.monotonic() - began < 1.0
        assert (
            postgres_server.backends("query like '%pg_sleep(30)%' and state = 'active' and pid <> pg_backend_pid()")
            == []
        )
    assert len(set(pids)) == 1
    await session.close()
    database.drop()


async def test_restarted_server(own_server: PostgresServer, tmp_path: Path) -> None:
    """Down is up 0 at once; after the start the next scrapes are well, without ours being restarted."""
    collector = collector_for(platform(own_server), tmp_path)
    shown(await collector.collect(in_seconds(5)))
    own_server.stop()
    took, collected = await timed(collector, 5.0)
    assert took < 1
    assert values(collected.samples) == {UP: 0.0}
    own_server.start()
    await back_to_health(collector)
    await collector.close()


async def test_ill_server_takes_nothing_from_a_healthy_one(
    own_server: PostgresServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Two servers in one collector: the frozen one is up 0, the other has all its numbers."""
    good, ill = platform(postgres_server), platform(own_server)
    sessions = {
        "good": PostgresSession("good", postgres_settings(good, tmp_path / "good")),
        "ill": PostgresSession("ill", postgres_settings(ill, tmp_path / "ill")),
    }
    collector = PostgresCollector(sessions, 300)
    with own_server.frozen():
        collected = await collector.collect(in_seconds(0.8))
    found = values(collected.samples)
    assert (found["postgres_up", "good"], found["postgres_up", "ill"]) == (1, 0)
    assert found["postgres_connections", "good"] >= 1
    await collector.close()
    good.drop()
