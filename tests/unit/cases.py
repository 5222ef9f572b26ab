"""Values for the tests of the pure rules: a healthy case in which everything allows acting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from remediator.actions.base import Preview, Risk
from remediator.alerts import Alert
from remediator.events import Event, Kind
from remediator.facts import Facts
from remediator.ledger import Ledger, fold
from remediator.runbooks import Runbook, parse
from remediator.settings import Settings
from remediator.settings import parse as parse_settings
from remediator.steps import View
from remediator.world import Answer, CheckSample, Health, ProofLook, World

NOW = 1_800_000_000.0

RUNBOOK = """
format: 1
name: engine-slow
title: Engine slow
match: {alertnames: [EngineSlow], jobs: [exporter], labels: {component: engine}}
target_labels: [service]
blocked_by: [PostgresDown]
settle: 30s
stale_after: 1h
vantage: {kind: probe}
diagnosis: [container_logs]
ladder:
  - {name: mild, action: restart_service, params: {service: {label: service}}, deadline: 20s}
  - {name: harsh, action: restart_service, params: {service: {label: service}}, deadline: 20s, wait: 10s}
proof:
  hold: 2m
  timeout: 5m
  every: 10s
  checks:
    - {name: fast, query: "p95[1m]", below: 5}
limits: {cooldown: 30m, per_hour: 2, per_day: 4}
"""

SETTINGS = """
environment: test
mode: auto
webhook: {token_files: [/dev/null]}
prometheus: {urls: ["http://127.0.0.1:1"]}
alertmanager: {urls: ["http://127.0.0.1:2"]}
services: {engine: {singleton: true}}
"""


def book(**changes: Any) -> Runbook:
    """The runbook above; `changes` replace whole fields."""
    return parse(RUNBOOK, "test").model_copy(update=changes)


def settings(**changes: Any) -> Settings:
    return parse_settings(SETTINGS, "test").model_copy(update={"pause_file": Path("/nonexistent"), **changes})


def alert(status: str = "firing", starts_at: float = NOW - 60, **labels: str) -> Alert:
    base = {
        "alertname": "EngineSlow",
        "job": "exporter",
        "component": "engine",
        "service": "engine",
        "environment": "test",
        "severity": "P2",
    }
    return Alert(status, {**base, **labels}, {}, starts_at, "f" * 16)  # type: ignore[arg-type]


def facts(**changes: Any) -> Facts:
    """Nobody else does anything, no limit is touched."""
    calm = Facts(NOW, (), "auto", None, 0, 0, 0, 0, 0, 0, (), (), 1, None, NOW - 1)
    return replace(calm, **changes)


def preview(**changes: Any) -> Preview:
    return replace(Preview("docker:prep/engine", "restart engine", ({"id": "c1"},), NOW), **changes)


def world(**changes: Any) -> World:
    """Everything agrees that the target is sick and nothing forbids acting."""
    sick = World(NOW - 0.5, Answer.YES, "12.5", 0.1, (), Answer.NO, "", Health.SICK, "took 1 s", preview(), "", False)
    return replace(sick, **changes)


def proof_look(good: bool | None, at: float, probe: Health | None = None) -> ProofLook:
    """One round: all good, something bad, or no sample."""
    value = {True: 1.0, False: 9.0, None: None}[good]
    found = probe or {True: Health.HEALTHY, False: Health.SICK, None: Health.UNKNOWN}[good]
    return ProofLook(at, (CheckSample("fast", value, good, "value"),), found, "")


DIGEST = book().digest()
"""Of the runbook that a `History` is decided on."""


class History:
    """Builds an episode's events one by one: `History().add(Kind.X, 5.0, key=value).ledger`."""

    def __init__(self, opened_at: float = NOW - 45, starts_at: float = NOW - 60, **labels: str) -> None:
        self.events: list[Event] = []
        self.add(
            Kind.OPENED,
            opened_at,
            alert=alert("firing", starts_at, **labels).as_json(),
            received_at=opened_at,
            target={"service": "engine"},
            runbook="engine-slow",
            digest=DIGEST,
        )

    def add(self, kind: Kind, at: float, **data: Any) -> History:
        seq = len(self.events) + 1
        self.events.append(Event(f"{seq:032x}", "e1", seq, kind, at, data))
        return self

    def diagnosed(self, at: float = NOW - 40, rung: str = "mild") -> History:
        return self.add(Kind.DIAGNOSED, at, rung=rung, digest="x", path="p", complete=True, summary={})

    def intent(self, at: float, attempt: str = "a1", rung: str = "mild", **more: Any) -> History:
        data: dict[str, Any] = {
            "attempt": attempt,
            "rung": rung,
            "action": "restart_service",
            "resource": "docker:prep/engine",
            "params": {"service": "engine"},
            "items": [{"id": "c1"}],
            "summary": "restart engine",
            "looked_at": at - 0.5,
            "start_by": at + 9,
            "deadline": 20.0,
            "probe": "sick",
        }
        return self.add(Kind.INTENT, at, **(data | more))

    def outcome(self, at: float, result: str = "done", attempt: str = "a1") -> History:
        return self.add(Kind.OUTCOME, at, attempt=attempt, result=result, detail="said so", touched=[])

    def verdict(self, at: float, verdict: str, attempt: str = "a1") -> History:
        return self.add(Kind.VERDICT, at, attempt=attempt, verdict=verdict, sentence="s", checks=[], probe="healthy")

    @property
    def ledger(self) -> Ledger:
        return fold(self.events)


def view(history: History, now: float = NOW, **changes: Any) -> View:
    """What the planner sees: the history, a calm journal, no look yet."""
    base = View(now, history.ledger, book(), settings(), facts(now=now), {"restart_service": Risk.DISRUPTIVE})
    return replace(base, **changes)
