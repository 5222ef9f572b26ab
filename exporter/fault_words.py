"""Pydantic's findings to faults that an operator can act on: what is wrong, and what to write instead.

In: the model and one of its errors. Out: two texts. It must never repeat the value that was found: it may be a secret
that stands in the wrong place.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Location = tuple[int | str, ...]
"""Path of a setting: `("web", "max_requests")`."""

_WORDS: Mapping[str, tuple[str, str]] = {
    "missing": ("is missing", "add it"),
    "too_short": ("is empty", "name at least one"),
    "string_too_short": ("is empty", "write a value"),
    "string_too_long": ("is too long", "at most {max_length} characters"),
    "string_type": ("is not a text", "put it in quotes"),
    "string_pattern_mismatch": ("does not have the form it must have", ""),
    "bool_type": ("is neither true nor false", "write true or false"),
    "bool_parsing": ("is neither true nor false", "write true or false"),
    "int_type": ("is not a whole number", "write digits only"),
    "int_parsing": ("is not a whole number", "write digits only"),
    "int_from_float": ("is not a whole number", "write digits only"),
    "float_type": ("is not a number", "write a number without a unit"),
    "float_parsing": ("is not a number", "write a number without a unit"),
    "greater_than": ("is out of its range", "write more than {gt}"),
    "greater_than_equal": ("is out of its range", "write at least {ge}"),
    "less_than": ("is out of its range", "write less than {lt}"),
    "less_than_equal": ("is out of its range", "write at most {le}"),
    "literal_error": ("is none of the words that are known", "write one of {expected}"),
    "model_type": ("is not a mapping of settings", "write its settings below it, `key: value` a line"),
    "dict_type": ("is not a mapping", "write `name: value` lines below it"),
    "mapping_type": ("is not a mapping", "write `name: value` lines below it"),
    "tuple_type": ("is not a list", "write [one, another]"),
    "path_type": ("is not a path", "write an absolute path"),
}
"""Error types of pydantic (docs.pydantic.dev, "Validation Errors") to what is wrong and the remedy."""

_MEANING = frozenset(("missing", "string_too_short", "string_pattern_mismatch"))
"""Types whose remedy needs to say what the setting is."""


def words(model: type[BaseModel], error: Mapping[str, Any], page: str) -> tuple[str, str]:
    """What is wrong and the remedy, for one item of `ValidationError.errors()`; `page` tells all settings."""
    location: Location = error["loc"]
    if error["type"] == "extra_forbidden":
        return "is not a setting", _spelling(model, location, page)
    what, _, remedy = error["msg"].removeprefix("Value error, ").removeprefix("Input ").partition("; ")
    what, remedy = _WORDS.get(error["type"], (what, remedy))
    remedy = remedy.format_map({name: _number(value) for name, value in error.get("ctx", {}).items()})
    field = _field(model, location) if error["type"] in _MEANING else None
    meaning = f"it is: {field.description}" if field is not None and field.description else ""
    return what, "; ".join(" ".join(each.split()) for each in (remedy, meaning) if each)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _spelling(model: type[BaseModel], location: Location, page: str) -> str:
    above = _model(model, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), above.model_fields if above else (), 1)
    return f"did you mean {near[0]}?" if near else f"remove it; {page} tells what there is"


def _field(model: type[BaseModel], location: Location) -> FieldInfo | None:
    """The setting at this place; None for an item of a list or mapping."""
    above = _model(model, location[:-1]) if location else None
    return above.model_fields.get(str(location[-1])) if above else None


def _model(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model whose settings stand at this place; names of a mapping are passed over."""
    found: type[BaseModel] = model
    for step in location:
        field = found.model_fields.get(str(step))
        if field is None:
            continue  # the name of a mapping's item, whose model is `found` already
        inner = _inner(field.annotation)
        if inner is None:
            return None
        found = inner
    return found


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _inner(each)) is not None), None)
