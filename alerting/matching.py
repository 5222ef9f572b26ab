"""How Alertmanager itself judges a label set: matchers, routes, inhibition.

In: parts of a configuration as plain data, and label sets. Out: which routes take an alert, and who mutes whom. Pure;
it follows dispatch/route.go, inhibit/inhibit.go and pkg/labels of Alertmanager 0.25 to 0.28. A pattern that Go reads
and Python does not raises `Unreadable`, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Labels = Mapping[str, str]

_MATCHER = re.compile(
    r"""^\s*(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*|"[^"]+")\s*(?P<op>=~|!~|!=|=)\s*(?P<value>.*?)\s*$""", re.DOTALL
)
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


class Unreadable(Exception):
    """A part of the configuration that cannot be judged here; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """`name` `op` `value`; a label that is missing is empty."""

    name: str
    op: str
    value: str

    def matches(self, labels: Labels) -> bool:
        """As pkg/labels/matcher.go; patterns are anchored. Raises Unreadable."""
        value = labels.get(self.name, "")
        if self.op in ("=", "!="):
            return (value == self.value) == (self.op == "=")
        try:
            found = re.fullmatch(self.value, value) is not None
        except re.error as error:
            raise Unreadable(f"the pattern of {self} cannot be read here: {error}") from error
        return found == (self.op == "=~")

    def __str__(self) -> str:
        return f'{self.name}{self.op}"{self.value}"'


def parse_matchers(text: str) -> list[Matcher]:
    """One string of a `matchers` list: `a="b"`, or `{a="b", c=~"d"}`. Raises Unreadable."""
    bare = text.strip()
    if bare.startswith("{") and bare.endswith("}"):
        bare = bare[1:-1]
    return [_parse_one(part) for part in _split(bare) if part.strip()]


def _split(text: str) -> list[str]:
    """At commas outside of quotes."""
    parts, quoted, escaped = [""], False, False
    for letter in text:
        if letter == "," and not quoted:
            parts.append("")
            continue
        if letter == '"' and not escaped:
            quoted = not quoted
        escaped = letter == "\\" and not escaped
        parts[-1] += letter
    return parts


def _parse_one(text: str) -> Matcher:
    found = _MATCHER.match(text)
    if found is None:
        raise Unreadable(f"{text.strip()!r} is no matcher")
    value = found["value"]
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r'\\[n"\\]', lambda match: _ESCAPES[match[0]], value[1:-1])
    return Matcher(found["name"].strip('"'), found["op"], value)


def matchers_of(part: Mapping[str, Any], prefix: str = "") -> list[Matcher]:
    """All matchers of a route (`prefix` "") or of one side of an inhibition ("source_", "target_")."""
    found = [Matcher(str(name), "=", str(value)) for name, value in (part.get(f"{prefix}match") or {}).items()]
    found += [Matcher(str(name), "=~", str(value)) for name, value in (part.get(f"{prefix}match_re") or {}).items()]
    for text in part.get(f"{prefix}matchers") or ():
        found += parse_matchers(str(text))
    return found


@dataclass(frozen=True, slots=True)
class Route:
    """One route with what it inherits. Time intervals are its own only: children do not inherit them."""

    path: str
    receiver: str
    matchers: tuple[Matcher, ...]
    goes_on: bool
    group_by: frozenset[str]
    timing: Mapping[str, str]
    active: tuple[str, ...]
    mute: tuple[str, ...]
    children: tuple[Route, ...] = ()

    def take(self, labels: Labels) -> list[Route]:
        """The routes that an alert ends at, in order (`Route.Match` of dispatch/route.go). Raises Unreadable."""
        if not all(matcher.matches(labels) for matcher in self.matchers):
            return []
        found: list[Route] = []
        for child in self.children:
            taken = child.take(labels)
            found += taken
            if taken and not child.goes_on:
                break
        return found or [self]

    def walk(self) -> list[Route]:
        """Itself and all below it."""
        return [self, *(route for child in self.children for route in child.walk())]

    def __str__(self) -> str:
        which = ", ".join(str(matcher) for matcher in self.matchers) or "no matchers"
        return f"{self.path} ({which} -> {self.receiver})"


_TIMING = {"group_wait": "30s", "group_interval": "5m", "repeat_interval": "4h"}
"""Alertmanager's defaults (docs/configuration.md, `<route>`)."""


def tree(data: Any) -> Route:
    """`route` of a configuration. Raises Unreadable when it is none."""
    if not isinstance(data, Mapping):
        raise Unreadable("`route` is missing or no mapping")
    return _route(data, "route", "", frozenset(), _TIMING)


def _route(
    data: Mapping[str, Any], path: str, receiver: str, group_by: frozenset[str], timing: Mapping[str, str]
) -> Route:
    receiver = str(data.get("receiver") or receiver)
    group_by = frozenset(str(each) for each in data["group_by"]) if data.get("group_by") else group_by
    timing = {key: str(data[key]) if data.get(key) is not None else value for key, value in timing.items()}
    below = data.get("routes") or []
    if not isinstance(below, list) or not all(isinstance(child, Mapping) for child in below):
        raise Unreadable(f"{path}.routes is no list of routes")
    children = [
        _route(child, f"{path}.routes[{number}]", receiver, group_by, timing) for number, child in enumerate(below)
    ]
    return Route(
        path=path,
        receiver=receiver,
        matchers=tuple(matchers_of(data)),
        goes_on=data.get("continue") is True,
        group_by=group_by,
        timing=timing,
        active=tuple(data.get("active_time_intervals") or ()),
        mute=tuple(data.get("mute_time_intervals") or ()),
        children=tuple(children),
    )


@dataclass(frozen=True, slots=True)
class Inhibition:
    """One inhibit rule; `number` counts from 0, as it stands in the file."""

    number: int
    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...] = field(default=())

    def may_mute(self, target: Labels) -> bool:
        """Does its target side match? Raises Unreadable."""
        return all(matcher.matches(target) for matcher in self.target)

    def mutes(self, source: Labels, target: Labels) -> bool:
        """Does `source`, firing, mute `target`? A label missing on both sides is equal. Raises Unreadable."""
        if source == target or not self.may_mute(target):
            return False
        if not all(matcher.matches(source) for matcher in self.source):
            return False
        # An alert that matches both sides cannot be muted by one that does too (inhibit.go, `excludeTwoSidedMatch`).
        if all(matcher.matches(target) for matcher in self.source) and self.may_mute(source):
            return False
        return all(source.get(name, "") == target.get(name, "") for name in self.equal)


def inhibitions(data: Any) -> list[Inhibition]:
    """`inhibit_rules` of a configuration. Raises Unreadable."""
    rules: Sequence[Any] = data or []
    return [
        Inhibition(
            number,
            tuple(matchers_of(rule, "source_")),
            tuple(matchers_of(rule, "target_")),
            tuple(str(name) for name in rule.get("equal") or ()),
        )
        for number, rule in enumerate(rules)
    ]
