"""The merge check: a clean merge passes, and each way to lose our alerts is told with its route."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from alerting import merge, routes
from alerting.matching import Matcher, Unreadable, inhibitions, parse_matchers, tree
from alerting.merge import Finding
from alerting.severity import load
from prepctl.cli import app
from prepctl.errors import Exit, Failure
from tests.unit.rule_files import ALERTMANAGER, ROOT, read, rules, run

TABLE = load(ROOT / "alert-rules" / "severity.yml")
ALERTS = merge.label_sets(rules(), TABLE, "production")
FRAGMENT = read(ROOT / "alertmanager" / "fragment.yml")
OURS = read(ALERTMANAGER)
THEIRS: dict[str, Any] = {
    "route": {
        "receiver": "ops",
        "group_by": ["cluster"],
        "routes": [
            {"receiver": "database-team", "matchers": ['team="database"']},
            {"receiver": "critical", "match_re": {"severity": "critical|page"}},
        ],
    },
    "inhibit_rules": [
        {
            "source_matchers": ['severity="critical"'],
            "target_matchers": ['severity=~"warning|info"'],
            "equal": ["alertname", "namespace"],
        }
    ],
    "receivers": [
        {"name": name, "webhook_configs": [{"url": "http://localhost/"}]}
        for name in ("ops", "database-team", "critical")
    ],
}


def merged() -> dict[str, Any]:
    """Their configuration with the fragment in it, as its comment says."""
    data = copy.deepcopy(THEIRS)
    data["route"]["routes"] = [*copy.deepcopy(FRAGMENT["routes"]), *data["route"]["routes"]]
    for name in ("inhibit_rules", "time_intervals", "receivers"):
        data[name] = [*data.get(name, []), *copy.deepcopy(FRAGMENT[name])]
    return data


def found(change: Callable[[dict[str, Any]], None]) -> list[Finding]:
    data = merged()
    change(data)
    return merge.check(data, TABLE, ALERTS)


def test_a_merge_by_the_book_is_clean(tmp_path: Path) -> None:
    """Valid for Alertmanager, and every alert of ours arrives as in our own configuration."""
    assert merge.check(merged(), TABLE, ALERTS) == []
    path = tmp_path / "merged.yml"
    path.write_text(yaml.safe_dump(merged(), sort_keys=False))
    run("amtool", "check-config", path)
    result = CliRunner().invoke(app, ["severity:check-merge", str(path), "--root", str(ROOT)])
    assert result.exit_code == 0
    assert f"{len(ALERTS)} label sets tried" in result.output


def ours_last(data: dict[str, Any]) -> None:
    first, *rest = data["route"]["routes"]
    data["route"]["routes"] = [{"receiver": "ops", "matchers": ['environment="production"']}, *rest, first]


def no_continue(data: dict[str, Any]) -> None:
    del data["route"]["routes"][0]["routes"][0]["continue"]


def narrow(data: dict[str, Any]) -> None:
    data["route"]["routes"][0]["matchers"].append('cluster="main"')


def other_wait(data: dict[str, Any]) -> None:
    data["route"]["routes"][0]["routes"][2]["group_wait"] = "30s"


def other_group(data: dict[str, Any]) -> None:
    data["route"]["routes"][0]["routes"][3]["group_by"] = ["cluster"]


def muted(data: dict[str, Any]) -> None:
    data["route"]["routes"][0]["routes"][2]["mute_time_intervals"] = ["business-hours"]


def always_p4(data: dict[str, Any]) -> None:
    del data["route"]["routes"][0]["routes"][7]["active_time_intervals"]


def no_interval(data: dict[str, Any]) -> None:
    data["time_intervals"] = []


def no_receiver(data: dict[str, Any]) -> None:
    data["receivers"] = [item for item in data["receivers"] if item["name"] != "people-p1"]


def empty_receiver(data: dict[str, Any]) -> None:
    next(item for item in data["receivers"] if item["name"] == "people-p0").pop("slack_configs")
    next(item for item in data["receivers"] if item["name"] == "people-p0").pop("pagerduty_configs")


def cut_off(data: dict[str, Any]) -> None:
    next(item for item in data["receivers"] if item["name"] == "remediator")["webhook_configs"][0]["max_alerts"] = 10


def no_token(data: dict[str, Any]) -> None:
    next(item for item in data["receivers"] if item["name"] == "remediator")["webhook_configs"][0].pop("http_config")


def missing_label(data: dict[str, Any]) -> None:
    data["inhibit_rules"].append(
        {"source_matchers": ['severity=~"P0|P1"'], "target_matchers": ['severity=~"P2|P3"'], "equal": ["cluster"]}
    )


def bad_pattern(data: dict[str, Any]) -> None:
    data["route"]["routes"].insert(0, {"receiver": "ops", "matchers": [r'alertname=~"\\pN+"']})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (ours_last, 'because route.routes[0] (environment="production" -> ops) takes it before'),
        (no_continue, "has no `continue: true`"),
        (narrow, "because no route to it matches; it ends at route"),
        (other_wait, "group_wait at `people-p0` is 30s, ours is 0s"),
        (other_group, "grouped at `people-p1` by ['cluster']"),
        (muted, "muted at `people-p0` during business-hours"),
        (always_p4, "told at `people-p4` always, with us only during business-hours"),
        (no_interval, "time interval `business-hours` is not there"),
        (no_receiver, "receiver `people-p1` is not there"),
        (empty_receiver, "receiver `people-p0` tells nobody"),
        (cut_off, "cuts messages after 10 alerts"),
        (no_token, "sends no token"),
        (missing_label, "both lack cluster, which counts as equal"),
        (bad_pattern, "cannot be judged"),
    ],
)
def test_each_way_to_lose_our_alerts_is_an_error(change: Callable[[dict[str, Any]], None], told: str) -> None:
    """What is wrong, at which route or receiver, and what to do."""
    errors = [str(finding) for finding in found(change) if finding.level == "error"]
    assert any(told in error for error in errors), "\n".join(errors)
    assert all(error.endswith(")") and "(" in error for error in errors)


def other_hours(data: dict[str, Any]) -> None:
    data["time_intervals"][0]["time_intervals"][0]["location"] = "Europe/Berlin"


def foreign_inhibition(data: dict[str, Any]) -> None:
    data["inhibit_rules"].append(
        {"source_matchers": ['alertname="NodeDown"'], "target_matchers": ['service=~".+"'], "equal": ["service"]}
    )


def no_inhibition(data: dict[str, Any]) -> None:
    data["inhibit_rules"] = data["inhibit_rules"][:1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_hours, "is another one than ours"),
        (foreign_inhibition, "lets alerts of others with the same service mute"),
        (no_inhibition, "both will page"),
    ],
)
def test_what_may_be_meant_is_a_warning(change: Callable[[dict[str, Any]], None], told: str) -> None:
    """It is told, and the check passes."""
    findings = found(change)
    assert {finding.level for finding in findings} == {"warning"}
    assert any(told in str(finding) for finding in findings)


def test_the_command_ends_with_1_when_alerts_would_be_lost(tmp_path: Path) -> None:
    """For a script; 2 for a file that is none."""
    path = tmp_path / "merged.yml"
    path.write_text(yaml.safe_dump(THEIRS))
    result = CliRunner().invoke(app, ["severity:check-merge", str(path), "--root", str(ROOT)])
    assert "because no route leads there" in result.output
    assert getattr(result.exception, "code", None) == 1
    result = CliRunner().invoke(app, ["severity:check-merge", str(tmp_path / "none.yml"), "--root", str(ROOT)])
    assert getattr(result.exception, "code", None) == 2


# -- every label set, in our own tree ----------------------------------------------------------------

VALUES = {
    "severity": ("P0", "P1", "P2", "P3", "P4", "none", "P9", "critical", ""),
    "runbook": ("", "high-database-cpu", "unheard-of"),
    "hold": ("", "3m", "1h"),
    "symptom": ("", "database-slow"),
    "service": ("", "postgres"),
    "component": ("", "postgres"),
    "alertname": ("A", "Watchdog"),
    "episode": ("", "0123"),
}


WORDS = st.characters(exclude_categories=("Cs", "Cc"))
"""Without line ends: `.+` does not match one, in Go as here."""
TREE = tree(OURS["route"])


def judge(labels: dict[str, str]) -> None:
    """What must hold of any label set."""
    taken = TREE.take(labels)
    names = [route.receiver for route in taken]
    people = [name for name in names if name.startswith("people-")]
    if labels.get("alertname") == "Watchdog" and labels.get("severity") == "none":
        assert names == (["remediator"] if labels.get("runbook") else []) + ["watchdog"]
        return
    assert len(people) == 1, names
    assert ("remediator" in names) == bool(labels.get("runbook"))
    level = labels.get("severity", "")
    assert people == [f"people-{level.lower()}" if level in TABLE.levels else "people-catch-all"]
    (route,) = [route for route in taken if route.receiver in people]
    if level in ("P0", "P1"):
        assert route.timing["group_wait"] in ("0s", "10s"), "they never wait"
    waits = level == "P2" and labels.get("hold") == "3m" and bool(labels.get("runbook"))
    assert (route.timing["group_wait"] == "3m") == waits
    assert route.active == (("business-hours",) if level == "P4" else ())


def test_every_combination_of_labels_has_a_person() -> None:
    """The cross product of what the rules can produce and what nobody foresaw: one receiver of people, always."""
    for values in product(*VALUES.values()):
        judge({name: value for name, value in zip(VALUES, values, strict=True) if value})


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([*VALUES, "team", "job"]), st.text(WORDS, min_size=1, max_size=8), max_size=8))
def test_whatever_the_labels_somebody_is_told(labels: dict[str, str]) -> None:
    """Also for values that nobody has thought of."""
    judge(labels)


@pytest.mark.parametrize("severity", VALUES["severity"])
@pytest.mark.parametrize("runbook", ("", "unheard-of"))
@pytest.mark.parametrize("hold", ("", "3m"))
def test_our_judge_says_what_amtool_says(severity: str, runbook: str, hold: str) -> None:
    """The routes are walked here as Alertmanager walks them, in our file and in a merged one."""
    labels = {
        "alertname": "A",
        "symptom": "s",
        "component": "c",
        "severity": severity,
        "runbook": runbook,
        "hold": hold,
    }
    labels = {name: value for name, value in labels.items() if value}
    pairs = [f"{name}={value}" for name, value in labels.items()]
    said = run("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *pairs).strip()
    assert ",".join(route.receiver for route in TREE.take(labels)) == said


def test_a_p1_mutes_its_own_p2_form_and_nobody_else() -> None:
    """Over all pairs of what the rules make: same symptom, same target, P1 over P2, and no other pair."""
    (rule,) = inhibitions(OURS["inhibit_rules"])
    pairs = {(one["alertname"], other["alertname"]) for one in ALERTS for other in ALERTS if rule.mutes(one, other)}
    assert pairs
    by_name = {labels["alertname"]: labels for labels in ALERTS}
    for source, target in pairs:
        one, other = by_name[source], by_name[target]
        assert (one["severity"], other["severity"]) == ("P1", "P2")
        assert one["symptom"] == other["symptom"]
        assert one["service"] == other["service"]
        assert "episode" not in one
        assert "episode" not in other


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ('a="b"', [("a", "=", "b")]),
        ("a=b", [("a", "=", "b")]),
        (' a =~ "x|y" ', [("a", "=~", "x|y")]),
        ('{a!="b", c!~"d,e"}', [("a", "!=", "b"), ("c", "!~", "d,e")]),
        (r'a="x\"y\\z"', [("a", "=", 'x"y\\z')]),
    ],
)
def test_matchers_are_read_as_alertmanager_reads_them(text: str, read_as: list[tuple[str, str, str]]) -> None:
    """Quoted or not, alone or in braces, with commas and escapes inside."""
    assert parse_matchers(text) == [Matcher(*parts) for parts in read_as]


def test_what_is_no_matcher_is_said() -> None:
    """Never passed over."""
    with pytest.raises(Unreadable, match="is no matcher"):
        parse_matchers("nonsense")
    with pytest.raises(Unreadable, match="cannot be read here"):
        Matcher("a", "=~", "(").matches({"a": "x"})


def test_the_fragment_takes_ours_and_nobody_elses() -> None:
    """Alerts of others stay where they were; all of ours go below the fragment's route."""
    route = tree(merged()["route"])
    before = tree(THEIRS["route"])
    for labels in (
        {"alertname": "X", "severity": "critical"},
        {"alertname": "Y", "team": "database"},
        {"alertname": "Z"},
    ):
        assert [each.receiver for each in route.take(labels)] == [each.receiver for each in before.take(labels)]
    assert all(route.take(labels)[0].path.startswith("route.routes[0]") for labels in ALERTS)
    assert routes.fragment_route(TABLE)["matchers"] == list(TABLE.fragment.matchers)


def test_a_file_that_is_no_text_is_wrong_usage(tmp_path: Path) -> None:
    """In words, as every file that is wrong."""
    path = tmp_path / "alertmanager.yml"
    path.write_bytes(b"\xff\xfe")
    result = CliRunner().invoke(app, ["severity:check-merge", str(path), "--root", str(ROOT)])
    assert isinstance(result.exception, Failure), result.output
    assert (result.exception.code, "is not UTF-8" in result.exception.message) == (Exit.USAGE, True)
