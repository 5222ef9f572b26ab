"""Stripe for the demo: localstripe, with what Stripe has and localstripe lacks, or has and a demo cannot carry.

Runs in localstripe's own environment (demo/localstripe.lock), never in ours, and needs nothing of ours:

    <that environment>/bin/python demo/stripe_double.py --port 8420

1. **Idempotency keys.** A POST that repeats a key gets the first answer again, also a 500, and has no second effect;
   with other parameters it is refused with 400, while the first still runs with 409, and after 24 hours the key is
   forgotten. What never began leaves no answer behind: 401 and 429 come before the keys (Stripe's API reference,
   "Idempotent requests"; "Advanced error handling"). localstripe ignores the header.
2. **Faults on demand**, POST /_config/faults: see `Faults`. They stand in this process and not in a proxy before it,
   because they belong at three places: before the keys, between keys and effect, and after the effect.
3. **No file.** localstripe pickles its whole store at each change: two payments a second take a core after an hour.
4. **A bounded store.** The oldest objects go when there are more than `--keep`; GET /_config/charges counts them all.
5. **IPv4 too.** localstripe listens on an IPv6 socket only, which a container without IPv6 has not.
6. **More cards than one.** `pm_demo_0000` to `pm_demo_9999` are cards that pay, each with a fingerprint of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import time
from collections import Counter, OrderedDict
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from localstripe import resources, server  # type: ignore[import-not-found, unused-ignore]

KEYS_KEPT = 100_000
"""Idempotency keys remembered at most."""
KEY_SECONDS = 24 * 3600.0
"""Stripe removes keys when they are at least 24 hours old."""
INTENTS_KEPT = 100_000
"""PaymentIntents whose charges are told apart."""
NEVER_BEGAN = (401, 429)
"""Statuses that are answered before the keys are looked at, and so never saved."""


class Clock:
    """UNIX seconds for the age of keys; POST /_config/clock {"ahead_seconds": 90000} moves it."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        return time.time() + self._ahead

    async def move(self, request: web.Request) -> web.Response:
        """POST /_config/clock."""
        self._ahead = float((await request.json())["ahead_seconds"])
        return web.json_response({"now": self.now()})


class Faults:
    """What goes wrong on purpose, each with a probability: POST /_config/faults {"seed": 7, "reset_after": 0.1, ...}.

    A new call takes the place of the old one; without words nothing goes wrong. The ledger's own paths are left alone;
    with `path` all are but those that end with it ("/confirm").

    reset_before    the connection breaks, and nothing was done
    timeout_before  no answer for `hang_seconds`, and nothing was done
    rate_limited    429, before the keys
    unavailable     503, before the keys: no answer is saved
    error_before    500 in place of the effect; saved under the key
    error_after     500 after the effect; saved under the key
    slow_effect     the effect comes after `hang_seconds`, and then its answer
    reset_after     done, and the connection breaks
    timeout_after   done, and no answer for `hang_seconds`
    """

    BEFORE = ("reset_before", "timeout_before", "rate_limited", "unavailable")
    SAVED = ("error_before", "error_after", "slow_effect")
    AFTER = ("reset_after", "timeout_after")

    def __init__(self) -> None:
        self._shares: dict[str, float] = {}
        self._random = random.Random(0)
        self._hang = 30.0
        self._path = ""
        self._made: Counter[str] = Counter()

    async def set(self, request: web.Request) -> web.Response:
        """POST /_config/faults."""
        wanted = dict(await request.json())
        self._random, self._hang = random.Random(wanted.pop("seed", 0)), float(wanted.pop("hang_seconds", 30.0))
        self._path = str(wanted.pop("path", ""))
        if unknown := set(wanted) - {*self.BEFORE, *self.SAVED, *self.AFTER}:
            return _error(400, "invalid_request_error", f"no fault {sorted(unknown)}")
        self._shares = {name: float(share) for name, share in wanted.items()}
        return web.json_response(self._shares)

    async def made(self, _: web.Request) -> web.Response:
        """GET /_config/faults: how often each was made so far."""
        return web.json_response(dict(self._made))

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Outermost: what happens on the way here, and on the way back."""
        if not self._meant(request):
            return await handler(request)
        match self._drawn(*self.BEFORE, *self.AFTER):
            case "rate_limited":
                return _error(429, "rate_limit_error", "Too many requests hit the API too quickly.")
            case "unavailable":
                return _error(503, "api_error", "The API is down on purpose.")
            case "reset_before" | "timeout_before" as name:
                return await self._lost(request, name)
            case "reset_after" | "timeout_after" as name:
                await handler(request)
                return await self._lost(request, name)
        return await handler(request)

    @web.middleware
    async def at_the_effect(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Behind the keys: a 500 that they remember."""
        if request.method == "POST" and self._meant(request):
            name = self._drawn(*self.SAVED)
            if name == "slow_effect":
                await asyncio.sleep(self._hang)
                return await handler(request)
            if name == "error_after":
                await handler(request)
            if name is not None:
                return _error(500, "api_error", "An error on our end, on purpose.")
        return await handler(request)

    def _meant(self, request: web.Request) -> bool:
        return not request.path.startswith("/_config/") and request.path.endswith(self._path)

    async def _lost(self, request: web.Request, name: str) -> web.StreamResponse:
        if name.startswith("timeout"):
            await asyncio.sleep(self._hang)
        if request.transport is not None:
            request.transport.abort()
        raise web.HTTPServiceUnavailable

    def _drawn(self, *names: str) -> str | None:
        """At most one of these faults, by its share."""
        point = self._random.random()
        for name in names:
            point -= self._shares.get(name, 0.0)
            if point < 0:
                self._made[name] += 1
                return name
        return None


class Answers:
    """First answers by idempotency key, for KEY_SECONDS."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[str, float, tuple[int, bytes] | None]] = OrderedDict()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key")
        if request.method != "POST" or not key:
            return await handler(request)
        fingerprint = hashlib.sha256(request.path.encode() + b"\0" + await request.read()).hexdigest()
        known = self._known.get(key)
        if known is not None and (known[2] is None or self._clock.now() - known[1] < KEY_SECONDS):
            return _repeated(known[0], known[2], fingerprint)
        began = self._clock.now()
        self._known[key] = (fingerprint, began, None)
        self._known.move_to_end(key)
        try:
            answer = await handler(request)
        except asyncio.CancelledError:
            del self._known[key]  # nothing was answered: the key may be used again
            raise
        except Exception as error:  # noqa: BLE001 - what went wrong inside is an answer too, and is repeated
            answer = _error(500, "api_error", type(error).__name__)
        if answer.status in NEVER_BEGAN:
            del self._known[key]
            return answer
        body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""
        self._known[key] = (fingerprint, began, (answer.status, body))
        while len(self._known) > KEYS_KEPT:
            self._known.popitem(last=False)
        return answer


def _repeated(first: str, answer: tuple[int, bytes] | None, fingerprint: str) -> web.Response:
    if first != fingerprint:
        return _error(400, "idempotency_error", "An idempotency key was used with other parameters before.")
    if answer is None:
        return _error(409, "idempotency_error", "There is another request in progress with this idempotency key.")
    status, body = answer
    return web.Response(
        status=status, body=body, content_type="application/json", headers={"Idempotent-Replayed": "true"}
    )


def _error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


class Ledger:
    """Counts the charges that took money, by PaymentIntent and by order; also of objects that the store has let go.

    The order is what whoever made the intent wrote into its metadata, `order_ref`.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._charges = 0
        self._by_intent: OrderedDict[str, int] = OrderedDict()
        self._twice: dict[str, int] = {}
        self._by_order: OrderedDict[str, list[int]] = OrderedDict()
        self._declined: OrderedDict[str, int] = OrderedDict()
        self._after_decline = 0

    def attach(self) -> None:
        """Put ourselves between localstripe and its store."""
        take_money = resources.Charge._trigger_payment
        keep = self._keep

        def bounded_set(store: Any, key: str, value: Any) -> None:
            dict.__setitem__(store, key, value)
            while len(store) > keep:
                dict.__delitem__(store, next(iter(store)))

        def counted(charge: Any, on_success: Any = None) -> None:
            self._count(str(charge.payment_intent), int(charge.amount))
            take_money(charge, on_success)

        refuse, confirm = resources.Charge._set_auth_failure, resources.PaymentIntent._confirm

        def declined(charge: Any) -> None:
            self._declined[str(charge.payment_intent)] = 1
            refuse(charge)

        def confirmed(intent: Any, on_failure_now: Any) -> None:
            self._after_decline += str(intent.id) in self._declined
            confirm(intent, on_failure_now)

        canonical = resources.PaymentMethod._try_get_canonical_test_article.__func__

        def card(cls: Any, name: str) -> Any:
            number = name.removeprefix("pm_demo_")
            if number == name or len(number) != 4 or not number.isdecimal():
                return canonical(cls, name)
            details = {"number": f"424242424242{number}", "exp_month": "12", "exp_year": "2030", "cvc": "123"}
            return resources.PaymentMethod(type="card", card=details)

        resources.PaymentMethod._try_get_canonical_test_article = classmethod(card)
        resources.Charge._set_auth_failure = declined
        resources.PaymentIntent._confirm = confirmed

        resources.Store.dump_to_disk = lambda _: None
        resources.Store.__setitem__ = bounded_set
        resources.Charge._trigger_payment = counted

    async def charges(self, request: web.Request) -> web.Response:
        """GET /_config/charges: how many there were, and the intents that were charged more than once.

        Also how many cards were declined, and how often an intent was confirmed after its card was. With `?orders=1`
        the orders too: by reference how often, and how much in the smallest unit.
        """
        found: dict[str, Any] = {"charges": self._charges, "twice": self._twice}
        found |= {"declined": len(self._declined), "confirmed_after_decline": self._after_decline}
        if request.query.get("orders"):
            found["orders"] = self._by_order
        return web.json_response(found)

    def _count(self, intent: str, amount: int) -> None:
        self._charges += 1
        found = resources.store.get(f"payment_intent:{intent}")
        if found is not None and (order := (found.metadata or {}).get("order_ref")):
            times = self._by_order.setdefault(order, [0, 0])
            times[0] += 1
            times[1] += amount
        count = self._by_intent[intent] = self._by_intent.get(intent, 0) + 1
        if count > 1:
            self._twice[intent] = count
        for kept in (self._by_intent, self._by_order, self._declined):
            while len(kept) > INTENTS_KEPT:
                kept.popitem(last=False)


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(description="localstripe for the demo")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a container has its own network
    parser.add_argument("--port", type=int, default=8420)
    parser.add_argument("--keep", type=int, default=20_000, help="objects kept; a payment makes about ten")
    parser.add_argument("--from-scratch", action="store_true", help="accepted for localstripe's sake: it always is")
    arguments = parser.parse_args()
    ledger = Ledger(arguments.keep)
    ledger.attach()
    clock, faults = Clock(), Faults()
    # Outside of localstripe's own middlewares: a decline is an answer too, and is repeated like any other.
    server.app.middlewares.insert(0, faults.at_the_effect)
    server.app.middlewares.insert(0, Answers(clock).middleware)
    server.app.middlewares.insert(0, faults.middleware)
    # localstripe asks for no API key below /_config.
    server.app.router.add_get("/_config/health", _health)
    server.app.router.add_get("/_config/charges", ledger.charges)
    server.app.router.add_get("/_config/faults", faults.made)
    server.app.router.add_post("/_config/faults", faults.set)
    server.app.router.add_post("/_config/clock", clock.move)
    web.run_app(server.app, host=arguments.host, port=arguments.port, access_log=None, shutdown_timeout=1.0)


if __name__ == "__main__":
    main()
