"""What the simulated remediator is told: its runbooks and settings, read by the real readers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from remediator.runbooks import Runbook, parse
from remediator.settings import Settings
from remediator.settings import parse as parse_settings
from simulation.story import ASKS, CROWD, SERVICES

SLOW, DOWN, ASKING, DATABASE_DOWN = "ServiceSlow", "ServiceDown", "SessionsSlow", "DatabaseDown"
JOB = "platform"
PENDING = 20.0  # seconds for which a rule is true before it fires


@dataclass(frozen=True)
class Query:
    """A metric and what the runbooks ask of it."""

    metric: str
    expression: str


LATENCY = Query("p95", "max_over_time(p95[1m])")
TRAFFIC = Query("requests_total", "rate(requests_total[1m])")
RULES = {
    SLOW: f"{LATENCY.expression} > 5",
    ASKING: f"{LATENCY.expression} > 4",
    DOWN: "up == 0",
    DATABASE_DOWN: "pg_up == 0",
}
"""Expressions of the rules. The simulated servers know what they mean."""

_BOOK = """
format: 1
name: {name}
title: {title}
match: {{alertnames: [{alert}], jobs: [{job}]}}
target_labels: [service]
blocked_by: [DatabaseDown]
mode: {mode}
settle: {settle}
stale_after: 1h
approve_within: 20m
vantage: {{kind: probe}}
diagnosis: [container_logs]
ladder:
{ladder}
proof:
  hold: 2m
  timeout: 5m
  every: 20s
  checks:
    - {{name: fast, query: "{latency}", by: [service], below: 5}}
    - {{name: traffic, query: "{traffic}", by: [service], at_least: 0.1}}
limits: {{cooldown: 30m, per_hour: 3, per_day: 8, recurrence: 4}}
hand_over: {{severity: P1}}
"""
_RUNG = "  - {{name: {name}, action: restart_service, params: {{service: {{label: service}}}}, deadline: 20s{more}}}"


def _book(name: str, alert: str, title: str, mode: str = "auto", settle: str = "30s") -> Runbook:
    rungs = [_RUNG.format(name="restart", more="")]
    if alert == SLOW:  # the harsher one is the same once more: in this world there is no other
        rungs.append(_RUNG.format(name="again", more=", wait: 10s"))
    text = _BOOK.format(
        name=name,
        title=title,
        alert=alert,
        job=JOB,
        mode=mode,
        settle=settle,
        ladder="\n".join(rungs),
        latency=LATENCY.expression,
        traffic=TRAFFIC.expression,
    )
    return parse(text, name)


BOOKS = (
    _book("service-slow", SLOW, "A service is slow"),
    _book("service-down", DOWN, "A service is down", settle="15s"),
)
ASKS_BOOK = _book("sessions-slow", ASKING, "Sessions are slow", mode="approve")
ALL = (*BOOKS, ASKS_BOOK)

_SETTINGS = """
environment: production
mode: auto
webhook: {token_files: [/dev/null]}
prometheus: {urls: ["http://prometheus-0", "http://prometheus-1"]}
alertmanager: {urls: ["http://alertmanager-0", "http://alertmanager-1"]}
never: [database, docker-gate, prometheus, alertmanager, remediator]
"""


def settings(pause_file: Path, **changes: object) -> Settings:
    """Settings of one replica."""
    services = {name: {"singleton": True} for name in (*SERVICES, *CROWD, ASKS)}
    base = parse_settings(_SETTINGS + f"services: {services}\n", "simulation")
    return base.model_copy(update={"pause_file": pause_file, **changes})
