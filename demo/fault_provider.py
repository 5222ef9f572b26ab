"""Payments that fail: the provider that does not answer, and banks that say no; and the provider's own ledger.

The double is told to answer new payments with 503, before it looks at keys: nothing is charged, and nothing is saved
under a key. What was made before is confirmed and refunded as ever.
"""

from __future__ import annotations

import argparse
import asyncio
import uuid
from collections import Counter
from typing import Any

import aiohttp

from demo.environment import Environment, text
from demo.fault_report import FaultError, tell
from demo.orders import CARDS

APART_SECONDS = 0.25
_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
_PATIENCE = aiohttp.ClientTimeout(total=10.0)


async def provider_fails(options: argparse.Namespace, environment: Environment) -> None:
    """Of a hundred new payments `options.percent` get no answer, for `options.seconds`; then all do again."""
    wanted = {"unavailable": options.percent / 100, "path": "/v1/payment_intents"}
    try:
        await _double(environment, "/_config/faults", wanted)
        tell("provider_fails", percent=options.percent)
        await asyncio.sleep(options.seconds)
    finally:
        await _double(environment, "/_config/faults", {})
        tell("provider_well")


async def provider_well(options: argparse.Namespace, environment: Environment) -> None:
    """End it before its time."""
    del options
    await _double(environment, "/_config/faults", {})
    tell("provider_well")


async def provider_ledger(options: argparse.Namespace, environment: Environment) -> None:
    """Tell what the double took: how often and how much by order, and what was confirmed after a decline."""
    del options
    found = await _double(environment, "/_config/charges?orders=1")
    tell("ledger", **found)


async def declined_cards(options: argparse.Namespace, environment: Environment) -> None:
    """`options.count` payments whose banks decline them. Raises FaultError when one ends otherwise."""
    card = next(card for card in CARDS if not card.endswith("_"))
    url = text(environment, "PREP_PAYMENTS_URL", "http://payments:8080")
    run, seen = uuid.uuid4().hex[:12], Counter[int]()
    async with aiohttp.ClientSession(url, timeout=_PATIENCE) as client:
        for number in range(options.count):
            body = {"order_ref": f"{run}-{number}", "amount_minor": 2500, "currency": "usd", "payment_method": card}
            try:
                async with client.post("/v1/payments", json=body) as answer:
                    seen[answer.status] += 1
            except _ERRORS as error:
                raise FaultError(f"payments does not answer: {error}") from error
            await asyncio.sleep(APART_SECONDS)
    tell("declined", run=run, statuses=dict(seen))
    if set(seen) != {402}:
        raise FaultError(f"not all were declined: {dict(seen)}")


async def _double(environment: Environment, path: str, body: Any = None) -> Any:
    base = text(environment, "STRIPE_API_BASE", "http://stripe:8420")
    try:
        async with (
            aiohttp.ClientSession(base, timeout=_PATIENCE) as client,
            client.request("GET" if body is None else "POST", path, json=body) as answer,
        ):
            answer.raise_for_status()
            return await answer.json()
    except _ERRORS as error:
        raise FaultError(f"the provider's double does not answer to {path}: {error}") from error
