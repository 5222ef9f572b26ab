"""Compliance rules: expressions out of the database, compiled once and evaluated many times.

In: rows of `compliance_rules` (name, rule set, expression as parsed JSON). Out: `Rule`, whose `holds(facts)` is True or
False for every order there can be. It must never do I/O, and an expression that it does not understand must never be
skipped: a rule that silently does not apply lets an order through, so it raises RuleError, and the service that
loads it does not start.

The language, one key to a node:

    {"all": [E, ...]}  {"any": [E, ...]}  {"not": E}      logic
    {"each": ["items", E]}                                E for each element of a list of the order; true for none
    {"<=": [V, V]}     == != < <= > >=                    comparison of two values
    {"in": [V, V]}  {"subset": [V, V]}                    element of a list; list of which every element is in the other

    V:  a number, string, boolean or list of those
        {"order": "delivery.minutes"}                     out of the order
        {"item": "temperature_c"}                         out of the element, inside `each`
        {"regulation": ["cold-chain", "max_minutes"]}     out of a RegEngine document

A value that is missing, or of another type than its partner, makes its comparison False: an order that does not say how
warm it is has not kept the cold chain.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""What json.loads() gives: the shape is checked here, node by node."""

MAX_DEPTH = 12
"""Deepest nesting of an expression; deeper ones are refused, not followed."""


class RuleError(ValueError):
    """A rule cannot be understood. The message names the rule, the place inside it and what would be right."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one evaluation is about. `regulations` is by code; `item` is set inside `each` only."""

    order: Mapping[str, Json]
    regulations: Mapping[str, Mapping[str, Json]]
    item: Json = None


Test: TypeAlias = Callable[[Facts], bool]
Value: TypeAlias = Callable[[Facts], Json]


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule. `regulations` are the codes of the documents that `holds` looks into."""

    rule_set: str
    name: str
    regulations: frozenset[str]
    holds: Test = field(compare=False, repr=False)


def compile_rule(rule_set: str, name: str, expression: Json) -> Rule:
    """One row to a rule. Raises RuleError naming what is wrong with it."""
    compiler = _Compiler(f"{rule_set}/{name}")
    test = compiler.test(expression, "expression", 0)
    return Rule(rule_set, name, frozenset(compiler.regulations), test)


_MISSING = object()

_COMPARISONS: Mapping[str, Callable[[Json, Json], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda element, whole: isinstance(whole, list) and element in whole,
    "subset": lambda part, whole: isinstance(part, list) and isinstance(whole, list) and all(e in whole for e in part),
}


class _Compiler:
    """One expression on its way to closures; collects the regulations that it meets."""

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self.regulations: set[str] = set()

    def test(self, node: Json, place: str, depth: int) -> Test:
        if depth > MAX_DEPTH:
            raise self._error(place, f"is nested deeper than {MAX_DEPTH}")
        if not isinstance(node, dict) or len(node) != 1:
            raise self._error(place, f"is {_short(node)}, not an object with one operator")
        (name, operand), place = next(iter(node.items())), f"{place}.{next(iter(node))}"
        if name in ("all", "any"):
            return self._logic(name, operand, place, depth)
        if name == "not":
            inner = self.test(operand, place, depth + 1)
            return lambda facts: not inner(facts)
        if name == "each":
            return self._each(operand, place, depth)
        if name in _COMPARISONS:
            return self._comparison(name, operand, place)
        raise self._error(place, f"is no operator; there are all, any, not, each, {', '.join(_COMPARISONS)}")

    def value(self, node: Json, place: str) -> Value:
        if isinstance(node, (str, int, float, list)):
            return lambda _: node
        if isinstance(node, dict) and len(node) == 1:
            source, argument = next(iter(node.items()))
            if source == "order" and isinstance(argument, str):
                path = argument.split(".")
                return lambda facts: _dig(facts.order, path)
            if source == "item" and isinstance(argument, str):
                item_path = argument.split(".")
                return lambda facts: _dig(facts.item, item_path)
            if source == "regulation" and _is_pair_of_strings(argument):
                return self._regulation(argument[0], argument[1].split("."))
        raise self._error(place, f"is {_short(node)}, not a value, an order's or item's path, or a regulation's")

    def _logic(self, name: str, operand: Json, place: str, depth: int) -> Test:
        if not isinstance(operand, list) or not operand:
            raise self._error(place, f"is {_short(operand)}, not a list of expressions")
        tests = [self.test(node, f"{place}[{index}]", depth + 1) for index, node in enumerate(operand)]
        if name == "all":
            return lambda facts: all(test(facts) for test in tests)
        return lambda facts: any(test(facts) for test in tests)

    def _each(self, operand: Json, place: str, depth: int) -> Test:
        if not isinstance(operand, list) or len(operand) != 2 or not isinstance(operand[0], str):
            raise self._error(place, f"is {_short(operand)}, not [path of a list in the order, expression]")
        path, inner = operand[0].split("."), self.test(operand[1], f"{place}[1]", depth + 1)

        def holds(facts: Facts) -> bool:
            elements = _dig(facts.order, path)
            return isinstance(elements, list) and all(
                inner(Facts(facts.order, facts.regulations, element)) for element in elements
            )

        return holds

    def _comparison(self, name: str, operand: Json, place: str) -> Test:
        if not isinstance(operand, list) or len(operand) != 2:
            raise self._error(place, f"is {_short(operand)}, not two values to compare")
        left, right = (self.value(node, f"{place}[{index}]") for index, node in enumerate(operand))
        compare = _COMPARISONS[name]

        def holds(facts: Facts) -> bool:
            one, other = left(facts), right(facts)
            if one is _MISSING or other is _MISSING:
                return False
            try:
                return bool(compare(one, other))
            except TypeError:  # a number against a word
                return False

        return holds

    def _regulation(self, code: str, path: list[str]) -> Value:
        self.regulations.add(code)
        return lambda facts: _dig(facts.regulations.get(code), path)

    def _error(self, place: str, fault: str) -> RuleError:
        return RuleError(f"rule {self._rule}: {place} {fault}")


def _dig(document: Json, path: list[str]) -> Json:
    """Follow a path into objects; _MISSING when it leads nowhere or to null."""
    for step in path:
        if not isinstance(document, Mapping) or document.get(step) is None:
            return _MISSING
        document = document[step]
    return document


def _is_pair_of_strings(value: Json) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)


def _short(node: Json) -> str:
    text = repr(node)
    return text if len(text) <= 60 else f"{text[:57]}..."
