"""Background collector `probes`: configured addresses, called as a client would.

In: what `exporter.probing` found. Out: up, duration, reasons, status and expiry of each probe. A target that is down is
a sample. It must never run more probes at once than allowed, nor let one that hangs hold up more than its own place.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp

from exporter.background_settings import ProbesCollector as ProbesSettings
from exporter.catalog import probes as catalog
from exporter.collectors.base import Collector
from exporter.errors import Transient
from exporter.probing import Attempt, Prober
from exporter.samples import AnySample, Collected, HistogramSample, Sample, state_set
from exporter.trust import Trust
from exporter.web_client import Resolver, open_session


@dataclass(slots=True)
class Tally:
    """All attempts of one probe since the exporter began, over reloads too. Nothing in it ever falls."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(catalog.PROBE_BUCKETS) + 1))
    seconds: float = 0.0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(catalog.FAILURES, 0))

    def add(self, attempt: Attempt) -> None:
        """Count one attempt."""
        self.counts[bisect_left(catalog.PROBE_BUCKETS, attempt.seconds)] += 1
        self.seconds += attempt.seconds
        if attempt.failure is not None:
            self.failures[attempt.failure] += 1


class ProbesCollector:
    """All probes, side by side within the allowed number."""

    name = "probes"

    def __init__(self, settings: ProbesSettings) -> None:
        self._targets = settings.targets
        self._resolver = Resolver(probe.host for probe in settings.targets.values())
        self._trust = Trust(probe.ca_file for probe in settings.targets.values())
        self._probers = {name: Prober(probe, self._resolver, self._trust) for name, probe in settings.targets.items()}
        self._tallies = {name: Tally() for name in settings.targets}
        self._places = asyncio.Semaphore(settings.at_once)
        self._session: aiohttp.ClientSession | None = None

    async def collect(self, deadline: float) -> Collected:
        try:
            async with asyncio.timeout_at(deadline):
                attempts = await asyncio.gather(*(self._one(name) for name in self._targets))
        except TimeoutError:
            raise Transient("probes: the round was not over at its deadline") from None
        samples: list[AnySample] = []
        for (name, probe), attempt in zip(self._targets.items(), attempts, strict=True):
            samples += parse(name, attempt, self._tallies[name], probe.is_http)
        return Collected(tuple(samples))

    def inherit(self, predecessor: Collector) -> None:
        """Count on for every target of the same name and scheme; another scheme's attempts are not of the same kind."""
        if not isinstance(predecessor, ProbesCollector):
            return
        for name, probe in self._targets.items():
            before = predecessor._targets.get(name)
            if before is not None and before.parts.scheme == probe.parts.scheme:
                self._tallies[name] = predecessor._tallies[name]

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        await self._resolver.close()
        await self._trust.close()

    async def _one(self, name: str) -> Attempt:
        async with self._places:
            if self._session is None:
                self._session = open_session(self._resolver)
            attempt = await self._probers[name].attempt(self._session)
        self._tallies[name].add(attempt)
        return attempt


def parse(name: str, attempt: Attempt, tally: Tally, is_http: bool) -> Iterator[AnySample]:
    """One probe's last attempt and all its attempts so far, as samples."""
    label = (name,)
    yield Sample(catalog.PROBE_UP, label, float(attempt.failure is None))
    yield HistogramSample(catalog.PROBE_DURATION, label, tuple(tally.counts), tally.seconds)
    for reason, number in tally.failures.items():
        yield Sample(catalog.PROBE_FAILED, (name, reason), float(number))
    if is_http:
        yield from state_set(catalog.PROBE_STATUS, label, {status_class(attempt.status)})
    if attempt.expires is not None:
        yield Sample(catalog.PROBE_CERTIFICATE_EXPIRY, label, attempt.expires)


def status_class(status: int | None) -> str:
    """404 -> `4xx`; `none` without a status, or with one that HTTP does not know."""
    return f"{status // 100}xx" if status is not None and 100 <= status <= 599 else "none"
