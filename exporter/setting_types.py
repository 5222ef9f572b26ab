"""Kinds of values that every part of the configuration uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=128)]
"""A configured name: it becomes a label's value."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("is not an absolute path; begin it with /")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Strict(BaseModel):
    """Frozen; a key that is not known is a mistake, not a wish."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
