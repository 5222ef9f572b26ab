"""The catalog keeps the naming rules, also those that promtool does not know, and the docs are made from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter import docs
from exporter.catalog import COLLECTORS, METRICS, SUBJECTS
from exporter.catalog.entries import Label, Metric

ROOT = Path(__file__).resolve().parents[2]

# https://prometheus.io/docs/practices/naming/ and /docs/instrumenting/writing_exporters/.
_UNITS = {"seconds", "bytes", "cores", "transactions", "ratio"}
_FORBIDDEN_WORDS = {
    "ms", "milliseconds", "microseconds", "minutes", "hours", "days", "percent", "pct", "kb", "mb", "gb", "kilobytes",
    "megabytes", "bits", "age_seconds", "current", "count", "sum", "bucket", "created",
}  # fmt: skip
_FORBIDDEN_LABELS = {
    "type", "region", "zone", "cluster", "az", "dc", "owner", "customer", "stage", "service", "env", "environment",
    "instance", "job", "le", "quantile", "alertname", "severity",
}  # fmt: skip


def test_no_family_and_no_collector_is_in_two_subjects() -> None:
    """The one table is made of all the subjects' entries, none of them lost to another of the same name."""
    assert len(METRICS) == sum(len(subject.SUBJECT.metrics) for subject in SUBJECTS)
    assert len(COLLECTORS) == sum(len(subject.SUBJECT.collectors) for subject in SUBJECTS)


def naming_faults(metric: Metric) -> list[str]:
    """What is wrong with a metric's name, unit and labels."""
    words, found = metric.name.split("_"), []
    base = metric.name.removesuffix("_total")
    if not re.fullmatch(r"prep_[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.name):
        found.append("is not prep_ and lower-case words")
    if (metric.kind == "counter") != metric.name.endswith("_total"):
        found.append("_total stands on counters and only there")
    if _FORBIDDEN_WORDS & set(words[1:]):
        found.append("has a word that is no base unit or is reserved")
    if metric.unit and (metric.unit not in _UNITS or not base.endswith(f"_{metric.unit}")):
        found.append("does not end with its unit")
    if not metric.unit and set(words) & (_UNITS - {"transactions"}):
        found.append("names a unit that it does not have")
    if "timestamp" in words and not base.endswith("_timestamp_seconds"):
        found.append("a point in time ends with _timestamp_seconds")
    if metric.name.endswith("_info") and metric.kind != "gauge":
        found.append("_info is a gauge")
    return found + label_faults(metric)


def label_faults(metric: Metric) -> list[str]:
    """What is wrong with a metric's labels."""
    found, names = [], [label.name for label in metric.labels]
    if len(set(names)) != len(names):
        found.append("has a label twice")
    for name in names:
        if name in _FORBIDDEN_LABELS or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            found.append(f"label {name} clashes with a target's or is not lower case")
        if name in metric.name.removeprefix("prep_").split("_") and metric.kind != "gauge":
            found.append(f"label {name} stands in the name")
    return found


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_metric_keeps_the_naming_rules(metric: Metric) -> None:
    """Every name, unit and label follows Prometheus' conventions."""
    assert naming_faults(metric) == []


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_metric_is_documented(metric: Metric) -> None:
    """Every metric belongs to a collector and says what it means in a sentence."""
    assert metric.collector in COLLECTORS
    assert len(metric.help) > 15
    assert metric.help.endswith(".")
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert all(label.values is None or len(label.values) <= 10 for label in metric.labels)


@pytest.mark.parametrize(
    "metric",
    [
        Metric("prep_cpu_percent", "gauge", "", "x", "disk"),
        Metric("prep_queue_total", "gauge", "", "x", "disk"),
        Metric("prep_things", "counter", "", "x", "disk"),
        Metric("prep_latency_ms", "gauge", "", "x", "disk"),
        Metric("prep_wait_seconds", "gauge", "", "x", "disk"),
        Metric("other_up", "gauge", "", "x", "disk"),
        Metric("prep_start_timestamp", "gauge", "", "x", "disk"),
        Metric("prep_up", "gauge", "", "x", "disk", (Label("service", "x"),)),
    ],
    ids=lambda metric: metric.name,
)
def test_check_finds_what_breaks_the_rules(metric: Metric) -> None:
    """The check itself can fail: also for `_percent`, which promtool lets pass."""
    assert naming_faults(metric)


def test_buckets_end_at_the_handbooks_limit() -> None:
    """A check over 5 s is one too slow; a bucket ends exactly there, so that the share can be read off."""
    assert 5.0 in METRICS["prep_compliance_check_duration_seconds"].buckets


def test_page_is_made_from_the_catalog() -> None:
    """docs/metrics.md equals its generator."""
    assert docs.main([str(ROOT / "docs" / "metrics.md"), "--check"]) == 0


def test_every_setting_and_metric_is_on_the_page() -> None:
    """The page names every metric, and explains every setting."""
    page = docs.page()
    assert all(f"`{name}`" in page for name in METRICS)
    settings = page.split("## Settings")[1]
    rows = [line for line in settings.splitlines() if line.startswith("| `")]
    assert len(rows) > 25
    assert all(not row.endswith("|  |") for row in rows)


def test_check_tells_a_page_that_was_edited(tmp_path: Path) -> None:
    """A page that differs is exit code 1."""
    path = tmp_path / "metrics.md"
    assert docs.main([str(path)]) == 0
    path.write_text(path.read_text() + "more")
    assert docs.main([str(path), "--check"]) == 1
