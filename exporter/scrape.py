"""The scrape engine: runs collectors side by side under one deadline and always has an answer.

In: a budget in seconds. Out: one `Result` for each collector, in a fixed order. A collector that fails, hangs or breaks
the catalog's promises yields success 0 and no sample of an earlier run; the others are not touched.

- **One deadline.** All collectors at scrape time begin together and end at the deadline; one that has not is cut off.
- **Single flight.** A collector that is still running is joined, not started twice: its run is shared by all scrapes
  that wait for it, each up to its own deadline.
- **Background collectors** run on their own interval, each in a task that the engine owns. A scrape takes what the
  last run that had something to say left, unless that is older than three intervals: then nothing. A run in which a
  part failed leaves the other parts' samples, and none of the ill part's.

It must never raise out of `scrape()`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import structlog

from exporter.catalog import itself as catalog
from exporter.collectors.base import Collector, Heir
from exporter.errors import ExporterError
from exporter.landing import Health
from exporter.samples import AnySample, Collected, Result, Sample, faults
from exporter.series_limit import SeriesLimit

_log = structlog.get_logger("exporter.scrape")

STALE_AFTER_INTERVALS = 3
"""Of a background collector: older samples than this many intervals are not shown."""

_CLOSE_WITHIN = 3.0
"""Seconds in which a collector lets go of what it holds."""

_CUT_OFF_GRACE = 0.1
"""Seconds after its deadline at which a run that did not end by itself is cancelled. Collectors keep their deadline and
say what is missing; this is for the one that does not."""


@dataclass(frozen=True, slots=True)
class Run:
    """How one run of a collector ended: seconds, and what it gathered."""

    duration: float
    collected: Collected


@dataclass(frozen=True, slots=True)
class Background:
    """A collector on its own interval. Seconds."""

    collector: Collector
    interval: float
    timeout: float


@dataclass(slots=True)
class _Kept:
    """What a background collector has left: its last run, the samples to show, when its last good run ended.

    `shown_at` in the loop's time, `good_wall` in UNIX seconds.
    """

    last: Run | None = None
    shown: tuple[AnySample, ...] = ()
    shown_at: float | None = None
    good_wall: float | None = None


@dataclass(slots=True)
class _Flight:
    """A collector's run that is under way, the fault that was told last (each is told once), the last ended run."""

    task: asyncio.Task[Run] | None = None
    began: float = 0.0
    told: str | None = None
    last: Run | None = None


class ScrapeEngine:
    """Owns the collectors. Enter it to start the background ones; leaving it ends every task."""

    def __init__(
        self,
        collectors: Sequence[Collector],
        background: Sequence[Background] = (),
        limit: SeriesLimit | None = None,
    ) -> None:
        """`limit`: the cap on series, kept over reloads by whoever owns it; None makes one with the default."""
        self._limit = limit or SeriesLimit()
        self._cut: set[str] = set()
        self._collectors = tuple(collectors)
        self._background = tuple(background)
        self._flights = {one.name: _Flight() for one in (*collectors, *(each.collector for each in background))}
        self._kept = {each.collector.name: _Kept() for each in background}
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def start(self) -> None:
        """Begin the background collectors' rounds."""
        self._tasks = [asyncio.create_task(self._repeat(each), name=each.collector.name) for each in self._background]

    async def end(self) -> None:
        """Cancel what runs, answer scrapes that wait, and let every collector go; none holds it up for long."""
        self._ended = True
        running = [flight.task for flight in self._flights.values() if flight.task is not None]
        for task in (*self._tasks, *running):
            task.cancel()
        await asyncio.gather(*self._tasks, *running, return_exceptions=True)
        await asyncio.gather(*(self._close(one) for one in self._everyone()))

    def inherit(self, old: ScrapeEngine) -> None:
        """Take over from an engine that has ended: what its collectors must not begin anew, and what the background
        ones have found, which stays true for as long as it would have there.
        """
        predecessors = {one.name: one for one in old._everyone()}
        for collector in self._everyone():
            if isinstance(collector, Heir) and collector.name in predecessors:
                collector.inherit(predecessors[collector.name])
            if collector.name in self._kept and collector.name in old._kept:
                self._kept[collector.name] = old._kept[collector.name]

    def _everyone(self) -> tuple[Collector, ...]:
        return (*self._collectors, *(each.collector for each in self._background))

    async def _close(self, collector: Collector) -> None:
        try:
            async with asyncio.timeout(_CLOSE_WITHIN):
                await collector.close()
        except Exception:  # noqa: BLE001 - the shell: one that does not let go must not keep the others from it
            _log.exception("collector did not let go", collector=collector.name)

    @property
    def ready(self) -> bool:
        """Whether every background collector has ended its first run, well or not."""
        return all(kept.last is not None for kept in self._kept.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The collectors' names, in their order."""
        return tuple(self._flights)

    def health(self) -> tuple[Health, ...]:
        """How each collector's last run went."""
        found = []
        for name, flight in self._flights.items():
            last = flight.last
            found.append(
                Health(name, last is not None, last.collected.fault if last else None, last.duration if last else 0.0)
            )
        return tuple(found)

    async def scrape(self, budget: float, wanted: Collection[str] | None = None) -> tuple[Result, ...]:
        """One result for each collector within `budget` seconds; only for those in `wanted`, unless it is None.

        A collector that is not wanted is not run and has no result.
        """
        deadline = asyncio.get_running_loop().time() + budget
        asked = [one for one in self._collectors if wanted is None or one.name in wanted]
        at_once = await asyncio.gather(*(self._join(one, deadline) for one in asked))
        kept = [each for each in self._background if wanted is None or each.collector.name in wanted]
        results = [*at_once, *(self._remembered(each) for each in kept)]
        return tuple(self._without_collisions(results))

    def limit_samples(self) -> tuple[Sample, ...]:
        """How many series the cap has kept back, by family."""
        return self._limit.samples(self._flights)

    async def _join(self, collector: Collector, deadline: float) -> Result:
        """The collector's running run, or a new one, up to the deadline of this scrape."""
        loop, flight = asyncio.get_running_loop(), self._flights[collector.name]
        if flight.task is None or flight.task.done():
            if self._ended:
                return Result(collector.name, False, 0.0)
            flight.began = loop.time()
            flight.task = asyncio.create_task(self._run(collector, deadline), name=collector.name)
        task = flight.task
        await asyncio.wait({task}, timeout=max(0.0, deadline - loop.time()))
        if not task.done() or task.cancelled():
            return Result(collector.name, False, loop.time() - flight.began)
        run = task.result()
        return Result(collector.name, run.collected.fault is None, run.duration, run.collected.samples)

    async def _repeat(self, each: Background) -> None:
        """Run a background collector for ever, each time `interval` seconds after the last beginning."""
        loop, kept = asyncio.get_running_loop(), self._kept[each.collector.name]
        while True:
            began = loop.time()
            run = await self._run(each.collector, began + each.timeout)
            kept.last = run
            if run.collected.fault is None or run.collected.samples:
                kept.shown, kept.shown_at = run.collected.samples, loop.time()
            if run.collected.fault is None:
                kept.good_wall = time.time()
            await asyncio.sleep(max(0.0, began + each.interval - loop.time()))

    def _remembered(self, each: Background) -> Result:
        name, kept = each.collector.name, self._kept[each.collector.name]
        if kept.last is None:
            return Result(name, False, 0.0)
        samples: tuple[AnySample, ...] = ()
        if kept.shown_at is not None:
            age = asyncio.get_running_loop().time() - kept.shown_at
            samples = kept.shown if age <= STALE_AFTER_INTERVALS * each.interval else ()
        success = kept.last.collected.fault is None and bool(samples)
        return Result(name, success, kept.last.duration, samples, kept.good_wall)

    async def _run(self, collector: Collector, deadline: float) -> Run:
        """One run; whatever it raises becomes a fault, told once in the log."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout_at(deadline + _CUT_OFF_GRACE):
                collected = await collector.collect(deadline)
        except ExporterError as error:
            collected = Collected((), str(error))
        except TimeoutError:
            collected = Collected((), f"{collector.name}: not ready at the deadline")
        except Exception:  # noqa: BLE001 - the shell: a collector's bug must not take the others' samples away
            _log.exception("collector failed in an unforeseen way", collector=collector.name)
            collected = Collected((), f"{collector.name}: a mistake in the exporter itself, see the log")
        if broken := faults(collected.samples):
            collected = Collected((), f"{collector.name}: refused to show {broken[0]}")
        collected = self._capped(collector.name, collected)
        self._tell(collector.name, collected.fault)
        self._flights[collector.name].last = run = Run(loop.time() - began, collected)
        return run

    def _capped(self, name: str, collected: Collected) -> Collected:
        """Without the series beyond the cap; each family is told once, until it is below again."""
        samples, cut = self._limit.apply(name, collected.samples)
        for family in cut:
            if family not in self._cut:
                _log.warning("series beyond the cap are not shown", collector=name, metric=family, cap=self._limit.most)
        if cut or self._cut:
            self._cut = (self._cut - {sample.metric.name for sample in samples}) | set(cut)
        return Collected(tuple(samples), collected.fault)

    def _tell(self, name: str, fault: str | None) -> None:
        """Log a fault when it begins or changes, and once when it is over."""
        flight = self._flights[name]
        if fault is not None and flight.told is None:
            _log.warning("collector failed", collector=name, fault=fault)
        elif fault is not None and fault != flight.told:
            _log.info("collector still fails", collector=name, fault=fault)
        elif fault is None and flight.told is not None:
            _log.info("collector recovered", collector=name)
        flight.told = fault

    def _without_collisions(self, results: Sequence[Result]) -> list[Result]:
        """Take the samples away from a collector that shows a series which an earlier one has shown already."""
        kept: list[Result] = []
        seen: set[tuple[str, tuple[str, ...]]] = set()
        for result in results:
            keys = {(sample.metric.name, sample.labels) for sample in result.samples}
            if seen.isdisjoint(keys):
                kept.append(result)
                seen |= keys
            else:
                _log.error("collector shows another's series", collector=result.collector)
                kept.append(Result(result.collector, False, result.duration, (), result.last_success))
        return kept


def self_samples(results: Sequence[Result]) -> tuple[Sample, ...]:
    """How the scrape went, as samples: always all of them, also success 0."""
    found: list[Sample] = []
    for result in results:
        label = (result.collector,)
        found.append(Sample(catalog.COLLECTOR_SUCCESS, label, float(result.success)))
        found.append(Sample(catalog.COLLECTOR_DURATION, label, result.duration))
        if result.last_success is not None:
            found.append(Sample(catalog.COLLECTOR_LAST_SUCCESS, label, result.last_success))
    return tuple(found)
