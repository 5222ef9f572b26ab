"""Puts the parts together and owns their lifetime: journal, adapters, engine, HTTP, and the way down.

One task group owns every background task. At the end the webhook stops taking, running steps get their grace, what
is cut off writes its doubt, and only then the journal is closed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web

from remediator import pause_file, redis_spare
from remediator.actions import registry
from remediator.answers import in_json
from remediator.api import About, Api, Footing
from remediator.approvals import Approvals
from remediator.clock import Clock, SystemClock
from remediator.commands import Commands
from remediator.configuration import Loaded, Reloader, longest_deadline, read
from remediator.console import Console, routes_of
from remediator.diagnosis import Diagnoses
from remediator.engine import Engine, Parts
from remediator.episodes import Episodes
from remediator.events import Event
from remediator.journal import Journal
from remediator.ledger import Ledger
from remediator.listener import Listener
from remediator.loop import Loop
from remediator.metrics import Metrics
from remediator.operators import Operators
from remediator.pages import Pages
from remediator.parsed import Parsed
from remediator.people import People
from remediator.prometheus import Prometheus
from remediator.settings import Settings
from remediator.shadow_api import Shadow
from remediator.sight import Sight
from remediator.webhook import Batcher, Intake, Splitter

log = structlog.get_logger(__name__)

STANDING_EVERY = 5.0
SWITCH = 0.0001  # seconds for which a busy thread keeps the interpreter from one that waits for it
ALIVE_WITHIN = 15.0  # seconds since the loop's last turn


async def serve(loaded: Loaded, file: Path) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 0 after a clean end, 1 when the journal broke.

    `file` is where the configuration came from: a reload reads it anew.
    """
    settings, clock = loaded.settings, SystemClock()
    metrics = Metrics(version=version("prep-ops"))
    metrics.configured(mode=settings.mode, digest=loaded.digest, books=loaded.books, actions=registry.NAMES)
    metrics.reloaded(clock.now())
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
            clean = await _run(loop, loaded, file, metrics, session, parsed)
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
    settings = loaded.settings

    def observe(event: Event, ledger: Ledger) -> None:
        metrics.observe(event, ledger)
        log.info("event", episode=event.episode, seq=event.seq, kind=event.kind.value, alert=ledger.alert.name)

    parts = _parts(settings, session, clock)
    episodes = Episodes(journal, settings, loaded.books, observe, journal.owner)
    engine = Engine(
        journal=journal,
        sight=parts.sight,
        actions=parts.actions,
        people=parts.people,
        diagnoses=parts.diagnoses,
        settings=settings,
        episodes=episodes,
        clock=clock,
    )
    blind = asyncio.Event()
    splitter = Splitter(lambda: episodes.books, settings.environment, metrics, blind, parsed)
    return Loop(engine, splitter, blind=blind)


def _parts(settings: Settings, session: aiohttp.ClientSession, clock: Clock) -> Parts:
    """What the engine works with, all of one configuration."""
    actions = registry.build(settings, session, clock)
    return Parts(
        settings=settings,
        sight=Sight(settings, session, actions, clock),
        actions=actions,
        people=People(settings, session),
        diagnoses=Diagnoses(settings, session),
    )


def _operators(settings: Settings) -> Operators:
    return Operators(settings.operators, settings.api_token_files)


async def _run(
    loop: Loop, loaded: Loaded, file: Path, metrics: Metrics, session: aiohttp.ClientSession, parsed: Parsed
) -> bool:
    """Serve HTTP and turn the loop until a signal. True when nothing was cut off and the journal is sound."""
    engine, settings = loop.engine, loaded.settings
    journal = engine.journal
    batcher = Batcher(journal.store, metrics)
    loop.busy = batcher.busy
    intake = Intake(settings.webhook, journal, batcher, metrics, loop.blind, settings.listen.tls, parsed)
    people, books = _operators(settings), lambda: engine.episodes.books
    api = Api(journal, metrics, people, books, lambda: _ready(loop, session), _about(loaded))

    def adopt(new: Loaded) -> None:
        engine.reconfigure(_parts(new.settings, session, engine.clock), new.books)
        intake.reconfigure(new.settings.webhook)
        api.reconfigure(_operators(new.settings), _about(new))
        metrics.configured(mode=new.settings.mode, digest=new.digest, books=new.books, actions=registry.NAMES)

    reloader = Reloader(loaded, lambda before: read(file, before), adopt, journal, metrics, engine.clock)
    api.reload = reloader.reload
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, loop.stop.set)
    running.add_signal_handler(signal.SIGHUP, reloader.ask)
    shadow = Shadow(journal, api, lambda: engine.settings, books)
    console = _console(engine, api, session, shadow)
    async with asyncio.TaskGroup() as group:
        pages = Pages(settings.alert_pages, console.alert if console else None)
        answers, commands = Approvals(journal, api), Commands(journal, api, lambda: engine.actions)
        ours = (intake, api, answers, commands, shadow, pages)
        routes = [*(route for each in ours for route in each.routes()), *routes_of(console)]
        runner, listener = await _listen(settings, routes, console.close if console else None)
        spare = redis_spare.keep(lambda: engine.settings)
        work = [batcher.run(), _standing(loop, metrics), reloader.follow(), listener.watch(), spare]
        work += [console.run()] if console else []
        tasks = [group.create_task(each) for each in work]
        _steady()
        try:
            clean = await loop.serve()
        finally:
            listener.close()
            await runner.cleanup()
            intake.close()
            for task in tasks:
                task.cancel()
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


def _about(loaded: Loaded) -> About:
    settings = loaded.settings
    return About(version("prep-ops"), settings.environment, settings.mode, loaded.digest)


def _console(engine: Engine, api: Api, session: aiohttp.ClientSession, shadow: Shadow) -> Console | None:
    """The pages for people, with the settings that hold at each request; None where they are switched off."""
    if not engine.settings.console.enabled:
        return None

    def paused() -> bool:
        return pause_file.there(engine.settings.pause_file)

    return Console(api, lambda: engine.settings, session, engine.clock, paused, shadow.report)


async def _listen(
    settings: Settings, routes: Sequence[web.RouteDef], closing: Callable[[], Awaitable[None]] | None
) -> tuple[web.AppRunner, Listener]:
    app = web.Application(client_max_size=settings.webhook.max_bytes, middlewares=[in_json])
    app.add_routes(routes)
    if closing is not None:
        # What follows would never end by itself: it is ended before the server waits for its requests.
        app.on_shutdown.append(lambda _: closing())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    listener = Listener(settings.listen, runner)
    host, port = await listener.open()
    served, mode = settings.listen.tls is not None, settings.mode
    log.info("listening", host=host, port=port, tls=served, mode=mode, environment=settings.environment)
    return runner, listener


async def _ready(loop: Loop, session: aiohttp.ClientSession) -> list[Footing]:
    """What the remediator stands on: the journal, its own loop, and a Prometheus that answers."""
    engine, known = loop.engine, loop.engine.settings.prometheus
    servers = [Prometheus(url, session, known.timeout) for url in known.urls]
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
        else:
            metrics.journal_away()
        metrics.turned(loop.engine.clock.now() - (loop.engine.clock.boottime() - loop.alive))
        if journal.broken is not None:
            log.error("the journal is broken; ending, so that a new start recovers", why=journal.broken)
            loop.stop.set()
        await loop.engine.clock.sleep(STANDING_EVERY)
