"""How many series of one family a collector may show: a cap, so that one strange day makes no thousands of series.

In: a run's samples. Out: those that may be shown, and a count of those that may not. Series that were shown in the last
run come first, so a family at its cap shows the same series from scrape to scrape instead of a new choice each time.

Series beyond the cap are dropped and not folded into `other`: a series that moved in or out of `other` would make that
one fall, which Prometheus reads as a counter that began anew, and gauges cannot be added up at all. Where an unknown
value is an answer of its own, the collector maps it to its closed set before it comes here.

Families whose labels all have closed sets cannot outgrow them and are left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from exporter.catalog import METRICS
from exporter.catalog import itself as catalog
from exporter.catalog.entries import Metric
from exporter.samples import AnySample, Sample

MAX_SERIES = 1000
"""Of one family, unless the settings say otherwise."""


def is_open(metric: Metric) -> bool:
    """Whether the number of its series depends on more than the catalog."""
    return any(label.values is None for label in metric.labels)


@cache
def _open_families(collectors: frozenset[str]) -> tuple[str, ...]:
    return tuple(metric.name for metric in METRICS.values() if metric.collector in collectors and is_open(metric))


class SeriesLimit:
    """The cap of every family, and what was dropped since the process began (over all reloads)."""

    def __init__(self, most: int = MAX_SERIES) -> None:
        """`most` series of one family in one run."""
        self.most = most
        self._shown: dict[str, Sequence[AnySample]] = {}
        self._dropped: Counter[str] = Counter()

    def apply(self, collector: str, samples: Sequence[AnySample]) -> tuple[Sequence[AnySample], list[str]]:
        """The samples of a run that may be shown, in their order, and the names of the families that lost some."""
        before = self._shown.get(collector, ())
        if len(samples) <= self.most:  # no family can be beyond: the usual case costs nothing
            self._shown[collector] = samples
            return samples, []
        families: dict[str, list[AnySample]] = {}
        for sample in samples:
            if is_open(sample.metric):
                families.setdefault(sample.metric.name, []).append(sample)
        beyond: set[int] = set()
        cut = []
        for name, found in families.items():
            if lost := self._beyond(name, found, before):
                cut.append(name)
                beyond.update(map(id, lost))
                self._dropped[name] += len(lost)
        self._shown[collector] = shown = tuple(sample for sample in samples if id(sample) not in beyond)
        return shown, cut

    def samples(self, collectors: Iterable[str]) -> tuple[Sample, ...]:
        """The counter, from 0 on, for each family of these collectors that could outgrow the cap."""
        names = _open_families(frozenset(collectors))
        return tuple(Sample(catalog.SERIES_DROPPED, (name,), float(self._dropped[name])) for name in names)

    def _beyond(self, name: str, found: Sequence[AnySample], before: Sequence[AnySample]) -> Sequence[AnySample]:
        if len(found) <= self.most:
            return ()
        shown = {sample.labels for sample in before if sample.metric.name == name}
        # sorted() keeps the order of equals: those shown last time first, then the others as the collector gave them.
        return sorted(found, key=lambda sample: sample.labels not in shown)[self.most :]
