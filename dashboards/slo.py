"""Objectives: how much of each error budget is left, in percent and in events, how fast it burns, and is any near its end?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.limits import RULES, Limit, LimitError, Rules
from dashboards.parts import About, Panel, Row, Series, alerts, board, number, trend

OBJECTIVES = RULES / "slo.yml"
BLIND = "No objective has events to reckon with: PaymentsObjectiveBlind and its like tell which."
# Budgets are reckoned from quarters of an hour. Before the first one has ended, all there is lies within the last hour.
LEFT = (
    "slo:error_budget_left:ratio{} or on (slo)"
    " (1 - slo:bad_events_per_events:ratio1h{} / on (slo, service) (1 - slo:objective:ratio{}))"
)
EVENTS = (
    "slo:error_budget_left:events{} or on (slo)"
    " ((1 - slo:objective:ratio{}) * on (slo, service) slo:events:increase1h{} - on (slo, service) slo:bad_events:increase1h{})"
)


def build(rules: Rules, objectives: Path = OBJECTIVES) -> Dashboard:
    """The dashboard of http://localhost:3001/d/slo."""
    table = yaml.safe_load(objectives.read_text(encoding="utf-8"))["objectives"]
    rows = [
        Row("Is any service near its budget?", _health(rules, sorted(table))),
        Row(
            "What is wrong now",
            [
                alerts('alertname=~".*Budget.*|.*Objective.*"', "No budget burns and none is nearly used up."),
                _left(rules, sorted(table)),
            ],
        ),
        Row(
            "How fast each budget burns: 1 uses up just all of it",
            [_burn(rules, slo, each) for slo, each in table.items()],
        ),
        Row("Events behind the objectives", _events(), collapsed=True),
    ]
    says = "How much of each error budget is left, in percent and in events, and how fast it burns. docs/slo.md reckons an example."
    return board("slo", "Objectives and Error Budgets", says, rows, since="now-7d")


def _low(rules: Rules, slos: list[str]) -> list[Limit]:
    """The share at which a budget is low: one for all, and no panel of all could show more."""
    found = {rules.below("ErrorBudgetLow", f'slo:error_budget_left:ratio{{slo="{slo}"}}') for slo in slos}
    if len(found) != 1:
        raise LimitError(f"ErrorBudgetLow has more than one number: {sorted(each.value for each in found)}")
    return list(found)


def _health(rules: Rules, slos: list[str]) -> list[Panel]:
    low = _low(rules, slos)
    return [
        number(
            About(
                "The least that is left of a budget",
                "Of all objectives the one that is worst off; below 0 its objective is missed.",
                BLIND,
                unit="percentunit",
                limits=low,
            ),
            Series(f"min({LEFT})"),
            span=6,
            decimals=1,
        ),
        number(
            About(
                "Budgets that are low",
                f"Objectives with less than {low[0].value:.0%} of their budget left (ErrorBudgetLow).",
                BLIND,
            ),
            Series(f"count(({LEFT}) < {low[0].value:g}) or 0 * count(slo:objective:ratio{{}})"),
            words={"0": ("none", "green")},
            span=6,
        ),
        number(
            About(
                "Left of each budget",
                "What is left of each objective's error budget of 30 days, or since it is watched.",
                BLIND,
                unit="percentunit",
                limits=low,
            ),
            Series(f"max by (slo) ({LEFT})", "{{slo}}"),
            span=12,
            decimals=1,
        ),
    ]


def _left(rules: Rules, slos: list[str]) -> Panel:
    return trend(
        About(
            "Left of each budget, over time",
            "A line that falls steeply is an incident, one that falls slowly a habit.",
            BLIND,
            unit="percentunit",
            limits=_low(rules, slos),
        ),
        Series(f"max by (slo) ({LEFT})", "{{slo}}"),
        share=True,
    )


def _burn(rules: Rules, slo: str, objective: dict[str, Any]) -> Panel:
    fast, slow = objective["alerts"]["fast"]["name"], objective["alerts"]["slow"]["name"]
    where = f'slo="{slo}"'
    limits = [
        rules.above(fast, f"slo:bad_events_per_events:ratio1h{{{where}}}"),
        rules.above(slow, f"slo:bad_events_per_events:ratio1d{{{where}}}"),
    ]

    def burn(window: str) -> str:
        budget = f"on (slo, service) (1 - slo:objective:ratio{{{where}}})"
        return f"slo:bad_events_per_events:ratio{window}{{{where}}} / {budget}"

    # No events burn nothing.
    none = f"max by (slo, service) (0 * slo:events:increase1h{{{where}}})"
    return trend(
        About(
            f"Burn: {objective['title']}",
            "How many times faster than allowed the budget is used, over an hour and over a day.",
            "No event was counted in that time.",
            limits=limits,
        ),
        Series(f"{burn('1h')} or {none}", "an hour"),
        # Before the first quarter of an hour has ended there is no day to reckon with.
        Series(f"{burn('1d')} or {burn('1h')} or {none}", "a day"),
    )


def _events() -> list[Panel]:
    return [
        number(
            About(
                "Events left",
                "How many more bad events each budget bears within its 30 days; below 0 it bears none.",
                BLIND,
            ),
            Series(f"max by (slo) ({EVENTS})", "{{slo}}"),
            span=24,
            decimals=0,
        ),
        trend(
            About("Events in an hour", "What each objective counts.", BLIND),
            Series("max by (slo) (slo:events:increase1h{})", "{{slo}}"),
            span=12,
        ),
        trend(
            About("Bad events in an hour", "What uses up each budget.", BLIND),
            Series("max by (slo) (slo:bad_events:increase1h{})", "{{slo}}"),
            span=12,
        ),
    ]
