"""Payments: takes the money for an order, once.

    POST /v1/payments        {"order_ref", "amount_minor", "currency", "payment_method"}
                             201 succeeded, 402 declined, 202 not known yet, 409 the order is paid for otherwise
    POST /v1/payments/{id}/refund
                             200 refunded (now or before), 202 not known yet: ask again, 409 nothing to give back
    POST /v1/orders/{order_ref}/cancel
                             200 cancelled: it is never paid from now on, 409 a payment is open or has succeeded
    GET  /v1/payments/{id}
    GET  /v1/retries and what belongs to it: demo/retries.py
    GET  /health, /metrics

**Never two charges for one row**: demo/charging.py. **Never two rows for one order**: a unique index over the rows that
are pending or succeeded.

What is not known (the provider gave no answer, the service was killed) stays `pending`; `Payments.settle` reads the
intent and ends the row by what it says. It never makes an intent. Why a row had to stay open is noted in
`failure_reason` meanwhile, so that one which is given up says whose failure that was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import asyncpg
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from demo.charging import KEY_HOURS, Charge, Charging, lock_order
from demo.environment import Environment, Postgres, number, secret, text
from demo.heartbeat import beat_forever
from demo.retries import Retries, RetryLimits, read_token
from demo.service import (
    DATABASE_ERRORS,
    Log,
    Pool,
    beside,
    close_pool,
    faults_of,
    json_error,
    json_object,
    main,
    open_pool,
    publish_pool,
)
from demo.stripe_api import CALL_SECONDS, Declined, Rejected, StripeApi, Unknown, open_stripe
from exporter.pools import PoolMetrics

PORT = 8080
SETTLE_ROWS = 20
"""Rows looked at in one round."""
BODY_BYTES = 16 * 1024

_ROW = "id, order_ref, amount_minor, currency, provider, method, status, failure_reason, stripe_payment_intent"
_BY_ID = f"SELECT {_ROW} FROM payments WHERE id = $1"  # noqa: S608 - a constant
_BY_ORDER = f"SELECT {_ROW} FROM payments WHERE order_ref = $1 AND status IN ('pending', 'succeeded')"  # noqa: S608


class PaymentRequest(BaseModel):
    """Body of POST /v1/payments. `amount_minor` is in the currency's smallest unit (cents)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order_ref: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    amount_minor: int = Field(ge=50, le=1_000_000, strict=True)
    currency: Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$")]
    payment_method: Annotated[str, StringConstraints(pattern=r"^pm_[A-Za-z0-9_]{1,64}$")]


class Payments:
    """The service's handlers, and what ends the rows that they could not end."""

    def __init__(self, pool: Pool, stripe: StripeApi) -> None:
        self._pool = pool
        self._stripe = stripe
        self.charging = Charging(pool, stripe)
        self._log: Log = structlog.get_logger("demo")

    async def create(self, request: web.Request) -> web.Response:
        """POST /v1/payments."""
        try:
            wanted = PaymentRequest.model_validate(await json_object(request))
        except ValidationError as error:
            return json_error(400, faults_of(error))
        try:
            number = await self._insert(wanted)
            if number is None:
                return await self._existing(wanted)
            await self.charging.charge(
                Charge(number, wanted.order_ref, wanted.amount_minor, wanted.currency, wanted.payment_method)
            )
            return _answer(await self._row(number))
        except DATABASE_ERRORS as error:
            # The row, if it is there, is pending and settle() ends it; a charge without one cannot be.
            self._log.warning("cannot take a payment", order_ref=wanted.order_ref, reason=_reason(error))
            return json_error(503, "the database does not answer")

    async def show(self, request: web.Request) -> web.Response:
        """GET /v1/payments/{id}."""
        try:
            row = await self._row(int(request.match_info["id"]))
        except DATABASE_ERRORS:
            return json_error(503, "the database does not answer")
        return json_error(404, "there is no such payment") if row is None else web.json_response(dict(row))

    async def refund(self, request: web.Request) -> web.Response:
        """POST /v1/payments/{id}/refund: the money goes back, once: the key of the call is made of the row's id."""
        try:
            row = await self._row(int(request.match_info["id"]))
            if row is None:
                return json_error(404, "there is no such payment")
            if row["status"] == "succeeded":
                try:
                    await self._stripe.refund(f"prep-payment-{row['id']}-refund", row["stripe_payment_intent"])
                except Unknown as error:
                    self._log.warning("not known whether it was refunded", payment=row["id"], reason=str(error))
                    return json_error(202, "the provider does not answer; ask again")
                except (Declined, Rejected) as error:
                    return json_error(409, f"the provider refuses: {error}")
                await self._pool.execute(
                    "UPDATE payments SET status = 'refunded', refunded_at = clock_timestamp()"
                    " WHERE id = $1 AND status = 'succeeded'",
                    row["id"],
                )
                row = await self._row(row["id"])
        except DATABASE_ERRORS:
            return json_error(503, "the database does not answer")
        if row is None or row["status"] != "refunded":
            return json_error(409, "there is nothing to give back")
        return web.json_response(dict(row))

    async def cancel_order(self, request: web.Request) -> web.Response:
        """POST /v1/orders/{order_ref}/cancel: it will not be paid any more, neither anew nor by a retry."""
        order_ref = request.match_info["order_ref"]
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await lock_order(connection, order_ref)
                row = await connection.fetchrow(_BY_ORDER, order_ref)
                if row is not None:
                    return json_error(409, f"payment {row['id']} of the order is {row['status']}; refund it instead")
                await connection.execute(
                    "INSERT INTO cancelled_orders (order_ref) VALUES ($1) ON CONFLICT DO NOTHING", order_ref
                )
        except DATABASE_ERRORS:
            return json_error(503, "the database does not answer")
        return web.json_response({"order_ref": order_ref, "status": "cancelled"})

    async def settle_forever(self, every: float, older_than: float) -> None:
        """Settle what is left, each `every` seconds."""
        while True:
            try:
                await self.settle(older_than)
            except DATABASE_ERRORS as error:
                self._log.warning("cannot look for open payments", reason=_reason(error))
            await asyncio.sleep(every)

    async def settle(self, older_than: float) -> int:
        """End pending rows older than so many seconds by what the provider says; how many were looked at."""
        rows = await self._pool.fetch(
            "UPDATE payments SET attempts = attempts + 1 WHERE id IN (SELECT id FROM payments WHERE status = 'pending'"
            # A row that is retried belongs to the retry for as long as a new one does to its request.
            " AND coalesce(tried_at, created_at) < clock_timestamp() - make_interval(secs => $1)"
            # Who was looked at least often first: rows that cannot end must not keep all others from ending.
            " ORDER BY attempts, created_at LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING id, stripe_payment_intent,"
            " failure_reason, created_at > clock_timestamp() - make_interval(hours => $3) AS keys_known",
            older_than, SETTLE_ROWS, KEY_HOURS,
        )  # fmt: skip
        for row in rows:
            if row["stripe_payment_intent"] is None:
                # No intent was written, so none was confirmed. From here on none can be written either.
                await self.charging.finish(row["id"], "failed", row["failure_reason"] or "abandoned")
            else:
                await self.charging.resume(row["id"], row["stripe_payment_intent"], confirm=row["keys_known"])
        return len(rows)

    async def _insert(self, wanted: PaymentRequest) -> int | None:
        """The new row's id; None when the order has a payment that is open or has succeeded, or is cancelled."""
        async with self._pool.acquire() as connection, connection.transaction():
            await lock_order(connection, wanted.order_ref)
            return await connection.fetchval(  # type: ignore[no-any-return, unused-ignore]
                "INSERT INTO payments (order_ref, amount_minor, currency, provider, method, status, payment_method)"
                " SELECT $1, $2, $3, 'stripe', 'card', 'pending', $4"
                " WHERE NOT EXISTS (SELECT FROM cancelled_orders WHERE order_ref = $1)"
                " ON CONFLICT (order_ref) WHERE status IN ('pending', 'succeeded') DO NOTHING RETURNING id",
                wanted.order_ref, wanted.amount_minor, wanted.currency, wanted.payment_method,
            )  # fmt: skip

    async def _existing(self, wanted: PaymentRequest) -> web.Response:
        """The order's payment, to a client that asks for the same again."""
        if await self._pool.fetchval("SELECT true FROM cancelled_orders WHERE order_ref = $1", wanted.order_ref):
            return json_error(409, f"order {wanted.order_ref} was cancelled")
        row = await self._pool.fetchrow(_BY_ORDER, wanted.order_ref)
        if row is not None and (row["amount_minor"], row["currency"]) != (wanted.amount_minor, wanted.currency):
            return json_error(409, f"order {wanted.order_ref} has payment {row['id']} of another amount")
        return _answer(row)

    async def _row(self, number: int) -> asyncpg.Record | None:
        return await self._pool.fetchrow(_BY_ID, number)


PAYMENTS = web.AppKey("payments", Payments)


def _answer(row: Any) -> web.Response:
    """A payment's row as an answer; None (it ended between two statements) as one that is not known yet."""
    if row is None:
        return json_error(409, "the order's payment has just changed; ask again")
    status = {"succeeded": 201, "failed": 402, "refunded": 409}.get(row["status"], 202)
    return web.json_response(dict(row), status=status)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def build(environment: Environment, registry: CollectorRegistry) -> web.Application:
    """The application; connections are opened when it starts. Raises SettingsError."""
    postgres = Postgres.read(environment)
    settle_every = number(environment, "PREP_SETTLE_EVERY_SECONDS", 10.0, 0.1, 600.0)
    # A younger row belongs to the request that made it, which takes two calls and three statements at most.
    settle_after = number(environment, "PREP_SETTLE_AFTER_SECONDS", 45.0, 0.1, 3600.0)
    beat_every = number(environment, "PREP_HEARTBEAT_EVERY_SECONDS", 2.0, 0.05, 60.0)
    base = text(environment, "STRIPE_API_BASE", "http://stripe:8420")
    # The double takes any key of this shape; a real one comes by file.
    api_key = "sk_test_demo"
    if environment.get("STRIPE_API_KEY_FILE"):
        api_key = secret(environment, "STRIPE_API_KEY_FILE", "")
    call_seconds = number(environment, "PREP_STRIPE_CALL_SECONDS", CALL_SECONDS, 0.05, 60.0)
    limits, token = RetryLimits.read(environment), read_token(environment)
    pools = PoolMetrics(registry)
    application = web.Application(client_max_size=BODY_BYTES)
    application.router.add_post("/v1/payments", lambda request: request.app[PAYMENTS].create(request))
    application.router.add_get(r"/v1/payments/{id:\d{1,18}}", lambda request: request.app[PAYMENTS].show(request))

    application.router.add_post(
        r"/v1/payments/{id:\d{1,18}}/refund", lambda request: request.app[PAYMENTS].refund(request)
    )
    application.router.add_post(
        r"/v1/orders/{order_ref:[A-Za-z0-9._-]{1,64}}/cancel",
        lambda request: request.app[PAYMENTS].cancel_order(request),
    )
    retries = Retries(limits, token)
    application.router.add_routes(retries.routes())

    async def running(_application: web.Application) -> AsyncIterator[None]:
        pool = await open_pool(postgres, "payments", 5)
        publish_pool(pools, pool)
        try:
            async with open_stripe(base, api_key, call_seconds) as stripe:
                application[PAYMENTS] = payments = Payments(pool, stripe)
                retries.open(pool, stripe, payments.charging)
                async with (
                    beside(application, payments.settle_forever(settle_every, settle_after)),
                    beside(application, beat_forever(pool, beat_every)),
                ):
                    yield
        finally:
            await close_pool(pool)

    application.cleanup_ctx.append(running)
    return application


if __name__ == "__main__":
    main("payments", PORT, build)
