"""Drills side by side: seconds from the fault to each step, beside the time that the handbook gives people."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from demo.drills.base import Drill, Story
from demo.stack import Stack


@dataclass(frozen=True, slots=True)
class Row:
    """One drill that ran. Seconds since the fault, None for what did not happen.

    response  severity of the alert and the handbook's response time for it, in its own words
    held      it ended as it must, and everything asked at the target was so
    """

    drill: str
    title: str
    alert: str
    response: str
    firing: float | None
    effect: float | None
    proven: float | None
    ended: str
    untouched: bool
    held: bool

    @classmethod
    def of(cls, drill: Drill, story: Story, stack: Stack) -> Row:
        """Read what is still to be read of the rule while the stack is up."""
        return cls(
            drill=drill.name,
            title=drill.title,
            alert=story.alert,
            response=response(stack, story.alert),
            firing=story.since_fault("firing"),
            effect=story.since_fault("effect"),
            proven=story.since_fault("verdict") if story.ended == "fixed" else None,
            ended=story.ended,
            untouched=drill.untouched,
            held=not story.error and all(found.holds for found in story.findings),
        )

    def as_json(self) -> dict[str, Any]:
        """For build/demo/drills.json; seconds with one digit."""
        seconds = {"firing": self.firing, "effect": self.effect, "proven": self.proven}
        return {
            "drill": self.drill,
            "alert": self.alert,
            "response_time": self.response,
            "seconds_since_fault": {step: None if at is None else round(at, 1) for step, at in seconds.items()},
            "ended": self.ended,
            "untouched": self.untouched,
            "held": self.held,
        }


def response(stack: Stack, alertname: str) -> str:
    """Severity and response time of an alert, by the rule that Prometheus has loaded; "" when it has none."""
    groups = stack.get("prometheus", "/api/v1/rules?type=alert")["data"]["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        if rule["name"] == alertname:
            return f"{rule['labels'].get('severity', '')} {rule['annotations'].get('response_time', '')}".strip()
    return ""


def limit(response_time: str) -> float | None:
    """Seconds of the handbook's response time (`P2 < 1 hour`, `P1 < 15 min`); None for words without a number."""
    found = re.search(r"< (\d+) (min|hour)", response_time)
    return int(found[1]) * {"min": 60.0, "hour": 3600.0}[found[2]] if found else None


def table(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    found = Table(title="Drills: seconds since the fault", title_justify="left", min_width=100)
    for name in ("", "drill", "alert", "people have", "fires", "effect", "proven", "ended"):
        found.add_column(name, justify="right" if name in ("fires", "effect", "proven") else "left", overflow="fold")
    for row in rows:
        mark = Text("ok", style="green") if row.held else Text("NOT SO", style="bold red")
        effect = "untouched" if row.untouched and row.effect is None else _seconds(row.effect)
        found.add_row(
            mark, row.drill, row.alert, row.response, _seconds(row.firing), effect, _seconds(row.proven), row.ended
        )
    return found


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def write(rows: Sequence[Row], path: Path) -> None:
    """The rows as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
