"""Objectives: the shipped file and its rules, what a mistaken file is told, and a team's own file through promtool."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerting.slo_errors import SloError
from alerting.slo_load import load, parse, response_times
from alerting.slo_model import FAST, SLOW, Pair, SloFile, Strict, number, promql, seconds
from alerting.slo_rules import groups
from alerting.slo_text import rule_file
from tests.unit.rule_files import ROOT, read, run

SLO = ROOT / "alert-rules" / "slo.yml"
RULES = ROOT / "alert-rules" / "slo.rules.yml"
SHIPPED, TIMES = load(SLO, ROOT / "alert-rules" / "severity.yml")
OWN = """\
format: 1
group: shop-slo
objectives:
  orders:
    title: orders
    objective: 0.995
    window: 28d
    service: shop
    labels: {team: shop}
    sources:
      - total: increase(orders_total[$window])
        bad: increase(orders_total{result="error"}[$window])
    alerts:
      fast: {name: OrdersBurnFast, severity: page, first: First look at the shop.}
      slow: {name: OrdersBurnSlow, severity: ticket, first: First look at last week.}
      low: {name: OrdersBudgetLow, severity: ticket, first: First stop deploying., below: 0.25}
      blind: {name: OrdersBlind, severity: page, first: First look at the scrape., for: 2m}
"""


def shipped_alerts() -> list[dict[str, Any]]:
    """Every alert of the shipped rule file, also those that share a name."""
    return [rule for group in read(RULES)["groups"] for rule in group["rules"] if "alert" in rule]


def prepctl(*arguments: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The real command: code, stdout, stderr."""
    line = [sys.executable, "-m", "prepctl", *(str(part) for part in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "500"}
    return subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=folder, env=environment, check=False)


# -- the shipped file -----------------------------------------------------------------------------------------------------


def test_the_rule_file_is_what_the_objectives_make() -> None:
    """Whoever changes one without the other is told."""
    assert RULES.read_text(encoding="utf-8") == rule_file(groups(SHIPPED, TIMES), SLO.name)


def test_rules_that_share_a_name_differ_in_their_target_only() -> None:
    """One page, one level, one component a name; told apart by symptom, so that one never mutes another's people."""
    by_name: dict[str, set[tuple[str, str, str]]] = {}
    for rule in shipped_alerts():
        labels, notes = rule["labels"], rule["annotations"]
        by_name.setdefault(rule["alert"], set()).add((labels["severity"], labels["component"], notes["runbook_url"]))
        assert notes["response_time"] == TIMES[labels["severity"]]
        assert re.search(r"\{\{ \$value \| humanize\w* \}\}", notes["description"])
    assert all(len(kinds) == 1 for kinds in by_name.values()), by_name
    targets = [(rule["labels"]["symptom"], rule["labels"]["severity"]) for rule in shipped_alerts()]
    assert len(set(targets)) == len(targets)


def test_both_burn_alerts_share_their_symptom() -> None:
    """Then the page mutes the ticket of the same burn: by a symptom of their own, or by that of the alert they stand beside."""
    burns = [rule for rule in shipped_alerts() if "BudgetBurn" in rule["alert"]]
    assert len(burns) == 2 * len(SHIPPED.objectives)
    symptoms = {
        name: {each["labels"]["symptom"] for each in burns if f'slo="{name}"' in each["expr"]}
        for name in SHIPPED.objectives
    }
    assert all(len(found) == 1 for found in symptoms.values()), symptoms
    assert symptoms["payments-success"] == {"payments-failing"}
    assert symptoms["payments-api-latency"] == {"payments-api-latency-burn"}


def test_no_raw_range_is_longer_than_an_hour() -> None:
    """Longer windows add up recordings: a range over a counter itself costs by the number of its series."""
    for group in read(RULES)["groups"]:
        for rule in group["rules"]:
            for metric, labels, text in re.findall(r"([a-z_:0-9]+)(\{[^}]*\})?\[(\w+)\]", rule["expr"]):
                assert metric.startswith("slo:") or seconds(text) <= 3600, (metric, labels, text)


def test_prometheus_keeps_what_the_windows_need() -> None:
    """docker-compose.yml keeps samples for longer than the longest window and its margin."""
    command = read(ROOT / "docker-compose.yml")["services"]["prometheus"]["command"]
    (kept,) = [part.partition("=")[2] for part in command if part.startswith("--storage.tsdb.retention.time=")]
    assert seconds(kept) >= SHIPPED.retention_needed() == 31 * 86400
    assert not [part for part in command if "retention.size" in part], "a limit by size would have to be checked too"


def test_the_exporter_publishes_the_same_numbers() -> None:
    """Dashboards read prep_slo_*, alerts the generated rules: one agreement, written twice, compared here."""
    shown = read(ROOT / "config" / "exporter.yml")["collectors"]["slo"]["objectives"]
    assert {name: (Decimal(str(row["ratio"])), seconds(row["window"])) for name, row in shown.items()} == {
        name: (one.objective, one.window) for name, one in SHIPPED.objectives.items()
    }


def test_what_docs_say_about_sloth_holds() -> None:
    """The formulas that Sloth publishes and ours, on the same payments."""
    run("promtool", "test", "rules", ROOT / "tests" / "data" / "slo" / "sloth.test.yml")


# -- arithmetic -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "window", "factor"),
    [
        *zip((*FAST, *SLOW), ["30d"] * 4, ["14.4", "6", "3", "1"], strict=True),
        *zip((*FAST, *SLOW), ["7d"] * 4, ["14.4", "6", "3", "1"], strict=True),
        (Pair.model_validate({"long": "1h", "short": "5m", "budget": 0.02}), "30d", "14.4"),
        (Pair.model_validate({"long": "1h", "short": "5m", "budget": 0.02}), "28d", "13.44"),
        (Pair.model_validate({"long": "3d", "short": "6h", "budget": 0.1}), "30d", "1"),
    ],
)
def test_factors_are_the_workbooks(pair: Pair, window: str, factor: str) -> None:
    """As given, or share of the budget by share of the window: 10 % in 3d of 30d is 1."""
    assert number(pair.factor(seconds(window))) == factor


@pytest.mark.parametrize(
    ("text", "amount", "back"),
    [("5m", 300, "5m"), ("1h30m", 5400, "90m"), ("24h", 86400, "1d"), ("1w", 604800, "7d"), ("90s", 90, "90s")],
)
def test_durations(text: str, amount: int, back: str) -> None:
    """As Prometheus reads them, in one form."""
    assert seconds(text) == amount
    assert promql(amount) == back


@pytest.mark.parametrize("text", ["", "5", "5 m", "1y", "m", 300, None, "-5m", "1.5h"])
def test_no_durations(text: object) -> None:
    """A number without a unit is a question, not an answer."""
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


# -- mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("objective: 0.995", "objective: 99.5", 6, "less than 1"),
        ("objective: 0.995", "objective: 0.9", 4, "could never fire"),
        ("window: 28d", "window: 28", 7, "no duration"),
        ("window: 28d", "window: 2d", 4, "longer than the window"),
        ("    service: shop\n", "", 4, "Field required"),
        ("[$window]", "[5m]", 11, "has no range"),
        ("increase(orders_total[", "rate(orders_total[", 11, "per second"),
        ("First look at the shop.", "Look at the shop.", 14, "what to do first"),
        ("{team: shop}", "{severity: P1}", 4, "set by the generator"),
        ("name: OrdersBurnSlow, severity: ticket", "name: OrdersBurnFast, severity: ticket", 1, "one level"),
        ("  orders:", "  Orders:", 4, "match pattern"),
        ("title: orders", "titel: orders", 5, "not permitted"),
        ("format: 1", "format: 2", 1, "Input should be 1"),
        ("title: orders", "title: orders\n    title: again", 6, "is there twice"),
        ("format: 1", "format: [1", 2, "is not YAML"),
        ("name: OrdersBurnFast", "pairs: [{long: 5m, short: 1h, budget: 0.1}], name: OrdersBurnFast", 14, "shorter than"),
        ("name: OrdersBurnFast", "pairs: [{long: 1h, short: 5m}], name: OrdersBurnFast", 14, "exactly one of"),
        ("name: OrdersBurnFast", "pairs: [{long: 1h, short: 1m, burn_rate: 9}], name: OrdersBurnFast", 14, "at least 5m"),
        ("name: OrdersBurnSlow", "pairs: [{long: 3d, short: 6h, budget: 0.05}], name: OrdersBurnSlow", 4, "within the objective"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(old: str, new: str, line: int, says: str) -> None:
    """File, line, what is wrong; nothing is generated."""
    assert old in OWN
    with pytest.raises(SloError) as caught:
        parse(OWN.replace(old, new, 1), "own.yml")
    assert any(f"own.yml:{line}:" in str(fault) or f"own.yml:{line}" == fault.where for fault in caught.value.faults), (
        caught.value
    )
    assert says in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    """Not one a run."""
    with pytest.raises(SloError) as caught:
        parse(OWN.replace("0.995", "2").replace("28d", "x").replace("format: 1", "format: 0"), "own.yml")
    assert len(caught.value.faults) == 3


def test_an_alert_that_could_never_fire_is_refused_with_the_way_out() -> None:
    """14.4 times a budget of 10 % is more than everything; the message gives the largest that works."""
    with pytest.raises(SloError, match=r"burn rate of 14\.4 in 1h would need 144 % of all events.*must be under 10$"):
        parse(OWN.replace("0.995", "0.9"), "own.yml")


def test_a_level_must_be_in_the_severity_table(tmp_path: Path) -> None:
    """Else the alert would reach the catch-all and nobody would know why."""
    (tmp_path / "slo.yml").write_text(OWN)
    (tmp_path / "severity.yml").write_text("levels: {page: {respond: now}}")
    with pytest.raises(SloError) as caught:
        load(tmp_path / "slo.yml", tmp_path / "severity.yml")
    at = tmp_path / "slo.yml"
    assert [str(fault).partition(": objectives")[0] for fault in caught.value.faults] == [f"{at}:15", f"{at}:16"]
    assert "ticket is no level" in str(caught.value)
    with pytest.raises(SloError, match="has no levels"):
        response_times("levels: [a]", "severity.yml")
    with pytest.raises(SloError, match="cannot be read"):
        load(tmp_path / "none.yml", None)


# -- a team's own file ----------------------------------------------------------------------------------------------------


def test_a_teams_own_file_makes_rules_that_work(tmp_path: Path) -> None:
    """Valid rules with its own words and labels, which fire by promtool; no severity table, hence no response time."""
    (tmp_path / "own.yml").write_text(OWN)
    done = prepctl("slo:generate", "own.yml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Written: own.rules.yml.\n"), done.stderr
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", tmp_path / "own.rules.yml")
    labels = {"component": "slo", "service": "shop", "severity": "page", "slo": "orders", "symptom": "orders-burn"}
    case = {
        "rule_files": ["own.rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": 'orders_total{result="ok"}', "values": "0+9x30"},
                    {"series": 'orders_total{result="error"}', "values": "0+1x30"},
                ],
                "alert_rule_test": [
                    {
                        "eval_time": "20m",
                        "alertname": "OrdersBurnFast",
                        "exp_alerts": [
                            {
                                "exp_labels": {**labels, "team": "shop"},
                                "exp_annotations": {
                                    "summary": "The error budget of orders is burning fast.",
                                    "description": "The budget of orders, 0.5 % of them in 28d, burns 20 times as fast as it"
                                    " can last; bad ones in the last 1h: 20. First look at the shop.",
                                },
                            }
                        ],
                    }
                ],
            }
        ],
    }
    (tmp_path / "own.test.yml").write_text(yaml.safe_dump(case))
    run("promtool", "test", "rules", tmp_path / "own.test.yml")


def test_the_command_checks_prints_and_refuses(tmp_path: Path) -> None:
    """0 as it should be, 1 not up to date, 2 a wrong file; what is not asked for is not written."""
    own, out = tmp_path / "own.yml", tmp_path / "rules" / "x.yml"
    own.write_text(OWN)
    assert prepctl("slo:generate", own, "--check").returncode == 1
    printed = prepctl("slo:generate", own, "--out", "-")
    assert printed.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.yml"]
    assert prepctl("slo:generate", own, "--out", out).returncode == 2, "its folder is not there"
    out.parent.mkdir()
    assert prepctl("slo:generate", own, "--out", out).returncode == 0
    assert out.read_text() == printed.stdout
    assert prepctl("slo:generate", own, "--out", out, "--check").returncode == 0
    out.write_text(printed.stdout + "\n")
    stale = prepctl("slo:generate", own, "--out", out, "--check")
    assert stale.returncode == 1
    assert "not what its objectives make" in stale.stderr
    own.write_text(OWN.replace("0.995", "2"))
    wrong = prepctl("slo:generate", own, "--out", out)
    assert wrong.returncode == 2
    assert f"{own}:6: objectives.orders.objective" in wrong.stderr
    assert out.read_text() == printed.stdout + "\n", "a wrong file overwrites nothing"


# -- docs -----------------------------------------------------------------------------------------------------------------


def fields(model: type[Strict]) -> set[str]:
    """Every key of the file, as it is written there."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(field.alias or name)
        for part in re.findall(r"alerting\.slo_model\.(\w+)", str(field.annotation)):
            found |= fields(vars(sys.modules["alerting.slo_model"])[part])
    return found


@pytest.mark.parametrize("field", sorted(fields(SloFile)))
def test_every_field_is_documented(field: str) -> None:
    """docs/slo.md has a line for each key of slo.yml."""
    text = (ROOT / "docs" / "slo.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `[a-z_.<>\[\]]*{field}(\[\])?` \|", text, re.MULTILINE), f"{field} is not documented"
