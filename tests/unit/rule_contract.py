"""What a rule may read: every metric that something really gives, with its labels, and what an expression asks of them.

In: PromQL. Out: a list of sentences about what it asks and nobody gives; empty when all is well. The sources: the
exporter's catalog (the services' request metrics are in it), the remediator's own registry, the switch's table, the
rules' recordings, and the pinned lists of other people's programs in tests/data/third_party (scripts/third_party_metrics.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import promql_parser as promql

from exporter.catalog import COLLECTORS, METRICS
from remediator.metrics import Metrics
from switch.metrics import SERIES as SWITCH
from tests.unit.rule_files import ROOT, rules

TARGET_LABELS = frozenset({"job", "instance", "service"})
"""On every series: Prometheus' own two, and the `service` that a scrape configuration gives to a target."""
NEWER = {"alertmanager_notifications_failed_total": {"reason"}}
"""Labels that a later version than the pinned one has, where a rule must work with both: Alertmanager 0.26."""
NEWER_METRICS = {"prometheus_tsdb_retention_limit_seconds": "gauge"}
"""Metrics of a later version (Prometheus since its pull request 12986 of October 2023), where a rule has an `or` for
versions without them."""
PINNED = sorted((ROOT / "tests" / "data" / "third_party").glob("*.json"))
_PARTS = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}
_INNER = {"_bucket": "le", "": "quantile"}

Values = frozenset[str] | None


@dataclass(frozen=True)
class Known:
    """One series name: kind of its family, and its labels with their closed sets (None: open)."""

    kind: str
    labels: Mapping[str, Values]
    source: str


@dataclass(frozen=True)
class Range:
    """A range of time that an expression reads of one name."""

    name: str
    length: timedelta


def _enter(found: dict[str, Known], name: str, kind: str, labels: Mapping[str, Values], source: str) -> None:
    for part in _PARTS.get(kind, ("",)):
        inner = _INNER[part] if part in _INNER and kind in _PARTS else None
        found[name + part] = Known(kind, {**labels, **({inner: None} if inner else {})}, source)


@cache
def given() -> Mapping[str, Known]:
    """Every series name that something gives, recordings not counted."""
    found: dict[str, Known] = {}
    for metric in METRICS.values():
        labels = {each.name: None if each.values is None else frozenset(each.values) for each in metric.labels}
        if "collector" in labels:
            labels["collector"] = frozenset(COLLECTORS)
        _enter(found, metric.name, metric.kind, labels, "catalog")
        if metric.buckets:
            bounds = frozenset({"+Inf", *map(str, metric.buckets), *(f"{bound:g}" for bound in metric.buckets)})
            bucket = found[f"{metric.name}_bucket"]
            found[f"{metric.name}_bucket"] = Known(bucket.kind, {**bucket.labels, "le": bounds}, "catalog")
    for collector in set(Metrics(version="0").registry._names_to_collectors.values()):
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            own: Any = getattr(collector, "_labelnames", ())
            _enter(found, name, family.type, dict.fromkeys(own), "remediator")
    for name, kind in SWITCH.items():
        _enter(found, name, kind, {}, "switch")
    for name, kind in NEWER_METRICS.items():
        _enter(found, name, kind, {}, "prometheus")
    for path in PINNED:
        pinned = json.loads(path.read_text(encoding="utf-8"))
        for name, each in pinned["metrics"].items():
            labels = dict.fromkeys({*each["labels"], *NEWER.get(name, ())})
            if name not in found:
                _enter(found, name, each["type"], labels, pinned["program"])
    return found


@cache
def recordings() -> Mapping[str, tuple[tuple[str, frozenset[str]], ...]]:
    """Expressions and fixed labels of the rules that record each name."""
    found: dict[str, list[tuple[str, frozenset[str]]]] = {}
    for rule in rules():
        if "record" in rule:
            found.setdefault(rule["record"], []).append((rule["expr"], frozenset(rule.get("labels", {}))))
    return {name: tuple(each) for name, each in found.items()}


@cache
def recorded_labels(name: str) -> frozenset[str]:
    """Labels that a recording can have at most: those of what it reads, and what it puts on itself."""
    labels: set[str] = set()
    for expr, fixed in recordings()[name]:
        labels |= fixed | available(promql.parse(expr))
    return frozenset(labels)


def children(node: Any) -> Iterator[Any]:
    """The expressions directly inside one."""
    for part in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inner = getattr(node, part, None)
        if inner is not None:
            yield inner
    yield from getattr(node, "args", None) or ()


def walk(node: Any) -> Iterator[Any]:
    """The node and everything inside it."""
    yield node
    for inner in children(node):
        yield from walk(inner)


def selectors(node: Any) -> list[Any]:
    """All vector selectors of an expression."""
    return [each for each in walk(node) if isinstance(each, promql.VectorSelector)]


def named(selector: Any) -> str:
    """The name that a selector asks for; empty when it asks for none or by a pattern."""
    if selector.name:
        return str(selector.name)
    return next((each.value for each in selector.matchers.matchers if each.name == "__name__"), "")


def made(node: Any) -> frozenset[str]:
    """Labels that label_replace, label_join and count_values inside put on the result."""
    names: set[str] = set()
    for each in walk(node):
        if isinstance(each, promql.Call) and each.func.name in ("label_replace", "label_join"):
            names.add(each.args[1].val)
        if isinstance(each, promql.AggregateExpr) and isinstance(each.param, promql.StringLiteral):
            names.add(each.param.val)
    return frozenset(names)


def available(node: Any) -> frozenset[str]:
    """Every label that a series of this expression can have."""
    labels = set(TARGET_LABELS) | made(node)
    for selector in selectors(node):
        name = named(selector)
        if name in recordings():
            labels |= recorded_labels(name)
        elif name in given():
            labels |= given()[name].labels.keys()
        # `up{service="x"}`: a label that the expression itself asks for is judged where the matcher is.
        labels |= {each.name for each in selector.matchers.matchers}
    return frozenset(labels)


def _grouping(node: Any) -> list[str]:
    """Labels in by, without, on, ignoring, group_left and group_right of this node itself."""
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql.AggregateExpr):
        return list(modifier.labels) if modifier else []
    if not isinstance(node, promql.BinaryExpr) or modifier is None:
        return []
    return [*(modifier.matching.labels if modifier.matching else ()), *(modifier.group_labels or ())]


def _matched(matcher: Any, values: Values) -> bool:
    """Whether the values that a matcher names are in the closed set: each alternative of a pattern at least once."""
    if values is None or matcher.value == "":
        return True
    if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual):
        return matcher.value in values
    if re.fullmatch(r"[\w|.\\+-]+", matcher.value) and r"\." not in matcher.value and ".+" not in matcher.value:
        return all(any(re.fullmatch(part, value) for value in values) for part in matcher.value.split("|"))
    return any(re.fullmatch(matcher.value, value) for value in values)


def problems(expr: str) -> list[str]:
    """What an expression asks for that nobody gives: names, labels, label values; and rates of what is no counter."""
    tree = promql.parse(expr)
    found: list[str] = []
    for selector in selectors(tree):
        found += _selector_problems(selector)
    for node in walk(tree):
        inside = available(node)
        found += [f"nothing in `{node}` has the label {label}" for label in _grouping(node) if label not in inside]
        if isinstance(node, promql.Call) and node.func.name in ("rate", "increase", "irate"):
            name = named(node.args[0].vector_selector) if hasattr(node.args[0], "vector_selector") else ""
            known = given().get(name)
            if known is None or known.kind not in ("counter", "histogram", "summary"):
                found.append(f"{node.func.name}() of {name or 'an expression'}, which is no counter")
    return found


def _selector_problems(selector: Any) -> list[str]:
    name = named(selector)
    if name in recordings():
        labels: Mapping[str, Values] = dict.fromkeys(recorded_labels(name))
    elif name in given():
        labels = given()[name].labels
    else:
        return [f"{name or selector} is given by nothing and recorded nowhere"]
    found = []
    for matcher in selector.matchers.matchers:
        if matcher.name == "__name__" or matcher.name in TARGET_LABELS:
            continue
        if matcher.name not in labels:
            found.append(f"{name} has no label {matcher.name}")
        elif not _matched(matcher, labels[matcher.name]):
            found.append(f"{name} never has {matcher.name} {matcher.value!r}")
    return found


def ranges(expr: str) -> list[Range]:
    """Every range and subquery of an expression, by the name that it reads."""
    found = []
    for node in walk(promql.parse(expr)):
        if isinstance(node, promql.MatrixSelector):
            found.append(Range(named(node.vector_selector), node.range))
        elif isinstance(node, promql.SubqueryExpr):
            found += [Range(named(each), node.range) for each in selectors(node)]
    return found
