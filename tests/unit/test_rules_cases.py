"""Every alert is proven three times by promtool: it fires, it is silent just below, its series are gone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.rule_files import RULE_TESTS, RULES, alerts, case_groups, rules, run

KINDS = ("fires", "silent just below", "series gone")
ALERTS = alerts()


def cases(alert: str, kind: str) -> list[dict[str, Any]]:
    """The test groups named `ALERT: KIND ...` of all test files."""
    return [group for group in case_groups() if group["name"].startswith(f"{alert}: {kind}")]


def steps(text: str) -> int:
    """A promtool time such as `2m30s` in seconds."""
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def test_rules_are_valid_and_without_lint() -> None:
    """promtool finds neither a mistake nor a duplicate."""
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)


# Weeks of samples each: minutes where four of these run side by side.
@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_promtool_cases_hold(path: Path) -> None:
    """Each case gives exactly the alerts, labels and annotations that it says."""
    run("promtool", "test", "rules", path)


@pytest.mark.parametrize("alert", ALERTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_alert_has_its_three_cases(alert: str, kind: str) -> None:
    """A new alert without proof does not pass; each case asks for something."""
    found = cases(alert, kind)
    assert found, f"no promtool case is named '{alert}: {kind} ...'"
    for group in found:
        asked = [test for test in group.get("alert_rule_test", ()) if test["alertname"] == alert]
        mentioned = [test for test in group.get("promql_expr_test", ()) if alert in str(test)]
        assert asked or mentioned, f"'{group['name']}' asks nothing about {alert}"


@pytest.mark.parametrize("alert", ALERTS)
def test_fires_at_the_right_minute_with_everything(alert: str) -> None:
    """One evaluation earlier it is silent; then every label and annotation of the rule is expected."""
    group = cases(alert, "fires")[0]
    asked = [test for test in group["alert_rule_test"] if test["alertname"] == alert]
    firing = next(test for test in asked if test["exp_alerts"])
    for expected in firing["exp_alerts"]:
        assert any(
            expected["exp_labels"].items() >= rule["labels"].items() for rule in rules() if rule.get("alert") == alert
        )
        assert expected["exp_labels"]["service"], "from the rule's labels or from its expression"
        assert expected["exp_annotations"].keys() == ALERTS[alert]["annotations"].keys()
    if steps(firing["eval_time"]) > 0:
        silent = [steps(test["eval_time"]) for test in asked if not test["exp_alerts"]]
        assert steps(firing["eval_time"]) - 15 in silent, "no silent case one evaluation before the firing one"


@pytest.mark.parametrize("alert", sorted(ALERTS.keys() - {"Watchdog"}))
def test_silent_cases_feed_series_and_expect_nothing(alert: str) -> None:
    """Silence is worth something only where samples are there to be judged."""
    for group in cases(alert, "silent just below"):
        assert group["input_series"], group["name"]
        asked = [test for test in group.get("alert_rule_test", ()) if test["alertname"] == alert]
        assert all(not test["exp_alerts"] for test in asked), group["name"]


@pytest.mark.parametrize("alert", sorted(ALERTS.keys() - {"Watchdog"}))
def test_series_vanish_and_it_is_known_what_fires_then(alert: str) -> None:
    """Samples are there and then end; and a case says what fires in place of the alert, or that it does itself."""
    groups = cases(alert, "series gone")
    values = [str(series["values"]) for group in groups for series in group["input_series"]]
    assert any(re.search(r"\bstale\b|_(x\d+)?$", each) for each in values), f"nothing vanishes in any case of {alert}"
    said = [
        test["exp_samples"]
        for group in groups
        for test in group.get("promql_expr_test", ())
        if "ALERTS" in test["expr"]
    ]
    itself = [test["exp_alerts"] for group in groups for test in group.get("alert_rule_test", ())]
    assert any([*said, *itself]), f"no case of {alert} says what fires then"


def test_cases_name_only_alerts_that_exist() -> None:
    """A renamed alert takes its cases with it: promtool passes an empty expectation for an unknown name."""
    for group in case_groups():
        named = {test["alertname"] for test in group.get("alert_rule_test", ())}
        assert named <= ALERTS.keys(), f"{group['file']}: {group['name']}: {named - ALERTS.keys()}"
        assert group["name"].partition(":")[0] in ALERTS, f"{group['file']}: {group['name']}"


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule.get("alert") or rule["record"])
def test_expressions_follow_the_rules(rule: dict[str, Any]) -> None:
    """`job` stays on; names by level:metric:operations. What an expression may read is in test_rules_contract.py."""
    expr = rule["expr"]
    assert all("job" in labels for labels in re.findall(r"\bby\s*\(([^)]*)\)", expr)), "job must stay on"
    assert all("job" not in labels for labels in re.findall(r"\bwithout\s*\(([^)]*)\)", expr))
    if "record" in rule:
        assert re.fullmatch(r"[a-z_]+:[a-z0-9_]+:[a-z0-9_]+", rule["record"])


def test_nothing_keeps_firing_after_its_fault() -> None:
    """`keep_firing_for` would tell the remediator that a healed fault is still there."""
    assert [rule for rule in rules() if "keep_firing_for" in rule] == []
