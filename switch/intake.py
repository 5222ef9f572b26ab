"""Alertmanager's webhook: is this the Watchdog, whose word is how old? Authenticate, cap, parse; nothing else.

In: a request's header and body. Out: what it is worth. A token is compared in constant time and never logged.
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from exporter.errors import ConfigError
from switch.settings import Watchdog, secret

MAX_BYTES = 1024 * 1024
_GO_TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?)\d* (\+0000) UTC$")


class Worth(StrEnum):
    """What a delivery was; also the label of the metric."""

    HEARD = "heard"
    STALE = "stale"
    RESOLVED = "resolved"
    FOREIGN = "foreign"
    UNREADABLE = "unreadable"
    UNAUTHORIZED = "unauthorized"


def authorized(header: str | None, files: Sequence[Path]) -> bool:
    """Is this `Authorization` header one of ours (RFC 6750)? A file that cannot be read holds no token."""
    scheme, _, given = (header or "").strip().partition(" ")
    offered = given.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() != "bearer" or not offered:
        return False
    # Every token is compared, also after a match: the time taken says nothing about which one it was.
    return bool(sum(hmac.compare_digest(offered, token.encode()) for token in _tokens(files)))


def _tokens(files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        try:
            yield secret(path)
        except ConfigError:
            continue


def read(body: bytes, settings: Watchdog, wall: float) -> tuple[Worth, float]:
    """What a body says and the age of its evaluation, seconds (0.0 when it does not say). `wall`: the time here.

    STALE: older than `accept` already, so that it proves a living Alertmanager and a dead Prometheus.
    """
    try:
        alerts = [alert for alert in json.loads(body)["alerts"] if _is_it(alert, settings)]
        firing = [alert for alert in alerts if alert["status"] == "firing"]
        ages = [_age(alert, settings, wall) for alert in firing]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Worth.UNREADABLE, 0.0
    if not alerts:
        return Worth.FOREIGN, 0.0
    if not firing:
        return Worth.RESOLVED, 0.0
    age = min(ages)
    return (Worth.STALE if age >= settings.accept else Worth.HEARD), age


def _is_it(alert: Any, settings: Watchdog) -> bool:
    labels = alert["labels"]
    return bool(
        labels.get("alertname") == settings.alertname
        and (settings.environment is None or labels.get("environment") == settings.environment)
    )


def _age(alert: Any, settings: Watchdog, wall: float) -> float:
    text = (alert.get("annotations") or {}).get(settings.evaluated, "") if settings.evaluated else ""
    # A Prometheus whose clock is ahead is not from the future.
    return max(wall - evaluated_at(text), 0.0) if text else 0.0


def evaluated_at(text: str) -> float:
    """UNIX seconds out of `{{ $value }}` or of `{{ $value | humanizeTimestamp }}` (Go's time). Raises ValueError."""
    if found := _GO_TIME.match(text):
        return datetime.strptime(
            f"{found[1]} {found[2]}", f"%Y-%m-%d %H:%M:%S{'.%f' if '.' in found[1] else ''} %z"
        ).timestamp()
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not a time")
    return value
