"""A YAML mapping that remembers the line of each of its values.

In: text. Out: plain data, and `where()` for a path in it. Only safe tags are read, and a key that stands twice is a
fault: YAML itself would silently take the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from alerting.slo_errors import Fault, SloError


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed file. `file` is its name as messages show it."""

    file: str
    data: dict[str, Any]
    node: yaml.MappingNode

    @classmethod
    def read(cls, text: str, file: str) -> Document:
        """Parse. Raises SloError when it is not YAML, not a mapping, or has a key twice."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = file if mark is None else f"{file}:{mark.line + 1}"
            problem = getattr(error, "problem", None) or " ".join(str(error).split())
            raise SloError([Fault(place, f"is not YAML: {problem}")]) from error
        if not isinstance(node, yaml.MappingNode) or not isinstance(data, dict):
            raise SloError([Fault(file, "is no mapping", "see docs/slo.md")])
        if repeated := list(_repeated(node, file)):
            raise SloError(repeated)
        return cls(file, data, node)

    def where(self, path: Sequence[int | str]) -> str:
        """`file:line: a.b.0` for a path; a missing key has the line of what it is missing in."""
        line, node = self.node.start_mark.line, self.node
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return f"{self.file}:{line + 1}: {'.'.join(str(step) for step in path) or '(top level)'}"


def _child(node: Any, step: int | str) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line, node.value[step]
    return None


def _repeated(node: yaml.Node, file: str) -> Iterator[Fault]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                yield Fault(f"{file}:{key.start_mark.line + 1}: {key.value}", "is there twice", "keep one")
            seen.add(str(key.value))
            yield from _repeated(value, file)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item, file)
