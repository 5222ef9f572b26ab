"""Retrying failed payments: the payments service's side of docs/payments-contract.md.

    GET  /v1/retries?limit=10          what may be retried now, what not and why, and how the provider does
    POST /v1/payments/{id}/retry       one payment, with X-Attempt-Id, X-Start-By and {"failed_at": as listed}
    GET  /v1/retries/{attempt}         what that attempt began, and how it ended

In: a caller with the token. Out: the row, opened again and ended by what the provider says of the *same* intent and
keys (demo/charging.py); or a refusal, marked by X-Retry-Refused, which proves that nothing began.

Everything that can forbid a retry is asked in the one transaction that opens the row (`SKIP LOCKED`: one owner),
together with the database's clock and the attempt's id. Only failures of the provider, the network or the platform are
retried: never a decline, never what the customer would have to confirm, never an order that was paid, given back or
cancelled. A retry is counted against its card before it begins, in the database.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from demo.charging import KEY_HOURS, Charge, Charging, lock_order
from demo.environment import Environment, secret, whole
from demo.service import DATABASE_ERRORS, Log, Pool, json_error, json_object
from demo.stripe_api import Declined, Rejected, StripeApi, Unknown

RETRYABLE = ("abandoned", "provider_error", "provider_rate_limited", "provider_timeout", "provider_unreachable")
"""Failures of the platform, the provider or the network: the bank was never asked, or nobody knows its answer."""
RETRIES_PER_PAYMENT = 3
CARD_DAYS = 30
CARD_RETRIES_MOST = 15
"""The strictest that the networks allow: Visa 15 tries of one card, amount and currency in any 30 days (20 since May
2025); Mastercard 10 in 24 hours and 35 in 30 days. They count declines, we count every retry of the card. Source:
support.checkout.com, "When can I retry a declined transaction?"."""
AHEAD_SECONDS = 60
"""`start_by` may be so far ahead; one that is further off would outlive what its caller saw."""
LISTED = 100
ANSWERING_SECONDS = 60
"""The tries of so many seconds tell whether the provider answers."""
_ATTEMPT = re.compile(r"[0-9a-f]{32}")
_EXACT = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """`amount` in the currency's smallest unit, at most; `hours` since the row was made; `per_card` in CARD_DAYS."""

    amount: int
    hours: int
    per_card: int

    @classmethod
    def read(cls, environment: Environment) -> RetryLimits:
        """From PREP_RETRY_*. Raises SettingsError; no setting passes the provider's or the networks' own limits."""
        return cls(
            whole(environment, "PREP_RETRY_MAX_AMOUNT_MINOR", 50_000, 1, 1_000_000),
            whole(environment, "PREP_RETRY_MAX_HOURS", KEY_HOURS, 1, KEY_HOURS),
            whole(environment, "PREP_RETRY_PER_CARD", 10, 1, CARD_RETRIES_MOST),
        )


def read_token(environment: Environment) -> str | None:
    """The bearer token in the file PREP_RETRY_TOKEN_FILE; None without one: then nobody may retry."""
    return secret(environment, "PREP_RETRY_TOKEN_FILE", "") if environment.get("PREP_RETRY_TOKEN_FILE") else None


# Why a row may not be retried, or NULL. $1 amount, $2 hours, $3 retryable words, $4 retries of a card, of a payment $5.
_WHY = f"""CASE
    WHEN p.status <> 'failed' THEN 'not_failed'
    WHEN p.failure_reason IS NULL OR NOT p.failure_reason = ANY ($3) THEN 'not_retryable'
    WHEN p.payment_method IS NULL THEN 'no_card'
    WHEN p.created_at < clock_timestamp() - make_interval(hours => $2) THEN 'too_old'
    WHEN p.amount_minor > $1 THEN 'too_large'
    WHEN EXISTS (SELECT FROM cancelled_orders c WHERE c.order_ref = p.order_ref) THEN 'order_cancelled'
    WHEN EXISTS (SELECT FROM payments o WHERE o.order_ref = p.order_ref AND o.status = 'refunded') THEN 'order_refunded'
    WHEN EXISTS (SELECT FROM payments o WHERE o.order_ref = p.order_ref AND o.status IN ('pending', 'succeeded'))
        THEN 'order_paid'
    -- Somebody tried the order again after this: whatever came of it, the customer knows more than we do.
    WHEN EXISTS (SELECT FROM payments o WHERE o.order_ref = p.order_ref AND o.id > p.id) THEN 'order_tried_again'
    WHEN (SELECT count(*) FROM payment_retries r WHERE r.payment_id = p.id) >= $5 THEN 'payment_limit'
    WHEN (SELECT count(*) FROM payment_retries r WHERE r.card = p.card
          AND r.begun_at > clock_timestamp() - interval '{CARD_DAYS} days') >= $4 THEN 'card_limit'
END"""  # noqa: S608 - constants of this module
_LIST = f"""
SELECT p.id, p.order_ref, p.amount_minor, p.currency, p.failure_reason AS reason,
       {_EXACT.format("p.finalized_at")} AS failed_at, {_WHY} AS why
FROM payments p
WHERE p.status = 'failed' AND p.finalized_at > clock_timestamp() - interval '{KEY_HOURS + 1} hours'
  AND p.failure_reason = ANY ($3)
ORDER BY p.id LIMIT 2000
"""  # noqa: S608 - constants of this module
_PROVIDER = f"""
SELECT count(*) FILTER (WHERE status IN ('succeeded', 'refunded')
           OR (status = 'failed' AND NOT failure_reason = ANY ($1))) AS answered,
       count(*) FILTER (WHERE (status = 'failed' AND failure_reason = ANY ($1))
           OR (status = 'pending' AND (failure_reason IS NOT NULL OR created_at < clock_timestamp() - interval '10 s')))
           AS unanswered
FROM payments WHERE created_at > clock_timestamp() - interval '{ANSWERING_SECONDS} seconds'
"""  # noqa: S608
_CLAIM = f"""
SELECT p.*, {_EXACT.format("p.finalized_at")} AS failed_at, {_WHY} AS why,
       extract(epoch FROM clock_timestamp())::float8 AS now
FROM payments p WHERE p.id = $6 FOR UPDATE OF p SKIP LOCKED
"""  # noqa: S608
_FAILURES = """
SELECT failure_reason AS reason, count(*) AS payments,
       extract(epoch FROM clock_timestamp() - max(finalized_at))::float8 AS newest_seconds_ago
FROM payments WHERE status = 'failed' AND finalized_at > clock_timestamp() - interval '1 hour'
GROUP BY 1 ORDER BY 2 DESC
"""


class Refused(Exception):
    """Nothing began, and nothing will: `word` is the contract's, `status` that of the answer."""

    def __init__(self, word: str, status: int = 409) -> None:
        super().__init__(word)
        self.word = word
        self.status = status


class Retries:
    """The three calls. `open` gives it what it works with, once the service has started."""

    def __init__(self, limits: RetryLimits, token: str | None) -> None:
        self._limits = limits
        self._token = token
        self._log: Log = structlog.get_logger("demo")
        self._pool: Pool
        self._stripe: StripeApi
        self._charging: Charging

    def open(self, pool: Pool, stripe: StripeApi, charging: Charging) -> None:
        """Called before the first request."""
        self._pool, self._stripe, self._charging = pool, stripe, charging

    def routes(self) -> Sequence[web.RouteDef]:
        """What the service adds to its own."""
        return (
            web.get("/v1/retries", self.listed),
            web.get(r"/v1/retries/{attempt:[0-9a-f]{32}}", self.attempted),
            web.post(r"/v1/payments/{id:\d{1,18}}/retry", self.retry),
        )

    async def listed(self, request: web.Request) -> web.Response:
        """GET /v1/retries: the oldest first, so that a list that somebody has agreed to stays the same."""
        if answer := self._forbidden(request):
            return answer
        try:
            limit = max(1, min(LISTED, int(request.query.get("limit", "10"))))
        except ValueError:
            return json_error(400, "limit: not a number")
        try:
            async with self._pool.acquire() as connection:
                now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
                rows = [dict(row) for row in await connection.fetch(_LIST, *self._bounds())]
                provider = await connection.fetchrow(_PROVIDER, list(RETRYABLE))
                failures = [dict(row) for row in await connection.fetch(_FAILURES)]
        except DATABASE_ERRORS:
            return json_error(503, "the database does not answer")
        may = [{name: row[name] for name in row if name != "why"} for row in rows if row["why"] is None]
        left = [{"id": row["id"], "why": row["why"]} for row in rows if row["why"] is not None]
        return web.json_response(
            {
                "now": now,
                "provider": {**dict(provider or {}), "seconds": ANSWERING_SECONDS},
                "failures_of_an_hour": failures,
                "retryable": may[:limit],
                "retryable_in_all": len(may),
                "left_out": left[:LISTED],
            }
        )

    async def attempted(self, request: web.Request) -> web.Response:
        """GET /v1/retries/{attempt}: waits for a transaction of the attempt that is under way, so `[]` is the truth."""
        if answer := self._forbidden(request):
            return answer
        attempt = request.match_info["attempt"]
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await _lock_attempt(connection, attempt)
                now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
                rows = await connection.fetch(
                    "SELECT payment_id AS id, coalesce(outcome, 'open') AS status, failure_reason FROM payment_retries"
                    " WHERE attempt = $1 ORDER BY begun_at",
                    attempt,
                )
        except DATABASE_ERRORS:
            return json_error(503, "the database does not answer")
        return web.json_response({"now": now, "begun": [dict(row) for row in rows]})

    async def retry(self, request: web.Request) -> web.Response:
        """POST /v1/payments/{id}/retry."""
        if answer := self._forbidden(request):
            return answer
        number = int(request.match_info["id"])
        try:
            attempt, start_by = _headers(request)
            failed_at = str((await json_object(request)).get("failed_at"))
            async with self._pool.acquire() as connection, connection.transaction():
                await _once(connection, attempt, number)
            method = await self._pool.fetchval("SELECT payment_method FROM payments WHERE id = $1", number)
            card = await self._card(method)
        except Refused as refused:
            return _refusal(refused)
        except DATABASE_ERRORS:
            return _refusal(Refused("unavailable", 503))
        try:
            row = await self._claim(number, attempt, start_by, failed_at, card)
        except Refused as refused:
            return _refusal(refused)
        except DATABASE_ERRORS:
            # The COMMIT may have come through: that is no refusal. GET /v1/retries/{attempt} tells.
            return json_error(500, "the database does not answer; it may have begun")
        self._log.info("payment is retried", payment=number, attempt=attempt)
        try:
            await self._take(row)
            ended = await self._pool.fetchrow("SELECT id, status, failure_reason FROM payments WHERE id = $1", number)
        except DATABASE_ERRORS:
            return json_error(500, "the database does not answer; it has begun")
        return web.json_response(dict(ended or {}), status=202 if ended and ended["status"] == "pending" else 200)

    def _forbidden(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if self._token is not None and hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return None
        return _refusal(Refused("not_allowed", 403))

    def _bounds(self) -> tuple[Any, ...]:
        limits = self._limits
        return (limits.amount, limits.hours, list(RETRYABLE), limits.per_card, RETRIES_PER_PAYMENT)

    async def _card(self, method: str | None) -> str:
        """The card's fingerprint, asked before anything begins: a provider that cannot say it takes no money either."""
        if method is None:
            raise Refused("no_card")
        try:
            card = await self._stripe.card_of(method)
        except Unknown as error:
            raise Refused("provider_unavailable", 503) from error
        except (Declined, Rejected) as error:
            raise Refused("no_card") from error
        if card is None:
            raise Refused("no_card")
        return card

    async def _claim(self, number: int, attempt: str, start_by: float, failed_at: str, card: str) -> Any:
        """Open the row again and count the retry, or raise Refused. The row is this attempt's from here on."""
        async with self._pool.acquire() as connection:
            # Kept also when it is refused: the list then knows whose limit is used up.
            await connection.execute("UPDATE payments SET card = $2 WHERE id = $1 AND card IS NULL", number, card)
            async with connection.transaction():
                await _once(connection, attempt, number)
                order = await connection.fetchval("SELECT order_ref FROM payments WHERE id = $1", number)
                await lock_order(connection, order)
                await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('card/' || $1, 0))", card)
                row = await connection.fetchrow(_CLAIM, *self._bounds(), number)
                if row is None:
                    raise Refused("busy")
                _check(row, start_by, failed_at)
                await connection.execute(
                    "UPDATE payments SET status = 'pending', finalized_at = NULL, tried_at = clock_timestamp(),"
                    " attempts = attempts + 1 WHERE id = $1",
                    number,
                )
                await connection.execute(
                    "INSERT INTO payment_retries (attempt, payment_id, card) VALUES ($1, $2, $3)", attempt, number, card
                )
        return row

    async def _take(self, row: Any) -> None:
        """The same intent, the same keys and parameters; what is not known stays `pending`, for `settle`."""
        if row["stripe_payment_intent"] is not None:
            await self._charging.resume(row["id"], row["stripe_payment_intent"])
            return
        await self._charging.charge(
            Charge(row["id"], row["order_ref"], row["amount_minor"], row["currency"], row["payment_method"])
        )


def _check(row: Any, start_by: float, failed_at: str) -> None:
    """Whether the row is as it was listed, and the attempt in time by the database's clock. Raises Refused."""
    if row["now"] > start_by:
        raise Refused("late", 412)
    if start_by > row["now"] + AHEAD_SECONDS:
        raise Refused("early", 412)
    if row["why"] is not None:
        raise Refused(row["why"])
    if row["failed_at"] != failed_at:
        raise Refused("changed")


async def _once(connection: Any, attempt: str, number: int) -> None:
    """Lock the attempt. Raises Refused when it has begun this payment.

    Asked before anything else: a copy of a call would be refused for what the call itself has changed, or because it is
    late by now, and the caller would take it that nothing began.
    """
    await _lock_attempt(connection, attempt)
    begun = "SELECT true FROM payment_retries WHERE attempt = $1 AND payment_id = $2"
    if await connection.fetchval(begun, attempt, number):
        raise Refused("repeated")


async def _lock_attempt(connection: Any, attempt: str) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('attempt/' || $1, 0))", attempt)


def _headers(request: web.Request) -> tuple[str, float]:
    """X-Attempt-Id (32 hex digits) and X-Start-By (UNIX seconds). Raises Refused."""
    attempt = request.headers.get("X-Attempt-Id", "")
    try:
        start_by = float(request.headers.get("X-Start-By", ""))
    except ValueError as error:
        raise Refused("no_attempt", 428) from error
    if not _ATTEMPT.fullmatch(attempt):
        raise Refused("no_attempt", 428)
    return attempt, start_by


def _refusal(refused: Refused) -> web.Response:
    answer = web.json_response({"refused": refused.word}, status=refused.status)
    answer.headers["X-Retry-Refused"] = refused.word
    return answer
