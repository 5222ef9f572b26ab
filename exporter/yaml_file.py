"""A YAML document that remembers at which line each of its values stands.

In: text. Out: plain data, `where()` for a path in it, and the faults that a plain loader passes over (a key twice).
Only safe tags are read: no object is ever made from the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from exporter.errors import ConfigError, Fault


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed file. `faults` are mistakes that YAML itself allows."""

    file: str
    data: dict[str, Any]
    node: yaml.MappingNode
    faults: tuple[Fault, ...]

    @classmethod
    def read(cls, text: str, file: str) -> Document:
        """Parse; raises ConfigError when it is not YAML or not a mapping."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError([Fault(_place(file, error), f"is not YAML: {_problem(error)}")]) from error
        if not isinstance(node, yaml.MappingNode) or not isinstance(data, dict):
            raise ConfigError([Fault(file, "the configuration is a mapping of settings")])
        return cls(file, data, node, tuple(_repeated(node, file, ())))

    def where(self, location: Sequence[int | str]) -> str:
        """`file:line: a.b.0` for a path; the line of the deepest part that exists (a missing key has none)."""
        line, node = self.node.start_mark.line, self.node
        for step in location:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return f"{self.file}:{line + 1}: {'.'.join(str(step) for step in location)}"

    def place_of(self, value: str) -> str | None:
        """`file:line: a.b` of the first setting that has this value; None when none has."""
        return next((self.where(path) for path, text in _scalars(self.node, ()) if text == value), None)


def _scalars(node: yaml.Node, path: tuple[int | str, ...]) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Every value that is neither mapping nor list, with its path."""
    if isinstance(node, yaml.ScalarNode):
        yield path, node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _scalars(item, (*path, index))


def _child(node: Any, step: int | str) -> tuple[int, Any] | None:
    """Line of the key or item, and its value's node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line, node.value[step]
    return None


def _repeated(node: Any, file: str, path: tuple[str, ...]) -> list[Fault]:
    found: list[Fault] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                at = f"{file}:{key.start_mark.line + 1}: {'.'.join((*path, name))}"
                found.append(Fault(at, "is there twice", "keep one"))
            seen.add(name)
            found += _repeated(value, file, (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            found += _repeated(item, file, (*path, str(index)))
    return found


def _place(file: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return file if mark is None else f"{file}:{mark.line + 1}"


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or " ".join(str(error).split()))
