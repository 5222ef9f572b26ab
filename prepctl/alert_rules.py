"""Which alerts a folder of Prometheus rule files can make, with which labels. Files only, no server.

In: rule files. Out: rules, and for each whether its alerts can have a label, or a label with a value. What cannot be
known from the files (the labels of a metric) counts as possible: a "no" is certain, a "yes" is not.
Source: prometheus.io/docs/prometheus/latest/querying/operators (which labels a result keeps).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

from remediator.errors import ConfigError, Fault
from remediator.runbooks import text_of

SELECT = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
"""Aggregations that keep the series as they are."""
MAKE = frozenset({"label_replace", "label_join"})
NO_LABELS = frozenset({"time", "vector", "scalar", "pi"})
Node = Any  # an expression of promql_parser


@dataclass(frozen=True)
class Rule:
    """One alerting or recording rule: its name, the labels that it puts on, and its expression."""

    name: str
    labels: Mapping[str, str]
    expression: Node
    alerting: bool


@dataclass(frozen=True)
class Rules:
    """All rules of a folder."""

    rules: tuple[Rule, ...]

    def alerts(self, name: str) -> list[Rule]:
        """The alerting rules of this name."""
        return [rule for rule in self.rules if rule.alerting and rule.name == name]

    def can_have(self, rule: Rule, label: str, value: str | None = None) -> bool:
        """Can a sample of this rule have the label, with this value if one is given?"""
        return self._rule(rule, label, value, frozenset())

    def _rule(self, rule: Rule, label: str, value: str | None, seen: frozenset[str]) -> bool:
        fixed = rule.labels.get(label)
        if fixed is not None:
            return bool(fixed) and (value is None or "{{" in fixed or fixed == value)
        return self._can(rule.expression, label, value, seen)

    def _can(self, node: Node, label: str, value: str | None, seen: frozenset[str]) -> bool:
        match node:
            case promql.VectorSelector():
                return self._selected(node, label, value, seen)
            case promql.MatrixSelector():
                return self._selected(node.vector_selector, label, value, seen)
            case promql.AggregateExpr():
                return self._aggregated(node, label, value, seen)
            case promql.BinaryExpr():
                return self._joined(node, label, value, seen)
            case promql.Call():
                return self._called(node, label, value, seen)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self._can(node.expr, label, value, seen)
            case _:
                return False

    def _selected(self, node: Node, label: str, value: str | None, seen: frozenset[str]) -> bool:
        matchers = [each for each in node.matchers.matchers if each.name == label]
        if value is not None and not all(_agrees(each, value) for each in matchers):
            return False
        if value is None and any(each.op == promql.MatchOp.Equal and each.value == "" for each in matchers):
            return False
        recorded = [rule for rule in self.rules if not rule.alerting and rule.name == node.name]
        if not recorded or node.name in seen:
            return True
        return any(self._rule(rule, label, value, seen | {node.name}) for rule in recorded)

    def _aggregated(self, node: Node, label: str, value: str | None, seen: frozenset[str]) -> bool:
        kind, modifier = str(node.op), node.modifier
        if kind == "count_values" and node.param.val == label:
            return True
        listed = modifier is not None and label in modifier.labels
        by = modifier is None or modifier.type == promql.AggModifierType.By
        kept = kind in SELECT or listed == by
        return kept and self._can(node.expr, label, value, seen)

    def _joined(self, node: Node, label: str, value: str | None, seen: frozenset[str]) -> bool:
        left, right = (self._can(side, label, value, seen) for side in (node.lhs, node.rhs))
        kind, modifier = str(node.op), node.modifier
        if kind in ("and", "unless"):
            return left
        if kind == "or" or _is_scalar(node.lhs) or _is_scalar(node.rhs):
            return left or right
        if modifier is None or modifier.matching is None:
            return left
        if label in (modifier.group_labels or ()):
            return left or right
        if modifier.card == promql.VectorMatchCardinality.ManyToOne:
            return left
        if modifier.card == promql.VectorMatchCardinality.OneToMany:
            return right
        on = modifier.matching.type == promql.LabelModifierType.Include
        return left and on == (label in modifier.matching.labels)

    def _called(self, node: Node, label: str, value: str | None, seen: frozenset[str]) -> bool:
        name = node.func.name
        if name in MAKE and node.args[1].val == label:
            return True
        if name in NO_LABELS or (name == "histogram_quantile" and label == "le"):
            return False
        if name in ("absent", "absent_over_time"):
            equal = [each for each in _matchers(node.args[0]) if each.op == promql.MatchOp.Equal and each.name == label]
            return any(value is None or each.value == value for each in equal)
        return any(self._can(each, label, value, seen) for each in node.args)


def read(folder: Path) -> Rules:
    """Every rule file of a folder (`*.rules.yml`, or all `*.yml` where there is none). Raises ConfigError."""
    files = sorted(folder.glob("*.rules.yml")) or sorted(folder.glob("*.yml"))
    if not files:
        raise ConfigError([Fault(str(folder), "no rule file here", "give the folder that holds Prometheus' rules")])
    return Rules(tuple(rule for path in files for rule in _read(path)))


def _read(path: Path) -> Iterator[Rule]:
    try:
        groups = (yaml.safe_load(text_of(path, str(path))) or {}).get("groups") or []
        for rule in (each for group in groups for each in group["rules"]):
            name = rule.get("alert") or rule["record"]
            labels = {key: str(value) for key, value in (rule.get("labels") or {}).items()}
            yield Rule(name, labels, promql.parse(str(rule["expr"])), "alert" in rule)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        said = f"is no file of rules: {' '.join(str(error).split())}"
        raise ConfigError([Fault(str(path), said, "promtool check rules says more")]) from error


def _matchers(node: Node) -> Sequence[Any]:
    selector = getattr(node, "vector_selector", node)
    return selector.matchers.matchers if isinstance(selector, promql.VectorSelector) else ()


def _agrees(matcher: Any, value: str) -> bool:
    match matcher.op:
        case promql.MatchOp.Equal:
            return bool(matcher.value == value)
        case promql.MatchOp.NotEqual:
            return bool(matcher.value != value)
        case _:
            found = re.fullmatch(matcher.value, value) is not None
            return bool(found == (matcher.op == promql.MatchOp.Re))


def _is_scalar(node: Node) -> bool:
    while isinstance(node, promql.ParenExpr | promql.UnaryExpr):
        node = node.expr
    if isinstance(node, promql.BinaryExpr):
        return _is_scalar(node.lhs) and _is_scalar(node.rhs)
    return isinstance(node, promql.NumberLiteral) or (isinstance(node, promql.Call) and node.func.name in NO_LABELS)
