"""Remediation: what the automation did, refused and proved, and whether it may be trusted."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.limits import Rules
from dashboards.parts import UP_DOWN, About, Panel, Row, Series, alerts, board, chosen, number, trend

DOWN = "The remediator is not scraped: nothing is healed (RemediatorDown)."


def build(rules: Rules) -> Dashboard:
    """The dashboard of http://localhost:3001/d/remediation."""
    rows = [
        Row("Can it act?", _health(rules)),
        Row(
            "What is wrong now", [alerts('service="remediator"', "No alert fires for the remediator itself."), _open()]
        ),
        Row("What it did, refused and proved", _work()),
        Row("How long it takes", _times(), collapsed=True),
        Row("The same again, and the automation's own budget", _trust(), collapsed=True),
        Row("Its intake and journal", _intake(rules), collapsed=True),
    ]
    says = (
        "What the automation did, refused and proved, how long it took, and whether it still has a budget of its own."
    )
    return board("remediation", "Remediation", says, rows, since="now-24h")


def _health(rules: Rules) -> list[Panel]:
    return [
        number(
            About(
                "Remediator",
                "Whether Prometheus can scrape it (RemediatorDown).",
                "Prometheus has no such target (RemediatorDown).",
            ),
            Series('max(up{job="prep-remediator"})'),
            words=UP_DOWN,
        ),
        chosen(
            About(
                "It may",
                "The mode in force: shadow only tells what it would do, approve asks a person first, auto acts.",
                DOWN,
            ),
            Series("prep_remediator_mode{} == 1", "{{mode}}"),
        ),
        number(
            About(
                "Pauses",
                "Pauses that hold; somebody must end them (RemediatorPaused after two hours).",
                DOWN,
                limits=[rules.above("RemediatorPaused", "prep_remediator_paused")],
            ),
            Series("max(prep_remediator_paused{})"),
        ),
        number(
            About(
                "Doubts",
                "Attempts whose end is unknown. Nothing more is done to their targets until a person has looked.",
                DOWN,
                limits=[rules.above("RemediatorDoubtsOpen", "prep_remediator_doubts_open")],
            ),
            Series("max(prep_remediator_doubts_open{})"),
        ),
        number(
            About(
                "Waiting for a yes",
                "Questions that wait for a person: the console has them.",
                DOWN,
                limits=[rules.above("RemediatorApprovalsWaiting", "prep_remediator_approvals_waiting")],
            ),
            Series("max(prep_remediator_approvals_waiting{})"),
        ),
        number(
            About(
                "Storm",
                "While too much goes wrong at once, nothing is begun and people are told once (RemediationStorm).",
                DOWN,
            ),
            Series("max(prep_remediator_storm{})"),
            words={"0": ("no", "green"), "1": ("HOLDS", "red")},
        ),
    ]


def _open() -> Panel:
    return trend(
        About("Open episodes", "Alerts on a target that fire, or whose remediation is not proven yet.", DOWN),
        Series("max(prep_remediator_episodes_open{})", "open"),
    )


def _work() -> list[Panel]:
    return [
        trend(
            About("Done", "Attempts in 5 minutes, by action and how they ended.", DOWN),
            Series(
                "sum by (action, result) (increase(prep_remediator_attempts_total{}[5m])) > 0 or 0 * sum(prep_remediator_episodes_open{})",
                "{{action}} {{result}}",
            ),
            stacked=True,
        ),
        trend(
            About(
                "Refused", "Decisions not to act in 5 minutes, by reason: docs/runbook-format.md has them all.", DOWN
            ),
            Series(
                "sum by (reason) (increase(prep_remediator_refused_total{}[5m])) > 0 or 0 * sum(prep_remediator_episodes_open{})",
                "{{reason}}",
            ),
            stacked=True,
        ),
        trend(
            About("Proven", "Verdicts in 5 minutes. unknown is not fixed: without samples nothing is proven.", DOWN),
            Series("sum by (verdict) (increase(prep_remediator_verdicts_total{}[5m]))", "{{verdict}}"),
            stacked=True,
        ),
        trend(
            About("Handed over to people", "Episodes in 5 minutes, by the alert that was posted for them.", DOWN),
            Series(
                "sum by (alert) (increase(prep_remediator_handed_over_total{}[5m])) or 0 * sum(prep_remediator_episodes_open{})",
                "{{alert}}",
            ),
            stacked=True,
        ),
        trend(
            About(
                "What a shadow would have done",
                "In 5 minutes, by action. Read it for a week before you set the mode to auto.",
                DOWN,
            ),
            Series(
                "sum by (action) (increase(prep_remediator_would_act_total{}[5m])) > 0 or 0 * sum(prep_remediator_episodes_open{})",
                "{{action}}",
            ),
            stacked=True,
        ),
        trend(
            About("Doubts settled", "In 5 minutes, by what the target or a person said became of them.", DOWN),
            Series("sum by (settlement) (increase(prep_remediator_settled_total{}[5m]))", "{{settlement}}"),
            stacked=True,
        ),
    ]


def _times() -> list[Panel]:
    return [
        trend(
            About(
                "From the alert to the intent",
                "The time within which 50 and 95 of 100 episodes of the last hour came to their first intent, settle time included; "
                "0 while there was none.",
                DOWN,
                unit="s",
            ),
            *[
                Series(
                    f"histogram_quantile({share}, sum by (le) (increase(prep_remediator_webhook_to_intent_seconds_bucket{{}}[1h]))) >= 0"
                    " or 0 * sum(prep_remediator_episodes_open{})",
                    f"{words} within",
                )
                for share, words in ((0.95, "95 %"), (0.5, "50 %"))
            ],
            span=12,
        ),
        trend(
            About(
                "Intake: from the request to the answer",
                "The time within which 95 of 100 deliveries were stored and answered; 0 while there were none.",
                DOWN,
                unit="s",
            ),
            Series(
                "histogram_quantile(0.95, sum by (le) (rate(prep_remediator_intake_duration_seconds_bucket{}[$__rate_interval]))) >= 0"
                " or 0 * sum(prep_remediator_episodes_open{})",
                "95 % within",
            ),
            span=12,
        ),
    ]


def _trust() -> list[Panel]:
    return [
        trend(
            About(
                "Proven fixed, of all verdicts of a day",
                "Share of the last day's verdicts that are fixed, by runbook; a runbook without a verdict is not shown, 1 while none has any.",
                DOWN,
                unit="percentunit",
            ),
            Series(
                'sum by (runbook) (increase(prep_remediator_verdicts_total{verdict="fixed"}[1d]))'
                " / (sum by (runbook) (increase(prep_remediator_verdicts_total{}[1d])) > 0)"
                " or on () 1 + 0 * sum(prep_remediator_episodes_open{})",
                "{{runbook}}",
            ),
            share=True,
        ),
        trend(
            About(
                "Only asks: runbooks without a budget",
                "1 while a runbook failed so often that it asks for approval (guards.budget_failures), until prepctl runbook:restore.",
                "No runbook is loaded.",
                unit="none",
            ),
            Series("max by (runbook) (prep_remediator_runbook_demoted{})", "{{runbook}}"),
            share=True,
        ),
        trend(
            About(
                "The same again",
                "Episodes of a day that were handed over because the same fix would have been needed again (RemediationRecurs): look for "
                "the root cause.",
                DOWN,
            ),
            Series(
                'sum(increase(prep_remediator_handed_over_total{alert="RemediationRecurs"}[1d])) or 0 * sum(prep_remediator_episodes_open{})',
                "recurred",
            ),
        ),
    ]


def _intake(rules: Rules) -> list[Panel]:
    return [
        trend(
            About("Deliveries", "Requests to the webhook a second, by how they ended.", DOWN, unit="reqps"),
            Series("sum by (result) (rate(prep_remediator_deliveries_total{}[$__rate_interval]))", "{{result}}"),
            stacked=True,
        ),
        trend(
            About(
                "Journal failures in 5 minutes",
                "Times that the journal could not be read or written: then no alert is taken.",
                DOWN,
                limits=[rules.above("RemediatorJournalFailing", "prep_remediator_journal_failures_total")],
            ),
            Series("sum(increase(prep_remediator_journal_failures_total{}[5m]))", "failures"),
        ),
        trend(
            About(
                "Last turn of the loop",
                "How long ago the engine's loop last turned.",
                DOWN,
                unit="s",
                limits=[rules.above("RemediatorStuck", "prep_remediator_loop_last_turn_timestamp_seconds")],
            ),
            Series("min(time() - prep_remediator_loop_last_turn_timestamp_seconds{})", "ago"),
        ),
        trend(
            About(
                "Overdue work",
                "How long the longest overdue work has been due; 0 when none is.",
                DOWN,
                unit="s",
                limits=[rules.above("RemediatorOverdue", "prep_remediator_oldest_due_timestamp_seconds")],
            ),
            Series(
                "max(time() - prep_remediator_oldest_due_timestamp_seconds{}) or 0 * sum(prep_remediator_episodes_open{})",
                "overdue",
            ),
        ),
    ]
