"""One diagnosis as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Captured:
    """One diagnosis: the text for the file and a sentence for the journal. Not redacted yet."""

    text: str
    sentence: str
