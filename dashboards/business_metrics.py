"""Business metrics: do customers pay, are orders checked, do people log in?"""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.limits import Rules
from dashboards.parts import About, Panel, Row, Series, alerts, board, number, trend

CONCERNED = 'service=~"payments|python-compliance|logins|stripe|shop"'
NO_PAYMENTS = "Neither the exporter nor the payments service counts payments (PaymentsDataMissing)."
NO_CHECKS = "Neither the exporter nor python-compliance counts checks (ComplianceDataMissing)."
NO_LOGINS = "The exporter could not read the audit log (SecurityDataMissing)."
FAILED = "max(service:payments_failed:ratio{}) or max(0 * service:payments_final:increase_long{})"
CHECKS_FAILED = "max(service:compliance_checks_failed:ratio{}) or max(0 * service:compliance_checks:increase_long{})"
LOGINS_FAILED = (
    "max(service:logins_failed:increase{} / (service:logins:increase{} > 0)) or max(0 * service:logins:increase{})"
)


def build(rules: Rules) -> Dashboard:
    """The dashboard of http://localhost:3001/d/business-metrics."""
    rows = [
        Row("Does the business work?", _health(rules)),
        Row(
            "What is wrong now",
            [alerts(CONCERNED, "No alert fires for payments, compliance, logins or a vendor."), _share(rules)],
        ),
        Row("Payments", _payments()),
        Row("Compliance", _compliance(rules)),
        Row("Logins and sessions", _logins(rules), collapsed=True),
        Row("Are these numbers whole?", _counting(), collapsed=True),
    ]
    says = "Do customers pay, are orders checked, do people log in? Counted in the platform's own tables, or else by the services."
    return board("business-metrics", "Business Metrics", says, rows)


def _failing(rules: Rules, title: str) -> About:
    return About(
        title,
        "Share of payments that failed, over 5 minutes, or 15 where there are few. Declined cards are no failures.",
        NO_PAYMENTS,
        unit="percentunit",
        limits=[
            rules.above("PaymentSuccessRateLow", "service:payments_failed:ratio"),
            rules.above("PaymentSuccessRateCritical", "service:payments_failed:ratio"),
        ],
    )


def _health(rules: Rules) -> list[Panel]:
    return [
        number(_failing(rules, "Payments that fail"), Series(FAILED), decimals=2),
        number(
            About(
                "Oldest open payment",
                "How long the oldest payment has been pending; 0 when none is.",
                "The exporter could not read the payments (PaymentsDataDegraded).",
                unit="s",
                limits=[
                    rules.above("PaymentsPendingOld", "service:payments_oldest_pending_age_seconds:max"),
                    rules.above("PaymentPendingForgotten", "service:payments_oldest_pending_age_seconds:max"),
                ],
            ),
            Series("max(service:payments_oldest_pending_age_seconds:max{}) or max(0 * service:payments_pending:max{})"),
            decimals=0,
        ),
        number(
            About(
                "Compliance checks: 95 % are quicker than",
                "The time within which 95 of 100 checks were answered, over 5 minutes.",
                NO_CHECKS,
                unit="s",
                limits=[rules.above("ComplianceChecksSlow", "service:compliance_check_duration_seconds:p95")],
            ),
            Series("max(service:compliance_check_duration_seconds:p95{})"),
            decimals=2,
        ),
        number(
            About(
                "Compliance checks that fail",
                "Share of checks that ended without an answer. An order that breaks a rule is an answer.",
                NO_CHECKS,
                unit="percentunit",
                limits=[rules.above("ComplianceChecksFailing", "service:compliance_checks_failed:ratio")],
            ),
            Series(CHECKS_FAILED),
            decimals=2,
        ),
        number(
            About(
                "Logins refused",
                "Share of logins that were refused, for whatever reason, over 5 minutes.",
                NO_LOGINS,
                unit="percentunit",
                limits=[rules.above("LoginFailuresHigh", "service:logins_failed:increase", "service:logins:increase")],
            ),
            Series(LOGINS_FAILED),
            decimals=1,
        ),
        number(
            About(
                "Accounts locked now",
                "Accounts that are locked, for whatever reason.",
                "No table of accounts is configured (collectors.security.accounts), or it could not be read.",
            ),
            Series("max(prep_security_locked_accounts{})"),
        ),
    ]


def _share(rules: Rules) -> Panel:
    return trend(_failing(rules, "Payments that fail, over time"), Series(FAILED, "failed"))


def _payments() -> list[Panel]:
    by_cursor = "The exporter could not read the payments (PaymentsDataDegraded)."
    return [
        trend(
            About(
                "Payments that became final",
                "A second, however they ended. Nothing, where there was much a week ago, is PaymentsTrafficGone.",
                by_cursor,
                unit="ops",
            ),
            Series(
                "max by (provider, method) (rate(prep_payments_finalized_total{}[$__rate_interval]))",
                "{{provider}} {{method}}",
            ),
        ),
        trend(
            About(
                "Failures, by whose they are",
                "Failed payments a second: platform is ours, provider is theirs, network is between.",
                by_cursor,
                unit="ops",
            ),
            Series(
                "sum by (provider, reason) (rate(prep_payments_failed_total{}[$__rate_interval]))",
                "{{provider}}: {{reason}}",
            ),
            stacked=True,
        ),
        trend(
            About(
                "Declined cards, by reason",
                "Declined payments a second. A wave of them is no outage, but may be fraud (PaymentDeclinesHigh).",
                by_cursor,
                unit="ops",
            ),
            Series("sum by (reason) (rate(prep_payments_declined_total{}[$__rate_interval]))", "{{reason}}"),
            stacked=True,
        ),
        trend(
            About("Open payments", "Payments that are not final.", by_cursor),
            Series("max(service:payments_pending:max{})", "open"),
        ),
        trend(
            About(
                "Time until a payment is final",
                "The time within which 50 and 95 of 100 payments became final.",
                by_cursor,
                unit="s",
            ),
            Series(
                "histogram_quantile(0.95, sum by (le) (rate(prep_payment_duration_seconds_bucket{}[$__rate_interval])))",
                "95 % within",
            ),
            Series(
                "histogram_quantile(0.5, sum by (le) (rate(prep_payment_duration_seconds_bucket{}[$__rate_interval])))",
                "50 % within",
            ),
        ),
        trend(
            About("Refunds", "Refunds made a second; many are PaymentRefundsHigh.", by_cursor, unit="ops"),
            Series("sum by (provider) (rate(prep_payments_refunded_total{}[$__rate_interval]))", "{{provider}}"),
        ),
    ]


def _compliance(rules: Rules) -> list[Panel]:
    return [
        trend(
            About(
                "Time of a check",
                "The time within which 95 of 100 checks were answered, over 5 minutes.",
                NO_CHECKS,
                unit="s",
                limits=[rules.above("ComplianceChecksSlow", "service:compliance_check_duration_seconds:p95")],
            ),
            Series("max(service:compliance_check_duration_seconds:p95{})", "95 % within"),
        ),
        trend(
            About(
                "Checks that wait",
                "Checks that have arrived and have no result.",
                "The exporter could not read the checks (collector compliance).",
                limits=[rules.above("ComplianceQueueGrowing", "min_over_time(service:compliance_checks_pending:max")],
            ),
            Series("max(service:compliance_checks_pending:max{})", "waiting"),
        ),
        trend(
            About(
                "Checks in 5 minutes",
                "Checks that ended, and those of them that ended without an answer.",
                NO_CHECKS,
            ),
            Series("max(service:compliance_checks:increase{})", "ended"),
            Series("max(service:compliance_checks_failed:increase{})", "without an answer"),
        ),
        trend(
            About(
                "Sessions of the rule engine",
                "What the engine's sessions do. All of them busy for long, and nothing ending, is a leak (ComplianceStalled).",
                "python-compliance is not scraped, or does not tell of its sessions.",
            ),
            Series("sum by (state) (prep_compliance_engine_sessions{})", "{{state}}"),
            stacked=True,
        ),
        trend(
            About(
                "Cache of RegEngine: misses",
                "Share of look-ups that the cache did not have.",
                "python-compliance is not scraped, or does not tell of its cache.",
                unit="percentunit",
                limits=[
                    rules.above("ComplianceCacheMissesHigh", 'result="miss"', "prep_compliance_cache_requests_total")
                ],
            ),
            Series(
                'sum(rate(prep_compliance_cache_requests_total{result="miss"}[$__rate_interval]))'
                " / (sum(rate(prep_compliance_cache_requests_total{}[$__rate_interval])) > 0)"
                " or 0 * sum(rate(prep_compliance_cache_requests_total{}[$__rate_interval]))",
                "misses",
            ),
            share=True,
        ),
    ]


def _logins(rules: Rules) -> list[Panel]:
    return [
        trend(
            About("Logins tried", "A second, with whatever outcome.", NO_LOGINS, unit="ops"),
            Series("max(rate(prep_security_logins_total{}[$__rate_interval]))", "tried"),
        ),
        trend(
            About(
                "Logins refused, by reason",
                "A second. Many unknown users or second factors are SuspiciousLogins.",
                NO_LOGINS,
                unit="ops",
            ),
            Series("max by (reason) (rate(prep_security_logins_failed_total{}[$__rate_interval]))", "{{reason}}"),
            stacked=True,
        ),
        trend(
            About(
                "Accounts locked in 15 minutes",
                "Accounts that were locked.",
                NO_LOGINS,
                limits=[rules.above("AccountsLocked", "prep_security_account_locks_total", "unless")],
            ),
            Series("max(increase(prep_security_account_locks_total{}[15m]))", "locked"),
        ),
        trend(
            About(
                "Sessions",
                "Sessions in Redis. Half of them gone within 15 minutes is SessionLoss.",
                "No session store is configured (collectors.redis.servers.<name>.sessions).",
            ),
            Series("max(service:redis_sessions:max{})", "sessions"),
        ),
    ]


def _counting() -> list[Panel]:
    empty = "The exporter is not scraped (ExporterDown)."
    return [
        trend(
            About(
                "Catching up",
                "1 while counters hold a jump of rows from a time in which nobody counted; rules leave them out meanwhile.",
                empty,
                unit="none",
            ),
            Series("max by (collector) (collector:cursor_catching_up:max{})", "{{collector}}"),
            span=12,
            share=True,
        ),
        trend(
            About(
                "Rows may be missed",
                "1 while a transaction is open for longer than the cursor looks back (CursorOverlapCut).",
                empty,
                unit="none",
            ),
            Series("max by (collector) (collector:cursor_overlap_cut:max{})", "{{collector}}"),
            span=12,
            share=True,
        ),
    ]
