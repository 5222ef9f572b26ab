"""The demo's logins: an audit log as a real platform has one, and accounts that are locked and opened again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import asyncpg
import pytest

from demo.logins import LOCK_AFTER, Attempt, Attempts, Logins
from demo.service import Pool
from tests.integration.demo_platform import DATABASE, Platform
from tests.support.servers import PostgresServer, RedisServer, Run, wait_until


@pytest.fixture(scope="module")
def platform(run: Run, redis_server: RedisServer) -> Iterator[Platform]:
    platform = Platform(run, PostgresServer(run).start(), redis_server)
    yield platform
    platform.postgres.stop()


@pytest.fixture
async def pool(platform: Platform) -> object:
    platform.sql("truncate audit_log; update users set locked_at = null")
    pool = await asyncpg.create_pool(
        host="127.0.0.1", port=platform.postgres.port, database=DATABASE, user="prep_app",
        password=platform.password("app"), min_size=1, max_size=1,
    )  # fmt: skip
    yield pool
    await pool.close()


def test_one_seed_is_one_row_of_logins() -> None:
    """Two runs are the same; most logins are good, some are not, and now and then somebody guesses."""
    first, second = Attempts(7), Attempts(7)
    rows = [first.next() for _ in range(3000)]
    assert rows == [second.next() for _ in range(3000)]
    outcomes = Counter(row.mistake for row in rows)
    assert set(outcomes) == {None, "wrong_password", "second_factor", "unknown_user"}
    assert 0.8 < outcomes[None] / len(rows) < 0.95


async def test_guessing_locks_the_account_and_time_opens_it(platform: Platform, pool: Pool) -> None:
    """LOCK_AFTER wrong passwords in a row lock; then the right one is refused too, until the lock is old."""
    logins = Logins(platform.environment, 1)

    async def go(user: str, mistake: str | None, times: int = 1) -> None:
        for _ in range(times):
            async with pool.acquire() as connection:
                await logins.write(connection, Attempt(user, mistake))

    await go("kitchen-001", "wrong_password", LOCK_AFTER - 1)
    await go("kitchen-001", None)
    await go("kitchen-001", "wrong_password", LOCK_AFTER)
    await go("kitchen-001", None)
    await go("visitor-1", None)
    assert platform.sql("select user_ref from users where locked_at is not null") == [["kitchen-001"]]
    logged = platform.sql("select event, outcome, reason, count(*) from audit_log group by 1, 2, 3 order by 1, 2, 3")
    assert logged == [
        ["account_locked", "success", "", "1"],
        ["login", "failure", "account_locked", "1"],
        ["login", "failure", "unknown_user", "1"],
        ["login", "failure", "wrong_password", str(2 * LOCK_AFTER - 1)],
        ["login", "success", "", "1"],
    ]
    platform.sql("update users set locked_at = locked_at - interval '1 h' where locked_at is not null")
    await go("kitchen-001", None)
    assert platform.sql("select count(*) from users where locked_at is not null") == [["0"]]


def test_load_logs_in_also_after_the_database_was_away(platform: Platform) -> None:
    """The load generator writes them; a restart of PostgreSQL costs the logins of that time, not the generator."""
    with platform.service("load", PREP_LOAD_LOGINS_PER_SECOND="50") as load:

        def logged() -> int:
            return int(platform.sql("select count(*) from audit_log where event = 'login'")[0][0])

        wait_until(lambda: logged() > 20, "logins", 20, seen=load.tail)
        platform.postgres.stop()
        platform.postgres.start()
        before = logged()
        wait_until(lambda: logged() > before + 20, "logins after the restart", 20, seen=load.tail)
