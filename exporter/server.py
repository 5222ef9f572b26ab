"""The HTTP side: /metrics, a page at /, and two answers for whoever starts and stops the process.

In: requests. Out: what the scrape engine has, always 200 on /metrics with whatever is ready in time.
It must never let one client hold up another: a scrape is bounded by its deadline, and their number by the settings.
"""

from __future__ import annotations

import asyncio
import math
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web

from exporter.catalog import itself as catalog
from exporter.exposition import negotiate, render
from exporter.landing import page
from exporter.samples import AnySample, Sample
from exporter.scrape import ScrapeEngine, self_samples
from exporter.settings import Settings

TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"
"""Sent by Prometheus with each scrape: its scrape_timeout, a plain float of seconds (scrape/scrape.go)."""

_LEAST_BUDGET = 0.05
_LARGEST_TIMEOUT = 120.0
"""Seconds. Prometheus' own default is 10 s; a header beyond this is a mistake or mischief."""


def budget(header: str | None, default: float, offset: float) -> float:
    """Seconds that the collectors have: what the scraper allows less `offset`; `default` when it says nothing usable.

    Worked example: header "10", offset 0.5 -> 9.5. Header "0.3", offset 0.5 -> 0.15 (half, so that something is tried).
    """
    try:
        allowed = float(header) if header is not None else default
    except ValueError:
        allowed = default
    if not (math.isfinite(allowed) and allowed > 0):
        allowed = default
    allowed = min(allowed, _LARGEST_TIMEOUT)
    return max(_LEAST_BUDGET, allowed - offset if allowed > 2 * offset else allowed / 2)


def build_info() -> Sample:
    """`prep_build_info` of this process."""
    try:
        release = version("prep-ops")
    except PackageNotFoundError:
        release = "unknown"
    return Sample(
        catalog.BUILD_INFO, (release, os.environ.get("PREP_REVISION", "unknown"), platform.python_version()), 1.0
    )


class Routes:
    """The handlers, around one engine."""

    def __init__(self, settings: Settings, engine: ScrapeEngine) -> None:
        self._settings = settings
        self._engine = engine
        self._build_info = build_info()
        self._scrapes = 0

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/", self.landing)
        app.router.add_get("/-/healthy", self.healthy)
        app.router.add_get("/-/ready", self.ready)
        return app

    async def metrics(self, request: web.Request) -> web.Response:
        """All samples that are ready within the budget; 503 only when too many scrapes wait already."""
        if self._scrapes >= self._settings.web.max_requests:
            return web.Response(status=503, text=f"{self._scrapes} scrapes are being answered already\n")
        self._scrapes += 1
        try:
            return await self._metrics(request)
        finally:
            self._scrapes -= 1

    async def _metrics(self, request: web.Request) -> web.Response:
        scrape = self._settings.scrape
        results = await self._engine.scrape(
            budget(request.headers.get(TIMEOUT_HEADER), scrape.timeout, scrape.timeout_offset)
        )
        samples: list[AnySample] = [self._build_info, *self_samples(results)]
        samples += [sample for result in results for sample in result.samples]
        form = negotiate(request.headers.get("Accept", ""))
        zipped = "gzip" in request.headers.get("Accept-Encoding", "").lower()
        body = await asyncio.to_thread(render, samples, form, zipped)
        headers = {"Content-Type": form.content_type, "Vary": "Accept, Accept-Encoding"}
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)

    async def landing(self, _: web.Request) -> web.Response:
        """Who this is, and the way to the metrics."""
        return web.Response(text=page(self._build_info.labels[0], self._engine.health()), content_type="text/html")

    async def healthy(self, _: web.Request) -> web.Response:
        """200 while the event loop lives."""
        return web.Response(text="healthy\n")

    async def ready(self, _: web.Request) -> web.Response:
        """200 once every background collector has ended a first run, 503 before."""
        if self._engine.ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="the first background collection is under way\n")
