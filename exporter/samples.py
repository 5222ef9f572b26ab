"""Frozen values between collectors and the exposition: samples, what a collector gathered, what came of a run.

In: values. Out: values, and `faults()`, the pure check that what is about to be shown keeps the catalog's promises.
It must never do I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from exporter.catalog.entries import Metric

MAX_LABEL_LENGTH = 128
"""Characters of a label value; a configured name longer than that is a mistake."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a gauge or counter. `labels` are in the catalog's order."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class HistogramSample:
    """One histogram. `counts` are observations per bucket, *not* cumulative, the last for +Inf; `sum` in the unit."""

    metric: Metric
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    sum: float


AnySample = Sample | HistogramSample


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collector gathered in one run; `fault` says in one line what is missing, None when all is there."""

    samples: tuple[AnySample, ...]
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One collector's part of one scrape. Seconds; `last_success` UNIX seconds, for background collectors only."""

    collector: str
    success: bool
    duration: float
    samples: tuple[AnySample, ...] = ()
    last_success: float | None = None


def state_set(metric: Metric, labels: tuple[str, ...], present: Iterable[str]) -> tuple[Sample, ...]:
    """One series for each value of the metric's last label: 1 for those in `present`, else 0.

    Raises ValueError when `present` holds a value outside the closed set.
    """
    values, found = metric.labels[-1].values or (), set(present)
    if strange := found.difference(values):
        raise ValueError(f"{metric.name}: {metric.labels[-1].name} has no value {sorted(strange)}")
    return tuple(Sample(metric, (*labels, value), float(value in found)) for value in values)


def faults(samples: Iterable[AnySample]) -> list[str]:
    """What about these samples breaks the catalog's promises; empty when nothing does.

    Checked: labels by number, closed set and length; a series shown twice; a counter below 0 or not finite; the
    number of a histogram's buckets. Prometheus refuses a whole scrape for a duplicate, so one must not get out.
    """
    found: list[str] = []
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for sample in samples:
        found += _faults_of(sample)
        key = (sample.metric.name, sample.labels)
        if key in seen:
            found.append(f"{sample.metric.name}{list(sample.labels)} twice")
        seen.add(key)
    return found


def _faults_of(sample: AnySample) -> list[str]:
    metric, found = sample.metric, []
    if len(sample.labels) != len(metric.labels):
        return [f"{metric.name}: {len(sample.labels)} label values for {len(metric.labels)} labels"]
    for label, value in zip(metric.labels, sample.labels, strict=True):
        if label.values is not None and value not in label.values:
            found.append(f"{metric.name}: label {label.name} has a value outside its set")
        if len(value) > MAX_LABEL_LENGTH:
            found.append(f"{metric.name}: label {label.name} is longer than {MAX_LABEL_LENGTH} characters")
    if isinstance(sample, HistogramSample):
        if metric.kind != "histogram" or len(sample.counts) != len(metric.buckets) + 1 or min(sample.counts) < 0:
            found.append(f"{metric.name}: its buckets are not the catalog's")
    elif metric.kind == "histogram":
        found.append(f"{metric.name}: a histogram is not one value")
    elif metric.kind == "counter" and not (math.isfinite(sample.value) and sample.value >= 0):
        found.append(f"{metric.name}: a counter cannot be {sample.value}")
    return found
