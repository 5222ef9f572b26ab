"""The demo's customers: traffic that never stops, whatever happens to the services.

In: a seed, rates, and where the services are. Out: checks, payments and refunds, and this side's view of them:
prep_load_* at /metrics; logins (demo/logins.py). Arrivals do not wait for answers (an open loop: customers do not slow
down because a service does), but each stream has so many requests open at most; an arrival beyond that is skipped and
counted. The streams share nothing, so an ill python-compliance never holds up payments.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram

from demo.environment import Environment, number, text, whole
from demo.logins import Logins
from demo.orders import Orders
from demo.service import Log, beside, main
from exporter.catalog.entries import DURATION_BUCKETS

PORT = 8080
CLIENT_SECONDS = 20.0
"""After this long a customer gives up."""
OUTCOMES = ("ok", "declined", "refused", "failed", "timeout", "unreachable")
"""2xx; 402; other 4xx; 5xx; no answer in CLIENT_SECONDS; no connection or one that broke."""
LOOKUP_SHARE = 0.2
"""Share of payments that the customer looks at afterwards."""
REFUND_SHARE = 0.015
"""Share of payments whose money goes back at once: an order that the kitchen cannot make."""
TOLD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Metrics:
    """What the customers see."""

    requests: Counter
    duration: Histogram
    skipped: Counter

    @classmethod
    def create(cls, registry: CollectorRegistry) -> Metrics:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(name, what, labels, registry=registry)

        return cls(
            counter("prep_load_requests", "Requests that ended.", "stream", "outcome"),
            Histogram(
                "prep_load_request_duration_seconds",
                "Time until an answer, or until the customer gave up.",
                ("stream",),
                buckets=DURATION_BUCKETS,
                registry=registry,
            ),
            counter("prep_load_skipped", "Arrivals skipped because too many requests were open.", "stream"),
        )


class Stream:
    """One kind of traffic: `rate` arrivals a second on average, at most `most_open` requests open."""

    def __init__(self, name: str, orders: Orders, rate: float, most_open: int, metrics: Metrics) -> None:
        self.name = name
        self._orders = orders
        self._rate = rate
        self._most_open = most_open
        self._metrics = metrics
        self._open: set[asyncio.Task[None]] = set()
        self._log: Log = structlog.get_logger("demo")
        self._told = -TOLD_SECONDS
        for outcome in OUTCOMES:
            metrics.requests.labels(name, outcome)
        metrics.duration.labels(name)
        metrics.skipped.labels(name)

    async def run(self, send: Callable[[], Awaitable[int]]) -> None:
        """Send forever. `send` returns the status of the answer, or raises what aiohttp raises."""
        began = due = time.monotonic()
        try:
            while True:
                due += self._orders.gap(self._rate, due - began)
                # Behind by more than a second (the machine slept): the missed arrivals are gone, not sent in a rush.
                due = max(due, time.monotonic() - 1.0)
                await asyncio.sleep(due - time.monotonic())
                if len(self._open) >= self._most_open:
                    self._metrics.skipped.labels(self.name).inc()
                    continue
                task = asyncio.create_task(self._one(send))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
        finally:
            for task in self._open:
                task.cancel()

    async def _one(self, send: Callable[[], Awaitable[int]]) -> None:
        began = time.perf_counter()
        try:
            outcome = outcome_of(await send())
        except TimeoutError:
            outcome = "timeout"
            self._tell(f"no answer in {CLIENT_SECONDS:g} s")
        except (aiohttp.ClientError, OSError) as error:
            outcome = "unreachable"
            self._tell(str(error) or type(error).__name__)
        self._metrics.requests.labels(self.name, outcome).inc()
        self._metrics.duration.labels(self.name).observe(time.perf_counter() - began)

    def _tell(self, reason: str) -> None:
        if time.monotonic() - self._told >= TOLD_SECONDS:
            self._told = time.monotonic()
            self._log.warning("requests fail", stream=self.name, reason=reason, open=len(self._open))


def outcome_of(status: int) -> str:
    """An HTTP status to one of OUTCOMES."""
    if status < 400:
        return "ok"
    if status == 402:
        return "declined"
    return "refused" if status < 500 else "failed"


class Customers:
    """The two streams on their two services, and the logins."""

    def __init__(self, environment: Environment, registry: CollectorRegistry) -> None:
        metrics = Metrics.create(registry)
        seed = whole(environment, "PREP_LOAD_SEED", 7, 0, 2**31)
        run = f"o{int(time.time()):x}"
        self._logins = Logins(environment, seed)
        self._checks_url = text(environment, "PREP_COMPLIANCE_URL", "http://python-compliance:8080")
        self._payments_url = text(environment, "PREP_PAYMENTS_URL", "http://payments:8080")
        self._check_orders = Orders(seed, "checks", f"{run}c")
        self._payment_orders = Orders(seed, "payments", f"{run}p")
        checks = number(environment, "PREP_LOAD_CHECKS_PER_SECOND", 6.0, 0.01, 100.0)
        payments = number(environment, "PREP_LOAD_PAYMENTS_PER_SECOND", 2.0, 0.01, 100.0)
        # 50 open checks at one engine session's pace are 13 s of queue: slow, and still under CLIENT_SECONDS.
        self._streams = (
            Stream("checks", self._check_orders, checks, 50, metrics),
            Stream("payments", self._payment_orders, payments, 40, metrics),
        )

    async def run(self) -> None:
        """Send both streams, and log in, until cancelled."""
        patience = aiohttp.ClientTimeout(total=CLIENT_SECONDS, sock_connect=3.0)
        async with (
            aiohttp.ClientSession(
                self._checks_url, timeout=patience, connector=aiohttp.TCPConnector(limit=70)
            ) as checks,
            aiohttp.ClientSession(
                self._payments_url, timeout=patience, connector=aiohttp.TCPConnector(limit=50)
            ) as payments,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._logins.run())
            group.create_task(self._streams[0].run(lambda: self._check(checks)))
            group.create_task(self._streams[1].run(lambda: self._payment(payments)))

    async def _check(self, session: aiohttp.ClientSession) -> int:
        async with session.post("/v1/checks", json=self._check_orders.check()) as answer:
            await answer.read()
            return answer.status

    async def _payment(self, session: aiohttp.ClientSession) -> int:
        async with session.post("/v1/payments", json=self._payment_orders.payment()) as answer:
            payment = await answer.json(content_type=None)
            status = answer.status
        if isinstance(payment, dict) and "id" in payment:
            if self._payment_orders.chance(LOOKUP_SHARE):
                async with session.get(f"/v1/payments/{payment['id']}") as answer:
                    await answer.read()
            if status == 201 and self._payment_orders.chance(REFUND_SHARE):
                async with session.post(f"/v1/payments/{payment['id']}/refund") as answer:
                    await answer.read()
        return status


async def build(environment: Environment, registry: CollectorRegistry) -> web.Application:
    """The application: it serves only /health and /metrics. Raises SettingsError."""
    customers = Customers(environment, registry)
    application = web.Application()

    async def running(_: web.Application) -> AsyncIterator[None]:
        async with beside(application, customers.run()):
            yield

    application.cleanup_ctx.append(running)
    return application


if __name__ == "__main__":
    main("load", PORT, build)
