"""The configuration and the engine that hold now, and how they are replaced while scrapes come in.

In: how to read the configuration and how to build an engine from it. Out: the engine to ask, and what came of each
reload. It must never be without an engine, and never run two at once: cursors' state files have one owner.

A reload, in order: read and check everything (a mistake ends it here, and nothing has changed); build the new engine,
which opens nothing; let the scrapes under way end, `_DRAIN` seconds at most; end the old engine, which answers those
that still wait with what is ready, and gives its files and connections back; hand on what must not begin anew; start
the new engine. Scrapes that come in between wait for it, on their own budget.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import structlog

from exporter.catalog import itself as catalog
from exporter.errors import ConfigError, Fault, Transient
from exporter.samples import Sample
from exporter.scrape import ScrapeEngine
from exporter.settings import Settings
from exporter.workers import Worker

_log = structlog.get_logger("exporter.running")

_DRAIN = 2.0
"""Seconds that scrapes under way have before the old engine is ended under them: with the time that ending takes, well
below the 10 s that Prometheus waits."""
_READ_WITHIN = 20.0
"""Seconds for reading and checking; a path on a dead mount hangs."""


class Running:
    """Enter it to start the engine; leaving it ends the engine that holds then."""

    def __init__(
        self, settings: Settings, read: Callable[[Settings], Settings], build: Callable[[Settings], ScrapeEngine]
    ) -> None:
        """`read` gives the new settings, knowing those that hold, or raises ConfigError; it may block."""
        self.settings = settings
        self._read = read
        self._build = build
        self._engine = build(settings)
        self._reader = Worker("configuration")
        self._reloading = asyncio.Lock()
        self._open = asyncio.Event()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = False
        self._successful = True
        self._since = time.time()

    async def __aenter__(self) -> Self:
        await self._engine.start()
        self._open.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        async with self._reloading:  # never in the middle of a hand-over
            await self._engine.end()
        self._reader.close()

    @property
    def engine(self) -> ScrapeEngine:
        """The engine that holds now; to look at. A scrape uses `scraping`."""
        return self._engine

    @asynccontextmanager
    async def scraping(self, deadline: float) -> AsyncIterator[ScrapeEngine]:
        """The engine to ask, for the length of one scrape. Waits for a hand-over, not beyond `deadline` (loop's time).

        When the hand-over takes longer the old engine is given, which is ending and says success 0.
        """
        if not self._open.is_set():
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            try:
                await asyncio.wait_for(self._open.wait(), left)
            except TimeoutError:
                yield self._engine
                return
        self._under_way += 1
        self._idle.clear()
        try:
            yield self._engine
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    async def reload(self) -> tuple[Fault, ...]:
        """Read the configuration anew and run it; the mistakes, or () when it is taken over. Never raises for them."""
        async with self._reloading:
            if self._ended:
                return (Fault("configuration", "the exporter is stopping"),)
            try:
                loop = asyncio.get_running_loop()
                settings = await self._reader.run(lambda: self._read(self.settings), loop.time() + _READ_WITHIN)
                engine = self._build(settings)
            except ConfigError as error:
                return self._refuse(error.faults)
            except Transient as error:
                return self._refuse((Fault("configuration", str(error)),))
            except Exception:  # noqa: BLE001 - the shell: what runs must go on whatever is wrong with what would follow
                _log.exception("configuration cannot be taken over")
                return self._refuse((Fault("configuration", "a mistake in the exporter itself, see the log"),))
            await self._hand_over(settings, engine)
            self._successful, self._since = True, time.time()
            _log.info("configuration taken over", collectors=list(engine.names))
            return ()

    def samples(self) -> tuple[Sample, ...]:
        """How the last reload went, and what the series cap kept back."""
        return (
            *self._engine.limit_samples(),
            Sample(catalog.CONFIG_RELOAD_SUCCESSFUL, (), float(self._successful)),
            Sample(catalog.CONFIG_RELOAD_SUCCESS, (), self._since),
        )

    def _refuse(self, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
        self._successful = False
        _log.error("configuration refused, the former one holds", faults=[str(fault) for fault in faults])
        return faults

    async def _hand_over(self, settings: Settings, engine: ScrapeEngine) -> None:
        self._open.clear()
        try:
            try:
                await asyncio.wait_for(self._idle.wait(), _DRAIN)
            except TimeoutError:
                _log.info("scrapes under way are cut short by the reload", scrapes=self._under_way)
            old = self._engine
            await old.end()
            engine.inherit(old)
            await engine.start()
            self._engine, self.settings = engine, settings
        finally:
            self._open.set()
