"""Alertmanager's configuration: valid, tested to the last route, and nobody is ever left without a person."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.unit.rule_files import ALERTMANAGER, PEOPLE, ROOT, RULES, alerts, read, run

AMLINT = Path(sys.executable).parent / "amlint"
CONFIG = read(ALERTMANAGER)


def reached(labels: dict[str, str], config: Path = ALERTMANAGER) -> set[str]:
    """The receivers of a label set, as Alertmanager's own amtool tells."""
    pairs = [f"{name}={value}" for name, value in labels.items()]
    return set(run("amtool", "config", "routes", "test", f"--config.file={config}", *pairs).strip().split(","))


def label_sets() -> Iterator[dict[str, str]]:
    """What the rules make, and what nobody foresaw: severities known or not, with and without a runbook."""
    for name, rule in alerts().items():
        yield {"alertname": name, "environment": "production", **rule["labels"]}
    for level, runbook in product(("P0", "P1", "P2", "P3", "P4", "P9", "critical", "p1", ""), ("", "whatever")):
        yield {"alertname": "Foreign", "severity": level, "runbook": runbook}


def test_configuration_is_valid() -> None:
    """For Alertmanager itself, and for the linter that knows what it silently accepts."""
    run("amtool", "check-config", ALERTMANAGER)
    run(AMLINT, "check", "--strict", "--rules", ROOT / "alert-rules" / "*.rules.yml", ALERTMANAGER)


def test_routes_and_inhibition() -> None:
    """The cases of alertmanager/tests hold and reach every route."""
    cases = ROOT / "alertmanager" / "tests" / "routes.test.yml"
    run(AMLINT, "test", ALERTMANAGER, cases, "--fail-under", "100")


@pytest.mark.parametrize("labels", list(label_sets()), ids=lambda labels: "-".join(labels.values()))
def test_every_label_set_reaches_a_person(labels: dict[str, str]) -> None:
    """Whatever the labels: one receiver of people, the remediator for a runbook; the Watchdog's own alone."""
    receivers = reached({name: value for name, value in labels.items() if value})
    if labels["alertname"] == "Watchdog":
        assert receivers == {"watchdog"}
        return
    level = labels.get("severity", "")
    people = f"people-{level.lower()}" if level in ("P0", "P1", "P2", "P3", "P4") else "people-catch-all"
    assert receivers == ({people, "remediator"} if labels.get("runbook") else {people})


def test_the_remediator_comes_first_and_stops_nobody() -> None:
    """Every alert with a runbook, one group an alert, nothing cut off, and people all the same."""
    first = CONFIG["route"]["routes"][0]
    assert first["receiver"] == "remediator"
    assert first["matchers"] == ['runbook=~".+"']
    assert first["continue"] is True
    assert first["group_by"] == ["..."]
    (hook,) = next(item for item in CONFIG["receivers"] if item["name"] == "remediator")["webhook_configs"]
    token = {"type": "Bearer", "credentials_file": "/run/secrets/remediator_token"}
    assert hook == {
        "url": "http://remediator:11471/alertmanager",
        "max_alerts": 0,
        "send_resolved": True,
        "http_config": {"authorization": token},
    }


def test_the_last_route_catches_all() -> None:
    """The root is not asked again once a child with `continue` has matched."""
    last = CONFIG["route"]["routes"][-1]
    assert last == {"receiver": "people-catch-all"}


def test_inhibition_compares_labels_that_both_sides_must_have() -> None:
    """A label missing on both sides counts as equal: then a P1 would mute strangers."""
    for rule in CONFIG["inhibit_rules"]:
        for side in (rule["source_matchers"], rule["target_matchers"]):
            assert {'symptom=~".+"', 'service=~".+"', 'episode=""'} <= set(side)
        assert set(rule["equal"]) >= {"symptom", "service", "environment"}


def test_the_file_for_real_people_differs_in_its_people_only() -> None:
    """PagerDuty and Slack in place of the inbox: same routes, same names, as valid and as clean as ours."""
    real = read(PEOPLE)
    assert {key: value for key, value in real.items() if key != "receivers"} == {
        key: value for key, value in CONFIG.items() if key != "receivers"
    }
    assert [item["name"] for item in real["receivers"]] == [item["name"] for item in CONFIG["receivers"]]
    assert "inbox" not in str(real["receivers"])
    run("amtool", "check-config", PEOPLE)
    run(AMLINT, "check", "--strict", PEOPLE)


def test_prometheus_scrapes_and_tells_what_the_rules_need() -> None:
    """Every job that a rule names is scraped; the environment goes out with each alert."""
    path = ROOT / "prometheus" / "prometheus.yml"
    run("promtool", "check", "config", path)
    config = read(path)
    assert config["global"]["external_labels"] == {"environment": "production"}
    assert {job["job_name"] for job in config["scrape_configs"]} == {
        "prep-exporter",
        "prep-services",
        "prep-remediator",
        "prep-switch",
        "prometheus",
        "alertmanager",
    }
    services = next(job for job in config["scrape_configs"] if job["job_name"] == "prep-services")
    assert {entry["labels"]["service"] for entry in services["static_configs"]} == {
        "payments",
        "python-compliance",
        "load",
    }
    assert config["rule_files"] == ["rules/*.rules.yml"]
    assert RULES
