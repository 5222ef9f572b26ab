"""Bodies of Alertmanager's webhook: real ones from files, and made ones for what no real sender sends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "data" / "alertmanager"
REAL = ("firing_1", "resolved_1", "firing_10", "truncated_3_of_5")
"""What Alertmanager 0.25.0 sent: one alert, its end, a group of ten, a group cut by `max_alerts: 2`."""


def read(name: str) -> bytes:
    """One of REAL, byte for byte."""
    return (FOLDER / f"{name}.json").read_bytes()


def alert(
    *, labels: Mapping[str, str] | None = None, status: str = "firing", fingerprint: str = "00000000000000aa"
) -> dict[str, Any]:
    """One alert of a body, as Alertmanager writes it."""
    return {
        "status": status,
        "labels": {"alertname": "Slow", **(labels or {})},
        "annotations": {"summary": "It is slow."},
        "startsAt": "2026-11-23T06:22:47.19Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": fingerprint,
    }


def delivery(alerts: Iterable[Mapping[str, Any]], **changes: Any) -> bytes:
    """A body of version 4; `changes` replace whole fields."""
    data = {
        "version": "4",
        "receiver": "remediator",
        "status": "firing",
        "groupKey": '{}:{alertname="Slow"}',
        "truncatedAlerts": 0,
        "alerts": list(alerts),
        **changes,
    }
    return json.dumps(data).encode()
