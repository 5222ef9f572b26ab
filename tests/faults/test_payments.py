"""Money is taken once, whatever breaks: calls and answers lost, limits, 500s, our processes killed at random instants.

A run is the life of one order: customers who ask again, pay otherwise, cancel or take their money back; the provider
ill in a way of its own; retries by the remediator's action, one of them a process that is killed -9 and whose call
comes a second time, late; the payments service killed -9 while all of that goes on. Twenty runs share a round. What was
taken is read from the double's ledger, what was counted from the database. A failing seed is printed and replays:
PREP_PAYMENTS_SEED.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from remediator.actions.base import Call, Settlement
from remediator.errors import RemediatorError
from tests.integration.demo_platform import ROOT, Platform
from tests.support.retrying import PARAMS, Remediating, faults, ledger, paying, token_file
from tests.support.servers import PostgresServer, RedisServer, Run, Service, fetch, post_json, wait_until

ORDERS = 20  # runs of one round
CARDS = 40  # of ten rounds, and one that every sixth customer has: it meets its limit
KINDS = (
    "reset_before",
    "timeout_before",
    "rate_limited",
    "unavailable",
    "error_before",
    "error_after",
    "reset_after",
    "timeout_after",
)
SEED = int(os.environ.get("PREP_PAYMENTS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
PER_CARD = 10
OWNED = "select count(*), coalesce(min(begun_at)::text, '') from payment_retries"


@pytest.fixture(scope="module")
def platform(run: Run, redis_server: RedisServer) -> Iterator[Platform]:
    platform = Platform(run, PostgresServer(run).start(), redis_server)
    stripe = platform.stripe().start()
    yield platform
    stripe.stop()
    platform.postgres.stop()


@pytest.fixture
def service(platform: Platform) -> Iterator[Service]:
    quick = {
        "PREP_SETTLE_EVERY_SECONDS": "0.1",
        "PREP_SETTLE_AFTER_SECONDS": "1.2",
        "PREP_STRIPE_CALL_SECONDS": "0.3",
        "PREP_RETRY_PER_CARD": str(PER_CARD),
    }
    service = paying(platform, **quick).start()
    yield service
    service.stop()


@dataclass
class Order:
    """One run: whose order, how much, with which card."""

    ref: str
    amount: int
    card: str
    dice: random.Random


@dataclass
class Told:
    """What a campaign did, for its last line."""

    counts: Counter[str] = field(default_factory=Counter)
    retries: int = 0


def _post(platform: Platform, path: str, body: Any = None) -> int:
    """The status, 0 when nobody answered."""
    try:
        return post_json(platform.url("payments") + path, body or {}, timeout=4.0).status
    except OSError:
        return 0


def customer(platform: Platform, order: Order, told: Told) -> None:
    """Asks until it is answered, now and then once more after a failure, or with another card."""
    body = {"order_ref": order.ref, "amount_minor": order.amount, "currency": "usd", "payment_method": order.card}
    time.sleep(order.dice.uniform(0, 0.5))
    for _ in range(order.dice.choice((1, 1, 2, 3))):
        status = _post(platform, "/v1/payments", body)
        told.counts[f"paid {status}"] += 1
        if status in (201, 409):
            return
        time.sleep(order.dice.uniform(0, 0.4))


def second_thoughts(platform: Platform, order: Order, told: Told) -> None:
    """While retries run: some pay anew, some cancel, some want their money back and never pay again."""
    time.sleep(order.dice.uniform(0, 2.0))
    match order.dice.choice(("pay", "cancel", "refund", "", "", "")):
        case "pay":
            customer(platform, order, told)
        case "cancel":
            told.counts[f"cancelled {_post(platform, f'/v1/orders/{order.ref}/cancel')}"] += 1
        case "refund":
            rows = platform.sql(f"select id from payments where order_ref = '{order.ref}' and status = 'succeeded'")
            for row in rows:
                told.counts[f"refunded {_post(platform, f'/v1/payments/{row[0]}/refund')}"] += 1


def killer(service: Service, dice: random.Random, stop: threading.Event, told: Told) -> None:
    """kill -9 at random instants, each time followed by a start."""
    while not stop.wait(dice.uniform(0.3, 2.0)):
        service.kill()
        service.start()
        told.counts["service killed"] += 1


def _card(dice: random.Random, number: int) -> str:
    return f"pm_demo_{number // 10 * CARDS + dice.choice((0, *range(1, 6))) * dice.randrange(1, CARDS // 6):04}"


class Child:
    """The remediator's process of one attempt."""

    def __init__(self, platform: Platform) -> None:
        argv = [
            sys.executable,
            "-m",
            "tests.support.retrying_child",
            platform.url("payments"),
            str(token_file(platform)),
        ]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def run_and_kill(self, after: float) -> Any:
        """Let it act, kill it so many seconds later; its word of the attempt, None when it had not said it."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        time.sleep(after)
        self._process.kill()
        said, _ = self._process.communicate()
        found = json.loads(said) if said.endswith("\n") else None
        return found if found and found["attempt"] else None


async def again_and_settled(platform: Platform, said: Any, dice: random.Random, told: Told) -> Settlement:
    """The dead one's call comes a second time, late or not; then the owner is asked what the attempt did."""
    items = tuple(said["items"])
    call = Call(said["attempt"], PARAMS, items, "payments:payments", said["start_by"], 20.0, 0.0)
    async with aiohttp.ClientSession() as session:
        action = Remediating(platform, session).action
        if dice.random() < 0.5:
            told.counts["the same attempt again"] += 1
            await action.execute(call)
        for _ in range(200):
            try:
                settled = await action.settle(call)
                if settled.settlement is not Settlement.UNKNOWN:
                    return settled.settlement
            except RemediatorError:
                pass
            await asyncio.sleep(0.1)
    return Settlement.UNKNOWN


async def attempts(platform: Platform, count: int, dice: random.Random, told: Told) -> None:
    """Further attempts, as approved; some are cancelled in the middle (a shutdown)."""
    async with aiohttp.ClientSession() as session:
        ours = Remediating(platform, session)
        for _ in range(count):
            try:
                found = await ours.action.preview(PARAMS)
                async with asyncio.timeout(dice.choice((0.2, 0.6, 20.0, 20.0))):
                    outcome = await ours.action.execute(ours.call(found))
                told.counts[f"attempt {outcome.result}"] += 1
            except (RemediatorError, TimeoutError):
                told.counts["attempt cut"] += 1
            await asyncio.sleep(dice.uniform(0.0, 0.3))


def one_round(platform: Platform, service: Service, number: int, told: Told) -> None:
    """ORDERS runs side by side, and what must hold after them."""
    dice = random.Random(f"{SEED}/{number}")
    orders = [
        Order(
            f"run-{SEED:x}-{number}-{index}",
            dice.randint(50, 50_000),
            "pm_card_chargeCustomerFail" if dice.random() < 0.12 else _card(dice, number),
            random.Random(f"{SEED}/{number}/{index}"),
        )
        for index in range(ORDERS)
    ]
    child = Child(platform)
    shares = {kind: dice.uniform(0.0, 0.12) for kind in KINDS if dice.random() < 0.6}
    faults(platform, **shares, seed=number, hang_seconds=0.6)
    stop = threading.Event()
    with ThreadPoolExecutor(ORDERS + 2) as pool:
        killing: Future[None] = pool.submit(killer, service, random.Random(f"{SEED}/{number}/k"), stop, told)
        for paying_now in [pool.submit(customer, platform, order, told) for order in orders]:
            paying_now.result()
        time.sleep(dice.uniform(0.8, 1.6))  # what stays open without an intent is given up
        thinking = [pool.submit(second_thoughts, platform, order, told) for order in orders]
        said = child.run_and_kill(dice.uniform(0.05, 1.2))
        asyncio.run(attempts(platform, 3, dice, told))
        settlement = asyncio.run(again_and_settled(platform, said, dice, told)) if said else None
        stop.set()
        for each in (*thinking, killing):
            each.result()
    faults(platform)
    asyncio.run(attempts(platform, 2, dice, told))
    told.counts[f"killed attempt {settlement}"] += 1
    _settled(platform)
    _holds(platform, orders, told)
    if said and settlement is Settlement.NOT_DONE:
        assert platform.sql(f"select count(*) from payment_retries where attempt = '{said['attempt']}'") == [["0"]]


def _settled(platform: Platform) -> None:
    """Until every row has ended that can: one whose confirmation was answered 500 stays open, for a person."""
    began = "coalesce(tried_at, created_at) > now() - interval '3 s'"
    fresh = f"select count(*) from payments where status = 'pending' and (stripe_payment_intent is null or {began})"
    wait_until(lambda: platform.sql(fresh) == [["0"]], "rows to end", 20)


def _holds(platform: Platform, orders: list[Order], told: Told) -> None:
    found = ledger(platform)
    assert found["twice"] == {}, f"seed {SEED}: an intent was charged twice"
    assert found["confirmed_after_decline"] == 0, f"seed {SEED}: a decline was tried again"
    for order in orders:
        times, amount = found["orders"].get(order.ref, [0, 0])
        assert times <= 1, f"seed {SEED}: {order.ref} was charged {times} times"
        assert amount in (0, order.amount), f"seed {SEED}: {order.ref} was charged {amount} of {order.amount}"
        told.counts["captured"] += times
    # Each succeeded row has its charge: nobody is told "paid" for nothing.
    refs = ", ".join(f"'{order.ref}'" for order in orders)
    paid = platform.sql(f"select order_ref from payments where status = 'succeeded' and order_ref in ({refs})")
    assert all(ref in found["orders"] for (ref,) in paid), f"seed {SEED}: paid without a charge"
    total, most = platform.sql("select coalesce(sum(n), 0), coalesce(max(n), 0) from (select count(*) n from payment_retries group by card) c")[0]  # fmt: skip
    assert int(most) <= PER_CARD, f"seed {SEED}: a card had {most} retries"
    assert int(total) >= told.retries, f"seed {SEED}: counters of cards were lost"
    told.retries = int(total)
    # A retry that the bank declined is the payment's last one.
    declined = platform.sql(
        "select count(*) from payment_retries r join payment_retries later on later.payment_id = r.payment_id"
        " and later.begun_at > r.begun_at where r.failure_reason = 'card_declined'"
    )
    assert declined == [["0"]], f"seed {SEED}: a decline was retried"


def _campaign(platform: Platform, service: Service, rounds: range) -> None:
    told = Told()
    began = time.monotonic()
    for number in rounds:
        one_round(platform, service, number, told)
    made = fetch(f"{platform.url('stripe')}/_config/faults").json()
    succeeded, cards = platform.sql("select count(*) filter (where outcome = 'succeeded'), count(distinct card) from payment_retries")[0]  # fmt: skip
    print(
        f"\nseed {SEED}: {len(rounds) * ORDERS} runs in {time.monotonic() - began:.0f} s: captured {told.counts.pop('captured')},"
        f" at most once each; {told.retries} retries of {cards} cards began, {succeeded} of them paid;"
        f" faults {made}; {dict(sorted(told.counts.items()))}"
    )
    assert told.counts["service killed"] >= len(rounds) / 2
    assert told.retries > 0
    assert int(succeeded) > 0


def test_sixty_runs(platform: Platform, service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """Captures per order are at most one, and at most the order's amount; counters hold; declines are never retried."""
    with capsys.disabled():
        _campaign(platform, service, range(3))


@pytest.mark.campaign(seconds=900)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("thousand", [1, 2])
def test_two_thousand_runs(
    platform: Platform, service: Service, thousand: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same, 2,000 times in two parts."""
    with capsys.disabled():
        _campaign(platform, service, range(thousand * 50, thousand * 50 + 50))
