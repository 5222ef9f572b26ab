"""What people read: one incident as a body for each kind of destination. Pure.

In: the incident, whether it is over, the time. Out: JSON-ready values. No secret goes in or out; keys and addresses are
added where they are sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from switch.watch import Incident

SOURCE = "prep-switch"
_NAMES = {"watchdog": "WatchdogMissing", "probe": "PlatformUnreachable", "test": "SwitchTest"}


@dataclass(frozen=True, slots=True)
class Message:
    """One incident, said. Times in UNIX seconds; `key` is the same for all messages of an incident."""

    key: str
    name: str
    watched: str
    over: bool
    since: float
    now: float
    summary: str
    description: str


def say(incident: Incident, watched: str, now: float, *, ending: bool, heard: bool, probe: str = "") -> Message:
    """`heard`: whether a Watchdog ever came; `probe`: the public address."""
    age = human(now - incident.since)
    if incident.kind == "watchdog":
        summary = f"No word from the monitoring of {watched}: alerts may not reach you."
        last = f"Its last Watchdog is {age} old." if heard else f"No Watchdog came in {age}, since this switch began."
        todo = (
            f"{last} Prometheus, Alertmanager, their machine or the way here is down. First look whether the platform"
            " itself works, since nothing else tells you now; then start Prometheus and Alertmanager."
        )
        over = f"The monitoring of {watched} is heard again."
    else:
        summary = f"{watched} does not answer at its public address."
        todo = (
            f"{probe} has not answered as it should for {age}, asked from the switch's machine. First open it yourself;"
            " then look at name service, certificate and proxy, which the platform's own monitoring does not pass."
        )
        over = f"{watched} answers at its public address again."
    if ending:
        ended = incident.ended or now
        return Message(
            incident.id, _NAMES[incident.kind], watched, over=True, since=incident.since, now=now,
            summary=over, description=f"{over} It was away for {human(ended - incident.since)}.",
        )  # fmt: skip
    return Message(incident.id, _NAMES[incident.kind], watched, False, incident.since, now, summary, todo)


def trial(watched: str, now: float) -> Message:
    """The page of `prep-switch page:test`."""
    text = f"Test page of the dead man's switch of {watched}; nothing is wrong."
    return Message(f"{SOURCE}-test-{now:.0f}", _NAMES["test"], watched, False, now, now, text, text)


def webhook(message: Message) -> dict[str, Any]:
    """As Alertmanager's webhook, version 4, so that whoever takes that takes this."""
    status = "resolved" if message.over else "firing"
    labels = {
        "alertname": message.name,
        "severity": "P0",
        "component": "switch",
        "symptom": "monitoring-silent" if message.name == "WatchdogMissing" else "platform-down",
        "service": message.watched,
    }
    notes = {"summary": message.summary, "description": message.description, "response_time": "Immediate"}
    alert = {
        "status": status,
        "labels": labels,
        "annotations": notes,
        "startsAt": _iso(message.since),
        "endsAt": _iso(message.now) if message.over else "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": message.key,
    }
    return {
        "version": "4",
        "groupKey": message.key,
        "truncatedAlerts": 0,
        "status": status,
        "receiver": SOURCE,
        "groupLabels": {"alertname": message.name},
        "commonLabels": labels,
        "commonAnnotations": notes,
        "externalURL": "",
        "alerts": [alert],
    }


def pagerduty(message: Message, routing_key: str) -> dict[str, Any]:
    """Events API v2 (developer.pagerduty.com, "Send an Alert Event"): `dedup_key` makes repeats one incident."""
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if message.over else "trigger",
        "dedup_key": message.key,
    }
    if not message.over:
        event["payload"] = {
            "summary": message.summary,
            "source": SOURCE,
            "severity": "critical",
            "timestamp": _iso(message.since),
            "component": message.watched,
            "custom_details": {"description": message.description},
        }
    return event


def slack(message: Message) -> dict[str, Any]:
    """An incoming webhook's body."""
    head = "Back" if message.over else "[P0]"
    body = message.description if message.over else f"*{message.summary}*\n{message.description}"
    return {"text": f"{head} {body}"}


def human(seconds: float) -> str:
    """3725 -> `1 h 2 min`; for sentences."""
    whole = max(round(seconds), 0)
    if whole < 120:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return " ".join(part for part in (f"{hours} h" if hours else "", f"{minutes} min" if minutes else "") if part)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
