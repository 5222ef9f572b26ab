"""Which labels an alert can have, out of the rule files alone. A "no" must be certain."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from prepctl.alert_rules import Rules, read
from remediator.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def folder(path: Path, expression: str, **labels: str) -> Rules:
    """One alert `A`, and two recordings that it may read."""
    recordings = [
        {"record": "job:kept:sum", "expr": "sum by (job, service) (rate(a_total[5m]))"},
        {"record": "job:fixed:max", "expr": "max(b)", "labels": {"job": "recorded"}},
        {"record": "loop:of:itself", "expr": "loop:of:itself + 1"},
    ]
    rules = [*recordings, {"alert": "A", "expr": expression, "labels": labels}]
    (path / "a.rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    return read(path)


@pytest.mark.parametrize(
    "expression",
    [
        "a > 1",
        'a{job="x"}',
        'a{job=~"x|y"} == 0',
        'a{job!="z"}',
        "sum by (job) (a)",
        "sum without (instance) (a)",
        "topk(3, a)",
        "rate(a_total[5m])",
        "max_over_time(a[5m:1m])",
        "-a",
        "(a or sum(b))",
        "sum(a) or b",
        "a and on (service) b",
        "a unless b",
        "a / on (job) b",
        "a * on (service) group_left (zone) b",
        "sum(a) * on () group_right b",
        "sum by (service) (a) * on (service) group_left (job) b",
        "a / ignoring (zone) b",
        "1 - a",
        "time() - a",
        'label_replace(sum(a), "job", "$1", "x", "(.+)")',
        'count_values("job", a)',
        'absent(up{job="x"})',
        "histogram_quantile(0.95, sum by (le, job) (rate(a_bucket[5m])))",
        "job:kept:sum > 5",
        "loop:of:itself",
    ],
)
def test_what_keeps_the_job(tmp_path: Path, expression: str) -> None:
    """A metric may have any label; so may what keeps it."""
    rules = folder(tmp_path, expression)
    (alert,) = rules.alerts("A")
    assert rules.can_have(alert, "job", "x")
    assert rules.can_have(alert, "job")


@pytest.mark.parametrize(
    "expression",
    [
        'a{job="y"}',
        'a{job=~"y|z"}',
        'a{job!="x"}',
        'a{job!~"x|y"}',
        "sum(a)",
        "sum by (service) (a)",
        "sum without (job) (a)",
        "a / on (service) b",
        "a / ignoring (job) b",
        "sum(a) and b",
        "sum(a) / b",
        "sum(a) * on () group_left (zone) b",
        "vector(1)",
        "vector(time()) > 5",
        'absent(up{service="x"})',
        'absent(up{job="y"})',
        "histogram_quantile(0.95, sum by (le) (rate(a_bucket[5m])))",
        "sum by (service) (job:kept:sum)",
        "job:fixed:max > 1",
    ],
)
def test_what_drops_the_job_or_has_another(tmp_path: Path, expression: str) -> None:
    """Such an alert never comes from job x."""
    rules = folder(tmp_path, expression)
    assert not rules.can_have(rules.alerts("A")[0], "job", "x")


def test_labels_of_the_rule_itself_come_first(tmp_path: Path) -> None:
    """What it puts on replaces what the expression has; a template may be anything, an empty text takes it away."""
    rules = folder(tmp_path, 'a{job="x"}', job="y", component="c", service="{{ $labels.name }}", zone="")
    (alert,) = rules.alerts("A")
    assert [rules.can_have(alert, "job", value) for value in ("x", "y")] == [False, True]
    assert [rules.can_have(alert, "component", value) for value in ("c", "d")] == [True, False]
    assert rules.can_have(alert, "service", "anything")
    assert not rules.can_have(alert, "zone")


def test_a_recording_is_no_alert(tmp_path: Path) -> None:
    """Only what alerts can be matched."""
    rules = folder(tmp_path, "a")
    assert (len(rules.alerts("A")), rules.alerts("job:kept:sum"), rules.alerts("B")) == (1, [], [])


@pytest.mark.parametrize(
    "text", ["groups: [{rules: [{alert: A}]}]", "groups: [", "- 1", "groups: [{rules: [{alert: A, expr: 'sum('}]}]"]
)
def test_a_file_that_holds_no_rules_is_a_fault(tmp_path: Path, text: str) -> None:
    """With its name; and so is a folder without any."""
    with pytest.raises(ConfigError, match="no rule file here"):
        read(tmp_path)
    (tmp_path / "b.rules.yml").write_text(text)
    with pytest.raises(ConfigError, match=r"b\.rules\.yml: is no file of rules"):
        read(tmp_path)


def test_shipped_rules_are_read() -> None:
    """All of them."""
    assert len(read(ROOT / "alert-rules").rules) > 100
