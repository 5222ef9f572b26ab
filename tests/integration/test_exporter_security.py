"""The collector `security` on a real audit log: logins and locks once each, and never whose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exporter.catalog.security import LOGIN_FAILURES
from exporter.collectors.security import reading
from exporter.cursor_settings import SecurityCollector as SecuritySettings
from exporter.errors import Permanent
from exporter.samples import faults
from tests.integration.cursor_bench import CursorBench, Values, scrape
from tests.integration.exporter_parts import ROLE, ROLE_PASSWORD, in_seconds, platform
from tests.support.servers import PostgresServer, SqlFailed, wait_until

LOGINS = ("security_logins_total",)
LOCKS = ("security_account_locks_total",)
LOCKED = ("security_locked_accounts",)


class Bench(CursorBench):
    """An audit log on a database."""

    def log(self, number: int = 1, event: str = "login", outcome: str = "success", reason: str | None = None) -> None:
        """Events that have just happened."""
        word = "null" if reason is None else f"'{reason}'"
        self.database.sql(
            "insert into audit_log (event, outcome, reason, user_ref)"
            f" select '{event}', '{outcome}', {word}, 'ann@example.org' from generate_series(1, {number})"
        )

    def lock(self, number: int) -> None:
        """Accounts that are locked from now on."""
        self.database.sql(
            f"insert into users (user_ref, locked_at) select gen_random_uuid(), now() from generate_series(1, {number})"
        )


@pytest.fixture
async def bench(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(platform(postgres_server), tmp_path, SecuritySettings, reading)
    yield bench
    await bench.end_all()


def failed(found: Values) -> dict[str, float]:
    return {key[1]: value for key, value in found.items() if key[0] == "security_logins_failed_total"}


async def test_logins_and_locks_are_counted_by_reason(bench: Bench) -> None:
    """Every reason is there at 0 first; a word that nobody has listed is `other`; other events are nobody's business."""
    bench.log(50, outcome="failure", reason="wrong_password")
    exporter = bench.exporter()
    first = await scrape(exporter)
    assert failed(first) == dict.fromkeys(LOGIN_FAILURES, 0)
    assert (first[LOGINS], first[LOCKS], first[LOCKED]) == (0, 0, 0)
    bench.log(7)
    bench.log(5, outcome="failure", reason="wrong_password")
    bench.log(2, outcome="failure", reason="unknown_user")
    bench.log(3, outcome="failure", reason="ann@example.org is away")
    bench.log(1, outcome="failure")
    bench.log(2, "account_locked")
    bench.log(9, "order_viewed")
    bench.lock(4)
    collected = await exporter.collect(in_seconds(5))
    assert faults(collected.samples) == []
    found = await scrape(exporter)
    assert (found[LOGINS], found[LOCKS], found[LOCKED]) == (18, 2, 4)
    assert failed(found) == {
        "wrong_password": 5, "unknown_user": 2, "account_locked": 0, "second_factor": 0, "other": 4
    }  # fmt: skip
    assert "example" not in repr(found)
    assert "example" not in (bench.folder / "state.json").read_text()


async def test_the_role_cannot_read_whose_it_was(bench: Bench) -> None:
    """The shipped grants end before the names: not even by mistake could one be shown."""
    for column in ("user_ref from audit_log", "user_ref from users", "id from users"):
        with pytest.raises(SqlFailed, match="permission denied"):
            bench.database.sql(f"select {column}", ROLE, ROLE_PASSWORD)
    assert (await scrape(bench.exporter()))[LOCKED] == 0


async def test_restart_and_burst(bench: Bench) -> None:
    """50,000 events while nobody looked: counted exactly over the next scrapes, after a restart."""
    first = bench.exporter()
    await scrape(first)
    bench.log(3)
    assert (await scrape(first))[LOGINS] == 3
    await bench.end(first)
    bench.log(50_000, outcome="failure", reason="wrong_password")
    second = bench.exporter()
    seen = [(await scrape(second))[LOGINS] for _ in range(4)]
    assert seen == [20_003, 40_003, 50_003, 50_003]
    assert failed(await scrape(second))["wrong_password"] == 50_000


async def test_event_of_a_late_commit_is_counted(bench: Bench) -> None:
    """An attack that is written in one long transaction is seen when it is committed."""
    exporter = bench.exporter()
    await scrape(exporter)
    late = (
        "begin; insert into audit_log (event, outcome, reason, user_ref)"
        " select 'login', 'failure', 'unknown_user', 'x' from generate_series(1, 6)"
    )
    with bench.database.server.session(late, bench.database.name) as session:
        wait_until(lambda: bench.database.server.backends(f"pid = {session.pid} and backend_xid is not null"), "it", 10)
        bench.log(2)
        assert (await scrape(exporter))[LOGINS] == 2
        session.run("commit;")
        wait_until(lambda: bench.database.value("select count(*) from audit_log") == "8", "the commit", 10)
    assert failed(await scrape(exporter))["unknown_user"] == 6


async def test_without_a_table_of_accounts_the_locks_are_counted(bench: Bench) -> None:
    """No table, no gauge; the rest is as before."""
    bench.database.sql("drop table users")
    exporter = bench.exporter(accounts=None)
    await scrape(exporter)
    bench.log(2, "account_locked")
    found = await scrape(exporter)
    assert found[LOCKS] == 2
    assert LOCKED not in found


async def test_missing_table_is_an_error_and_no_number(bench: Bench) -> None:
    """A platform without an audit log has no zeros that look like peace."""
    bench.database.sql("drop table audit_log")
    with pytest.raises(Permanent, match="audit_log"):
        await bench.exporter().collect(in_seconds(5))


def test_cost_does_not_depend_on_the_tables_size(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """The same new events cost the same buffers behind 2,000 and behind 200,000 old ones of all kinds."""
    bench = Bench(platform(postgres_server), tmp_path, SecuritySettings, reading)
    found = []
    for old in (2_000, 200_000):
        bench.database.sql(
            "truncate audit_log; insert into audit_log (at, event, outcome, user_ref)"
            " select now() - n * interval '1 s', case when n % 2 = 0 then 'login' else 'order_viewed' end, 'success', 'u'"
            f" from generate_series(1, {old}) as n; vacuum analyze audit_log"
        )
        floor = bench.database.value("select clock_timestamp()")
        bench.log(100)
        (read,) = reading(SecuritySettings()).rows
        bench.buffers(read, floor)
        found.append(bench.buffers(read, floor))
    bench.database.drop()
    assert abs(found[1] - found[0]) <= 4, found
