"""The collector `replication` on a real primary and replica, whose link can be cut: never a lag of 0 for no link."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporter.collector_settings import ReplicationCollector as ReplicationSettings
from exporter.collectors.postgres import PostgresCollector
from exporter.collectors.replication import ReplicationCollector
from exporter.samples import Collected
from exporter.sessions import PostgresSession
from tests.integration.exporter_parts import in_seconds, platform, postgres_settings, shown, values
from tests.support.servers import PASSWORD, SUPERUSER, Database, PostgresServer, Run, TcpProxy, wait_until

HEARTBEAT = (
    "insert into replication_heartbeat values (true, clock_timestamp())"
    " on conflict (only_row) do update set beat_at = excluded.beat_at"
)
BEHIND = "replication_behind_bytes"
BEAT = "replication_heartbeat_timestamp_seconds"

Found = dict[tuple[str, ...], float]


@dataclass(frozen=True)
class Pair:
    """A primary, its replica, the proxy that carries the link between them, and the platform's database."""

    primary: PostgresServer
    replica: PostgresServer
    link: TcpProxy
    database: Database

    @property
    def name(self) -> str:
        """As the primary knows the replica."""
        return self.replica.folder.name

    def write(self) -> None:
        """Some WAL and a heartbeat, as the platform writes them."""
        self.database.sql(
            f"create table if not exists noise (x text); insert into noise select repeat('x', 200) from generate_series(1, 500); {HEARTBEAT}"
        )

    def streams(self) -> bool:
        return (
            self.primary.value(
                f"select count(*) from pg_stat_replication where state = 'streaming' and application_name = '{self.name}'"
            )
            == "1"
        )

    def mend(self) -> None:
        """Whatever a test has broken is whole again and caught up."""
        self.link.thaw()
        self.link.accept()
        wait_until(self.streams, "the replica to stream", 15, seen=self.replica.tail)
        self.replica.wait_caught_up()


@pytest.fixture(scope="module")
def whole_pair(run: Run) -> Iterator[Pair]:
    primary = PostgresServer(run, {"wal_sender_timeout": "60s"}, name="pair-primary").start()
    database = platform(primary)
    replica = primary.replica(
        {"wal_retrieve_retry_interval": "100ms", "wal_receiver_status_interval": "1s", "hot_standby_feedback": "on"},
        name="pair-replica",
    )
    link = TcpProxy(primary.port).start()
    primary.sql("select pg_create_physical_replication_slot('for_replica', true)")
    replica.sql(
        f"alter system set primary_conninfo = 'host=127.0.0.1 port={link.port} user={SUPERUSER} password={PASSWORD} application_name={replica.folder.name}'"
    )
    replica.sql("alter system set primary_slot_name = 'for_replica'")
    replica.sql("select pg_reload_conf()")
    link.wait_connections(1)
    pair = Pair(primary, replica, link, database)
    pair.mend()
    yield pair
    link.close()
    replica.stop()
    primary.stop()


@pytest.fixture
def pair(whole_pair: Pair) -> Iterator[Pair]:
    whole_pair.write()
    whole_pair.replica.wait_caught_up()
    yield whole_pair
    whole_pair.mend()


def sessions_for(pair: Pair, tmp_path: Path) -> dict[str, PostgresSession]:
    replica = Database(pair.replica, pair.database.name)
    return {
        name: PostgresSession(name, postgres_settings(database, tmp_path / "secret"))
        for name, database in (("postgres", pair.database), ("standby", replica))
    }


def settings_for(pair: Pair, **changes: object) -> ReplicationSettings:
    return ReplicationSettings.model_validate(
        {"replicas": {pair.name: {"server": "standby"}}, "slots": ["for_replica"], "heartbeat": {}, **changes}
    )


@pytest.fixture
async def collector(pair: Pair, tmp_path: Path) -> AsyncIterator[ReplicationCollector]:
    collector = ReplicationCollector(sessions_for(pair, tmp_path), settings_for(pair))
    yield collector
    await collector.close()


async def scrape(collector: ReplicationCollector) -> Found:
    return dict(shown(await collector.collect(in_seconds(5))))


async def scrape_until(
    collector: ReplicationCollector, condition: Callable[[Found], bool], within: float = 10.0
) -> Found:
    """Scrape each 0.2 s, as Prometheus would, until the samples are so."""
    end = time.monotonic() + within
    while not condition(found := await scrape(collector)):
        assert time.monotonic() < end, found
        await asyncio.sleep(0.2)
    return found


def streaming(pair: Pair, found: Found) -> tuple[float, float]:
    """Of side primary and side replica."""
    name = "replication_streaming"
    return found[name, pair.name, "primary"], found[name, pair.name, "replica"]


async def test_healthy_link(collector: ReplicationCollector, pair: Pair) -> None:
    """Both sides stream, nothing is missing, the slot is used, and the heartbeat is the same on both."""
    found = await scrape(collector)
    assert streaming(pair, found) == (1, 1)
    assert found["replication_replicas_expected",] == found["replication_replicas_connected",] == 1
    assert found["replication_unexpected_receivers",] == 0
    for side in ("primary", "replica"):
        for position in ("flushed", "replayed"):
            assert found[BEHIND, pair.name, side, position] < 16_384
    states = {key[2]: value for key, value in found.items() if key[0] == "replication_sync_state"}
    assert states == {"async": 1, "potential": 0, "sync": 0, "quorum": 0}
    assert found[BEAT, "postgres"] == found[BEAT, "standby"] == pytest.approx(time.time(), abs=10)
    for name in ("last_message", "last_reply", "last_replayed_transaction"):
        assert found[f"replication_{name}_timestamp_seconds", pair.name] == pytest.approx(time.time(), abs=30)
    assert found["replication_replay_paused", pair.name] == 0
    assert found["replication_slot_active", "for_replica"] == 1
    assert found["replication_slots", "active"] == 1
    assert found["replication_slots", "inactive"] == found["replication_slots", "lost"] == 0
    assert (
        found["replication_slot_retained_bytes", "for_replica"] == found["replication_slots_retained_bytes", "active"]
    )
    assert found["replication_base_backups",] == 0


async def test_cut_link_is_no_lag_of_zero(collector: ReplicationCollector, pair: Pair) -> None:
    """Within seconds no side streams; the heartbeat stands still while bytes behind grow; then it mends by itself."""
    healthy = await scrape(collector)
    pair.link.refuse()
    pair.link.reset()
    cut = await scrape_until(collector, lambda found: streaming(pair, found) == (0, 0), within=5)
    assert (cut["replication_replicas_expected",], cut["replication_replicas_connected",]) == (1, 0)
    assert cut["replication_slot_active", "for_replica"] == 0
    assert not any(value for key, value in cut.items() if key[0] == "replication_sync_state")
    assert (BEHIND, pair.name, "primary", "replayed") not in cut, "what is not connected reports nothing"
    before = cut
    for _ in range(3):
        pair.write()
        found = await scrape(collector)
        assert streaming(pair, found) == (0, 0)
        for position in ("flushed", "replayed"):
            behind = BEHIND, pair.name, "replica", position
            assert found[behind] > before[behind] + 50_000
        assert found[BEAT, "postgres"] > before[BEAT, "postgres"]
        assert found[BEAT, "standby"] == healthy[BEAT, "standby"]
        retained = "replication_slots_retained_bytes", "inactive"
        assert found[retained] > before[retained]
        before = found
    pair.link.accept()
    mended = await scrape_until(collector, lambda found: streaming(pair, found) == (1, 1))
    mended = await scrape_until(collector, lambda found: found[BEAT, "standby"] == found[BEAT, "postgres"])
    assert mended[BEHIND, pair.name, "replica", "replayed"] < 16_384


async def test_silent_link(collector: ReplicationCollector, pair: Pair) -> None:
    """A link that carries nothing and is not closed: both sides fall behind, and nothing is heard any more."""
    pair.link.freeze()
    pair.write()
    first = await scrape(collector)
    await asyncio.sleep(1.2)
    pair.write()
    found = await scrape(collector)
    pair.link.thaw()
    for side in ("primary", "replica"):
        assert found[BEHIND, pair.name, side, "replayed"] > first[BEHIND, pair.name, side, "replayed"] + 50_000
    assert found[BEAT, "standby"] == first[BEAT, "standby"] < first[BEAT, "postgres"] < found[BEAT, "postgres"]
    for name in ("last_message", "last_reply"):
        assert (
            found[f"replication_{name}_timestamp_seconds", pair.name]
            == first[f"replication_{name}_timestamp_seconds", pair.name]
        )


async def test_paused_replay(collector: ReplicationCollector, pair: Pair) -> None:
    """WAL arrives and is not applied: paused, behind with replaying only."""
    pair.replica.sql("select pg_wal_replay_pause()")
    pair.write()
    found = await scrape_until(collector, lambda found: found[BEHIND, pair.name, "replica", "flushed"] < 16_384)
    pair.replica.sql("select pg_wal_replay_resume()")
    assert streaming(pair, found) == (1, 1)
    assert found["replication_replay_paused", pair.name] == 1
    assert found[BEHIND, pair.name, "replica", "replayed"] > 50_000


async def test_synchronous_replica(collector: ReplicationCollector, pair: Pair) -> None:
    """The state that the primary gives to the replica, one at a time."""
    pair.primary.configure(synchronous_standby_names=f'"{pair.name}"')
    sync = "replication_sync_state", pair.name, "sync"
    found = await scrape_until(collector, lambda found: found[sync] == 1)
    pair.primary.configure(synchronous_standby_names="")
    assert found["replication_sync_state", pair.name, "async"] == 0
    await scrape_until(collector, lambda found: found[sync] == 0)


async def test_base_backup_and_strangers_are_no_replica(pair: Pair, tmp_path: Path, run: Run) -> None:
    """A copy under way under the very name of an expected replica: a base backup and a receiver, and not streaming."""
    settings = settings_for(pair, replicas={"new-replica": {}, pair.name: {}}, slots=["missing"])
    collector = ReplicationCollector(sessions_for(pair, tmp_path), settings)
    folder = run.folder("slow-copy")
    argv = ["pg_basebackup", "--max-rate=2M", "--checkpoint=fast", "--no-sync", "-D", str(folder / "data"),
            "-d", f"{pair.primary.dsn(None)}?application_name=new-replica"]  # fmt: skip
    process = run.spawn(argv, folder / "log", env={"PATH": "/usr/bin:/bin:/usr/lib/postgresql/15/bin"})
    found = await scrape_until(
        collector, lambda found: bool(found["replication_base_backups",] and found["replication_unexpected_receivers",])
    )
    process.terminate()
    process.wait(10)
    assert found["replication_streaming", "new-replica", "primary"] == 0
    assert (found["replication_replicas_expected",], found["replication_replicas_connected",]) == (2, 1)
    assert found["replication_streaming", pair.name, "primary"] == 1
    assert ("replication_streaming", pair.name, "replica") not in found, "a replica that is not read says nothing"
    assert found["replication_slot_active", "missing"] == 0
    assert ("replication_slot_retained_bytes", "missing") not in found
    await collector.close()


async def timed(collector: ReplicationCollector, budget: float) -> tuple[float, Collected]:
    began = time.monotonic()
    collected = await collector.collect(in_seconds(budget))
    return time.monotonic() - began, collected


@pytest.mark.parametrize("side", ["primary", "replica"])
async def test_frozen_side_takes_nothing_from_the_other(collector: ReplicationCollector, pair: Pair, side: str) -> None:
    """SIGSTOP of one: the other's word by the deadline, none of the frozen one's, and back by itself."""
    await scrape(collector)
    server, other = (pair.primary, "replica") if side == "primary" else (pair.replica, "primary")
    with server.frozen():
        for _ in range(2):
            took, collected = await timed(collector, 0.6)
            assert took < 0.65
            assert collected.fault is not None
            sides = {key[2] for key in values(collected.samples) if key[0] == "replication_streaming"}
            assert sides == {other}
            assert {key[2] for key in values(collected.samples) if key[0] == BEHIND} <= {other}
            if side == "primary":
                assert not any(key[0] == BEHIND for key in values(collected.samples)), "its position is not known"
    end = time.monotonic() + 10
    while (await collector.collect(in_seconds(2))).fault is not None:
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


async def test_replica_that_is_down(collector: ReplicationCollector, pair: Pair) -> None:
    """Stopped: the primary says 0, the replica itself nothing, at once; started again, it is well by itself."""
    pair.replica.stop()
    took, collected = await timed(collector, 5.0)
    found = values(collected.samples)
    pair.replica.start()
    assert took < 1
    assert found["replication_streaming", pair.name, "primary"] == 0
    assert ("replication_streaming", pair.name, "replica") not in found
    assert found["replication_replicas_connected",] == 0
    assert "standby" in str(collected.fault)
    pair.mend()
    assert streaming(pair, await scrape(collector)) == (1, 1)


async def test_heartbeat_without_its_grant(pair: Pair, tmp_path: Path) -> None:
    """A heartbeat that cannot be read is told, and takes nothing else away; one that is not configured is no fault."""
    for heartbeat, words in (
        ({"table": "regulations", "column": "updated_at"}, "denied"),
        ({"table": "public.absent"}, "absent"),
    ):
        collector = ReplicationCollector(sessions_for(pair, tmp_path), settings_for(pair, heartbeat=heartbeat))
        collected = await collector.collect(in_seconds(5))
        await collector.close()
        assert words in str(collected.fault)
        found = dict(values(collected.samples))
        assert streaming(pair, found) == (1, 1)
        assert not any(key[0] == BEAT for key in found)
    collector = ReplicationCollector(sessions_for(pair, tmp_path), settings_for(pair, heartbeat=None))
    assert not any(key[0] == BEAT for key in await scrape(collector))
    await collector.close()


async def test_sessions_are_shared_with_the_core(pair: Pair, tmp_path: Path) -> None:
    """Both collectors at once, over and over: one session at each server."""
    sessions = sessions_for(pair, tmp_path)
    core, collector = PostgresCollector(sessions, 300), ReplicationCollector(sessions, settings_for(pair))
    for _ in range(5):
        parts = await asyncio.gather(core.collect(in_seconds(5)), collector.collect(in_seconds(5)))
        assert [part.fault for part in parts] == [None, None]
    for server in (pair.primary, pair.replica):
        wait_until(lambda: len(server.backends("application_name = 'prep_exporter'")) == 1, "one session", 5)  # noqa: B023
    await asyncio.gather(core.close(), collector.close())
