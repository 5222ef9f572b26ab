"""The selectors of an expression are found whatever stands around them, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from remediator.promql import selectors

RUNBOOKS = Path(__file__).resolve().parents[2] / "runbooks"


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("up", ("up",)),
        ('up{job="a"} == 1', ('up{job="a"}',)),
        ('sum by (a, b) (rate(x{c="}"}[5m] offset 1m)) > 0 and on(job) up == 1', ('x{c="}"}', "up")),
        ("1 - avg(rate(y[1h:5m]))", ("y",)),
        ('{__name__="z"} or vector(0)', ('{__name__="z"}',)),
        ("histogram_quantile(0.95, sum(rate(m_bucket[5m])) by (le))", ("m_bucket",)),
        ("sum(x) / ignoring(a) group_left(b) count(foo @ 123) > bool 1e3", ("x", "foo")),
        ("absent(job:x:rate5m) or time() - last > 5m", ("job:x:rate5m", "last")),
        ("a + a # a comment with b", ("a",)),
        ("label_replace(a, 'x', 'up', 'y', 'z')", ("a",)),
        ("sum without (le) (a) > Inf", ("a",)),
        ("x{a=~'b{1,2}'}", ("x{a=~'b{1,2}'}",)),
        ("vector(1) > 0x1F", ()),
        ("", ()),
    ],
)
def test_selectors(expression: str, found: tuple[str, ...]) -> None:
    """Functions, keywords, label lists, strings, ranges and numbers are left out."""
    assert selectors(expression) == found


def test_every_shipped_proof_has_a_selector() -> None:
    """A check without one could never be fresh, so it could never be good."""
    for path in RUNBOOKS.glob("*.yml"):
        for check in yaml.safe_load(path.read_text())["proof"]["checks"]:
            assert selectors(check["query"]), f"{path.name}: {check['name']}"
