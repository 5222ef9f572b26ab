"""Which webhook bodies Alertmanager would have sent, from when each alert fired. Pure.

The route is the shipped one for the remediator: each alert a group of its own, `group_wait` 0 s, so that it comes at
once, and `group_interval` 1 m, so that its end comes at the next whole minute after its beginning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from backtest.spans import Series, Span
from remediator.alerts import Alert, label_hash

GROUP_INTERVAL = 60.0


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert from firing to its end.

    starts_at, ends_at  UNIX seconds; ends_at None: it fired when the history ended
    cut                 it fired when the history began, so that its beginning is not known
    """

    labels: Mapping[str, str]
    starts_at: float
    ends_at: float | None
    cut: bool

    def alert(self, status: str = "firing") -> Alert:
        return Alert(status, self.labels, {}, self.starts_at, label_hash(self.labels))  # type: ignore[arg-type]


def firings(found: Iterable[Series], external: Mapping[str, str], since: float, until: float) -> list[Firing]:
    """Every time an alert fired, in order. A server adds its external labels where an alert has none of that name."""
    made = [
        Firing(
            {**external, **{name: value for name, value in series.labels.items() if name != "alertstate"}},
            span.start,
            span.end if span.end <= until else None,
            span.start <= since,
        )
        for series in found
        if series.labels.get("alertstate") == "firing"
        for span in series.spans
    ]
    return sorted(made, key=lambda firing: (firing.starts_at, sorted(firing.labels.items())))


def timeline(fired: Iterable[Firing]) -> list[tuple[float, bytes]]:
    """(UNIX seconds, body) of each delivery, in order."""
    by_labels: dict[str, list[Firing]] = {}
    for firing in fired:
        by_labels.setdefault(label_hash(firing.labels), []).append(firing)
    found = [each for mine in by_labels.values() for each in _of(mine)]
    return sorted(found, key=lambda each: each[0])


def _of(mine: list[Firing]) -> Iterator[tuple[float, bytes]]:
    """Of one label set. Its end is not told when it fires again before the next round of its group."""
    following: list[float] = [later.starts_at for _, later in pairwise(mine)]
    for firing, again in zip(mine, [*following, math.inf], strict=True):
        yield firing.starts_at, body(firing, "firing")
        if firing.ends_at is None:
            continue
        rounds = math.ceil((firing.ends_at - firing.starts_at) / GROUP_INTERVAL)
        told = firing.starts_at + max(1, rounds) * GROUP_INTERVAL
        if told < again:
            yield told, body(firing, "resolved")


def body(firing: Firing, status: str) -> bytes:
    """Version 4, as the remediator's intake reads it."""
    ends = firing.ends_at if status == "resolved" else None
    alert = {
        "status": status,
        "labels": dict(firing.labels),
        "annotations": {},
        "startsAt": datetime.fromtimestamp(firing.starts_at, UTC).isoformat(),
        "endsAt": "0001-01-01T00:00:00Z" if ends is None else datetime.fromtimestamp(ends, UTC).isoformat(),
    }
    return json.dumps({"version": "4", "status": status, "receiver": "remediator", "alerts": [alert]}).encode()


def merged(fired: Iterable[Firing]) -> list[Span]:
    """When any of them fired; one without an end lasts for ever."""
    made = Series({})
    for firing in sorted(fired, key=lambda each: each.starts_at):
        end = math.inf if firing.ends_at is None else firing.ends_at
        last = made.spans[-1] if made.spans else None
        if last is not None and end <= last.end:
            continue
        made.add([Span(firing.starts_at, end)])
    return made.spans
