"""The leak: clients that hang up in the middle of a check, and the engine sessions that they take with them.

Each client sends a real check under a reference of its own, waits until an engine session works on it
(GET /v1/engine), and drops its connection. A session that still works on that reference a second later, with nobody
there, is lost; a check that ended in time is tried again. Finally /metrics must say the same: at no time fewer busy
sessions than are lost.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp

from demo.environment import Environment, text
from demo.fault_report import FaultError, tell
from demo.orders import SAMPLE_ORDER, SAMPLE_RULE_SET
from exporter.catalog.services import ENGINE_SESSIONS

LOOK_SECONDS = 0.04
"""Pause between looks at the engine: an evaluation takes several times as long."""
LOST_SECONDS = 1.0
"""An evaluation ends in less; one that is older and has no client is lost."""
CONFIRM_LOOKS = 5
RESTART_LOOK_SECONDS = 0.5
_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)
_BUSY = f'{ENGINE_SESSIONS.name}{{state="busy"}} '

T = TypeVar("T")


async def leak_sessions(options: argparse.Namespace, environment: Environment) -> None:
    """Lose `options.count` sessions within `options.seconds`; raises FaultError when that does not come about."""
    async with _client(environment) as client:
        await _leak(client, options.count, options.seconds)


async def slow_again(options: argparse.Namespace, environment: Environment) -> None:
    """Wait for a restart of the service, `options.times` times; lose sessions `options.after` seconds after each."""
    async with _client(environment) as client:
        started = await _started(client)
        tell("waiting", fault="slow-again", started=started, within_seconds=options.within)
        for turn in range(1, options.times + 1):
            started = await _restarted(client, started, options.within)
            tell("restarted", turn=turn, started=started)
            await asyncio.sleep(max(0.0, options.after - (time.time() - started)))
            await _leak(client, options.count, 90.0)


def _client(environment: Environment) -> aiohttp.ClientSession:
    base = text(environment, "PREP_COMPLIANCE_URL", "http://python-compliance:8080")
    # A connection of its own for each request: dropping one must not touch another.
    return aiohttp.ClientSession(
        base, timeout=aiohttp.ClientTimeout(total=5.0), connector=aiohttp.TCPConnector(force_close=True)
    )


async def _leak(client: aiohttp.ClientSession, count: int, seconds: float) -> None:
    began = time.monotonic()
    lost: list[str] = []
    tries = 0
    while len(lost) < count:
        left = seconds - (time.monotonic() - began)
        if left <= 0:
            raise FaultError(f"{len(lost)} of {count} sessions lost in {seconds:g} s and {tries} tries")
        tries += 1
        reference = f"drill-{uuid.uuid4().hex[:12]}"
        if await _hang_up(client, reference, left):
            lost.append(reference)
            tell("lost", order_ref=reference, sessions_lost=len(lost))
    busy = [await _patiently(lambda: _busy(client), seconds) for _ in range(CONFIRM_LOOKS) if await _pause(0.2)]
    if min(busy) < count:
        raise FaultError(f"{count} sessions should be lost, and /metrics shows {min(busy)} busy")
    tell(
        "leaked", fault="leak-sessions", sessions_lost=count, sessions_busy=min(busy), tries=tries,
        seconds=round(time.monotonic() - began, 1),
    )  # fmt: skip


async def _hang_up(client: aiohttp.ClientSession, reference: str, seconds: float) -> bool:
    """Send a check, drop the connection while it is evaluated; True when its session is lost."""
    body = {"order_ref": reference, "rule_set": SAMPLE_RULE_SET, "order": dict(SAMPLE_ORDER)}
    request = asyncio.create_task(_check(client, body, seconds))
    try:
        while not request.done():
            if await _works_on(client, reference) is not None:
                break
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        # Cancelling aiohttp's request closes its connection: this client is gone.
        request.cancel()
        await asyncio.wait([request])
    await asyncio.sleep(LOST_SECONDS)
    busy_seconds = await _works_on(client, reference)
    return busy_seconds is not None and busy_seconds > LOST_SECONDS * 0.5


async def _check(client: aiohttp.ClientSession, body: dict[str, Any], seconds: float) -> None:
    """One check whose answer nobody needs; a service that is away or refuses ends it like any other end."""
    try:
        async with client.post("/v1/checks", json=body, timeout=aiohttp.ClientTimeout(total=seconds)) as answer:
            await answer.read()
    except _ERRORS:
        await asyncio.sleep(LOST_SECONDS)


async def _works_on(client: aiohttp.ClientSession, reference: str) -> float | None:
    """For how many seconds a session has worked on this reference; None when none does, or the service is away."""
    try:
        async with client.get("/v1/engine") as answer:
            found = await answer.json()
    except _ERRORS:
        return None
    return next((float(s["busy_seconds"]) for s in found["sessions"] if s["order_ref"] == reference), None)


async def _busy(client: aiohttp.ClientSession) -> int:
    async with client.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(int(float(line.removeprefix(_BUSY))) for line in lines if line.startswith(_BUSY))


async def _started(client: aiohttp.ClientSession) -> float:
    """When the service was started, UNIX seconds."""
    return await _patiently(lambda: _ask_started(client), 60.0)


async def _ask_started(client: aiohttp.ClientSession) -> float:
    async with client.get("/health") as answer:
        return float((await answer.json())["started"])


async def _restarted(client: aiohttp.ClientSession, started: float, within: float) -> float:
    """The start after `started`. Raises FaultError when none comes within so many seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            now = await _ask_started(client)
        except _ERRORS:
            now = started
        if now != started:
            return now
        await asyncio.sleep(RESTART_LOOK_SECONDS)
    raise FaultError(f"python-compliance was not restarted within {within:g} s")


async def _patiently(ask: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Ask until there is an answer; raises FaultError with the last error after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await ask()
        except _ERRORS as error:
            if time.monotonic() > deadline:
                raise FaultError(f"python-compliance does not answer: {error}") from error
        await asyncio.sleep(RESTART_LOOK_SECONDS)


async def _pause(seconds: float) -> bool:
    await asyncio.sleep(seconds)
    return True
