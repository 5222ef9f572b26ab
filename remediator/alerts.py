"""What Alertmanager sends, as frozen values. Reads webhook version 4 and ignores fields it does not know.

In: bytes of one notification body. Out: `Notification`, or Unreadable with a named cause: such a body can
never be read, so it belongs to the dead letters and not to a retry. No I/O.
Source: Alertmanager 0.25 to 0.34, template/template.go and notify/webhook.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Status = Literal["firing", "resolved"]
MAX_ALERTS = 10_000
_FINGERPRINT = re.compile(r"[0-9A-Za-z_-]{1,64}")  # Alertmanager writes 16 hex digits; it is a key in the journal
MAX_LABELS = 64
MAX_VALUE = 4096  # characters; longer label values are cut for display and never reach an action


class Unreadable(ValueError):
    """This body can never be read. `cause` is a short closed word for the metric and the dead letter."""

    def __init__(self, cause: str, detail: str) -> None:
        self.cause = cause
        super().__init__(f"{cause}: {detail}")


@dataclass(frozen=True, slots=True)
class Alert:
    """A firing or resolved label set. `starts_at` is UNIX seconds; two servers may give two values."""

    status: Status
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: float
    fingerprint: str

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "")

    def as_json(self) -> dict[str, Any]:
        """What the journal keeps of it."""
        return {
            "status": self.status,
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "starts_at": self.starts_at,
            "fingerprint": self.fingerprint,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Alert:
        """The way back from `as_json`."""
        return Alert(data["status"], data["labels"], data["annotations"], data["starts_at"], data["fingerprint"])


@dataclass(frozen=True, slots=True)
class Notification:
    """One webhook body: a whole group, not a delta.

    truncated   alerts that were cut off by the sender
    unreadable  why single alerts of it cannot be read; the others can, and must not be lost with them
    """

    receiver: str
    group_key: str
    truncated: int
    alerts: tuple[Alert, ...]
    unreadable: tuple[str, ...] = ()


def parse(body: bytes) -> Notification:
    """Bytes to values. Raises Unreadable for what can never be read."""
    try:
        data = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except Unreadable:
        raise
    except (ValueError, RecursionError) as error:
        raise Unreadable("not_json", str(error)[:200]) from error
    if not isinstance(data, dict):
        raise Unreadable("not_an_object", type(data).__name__)
    if data.get("version") != "4":
        raise Unreadable("unknown_version", f'version {str(data.get("version"))[:20]!r}, this build reads "4"')
    raw = data.get("alerts")
    if not isinstance(raw, list) or len(raw) > MAX_ALERTS:
        raise Unreadable("bad_alerts", "alerts is not a list, or has over 10,000 entries")
    truncated = data.get("truncatedAlerts", 0)
    if not isinstance(truncated, int) or isinstance(truncated, bool) or truncated < 0:
        raise Unreadable("bad_alerts", "truncatedAlerts is not a count")
    alerts, unreadable = _each(raw)
    if unreadable and not alerts:
        raise Unreadable("bad_alert", unreadable[0])
    return Notification(str(data.get("receiver", "")), str(data.get("groupKey", "")), truncated, alerts, unreadable)


def _each(raw: list[Any]) -> tuple[tuple[Alert, ...], tuple[str, ...]]:
    """One by one: an alert that nobody can read takes no other one with it."""
    alerts, unreadable = [], []
    for item in raw:
        try:
            alerts.append(_alert(item))
        except Unreadable as error:
            unreadable.append(str(error))
    return tuple(alerts), tuple(unreadable)


def _no_constant(name: str) -> Any:
    raise Unreadable("not_json", f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("duplicate_keys", "the same key twice in one object: which one holds is anybody's guess")
    return found


def _alert(item: Any) -> Alert:
    if not isinstance(item, dict) or item.get("status") not in ("firing", "resolved"):
        raise Unreadable("bad_alert", "an alert without a status of firing or resolved")
    labels = _strings(item.get("labels"), "labels")
    if not labels.get("alertname"):
        raise Unreadable("bad_alert", "an alert without alertname")
    starts_at = _timestamp(item.get("startsAt"))
    given = item.get("fingerprint")
    return Alert(
        status=item["status"],
        labels=labels,
        annotations=_strings(item.get("annotations", {}), "annotations"),
        starts_at=starts_at,
        fingerprint=given if isinstance(given, str) and _FINGERPRINT.fullmatch(given) else label_hash(labels),
    )


def _strings(value: Any, what: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_LABELS:
        raise Unreadable("bad_alert", f"{what} is not an object of at most {MAX_LABELS} strings")
    if not all(isinstance(entry, str) for entry in value.values()):
        raise Unreadable("bad_alert", f"{what} has a value that is not a string")
    # A lone surrogate or NUL cannot be stored as text by PostgreSQL; as a replacement character it can, and
    # no runbook's label allow-list will match it.
    return {_clean(key)[:256]: _clean(entry)[:MAX_VALUE] for key, entry in value.items()}


def _clean(text: str) -> str:
    if text.isascii() and "\x00" not in text:  # nearly every text there is, and a tenth of the time
        return text
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _timestamp(value: Any) -> float:
    if not isinstance(value, str):
        raise Unreadable("bad_alert", "startsAt is not a string")
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("no zone")
        return moment.timestamp()
    except (ValueError, OverflowError) as error:
        raise Unreadable("bad_alert", f"startsAt {value[:40]!r} is not RFC 3339") from error


def label_hash(labels: Mapping[str, str]) -> str:
    """A stable hash of a label set, 16 hex digits; our own, used when a sender gives no fingerprint."""
    canonical = json.dumps(sorted(labels.items()), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def episode_key(alertname: str, target: Mapping[str, str], environment: str) -> str:
    """What makes two alerts one episode: alertname, environment and the target labels the runbook names.

    Not all labels: two Prometheus replicas or a moved instance give two fingerprints for one fault.
    """
    return label_hash({**target, "__alertname__": alertname, "__environment__": environment})
