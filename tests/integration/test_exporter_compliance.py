"""The collector `compliance` on a real table: every check once, however late, through restarts, at a constant cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from exporter.collector_settings import ComplianceCollector as ComplianceSettings
from exporter.collectors.compliance import ROWS_QUERY, ComplianceCollector
from exporter.collectors.postgres import PostgresCollector
from exporter.errors import Permanent, StateError, Transient
from exporter.samples import HistogramSample
from exporter.scrape import ScrapeEngine
from exporter.sessions import PostgresSession
from exporter.statefile import DiskFiles, StateFile
from tests.integration.exporter_parts import ROLE, in_seconds, platform, postgres_settings, shown, values
from tests.support.servers import Database, PostgresServer, Run, wait_until

COUNT = ("compliance_check_duration_seconds",)
FAILED = ("compliance_checks_failed_total",)
CATCHING_UP = ("compliance_cursor_catching_up",)
CUT = ("compliance_cursor_overlap_cut",)
DISCARDED = ("compliance_cursor_state_discarded",)


@dataclass
class Bench:
    """A database and exporters for it that are started and ended as a test likes."""

    database: Database
    folder: Path
    started: list[ComplianceCollector] = field(default_factory=list)

    def exporter(self, files: DiskFiles | None = None, **changes: object) -> ComplianceCollector:
        """A new process, as far as the collector can tell."""
        settings = ComplianceSettings.model_validate({"state_file": str(self.state), "margin": "500ms", **changes})
        session = PostgresSession("postgres", postgres_settings(self.database, self.folder / "secret"))
        collector = ComplianceCollector(session, settings, StateFile(settings.state_file, files))
        self.started.append(collector)
        return collector

    async def end(self, collector: ComplianceCollector) -> None:
        await collector._session.close()
        await collector.close()
        self.started.remove(collector)

    @property
    def state(self) -> Path:
        return self.folder / "compliance.json"

    def finish(self, number: int = 1, seconds: float = 0.2, result: str = "pass") -> None:
        """Checks that have just ended."""
        self.database.sql(
            "insert into compliance_checks (order_ref, rule_set, created_at, finished_at, result)"
            f" select 'o', 'r', now - {seconds} * interval '1 s', now, '{result}'"
            f" from generate_series(1, {number}), (select clock_timestamp() as now) as clock"
        )


@pytest.fixture
async def bench(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(platform(postgres_server), tmp_path)
    yield bench
    for collector in list(bench.started):
        await bench.end(collector)
    bench.database.drop()


async def scrape(collector: ComplianceCollector) -> dict[tuple[str, ...], float]:
    return dict(shown(await collector.collect(in_seconds(10))))


async def test_past_is_not_counted_and_the_new_is(bench: Bench) -> None:
    """A new cursor begins at 0, with all its series; then each check is counted in its bucket, in the next scrape."""
    bench.finish(50)
    exporter = bench.exporter()
    first = await scrape(exporter)
    assert (first[COUNT], first[FAILED], first[CATCHING_UP], first[CUT]) == (0, 0, 0, 0)
    bench.finish(3, 0.2)
    bench.finish(2, 7.0, "fail")
    bench.finish(1, 100.0, "error")
    collected = await exporter.collect(in_seconds(5))
    histogram = next(one for one in collected.samples if isinstance(one, HistogramSample))
    assert histogram.counts == (0, 0, 3, 0, 0, 0, 0, 2, 0, 0, 0, 1)
    assert histogram.sum == pytest.approx(3 * 0.2 + 2 * 7.0 + 100.0)
    assert values(collected.samples)[FAILED] == 1, "`fail` is an answer"
    again = await scrape(exporter)
    assert again[COUNT] == 6, "nothing is counted twice"


async def test_queue(bench: Bench) -> None:
    """Pending checks and the oldest one's arrival; no sample of it when there is none."""
    exporter = bench.exporter()
    assert ("compliance_oldest_pending_start_timestamp_seconds",) not in await scrape(exporter)
    bench.database.sql(
        "insert into compliance_checks (order_ref, rule_set, created_at)"
        " select 'o', 'r', clock_timestamp() - n * interval '1 minute' from generate_series(1, 4) as n"
    )
    found = await scrape(exporter)
    assert found["compliance_checks_pending",] == 4
    age = time.time() - found["compliance_oldest_pending_start_timestamp_seconds",]
    assert age == pytest.approx(240, abs=5)


async def test_late_commit_is_counted(bench: Bench) -> None:
    """Rows stamped early and committed late are not lost, though others were counted meanwhile."""
    exporter = bench.exporter()
    await scrape(exporter)
    late = (
        "begin; insert into compliance_checks (order_ref, rule_set, finished_at, result)"
        " select 'late', 'r', now(), 'pass' from generate_series(1, 7)"
    )
    with bench.database.server.session(late, bench.database.name) as session:
        wait_until(lambda: bench.database.server.backends(f"pid = {session.pid} and backend_xid is not null"), "it", 10)
        for _ in range(4):
            bench.finish(2)
            await asyncio.sleep(0.4)
            found = await scrape(exporter)
        assert found[COUNT] == 8
        session.run("commit;")
        wait_until(lambda: bench.database.value("select count(*) from compliance_checks") == "15", "the commit", 10)
        assert (await scrape(exporter))[COUNT] == 15
    assert json.loads(bench.state.read_text())["totals"]["bucket 0"] >= 7


async def test_transaction_longer_than_the_overlap_is_flagged(bench: Bench) -> None:
    """What the overlap does not reach is said while it may cost something, and no longer."""
    exporter = bench.exporter(overlap="1s", margin="100ms")
    await scrape(exporter)
    with bench.database.server.session("begin; select 1", bench.database.name):
        await asyncio.sleep(1.5)
        assert (await scrape(exporter))[CUT] == 1
    # The server drops a client's transaction a moment after the client has gone.
    held = "select count(*) from pg_stat_activity where state like 'idle in%' and datname = current_database()"
    wait_until(lambda: bench.database.value(held) == "0", "the transaction to be gone", 10)
    assert (await scrape(exporter))[CUT] == 0


async def test_prepared_transaction_is_counted_when_it_is_committed(run: Run, tmp_path: Path) -> None:
    """A two-phase commit has no session any more, but its rows come late all the same."""
    server = PostgresServer(run, {"max_prepared_transactions": "2"}, name="two-phase").start()
    bench = Bench(platform(server), tmp_path)
    exporter = bench.exporter(overlap="1m", margin="100ms")
    await scrape(exporter)
    bench.database.sql(
        "begin; insert into compliance_checks (order_ref, rule_set, finished_at, result)"
        " values ('o', 'r', clock_timestamp(), 'pass'); select pg_sleep(0.5); prepare transaction 'late'"
    )
    for _ in range(2):
        bench.finish(1)
        await asyncio.sleep(0.3)
        found = await scrape(exporter)
    assert found[COUNT] == 2
    bench.database.sql("commit prepared 'late'")
    assert (await scrape(exporter))[COUNT] == 3
    await bench.end(exporter)
    server.stop()


async def test_restart_goes_on_where_it_was(bench: Bench) -> None:
    """Totals stay over a restart, rows of the downtime are counted, and a long one is flagged."""
    first = bench.exporter(catching_up_after="2s")
    await scrape(first)
    bench.finish(5)
    assert (await scrape(first))[COUNT] == 5
    await bench.end(first)
    bench.finish(4)
    second = bench.exporter(catching_up_after="2s")
    found = await scrape(second)
    assert (found[COUNT], found[CATCHING_UP]) == (9, 0)
    await bench.end(second)
    bench.finish(3)
    await asyncio.sleep(2.1)
    third = bench.exporter(catching_up_after="2s")
    found = await scrape(third)
    assert (found[COUNT], found[CATCHING_UP]) == (12, 1)
    assert (await scrape(third))[CATCHING_UP] == 0


async def test_burst_is_counted_in_batches(bench: Bench) -> None:
    """50,000 rows between two scrapes are counted exactly, in this scrape and the next, flagged meanwhile."""
    exporter = bench.exporter(batch_rows=20_000)
    await scrape(exporter)
    bench.finish(50_000)
    counts = []
    for _ in range(4):
        found = await scrape(exporter)
        counts.append((found[COUNT], found[CATCHING_UP]))
    assert counts == [(20_000, 1), (40_000, 1), (50_000, 0), (50_000, 0)]


async def test_unreadable_state_is_put_aside_and_flagged(bench: Bench) -> None:
    """A broken file is no crash loop: the cursor begins now, at 0, and says so until the next start."""
    bench.state.write_text('{"version": 1, "source": ')
    exporter = bench.exporter()
    found = await scrape(exporter)
    assert (found[COUNT], found[DISCARDED]) == (0, 1)
    assert bench.state.with_name("compliance.json.unreadable").exists()
    await bench.end(exporter)
    assert (await scrape(bench.exporter()))[DISCARDED] == 0


async def test_reload_goes_on_telling_what_this_process_has_found(bench: Bench) -> None:
    """A discarded state stays flagged over reloads of the process that discarded it, and for its own file only."""
    bench.state.write_text("not a state")
    exporter = bench.exporter()
    for _ in range(3):
        assert (await scrape(exporter))[DISCARDED] == 1
        before, exporter = exporter, bench.exporter()
        await bench.end(before)
        exporter.inherit(before)
    other = bench.exporter(state_file=str(bench.folder / "other.json"))
    other.inherit(exporter)
    assert (await scrape(other))[DISCARDED] == 0


async def test_state_of_another_cluster_keeps_the_totals(bench: Bench) -> None:
    """A database that was made anew: counters do not go back, and nothing of its past is counted."""
    first = bench.exporter()
    await scrape(first)
    bench.finish(5)
    await scrape(first)
    await bench.end(first)
    state = json.loads(bench.state.read_text())
    bench.state.write_text(json.dumps({**state, "source": "123"}))
    bench.finish(6)
    second = bench.exporter()
    found = await scrape(second)
    assert (found[COUNT], found[DISCARDED]) == (5, 1)
    bench.finish(1)
    assert (await scrape(second))[COUNT] == 6


async def test_second_exporter_on_one_file_is_refused(bench: Bench) -> None:
    """Two writers would each count what the other has counted."""
    first, second = bench.exporter(), bench.exporter()
    await scrape(first)
    with pytest.raises(StateError, match="in use"):
        await second.collect(in_seconds(5))


class FullDisk(DiskFiles):
    """A disk that is full while it is told to be."""

    full = False

    def write_synced(self, path: Path, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().write_synced(path, data)


async def test_what_cannot_be_saved_is_not_shown(bench: Bench) -> None:
    """On a full disk there are no counters, since a kill would take them back; with room again nothing is missing."""
    disk = FullDisk()
    exporter = bench.exporter(disk)
    await scrape(exporter)
    bench.finish(5)
    disk.full = True
    with pytest.raises(StateError, match="No space left"):
        await exporter.collect(in_seconds(5))
    disk.full = False
    assert (await scrape(exporter))[COUNT] == 5


async def test_missing_grants_are_named(bench: Bench) -> None:
    """Without a grant there is an error that names it, and no number."""
    exporter = bench.exporter()
    bench.database.sql(f"revoke pg_monitor from {ROLE}")
    with pytest.raises(Permanent, match="pg_monitor"):
        await exporter.collect(in_seconds(5))
    bench.database.sql(f"grant pg_monitor to {ROLE}; revoke all on compliance_checks from {ROLE}")
    with pytest.raises(Permanent, match="permission denied for table compliance_checks"):
        await exporter.collect(in_seconds(5))


async def test_replica_is_refused(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """A replica does not know which transactions are open, so late commits would be lost without a sign."""
    database = platform(postgres_server)
    replica = postgres_server.replica()
    replica.wait_caught_up()
    bench = Bench(Database(replica, database.name), tmp_path)
    exporter = bench.exporter()
    with pytest.raises(Permanent, match="replica"):
        await exporter.collect(in_seconds(5))
    await bench.end(exporter)
    replica.stop()
    database.drop()


async def test_locked_table_takes_nothing_from_the_core(bench: Bench) -> None:
    """Somebody holds the table: the server ends our wait, the core has its numbers, the session stays."""
    session = PostgresSession("postgres", postgres_settings(bench.database, bench.folder / "secret"))
    settings = ComplianceSettings.model_validate({"state_file": str(bench.state)})
    core = PostgresCollector({"postgres": session}, 300)
    cursor = ComplianceCollector(session, settings, StateFile(settings.state_file))
    server = bench.database.server
    async with ScrapeEngine([core, cursor]) as engine:
        assert all(result.success for result in await engine.scrape(5))
        kept = server.backends("application_name = 'prep_exporter'")
        lock = "begin; lock table compliance_checks in access exclusive mode"
        with server.session(lock, bench.database.name) as holder:
            wait_until(lambda: server.backends(f"pid = {holder.pid} and state = 'idle in transaction'"), "the lock", 10)
            began = time.monotonic()
            postgres, compliance = await engine.scrape(4)
            assert time.monotonic() - began < 1.5, "a quarter of the time for a lock"
        assert postgres.success
        assert values(postgres.samples)["postgres_up", "postgres"] == 1
        assert (compliance.success, compliance.samples) == (False, ())
        assert [result.success for result in await engine.scrape(5)] == [True, True]
        wait_until(lambda: server.backends("application_name = 'prep_exporter'") == kept, "the kept session", 5)


async def test_scrapers_at_once_cost_the_database_one_run(bench: Bench) -> None:
    """Sixteen scrapers while the table is locked: one query waits, and all get its answer."""
    session = PostgresSession("postgres", postgres_settings(bench.database, bench.folder / "secret"))
    settings = ComplianceSettings.model_validate({"state_file": str(bench.state)})
    cursor = ComplianceCollector(session, settings, StateFile(settings.state_file))
    server = bench.database.server
    async with ScrapeEngine([cursor]) as engine:
        await engine.scrape(5)
        lock = "begin; lock table compliance_checks in access exclusive mode"
        since = len(server.log_text())
        with server.session(lock, bench.database.name) as holder:
            wait_until(lambda: server.backends(f"pid = {holder.pid} and state = 'idle in transaction'"), "the lock", 10)
            answers = await asyncio.gather(*(engine.scrape(2) for _ in range(16)))
        assert all(not results[0].success for results in answers)
        assert server.log_text()[since:].count("canceling statement due to lock timeout") == 1
    await session.close()


def buffers(database: Database, floor: str) -> int:
    """Buffers that reading the new rows touches, by EXPLAIN, at the given floor."""
    query = (
        ROWS_QUERY.replace("$1", f"'{floor}'").replace("$2", "'{1,2,3,4,5,6,7,8,9,10,11,12}'").replace("$3", "20000")
    )
    plan = "\n".join(row[0] for row in database.sql(f"explain (analyze, buffers, timing off, costs off) {query}"))
    assert "Index Scan using compliance_checks_finished" in plan, plan
    hit = re.search(r"Buffers: shared (?:hit=(\d+))?(?: ?read=(\d+))?", plan)
    assert hit, plan
    return sum(int(each) for each in hit.groups() if each)


def test_cost_does_not_depend_on_the_tables_size(postgres_server: PostgresServer) -> None:
    """The same new rows cost the same buffers behind 2,000 and behind 200,000 old ones."""
    database = platform(postgres_server)
    found = []
    for old in (2_000, 200_000):
        database.sql(
            "truncate compliance_checks; insert into compliance_checks"
            " (order_ref, rule_set, created_at, finished_at, result)"
            f" select 'o', 'r', now() - '1 d'::interval, now() - n * interval '1 s', 'pass'"
            f" from generate_series(1, {old}) as n; vacuum analyze compliance_checks;"
        )
        floor = database.value("select clock_timestamp()")
        database.sql(
            "insert into compliance_checks (order_ref, rule_set, created_at, finished_at, result)"
            " select 'o', 'r', now(), clock_timestamp(), 'pass' from generate_series(1, 100)"
        )
        buffers(database, floor)
        found.append(buffers(database, floor))
    database.drop()
    assert abs(found[1] - found[0]) <= 4, found


@pytest.fixture
def seed() -> Iterator[int]:
    yield random.randrange(1_000_000)


async def test_concurrent_writers_late_commits_and_restarts(bench: Bench, seed: int) -> None:
    """Eight writers, commits up to a second late, exporters ended at any moment: the total is the rows, exactly."""
    dice, stop = random.Random(seed), asyncio.Event()
    first = bench.exporter(batch_rows=40)
    await scrape(first)
    writers = [asyncio.create_task(write(bench.database, random.Random(seed + n), stop)) for n in range(8)]
    exporter, last, end = first, 0.0, time.monotonic() + 6
    while time.monotonic() < end:
        try:
            found = await scrape_within(exporter, dice.choice((0.004, 0.01, 5.0)))
        except Transient:
            found = None
        if found is not None:
            assert found[COUNT] >= last, f"a counter went back (seed {seed})"
            last = found[COUNT]
        if dice.random() < 0.2:
            await bench.end(exporter)
            exporter = bench.exporter(batch_rows=40)
        await asyncio.sleep(dice.random() * 0.05)
    stop.set()
    written = sum(await asyncio.gather(*writers))
    assert written > 100
    for _ in range(200):
        with contextlib.suppress(Transient):  # the first may still meet what the last cut left behind
            last = (await scrape(exporter))[COUNT]
        if last >= written:
            break
    there = int(bench.database.value("select count(*) from compliance_checks"))
    assert (await scrape(exporter))[COUNT] == last == written == there, f"seed {seed}"


async def scrape_within(collector: ComplianceCollector, budget: float) -> dict[tuple[str, ...], float] | None:
    """One scrape with little time, cut off by the engine like a real one; None when it was."""
    engine = ScrapeEngine([collector])
    result = (await engine.scrape(budget))[0]
    flight = engine._flights[collector.name].task
    if flight is not None:
        await asyncio.wait({flight})
    return values(result.samples) if result.success else None


async def write(database: Database, dice: random.Random, stop: asyncio.Event) -> int:
    """Make rows final in transactions that stay open for a while; how many were committed."""
    connection = await asyncpg.connect(database.dsn())
    written = 0
    while not stop.is_set():
        transaction = connection.transaction()
        await transaction.start()
        number = dice.randint(1, 5)
        clock = dice.choice(("now()", "clock_timestamp()"))
        await connection.execute(
            "insert into compliance_checks (order_ref, rule_set, finished_at, result)"
            f" select 'o', 'r', {clock}, 'pass' from generate_series(1, {number})"
        )
        await asyncio.sleep(dice.choice((0.0, 0.02, 0.2, 1.0)) * dice.random())
        if dice.random() < 0.1:
            await transaction.rollback()
        else:
            await transaction.commit()
            written += number
    await connection.close()
    return written
