"""Catalog: compliance checks, by cursor and queue."""

from __future__ import annotations

from exporter.catalog.cursors import cursor_metrics
from exporter.catalog.entries import DURATION_BUCKETS, Subject

SUBJECT = Subject()

_COMPLIANCE = SUBJECT.collector(
    "compliance",
    "at scrape time",
    "Compliance checks as the platform's own table tells them, counted once each when they become final.",
    "SELECT on (id, created_at, finished_at, result) of compliance_checks on the primary, `pg_monitor`, and the two"
    " indexes below",
)

COMPLIANCE_DURATION = SUBJECT.metric(
    "prep_compliance_check_duration_seconds",
    "histogram",
    "seconds",
    "Time from a check's arrival to its result, of all checks that ended since the cursor began.",
    _COMPLIANCE,
    buckets=DURATION_BUCKETS,
)
COMPLIANCE_FAILED = SUBJECT.metric(
    "prep_compliance_checks_failed_total",
    "counter",
    "",
    "Checks that ended without an answer (result `error`); an order that breaks a rule (`fail`) is an answer.",
    _COMPLIANCE,
)
COMPLIANCE_PENDING = SUBJECT.metric(
    "prep_compliance_checks_pending",
    "gauge",
    "",
    "Checks that have arrived and have no result; counted up to 100000.",
    _COMPLIANCE,
)
COMPLIANCE_OLDEST_PENDING = SUBJECT.metric(
    "prep_compliance_oldest_pending_start_timestamp_seconds",
    "gauge",
    "seconds",
    "When the oldest check without a result arrived; absent when there is none.",
    _COMPLIANCE,
)
COMPLIANCE_CURSOR = cursor_metrics(SUBJECT, _COMPLIANCE)
