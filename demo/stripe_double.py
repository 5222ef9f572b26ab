"""Stripe for the demo: localstripe, with what Stripe has and localstripe lacks, or has and a demo cannot carry.

Runs in localstripe's own environment (demo/localstripe.lock), never in ours, and needs nothing of ours:

    <that environment>/bin/python demo/stripe_double.py --port 8420

1. **Idempotency keys.** A POST that repeats a key gets the first answer again and has no second effect; with other
   parameters it is refused with 400, and while the first still runs with 409 (Stripe's API reference, "Idempotent
   requests"). localstripe ignores the header, and then "never two charges" could not be tried on it.
2. **No file.** localstripe pickles its whole store at each change: two payments a second take a core after an hour.
3. **A bounded store.** The oldest objects go when there are more than `--keep`; GET /_config/charges counts them all.
4. **IPv4 too.** localstripe listens on an IPv6 socket only, which a container without IPv6 has not.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import OrderedDict
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from localstripe import resources, server  # type: ignore[import-not-found, unused-ignore]

KEYS_KEPT = 10_000
"""Idempotency keys remembered; Stripe forgets them after 24 hours."""
INTENTS_KEPT = 100_000
"""PaymentIntents whose charges are told apart."""


class Answers:
    """First answers by idempotency key."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[str, tuple[int, bytes] | None]] = OrderedDict()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key")
        if request.method != "POST" or not key:
            return await handler(request)
        fingerprint = hashlib.sha256(request.path.encode() + b"\0" + await request.read()).hexdigest()
        known = self._known.get(key)
        if known is not None:
            return _repeated(known, fingerprint)
        self._known[key] = (fingerprint, None)
        try:
            answer = await handler(request)
        except BaseException:
            del self._known[key]  # nothing was answered: the key may be used again
            raise
        body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""
        self._known[key] = (fingerprint, (answer.status, body))
        while len(self._known) > KEYS_KEPT:
            self._known.popitem(last=False)
        return answer


def _repeated(known: tuple[str, tuple[int, bytes] | None], fingerprint: str) -> web.Response:
    first, answer = known
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
    """Counts the charges that took money, by PaymentIntent; also of objects that the store has let go."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._charges = 0
        self._by_intent: OrderedDict[str, int] = OrderedDict()
        self._twice: dict[str, int] = {}

    def attach(self) -> None:
        """Put ourselves between localstripe and its store."""
        take_money = resources.Charge._trigger_payment
        keep = self._keep

        def bounded_set(store: Any, key: str, value: Any) -> None:
            dict.__setitem__(store, key, value)
            while len(store) > keep:
                dict.__delitem__(store, next(iter(store)))

        def counted(charge: Any, on_success: Any = None) -> None:
            self._count(str(charge.payment_intent))
            take_money(charge, on_success)

        resources.Store.dump_to_disk = lambda _: None
        resources.Store.__setitem__ = bounded_set
        resources.Charge._trigger_payment = counted

    async def charges(self, _: web.Request) -> web.Response:
        """GET /_config/charges: how many there were, and the intents that were charged more than once."""
        return web.json_response({"charges": self._charges, "twice": self._twice})

    def _count(self, intent: str) -> None:
        self._charges += 1
        count = self._by_intent[intent] = self._by_intent.get(intent, 0) + 1
        if count > 1:
            self._twice[intent] = count
        while len(self._by_intent) > INTENTS_KEPT:
            self._by_intent.popitem(last=False)


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
    # Outside of localstripe's own middlewares: a decline is an answer too, and is repeated like any other.
    server.app.middlewares.insert(0, Answers().middleware)
    # localstripe asks for no API key below /_config.
    server.app.router.add_get("/_config/health", _health)
    server.app.router.add_get("/_config/charges", ledger.charges)
    web.run_app(server.app, host=arguments.host, port=arguments.port, access_log=None, shutdown_timeout=1.0)


if __name__ == "__main__":
    main()
