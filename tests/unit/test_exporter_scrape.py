"""The scrape engine: one deadline, side by side, joined not doubled, partial results, no old value as a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from exporter.catalog import disk, postgres
from exporter.errors import Permanent, Transient
from exporter.samples import Collected, Result, Sample
from exporter.scrape import Background, ScrapeEngine, self_samples
from exporter.server import budget, chosen
from tests.unit.exporter_time import in_virtual_time, now

UP = Sample(postgres.POSTGRES_UP, ("postgres",), 1.0)
FREE = Sample(disk.FILESYSTEM_FREE, ("/",), 5.0)


@dataclass
class Fake:
    """A collector that takes `seconds` and then gives or raises what it is told."""

    name: str
    seconds: float = 0.0
    gives: Collected = field(default_factory=lambda: Collected(()))
    raises: Exception | None = None
    starts: int = 0
    closed: bool = False
    deadlines: list[float] = field(default_factory=list)

    async def collect(self, deadline: float) -> Collected:
        self.starts += 1
        self.deadlines.append(deadline)
        await asyncio.sleep(self.seconds)
        if self.raises is not None:
            raise self.raises
        return self.gives

    async def close(self) -> None:
        self.closed = True


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        in_virtual_time(test)

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


def by_name(results: tuple[Result, ...]) -> dict[str, Result]:
    return {result.collector: result for result in results}


@virtual
async def test_collectors_run_side_by_side() -> None:
    """The scrape takes as long as the slowest collector, not as long as all together."""
    engine = ScrapeEngine([Fake(f"c{number}", seconds=2.0) for number in range(5)])
    began = now()
    results = await engine.scrape(9.5)
    assert now() - began == pytest.approx(2.0)
    assert all(result.success and result.duration == pytest.approx(2.0) for result in results)


@virtual
async def test_hung_collector_delays_nobody_beyond_the_deadline() -> None:
    """At the deadline the answer is given: success 0 for the one that hangs, all samples of the others."""
    engine = ScrapeEngine([Fake("postgres", seconds=3600), Fake("disk", gives=Collected((FREE,)))])
    began = now()
    found = by_name(await engine.scrape(2.5))
    assert now() - began == pytest.approx(2.5)
    assert found["disk"].samples == (FREE,)
    assert not found["postgres"].success
    assert found["postgres"].samples == ()
    assert found["postgres"].duration == pytest.approx(2.5)


@virtual
async def test_scrape_after_a_hung_one_starts_anew() -> None:
    """A run that hung is cut off a moment after its deadline and never blocks the next scrape."""
    hung = Fake("postgres", seconds=3600, gives=Collected((UP,)))
    engine = ScrapeEngine([hung])
    await engine.scrape(2.5)
    await asyncio.sleep(1)
    hung.seconds = 0.1
    assert by_name(await engine.scrape(2.5))["postgres"].samples == (UP,)
    assert hung.starts == 2


@virtual
async def test_scrapes_at_once_share_one_run() -> None:
    """Sixteen scrapers cost a backend what one costs."""
    collector = Fake("postgres", seconds=1.0, gives=Collected((UP,)))
    engine = ScrapeEngine([collector])
    answers = await asyncio.gather(*(engine.scrape(9.5) for _ in range(16)))
    assert collector.starts == 1
    assert all(by_name(results)["postgres"].samples == (UP,) for results in answers)


@virtual
async def test_joined_run_is_waited_for_up_to_ones_own_deadline() -> None:
    """A scraper with less time leaves empty-handed; the run goes on for the one that has more."""
    collector = Fake("postgres", seconds=3.0, gives=Collected((UP,)))
    engine = ScrapeEngine([collector])
    long = asyncio.create_task(engine.scrape(9.5))
    await asyncio.sleep(0.5)
    began = now()
    assert not by_name(await engine.scrape(1.0))["postgres"].success
    assert now() - began == pytest.approx(1.0)
    assert by_name(await long)["postgres"].samples == (UP,)
    assert collector.starts == 1


@virtual
async def test_cancelled_scraper_takes_nothing_from_the_others() -> None:
    """A client that hangs up does not end the run that others wait for."""
    collector = Fake("postgres", seconds=3.0, gives=Collected((UP,)))
    engine = ScrapeEngine([collector])
    first, second = asyncio.create_task(engine.scrape(9.5)), asyncio.create_task(engine.scrape(9.5))
    await asyncio.sleep(1)
    first.cancel()
    assert by_name(await second)["postgres"].samples == (UP,)


@pytest.mark.parametrize("error", [Transient("frozen"), Permanent("no grant"), ValueError("bug"), TimeoutError()])
def test_collector_that_raises_is_success_0(error: Exception) -> None:
    """Whatever a collector raises, the others' samples are there and it has none."""

    async def test() -> None:
        engine = ScrapeEngine([Fake("postgres", raises=error), Fake("disk", gives=Collected((FREE,)))])
        found = by_name(await engine.scrape(1.0))
        assert (found["postgres"].success, found["postgres"].samples) == (False, ())
        assert (found["disk"].success, found["disk"].samples) == (True, (FREE,))

    in_virtual_time(test)


@virtual
async def test_part_that_failed_leaves_the_other_parts() -> None:
    """A collector may give what it has and say what is missing: samples, and success 0."""
    engine = ScrapeEngine([Fake("postgres", gives=Collected((UP,), "a server is down"))])
    result = by_name(await engine.scrape(1.0))["postgres"]
    assert (result.success, result.samples) == (False, (UP,))


@virtual
async def test_failure_shows_no_old_value() -> None:
    """What was true in the last scrape is not shown in this one."""
    collector = Fake("postgres", gives=Collected((UP,)))
    engine = ScrapeEngine([collector])
    await engine.scrape(1.0)
    collector.raises = Transient("gone")
    assert by_name(await engine.scrape(1.0))["postgres"].samples == ()


@virtual
async def test_broken_promise_is_not_shown() -> None:
    """A collector with a series twice, or a label outside its set, is refused; the page stays whole."""
    strange = Sample(postgres.POSTGRES_ROLE, ("postgres", "king"), 1.0)
    engine = ScrapeEngine(
        [Fake("postgres", gives=Collected((UP, UP))), Fake("disk", gives=Collected((FREE,))), Fake("compliance")]
    )
    found = by_name(await engine.scrape(1.0))
    assert (found["postgres"].success, found["postgres"].samples) == (False, ())
    assert found["disk"].success
    other = ScrapeEngine([Fake("postgres", gives=Collected((strange,)))])
    assert not by_name(await other.scrape(1.0))["postgres"].success


@virtual
async def test_series_of_another_collector_is_not_shown_twice() -> None:
    """Two collectors with one series: the first keeps it, the second is success 0."""
    engine = ScrapeEngine(
        [Fake("disk", gives=Collected((FREE,))), Fake("postgres", gives=Collected((UP, FREE)))],
    )
    found = by_name(await engine.scrape(1.0))
    assert found["disk"].samples == (FREE,)
    assert (found["postgres"].success, found["postgres"].samples) == (False, ())


@virtual
async def test_only_the_wanted_collectors_run() -> None:
    """What is not asked for is not run, has no result, and is not shown when it runs in the background."""
    ours, theirs, background = Fake("disk", gives=Collected((FREE,))), Fake("postgres"), Fake("docker")
    async with ScrapeEngine([ours, theirs], [Background(background, 10.0, 5.0)]) as engine:
        assert engine.names == ("disk", "postgres", "docker")
        assert set(by_name(await engine.scrape(1.0, {"disk"}))) == {"disk"}
        assert (ours.starts, theirs.starts) == (1, 0)
        assert set(by_name(await engine.scrape(1.0, {"docker"}))) == {"docker"}
        assert await engine.scrape(1.0, frozenset()) == ()


@virtual
async def test_scrapes_of_some_and_of_all_share_one_run() -> None:
    """Filters do not undo the single flight."""
    collector = Fake("postgres", seconds=1.0, gives=Collected((UP,)))
    engine = ScrapeEngine([collector, Fake("disk")])
    found = await asyncio.gather(engine.scrape(9.5, {"postgres"}), engine.scrape(9.5), engine.scrape(9.5, {"postgres"}))
    assert collector.starts == 1
    assert all(by_name(results)["postgres"].samples == (UP,) for results in found)


@dataclass
class Counting(Fake):
    """A collector that counts its own runs, as probes do."""

    count: int = 0

    async def collect(self, deadline: float) -> Collected:
        await super().collect(deadline)
        self.count += 1
        return Collected((Sample(disk.FILESYSTEM_FREE, ("/",), float(self.count)),))

    def inherit(self, predecessor: object) -> None:
        assert isinstance(predecessor, Counting)
        self.count = predecessor.count


@virtual
async def test_successor_goes_on_where_the_engine_before_was() -> None:
    """Own counts go on, what the background has found is still shown for as long as it is true, and then no longer."""
    old = ScrapeEngine([Counting("disk")], [Background(Fake("docker", gives=Collected((UP,))), 10.0, 5.0)])
    async with old:
        await asyncio.sleep(1)
        await old.scrape(1.0)
        await old.scrape(1.0)
    new = ScrapeEngine([Counting("disk")], [Background(Fake("docker", raises=Transient("gone")), 10.0, 5.0)])
    new.inherit(old)
    async with new:
        found = by_name(await new.scrape(1.0))
        assert found["disk"].samples[0] == Sample(disk.FILESYSTEM_FREE, ("/",), 3.0)
        assert found["docker"].samples == (UP,)
        assert new.ready
        await asyncio.sleep(31)
        assert by_name(await new.scrape(1.0))["docker"].samples == ()


@virtual
async def test_collector_that_does_not_let_go_keeps_nobody_from_it() -> None:
    """At the end each one is closed, within seconds, also after one that fails or hangs."""
    good, bad, hung = Fake("disk"), Stubborn("postgres"), Stubborn("compliance", seconds=3600)
    engine, began = ScrapeEngine([bad, hung, good]), now()
    async with engine:
        pass
    assert good.closed
    assert now() - began < 5


@dataclass
class Stubborn(Fake):
    """A collector that fails when it is closed, after `seconds`."""

    async def close(self) -> None:
        await asyncio.sleep(self.seconds)
        raise RuntimeError("on purpose")


@virtual
async def test_background_collector_keeps_its_interval() -> None:
    """It runs by itself, from beginning to beginning, and no scrape waits for it."""
    slow = Fake("docker", seconds=4.0, gives=Collected((FREE,)))
    async with ScrapeEngine([], [Background(slow, interval=10.0, timeout=8.0)]) as engine:
        assert not engine.ready
        began = now()
        assert by_name(await engine.scrape(9.5))["docker"].last_success is None
        assert now() == began
        await asyncio.sleep(35)
        assert slow.starts == 4
        assert engine.ready
        result = by_name(await engine.scrape(9.5))["docker"]
        assert (result.success, result.samples, result.duration) == (True, (FREE,), pytest.approx(4.0))
        assert result.last_success is not None
    assert slow.closed


@virtual
async def test_background_samples_vanish_after_three_intervals() -> None:
    """An old value is never shown as a new one: while it fails success is 0, and after three intervals nothing is left."""
    collector = Fake("docker", gives=Collected((FREE,)))
    async with ScrapeEngine([], [Background(collector, interval=10.0, timeout=8.0)]) as engine:
        await asyncio.sleep(1)
        collector.raises = Transient("the gate is down")
        await asyncio.sleep(28)
        failing = by_name(await engine.scrape(1.0))["docker"]
        assert (failing.success, failing.samples) == (False, (FREE,))
        await asyncio.sleep(2)
        stale = by_name(await engine.scrape(1.0))["docker"]
        assert (stale.success, stale.samples) == (False, ())
        assert stale.last_success == failing.last_success
        collector.raises = None
        await asyncio.sleep(10)
        assert by_name(await engine.scrape(1.0))["docker"].samples == (FREE,)


@virtual
async def test_background_part_that_fails_takes_only_its_own_samples() -> None:
    """While one part is ill for hours the others stay fresh, success is 0, and the ill part's old value is gone."""
    size = Sample(disk.FILESYSTEM_SIZE, ("/",), 9.0)
    collector = Fake("backups", gives=Collected((FREE, size)))
    async with ScrapeEngine([], [Background(collector, interval=10.0, timeout=8.0)]) as engine:
        await asyncio.sleep(1)
        collector.gives = Collected((FREE,), "backups: the bucket does not answer")
        for _ in range(5):
            await asyncio.sleep(10)
            part = by_name(await engine.scrape(1.0))["backups"]
            assert (part.success, part.samples) == (False, (FREE,))
        collector.gives = Collected((FREE, size))
        await asyncio.sleep(10)
        whole = by_name(await engine.scrape(1.0))["backups"]
        assert (whole.success, whole.samples) == (True, (FREE, size))


@virtual
async def test_background_collector_that_hangs_is_cut_off() -> None:
    """It is ended at its timeout and tried again at its next turn."""
    collector = Fake("docker", seconds=3600)
    async with ScrapeEngine([], [Background(collector, interval=10.0, timeout=5.0)]) as engine:
        await asyncio.sleep(25)
        assert collector.starts == 3
        assert not by_name(await engine.scrape(1.0))["docker"].success


@virtual
async def test_end_leaves_no_task_and_closes_all() -> None:
    """Leaving the engine cancels what runs and lets every collector go."""
    collectors = [Fake("postgres", seconds=3600), Fake("disk")]
    background = Fake("docker", seconds=3600)
    async with ScrapeEngine(collectors, [Background(background, 10.0, 5.0)]) as engine:
        scrape = asyncio.create_task(engine.scrape(9.5))
        await asyncio.sleep(1)
    await scrape
    assert all(collector.closed for collector in (*collectors, background))
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_ended_engine_shows_nothing_old() -> None:
    """A scrape that comes while the process stops gets success 0, and begins nothing."""
    collector = Fake("postgres", gives=Collected((UP,)))
    engine = ScrapeEngine([collector])
    async with engine:
        assert by_name(await engine.scrape(1.0))["postgres"].success
    result = by_name(await engine.scrape(1.0))["postgres"]
    assert (result.success, result.samples, collector.starts) == (False, (), 1)


def test_every_collector_has_its_self_samples() -> None:
    """Success and duration are there for all, the time of the last success for those that have one."""
    found = self_samples([Result("disk", False, 0.5), Result("docker", True, 0.1, (), 1234.5)])
    values = {(sample.metric.name, sample.labels): sample.value for sample in found}
    assert values["prep_scrape_collector_success", ("disk",)] == 0
    assert values["prep_scrape_collector_duration_seconds", ("disk",)] == 0.5
    assert values["prep_collector_last_success_timestamp_seconds", ("docker",)] == 1234.5
    assert ("prep_collector_last_success_timestamp_seconds", ("disk",)) not in values


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, 9.5),
        ("10", 9.5),
        ("3.25", 2.75),
        ("0.6", 0.3),
        ("0.01", 0.05),
        ("nonsense", 9.5),
        ("-3", 9.5),
        ("inf", 9.5),
        ("nan", 9.5),
        ("100000", 119.5),
    ],
)
def test_budget_is_what_prometheus_allows_less_the_way_back(header: str | None, expected: float) -> None:
    """The header less the offset; the default for a header that makes no sense."""
    assert budget(header, 10.0, 0.5) == pytest.approx(expected)


THERE = ("postgres", "disk", "docker")


@pytest.mark.parametrize(
    ("collect", "exclude", "expected"),
    [
        ((), (), None),
        (("disk",), (), {"disk"}),
        (("disk", "disk", "docker"), (), {"disk", "docker"}),
        ((), ("disk",), {"postgres", "docker"}),
        ((), THERE, set()),
    ],
)
def test_chosen_collectors(collect: tuple[str, ...], exclude: tuple[str, ...], expected: set[str] | None) -> None:
    """`collect[]` names what is wanted, `exclude[]` what is not, neither is all."""
    assert chosen(collect, exclude, THERE) == expected


@pytest.mark.parametrize(
    ("collect", "exclude", "told"),
    [
        (("disk",), ("docker",), "cannot be given together"),
        (("redis",), (), "'redis'; there: postgres, disk, docker"),
        ((), ("x" * 500,), "'" + "x" * 40 + "'"),
    ],
)
def test_choice_that_makes_no_sense_is_told(collect: tuple[str, ...], exclude: tuple[str, ...], told: str) -> None:
    """Both at once and unknown names are mistakes, told shortly."""
    with pytest.raises(ValueError, match="collect") as caught:
        chosen(collect, exclude, THERE)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 300
