"""The journal: `from remediator.journal import Journal`. Nothing outside uses its inner modules."""

from remediator.facts import Facts
from remediator.journal.journal import Journal
from remediator.journal.readings import Effects, Place, Wanted
from remediator.journal.store import NoSpace
from remediator.journal.values import (
    Claim,
    Decide,
    Demotion,
    EpisodeIndex,
    EpisodeRow,
    InboxRow,
    NotTaken,
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
    "Effects",
    "EpisodeIndex",
    "EpisodeRow",
    "Facts",
    "InboxRow",
    "Journal",
    "NoSpace",
    "NotTaken",
    "Pause",
    "Place",
    "Promoted",
    "Routed",
    "Running",
    "Storm",
    "Wanted",
]
