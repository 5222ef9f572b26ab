"""The journal: `from remediator.journal import Journal`. Nothing outside uses its inner modules."""

from remediator.facts import Facts
from remediator.journal.journal import Journal
from remediator.journal.store import NoSpace
from remediator.journal.values import (
    Claim,
    Decide,
    Demotion,
    EpisodeIndex,
    EpisodeRow,
    InboxRow,
    Pause,
    Promoted,
    Routed,
    Running,
    Storm,
)

__all__ = [
    "Claim",
    "Decide",
    "Demotion",
    "EpisodeIndex",
    "EpisodeRow",
    "Facts",
    "InboxRow",
    "Journal",
    "NoSpace",
    "Pause",
    "Promoted",
    "Routed",
    "Running",
    "Storm",
]
