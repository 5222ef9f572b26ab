"""The page docs/remediator-metrics.md, made from the registry that the remediator serves.

`python scripts/remediator_metrics_docs.py` writes it; `--check` compares, with exit code 1 when it differs. In: a
registry, `alert-rules/`. Out: one Markdown page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from page import keep

from remediator.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "remediator-metrics.md"
_HEAD = """\
# Metrics of the remediator

Made from `remediator/metrics.py` by `python scripts/remediator_metrics_docs.py`; a test holds them equal.

Served at `/metrics` of `listen.address`. Units are base units. Points in time are UNIX seconds, so an age is
`time() - x`; a point in time that does not exist is absent, never 0. A label has a closed set of values, or values that
are names out of runbooks and configuration. Counters are of this process and begin at 0 with it, for every value of a
closed set: what must outlast a restart is in the journal, not here. Replicas on one journal tell the same of what the
journal holds (`max`), and each its own of what it did (`sum`).

| Metric | Kind | Meaning, and by which label | Alerts on it |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    told = _alerts()
    return _HEAD + "".join(sorted(_row(*each, told) for each in families()))


def families() -> Iterator[tuple[str, str, str]]:
    """Name as it is queried, kind and meaning of each."""
    for metric in Metrics(version="docs").registry.collect():
        yield metric.name + ("_total" if metric.type == "counter" else ""), metric.type, metric.documentation


def _alerts() -> Mapping[str, str]:
    """Expressions of all rules by alert."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "alert-rules").glob("*.rules.yml")):
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in data["groups"]:
            found |= {rule["alert"]: str(rule["expr"]) for rule in group["rules"] if "alert" in rule}
    return found


def _row(name: str, kind: str, meaning: str, told: Mapping[str, str]) -> str:
    series = rf"\b{name}_(?:bucket|count|sum)\b" if kind == "histogram" else rf"\b{name}\b"
    alerts = [f"[{alert}](alerts/{alert}.md)" for alert, expression in told.items() if re.search(series, expression)]
    return f"| `{name}` | {kind} | {meaning} | {', '.join(alerts) or '—'} |\n"


if __name__ == "__main__":
    sys.exit(keep(PAGE, page(), "remediator_metrics_docs.py"))
