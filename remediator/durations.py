"""Durations in configuration: `90s`, `15m`, `1h30m`, `2d` as Prometheus writes them; seconds inside."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")

_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`")


def seconds(text: str) -> float:
    """`1h30m` -> 5400.0. Raises ValueError for anything else, a bare number included (which unit?)."""
    parts = list(_PART.finditer(text))
    if not parts or "".join(part.group(0) for part in parts) != text:
        raise ValueError(f"not a duration: {text!r}; write for example 90s, 15m or 1h30m")
    return sum(float(part.group(1)) * _UNITS[part.group(2)] for part in parts)


def human(value: float) -> str:
    """5400.0 -> `1h30m`; under a second in ms. For sentences, not for parsing back exactly."""
    if value < 1:
        return f"{value * 1000:.0f}ms"
    rest, words = round(value), ""
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(_UNITS[unit]))
        words += f"{count}{unit}" if count else ""
    return words or "0s"


def longest_range(promql: str) -> float:
    """The longest `[range]` (or subquery `[range:step]`) in an expression, seconds; 0.0 when it has none."""
    bare = _QUOTED.sub('""', promql)  # a label matcher may hold a character class, which is no range
    ranges = re.findall(r"\[([0-9a-z.]+)(?::[0-9a-z.]*)?\]", bare)
    return max((seconds(text) for text in ranges), default=0.0)


WRITTEN: Mapping[str, bool] = {"written": True}
"""The context of `model_validate` for what a person has written: a number without a unit is a fault there. What the
journal keeps are seconds.
"""


def _parse(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return seconds(value)
    if isinstance(value, int | float):
        if info.context and info.context.get("written"):
            raise ValueError(f"not a duration: {value} has no unit; write for example 90s, 15m or 1h30m")
        if not 0.0 <= value < math.inf:  # nothing is ever later than NaN: no wait would hold
            raise ValueError(f"not a duration: {value}")
    return value


PATTERN = r"^(\d+(\.\d+)?(ms|s|m|h|d|w))+$"
"""A written duration; what `seconds` takes."""
Duration = Annotated[float, BeforeValidator(_parse), WithJsonSchema({"type": "string", "pattern": PATTERN})]
"""A pydantic field written as `15m` and read as 900.0 seconds."""
