"""Faults become notifications: the demo profile in a real Prometheus and a real Alertmanager.

The tests share one stack and follow each other; each leaves the platform as healthy as it found it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.alerting_stack import TOKEN, Platform, Scraped, Stack, Told, servers
from tests.support.servers import PrometheusServer, Run

WITHIN = 25.0
"""Seconds from a fault that can be measured to its notification, on which the demo's drills count."""
WARM = 12.0
"""Seconds of health before the first fault."""


@pytest.fixture(scope="module")
def stack(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Prometheus, Alertmanager, the scraped services and the recorder, warm and healthy."""
    platform = Platform()
    with (
        Told() as told,
        Scraped(platform.exporter) as exporter,
        Scraped(platform.compliance) as compliance,
        Scraped(lambda: {"prep_http_requests_in_flight": 0.0}) as other,
    ):
        folder = tmp_path_factory.mktemp("profile")
        alertmanager, prometheus = servers(run, folder, told, exporter, compliance, other)
        with alertmanager, prometheus:
            prometheus.wait_for(f"prep_postgres_up offset {WARM:g}s", deadline=60.0)
            yield Stack(platform, told, prometheus, alertmanager)


def firing(prometheus: PrometheusServer) -> set[str]:
    """Names of the alerts that fire now."""
    return {alert["labels"]["alertname"] for alert in prometheus.alerts() if alert["state"] == "firing"}


def targets(prometheus: PrometheusServer, alertname: str) -> list[dict[str, str]]:
    """As the remediator looks: the server's own expression of the rule, evaluated; each result's labels."""
    rules = [rule for group in prometheus.api("rules?type=alert")["groups"] for rule in group["rules"]]
    (expression,) = [rule["query"] for rule in rules if rule["name"] == alertname]
    return [
        {name: value for name, value in sample.labels.items() if name != "__name__"}
        for sample in prometheus.query(expression)
    ]


def test_health_is_silent_but_for_the_watchdog(stack: Stack) -> None:
    """Nothing else fires while all is well, and since the start nobody was told of anything else."""
    assert firing(stack.prometheus) == {"Watchdog"}
    assert {request.path for request in stack.told.snapshot()} <= {"/watchdog"}, stack.told.all_since(0.0)


def test_slow_checks_reach_the_remediator_and_people(stack: Stack) -> None:
    """The handbook's symptom, in time, with the remediator's token and what it pins; then the way back."""
    stack.platform.count()
    stack.platform.fast, stack.platform.slow, began = 0.0, 2.0, time.time()
    told = stack.told.wait("/alertmanager", "ComplianceChecksSlow", began, WITHIN)
    assert told.request.headers["authorization"] == f"Bearer {TOKEN}"
    assert (told.request.json()["version"], told.request.json()["truncatedAlerts"]) == ("4", 0)
    assert told.alert["labels"] == {
        "alertname": "ComplianceChecksSlow", "environment": "demo", "job": "prep-exporter", "severity": "P2",
        "component": "compliance", "symptom": "compliance-slow", "service": "python-compliance",
        "runbook": "compliance-engine-slow",
    }  # fmt: skip
    assert told.alert["annotations"]["response_time"] == "< 1 hour"
    page = stack.told.wait("/people-p2", "ComplianceChecksSlow", began, WITHIN)
    assert page.alert["labels"] == told.alert["labels"]
    assert "authorization" not in page.request.headers, "the remediator's token is nobody else's"
    seen = targets(stack.prometheus, "ComplianceChecksSlow")
    assert seen == [{"job": "prep-exporter", "service": "python-compliance"}]

    stack.platform.count()
    stack.platform.fast, stack.platform.slow, healed = 10.0, 0.0, time.time()
    for path in ("/alertmanager", "/people-p2"):
        stack.told.wait(path, "ComplianceChecksSlow", healed, 60.0, status="resolved")


def test_runaway_query_reaches_the_remediator_and_people(stack: Stack) -> None:
    """Both forms of the database's symptom, in time; people have them in one notification, not in two."""
    stack.platform.count()
    stack.platform.long_queries, stack.platform.cores, began = 1, 0.98, time.time()
    for alertname in ("DatabaseLongRunningQuery", "DatabaseCpuHigh"):
        labels = stack.told.wait("/alertmanager", alertname, began, WITHIN).alert["labels"]
        assert labels.items() >= {"service": "postgres", "runbook": "high-database-cpu"}.items()
        assert labels["environment"] == "demo"
        (target,) = targets(stack.prometheus, alertname)
        assert target.items() >= {"service": "postgres", "job": "prep-exporter"}.items()
    page = stack.told.wait("/people-p2", "DatabaseCpuHigh", began, WITHIN)
    assert {alert["labels"]["alertname"] for alert in page.request.json()["alerts"]} == {
        "DatabaseCpuHigh", "DatabaseLongRunningQuery",
    }  # fmt: skip
    stack.platform.count()
    stack.platform.long_queries, stack.platform.cores = 0, 0.3


def test_slow_checks_are_seen_while_the_database_cannot_be_asked(stack: Stack) -> None:
    """The exporter's source is gone: the service's own histogram fires the same alert for the same target."""
    stack.platform.count()
    stack.platform.compliance_source, began = False, time.time()
    stack.platform.fast, stack.platform.slow = 0.0, 2.0
    stack.told.wait("/alertmanager", "ComplianceChecksSlow", began, WITHIN, job="prep-services")
    seen = targets(stack.prometheus, "ComplianceChecksSlow")
    assert seen == [{"job": "prep-services", "service": "python-compliance"}]


def test_stalled_checks_mute_the_slow_ones(stack: Stack) -> None:
    """Now none ends at all: the P1 form is told; it mutes its P2 form, and nobody else."""
    stack.platform.count()
    stack.platform.slow, began = 0.0, time.time()
    stack.told.wait("/people-p1", "ComplianceStalled", began, 50.0, job="prep-services")
    ends = datetime.now(UTC) + timedelta(minutes=1)
    symptom = {"severity": "P2", "symptom": "compliance-slow", "environment": "demo"}
    here, elsewhere = {**symptom, "service": "python-compliance"}, {**symptom, "service": "other"}
    own = {**here, "alertname": "RemediationFailed", "episode": "0123"}
    stack.alertmanager.post({**here, "alertname": "Here"}, {**elsewhere, "alertname": "Elsewhere"}, own, endsAt=ends)
    stack.told.wait("/people-p2", "Elsewhere", began, 50.0)
    stack.told.wait("/people-p2", "RemediationFailed", began, 10.0)
    assert stack.alertmanager.wait_alert(alertname="Here")["status"]["inhibitedBy"]
    assert stack.told.deliveries("/people-p2", "Here", began) == []
    stack.platform.count()
    stack.platform.compliance_source, stack.platform.fast = True, 10.0


def test_dead_exporter_reaches_people_and_not_the_remediator(stack: Stack) -> None:
    """No runbook, so no remediator; P1 by its own route."""
    stack.platform.exporter_up, began = False, time.time()
    page = stack.told.wait("/people-p1", "ExporterDown", began, WITHIN)
    assert page.alert["labels"]["job"] == "prep-exporter"
    assert stack.told.deliveries("/alertmanager", "ExporterDown", began) == []
    stack.platform.exporter_up = True


def test_alerts_that_nobody_foresaw_reach_people(stack: Stack) -> None:
    """Posted by somebody else: unknown severity, with a runbook and without; and the remediator's own."""
    began, ends = time.time(), datetime.now(UTC) + timedelta(minutes=5)
    stack.alertmanager.post(
        {"alertname": "Stranger", "severity": "critical", "environment": "demo"},
        {"alertname": "StrangeRunbook", "severity": "page", "runbook": "none", "environment": "demo"},
        {
            "alertname": "RemediationInDoubt", "severity": "P1", "component": "remediator", "episode": "0123",
            "symptom": "remediation-in-doubt", "service": "python-compliance", "environment": "demo",
        },
        endsAt=ends,
    )  # fmt: skip
    stack.told.wait("/people-catch-all", "Stranger", began, 10.0)
    stack.told.wait("/people-catch-all", "StrangeRunbook", began, 10.0)
    stack.told.wait("/alertmanager", "StrangeRunbook", began, 10.0)
    stack.told.wait("/people-p1", "RemediationInDoubt", began, 10.0)
    assert stack.told.deliveries("/alertmanager", "RemediationInDoubt", began) == []


def test_the_watchdog_has_reached_its_receiver_and_nobody_else(stack: Stack) -> None:
    """Within its time: what fires before Prometheus has found Alertmanager is sent again after a minute."""
    stack.told.wait("/watchdog", "Watchdog", 0.0, 90.0)
    others = {request.path for request in stack.told.snapshot()} - {"/watchdog"}
    assert all(stack.told.deliveries(path, "Watchdog", 0.0) == [] for path in others)
