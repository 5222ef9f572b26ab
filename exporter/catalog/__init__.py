"""The one table of metrics: name, kind, unit, help, labels with their closed sets, and the collector that makes them.

In: the subjects' files. Out: `METRICS` and `COLLECTORS`, read by the exposition, `docs/metrics.md`, the dashboards and
the tests of the alert rules. It must never hold a value, do I/O or import another module of the exporter.
"""

from __future__ import annotations

from exporter.catalog import (
    backups,
    compliance,
    containers,
    disk,
    itself,
    payments,
    postgres,
    probes,
    redis,
    replication,
    security,
    services,
    slo,
    vendors,
)
from exporter.catalog.entries import CollectorDoc, Metric

SUBJECTS = (
    itself,
    postgres,
    replication,
    redis,
    containers,
    payments,
    compliance,
    security,
    disk,
    probes,
    vendors,
    backups,
    slo,
    services,
)
"""In the order of the page and of the exposition."""

COLLECTORS: dict[str, CollectorDoc] = {
    name: doc for subject in SUBJECTS for name, doc in subject.SUBJECT.collectors.items()
}
METRICS: dict[str, Metric] = {name: made for subject in SUBJECTS for name, made in subject.SUBJECT.metrics.items()}
