"""Thresholds are the alerts' own numbers, read out of alert-rules/.

In: the rule files, the name of an alert, and what it compares. Out: the number. It must never hold a number itself: a
panel that is yellow where no alert is pending teaches people to look away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "alert-rules"
ABOVE, BELOW = frozenset({">", ">="}), frozenset({"<", "<="})


class LimitError(Exception):
    """No alert of that name, or none that compares this with one number."""


@dataclass(frozen=True, slots=True)
class Limit:
    """From `value` on (below it, when `below`) the alert is pending. `severity` is P0 to P4."""

    alert: str
    value: float
    severity: str
    below: bool


class Rules:
    """The rule files of a folder, read once."""

    def __init__(self, folder: Path = RULES) -> None:
        self._alerts: list[dict[str, Any]] = []
        for path in sorted(folder.glob("*.rules.yml")):
            # libyaml's loader where PyYAML has it: ten times as quick, and as safe.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            content = yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506
            self._alerts += [rule for group in content["groups"] for rule in group["rules"] if "alert" in rule]

    def above(self, alert: str, *compared: str) -> Limit:
        """The number above which the alert's expression holds of what reads all these series.

        Of several alerts of one name, `compared` may also hold a label's value (`slo="payments-success"`).
        """
        return self._limit(alert, compared, ABOVE)

    def below(self, alert: str, *compared: str) -> Limit:
        """The same, of an alert that fires below a number."""
        return self._limit(alert, compared, BELOW)

    def _limit(self, alert: str, compared: tuple[str, ...], operators: frozenset[str]) -> Limit:
        rules = [rule for rule in self._alerts if rule["alert"] == alert]
        found = {
            (value, str(rule["labels"]["severity"]))
            for rule in rules
            for value in _compared(promql.parse(rule["expr"]), compared, operators)
        }
        if len(found) != 1:
            values = sorted(value for value, _ in found)
            raise LimitError(
                f"{alert} compares {' and '.join(compared)} with {values or 'nothing'}, not with one number"
            )
        value, severity = found.pop()
        return Limit(alert, value, severity, operators is BELOW)


def _compared(node: Any, compared: tuple[str, ...], operators: frozenset[str]) -> Iterator[float]:
    """Every number with which the expression compares what reads all of `compared`."""
    if isinstance(node, promql.BinaryExpr) and str(node.op) in operators:
        number = number_of(node.rhs)
        if number is not None and all(each in str(node.lhs) for each in compared):
            yield number
    for part in ("lhs", "rhs", "expr", "param"):
        inner = getattr(node, part, None)
        if inner is not None:
            yield from _compared(inner, compared, operators)
    for inner in getattr(node, "args", None) or ():
        yield from _compared(inner, compared, operators)


def number_of(node: Any) -> float | None:
    """The value of a literal or of a product of literals; None of anything else."""
    if isinstance(node, promql.NumberLiteral):
        return float(node.val)
    if isinstance(node, promql.ParenExpr):
        return number_of(node.expr)
    if isinstance(node, promql.BinaryExpr) and str(node.op) == "*":
        factors = (number_of(node.lhs), number_of(node.rhs))
        return None if None in factors else float(factors[0] or 0) * float(factors[1] or 0)
    return None
