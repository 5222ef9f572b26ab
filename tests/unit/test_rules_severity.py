"""The handbook's severity table, the rules, the routes and the pages say the same."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.unit.rule_files import ALERTMANAGER, ROOT, alerts, case_groups, read, severity

ALERTS = alerts()
TABLE = severity()
ROUTE = read(ALERTMANAGER)["route"]
TIMING = ("group_wait", "group_interval", "repeat_interval")
OWN_ALERTS = (
    "RemediationBreakGlass",
    "RemediationFailed",
    "RemediationInDoubt",
    "RemediationNeedsApproval",
    "RemediationNeedsPeople",
    "RemediationRecurs",
    "RemediationStorm",
    "RemediatorDeadLetter",
)
SERVICE_BY_SERIES = {name for name, rule in ALERTS.items() if "service" not in rule["labels"]}
PAGES = sorted({*ALERTS, *OWN_ALERTS})


def response_time(level: str) -> str:
    """What the table says for a severity label's value."""
    return str((TABLE["watchdog"] if level == "none" else TABLE["levels"][level])["respond"])


@pytest.mark.parametrize("alert", ALERTS)
def test_labels(alert: str) -> None:
    """Every alert says how bad, what part, which symptom, at which service; no label holds a template.

    An alert on many services has the label `service` from its expression; its firing case shows it.
    """
    labels = ALERTS[alert]["labels"]
    assert labels.keys() >= {"severity", "component", "symptom"}
    assert "service" in labels or re.search(r'"service"|\bservice(_[a-z]+)*:', ALERTS[alert]["expr"])
    assert labels.keys() <= {"severity", "component", "symptom", "service", "runbook", "hold"}
    if "hold" in labels:
        assert "runbook" in labels, "there is nothing to wait for"
        assert labels["hold"] == TABLE["levels"][labels["severity"]].get("hold"), "no route waits so long"
    assert labels["severity"] in {*TABLE["levels"], "none"}
    assert all(value and "{{" not in value for value in labels.values())


@pytest.mark.parametrize("alert", sorted(SERVICE_BY_SERIES))
def test_service_comes_with_the_series(alert: str) -> None:
    """Whoever is told of the alert is told of which service: it fires with the label in each of its cases."""
    asked = [test for group in case_groups() for test in group.get("alert_rule_test", ()) if test["alertname"] == alert]
    fired = [expected["exp_labels"] for test in asked for expected in test["exp_alerts"]]
    assert fired
    assert all(labels.get("service") for labels in fired)


@pytest.mark.parametrize("alert", ALERTS)
def test_annotations(alert: str) -> None:
    """What, how bad with a humanized value, what to do first, how soon, and where to read on."""
    notes = ALERTS[alert]["annotations"]
    own = {"evaluated_at"} if alert == "Watchdog" else set()  # for the dead man's switch
    assert notes.keys() == {"summary", "description", "response_time", "runbook_url", "dashboard_url"} | own
    assert re.fullmatch(r"[A-Z].*[.]", notes["summary"]), "a sentence"
    assert "{{" not in notes["summary"], "the summary carries no value, so that it groups"
    assert re.search(r"\{\{ \$value \| humanize\w* \}\}", notes["description"])
    assert re.search(r"\b[Ff]irst\b", notes["description"]), "says what to do first"
    assert notes["response_time"] == response_time(ALERTS[alert]["labels"]["severity"])
    assert notes["runbook_url"] == f"http://localhost:11471/alerts/{alert}"
    assert notes["dashboard_url"].startswith("http://localhost:3001/d/")


def test_both_forms_of_a_symptom_share_what_inhibition_compares() -> None:
    """A symptom means one target: else its P1 form would not mute its P2 form, or would mute a stranger."""
    seen: dict[str, set[tuple[str, str]]] = {}
    for rule in ALERTS.values():
        labels = rule["labels"]
        # "each": from the expression, so both forms carry the one that they are about.
        seen.setdefault(labels["symptom"], set()).add((labels.get("service", "each"), labels["component"]))
    assert all(len(targets) == 1 for targets in seen.values()), seen


@pytest.mark.parametrize("alert", [name for name, rule in ALERTS.items() if "runbook" in rule["labels"]])
def test_runbook_exists_and_knows_the_alert(alert: str) -> None:
    """The label names a runbook that matches this alert, and no alert of that runbook lacks the label."""
    book = read(ROOT / "runbooks" / f"{ALERTS[alert]['labels']['runbook']}.yml")
    assert alert in book["match"]["alertnames"]


@pytest.mark.parametrize("path", sorted((ROOT / "runbooks").glob("*.yml")), ids=lambda path: path.stem)
def test_every_alert_a_runbook_waits_for_can_come(path: Any) -> None:
    """A runbook for an alert that no rule makes would never run."""
    book = read(path)
    for name in book["match"]["alertnames"]:
        labels = ALERTS[name]["labels"]
        assert labels["runbook"] == book["name"]
        assert labels.items() >= book["match"].get("labels", {}).items()


@pytest.mark.parametrize("level", TABLE["levels"])
def test_routes_have_the_tables_timing(level: str) -> None:
    """Who waits how long is written once and copied right."""
    (route,) = [route for route in ROUTE["routes"] if route.get("matchers") == [f'severity="{level}"']]
    row = TABLE["levels"][level]
    assert {key: route[key] for key in ("receiver", *TIMING)} == {key: row[key] for key in ("receiver", *TIMING)}
    assert route.get("active_time_intervals", []) == ([row["hours"]] if row["hours"] else [])


def test_special_routes_have_the_tables_timing() -> None:
    """The remediator at once and first, the Watchdog each minute, the catch-all at the root."""
    remediator, watchdog = ROUTE["routes"][0], ROUTE["routes"][1]
    for route, row in (
        (remediator, TABLE["remediator"]),
        (watchdog, TABLE["watchdog"]),
        (ROUTE, TABLE["catch_all"]),
    ):
        assert {key: route[key] for key in ("receiver", *TIMING)} == {key: row[key] for key in ("receiver", *TIMING)}
    assert f'severity="{TABLE["watchdog"]["severity"]}"' in watchdog["matchers"]


def test_hours_are_the_tables() -> None:
    """P4 is told in office hours of the on-call's own time zone, not of UTC."""
    intervals = {item["name"]: item["time_intervals"] for item in read(ALERTMANAGER)["time_intervals"]}
    assert intervals == {
        name: [
            {
                "weekdays": [row["weekdays"]],
                "times": [{"start_time": row["times"][0], "end_time": row["times"][1]}],
                "location": row["location"],
            }
        ]
        for name, row in TABLE["hours"].items()
    }


@pytest.mark.parametrize("alert", PAGES)
def test_every_alert_has_its_page(alert: str) -> None:
    """Also those that the remediator posts itself."""
    text = (ROOT / "docs" / "alerts" / f"{alert}.md").read_text(encoding="utf-8")
    assert re.findall(r"^#+ .*$", text, re.MULTILINE) == [
        f"# {alert}",
        "## Meaning",
        "## Impact",
        "## Diagnosis",
        "## Mitigation",
    ]
    assert all(part.strip() for part in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:])


def test_index_lists_every_page_as_the_rules_have_it() -> None:
    """docs/alerts/README.md: level, time and runbook of each rule, and nothing that is not there."""
    text = (ROOT / "docs" / "alerts" / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[(\w+)\]\(\1\.md\)", text, re.MULTILINE)) == PAGES
    assert sorted(path.stem for path in (ROOT / "docs" / "alerts").glob("*.md") if path.stem != "README") == PAGES
    for name, rule in ALERTS.items():
        labels = rule["labels"]
        row = f"| [{name}]({name}.md) | {labels['severity']} | {response_time(labels['severity'])} | "
        assert row + f"{labels.get('runbook', '-')} | {labels['component']} |" in text
