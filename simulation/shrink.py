"""A failing story made smaller: incidents and faults are taken out as long as it still breaks the same promise.

Delta debugging (Zeller and Hildebrandt 2002): halves first, then ever smaller pieces. What is left replays exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from simulation.story import Story

T = TypeVar("T")
PLAYS = 60
"""At most: the rest of a story costs little once most of it is gone."""


def shrink(story: Story, broken: Callable[[Story], frozenset[str]], plays: int = PLAYS) -> Story:
    """The smallest story found that still breaks one of the same promises.

    broken  names of the invariants that a story breaks
    """
    wanted = broken(story)
    if not wanted:
        raise ValueError("the story breaks nothing: there is nothing to shrink")
    left = plays

    def fails(smaller: Story) -> bool:
        nonlocal left
        left -= 1
        return bool(broken(smaller) & wanted)

    incidents = _smaller(story.incidents, lambda part: fails(replace(story, incidents=part)), lambda: left)
    fewer = replace(story, incidents=incidents)
    return replace(fewer, faults=_smaller(fewer.faults, lambda part: fails(replace(fewer, faults=part)), lambda: left))


def _smaller(parts: Sequence[T], fails: Callable[[tuple[T, ...]], bool], left: Callable[[], int]) -> tuple[T, ...]:
    """Take pieces out while it fails without them."""
    kept, size = tuple(parts), max(1, len(parts) // 2)
    while kept and left() > 0:
        place, before = 0, len(kept)
        while place < len(kept) and left() > 0:
            without = kept[:place] + kept[place + size :]
            if fails(without):
                kept = without
            else:
                place += size
        if size == 1 and len(kept) == before:
            return kept
        size = max(1, size // 2)
    return kept
