"""The committed dashboards: made by their builders, by dashboard-linter's rules, with the alerts' own numbers."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import __main__ as command
from dashboards import lint
from dashboards.limits import RULES, LimitError, Rules
from dashboards.parts import CONSOLE
from dashboards.queries import committed, filled, panels, queries
from tests.support.panels import named_alerts, steps
from tests.unit.rule_contract import given, named, problems, promql, recordings, selectors
from tests.unit.rule_files import ROOT, alerts, read, rules

COMMITTED = committed()
UIDS = ("golden-signals", "service-health", "business-metrics", "remediation", "slo")
QUERIES = [query for uid in UIDS for query in queries(COMMITTED[uid])]
PANELS = [(uid, panel) for uid in UIDS for panel in panels(COMMITTED[uid])]


def test_the_files_are_what_the_builders_make() -> None:
    """No edit by hand, none forgotten."""
    assert {path.name: path.read_text() for path in (ROOT / "grafana" / "dashboards").iterdir()} == command.files()
    assert command.main(["--check"]) == 0
    assert set(COMMITTED) == set(UIDS)


@pytest.mark.parametrize("uid", UIDS)
def test_the_schema_holds(uid: str) -> None:
    """What the SDK reads into its classes and writes again is what was there: no field that Grafana does not know, but for
    the words on annotations, which the SDK leaves out."""
    dashboard = copy.deepcopy(dict(COMMITTED[uid]))
    for each in dashboard["annotations"]["list"]:
        for words in ("titleFormat", "textFormat", "step", "useValueForTime"):
            assert isinstance(each.pop(words), str)
    again = json.loads(command.JSONEncoder().encode(Dashboard.from_json(copy.deepcopy(dashboard))))
    assert again == dashboard


def test_they_are_provisioned_by_file() -> None:
    """Grafana reads the folder that compose mounts, on the handbook's port; nobody edits them there."""
    provider = read(ROOT / "grafana" / "provisioning" / "dashboards" / "prep-ops.yml")["providers"][0]
    grafana = read(ROOT / "docker-compose.yml")["services"]["grafana"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert provider["allowUiUpdates"] is False
    assert grafana["ports"] == ["127.0.0.1:${PREP_PORT_GRAFANA:-3001}:3000"]
    texts = [(ROOT / "grafana" / "dashboards" / f"{uid}.json").read_text() for uid in UIDS]
    assert not any("__inputs" in each or "DS_PROMETHEUS" in each for each in texts)


def test_the_page_lists_every_dashboard_and_row() -> None:
    """docs/dashboards.md is what a reader finds in Grafana, folded rows in italics."""
    page = (ROOT / "docs" / "dashboards.md").read_text()
    listed = {
        line.split("`")[1].removeprefix("/d/"): line.split(" | ")[-1].rstrip(" |")
        for line in page.splitlines()
        if line.startswith("| `/d/")
    }
    rows = {
        uid: " · ".join(
            f"*{row['title']}*" if row["collapsed"] else row["title"]
            for row in COMMITTED[uid]["panels"]
            if row["type"] == "row"
        )
        for uid in UIDS
    }
    assert listed == rows


# ---- dashboard-linter's rules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", UIDS)
def test_the_linter_has_no_objection(uid: str) -> None:
    """All 17 rules, but for what `.lint` excludes with its reason."""
    assert len({**lint.DASHBOARD_RULES, **lint.PANEL_RULES, **lint.TARGET_RULES}) == 17
    excluded = lint.exclusions()
    assert [found for found in lint.findings(COMMITTED[uid]) if not lint.excluded(found, excluded)] == []


def test_exclusions_are_needed_and_allowed() -> None:
    """An exclusion covers a query whose objectionable selectors are all recorded, or ALERTS: these have no such label.

    And there is none that nothing needs.
    """
    found = [each for uid in UIDS for each in lint.findings(COMMITTED[uid])]
    excluded = lint.exclusions()
    assert set(excluded) == {"target-instance-rule", "target-job-rule"}
    for rule, content in excluded.items():
        assert len(content["reason"]) > 40
        needed = {(each.dashboard, each.panel, each.place) for each in found if each.rule == rule}
        assert needed == {(each["dashboard"], each["panel"], int(each["targetIdx"])) for each in content["entries"]}
    for each in found:
        series = each.says.split(" has no ")[0]
        allowed = (
            ("ALERTS", "slo:")
            if each.rule == "target-job-rule"
            else ("ALERTS", "slo:", "service:", "path:", "collector:")
        )
        assert series.startswith(allowed), each


def good() -> dict[str, Any]:
    """A dashboard that no rule objects to."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    choice = {"type": "query", "datasource": source, "multi": True, "allValue": ".+", "refresh": 2}
    panel = {
        "type": "timeseries",
        "title": "Clients",
        "description": "How many.",
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": "short"}},
        "targets": [{"expr": 'sum(rate(x_total{job=~"$job", instance=~"$instance"}[$__rate_interval]))'}],
    }
    return {
        "title": "Good",
        "editable": False,
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"},
                {**choice, "name": "job", "label": "Job", "query": "label_values(up, job)"},
                {**choice, "name": "instance", "label": "Instance", "query": 'label_values(up{job=~"$job"}, instance)'},
            ]
        },
        "panels": [{"type": "row", "title": "Row", "panels": [panel]}],
    }


def plant(path: str, value: object) -> dict[str, Any]:
    """The good dashboard with one value changed; `path` by dots, the panel is `panel`. None takes the value away."""
    dashboard = good()
    steps = path.replace("panel.", "panels.0.panels.0.").replace("variable.", "templating.list.").split(".")
    inner: Any = dashboard
    for step in steps[:-1]:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    last: Any = int(steps[-1]) if isinstance(inner, list) else steps[-1]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return dashboard


RAW = 'job=~"$job", instance=~"$instance"'
PLANTED = [
    ("template-datasource-rule", "variable.0.name", "DS_PROM"),
    ("template-datasource-rule", "variable.0", None),
    ("template-job-rule", "variable.1.label", "job"),
    ("template-job-rule", "variable.1.allValue", ".*"),
    ("template-instance-rule", "variable.2", None),
    ("template-instance-rule", "variable.2.multi", False),
    ("template-label-promql-rule", "variable.1.query", "label_values(up{job=~, job)"),
    ("template-label-promql-rule", "variable.1.query", "values(up, job)"),
    ("template-on-time-change-reload-rule", "variable.1.refresh", 1),
    ("panel-datasource-rule", "panel.datasource.uid", "prometheus"),
    ("panel-title-description-rule", "panel.description", ""),
    ("panel-title-description-rule", "panel.title", ""),
    ("panel-units-rule", "panel.fieldConfig.defaults.unit", "percents"),
    ("panel-units-rule", "panel.fieldConfig.defaults", {}),
    ("panel-no-targets-rule", "panel.targets", []),
    ("target-logql-rule", "panel.targets.0.expr", '{job="x"} |= "error"'),
    ("target-logql-auto-rule", "panel.targets.0.expr", f"sum(rate(x_total{{{RAW}}}[$__auto]))"),
    ("target-promql-rule", "panel.targets.0.expr", "sum(rate(x_total{[$__rate_interval]))"),
    ("target-rate-interval-rule", "panel.targets.0.expr", f"sum(rate(x_total{{{RAW}}}[5m]))"),
    ("target-job-rule", "panel.targets.0.expr", 'x{instance=~"$instance"}'),
    ("target-job-rule", "panel.targets.0.expr", 'x{job="$job", instance=~"$instance"}'),
    ("target-instance-rule", "panel.targets.0.expr", 'a{job=~"$job", instance=~"$instance"} / b{job=~"$job"}'),
    ("target-counter-agg-rule", "panel.targets.0.expr", f"sum(x_total{{{RAW}}})"),
    ("target-counter-agg-rule", "panel.targets.0.expr", f"max_over_time(x_total{{{RAW}}}[5m])"),
    ("uneditable-dashboard", "editable", True),
]


@pytest.mark.parametrize(("rule", "path", "value"), PLANTED, ids=[f"{rule} {path}" for rule, path, _ in PLANTED])
def test_a_rule_finds_what_it_is_for(rule: str, path: str, value: object) -> None:
    """A rule that finds nothing holds nothing."""
    assert list(lint.findings(good())) == []
    assert rule in {found.rule for found in lint.findings(plant(path, value))}


def test_every_rule_is_planted_against() -> None:
    """None is held by its name alone."""
    assert {rule for rule, _, _ in PLANTED} == {*lint.DASHBOARD_RULES, *lint.PANEL_RULES, *lint.TARGET_RULES}


# ---- habits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", UIDS)
def test_rows_lead_from_health_to_detail(uid: str) -> None:
    """First health in single numbers, then what is wrong now, then trends, then what is folded; and nothing after a fold is
    open."""
    heads: list[tuple[str, bool]] = []
    first: list[str] = []
    for each in COMMITTED[uid]["panels"]:
        if each["type"] == "row":
            heads.append((each["title"], bool(each.get("collapsed"))))
        elif len(heads) == 1:
            first.append(each["type"])
    assert set(first) == {"stat"}
    assert heads[1][0] == "What is wrong now"
    folded = [so for _, so in heads]
    assert folded == sorted(folded)
    assert folded[-1]
    assert not any(folded[:3])


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=[f"{uid}: {panel['title']}" for uid, panel in PANELS])
def test_a_panel_says_what_it_shows(uid: str, panel: Mapping[str, Any]) -> None:
    """A description in words, a unit, and words of its own for "no data"; no number of a panel is another's."""
    options = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 15
    assert panel["description"].endswith(".")
    assert options["unit"]
    assert len(options["noValue"]) > 15
    assert not re.search(r"\bN/?A\b|\bno data\b", options["noValue"], re.IGNORECASE)
    assert sum(each["title"] == panel["title"] for each in panels(COMMITTED[uid])) == 1


def test_dashboards_share_what_a_reader_expects() -> None:
    """Variables, links, annotations and the crosshair are the same in all."""
    for uid in UIDS:
        dashboard = COMMITTED[uid]
        assert [each["name"] for each in dashboard["templating"]["list"]] == [
            "datasource",
            "job",
            "instance",
            "service",
        ]
        assert dashboard["graphTooltip"] == 1
        assert [each["title"] for each in dashboard["links"]] == ["Dashboards", "Console", "Alert pages"]
        names = [each["name"] for each in dashboard["annotations"]["list"]]
        assert names == ["Alerts", "Remediations", "Deployments and restarts"]
        for each in dashboard["annotations"]["list"]:
            assert each["expr"].startswith("ALERTS{") or problems(filled(each["expr"])) == []


def test_links_lead_where_the_alerts_lead() -> None:
    """To the page of an alert that there is, at the address that the alerts themselves name; and theirs to a dashboard here."""
    for uid, panel in PANELS:
        for each in panel.get("links", ()):
            name = each["url"].removeprefix(f"{CONSOLE}/alerts/")
            assert (ROOT / "docs" / "alerts" / f"{name}.md").exists(), (uid, panel["title"])
            assert alerts()[name]["annotations"]["runbook_url"] == each["url"]
    for rule in alerts().values():
        where = re.match(r"http://localhost:3001/d/([a-z-]+)\?var-([a-z]+)=", rule["annotations"]["dashboard_url"])
        assert where is not None, rule["alert"]
        assert where.group(1) in UIDS
        assert where.group(2) in {each["name"] for each in COMMITTED[where.group(1)]["templating"]["list"]}


def test_descriptions_name_alerts_that_there_are() -> None:
    """A word in a panel that looks like an alert's name is one, of Prometheus or of the remediator, and has its page."""
    for _, panel in PANELS:
        words = f"{panel['description']} {panel['fieldConfig']['defaults']['noValue']}"
        for name in re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", words):
            assert name in NO_ALERT or (ROOT / "docs" / "alerts" / f"{name}.md").exists(), (panel["title"], name)


NO_ALERT = {"RegEngine", "PostgreSQL"}
"""Words that look like one."""


@pytest.mark.parametrize("query", QUERIES, ids=[f"{each.dashboard}: {each.panel} {each.place}" for each in QUERIES])
def test_a_query_asks_for_what_there_is(query: Any) -> None:
    """Names, labels and values of the catalog, the recordings or a pinned program; counters only in rates. Both feeds: what the
    four well-known exporters have too is read by its recording, never from ours alone."""
    expr = filled(query.expr)
    promql.parse(expr)
    if "ALERTS{" not in expr:  # Prometheus' own, with whatever labels the rules give
        assert problems(expr) == []


def feeds(expr: str) -> set[str]:
    """Programs that give what an expression reads, through recordings."""
    found: set[str] = set()
    for selector in selectors(promql.parse(expr)):
        name = named(selector)
        if name in recordings():
            found |= set().union(*(feeds(inner) for inner, _ in recordings()[name]))
        elif name in given():
            found.add(given()[name].source)
    return found


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("prometheus-postgres-exporter", {"PostgreSQL", "Saturation: PostgreSQL's connections"}),
        ("prometheus-redis-exporter", {"Redis", "Saturation: Redis' memory", "Saturation: Redis' connections"}),
        ("prometheus-node-exporter", {"Saturation: room on disk"}),
        ("cadvisor", {"Saturation: PostgreSQL's CPU", "CPU of its limit", "Memory of its limit"}),
    ],
)
def test_the_well_known_exporters_feed_the_same_panels(program: str, expected: set[str]) -> None:
    """A team that has them, and not ours, has these golden signals all the same; ours feeds every one of them too."""
    fed = {each.panel: feeds(filled(each.expr)) for each in QUERIES if each.dashboard == "golden-signals"}
    assert {panel for panel, programs in fed.items() if program in programs} == expected
    assert all("catalog" in fed[panel] for panel in expected)


# ---- thresholds --------------------------------------------------------------------------------------------------------


def test_thresholds_are_the_alerts_numbers() -> None:
    """Each number in a panel stands in the expression of an alert that its description names, and each of these gives one."""
    with_limits = 0
    for uid, panel in PANELS:
        names = named_alerts(panel)
        where = (uid, panel["title"])
        assert bool(steps(panel)) == bool(names), where
        assert len(steps(panel)) == len(names), where
        for value in steps(panel):
            assert any(value in numbers(name) for name in names), (*where, value)
        for name in names:
            assert numbers(name) & set(steps(panel)), (*where, name)
        with_limits += len(names)
    assert with_limits > 50


@cache
def numbers(name: str) -> set[float]:
    """Every number that the expressions of the alerts of a name compare with, products reckoned; read as text, not as the
    builders read it."""
    found = set()
    for rule in rules():
        if rule.get("alert") != name:
            continue
        for product in re.findall(r"[<>]=?\s*([\d.]+(?:e\d+)?(?:\s*\*\s*[\d.]+)*)", rule["expr"]):
            found.add(math.prod(float(factor) for factor in product.split("*")))
    return found


def test_an_alert_that_changes_takes_its_panels_along(tmp_path: Path) -> None:
    """The number is read from the rule: another number there is another line here, and an alert that is gone stops the build."""
    for path in RULES.glob("*.rules.yml"):
        (tmp_path / path.name).write_text(path.read_text())
    changed = tmp_path / "redis.rules.yml"
    changed.write_text(
        changed.read_text().replace("service:redis_memory_used:ratio > 0.9", "service:redis_memory_used:ratio > 0.7")
    )
    panel = next(
        each
        for each in panels(command.made(Rules(tmp_path))["golden-signals"])
        if each["title"] == "Saturation: Redis' memory"
    )
    assert steps(panel) == [0.7]
    content = yaml.safe_load(changed.read_text())
    for group in content["groups"]:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert") != "RedisMemoryHigh"]
    changed.write_text(yaml.safe_dump(content))
    with pytest.raises(LimitError, match=r"RedisMemoryHigh compares .* with nothing"):
        command.made(Rules(tmp_path))
