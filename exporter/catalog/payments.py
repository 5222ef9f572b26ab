"""Catalog: payments, by cursor and queue."""

from __future__ import annotations

from exporter.catalog.cursors import cursor_metrics
from exporter.catalog.entries import DURATION_BUCKETS, Label, Subject

SUBJECT = Subject()

FAILURE_REASONS = ("platform", "provider", "network", "other")
"""Whose failure it was; all of them are bad events of the payments' objective."""
DECLINE_REASONS = (
    "refused_by_bank",
    "insufficient_funds",
    "expired_card",
    "wrong_details",
    "authentication_required",
    "suspected_fraud",
    "other",
)
"""Why a bank or a customer's card said no: the platform and the provider did what they should."""

_PAYMENTS = SUBJECT.collector(
    "payments",
    "at scrape time",
    "Payments as the platform's own table tells them, counted once each when they become final; refunds when they are"
    " made.",
    "SELECT on (id, created_at, finalized_at, refunded_at, status, failure_reason, provider, method) of payments on the"
    " primary, `pg_monitor`, and the three indexes below",
)
_PROVIDER = Label("provider", "a name of `collectors.payments.providers`, or `other`")
_METHOD = Label("method", "a name of `collectors.payments.methods`, or `other`")

PAYMENTS_FINALIZED = SUBJECT.metric(
    "prep_payments_finalized_total",
    "counter",
    "",
    "Payments that became final, however they ended: succeeded, failed and declined ones.",
    _PAYMENTS,
    _PROVIDER,
    _METHOD,
)
PAYMENTS_FAILED = SUBJECT.metric(
    "prep_payments_failed_total",
    "counter",
    "",
    "Payments that failed for want of the platform, the provider or the network between; without declines.",
    _PAYMENTS,
    _PROVIDER,
    _METHOD,
    Label(
        "reason",
        "whose failure, by `collectors.payments.failures`; `other` for a word that is not there",
        FAILURE_REASONS,
    ),
)
PAYMENTS_DECLINED = SUBJECT.metric(
    "prep_payments_declined_total",
    "counter",
    "",
    "Payments that the customer's bank or card refused; they are no failures of the platform.",
    _PAYMENTS,
    _PROVIDER,
    _METHOD,
    Label("reason", "by `collectors.payments.declines`", DECLINE_REASONS),
)
PAYMENTS_REFUNDED = SUBJECT.metric(
    "prep_payments_refunded_total",
    "counter",
    "",
    "Refunds made, also of payments that were counted long ago; nothing is taken off the other counters for them.",
    _PAYMENTS,
    _PROVIDER,
    _METHOD,
)
PAYMENTS_DURATION = SUBJECT.metric(
    "prep_payment_duration_seconds",
    "histogram",
    "seconds",
    "Time from a payment's creation until it was final, of all that became final since the cursor began.",
    _PAYMENTS,
    buckets=DURATION_BUCKETS,
)
PAYMENTS_PENDING = SUBJECT.metric(
    "prep_payments_pending", "gauge", "", "Payments that are not final; counted up to 100000.", _PAYMENTS
)
PAYMENTS_OLDEST_PENDING = SUBJECT.metric(
    "prep_payments_oldest_pending_start_timestamp_seconds",
    "gauge",
    "seconds",
    "When the oldest payment that is not final was created; absent when there is none.",
    _PAYMENTS,
)
PAYMENTS_CURSOR = cursor_metrics(SUBJECT, _PAYMENTS)
