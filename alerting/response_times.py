"""The `response_time` annotation of every rule, held to the severity table.

In: the text of a rule file and the table. Out: the text with right values, and what had to be changed. Only those
values are touched; comments and layout stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from alerting.severity import Severity


@dataclass(frozen=True, slots=True)
class Change:
    """One annotation that says another time than the table. `line` counts from 1; `wanted` None: unknown severity."""

    line: int
    alert: str
    found: str | None
    wanted: str | None

    def __str__(self) -> str:
        if self.wanted is None:
            return f"line {self.line}: {self.alert}: its severity is not in the table"
        return f"line {self.line}: {self.alert}: response_time is {self.found!r}, the table says {self.wanted!r}"


def correct(text: str, table: Severity) -> tuple[str, list[Change]]:
    """The rule file with the table's times. What cannot be mended (no annotation, no known severity) is told only."""
    changes: list[Change] = []
    edits: list[tuple[int, int, str]] = []
    for alert in _alerts(yaml.compose(text, Loader=yaml.SafeLoader)):
        severity = _scalar(_child(alert, "labels"), "severity")
        found = _scalar(_child(alert, "annotations"), "response_time")
        wanted = table.respond(severity.value) if severity is not None else None
        if wanted is not None and found is not None and found.value == wanted:
            continue
        line = (found or severity or alert).start_mark.line + 1
        name = _scalar(alert, "alert")
        changes.append(Change(line, name.value if name else "?", found.value if found else None, wanted))
        if wanted is not None and found is not None:
            edits.append((found.start_mark.index, found.end_mark.index, _quoted(wanted)))
    for start, end, value in reversed(edits):
        text = text[:start] + value + text[end:]
    return text, changes


def _quoted(value: str) -> str:
    plain = yaml.safe_load(f"a: {value}") == {"a": value} if ":" not in value else False
    return value if plain and value[0].isalpha() else json.dumps(value)


def _alerts(node: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    groups = _child(node, "groups")
    for group in groups.value if isinstance(groups, yaml.SequenceNode) else ():
        rules = _child(group, "rules")
        for rule in rules.value if isinstance(rules, yaml.SequenceNode) else ():
            if isinstance(rule, yaml.MappingNode) and _child(rule, "alert") is not None:
                yield rule


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _scalar(node: yaml.Node | None, name: str) -> yaml.ScalarNode | None:
    found = _child(node, name)
    return found if isinstance(found, yaml.ScalarNode) else None
