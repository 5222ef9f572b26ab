"""The HTTP side: /metrics, a page at /, its documentation, and what starts, stops and reloads the process.

In: requests. Out: what the scrape engine has, always 200 on /metrics with whatever is ready in time.
It must never let one client hold up another: a scrape is bounded by its deadline, and their number by the settings.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import platform
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web

from exporter import docs
from exporter.catalog import itself as catalog
from exporter.errors import Fault
from exporter.exposition import render
from exporter.gatekeeper import Gatekeeper
from exporter.landing import DOCS_PATH, LANDING_HEADERS, page
from exporter.listener import Listener
from exporter.negotiation import negotiate, zips
from exporter.redaction import clean
from exporter.running import Running
from exporter.samples import AnySample, Sample
from exporter.scrape import self_samples

TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"
"""Sent by Prometheus with each scrape: its scrape_timeout, a plain float of seconds (scrape/scrape.go)."""

Reload = Callable[[], Awaitable[Sequence[Fault]]]

_LONGEST_NAME, _MOST_NAMES = 40, 5
"""Of unknown names that are repeated in an answer: characters, and how many."""
_LEAST_BUDGET = 0.05
_LARGEST_TIMEOUT = 120.0
"""Seconds. Prometheus' own default is 10 s; a header beyond this is a mistake or mischief."""

_documentation = functools.cache(docs.page)


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
    """The handlers, around the engine that holds now."""

    def __init__(self, running: Running, listener: Listener, read: Reload) -> None:
        """`read` reads all of the configuration anew and gives its mistakes."""
        self._running = running
        self._listener = listener
        self._reload = read
        self._build_info = build_info()
        self._scrapes = 0

    def application(self) -> web.Application:
        """The aiohttp application; everything in it, unknown paths too, is behind the gatekeeper."""
        app = web.Application(middlewares=[Gatekeeper(lambda: self._listener.config).middleware()])
        app.router.add_get(self._running.settings.web.telemetry_path, self.metrics)
        app.router.add_get("/", self.landing)
        app.router.add_get(DOCS_PATH, self.docs)
        app.router.add_get("/-/healthy", self.healthy)
        app.router.add_get("/-/ready", self.ready)
        app.router.add_post("/-/reload", self.reload)
        return app

    async def metrics(self, request: web.Request) -> web.Response:
        """All samples that are ready within the budget; 400 for a question that makes no sense, 503 when too many
        scrapes wait already.
        """
        if self._scrapes >= self._running.settings.web.max_requests:
            return web.Response(status=503, text=f"{self._scrapes} scrapes are being answered already\n")
        self._scrapes += 1
        try:
            return await self._metrics(request)
        finally:
            self._scrapes -= 1

    async def _metrics(self, request: web.Request) -> web.Response:
        scrape, loop = self._running.settings.scrape, asyncio.get_running_loop()
        deadline = loop.time() + budget(request.headers.get(TIMEOUT_HEADER), scrape.timeout, scrape.timeout_offset)
        async with self._running.scraping(deadline) as engine:
            try:
                query = request.query
                wanted = chosen(query.getall("collect[]", ()), query.getall("exclude[]", ()), engine.names)
            except ValueError as error:
                return web.Response(status=400, text=f"{error}\n")
            results = await engine.scrape(max(0.0, deadline - loop.time()), wanted)
        samples: list[AnySample] = [self._build_info, *self_samples(results)]
        samples += [*self._running.samples(), *self._listener.samples()]
        samples += [sample for result in results for sample in result.samples]
        form, zipped = negotiate(request.headers.get("Accept", "")), zips(request.headers.get("Accept-Encoding", ""))
        body = await asyncio.to_thread(render, samples, form, zipped)
        headers = {"Content-Type": form.content_type, "Vary": "Accept, Accept-Encoding"}
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)

    async def landing(self, _: web.Request) -> web.Response:
        """How the collectors do, and the way to the metrics and their documentation."""
        path = self._running.settings.web.telemetry_path
        text = page(self._build_info.labels[0], path, self._running.engine.health())
        return web.Response(text=text, content_type="text/html", headers=LANDING_HEADERS)

    async def docs(self, _: web.Request) -> web.Response:
        """docs/metrics.md of this very version."""
        return web.Response(text=_documentation(), headers={"X-Content-Type-Options": "nosniff"})

    async def healthy(self, _: web.Request) -> web.Response:
        """200 while the event loop lives."""
        return web.Response(text="healthy\n")

    async def ready(self, _: web.Request) -> web.Response:
        """200 once every background collector has ended a first run, 503 before."""
        if self._running.engine.ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="the first background collection is under way\n")

    async def reload(self, _: web.Request) -> web.Response:
        """Read the configuration anew: 200 when it was taken over, 500 with every mistake when not, 403 when off."""
        if not self._running.settings.web.enable_reload:
            return web.Response(status=403, text="off: give --web.enable-reload, or send SIGHUP\n")
        if faults := await self._reload():
            told = clean("".join(f"{fault}\n" for fault in faults))
            return web.Response(status=500, text=f"not taken over, what was before still holds:\n{told}")
        return web.Response(text="taken over\n")


def chosen(collect: Sequence[str], exclude: Sequence[str], there: Sequence[str]) -> frozenset[str] | None:
    """The collectors that `collect[]` and `exclude[]` leave; None for all. Raises ValueError saying what is wrong.

    Worked example: exclude ["disk"] of ("postgres", "disk") -> {"postgres"}.
    """
    if collect and exclude:
        raise ValueError("collect[] and exclude[] cannot be given together: name what is wanted, or what is not")
    if unknown := sorted({*collect, *exclude}.difference(there)):
        shown = ", ".join(repr(name[:_LONGEST_NAME]) for name in unknown[:_MOST_NAMES])
        raise ValueError(f"no such collector, or it is not enabled: {shown}; there: {', '.join(there)}")
    if not (collect or exclude):
        return None
    return frozenset(collect) if collect else frozenset(there).difference(exclude)
