"""The selectors of an expression are found whatever stands around them, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from remediator.promql import selectors
from tests.unit.rule_contract import problems

RUNBOOKS = Path(__file__).resolve().parents[2] / "runbooks"
CONNECTED_TO = {"restart_redis": ("redis", "python-compliance")}
"""Action: what it restarts, and who of the shipped platform holds connections to that."""


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


def proofs() -> dict[str, dict[str, Any]]:
    return {path.stem: yaml.safe_load(path.read_text()) for path in RUNBOOKS.glob("*.yml")}


def test_every_shipped_proof_asks_for_what_something_gives() -> None:
    """A name or a label that nothing gives would leave every remediation unproven."""
    for name, book in proofs().items():
        for check in book["proof"]["checks"]:
            assert problems(check["query"]) == [], f"{name}: {check['name']}"


def test_every_shipped_proof_demands_that_something_is_there() -> None:
    """Nothing slow, nothing failed, nothing full: a dead service has none of it. One check at least has a floor."""
    for name, book in proofs().items():
        floors = [check for check in book["proof"]["checks"] if check.get("at_least", 0) > 0]
        assert floors, f"{name}: every check is good when nothing is there"


def test_a_shipped_proof_is_of_the_target() -> None:
    """A check is compared with the target's label, or the runbook is for the one service that the check names."""
    for name, book in proofs().items():
        service = book["match"]["labels"].get("service")
        for check in book["proof"]["checks"]:
            assert check.get("by") or service, f"{name}: {check['name']} is good for whatever service it is asked for"


def test_a_shipped_proof_asks_for_who_is_connected_to_what_was_restarted() -> None:
    """The target is well again, and whoever holds connections to its former life is not."""
    asked = {
        name: [check["query"] for check in book["proof"]["checks"]]
        for name, book in proofs().items()
        if {rung["action"] for rung in book["ladder"]} & set(CONNECTED_TO)
    }
    assert sorted(asked) == ["redis-connection-failures", "redis-down"]
    for name, queries in asked.items():
        for target, dependent in CONNECTED_TO.values():
            assert any(f'service="{dependent}"' in query for query in queries), f"{name}: nobody asks {dependent}"
            assert any(f'server="{target}"' in query for query in queries), f"{name}: nobody asks {target}"
