"""Alertmanager's own state read back: who is muted, and active alerts as if they had been delivered again. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remediator.alertmanager import silenced_by

Item = Mapping[str, Any]


def active(receiver: str) -> tuple[tuple[str, str], ...]:
    """Query parameters of GET /api/v2/alerts for what this receiver would be notified of (anchored RE2 there)."""
    return (("receiver", re.escape(receiver)), ("active", "true"), ("silenced", "false"), ("inhibited", "false"))


def body(alerts: Sequence[Item], receiver: str, url: str) -> bytes | None:
    """Active alerts as one webhook body, version 4; None when there are none."""
    if not alerts:
        return None
    listed = [
        {
            "status": "firing",
            "labels": item.get("labels", {}),
            "annotations": item.get("annotations", {}),
            "startsAt": item.get("startsAt"),
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": item.get("generatorURL", ""),
            "fingerprint": item.get("fingerprint", ""),
        }
        for item in sorted(alerts, key=lambda item: str(item.get("fingerprint")))
    ]
    notification = {
        "version": "4",
        "groupKey": "active",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": receiver,
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": url,
        "alerts": listed,
    }
    return json.dumps(notification, sort_keys=True, separators=(",", ":")).encode()


def held(alerts: Iterable[Item], names: Sequence[str], target: Mapping[str, str]) -> list[Item]:
    """The alerts of these names on this target that the server holds."""
    return [
        item for item in alerts if item["labels"].get("alertname") in names and item["labels"].items() >= target.items()
    ]


def muted(alerts: Iterable[Item]) -> tuple[str, ...]:
    """What mutes these alerts by their own status: ids of silences, fingerprints of inhibiting alerts."""
    return tuple(dict.fromkeys(by for item in alerts for by in _mutes(item.get("status", {}))))


def silenced(silences: Iterable[Item], names: Sequence[str], labels: Mapping[str, str]) -> tuple[str, ...]:
    """What silences an alert that the server does not hold (it was restarted, or another server notified us).

    It is compared by `labels`, all that is known of it. Raises Permanent when a silence cannot be compared.
    """
    named = [{**labels, "alertname": name} for name in names]
    return tuple(f"silence {item['id']}" for item in silences if any(silenced_by(item, each) for each in named))


def _mutes(status: Item) -> list[str]:
    """The words of one alert's status: `silencedBy`, `inhibitedBy`, and `mutedBy` (time intervals, from 0.28)."""
    words = (("silencedBy", "silence"), ("inhibitedBy", "inhibited by alert"), ("mutedBy", "time interval"))
    return [f"{word} {by}" for key, word in words for by in status.get(key) or ()]
