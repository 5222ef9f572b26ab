"""A configuration with mistakes, made whole enough to look for the other mistakes in it.

In: data that a model refuses. Out: the model with something harmless in each place that is wrong, for checks that need
all of it (names that must exist elsewhere, files that must be there), so that every mistake is told at once and not
only the first kind. It must never be used to run anything.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)

_DEFAULT = object()
_STAND_INS = (_DEFAULT, "stand-in", "/stand-in", 1, "1s", ["stand-in"], {"stand-in": "/stand-in"})
"""Tried one after the other in each wrong place: its default, a name, a path, a number, a duration, a list, a mapping.
None of the names and paths can be meant by a real file."""

_WHOLE_SECTIONS = ("model_type", "model_attributes_type")
"""Errors after which nothing is known of a whole section: what stands in it might be what others need."""


def is_stand_in(text: str) -> bool:
    """Whether this was put in here, and means nothing."""
    return text in _STAND_INS


def repaired(model: type[M], data: dict[str, Any]) -> M | None:
    """The model with stand-ins; None when too little of it is left to be checked."""
    data, tried = copy.deepcopy(data), Counter[tuple[int | str, ...]]()
    for _ in _STAND_INS:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        for each in found:
            location = each["loc"]
            if each["type"] in _WHOLE_SECTIONS or not _put(data, location, _STAND_INS[tried[location]]):
                return None
            tried[location] += 1
    return None


def _put(data: Any, location: tuple[int | str, ...], value: object) -> bool:
    """Put a stand-in there (the default: take away what is there); False when there is no such place."""
    for step in location[:-1]:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return False
    last = location[-1]
    if isinstance(data, dict):
        data.pop(last, None)
        if value is not _DEFAULT:
            data[last] = value
        return True
    if isinstance(data, list) and isinstance(last, int) and last < len(data):
        data[last] = "stand-in" if value is _DEFAULT else value
        return True
    return False
