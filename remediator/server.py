"""Puts the parts together and owns their lifetime: journal, adapters, engine, HTTP, and the way down.

One task group owns every background task. At the end the webhook stops taking, running steps get their grace, what
is cut off writes its doubt, and only then the journal is closed.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version

import aiohttp
import structlog
from aiohttp import web

from remediator import runbooks
from remediator.actions import registry
from remediator.api import About, Api, Footing
from remediator.clock import Clock, SystemClock
from remediator.diagnosis import NAMES as DIAGNOSES
from remediator.diagnosis import Diagnoses
from remediator.engine import Engine
from remediator.episodes import Episodes
from remediator.events import Event
from remediator.journal import Journal
from remediator.ledger import Ledger
from remediator.loop import Loop
from remediator.metrics import Metrics
from remediator.pages import Pages
from remediator.parsed import Parsed
from remediator.people import People
from remediator.prometheus import Prometheus
from remediator.runbooks import Runbook
from remediator.settings import Settings
from remediator.sight import Sight
from remediator.webhook import Batcher, Intake, Splitter

log = structlog.get_logger(__name__)

STANDING_EVERY = 5.0
SWITCH = 0.0001  # seconds for which a busy thread keeps the interpreter from one that waits for it
ALIVE_WITHIN = 15.0  # seconds since the loop's last turn


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and runbooks, both whole, with the digest of what was read."""

    settings: Settings
    books: tuple[Runbook, ...]
    digest: str


def load_books(settings: Settings) -> Loaded:
    """Read the runbooks of the settings. Raises ConfigError with every fault."""
    books = runbooks.load(settings.runbooks, registry.PARAMS, DIAGNOSES, settings.prometheus.scrape_interval)
    parts = [settings.model_dump_json(), *(book.digest() for book in books)]
    return Loaded(settings, books, hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16])


def longest_deadline(loaded: Loaded) -> float:
    """Seconds after which whatever an earlier life began is over: what an unclean start waits out."""
    deadlines = [rung.deadline or 60.0 for book in loaded.books for rung in book.ladder]
    return max(deadlines) + loaded.settings.guards.start_within


async def serve(loaded: Loaded) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 0 after a clean end, 1 when the journal broke."""
    settings, clock = loaded.settings, SystemClock()
    release = version("prep-ops")
    metrics = Metrics(version=release)
    metrics.configured(mode=settings.mode, digest=loaded.digest, books=loaded.books, actions=registry.NAMES)
    async with AsyncExitStack() as stack:
        journal = await Journal.open(
            settings.journal,
            owner=f"{socket.gethostname()}:{os.getpid()}",
            clock=clock,
            mode=settings.mode,
            config_digest=loaded.digest,
            hold_off=longest_deadline(loaded),
        )
        clean = False
        try:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            parsed = Parsed()
            loop = _loop(loaded, journal, session, metrics, clock, parsed)
            about = About(release, settings.environment, settings.mode, loaded.digest)
            clean = await _run(loop, loaded, metrics, about, session, parsed)
        finally:
            await journal.close(clean=clean)
    return 0 if clean else 1


def _loop(
    loaded: Loaded,
    journal: Journal,
    session: aiohttp.ClientSession,
    metrics: Metrics,
    clock: Clock,
    parsed: Parsed,
) -> Loop:
    settings, books = loaded.settings, loaded.books

    def observe(event: Event, ledger: Ledger) -> None:
        metrics.observe(event, ledger)
        log.info("event", episode=event.episode, seq=event.seq, kind=event.kind.value, alert=ledger.alert.name)

    actions = registry.build(settings, session, clock)
    engine = Engine(
        journal=journal,
        sight=Sight(settings, session, actions, clock),
        actions=actions,
        people=People(settings, session),
        diagnoses=Diagnoses(settings, session),
        settings=settings,
        episodes=Episodes(journal, settings, books, observe, journal.owner),
        clock=clock,
    )
    blind = asyncio.Event()
    return Loop(engine, Splitter(lambda: books, settings.environment, metrics, blind, parsed), blind=blind)


async def _run(
    loop: Loop, loaded: Loaded, metrics: Metrics, about: About, session: aiohttp.ClientSession, parsed: Parsed
) -> bool:
    """Serve HTTP and turn the loop until a signal. True when nothing was cut off and the journal is sound."""
    journal, settings = loop.engine.journal, loaded.settings
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, loop.stop.set)
    batcher = Batcher(journal.store, metrics)
    loop.busy = batcher.busy
    intake = Intake(settings.webhook, journal, batcher, metrics, loop.blind, parsed)
    servers = [Prometheus(url, session, settings.prometheus.timeout) for url in settings.prometheus.urls]
    api = Api(journal, metrics, settings.api_token_files, lambda: loaded.books, lambda: _ready(loop, servers), about)
    async with asyncio.TaskGroup() as group:
        writer = group.create_task(batcher.run())
        standing = group.create_task(_standing(loop, metrics))
        runner = await _listen(settings, [*intake.routes(), *api.routes(), *Pages(settings.alert_pages).routes()])
        _steady()
        try:
            clean = await loop.serve()
        finally:
            await runner.cleanup()
            intake.close()
            writer.cancel()
            standing.cancel()
    return clean and journal.broken is None


def _steady() -> None:
    """Keep the interpreter from stopping under load. Called once, when everything is loaded.

    What was loaded stays to the end: walking all of it in each full collection stops everything for 0.1 s. And the
    journal's threads give the interpreter up at each statement: while the loop is busy they would get it back only
    after 5 ms each time.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH)


async def _listen(settings: Settings, routes: Sequence[web.RouteDef]) -> web.AppRunner:
    app = web.Application(client_max_size=settings.webhook.max_bytes)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    site = web.TCPSite(runner, settings.listen.host, settings.listen.port)
    await site.start()
    address = runner.addresses[0]
    log.info("listening", host=address[0], port=address[1], mode=settings.mode, environment=settings.environment)
    return runner


async def _ready(loop: Loop, servers: Sequence[Prometheus]) -> list[Footing]:
    """What the remediator stands on: the journal, its own loop, and a Prometheus that answers."""
    engine = loop.engine
    broken = engine.journal.broken
    age = engine.clock.boottime() - loop.alive
    asked = await asyncio.gather(*(server.skew() for server in servers), return_exceptions=True)
    answers = any(isinstance(skew, float) for skew in asked)
    return [
        Footing("journal", broken is None, broken or "writable"),
        Footing("loop", age < ALIVE_WITHIN, f"last turned {age:.0f} s ago"),
        Footing("prometheus", answers, "answers" if answers else "no Prometheus answers: nothing would be done"),
    ]


async def _standing(loop: Loop, metrics: Metrics) -> None:
    """Gauges over the whole journal; read now and then, not at a scrape."""
    while True:
        journal = loop.engine.journal
        if (now := await loop.standing()) is not None:
            metrics.standing(now)
        metrics.turned(loop.engine.clock.now() - (loop.engine.clock.boottime() - loop.alive))
        if journal.broken is not None:
            log.error("the journal is broken; ending, so that a new start recovers", why=journal.broken)
            loop.stop.set()
        await loop.engine.clock.sleep(STANDING_EVERY)
