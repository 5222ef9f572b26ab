"""The demo's rules: what an expression means, and that one which cannot be understood is never skipped."""

from __future__ import annotations

from typing import Any

import pytest

from demo.orders import Orders, rate
from demo.rules import MAX_DEPTH, Facts, RuleError, compile_rule

ORDER: dict[str, Any] = {
    "delivery": {"minutes": 40},
    "items": [{"temperature_c": 4, "allergens": ["milk"]}, {"temperature_c": 7, "allergens": []}],
    "guest": {"age": None},
    "nothing": [],
}
REGULATIONS: dict[str, dict[str, Any]] = {
    "cold-chain": {"max_temperature_c": 5, "max_minutes": 90},
    "list": {"of": ["milk"]},
}
MINUTES = {"order": "delivery.minutes"}
TRUE, FALSE = {"==": [1, 1]}, {"==": [1, 2]}


def holds(expression: Any) -> bool:
    return compile_rule("set", "name", expression).holds(Facts(ORDER, REGULATIONS))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"<=": [MINUTES, {"regulation": ["cold-chain", "max_minutes"]}]}, True),
        ({">": [MINUTES, {"regulation": ["cold-chain", "max_minutes"]}]}, False),
        ({"!=": [MINUTES, 40]}, False),
        ({"in": ["milk", {"regulation": ["list", "of"]}]}, True),
        ({"subset": [["milk", "nuts"], {"regulation": ["list", "of"]}]}, False),
        ({"all": [TRUE, FALSE]}, False),
        ({"any": [TRUE, FALSE]}, True),
        ({"not": FALSE}, True),
        ({"each": ["items", {"<=": [{"item": "temperature_c"}, 7]}]}, True),
        ({"each": ["items", {"<=": [{"item": "temperature_c"}, 5]}]}, False),
        ({"each": ["nothing", FALSE]}, True),
    ],
)
def test_what_an_expression_means(expression: Any, expected: bool) -> None:
    """Each operator, with values from the order, its items and the regulations."""
    assert holds(expression) is expected


@pytest.mark.parametrize(
    "expression",
    [
        {"<=": [{"order": "delivery.hours"}, 90]},  # not there
        {"<=": [{"order": "delivery.minutes.of"}, 90]},  # a path through a number
        {">=": [{"order": "guest.age"}, 21]},  # null
        {"<=": [MINUTES, "90"]},  # a number against a word
        {"<=": [MINUTES, {"regulation": ["unheard-of", "max"]}]},
        {"in": ["milk", MINUTES]},
        {"each": ["delivery", TRUE]},  # no list
    ],
)
def test_what_is_missing_or_of_another_type_does_not_hold(expression: Any) -> None:
    """An order that does not say how warm it is has not kept the cold chain."""
    assert holds(expression) is False


def nested(depth: int) -> Any:
    expression: Any = TRUE
    for _ in range(depth):
        expression = {"not": expression}
    return expression


@pytest.mark.parametrize(
    ("expression", "place"),
    [
        ({"below": [1, 2]}, "expression.below is no operator"),
        ({"<=": [1]}, "expression.<= is [1], not two values"),
        ({"<=": [1, {"cart": "total"}]}, "expression.<=[1]"),
        ({"<=": [1, {"regulation": "cold-chain"}]}, "expression.<=[1]"),
        ({"<=": [1, None]}, "expression.<=[1]"),
        ({"all": []}, "expression.all is [], not a list of expressions"),
        ({"all": [TRUE, {"any": [{}]}]}, "expression.all[1].any[0] is {}"),
        ({"each": ["items"]}, "expression.each"),
        ({"==": [1, 1], "!=": [1, 1]}, "not an object with one operator"),
        (True, "expression is True"),
        (nested(MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH}"),
    ],
)
def test_a_malformed_rule_is_refused_by_name_and_place(expression: Any, place: str) -> None:
    """Nobody has to guess which rule it is and what is wrong with it."""
    with pytest.raises(RuleError) as caught:
        compile_rule("food-safety", "my-rule", expression)
    assert str(caught.value).startswith("rule food-safety/my-rule: ")
    assert place in str(caught.value)


def test_a_rule_names_its_regulations() -> None:
    """Also those that only a branch refers to: they are fetched before the evaluation begins."""
    rule = compile_rule(
        "s",
        "n",
        {"any": [TRUE, {"not": {"in": [1, {"regulation": ["a", "x"]}]}}, {"==": [{"regulation": ["b", "y"]}, 1]}]},
    )
    assert rule.regulations == {"a", "b"}


def test_one_seed_gives_the_same_orders_and_gaps() -> None:
    """A drill can be repeated; two streams of one seed differ."""

    def first(name: str, run: str) -> list[Any]:
        orders = Orders(7, name, run)
        return [
            (orders.gap(6.0, float(second)), orders.check()["order"], orders.payment()["amount_minor"])
            for second in range(50)
        ]

    assert first("checks", "a") == first("checks", "b")
    assert first("checks", "a") != first("payments", "a")


def test_arrivals_come_at_the_rate_that_was_asked_for() -> None:
    """On average over one wave, and never further from it than the wave is high."""
    orders = Orders(7, "checks", "r")
    seconds, count = 0.0, 0
    while seconds < 1200.0:
        seconds += orders.gap(6.0, seconds)
        count += 1
    assert 6.0 * 1200 * 0.95 < count < 6.0 * 1200 * 1.05
    assert all(5.2 < rate(6.0, float(at)) < 6.8 for at in range(0, 1200, 10))
