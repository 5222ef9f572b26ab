"""Samples to the text that Prometheus reads.

In: samples, and the Accept header. Out: bytes and their content type. Called in a thread, since rendering would hold up
the event loop. Families come in the catalog's order; one without samples is not shown.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ (text 0.0.4) and OpenMetrics 1.0.
Written here and not by prometheus_client, whose functions take 20 times as long, pass a family shown twice on without a
word, and answer with whatever OpenMetrics version the client names; its parsers are the tests' judge of this file.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from exporter.catalog import METRICS
from exporter.catalog.entries import Metric
from exporter.samples import AnySample, HistogramSample

_GZIP_LEVEL = 1
"""A sixth of the time of level 9, for somewhat more bytes."""


@dataclass(frozen=True, slots=True)
class Format:
    """A text format; `openmetrics` tells the two apart."""

    content_type: str
    openmetrics: bool


TEXT = Format("text/plain; version=0.0.4; charset=utf-8", False)
OPENMETRICS = Format("application/openmetrics-text; version=1.0.0; charset=utf-8", True)

_OPENMETRICS_VERSIONS = ("", "0.0.1", "1.0.0")
"""What we can be asked for; a later version has other rules, so it is not claimed."""


def negotiate(accept: str) -> Format:
    """The format for an Accept header (RFC 9110, 12.5.1): the highest q wins, then the first; text when in doubt."""
    best, best_q = TEXT, 0.0
    for entry in accept.split(","):
        media, *parameters = (part.strip().lower() for part in entry.split(";"))
        values = dict(part.split("=", 1) for part in parameters if "=" in part)
        q = _quality(values.get("q", "1"))
        if media == "application/openmetrics-text" and values.get("version", "").strip('"') in _OPENMETRICS_VERSIONS:
            found = OPENMETRICS
        elif media in ("text/plain", "text/*", "*/*"):
            found = TEXT
        else:
            continue
        if q > best_q:
            best, best_q = found, q
    return best


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def render(samples: Iterable[AnySample], form: Format, zipped: bool) -> bytes:
    """The body of an answer. Raises ValueError for a series shown twice."""
    body = "".join(_lines(samples, form)).encode()
    return gzip.compress(body, _GZIP_LEVEL, mtime=0) if zipped else body


def _lines(samples: Iterable[AnySample], form: Format) -> Iterator[str]:
    families: dict[str, dict[tuple[str, ...], AnySample]] = {}
    for sample in samples:
        family = families.setdefault(sample.metric.name, {})
        if sample.labels in family:
            raise ValueError(f"{sample.metric.name}{list(sample.labels)} is shown twice")
        family[sample.labels] = sample
    for name, metric in METRICS.items():
        if name not in families:
            continue
        yield _head(metric, form.openmetrics)
        for sample in families[name].values():
            if isinstance(sample, HistogramSample):
                yield from _histogram(sample)
            else:
                yield f"{_series(name, metric.label_names, sample.labels)} {_number(sample.value)}\n"
    if form.openmetrics:
        yield "# EOF\n"


@lru_cache(maxsize=256)
def _head(metric: Metric, openmetrics: bool) -> str:
    """HELP, TYPE, and for OpenMetrics UNIT, in which a counter is named without its `_total`."""
    name = metric.name.removesuffix("_total") if openmetrics and metric.kind == "counter" else metric.name
    help_ = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        help_ = help_.replace('"', r"\"")
    unit = f"# UNIT {name} {metric.unit}\n" if openmetrics and metric.unit else ""
    return f"# HELP {name} {help_}\n# TYPE {name} {metric.kind}\n{unit}"


@lru_cache(maxsize=4096)
def _series(name: str, label_names: Sequence[str], values: Sequence[str]) -> str:
    """`name{label="value"}`; cached, since series are the same from scrape to scrape."""
    if not values:
        return name
    pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(label_names, values, strict=True))
    return f"{name}{{{pairs}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    """A float as both formats read it: `1.0`, `1e+16`, `+Inf`, `NaN`."""
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _histogram(sample: HistogramSample) -> Iterator[str]:
    """Cumulative buckets, then count and sum."""
    metric, total = sample.metric, 0
    labels = (*metric.label_names, "le")
    for bound, count in zip((*metric.buckets, float("inf")), sample.counts, strict=True):
        total += count
        series = _series(f"{metric.name}_bucket", labels, (*sample.labels, _number(bound)))
        yield f"{series} {total}\n"
    yield f"{_series(f'{metric.name}_count', metric.label_names, sample.labels)} {total}\n"
    yield f"{_series(f'{metric.name}_sum', metric.label_names, sample.labels)} {_number(sample.sum)}\n"
