"""The hand-over from one engine to the next: one at a time, nothing lost, and what is wrong changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from exporter.catalog import disk
from exporter.errors import ConfigError, Fault
from exporter.running import Running
from exporter.samples import Collected, Sample
from exporter.scrape import ScrapeEngine
from exporter.series_limit import SeriesLimit
from exporter.settings import Settings, parse
from tests.unit.test_exporter_scrape import Fake

SETTINGS = parse("collectors: {disk: {paths: {/: /}}}", "exporter.yml")


@dataclass
class Bench:
    """A Running with engines of one fake collector each, in the order in which they were made."""

    read: Callable[[Settings], Settings] = lambda settings: settings
    made: list[Fake] = field(default_factory=list)
    close_seconds: float = 0.0

    def build(self, _: Settings) -> ScrapeEngine:
        collector = SlowToClose("disk", gives=Collected(()), closing=self.close_seconds)
        collector.alone = lambda: all(each.closed for each in self.made if each is not collector)
        self.made.append(collector)
        return ScrapeEngine([collector])

    def running(self) -> Running:
        return Running(SETTINGS, self._read, self.build)

    def _read(self, settings: Settings) -> Settings:
        return self.read(settings)


@dataclass
class SlowToClose(Fake):
    """A collector that owns something while it runs: it checks that its predecessor has given it back."""

    closing: float = 0.0
    alone: Callable[[], bool] = lambda: True

    async def collect(self, deadline: float) -> Collected:
        assert self.alone(), "two engines at once"
        return await super().collect(deadline)

    async def close(self) -> None:
        await asyncio.sleep(self.closing)
        await super().close()


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def scraped(running: Running, budget: float = 5.0) -> bool:
    async with running.scraping(soon(budget)) as engine:
        (result,) = await engine.scrape(budget)
    return result.success


async def test_old_engine_has_ended_before_the_new_one_runs() -> None:
    """Scrapes that come in during the hand-over wait for the new engine, and never meet two."""
    bench = Bench(close_seconds=0.05)
    async with bench.running() as running:
        for _ in range(5):
            reload = asyncio.create_task(running.reload())
            answers = [asyncio.create_task(scraped(running)) for _ in range(5)]
            await asyncio.sleep(0)
            answers += [asyncio.create_task(scraped(running)) for _ in range(5)]
            assert await reload == ()
            assert all(await asyncio.gather(*answers))
    assert len(bench.made) == 6
    assert all(each.closed for each in bench.made)


async def test_scrape_under_way_ends_on_the_engine_that_it_began_on() -> None:
    """The hand-over waits for it, and it is whole."""
    bench = Bench()
    async with bench.running() as running:
        bench.made[0].seconds = 0.2
        under_way = asyncio.create_task(scraped(running))
        await asyncio.sleep(0.05)
        assert await running.reload() == ()
        assert await under_way
        assert [each.starts for each in bench.made] == [1, 0]


async def test_scrape_does_not_wait_beyond_its_deadline() -> None:
    """While an old engine takes long to let go, a scraper with little time is told success 0 in time."""
    bench = Bench(close_seconds=1.0)
    async with bench.running() as running:
        reload = asyncio.create_task(running.reload())
        while not bench.made[1:]:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        began = soon(0)
        assert not await scraped(running, 0.1)
        assert soon(0) - began < 0.5
        assert await reload == ()
        assert await scraped(running)


@pytest.mark.parametrize("error", [ConfigError([Fault("a.yml:1: x", "is wrong", "mend it")]), RuntimeError("a bug")])
async def test_whatever_is_wrong_changes_nothing(error: Exception) -> None:
    """A mistake in the file and one in the exporter itself: the faults are told, the engine goes on, the series says so."""
    bench = Bench()

    def fail(_: Settings) -> Settings:
        raise error

    async with bench.running() as running:
        engine, since = running.engine, running.samples()[-1].value
        bench.read = fail
        with capture_logs():
            (fault,) = await running.reload()
        assert str(fault).startswith("a.yml:1" if isinstance(error, ConfigError) else "configuration: a mistake")
        assert running.engine is engine
        assert [sample.value for sample in running.samples()[-2:]] == [0.0, since]
        assert await scraped(running)
        bench.read = lambda settings: settings
        assert await running.reload() == ()
        assert running.samples()[-2].value == 1.0


async def test_reloads_at_once_follow_each_other_and_end_with_the_process() -> None:
    """Many at a time are done one after the other; after the end none is begun."""
    bench = Bench()
    async with bench.running() as running:
        found = await asyncio.gather(*(running.reload() for _ in range(5)))
        assert set(found) == {()}
    assert "stopping" in str((await running.reload())[0])
    assert len(bench.made) == 6


async def test_cap_is_told_once() -> None:
    """A family at its cap is one line in the log, not one a scrape, and one again when it was below."""
    many = Collected(tuple(Sample(disk.FILESYSTEM_FREE, (str(number),), 1.0) for number in range(3)))
    collector = Fake("disk", gives=many)
    engine = ScrapeEngine([collector], limit=SeriesLimit(2))
    with capture_logs() as logs:
        for gives in (many, many, Collected(many.samples[:1]), many):
            collector.gives = gives
            await engine.scrape(1.0)
    assert [line["metric"] for line in logs] == ["prep_filesystem_free_bytes"] * 2
