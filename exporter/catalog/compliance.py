"""Catalog: compliance checks, by cursor and queue."""

from __future__ import annotations

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
COMPLIANCE_CATCHING_UP = SUBJECT.metric(
    "prep_compliance_cursor_catching_up",
    "gauge",
    "",
    "1 while the counters hold a jump of rows from a time in which nobody counted; alerts on their rates should wait"
    " until max_over_time() of it over their range is 0.",
    _COMPLIANCE,
)
COMPLIANCE_INEXACT = SUBJECT.metric(
    "prep_compliance_cursor_overlap_cut",
    "gauge",
    "",
    "1 while a transaction is open for longer than the cursor's overlap reaches back: its rows may be missed.",
    _COMPLIANCE,
)
COMPLIANCE_STATE_DISCARDED = SUBJECT.metric(
    "prep_compliance_cursor_state_discarded",
    "gauge",
    "",
    "1 when this process found the cursor's saved state unreadable or foreign and began again from its start time.",
    _COMPLIANCE,
)
