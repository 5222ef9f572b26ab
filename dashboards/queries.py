"""What the committed dashboards ask, as PromQL that Prometheus takes.

In: the JSON of a dashboard. Out: its panels, folded rows included, and their queries, with the dashboard's variables
filled in as Grafana does it when everything is chosen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboards.limits import ROOT

FOLDER = ROOT / "grafana" / "dashboards"
ALL = ".+"
RATE_INTERVAL = "1m"
"""Grafana's: at least four scrapes of 15 s."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel. `dashboard` is its uid, `place` the number among the panel's queries."""

    dashboard: str
    panel: str
    place: int
    expr: str
    legend: str
    instant: bool


def committed(folder: Path = FOLDER) -> Mapping[str, dict[str, Any]]:
    """The dashboards of a folder by their uid."""
    read = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return {dashboard["uid"]: dashboard for dashboard in read}


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel that shows something, in the order of the page."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", ())
        else:
            yield panel


def queries(dashboard: Mapping[str, Any]) -> Iterator[Query]:
    """Every query of every panel."""
    for panel in panels(dashboard):
        for place, target in enumerate(panel.get("targets", ())):
            legend = str(target.get("legendFormat", ""))
            instant = bool(target.get("instant", False))
            yield Query(dashboard["uid"], panel["title"], place, target["expr"], legend, instant)


def filled(expr: str, *, rate_interval: str = RATE_INTERVAL, **chosen: str) -> str:
    """The expression with every variable's value in it; what is not chosen is all."""
    values = {"job": ALL, "instance": ALL, "service": ALL, **chosen, "__rate_interval": rate_interval}
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(f"${name}", values[name])
    return expr
