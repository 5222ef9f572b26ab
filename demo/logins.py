"""The demo's logins: who tries to get in, and what the audit log says of it.

In: a seed, a rate, PostgreSQL. Out: rows of `audit_log`, and `users.locked_at` for an account whose password was wrong
LOCK_AFTER times in a row. Written straight into the database, since the platform of the demo has no service that people
log in to. It must never stop for a database that is away: what happens meanwhile is not written, as with a real one.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass

import asyncpg
import structlog

from demo.environment import Environment, Postgres, number
from demo.service import DATABASE_ERRORS, STATEMENT_SECONDS, Log, Pool, close_pool

ACCOUNTS = 120
"""Of seed.sql: kitchen-001 to kitchen-120."""
LOCK_AFTER = 5
"""Wrong passwords in a row."""
UNLOCK_SECONDS = 180.0
"""A locked account is opened again after this long."""
OUTCOMES = {"good": 0.93, "wrong_password": 0.05, "second_factor": 0.01, "unknown_user": 0.01}
"""A quiet day: of 100 logins 7 go wrong."""
GUESSING = 0.008
"""Share of logins that begin a row of guesses at one account's password."""

_UNLOCK = "UPDATE users SET locked_at = NULL WHERE locked_at < clock_timestamp() - make_interval(secs => $1)"
_IS_LOCKED = "SELECT locked_at IS NOT NULL FROM users WHERE user_ref = $1"
_LOCK = "UPDATE users SET locked_at = clock_timestamp() WHERE user_ref = $1 AND locked_at IS NULL"
_LOG = "INSERT INTO audit_log (event, outcome, reason, user_ref) VALUES ($1, $2, $3, $4)"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login; `mistake` is what is wrong with it, None when nothing is."""

    user_ref: str
    mistake: str | None


class Attempts:
    """An endless row of logins: two with one seed are the same."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"{seed}/logins")
        self._guesses: deque[Attempt] = deque()

    def gap(self, rate: float) -> float:
        """Seconds until the next login, `rate` a second on average."""
        return self._random.expovariate(rate)

    def next(self) -> Attempt:
        """The next login."""
        if self._guesses:
            return self._guesses.popleft()
        user = f"kitchen-{self._random.randint(1, ACCOUNTS):03d}"
        if self._random.random() < GUESSING:
            self._guesses.extend(Attempt(user, "wrong_password") for _ in range(self._random.randint(3, 8)))
            return self._guesses.popleft()
        outcome = self._random.choices(list(OUTCOMES), list(OUTCOMES.values()))[0]
        if outcome == "unknown_user":
            return Attempt(f"visitor-{self._random.randrange(1_000_000):06d}", outcome)
        return Attempt(user, None if outcome == "good" else outcome)


class Logins:
    """Logins that never stop, and their rows."""

    def __init__(self, environment: Environment, seed: int) -> None:
        self._postgres = Postgres.read(environment)
        self._rate = number(environment, "PREP_LOAD_LOGINS_PER_SECOND", 0.5, 0.01, 100.0)
        self._attempts = Attempts(seed)
        self._wrong: dict[str, int] = {}
        """Wrong passwords in a row, by account."""
        self._log: Log = structlog.get_logger("demo")

    async def run(self) -> None:
        """Log in until cancelled."""
        settings = self._postgres
        # No connection is opened yet: the database may be away, and may come later.
        pool: Pool = asyncpg.create_pool(
            host=settings.host, port=settings.port, database=settings.database,
            user=settings.user, password=settings.password,
            min_size=0, max_size=1, timeout=3.0, command_timeout=STATEMENT_SECONDS,
            server_settings={"application_name": "logins"},
        )  # fmt: skip
        await pool
        try:
            while True:
                await asyncio.sleep(self._attempts.gap(self._rate))
                await self._try(pool, self._attempts.next())
        finally:
            await close_pool(pool)

    async def _try(self, pool: Pool, attempt: Attempt) -> None:
        try:
            async with pool.acquire(timeout=STATEMENT_SECONDS) as connection, connection.transaction():
                await self.write(connection, attempt)
        except DATABASE_ERRORS as error:
            self._log.warning("a login is not in the audit log", reason=str(error) or type(error).__name__)

    async def write(self, connection: asyncpg.Connection, attempt: Attempt) -> None:
        """One login's rows, with those of the lock that it may bring."""
        await connection.execute(_UNLOCK, UNLOCK_SECONDS)
        locked = await connection.fetchval(_IS_LOCKED, attempt.user_ref)
        reason = "unknown_user" if locked is None else "account_locked" if locked else attempt.mistake
        await connection.execute(_LOG, "login", "failure" if reason else "success", reason, attempt.user_ref)
        if reason == "wrong_password":
            self._wrong[attempt.user_ref] = wrong = self._wrong.get(attempt.user_ref, 0) + 1
            if wrong >= LOCK_AFTER:
                await connection.execute(_LOCK, attempt.user_ref)
                await connection.execute(_LOG, "account_locked", "success", None, attempt.user_ref)
                del self._wrong[attempt.user_ref]
        elif reason is None:
            self._wrong.pop(attempt.user_ref, None)
