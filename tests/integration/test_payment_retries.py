"""Retrying failed payments through their owner: real PostgreSQL, the double, the service and the remediator's action."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from demo.payments import SETTLE_ROWS
from prepctl.cli import app
from remediator.actions.base import Call, Result, Settlement
from remediator.actions.retry_payments import RetryFailedPayments
from remediator.captured import Captured, Source
from remediator.captures_payments import recent_failures, stripe_status
from remediator.clock import SystemClock
from remediator.errors import Permanent
from remediator.reasons import Reason
from remediator.settings import Settings
from tests.integration.demo_platform import Platform
from tests.support.retrying import (
    PARAMS,
    Remediating,
    entry,
    failed,
    failed_at,
    faults,
    knowing,
    ledger,
    listed,
    paying,
    retry,
)
from tests.support.servers import PostgresServer, RedisServer, Run, Service, fetch, post_json, wait_until
from tests.unit.cases import SETTINGS, settings

Found = TypeVar("Found")
DECLINED = "'pm_card_chargeCustomerFail'"
KEY = {"Authorization": "Bearer sk_test_demo"}


@pytest.fixture(scope="module")
def platform(run: Run, redis_server: RedisServer) -> Iterator[Platform]:
    platform = Platform(run, PostgresServer(run).start(), redis_server)
    yield platform
    platform.postgres.stop()


@pytest.fixture(scope="module")
def stripe(platform: Platform) -> Iterator[Service]:
    stripe = platform.stripe().start()
    yield stripe
    stripe.stop()


@pytest.fixture(scope="module")
def running(platform: Platform, stripe: Service) -> Iterator[Service]:
    service = paying(platform).start()
    yield service
    service.stop()


@pytest.fixture
def service(platform: Platform, running: Service) -> Iterator[Service]:
    """The service on empty tables, with ids that the double has never seen; afterwards nothing goes wrong any more."""
    platform.sql("truncate payments, payment_retries, cancelled_orders")
    yield running
    faults(platform)


def acting(platform: Platform, work: Callable[[Remediating], Awaitable[Found]]) -> Found:
    """Run something with the remediator's action on the service."""

    async def run() -> Found:
        async with aiohttp.ClientSession() as session:
            return await work(Remediating(platform, session))

    return asyncio.run(run())


def state(platform: Platform, number: int) -> list[str]:
    return platform.sql(f"select status, coalesce(failure_reason, '') from payments where id = {number}")[0]


def test_a_failed_payment_is_retried_once(platform: Platform, service: Service) -> None:
    """200 and paid, by one charge that the ledger knows by its order; the same attempt again is refused."""
    number, attempt = failed(platform, "once-1"), secrets.token_hex(16)
    at = failed_at(platform, number)
    assert [one["id"] for one in listed(platform)["retryable"]] == [number]
    reply = retry(platform, number, attempt, at=at)
    assert (reply.status, reply.json()["status"]) == (200, "succeeded")
    for ahead in (5.0, -1.0):
        again = retry(platform, number, attempt, at=at, ahead=ahead)
        assert (again.status, again.headers["x-retry-refused"]) == (409, "repeated")
    another = retry(platform, number, at=at)
    assert (another.status, another.headers["x-retry-refused"]) == (409, "not_failed")
    assert ledger(platform)["orders"]["once-1"] == [1, 2500]
    assert platform.sql("select attempt, outcome from payment_retries") == [[attempt, "succeeded"]]
    assert listed(platform)["retryable"] == []


def test_the_same_attempt_begins_a_payment_once(platform: Platform, service: Service) -> None:
    """Also when the payment has failed anew meanwhile and could be retried by another attempt."""
    number, attempt = failed(platform, "repeat-1"), secrets.token_hex(16)
    faults(platform, rate_limited=0.0, unavailable=0.0, reset_before=0.0)
    assert retry(platform, number, attempt).status == 200
    platform.sql(
        f"update payments set status = 'failed', failure_reason = 'provider_error', finalized_at = now() where id = {number}"
    )
    again = retry(platform, number, attempt)
    assert (again.status, again.headers["x-retry-refused"]) == (409, "repeated")


def test_two_that_ask_at_once_are_one_retry(platform: Platform, service: Service) -> None:
    """Ten attempts on one row at the same time: one owner, one charge."""
    number = failed(platform, "race-1")
    at = failed_at(platform, number)
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda _: retry(platform, number, at=at), range(10)))
    assert sorted(reply.status for reply in replies) == [200, *[409] * 9]
    assert ledger(platform)["orders"]["race-1"] == [1, 2500]
    assert platform.sql("select count(*) from payment_retries") == [["1"]]


def test_the_same_intent_is_confirmed(platform: Platform, service: Service) -> None:
    """A row that knows its intent gets no other one, and the key is the one that its first confirmation had."""
    body = {"amount": 2500, "currency": "usd", "payment_method": "pm_demo_0002"}
    intent = post_json(f"{platform.url('stripe')}/v1/payment_intents", body, KEY).json()["id"]
    number = failed(platform, "same-1", stripe_payment_intent=f"'{intent}'")
    before = ledger(platform)["charges"]
    assert retry(platform, number).json()["status"] == "succeeded"
    assert platform.sql(f"select stripe_payment_intent from payments where id = {number}") == [[intent]]
    assert ledger(platform)["charges"] == before + 1
    # What the first confirmation answered is what its key answers now: nothing is charged by asking again.
    key = {**KEY, "Idempotency-Key": f"prep-payment-{number}-confirm"}
    again = fetch(f"{platform.url('stripe')}/v1/payment_intents/{intent}/confirm", "POST", "", key)
    assert (again.status, ledger(platform)["charges"]) == (200, before + 1)


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"failure_reason": "'card_declined'"}, "not_retryable"),
        ({"failure_reason": "'authentication_required'"}, "not_retryable"),
        ({"failure_reason": "'insufficient_funds'"}, "not_retryable"),
        ({"failure_reason": "'a_word_of_tomorrow'"}, "not_retryable"),
        ({"failure_reason": "NULL"}, "not_retryable"),
        ({"status": "'succeeded'"}, "not_failed"),
        ({"status": "'refunded'"}, "not_failed"),
        ({"payment_method": "NULL"}, "no_card"),
        ({"payment_method": "'pm_unheard_of'"}, "no_card"),
        ({"created_at": "now() - interval '23 hours 1 min'"}, "too_old"),
        ({"amount_minor": "50001"}, "too_large"),
    ],
)
def test_what_is_never_retried(platform: Platform, service: Service, columns: dict[str, str], word: str) -> None:
    """Declines, what the customer must confirm, unknown words, the old, the large: refused by name, and nothing began."""
    number, before = failed(platform, "never-1", **columns), ledger(platform)
    reply = retry(platform, number)
    assert (reply.status, reply.headers["x-retry-refused"]) == (409, word)
    assert platform.sql("select count(*) from payment_retries") == [["0"]]
    assert ledger(platform) == before
    assert [one for one in listed(platform)["retryable"] if one["id"] == number and word != "no_card"] == []


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"status": "'succeeded'", "failure_reason": "NULL"}, "order_paid"),
        (
            {"status": "'pending'", "failure_reason": "NULL", "finalized_at": "NULL", "created_at": "now()"},
            "order_paid",
        ),
        ({"status": "'refunded'", "failure_reason": "NULL", "refunded_at": "now()"}, "order_refunded"),
        ({"failure_reason": "'card_declined'"}, "order_tried_again"),
    ],
)
def test_the_order_has_the_last_word(platform: Platform, service: Service, other: dict[str, str], word: str) -> None:
    """Paid otherwise, given back, or tried once more by the customer: the failed payment is left alone."""
    number = failed(platform, "order-1")
    failed(platform, "order-1", **other)
    reply = retry(platform, number)
    assert (reply.status, reply.headers["x-retry-refused"]) == (409, word)
    assert {one["id"]: one["why"] for one in listed(platform)["left_out"]}[number] == word
    assert "order-1" not in ledger(platform)["orders"]


def test_a_cancelled_order_is_never_paid(platform: Platform, service: Service) -> None:
    """Neither by a retry nor anew; an order with money taken is refunded and not cancelled."""
    number = failed(platform, "gone-1")
    cancel = f"{platform.url('payments')}/v1/orders/gone-1/cancel"
    assert [post_json(cancel, {}).status for _ in range(2)] == [200, 200]
    assert retry(platform, number).headers["x-retry-refused"] == "order_cancelled"
    assert platform.pay("gone-1").status == 409
    assert platform.pay("kept-1", "pm_demo_0003").status == 201
    assert post_json(f"{platform.url('payments')}/v1/orders/kept-1/cancel", {}).status == 409
    assert "gone-1" not in ledger(platform)["orders"]


def test_late_early_unmarked_and_foreign_calls(platform: Platform, service: Service) -> None:
    """By the database's clock; without an attempt, or without the token, nothing is even looked at."""
    number = failed(platform, "when-1")
    for ahead, word in ((-0.5, "late"), (90.0, "early")):
        reply = retry(platform, number, ahead=ahead)
        assert (reply.status, reply.headers["x-retry-refused"]) == (412, word)
    assert retry(platform, number, attempt="x").status == 428
    assert retry(platform, number, **{"X-Start-By": "soon"}).status == 428
    assert retry(platform, number, Authorization="Bearer other").status == 403
    assert fetch(f"{platform.url('payments')}/v1/retries").status == 403
    assert retry(platform, number, at="2026-01-01T00:00:00.000000Z").headers["x-retry-refused"] == "changed"
    assert state(platform, number) == ["failed", "provider_timeout"]


def test_without_a_token_nobody_may(platform: Platform, service: Service) -> None:
    """The demo's own default, and that of whoever forgets the setting."""
    service.stop()
    with platform.service("payments"):
        assert retry(platform, failed(platform, "closed-1")).status == 403
    service.start()


def test_a_card_has_so_many_retries_in_thirty_days(platform: Platform, service: Service) -> None:
    """Counted by the card and not by its token or order, over a kill of the service; older ones count no more."""
    numbers = [failed(platform, f"card-{index}", payment_method="'pm_demo_0042'") for index in range(12)]
    replies = [retry(platform, number) for number in numbers[:6]]
    service.kill()
    service.start()
    replies += [retry(platform, number) for number in numbers[6:]]
    assert [reply.status for reply in replies] == [200] * 10 + [409] * 2
    assert {reply.headers["x-retry-refused"] for reply in replies[10:]} == {"card_limit"}
    assert [one["why"] for one in listed(platform)["left_out"]] == ["card_limit", "card_limit"]
    platform.sql("update payment_retries set begun_at = begun_at - interval '30 days 1 second'")
    assert retry(platform, numbers[10]).status == 200


def test_a_payment_has_three_retries(platform: Platform, service: Service) -> None:
    """Then it is a person's; each that began counts, however it ended."""
    number = failed(platform, "three-1", payment_method=DECLINED)
    for _ in range(3):
        assert retry(platform, number).json() == {"id": number, "status": "failed", "failure_reason": "card_declined"}
        platform.sql(f"update payments set failure_reason = 'provider_error' where id = {number}")
    assert retry(platform, number).headers["x-retry-refused"] == "payment_limit"


def test_a_decline_at_the_retry_is_the_end(platform: Platform, service: Service) -> None:
    """The bank has said no: the row says so, and nobody retries it."""
    number = failed(platform, "no-1", payment_method=DECLINED)
    assert retry(platform, number).json()["failure_reason"] == "card_declined"
    assert retry(platform, number).headers["x-retry-refused"] == "not_retryable"
    assert ledger(platform)["confirmed_after_decline"] == 0


def test_a_customer_who_must_be_seen_is_not_charged(platform: Platform, service: Service) -> None:
    """requires_action: the intent is cancelled, so that nobody can charge it later."""
    details = {"number": "4000002500003155", "exp_month": 12, "exp_year": 2030, "cvc": "123"}
    made = post_json(f"{platform.url('stripe')}/v1/payment_methods", {"type": "card", "card": details}, KEY).json()
    number = failed(platform, "action-1", payment_method=f"'{made['id']}'")
    assert retry(platform, number).json()["failure_reason"] == "authentication_required"
    assert "action-1" not in ledger(platform)["orders"]


def test_a_provider_that_cannot_name_the_card_begins_nothing(platform: Platform, service: Service) -> None:
    """503 with the owner's mark: the row is as it was, and no retry is counted."""
    number = failed(platform, "dark-1")
    faults(platform, rate_limited=1.0)
    reply = retry(platform, number)
    assert (reply.status, reply.headers["x-retry-refused"]) == (503, "provider_unavailable")
    assert state(platform, number) == ["failed", "provider_timeout"]
    assert platform.sql("select count(*) from payment_retries") == [["0"]]


def test_charged_and_not_answered_is_settled_by_the_owner(platform: Platform, service: Service) -> None:
    """The answer is lost after the charge: doubt, then the owner's word by the attempt's id; the money went once."""

    failed(platform, "lost-1")
    faults(platform, timeout_after=1.0, hang_seconds=2.0, path="/confirm")

    async def work(ours: Remediating) -> Any:
        call = ours.call(await ours.action.preview(PARAMS), ahead=1.0)
        outcome = await ours.action.execute(call)
        faults(platform)
        doubt = await ours.action.settle(call)
        settled = doubt
        while settled.settlement is Settlement.UNKNOWN:
            await asyncio.sleep(0.2)
            settled = await ours.action.settle(call)
        return outcome.result, doubt.settlement, settled

    result, doubt, settled = acting(platform, work)
    assert (result, doubt) == (Result.IN_DOUBT, Settlement.UNKNOWN)
    assert (settled.settlement, settled.detail) == (Settlement.DONE, "1 retried, 1 of them paid.")
    assert ledger(platform)["orders"]["lost-1"] == [1, 2500]


def test_the_action_takes_one_first_then_the_others(platform: Platform, service: Service) -> None:
    """Twelve failed: ten are previewed, the oldest first, and retried; each order is charged once."""
    numbers = [failed(platform, f"batch-{index}", payment_method=f"'pm_demo_1{index:03}'") for index in range(12)]
    found, outcome = acting(platform, lambda ours: ours.all())
    assert [item["id"] for item in found.items] == numbers[:10]
    assert (
        found.summary
        == "Retry 10 of 12 failed payments of payments, 250.00 usd: one first, the others once it is paid."
    )
    assert (outcome.result, outcome.detail) == (Result.DONE, "10 of 10 asked for: 10 succeeded.")
    orders = ledger(platform)["orders"]
    assert [orders.get(f"batch-{index}") for index in range(12)] == [[1, 2500]] * 10 + [None] * 2


@pytest.mark.parametrize("kind", ["declined", "silent"])
def test_a_canary_that_is_not_paid_stops_the_others(platform: Platform, service: Service, kind: str) -> None:
    """Whatever became of it: nine payments are left as they were."""
    first = {"payment_method": DECLINED} if kind == "declined" else {}
    numbers = [failed(platform, "canary-0", **first)] + [failed(platform, f"canary-{n}") for n in range(1, 10)]

    async def work(ours: Remediating) -> Any:
        call = ours.call(await ours.action.preview(PARAMS))
        if kind == "silent":
            faults(platform, timeout_before=1.0, hang_seconds=2.0)
        return await ours.action.execute(call)

    outcome = acting(platform, work)
    assert outcome.result is (Result.DONE if kind == "declined" else Result.FAILED)
    assert {state(platform, number)[0] for number in numbers[1:]} == {"failed"}
    assert platform.sql("select count(*) from payment_retries") == [["1" if kind == "declined" else "0"]]


def test_while_the_provider_fails_nothing_is_proposed(platform: Platform, service: Service) -> None:
    """Its page may say "up": what counts is how the latest payments fared. With one in ten unanswered it is refused."""
    failed(platform, "ill-1")
    for index in range(9):
        failed(platform, f"well-{index}", status="'succeeded'", failure_reason="NULL", created_at="now()")
    failed(platform, "ill-2", created_at="now()")
    assert acting(platform, lambda ours: ours.action.preview(PARAMS)).refusals == ()
    failed(platform, "ill-3", created_at="now()")
    refusals = acting(platform, lambda ours: ours.action.preview(PARAMS)).refusals
    assert [refusal.reason for refusal in refusals] == [Reason.PROVIDER_FAILING]
    assert refusals[0].sentence == "The provider left 2 of 11 payments of the last 60 s unanswered."


def test_settling_by_the_attempts_id(platform: Platform, service: Service) -> None:
    """Nothing began: not before start_by has passed is that said. An attempt that the owner saw is done."""
    failed(platform, "settle-1")

    async def work(ours: Remediating) -> Any:
        found = await ours.action.preview(PARAMS)
        never, seen = ours.call(found, ahead=1.0), ours.call(found, ahead=2.0)
        early = await ours.action.settle(never)
        await ours.action.execute(seen)
        await asyncio.sleep(2.2)
        return [one.settlement for one in (early, await ours.action.settle(never), await ours.action.settle(seen))]

    assert acting(platform, work) == [Settlement.UNKNOWN, Settlement.NOT_DONE, Settlement.DONE]


async def test_an_owner_with_a_word_of_its_own_has_not_ended(tmp_path: Path) -> None:
    """Another team's service: what is neither paid nor failed by the contract's words may still take money."""
    token = tmp_path / "token"
    token.write_text("t")
    words = ("processing", "requires_capture", "open", "succeeded", "failed")
    says = iter(words)

    async def attempted(request: web.Request) -> web.Response:
        return web.json_response({"now": time.time(), "begun": [{"id": 7, "status": next(says)}]})

    owner = web.Application()
    owner.router.add_get("/v1/retries/{attempt}", attempted)
    async with TestServer(owner) as server, aiohttp.ClientSession() as session:
        listed = {"payments": {"payments": {"url": str(server.make_url("/")), "token_file": str(token)}}}
        known = Settings.model_validate({**settings().model_dump(), **listed})
        action = RetryFailedPayments(known, session, SystemClock())
        call = Call(secrets.token_hex(16), PARAMS, ({"id": 7},), "payments:payments", time.time() - 60, 20.0, 0.0)
        found = [(await action.settle(call)).settlement for _ in words]
    assert found == [*[Settlement.UNKNOWN] * 3, *[Settlement.DONE] * 2]


def test_a_service_that_is_not_listed_or_away(platform: Platform, service: Service) -> None:
    """Not listed: refused by name. Away: nothing was sent, and that is provable."""
    failed(platform, "away-1")

    async def work(ours: Remediating) -> Any:
        other = PARAMS.model_copy(update={"service": "shop"})
        found = await ours.action.preview(PARAMS)
        service.kill()
        return await ours.action.preview(other), await ours.action.execute(ours.call(found))

    preview, outcome = acting(platform, work)
    service.start()
    assert [refusal.reason for refusal in preview.refusals] == [Reason.TARGET_NOT_ALLOWED]
    assert outcome.result is Result.FAILED
    assert platform.sql("select count(*) from payment_retries") == [["0"]]


def test_settle_confirms_nothing_whose_key_is_forgotten(platform: Platform, service: Service) -> None:
    """An open row of 23 hours is asked about, and never charged by this: it is a person's."""
    body = {"amount": 2500, "currency": "usd", "payment_method": "pm_demo_0002"}
    intent = post_json(f"{platform.url('stripe')}/v1/payment_intents", body, KEY).json()["id"]
    open_row = {"status": "'pending'", "failure_reason": "NULL", "finalized_at": "NULL"}
    old = failed(
        platform,
        "old-1",
        **open_row,
        stripe_payment_intent=f"'{intent}'",
        created_at="now() - interval '23 hours 1 min'",
    )
    before = ledger(platform)["charges"]
    wait_until(lambda: int(platform.sql(f"select attempts from payments where id = {old}")[0][0]) > 3, "it to be asked")
    assert (state(platform, old)[0], ledger(platform)["charges"]) == ("pending", before)


def test_rows_that_cannot_end_hold_up_no_other(platform: Platform, service: Service) -> None:
    """More of them than one round looks at, all older: the row behind them ends all the same."""
    body = {"amount": 2500, "currency": "usd", "payment_method": "pm_demo_0002"}
    open_row = {"status": "'pending'", "failure_reason": "NULL", "finalized_at": "NULL"}
    for index in range(SETTLE_ROWS + 1):
        intent = post_json(f"{platform.url('stripe')}/v1/payment_intents", body, KEY).json()["id"]
        old = {"stripe_payment_intent": f"'{intent}'", "created_at": "now() - interval '24 hours'"}
        failed(platform, f"stuck-{index}", **open_row, **old)
    behind = failed(platform, "behind-1", **open_row)
    wait_until(lambda: state(platform, behind) == ["failed", "abandoned"], "the row behind them to end", 20)


def captured(platform: Platform, capture: Callable[[Source], Awaitable[Captured]], **changes: Any) -> Captured:
    """A diagnosis of the service."""

    async def run() -> Captured:
        async with aiohttp.ClientSession() as session:
            return await capture(Source(knowing(platform, **changes), session, changes.pop("service", "payments")))

    return asyncio.run(run())


def test_the_evidence_names_reasons_and_no_order(platform: Platform, service: Service) -> None:
    """How many failed and why, what may be retried, why the others may not; no order, no card, no method."""
    failed(platform, "secret-order-1")
    failed(platform, "secret-order-2", failure_reason="'card_declined'")
    failed(platform, "secret-order-3", amount_minor="60000")
    found = captured(platform, recent_failures)
    assert found.sentence == "failed within an hour: 2 provider_timeout, 1 card_declined; 1 may be retried"
    assert '"too_large": 1' in found.text
    assert not [word for word in ("secret-order", "pm_demo", "pi_") if word in found.text]


def test_prepctl_shows_failures_without_orders(platform: Platform, service: Service, tmp_path: Path) -> None:
    """`payments:recent --failed` as the handbook types it: reasons and counts; the page that nobody may ask is told."""
    failed(platform, "secret-order-2")
    config = tmp_path / "remediator.yml"
    config.write_text(f"{SETTINGS}payments: {json.dumps({'payments': entry(platform)})}\n")
    shown = CliRunner().invoke(app, ["payments:recent", "--failed", "--config", str(config)])
    assert shown.exit_code == 0, shown.exception
    assert shown.output.startswith("payments: failed within an hour: 1 provider_timeout; 1 may be retried")
    assert not [word for word in ("secret-order", "pm_demo", "pi_") if word in shown.output]
    page = CliRunner().invoke(app, ["payments:provider", "--config", str(config)])
    assert "status_page is not set" in page.output


def test_the_providers_page_is_a_word_and_no_more(platform: Platform, service: Service) -> None:
    """Off without a setting; silent is said; another answer is said. None of it keeps the evidence incomplete."""
    assert captured(platform, stripe_status).text == "switched off"
    silent = captured(platform, stripe_status, status_page="http://127.0.0.1:9/api/v2/status.json")
    assert "proves nothing" in silent.sentence
    other = captured(platform, stripe_status, status_page=f"{platform.url('stripe')}/_config/health")
    assert "something else" in other.sentence


def test_evidence_of_a_service_that_is_not_listed(platform: Platform, service: Service) -> None:
    """It is missing, and said so."""

    async def run() -> Captured:
        async with aiohttp.ClientSession() as session:
            return await recent_failures(Source(knowing(platform), session, "shop"))

    with pytest.raises(Permanent, match="not in the settings"):
        asyncio.run(run())


def test_the_queue_keeps_its_order(platform: Platform, service: Service) -> None:
    """What somebody has agreed to stays the same while more fails behind it."""
    first = [failed(platform, f"queue-{index}") for index in range(3)]
    failed(platform, "queue-9")
    began = time.monotonic()
    assert [one["id"] for one in listed(platform, 3)["retryable"]] == first
    assert time.monotonic() - began < 5
