"""Catalog: logins and locked accounts, by cursor over the audit log."""

from __future__ import annotations

from exporter.catalog.cursors import cursor_metrics
from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

LOGIN_FAILURES = ("wrong_password", "unknown_user", "account_locked", "second_factor", "other")
"""Why a login was refused."""

_SECURITY = SUBJECT.collector(
    "security",
    "at scrape time",
    "Logins and locks as the platform's audit log tells them, counted once each; never whose they were or from where.",
    "SELECT on (id, at, event, outcome, reason) of audit_log and on (locked_at) of users on the primary, `pg_monitor`,"
    " and the two indexes below",
)

LOGINS = SUBJECT.metric("prep_security_logins_total", "counter", "", "Logins tried, with whatever outcome.", _SECURITY)
LOGINS_FAILED = SUBJECT.metric(
    "prep_security_logins_failed_total",
    "counter",
    "",
    "Logins that were refused.",
    _SECURITY,
    Label("reason", "by `collectors.security.reasons`; `other` for a word that is not there", LOGIN_FAILURES),
)
ACCOUNTS_LOCKED = SUBJECT.metric(
    "prep_security_account_locks_total", "counter", "", "Accounts that were locked.", _SECURITY
)
LOCKED_ACCOUNTS = SUBJECT.metric(
    "prep_security_locked_accounts",
    "gauge",
    "",
    "Accounts that are locked now, counted up to 100000; absent when no table of accounts is configured.",
    _SECURITY,
)
SECURITY_CURSOR = cursor_metrics(SUBJECT, _SECURITY)
