"""PagerDuty's own part as Terraform's JSON (provider PagerDuty/pagerduty 3.x): services, rotation, escalation.

In: a `Severity`. Out: the text of alertmanager/pagerduty.tf.json. Pure. Who nobody acknowledges to is paged next:
primary, after 5 minutes the secondary, then the engineering lead; CTO and CEO for an outage only, and only where
`page_executives` is switched on. Resources and arguments after the provider's registry pages
(registry.terraform.io/providers/PagerDuty/pagerduty/latest/docs). People come in as variables: no address of anybody
stands in the file.
"""

from __future__ import annotations

import json
from typing import Any

from alerting.severity import Severity, seconds

Data = dict[str, Any]
_ROTATION = ("primary", "secondary")
"""Rungs that are a schedule; all others are one person each."""
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_FIRST_MONDAY = 5  # 5 January 2026 was a Monday; a rotation needs a day to begin with


def render(table: Severity) -> str:
    """The file's text."""
    return json.dumps(data(table), indent=2) + "\n"


def data(table: Severity) -> Data:
    """The file's content."""
    plan = table.escalation
    alone = [rung for rung in (*plan.rungs, *plan.executives) if rung not in _ROTATION]
    return {
        "//": "Made from alert-rules/severity.yml by `prepctl severity:generate`. Apply it with `terraform apply`.",
        "terraform": {"required_providers": {"pagerduty": {"source": "PagerDuty/pagerduty", "version": "~> 3.0"}}},
        "variable": {
            "rotation_emails": {
                "description": "Users of PagerDuty in the order of the weekly on-call rotation; at least two.",
                "type": "list(string)",
            },
            **{
                f"{rung}_email": {
                    "description": f"User of PagerDuty who is the {rung.replace('_', ' ')}.",
                    "type": "string",
                    **({"default": ""} if rung in plan.executives else {}),
                }
                for rung in alone
            },
            "page_executives": {
                "description": f"Whether {' and '.join(plan.executives).upper()} are paged for an outage (P0) that"
                " nobody acknowledges.",
                "type": "bool",
                "default": False,
            },
        },
        "data": {"pagerduty_user": _users(table, alone)},
        "locals": {"executives": _executives(table), "outage_rungs": _outage_rungs(table)},
        "resource": {
            "pagerduty_schedule": {name: _schedule(table, number) for number, name in enumerate(_ROTATION)},
            "pagerduty_escalation_policy": _policies(table),
            "pagerduty_service": {name: _service(name) for name in table.receivers.pagerduty},
            "pagerduty_service_integration": {
                name: {
                    "name": "Alertmanager",
                    "type": "events_api_v2_inbound_integration",
                    "service": f"${{pagerduty_service.{name}.id}}",
                }
                for name in table.receivers.pagerduty
            },
        },
        "output": {
            f"{name}_key": {
                "description": f"Content of {row.key_file}.",
                "value": f"${{pagerduty_service_integration.{name}.integration_key}}",
                "sensitive": True,
            }
            for name, row in table.receivers.pagerduty.items()
        },
    }


def _users(table: Severity, alone: list[str]) -> Data:
    users: Data = {"rotation": {"for_each": "${toset(var.rotation_emails)}", "email": "${each.value}"}}
    for rung in alone:
        users[rung] = {"email": f"${{var.{rung}_email}}"}
        if rung in table.escalation.executives:
            users[rung] = {"count": "${var.page_executives ? 1 : 0}", **users[rung]}
    return users


def _executives(table: Severity) -> str:
    ids = ", ".join(f"data.pagerduty_user.{rung}[0].id" for rung in table.escalation.executives)
    return f"${{var.page_executives ? [{ids}] : []}}"


def _outage_rungs(table: Severity) -> list[list[Data]]:
    """The targets of each rung of an outage: who is paged at once, then the rest of the ladder."""
    plan = table.escalation
    after = [(rung,) for rung in plan.rungs if rung not in plan.outage_begins_with]
    return [[_target(each) for each in rung] for rung in (plan.outage_begins_with, *after)]


def _schedule(table: Severity, number: int) -> Data:
    """`number`: how many weeks ahead in the rotation; the secondary is next week's primary."""
    handoff = table.escalation.handoff
    start = f"2026-01-{_FIRST_MONDAY + _WEEKDAYS.index(handoff.weekday):02d}T{handoff.time}:00"
    emails = "var.rotation_emails"
    turn = f"[for i in range(length({emails})): {emails}[(i + {number}) % length({emails})]]"
    return {
        "name": f"Prep {_ROTATION[number]} on call",
        "time_zone": handoff.location,
        "layer": [
            {
                "name": "weekly",
                # Standard time of the place on that day; PagerDuty itself follows the clock changes of `time_zone`.
                "start": f"{start}-08:00",
                "rotation_virtual_start": f"{start}-08:00",
                "rotation_turn_length_seconds": 7 * 86_400,
                "users": f"${{[for email in {turn}: data.pagerduty_user.rotation[email].id]}}",
            }
        ],
    }


def _target(rung: str) -> Data:
    if rung in _ROTATION:
        return {"type": "schedule_reference", "id": f"${{pagerduty_schedule.{rung}.id}}"}
    return {"type": "user_reference", "id": f"${{data.pagerduty_user.{rung}.id}}"}


def _policies(table: Severity) -> Data:
    plan = table.escalation
    minutes = int(seconds(plan.acknowledge) // 60)

    def rules(rungs: list[tuple[str, ...]]) -> list[Data]:
        return [{"escalation_delay_in_minutes": minutes, "target": [_target(each) for each in rung]} for rung in rungs]

    return {
        "standard": {
            "name": "Prep: on call, secondary, engineering lead",
            "num_loops": plan.loops,
            "rule": rules([(rung,) for rung in plan.rungs]),
        },
        "outage": {
            "name": "Prep: outage",
            "num_loops": plan.loops,
            # All rungs in one dynamic block: it keeps their order, which a mixture with static blocks need not.
            "dynamic": {
                "rule": {
                    "for_each": "${concat(local.outage_rungs, [for id in local.executives: [{ type ="
                    ' "user_reference", id = id }]])}',
                    "content": {
                        "escalation_delay_in_minutes": minutes,
                        "dynamic": {
                            "target": {
                                "for_each": "${rule.value}",
                                "content": {"type": "${target.value.type}", "id": "${target.value.id}"},
                            }
                        },
                    },
                }
            },
        },
    }


def _service(name: str) -> Data:
    return {
        "name": f"Prep ({name})",
        "escalation_policy": f"${{pagerduty_escalation_policy.{'outage' if name == 'outage' else 'standard'}.id}}",
        "alert_creation": "create_alerts_and_incidents",
        # An incident ends when the alert does, or by a person; never by the clock.
        "auto_resolve_timeout": "null",
        "acknowledgement_timeout": "1800",
        "incident_urgency_rule": {"type": "constant", "urgency": "low" if name == "low" else "high"},
    }
