"""Durations in the configuration: `90s`, `2m`, `1h30m` as Prometheus writes them; seconds inside.

In: text. Out: seconds (float). A bare number is refused, since it does not say its unit.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


def seconds(text: str) -> float:
    """`1h30m` -> 5400.0. Raises ValueError for anything that is not a row of numbers with units."""
    parts = list(_PART.finditer(text))
    if not parts or "".join(part.group(0) for part in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write for example 500ms, 90s, 2m or 1h30m")
    return sum(float(part.group(1)) * _UNITS[part.group(2)] for part in parts)


def _parse(value: Any) -> Any:
    if isinstance(value, str):
        return seconds(value)
    raise ValueError(f"{value!r} does not say its unit; write for example 500ms, 90s, 2m or 1h30m")


Duration = Annotated[float, BeforeValidator(_parse), Field(gt=0)]
"""A field written as `2m` and read as 120.0 seconds; more than 0."""
