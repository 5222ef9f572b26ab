"""The shipped routes in a real Alertmanager: hours, holds, silences, a dead remediator, and what people are sent.

Configuration as shipped, but for addresses and for times that a test says it shortens.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from tests.integration.alerting_stack import Told
from tests.support.servers import AlertmanagerServer, Run, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
Change = Callable[[dict[str, Any]], None]
TARGET = {"service": "postgres", "component": "postgres", "environment": "production"}


@pytest.fixture
def told() -> Iterator[Told]:
    """The remediator and people, in one."""
    with Told() as recorder:
        yield recorder


@contextmanager
def alertmanager(
    run: Run, tmp_path: Path, told: Told, *changes: Change, file: str = "alertmanager.yml", remediator: str = ""
) -> Iterator[AlertmanagerServer]:
    """A running one with the shipped file. `remediator`: its host:port, by default the recorder's."""
    text = (ROOT / "alertmanager" / file).read_text()
    at = told.url.removeprefix("http://")
    text = text.replace("remediator:11471", remediator or at)
    for name in ("inbox:8025", "switch:8026"):
        text = text.replace(name, at)
    for name in ("remediator_token", "switch_token", "pagerduty_outage_key", "pagerduty_high_key", "pagerduty_low_key"):
        secret = tmp_path / name
        secret.write_text(f"key-of-{name}")
        text = text.replace(f"/run/secrets/{name}", str(secret))
    for name in ("slack_incidents_url", "slack_digest_url"):
        secret = tmp_path / name
        secret.write_text(f"{told.url}/{name}")
        text = text.replace(f"/run/secrets/{name}", str(secret))
    config = copy.deepcopy(yaml.safe_load(text))
    for change in changes:
        change(config)
    with AlertmanagerServer(run, config) as server:
        yield server


def routes(config: dict[str, Any], receiver: str) -> list[dict[str, Any]]:
    return [route for route in config["route"]["routes"] if route["receiver"] == receiver]


def quick(config: dict[str, Any]) -> None:
    """P2 after a second, each second; what may hold waits for six."""
    for route in routes(config, "people-p2"):
        route |= {"group_wait": "6s" if "hold" in str(route["matchers"]) else "1s", "group_interval": "1s"}
    routes(config, "people-p1")[0] |= {"group_wait": "1s"}


def later() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=10)


def labels(name: str, severity: str, symptom: str, **more: str) -> dict[str, str]:
    return {"alertname": name, "severity": severity, "symptom": symptom, **TARGET, **more}


def at_first(told: Told, path: str, name: str) -> float | None:
    """When it first came, UNIX seconds."""
    return next((one.request.at for one in told.deliveries(path, name, 0.0)), None)


@pytest.mark.timeout(240)
def test_p4_waits_for_its_window_and_leaves_when_it_opens(run: Run, tmp_path: Path, told: Told) -> None:
    """Outside of its hours nobody is told; at the opening it leaves by the next flush. P1 does not care.

    The window opens with one of the next minutes of the place's own time; flushes are each 5 s, not each 5 minutes.
    """
    zone = ZoneInfo("America/Los_Angeles")
    opening = (datetime.now(zone) + timedelta(seconds=80)).replace(second=0, microsecond=0)

    def soon(config: dict[str, Any]) -> None:
        (hours,) = config["time_intervals"]
        (window,) = hours["time_intervals"]
        assert window["location"] == str(zone)
        window["weekdays"] = [f"{opening:%A}".lower()]
        window["times"] = [{"start_time": f"{opening:%H:%M}", "end_time": "24:00"}]
        routes(config, "people-p4")[0] |= {"group_wait": "1s", "group_interval": "5s"}

    with alertmanager(run, tmp_path, told, soon, quick) as server:
        server.post(labels("ImageDrift", "P4", "drift"), labels("RedisDown", "P1", "redis-down"), endsAt=later())
        told.wait("/people-p1", "RedisDown", 0.0, 10.0)
        while time.time() < opening.timestamp() - 0.5:
            assert told.deliveries("/people-p4", "ImageDrift", 0.0) == [], "told outside of its hours"
            time.sleep(0.5)
        came = told.wait("/people-p4", "ImageDrift", 0.0, 20.0).request.at
    assert 0.0 <= came - opening.timestamp() <= 5.0 + 2.0


def test_a_p1_mutes_nobody_in_another_symptom_firing_or_silenced(run: Run, tmp_path: Path, told: Told) -> None:
    """Its own P2 form at its own target is muted; another symptom, another target, and the remediator's word are not."""
    with alertmanager(run, tmp_path, told, quick) as server:
        for silenced in (False, True):
            told.clear()
            if silenced:
                server.silence(alertname="DatabaseCpuSaturated")
            mark = str(silenced)
            server.post(labels("DatabaseCpuSaturated", "P1", "database-slow"), endsAt=later())
            server.wait_alert(alertname="DatabaseCpuSaturated")
            server.post(
                labels("DatabaseCpuHigh", "P2", "database-slow"),
                labels(f"Connections{mark}", "P2", f"database-connections-{mark}"),
                labels(f"Elsewhere{mark}", "P2", "database-slow", service=f"reporting-{mark}"),
                labels(f"Remediation{mark}", "P2", "database-slow", episode=f"0123{mark}"),
                labels(f"Other{mark}", "P1", f"redis-down-{mark}"),
                endsAt=later(),
            )
            for path, name in (
                ("/people-p2", f"Connections{mark}"),
                ("/people-p2", f"Elsewhere{mark}"),
                ("/people-p2", f"Remediation{mark}"),
                ("/people-p1", f"Other{mark}"),
            ):
                told.wait(path, name, 0.0, 15.0)
            assert server.wait_alert(alertname="DatabaseCpuHigh")["status"]["inhibitedBy"]
            assert told.deliveries("/people-p2", "DatabaseCpuHigh", 0.0) == []
        assert told.deliveries("/people-p1", "DatabaseCpuSaturated", 0.0) == [], "it was silenced"


def test_a_held_alert_lets_the_remediator_finish_first(run: Run, tmp_path: Path, told: Told) -> None:
    """Mended in time: nobody is told. Not mended: people are told after the hold. P1 with the label does not wait."""
    book = {"runbook": "high-database-cpu", "hold": "3m"}
    with alertmanager(run, tmp_path, told, quick) as server:
        began = time.time()
        mended, stays = labels("Mended", "P2", "a", **book), labels("Stays", "P2", "b", **book)
        server.post(
            mended, stays, labels("Urgent", "P1", "c", **book), labels("Other", "P2", "d", hold="1h"), endsAt=later()
        )
        for name in ("Mended", "Stays", "Urgent"):
            told.wait("/alertmanager", name, 0.0, 5.0)
        told.wait("/people-p1", "Urgent", 0.0, 5.0)
        told.wait("/people-p2", "Other", 0.0, 5.0)
        server.post(mended, endsAt=datetime.now(UTC))
        came = told.wait("/people-p2", "Stays", 0.0, 15.0).request.at
        assert 5.5 <= came - began <= 9.0
        time.sleep(2.0)
        assert told.deliveries("/people-p2", "Mended", 0.0) == []
        assert told.deliveries("/people-p2", "Mended", 0.0, status="resolved") == []


@pytest.mark.parametrize("remediator", ["well", "refuses", "hangs"])
def test_with_the_remediator_dead_people_are_paged_as_before(
    run: Run, tmp_path: Path, told: Told, remediator: str
) -> None:
    """On the shipped timing, whether its port refuses or takes and never answers: P0 at once, P1 after ten seconds."""
    with Told() as silent:
        silent.delay = 300.0
        at = {"well": "", "refuses": f"127.0.0.1:{free_port()}", "hangs": silent.url.removeprefix("http://")}[
            remediator
        ]
        with alertmanager(run, tmp_path, told, remediator=at) as server:
            began = time.time()
            book = {"runbook": "high-database-cpu"}
            server.post(
                labels("PostgresDown", "P0", "postgres-down", **book),
                labels("DatabaseCpuSaturated", "P1", "database-slow", **book),
                labels("Stranger", "unlisted", "strange", **book),
                endsAt=later(),
            )
            assert told.wait("/people-p0", "PostgresDown", 0.0, 10.0).request.at - began < 3.0
            assert told.wait("/people-p1", "DatabaseCpuSaturated", 0.0, 20.0).request.at - began < 13.0
            assert told.wait("/people-catch-all", "Stranger", 0.0, 40.0).request.at - began < 33.0
            reached = at_first(told, "/alertmanager", "PostgresDown")
            assert (reached is not None) == (remediator == "well")
            if remediator == "hangs":
                assert silent.snapshot(), "it was asked"


def test_people_read_what_is_wrong_and_what_to_do(run: Run, tmp_path: Path, told: Told) -> None:
    """PagerDuty and Slack get level, target, description and runbook; P0 brings the draft for the status page."""

    def here(config: dict[str, Any]) -> None:
        for receiver in config["receivers"]:
            for service in receiver.get("pagerduty_configs", ()):
                service["url"] = f"{told.url}/pagerduty"
        for route in config["route"]["routes"]:
            if "group_wait" in route:
                route |= {"group_wait": "0s", "group_interval": "1s"}

    notes = {
        "summary": "It is down.",
        "description": "Nothing works. First look at it.",
        "response_time": "Immediate",
        "runbook_url": "http://localhost:11471/alerts/PostgresDown",
    }
    with alertmanager(run, tmp_path, told, here, file="alertmanager.people.yml") as server:
        p0, p3 = labels("PostgresDown", "P0", "postgres-down"), labels("Slow", "P3", "latency")
        server.post(p0, p3, annotations=notes, endsAt=later())
        slack = wait_until(lambda: texts(told, "/slack_incidents_url", "[P0] FIRING"), "Slack's P0", 10.0)[0]
        event = wait_until(lambda: told.bodies("/pagerduty"), "PagerDuty's event", 10.0)[0]
        wait_until(lambda: texts(told, "/slack_incidents_url", "[P3] FIRING"), "Slack's P3", 10.0)
        server.post(p0, annotations=notes, endsAt=datetime.now(UTC))
        over = wait_until(lambda: texts(told, "/slack_incidents_url", "[P0] RESOLVED"), "the end", 15.0)[0]
        wait_until(lambda: len(told.bodies("/pagerduty")) > 1, "PagerDuty's end", 15.0)
    assert slack["channel"] == "#incidents"
    (shown,) = slack["attachments"]
    assert shown["title"] == "[P0] FIRING: postgres postgres-down"
    for part in (
        "PostgresDown (firing): It is down. Nothing works. First look at it.",
        "Answer: Immediate.",
        notes["runbook_url"],
    ):
        assert part in shown["text"]
    assert "Draft for the status page: We are looking into a problem since" in shown["text"]
    assert "The problem is solved" in over["attachments"][0]["text"]
    assert (event["routing_key"], event["event_action"]) == ("key-of-pagerduty_outage_key", "trigger")
    assert event["payload"]["severity"] == "critical"
    assert event["payload"]["summary"] == "[P0] FIRING: postgres postgres-down"
    assert "Nothing works." in event["payload"]["custom_details"]["firing"]
    ends = told.bodies("/pagerduty")[-1]
    assert (ends["event_action"], ends["dedup_key"]) == ("resolve", event["dedup_key"])
    assert len(told.bodies("/pagerduty")) == 2, "P3 is nobody's page"


def texts(told: Told, path: str, title: str) -> list[dict[str, Any]]:
    return [body for body in told.bodies(path) if body["attachments"][0]["title"].startswith(title)]
