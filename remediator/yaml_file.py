"""A YAML file to plain data: what a plain loader passes over in silence is a fault with its line here.

In: text. Out: a mapping, or ConfigError. Only safe tags are read: no object is ever made from the text. Of a key that
stands twice a plain loader takes the last one: the limit that somebody reads in the file may not be the one that holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from remediator.errors import ConfigError, Fault


def mapping(text: str, where: str, what: str, remedy: str = "") -> dict[str, Any]:
    """The mapping that a file holds. Raises ConfigError: not YAML, no mapping, a key twice.

    where   the file's name for people
    what    what the file is, as the beginning of a sentence: `a runbook`
    remedy  where its form is told
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # the others: a date or number that is none, depth
        raise ConfigError([Fault(_place(where, error), f"not YAML: {' '.join(str(error).split())}")]) from error
    if node is None or not isinstance(data, dict):
        raise ConfigError([Fault(where, f"{what} is a mapping", remedy)])
    if found := list(_repeated(node, where, (), set())):
        raise ConfigError(found)
    return data


def _repeated(node: yaml.Node, where: str, path: tuple[str, ...], seen: set[int]) -> Iterator[Fault]:
    """Every key that stands twice in one mapping. `seen` are nodes: an alias may lead back to what it is in."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in first:
                at = f"{where}:{line}: {'.'.join((*path, name))}"
                yield Fault(at, "is there twice", f"keep one; the other one is in line {first[name]}")
            first.setdefault(name, line)
            yield from _repeated(value, where, (*path, name), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, where, (*path, str(index)), seen)


def _place(where: str, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return where if mark is None else f"{where}:{mark.line + 1}"
