"""The journal: `from remediator.journal import Journal`. Nothing outside uses its inner modules."""

from remediator.facts import Facts
from remediator.journal.journal import Journal
from remediator.journal.store import NoSpace
from remediator.journal.values import (
    Claim,
    Decide,
    EpisodeIndex,
    EpisodeRow,
    InboxRow,
    Pause,
    Routed,
    Running,
)

__all__ = [
    "Claim",
    "Decide",
    "EpisodeIndex",
    "EpisodeRow",
    "Facts",
    "InboxRow",
    "Journal",
    "NoSpace",
    "Pause",
    "Routed",
    "Running",
]
