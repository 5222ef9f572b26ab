"""The cap on series: what is kept, that it stays the same from scrape to scrape, and that what is lost is counted."""

from __future__ import annotations

from exporter.catalog import compliance, disk, postgres
from exporter.samples import AnySample, HistogramSample, Sample, state_set
from exporter.scrape import ScrapeEngine, self_samples
from exporter.series_limit import SeriesLimit
from tests.unit.exporter_time import in_virtual_time
from tests.unit.test_exporter_scrape import Fake, by_name


def free(*paths: str) -> tuple[AnySample, ...]:
    return tuple(Sample(disk.FILESYSTEM_FREE, (path,), 1.0) for path in paths)


def dropped(limit: SeriesLimit, collector: str = "disk") -> dict[str, float]:
    return {sample.labels[0]: sample.value for sample in limit.samples([collector])}


def test_series_beyond_the_cap_are_dropped_and_counted() -> None:
    """The first ones stay in their order, the family is named, and each run's losses add up."""
    limit = SeriesLimit(2)
    for lost in (1, 2):
        kept, cut = limit.apply("disk", free("a", "b", "c"))
        assert [sample.labels[0] for sample in kept] == ["a", "b"]
        assert cut == ["prep_filesystem_free_bytes"]
        assert dropped(limit)["prep_filesystem_free_bytes"] == lost
    assert dropped(limit)["prep_filesystem_size_bytes"] == 0


def test_series_that_was_shown_stays_shown() -> None:
    """Whatever order a backend answers in, no series comes and goes; a place that becomes free is given away."""
    limit = SeriesLimit(2)
    limit.apply("disk", free("a", "b"))
    assert {sample.labels[0] for sample in limit.apply("disk", free("z", "b", "a"))[0]} == {"a", "b"}
    assert {sample.labels[0] for sample in limit.apply("disk", free("z", "b"))[0]} == {"z", "b"}


def test_families_do_not_take_room_from_each_other() -> None:
    """The cap is each family's own."""
    limit = SeriesLimit(1)
    both = (*free("a"), Sample(disk.FILESYSTEM_SIZE, ("a",), 1.0))
    assert limit.apply("disk", both) == (both, [])


def test_closed_sets_and_single_series_are_left_alone() -> None:
    """A state-set is never torn, and what cannot outgrow its labels needs no cap and has no counter."""
    limit = SeriesLimit(1)
    histogram = HistogramSample(compliance.COMPLIANCE_DURATION, (), (0,) * 12, 0.0)
    assert limit.apply("disk", (histogram,)) == ((histogram,), [])
    assert "prep_compliance_check_duration_seconds" not in dropped(limit, "compliance")
    assert "prep_postgres_role" in dropped(limit, "postgres")


def test_engine_caps_every_collector_and_goes_on() -> None:
    """Too many series are no failure: the collector succeeds, the page is whole, the counter tells."""

    async def scrape() -> None:
        limit = SeriesLimit(2)
        role = state_set(postgres.POSTGRES_ROLE, ("postgres",), ["primary"])
        fakes = [Fake("disk"), Fake("postgres")]
        fakes[0].gives = type(fakes[0].gives)(free("a", "b", "c"))
        fakes[1].gives = type(fakes[1].gives)(role)
        engine = ScrapeEngine(fakes, limit=limit)
        found = by_name(await engine.scrape(1.0))
        assert (found["disk"].success, len(found["disk"].samples)) == (True, 2)
        assert found["postgres"].samples == role
        told = {sample.labels: sample.value for sample in engine.limit_samples()}
        assert told["prep_filesystem_free_bytes",] == 1
        assert len(self_samples(list(found.values()))) == 4

    in_virtual_time(scrape)
