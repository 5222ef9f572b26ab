"""Payments on real PostgreSQL against Stripe's double, through the official SDK: the money is taken once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.demo_platform import Platform
from tests.support.servers import PostgresServer, RedisServer, Reply, Run, Service, fetch, post_json, wait_until

DECLINED = "pm_card_chargeCustomerFail"


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


@pytest.fixture
def service(platform: Platform, stripe: Service) -> Iterator[Service]:
    """Payments that looks after open rows each half second, once they are two seconds old."""
    platform.sql("truncate payments")
    service = platform.service("payments", PREP_SETTLE_EVERY_SECONDS="0.5", PREP_SETTLE_AFTER_SECONDS="2").start()
    yield service
    service.stop()


def charges(platform: Platform) -> int:
    """How often Stripe's double has taken money; no intent may have been charged twice."""
    counted = fetch(f"{platform.url('stripe')}/_config/charges").json()
    assert counted["twice"] == {}
    return int(counted["charges"])


def rows(platform: Platform, order_ref: str) -> list[list[str]]:
    return platform.sql(f"select status, failure_reason from payments where order_ref = '{order_ref}' order by id")


def test_a_payment_takes_the_money_and_tells(platform: Platform, service: Service) -> None:
    """201 with the row as it is in the database, which GET gives again."""
    before = charges(platform)
    reply = platform.pay("ok-1")
    assert (reply.status, reply.json()["status"]) == (201, "succeeded")
    assert charges(platform) == before + 1
    assert fetch(f"{platform.url('payments')}/v1/payments/{reply.json()['id']}").json() == reply.json()
    assert platform.sql("select finalized_at >= created_at, attempts from payments") == [["t", "1"]]


@pytest.mark.parametrize(("card", "reason"), [(DECLINED, "card_declined"), ("pm_unheard_of", "invalid_request")])
def test_a_refused_card_ends_the_row_and_the_order_may_pay_otherwise(
    platform: Platform, service: Service, card: str, reason: str
) -> None:
    """402 with the provider's reason; a second payment of the order with a good card goes through."""
    before = charges(platform)
    reply = platform.pay("refused-1", card)
    assert (reply.status, reply.json()["failure_reason"]) == (402, reason)
    assert platform.pay("refused-1").status == 201
    assert rows(platform, "refused-1") == [["failed", reason], ["succeeded", ""]]
    assert charges(platform) == before + 1


def test_the_same_order_pays_once_however_often_it_asks(platform: Platform, service: Service) -> None:
    """Twenty clients at once, and one later: one charge. Another amount is no repetition but a mistake."""
    before = charges(platform)
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: platform.pay("same-1"), range(20)))
    assert {reply.status for reply in replies} <= {201, 202}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert platform.pay("same-1").status == 201
    assert platform.pay("same-1", amount_minor=9900).status == 409
    assert charges(platform) == before + 1


@pytest.mark.parametrize(
    "change",
    [{"amount_minor": 0}, {"amount_minor": "2500"}, {"currency": "dollars"}, {"payment_method": "4242"}, {"x": 1}],
)
def test_what_is_no_payment_is_refused_and_leaves_no_row(
    platform: Platform, service: Service, change: dict[str, object]
) -> None:
    """400 that names the field."""
    body = {"order_ref": "bad", "amount_minor": 2500, "currency": "usd", "payment_method": "pm_card_visa", **change}
    reply = post_json(f"{platform.url('payments')}/v1/payments", body)
    assert reply.status == 400
    assert next(iter(change)) in reply.json()["error"]
    assert rows(platform, "bad") == []


def test_unknown_paths_and_ids_are_404(platform: Platform, service: Service) -> None:
    """Also numbers beyond what the database can count."""
    for path in ("/v1/payments/999999", "/v1/payments/" + "9" * 30, "/v1/payments/x"):
        assert fetch(platform.url("payments") + path).status == 404


def test_an_unanswered_call_is_not_known_and_settled_later(platform: Platform, stripe: Service) -> None:
    """The provider hangs: 202 and pending, never a guess. The row ends later, and with it no charge exists."""
    before = charges(platform)
    patient = platform.service("payments", PREP_SETTLE_EVERY_SECONDS="0.5", PREP_SETTLE_AFTER_SECONDS="12")
    with patient as service:
        with stripe.frozen():
            reply: Reply = platform.pay("hang-1")
            assert (reply.status, reply.json()["status"]) == (202, "pending")
            assert platform.pay("hang-1").status == 202  # the order is taken: nobody can pay it a second time
        wait_until(lambda: rows(platform, "hang-1")[0][0] != "pending", "the row to end", seen=service.tail)
    # The call hung before the intent's id was known, so nothing can have been charged, and nothing will be.
    assert rows(platform, "hang-1") == [["failed", "provider_timeout"]]
    assert charges(platform) == before


def test_a_provider_that_is_away_is_named_as_the_reason(platform: Platform, stripe: Service) -> None:
    """Nobody listens: the payment stays open, and when it is given up the row says whose failure it was."""
    lonely = platform.service(
        "payments", STRIPE_API_BASE="http://127.0.0.1:9", PREP_SETTLE_EVERY_SECONDS="0.3", PREP_SETTLE_AFTER_SECONDS="1"
    )
    with lonely as service:
        assert platform.pay("away-1").status == 202
        wait_until(lambda: rows(platform, "away-1")[0][0] != "pending", "the row to end", seen=service.tail)
    assert rows(platform, "away-1") == [["failed", "provider_unreachable"]]


def test_money_goes_back_once(platform: Platform, service: Service) -> None:
    """A refund is a state and a time of its own; asked again it is the same one. What has no money has no refund."""
    paid = platform.pay("back-1").json()["id"]
    refund = f"{platform.url('payments')}/v1/payments/{paid}/refund"
    assert [post_json(refund, {}).status for _ in range(2)] == [200, 200]
    assert platform.sql(
        "select status, refunded_at > finalized_at, finalized_at is not null from payments where order_ref = 'back-1'"
    ) == [["refunded", "t", "t"]]
    declined = platform.pay("back-2", DECLINED).json()["id"]
    assert post_json(f"{platform.url('payments')}/v1/payments/{declined}/refund", {}).status == 409
    assert post_json(f"{platform.url('payments')}/v1/payments/999999/refund", {}).status == 404
    assert platform.pay("back-1").status == 201, "the order may be paid anew"


def test_an_intent_that_was_not_confirmed_is_confirmed_by_whoever_settles(platform: Platform, service: Service) -> None:
    """Killed between the two calls: the row knows its intent, and that very intent is charged, once."""
    before = charges(platform)
    created = post_json(
        f"{platform.url('stripe')}/v1/payment_intents",
        {"amount": 700, "currency": "usd", "payment_method": "pm_card_visa"},
        {"Authorization": "Bearer sk_test_demo"},
    )
    platform.sql(
        "insert into payments (order_ref, amount_minor, currency, provider, method, status, stripe_payment_intent,"
        f" created_at) values ('cut-1', 700, 'usd', 'stripe', 'card', 'pending', '{created.json()['id']}',"
        " now() - interval '1 min')"
    )
    wait_until(lambda: rows(platform, "cut-1") == [["succeeded", ""]], "the payment to be settled")
    assert charges(platform) == before + 1


@pytest.mark.parametrize(
    ("card", "reason"),
    [(DECLINED, "card_declined"), ("authentication", "authentication_required"), (None, "intent_missing")],
)
def test_what_cannot_be_charged_any_more_ends(
    platform: Platform, service: Service, card: str | None, reason: str
) -> None:
    """A declined card, one whose bank wants to see the customer (it is cancelled), an intent that nobody knows."""
    before = charges(platform)
    intent = "pi_unheardof"
    if card is not None:
        intent = _intent(platform, card)
    platform.sql(
        "insert into payments (order_ref, amount_minor, currency, provider, method, status, stripe_payment_intent,"
        f" created_at) values ('end-1', 700, 'usd', 'stripe', 'card', 'pending', '{intent}', now() - interval '1 min')"
    )
    wait_until(lambda: rows(platform, "end-1") == [["failed", reason]], "the payment to end", seen=service.tail)
    assert charges(platform) == before


def _intent(platform: Platform, card: str) -> str:
    """A new unconfirmed intent; `authentication` is a card that needs its owner (docs.stripe.com/testing)."""
    api, key = platform.url("stripe"), {"Authorization": "Bearer sk_test_demo"}
    if card == "authentication":
        details = {"number": "4000002500003155", "exp_month": 12, "exp_year": 2030, "cvc": "123"}
        card = post_json(f"{api}/v1/payment_methods", {"type": "card", "card": details}, key).json()["id"]
    body = {"amount": 700, "currency": "usd", "payment_method": card}
    return str(post_json(f"{api}/v1/payment_intents", body, key).json()["id"])


def test_the_double_knows_idempotency_keys(platform: Platform, stripe: Service) -> None:
    """One key, one effect, the first answer again, also for a decline; other parameters under it are refused."""
    before = charges(platform)
    api, intent = platform.url("stripe"), _intent(platform, "pm_card_visa")
    key = {"Authorization": "Bearer sk_test_demo", "Idempotency-Key": f"key-of-{intent}"}
    confirm = f"{api}/v1/payment_intents/{intent}/confirm"
    first, again = post_json(confirm, {}, key), post_json(confirm, {}, key)
    assert (first.status, again.status) == (200, 200)
    assert again.body == first.body
    assert again.headers["idempotent-replayed"] == "true"
    assert charges(platform) == before + 1
    other = post_json(f"{api}/v1/payment_intents", {"amount": 1, "currency": "usd"}, key)
    assert (other.status, other.json()["error"]["type"]) == (400, "idempotency_error")
    declined = f"{api}/v1/payment_intents/{_intent(platform, DECLINED)}/confirm"
    key["Idempotency-Key"] = f"declined-{intent}"
    assert [post_json(declined, {}, key).status for _ in range(2)] == [402, 402]


@pytest.fixture
def ill(platform: Platform, stripe: Service) -> Iterator[Callable[..., None]]:
    """Puts faults into the double; afterwards nothing goes wrong, and its clock is right."""

    def put(**shares: float | str) -> None:
        assert post_json(f"{platform.url('stripe')}/_config/faults", shares).status == 200

    yield put
    put()
    post_json(f"{platform.url('stripe')}/_config/clock", {"ahead_seconds": 0})


def _confirm(platform: Platform, intent: str, key: str = "", timeout: float = 5.0) -> Reply:
    """Charge an intent, under a key of its own unless another is given."""
    headers = {"Authorization": "Bearer sk_test_demo", "Idempotency-Key": key or f"key-of-{intent}"}
    return fetch(f"{platform.url('stripe')}/v1/payment_intents/{intent}/confirm", "POST", "", headers, timeout)


@pytest.mark.parametrize(("fault", "charged"), [("error_before", 0), ("error_after", 1)])
def test_the_double_repeats_a_500(platform: Platform, ill: Callable[..., None], fault: str, charged: int) -> None:
    """Whether it charged or not: the key answers 500 from then on, when all is well again too, and has no effect."""
    before, intent = charges(platform), _intent(platform, "pm_card_visa")
    ill(**{fault: 1.0})
    assert _confirm(platform, intent).status == 500
    ill()
    again = _confirm(platform, intent)
    assert (again.status, again.headers["idempotent-replayed"]) == (500, "true")
    assert charges(platform) == before + charged


def test_the_double_refuses_other_parameters(platform: Platform, stripe: Service) -> None:
    """400 for another path and for another body under a key, and nothing is charged by it."""
    first, other = _intent(platform, "pm_card_visa"), _intent(platform, "pm_card_visa")
    before = charges(platform)
    assert _confirm(platform, first, "one-key").status == 200
    refused = _confirm(platform, other, "one-key")
    assert (refused.status, refused.json()["error"]["type"]) == (400, "idempotency_error")
    assert charges(platform) == before + 1


def test_the_double_refuses_a_key_that_is_in_use(platform: Platform, ill: Callable[..., None]) -> None:
    """409 while the first still runs, the first one's answer afterwards, one charge."""
    intent, before = _intent(platform, "pm_card_visa"), charges(platform)
    ill(slow_effect=1.0, hang_seconds=1.0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(_confirm, platform, intent)
        time.sleep(0.4)
        during = _confirm(platform, intent)
        assert first.result().status == 200
    assert (during.status, during.json()["error"]["type"]) == (409, "idempotency_error")
    assert _confirm(platform, intent).headers["idempotent-replayed"] == "true"
    assert charges(platform) == before + 1


def test_the_double_forgets_a_key_after_24_hours(platform: Platform, ill: Callable[..., None]) -> None:
    """Until then the saved answer; after it the call runs anew, which an intent that is charged refuses by itself."""
    intent, before = _intent(platform, "pm_card_visa"), charges(platform)
    assert _confirm(platform, intent).status == 200
    for ahead, status in ((24 * 3600 - 60, 200), (24 * 3600 + 60, 400)):
        post_json(f"{platform.url('stripe')}/_config/clock", {"ahead_seconds": ahead})
        assert _confirm(platform, intent).status == status
    assert charges(platform) == before + 1


@pytest.mark.parametrize(("fault", "status"), [("rate_limited", 429), ("unavailable", 503)])
def test_the_double_saves_nothing_that_never_began(
    platform: Platform, ill: Callable[..., None], fault: str, status: int
) -> None:
    """The same key goes through once all is well."""
    intent, before = _intent(platform, "pm_card_visa"), charges(platform)
    ill(**{fault: 1.0})
    assert _confirm(platform, intent).status == status
    ill()
    assert _confirm(platform, intent).status == 200
    assert charges(platform) == before + 1


@pytest.mark.parametrize(
    ("fault", "charged"), [("reset_before", 0), ("timeout_before", 0), ("reset_after", 1), ("timeout_after", 1)]
)
def test_the_double_loses_calls_and_answers(
    platform: Platform, ill: Callable[..., None], fault: str, charged: int
) -> None:
    """No answer, with or without a charge; the key tells it afterwards."""
    intent, before = _intent(platform, "pm_card_visa"), charges(platform)
    ill(**{fault: 1.0}, hang_seconds=2.0)
    with pytest.raises(OSError):
        _confirm(platform, intent, timeout=0.5)
    assert charges(platform) == before + charged
    ill()
    assert _confirm(platform, intent).status == 200
    assert charges(platform) == before + 1


def test_the_double_knows_no_other_fault(platform: Platform, stripe: Service) -> None:
    """A word that it does not know is no fault that nobody notices."""
    assert post_json(f"{platform.url('stripe')}/_config/faults", {"reset": 1.0}).status == 400


def test_killed_again_and_again_it_takes_the_money_once(platform: Platform, service: Service) -> None:
    """Five kills -9 under traffic: afterwards every row has ended, and as many succeeded as there were charges."""
    before = charges(platform)
    stop = time.monotonic() + 20

    def customer(number: int) -> None:
        for turn in range(1000):
            if time.monotonic() > stop:
                return
            for _ in range(2):  # a customer who gets no answer asks again
                try:
                    platform.pay(f"kill-{number}-{turn}", DECLINED if turn % 7 == 6 else "pm_card_visa", timeout=5)
                    break
                except OSError:
                    time.sleep(0.05)

    with ThreadPoolExecutor(4) as pool:
        customers = [pool.submit(customer, number) for number in range(4)]
        for _ in range(5):
            time.sleep(0.7)
            service.kill()
            service.start()
        stop = 0
        for each in customers:
            each.result()
    wait_until(
        lambda: platform.sql("select count(*) from payments where status = 'pending'") == [["0"]], "all rows to end", 60
    )
    succeeded = int(platform.sql("select count(*) from payments where status = 'succeeded'")[0][0])
    assert succeeded == charges(platform) - before
    assert succeeded > 10
    twice = platform.sql("select order_ref from payments where status = 'succeeded' group by 1 having count(*) > 1")
    assert twice == []


def test_stopping_is_quick(platform: Platform, service: Service, stripe: Service) -> None:
    """SIGTERM while the provider hangs and a request is open: two seconds, and the row is settled by the next run."""
    with ThreadPoolExecutor(1) as pool, stripe.frozen():
        waiting = pool.submit(platform.pay, "stop-1")
        wait_until(lambda: rows(platform, "stop-1") == [["pending", ""]], "the row to be there")
        began = time.monotonic()
        assert service.terminate(deadline=5) == 0
        assert time.monotonic() - began < 3
        with pytest.raises(OSError):
            waiting.result()
    service.start()
    wait_until(lambda: rows(platform, "stop-1") == [["failed", "abandoned"]], "the row to be settled")


def test_heartbeat_is_written_and_the_pool_is_told(platform: Platform, stripe: Service) -> None:
    """The row on the primary is renewed, also after a time without the database; the pool's use is published."""
    service = platform.service("payments", PREP_HEARTBEAT_EVERY_SECONDS="0.1").start()

    def beat() -> str:
        return platform.sql("select coalesce(max(beat_at)::text, '') from replication_heartbeat")[0][0]

    first = wait_until(beat, "a heartbeat", 5)
    wait_until(lambda: beat() > first, "the next heartbeat", 5)
    platform.postgres.restart()
    last = beat()
    wait_until(lambda: beat() > last, "a heartbeat after the restart", 10, seen=service.tail)
    assert platform.sql("select count(*) from replication_heartbeat") == [["1"]]
    assert platform.metric("payments", "prep_pool_connections_max", backend="postgres") == 5
    assert 1 <= platform.metric("payments", "prep_pool_connections", backend="postgres") <= 5
    service.stop()
