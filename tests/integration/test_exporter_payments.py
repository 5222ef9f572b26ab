"""The collector `payments` on a real table: each payment once when it is final, declines apart, refunds whenever."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exporter.catalog.payments import DECLINE_REASONS, FAILURE_REASONS
from exporter.collectors.payments import reading
from exporter.cursor_settings import PaymentsCollector as PaymentsSettings
from exporter.errors import Permanent
from exporter.samples import faults
from tests.integration.cursor_bench import CursorBench, Values, scrape, seed
from tests.integration.exporter_parts import in_seconds, platform
from tests.support.servers import PostgresServer, wait_until

CARD = ("stripe", "card")
FINAL = ("payments_finalized_total", *CARD)
REFUNDED = ("payments_refunded_total", *CARD)
CATCHING_UP = ("payments_cursor_catching_up",)
CUT = ("payments_cursor_overlap_cut",)
CUTS = ("payments_cursor_overlap_cuts_total",)


class Bench(CursorBench):
    """Payments on a database."""

    def pay(
        self,
        number: int = 1,
        status: str = "succeeded",
        reason: str | None = None,
        provider: str = "stripe",
        method: str = "card",
        seconds: float = 0.2,
    ) -> None:
        """Payments that have just become final."""
        word = "null" if reason is None else f"'{reason}'"
        self.database.sql(
            "insert into payments (order_ref, amount_minor, currency, provider, method, status, failure_reason,"
            f" created_at, finalized_at) select gen_random_uuid(), 100, 'usd', '{provider}', '{method}', '{status}', {word},"
            f" now - {seconds} * interval '1 s', now from generate_series(1, {number}),"
            " (select clock_timestamp() as now) as clock"
        )

    def refund(self, where: str = "true") -> int:
        """Give the money back for some that succeeded; for how many."""
        return len(
            self.database.sql(
                "update payments set status = 'refunded', refunded_at = clock_timestamp()"
                f" where status = 'succeeded' and {where} returning id"
            )
        )


@pytest.fixture
async def bench(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(platform(postgres_server), tmp_path, PaymentsSettings, reading)
    yield bench
    await bench.end_all()


def failed(found: Values, reason: str, *labels: str) -> float:
    return found["payments_failed_total", *(labels or CARD), reason]


def declined(found: Values, reason: str) -> float:
    return found["payments_declined_total", *CARD, reason]


async def test_known_series_are_there_at_0_and_the_past_is_not_counted(bench: Bench) -> None:
    """The first scrape shows every combination of configured names and reasons; what was final before is not in it."""
    bench.pay(30)
    bench.pay(3, "failed", "card_declined")
    exporter = bench.exporter(providers=["stripe", "adyen"], methods=["card", "transfer"])
    collected = await exporter.collect(in_seconds(5))
    assert faults(collected.samples) == []
    first = await scrape(exporter)
    counters = {key: value for key, value in first.items() if key[0].endswith("_total") and len(key) > 1}
    assert set(counters.values()) == {0}
    assert len(counters) == 3 * 3 * (1 + len(FAILURE_REASONS) + len(DECLINE_REASONS) + 1)
    assert first["payment_duration_seconds",] == 0


async def test_ends_are_told_apart(bench: Bench) -> None:
    """Successes, failures by whose they are, and declines; a word or a name that nobody has listed is `other`."""
    exporter = bench.exporter()
    await scrape(exporter)
    bench.pay(10)
    bench.pay(1, "failed", "invalid_request")
    bench.pay(2, "failed", "provider_error")
    bench.pay(3, "failed", "provider_timeout")
    bench.pay(4, "failed", "a word that nobody knows")
    bench.pay(1, "failed", None)
    bench.pay(6, "failed", "card_declined")
    bench.pay(7, "failed", "insufficient_funds")
    bench.pay(1, "succeeded", "card_declined")  # a first try that was refused and a second one that was not
    bench.pay(2, "failed", "x" * 5000, provider="evil\nprovider{}", method="card")
    found = await scrape(exporter)
    assert found[FINAL] == 35
    assert [failed(found, reason) for reason in FAILURE_REASONS] == [1, 2, 3, 5]
    assert (declined(found, "refused_by_bank"), declined(found, "insufficient_funds")) == (6, 7)
    assert found["payments_finalized_total", "other", "card"] == 2
    assert failed(found, "other", "other", "card") == 2
    assert found["payment_duration_seconds",] == 37
    names = {label for key in found for label in key[1:]}
    assert names <= {"stripe", "card", "other", *FAILURE_REASONS, *DECLINE_REASONS}


async def test_queue(bench: Bench) -> None:
    """Payments that are not final, and since when the oldest of them waits."""
    exporter = bench.exporter()
    assert ("payments_oldest_pending_start_timestamp_seconds",) not in await scrape(exporter)
    bench.database.sql(
        "insert into payments (order_ref, amount_minor, currency, provider, method, status, created_at)"
        " select n, 1, 'usd', 'stripe', 'card', 'pending', clock_timestamp() - n * interval '1 minute'"
        " from generate_series(1, 4) as n"
    )
    found = await scrape(exporter)
    assert (found["payments_pending",], found[FINAL]) == (4, 0)
    assert time.time() - found["payments_oldest_pending_start_timestamp_seconds",] == pytest.approx(240, abs=5)
    bench.database.sql("update payments set status = 'succeeded', finalized_at = clock_timestamp()")
    found = await scrape(exporter)
    assert (found["payments_pending",], found[FINAL]) == (0, 4)


async def test_refund_counts_once_and_takes_nothing_back(bench: Bench) -> None:
    """Of a payment counted long ago, just now, or not yet: one refund each, and no payment is final twice."""
    bench.pay(5)
    bench.database.sql(
        "update payments set created_at = now() - '2 y'::interval, finalized_at = now() - '1 y'::interval"
    )
    first = bench.exporter()
    await scrape(first)
    bench.pay(4)
    assert (await scrape(first))[FINAL] == 4
    await bench.end(first)
    second = bench.exporter()
    assert bench.refund() == 9
    bench.pay(2)
    assert bench.refund("finalized_at > now() - '1 h'::interval") == 2
    for _ in range(3):
        found = await scrape(second)
        assert (found[FINAL], found[REFUNDED]) == (6, 11)
        time.sleep(0.2)
    assert sum(value for key, value in found.items() if key[0] == "payments_failed_total") == 0


async def test_table_without_refunds_has_none(bench: Bench) -> None:
    """Where no column tells when a refund was made, there is no counter that would stay at 0 for ever."""
    bench.database.sql("alter table payments drop column refunded_at")
    exporter = bench.exporter(table={"refunded_at": None})
    await scrape(exporter)
    bench.pay(3)
    found = await scrape(exporter)
    assert found[FINAL] == 3
    assert not [key for key in found if key[0] == "payments_refunded_total"]


async def test_other_names_are_a_matter_of_configuration(bench: Bench) -> None:
    """Another schema, table, columns and words, also such as must be quoted: the same counters."""
    bench.database.sql(
        "create schema ledger; create type ledger.state as enum ('open', 'done', 'lost');"
        'create table ledger."Charge" ("Id" int primary key, began timestamptz, "end" timestamptz, "user" text,'
        ' "State" ledger.state, gateway text, kind text);'
        'grant usage on schema ledger to prep_exporter; grant select on ledger."Charge" to prep_exporter'
    )
    table = {
        "name": "ledger.Charge", "id": "Id", "created_at": "began", "finalized_at": "end", "refunded_at": None,
        "status": "State", "failure_reason": "user", "provider": "gateway", "method": "kind",
        "pending_status": "open", "failed_status": "lost",
    }  # fmt: skip
    exporter = bench.exporter(table=table, providers=["bank"], methods=["debit"], declines={"other": ["no"]})
    await scrape(exporter)
    bench.database.sql(
        "insert into ledger.\"Charge\" values (2147483647, '-infinity', clock_timestamp(), 'no', 'lost', 'bank', 'debit'),"
        " (2, now(), clock_timestamp(), null, 'done', 'bank', 'debit'), (3, now(), null, null, 'open', 'bank', 'debit')"
    )
    found = await scrape(exporter)
    assert found["payments_finalized_total", "bank", "debit"] == 2
    assert found["payments_declined_total", "bank", "debit", "other"] == 1
    assert found["payments_pending",] == 1


async def test_burst_is_counted_exactly_over_the_next_scrapes(bench: Bench) -> None:
    """50,000 payments and 10,000 refunds between two scrapes: flagged until all are counted, then exact."""
    exporter = bench.exporter(batch_rows=25_000)
    await scrape(exporter)
    bench.pay(40_000)
    bench.pay(10_000, "failed", "card_declined")
    assert bench.refund("id % 4 = 0") == 10_000
    flags, totals = [], []
    for _ in range(5):
        found = await scrape(exporter)
        flags.append(found[CATCHING_UP])
        totals.append(found[FINAL] + found[REFUNDED])
    assert flags == [1, 1, 0, 0, 0]
    assert totals == [25_000, 50_000, 60_000, 60_000, 60_000]
    assert (found[FINAL], found[REFUNDED], declined(found, "refused_by_bank")) == (50_000, 10_000, 10_000)


async def test_restart_takes_nothing_back(bench: Bench) -> None:
    """What was counted stays, what came meanwhile is counted, and another set of words holds from then on."""
    first = bench.exporter()
    await scrape(first)
    bench.pay(3, "failed", "strange")
    assert failed(await scrape(first), "other") == 3
    await bench.end(first)
    bench.pay(2, "failed", "strange")
    second = bench.exporter(failures={"provider": ["strange"]}, providers=["stripe", "adyen"])
    found = await scrape(second)
    assert (found[FINAL], failed(found, "other"), failed(found, "provider")) == (5, 3, 2)


async def test_row_that_is_deleted_or_restated_stays_what_it_was(bench: Bench) -> None:
    """A counted row that changes its word, or goes, changes no counter; its old time is not counted again."""
    exporter = bench.exporter()
    await scrape(exporter)
    bench.pay(4, "failed", "provider_error")
    assert failed(await scrape(exporter), "provider") == 4
    bench.database.sql("update payments set status = 'succeeded', failure_reason = null where id % 2 = 0")
    bench.database.sql("delete from payments where id % 2 = 1")
    found = await scrape(exporter)
    assert (found[FINAL], failed(found, "provider")) == (4, 4)


async def test_cut_overlap_is_counted_over_a_restart(bench: Bench) -> None:
    """A gauge that was 1 between two scrapes of Prometheus is not seen; the counter beside it stays."""
    exporter = bench.exporter(overlap="500ms", margin="100ms")
    assert (await scrape(exporter))[CUTS] == 0
    with bench.database.server.session("begin; select 1", bench.database.name):
        time.sleep(0.8)
        assert (await scrape(exporter))[CUT] == 1
    await bench.end(exporter)
    found = await scrape(bench.exporter(overlap="500ms", margin="100ms"))
    assert (found[CUT], found[CUTS]) == (0, 1)


async def test_late_commits_of_payments_and_refunds_are_counted(bench: Bench) -> None:
    """Stamped early and committed late, while others are counted: neither kind is lost or counted twice."""
    exporter = bench.exporter()
    bench.pay(5)
    await scrape(exporter)
    late = (
        "begin; update payments set status = 'refunded', refunded_at = now() where status = 'succeeded';"
        " insert into payments (order_ref, amount_minor, currency, provider, method, status, finalized_at)"
        " select 'late' || n, 1, 'usd', 'stripe', 'card', 'failed', now() from generate_series(1, 3) as n"
    )
    with bench.database.server.session(late, bench.database.name) as session:
        wait_until(lambda: bench.database.server.backends(f"pid = {session.pid} and backend_xid is not null"), "it", 10)
        for turn in range(3):
            bench.pay(2)
            time.sleep(0.4)
            found = await scrape(exporter)
            assert (found[FINAL], found[REFUNDED]) == (2 * (turn + 1), 0)
        session.run("commit;")
        wait_until(lambda: bench.database.value("select count(*) from payments") == "14", "the commit", 10)
    found = await scrape(exporter)
    assert (found[FINAL], found[REFUNDED], failed(found, "other")) == (9, 5, 3)


async def test_missing_grant_is_an_error_and_no_number(bench: Bench) -> None:
    """Without the right to a column there is nothing, and the fault says what was refused."""
    exporter = bench.exporter()
    bench.database.sql("revoke select (refunded_at) on payments from prep_exporter")
    with pytest.raises(Permanent, match="permission denied for table payments"):
        await exporter.collect(in_seconds(5))


def test_cost_does_not_depend_on_the_tables_size(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """The same new payments and refunds cost the same buffers behind 2,000 and behind 200,000 old rows."""
    bench = Bench(platform(postgres_server), tmp_path, PaymentsSettings, reading)
    database, found = bench.database, []
    for old in (2_000, 200_000):
        database.sql(
            "truncate payments; insert into payments (order_ref, amount_minor, currency, provider, method, status,"
            " created_at, finalized_at, refunded_at) select n, 1, 'usd', 'stripe', 'card', 'refunded', now() - '9 d'::interval,"
            f" now() - n * interval '1 s', now() - n * interval '1 s' from generate_series(1, {old}) as n;"
            " vacuum analyze payments"
        )
        floor = database.value("select clock_timestamp()")
        bench.pay(100)
        bench.refund("finalized_at > now() - '5 s'::interval")
        reads = reading(PaymentsSettings()).rows
        for read in reads:
            bench.buffers(read, floor)
        found.append([bench.buffers(read, floor) for read in reads])
    database.drop()
    assert all(abs(large - small) <= 4 for small, large in zip(*found, strict=True)), found


async def test_random_life_of_payments_is_counted_exactly(bench: Bench) -> None:
    """Ends, refunds, changed words, deleted rows, restarts in random order: the counters are what happened."""
    number = seed()
    dice = random.Random(number)
    exporter = bench.exporter(batch_rows=7)
    await scrape(exporter)
    paid = refunded = 0
    for _ in range(60):
        match dice.randrange(6):
            case 0 | 1:
                rows = dice.randint(1, 9)
                bench.pay(rows, *dice.choice((("succeeded", None), ("failed", "card_declined"), ("failed", "?"))))
                paid += rows
            case 2:
                refunded += bench.refund(f"id % {dice.randint(1, 4)} = 0")
            case 3:
                await scrape(exporter)
            case 4:
                await bench.end(exporter)
                exporter = bench.exporter(batch_rows=7)
            case 5:
                if (await settled(exporter)) == (paid, refunded):
                    bench.database.sql(f"delete from payments where id % {dice.randint(2, 5)} = 0")
    assert await settled(exporter) == (paid, refunded), f"seed {number}"


async def settled(exporter: object) -> tuple[float, float]:
    """The counters once nothing is left to catch up with."""
    for _ in range(200):
        found = await scrape(exporter)  # type: ignore[arg-type]
        if not found[CATCHING_UP]:
            break
    return found[FINAL], found[REFUNDED]
