"""The rules of Grafana's dashboard-linter, as one table of functions over a dashboard's JSON.

In: a dashboard. Out: findings: rule, panel, query, and what is wrong. The rules have the names of dashboard-linter
(github.com/grafana/dashboard-linter, read at its version 0.2), and say the same of Prometheus dashboards; `.lint` beside
the dashboards holds the exclusions in its format, so that the linter itself can be run over the folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml
from grafana_foundation_sdk.models import units

from dashboards.queries import FOLDER, filled, panels

Json = Mapping[str, Any]
SOURCES = frozenset({"$datasource", "${datasource}", "$prometheus_datasource", "${prometheus_datasource}"})
DESCRIBED = frozenset({"stat", "singlestat", "graph", "table", "timeseries", "gauge"})
SOURCED = frozenset({"singlestat", "graph", "table", "timeseries"})
UNITS = frozenset(value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str))
_FUNCTION = re.compile(r"([a-z_]+)\((.+)\)")
_LABEL_VALUES = re.compile(r"^(.*?),?\s*([a-zA-Z_]\w*)$")
_VARIABLE_FUNCTIONS = frozenset({"label_names", "label_values", "metrics", "query_result"})
_COUNTING = frozenset({"rate", "irate", "increase"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule objects to. `place` is the number among the panel's queries; None: of the panel or dashboard."""

    rule: str
    dashboard: str
    says: str
    panel: str = ""
    place: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A query of a panel, as the rules of queries see it. `tree` is None when it does not parse."""

    panel: str
    place: int
    expr: str
    tree: Any
    says: str


def targets(dashboard: Json) -> Iterator[Target]:
    """Every query, parsed with the variables filled in by their own names, so that a matcher still shows which."""
    for panel in panels(dashboard):
        for place, target in enumerate(panel.get("targets", ())):
            expr = str(target.get("expr", ""))
            try:
                yield Target(panel["title"], place, expr, promql.parse(expr.replace("$__rate_interval", "1m")), "")
            except ValueError as error:
                yield Target(panel["title"], place, expr, None, str(error))


def variables(dashboard: Json) -> list[Json]:
    """The dashboard's variables."""
    return list(dashboard.get("templating", {}).get("list", ()))


# ---- the dashboard ---------------------------------------------------------------------------------------------------


def template_datasource(dashboard: Json) -> Iterator[str]:
    """There is exactly one variable that chooses a data source, by the expected name and label."""
    found = [each for each in variables(dashboard) if each["type"] == "datasource"]
    if len(found) != 1:
        yield f"{len(found)} variables choose a data source, not one"
        return
    if found[0]["name"] not in ("datasource", f"{found[0]['query']}_datasource"):
        yield f"the data source's variable is called {found[0]['name']}"
    if found[0].get("label") != "Data source":
        yield f"the data source's variable is labelled {found[0].get('label')}"


def _template(name: str) -> Callable[[Json], Iterator[str]]:
    def rule(dashboard: Json) -> Iterator[str]:
        found = [each for each in variables(dashboard) if each["name"] == name]
        if not found:
            yield f"there is no variable {name}"
            return
        wrong = {
            "type": found[0]["type"] != "query",
            "data source": (found[0].get("datasource") or {}).get("uid") not in SOURCES,
            "label": found[0].get("label") != name.title(),
            "choice of several": not found[0].get("multi"),
            "value for all": found[0].get("allValue") != ".+",
        }
        yield from (f"the variable {name} has the wrong {what}" for what, so in wrong.items() if so)

    return rule


def template_label_promql(dashboard: Json) -> Iterator[str]:
    """The queries of variables are ones that Grafana knows, and parse."""
    for each in variables(dashboard):
        if each["type"] != "query":
            continue
        found = _FUNCTION.fullmatch(str(each.get("query", "")))
        if not found or found.group(1) not in _VARIABLE_FUNCTIONS:
            yield f"the variable {each['name']} asks {each.get('query')!r}"
            continue
        inner = _LABEL_VALUES.fullmatch(found.group(2)) if found.group(1) == "label_values" else None
        expr = inner.group(1) if inner else found.group(2)
        try:
            promql.parse(filled(expr) or "up")
        except ValueError as error:
            yield f"the variable {each['name']} does not parse: {error}"


def template_on_time_change_reload(dashboard: Json) -> Iterator[str]:
    """Variables are read anew when the time range changes: a service of yesterday can then be chosen."""
    for each in variables(dashboard):
        if each["type"] == "query" and each.get("refresh") != 2:
            yield f"the variable {each['name']} is not read anew when the time changes"


def uneditable(dashboard: Json) -> Iterator[str]:
    """Nobody edits it in the browser: the next start would take that away."""
    if dashboard.get("editable") is not False:
        yield "it can be edited"


# ---- panels ----------------------------------------------------------------------------------------------------------


def panel_datasource(panel: Json) -> Iterator[str]:
    """The panel asks the chosen data source."""
    uid = (panel.get("datasource") or {}).get("uid")
    if panel["type"] in SOURCED and uid not in SOURCES:
        yield f"it asks the data source {uid}"


def panel_title_description(panel: Json) -> Iterator[str]:
    """The panel says what it shows."""
    if panel["type"] in DESCRIBED:
        yield from (f"it has no {part}" for part in ("title", "description") if not panel.get(part))


def panel_units(panel: Json) -> Iterator[str]:
    """The panel has a unit that Grafana knows; one whose values are words needs none."""
    options = panel.get("fieldConfig", {}).get("defaults", {})
    if panel["type"] in DESCRIBED and not options.get("mappings") and options.get("unit") not in UNITS:
        yield f"its unit is {options.get('unit')}"


def panel_no_targets(panel: Json) -> Iterator[str]:
    """The panel asks something."""
    if panel["type"] in DESCRIBED and not panel.get("targets"):
        yield "it asks nothing"


# ---- queries ---------------------------------------------------------------------------------------------------------


def target_logql(target: Target) -> Iterator[str]:
    """No query is one of Loki: there is none here, and Prometheus would not take it."""
    if re.search(r'\|[=~]\s*["`]|\|\s*(json|logfmt|unwrap)\b', target.expr):
        yield "it is a query of Loki"


def target_logql_auto(target: Target) -> Iterator[str]:
    """`$__auto` is Loki's range."""
    if "$__auto" in target.expr:
        yield "it has a range of Loki"


def target_promql(target: Target) -> Iterator[str]:
    """It parses."""
    if target.tree is None:
        yield f"it does not parse: {target.says}"


def target_rate_interval(target: Target) -> Iterator[str]:
    """A rate is over Grafana's interval, which follows zoom and scrape interval."""
    for found in re.finditer(r"\b(?:i?rate)\s*\((?:[^()\[\]]*)\[([^\]]+)\]", target.expr):
        if found.group(1) != "$__rate_interval":
            yield f"its rate is over {found.group(1)}"


def _target_matcher(name: str) -> Callable[[Target], Iterator[str]]:
    def rule(target: Target) -> Iterator[str]:
        for selector in selectors(target.tree):
            found = [each for each in selector.matchers.matchers if each.name == name]
            right = [each for each in found if each.op == promql.MatchOp.Re and each.value == f"${name}"]
            if not right:
                yield f'{selector.name or selector} has no {name}=~"${name}"'

    return rule


def target_counter_agg(target: Target) -> Iterator[str]:
    """A counter's own value says nothing; its rise does."""
    for node, above in _walk(target.tree, ()):
        if not isinstance(node, promql.VectorSelector) or not str(node.name or "").endswith("_total"):
            continue
        call = above[-2] if len(above) >= 2 and isinstance(above[-1], promql.MatrixSelector) else None
        if not (isinstance(call, promql.Call) and call.func.name in _COUNTING):
            yield f"{node.name} is not within rate, irate or increase"


def selectors(tree: Any) -> list[Any]:
    """All vector selectors of an expression; none of one that does not parse."""
    return [node for node, _ in _walk(tree, ()) if isinstance(node, promql.VectorSelector)]


def _walk(node: Any, above: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    if node is None:
        return
    yield node, above
    inside = [getattr(node, part, None) for part in ("lhs", "rhs", "expr", "param", "vector_selector")]
    for inner in (*inside, *(getattr(node, "args", None) or ())):
        if inner is not None:
            yield from _walk(inner, (*above, node))


# ---- the table -------------------------------------------------------------------------------------------------------

DASHBOARD_RULES: Mapping[str, Callable[[Json], Iterator[str]]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": _template("job"),
    "template-instance-rule": _template("instance"),
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "uneditable-dashboard": uneditable,
}
PANEL_RULES: Mapping[str, Callable[[Json], Iterator[str]]] = {
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
}
TARGET_RULES: Mapping[str, Callable[[Target], Iterator[str]]] = {
    "target-logql-rule": target_logql,
    "target-logql-auto-rule": target_logql_auto,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": _target_matcher("job"),
    "target-instance-rule": _target_matcher("instance"),
    "target-counter-agg-rule": target_counter_agg,
}


def findings(dashboard: Json) -> Iterator[Finding]:
    """Everything that the rules object to, exclusions not heeded."""
    title = str(dashboard["title"])
    for rule, judge in DASHBOARD_RULES.items():
        yield from (Finding(rule, title, says) for says in judge(dashboard))
    for panel in panels(dashboard):
        for rule, judge in PANEL_RULES.items():
            yield from (Finding(rule, title, says, str(panel.get("title", ""))) for says in judge(panel))
    for target in targets(dashboard):
        for rule, look in TARGET_RULES.items():
            yield from (Finding(rule, title, says, target.panel, target.place) for says in look(target))


def exclusions(folder: Path = FOLDER) -> Mapping[str, Json]:
    """What `.lint` excludes, by rule."""
    path = folder / ".lint"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return dict(content.get("exclusions", {}))


def excluded(found: Finding, rules: Mapping[str, Json]) -> bool:
    """Whether an entry names it: dashboard, panel and query, as dashboard-linter compares them."""
    return any(
        entry["dashboard"] == found.dashboard
        and entry.get("panel", "") == found.panel
        and int(entry["targetIdx"]) == found.place
        for entry in rules.get(found.rule, {}).get("entries", ())
    )
