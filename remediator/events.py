"""The closed, versioned set of events of an episode: what the journal's lines mean.

Only the owner of an episode appends (unique `(episode, seq)`), except for outcomes, which are keyed by their
attempt and accepted whenever they come. A reader that meets a kind or version it does not know must not act
on that episode (`Unknown`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

VERSION = 1
OWN = "remediator"
"""The stream of what belongs to no episode: pauses, storms, demotions. Written under the intents' lock."""
CLICKS = "clicks"
"""The stream of clicks that were not taken. No decision reads it, so a click that was refused can change none."""


class Kind(StrEnum):
    """What happened. The data each carries is listed beside it; `answers` are `guardrails.Answers`."""

    OPENED = "opened"  # alert, key, target{}, runbook|None, digest|None, fingerprints[], received_at, command{}?
    OBSERVED = "observed"  # alert: a further delivery (status firing or resolved)
    CLAIMED = "claimed"  # owner, epoch: a take-over; makes a stale owner's next append collide
    MATCHED = "matched"  # runbook, digest: an episode without runbook got one by a reload
    REFUSED = "refused"  # reason, sentence, earliest|None, rung|None, answers{}?
    DIAGNOSED = "diagnosed"  # rung, digest, path, complete, summary{}
    WOULD_ACT = "would_act"  # rung, action, resource, params{}, items[], summary, digest, answers{}; never an intent
    INTENT = "intent"  # as would_act, and: attempt, looked_at, start_by, deadline, probe
    OUTCOME = "outcome"  # attempt, result, detail, touched[]
    SETTLED = "settled"  # attempt, settlement, detail, evidence{}, by
    PROVING = "proving"  # attempt, good_since|None, checks[], probe: written when the state of the proof changes
    VERDICT = "verdict"  # attempt, verdict, sentence, checks[], probe
    NEEDS_APPROVAL = "needs_approval"  # as would_act, and: good_until, persons, try
    ALLOWED = (
        "allowed"  # rung, waits|None, answers{}: what forbade it is over; it waits for a person or as a shadow again
    )
    APPROVED = "approved"  # approval, who, reason
    DECLINED = "declined"  # approval, who, reason
    HANDED_OVER = "handed_over"  # reason, sentence, alertname, severity
    CLOSED = "closed"  # reason, sentence, changed?: what a shadow would have acted on is another one by now
    # of the journal's own stream (episode OWN), which is never folded
    PAUSED = "paused"  # pause, scope, who, reason, until|None
    RESUMED = "resumed"  # pause, who
    STORM_BEGAN = "storm_began"  # storm, open
    STORM_ENDED = "storm_ended"  # storm, most, by, reason
    DEMOTED = "demoted"  # runbook, why
    RESTORED = "restored"  # runbook, who, reason
    PROMOTED = "promoted"  # runbook, from, to, who, reason, despite: why although the shadow report said no, or ""
    # of the clicks' stream (episode CLICKS), which is never folded either
    NOT_TAKEN = (
        "not_taken"  # what, of, episode|None, who, code, sentence: a person's click that was refused or came second
    )


class Verdict(StrEnum):
    """What the proof showed."""

    FIXED = "fixed"
    NOT_FIXED = "not_fixed"
    WORSE = "worse"
    UNKNOWN = "unknown"


class Unreadable(ValueError):
    """Nothing can be decided on an episode by this program: it is left alone, and people are told.

    sentence  why, for them
    """

    sentence = "The remediator fails on it again and again; see its log."


class Unknown(Unreadable):
    """An event written by a version of the program that this one does not know."""

    sentence = "It was written by a newer version, which must go on with it."


class Torn(Unreadable):
    """Events of an episode are missing: what it has done cannot be told from the others."""

    sentence = "Events of it are missing in the journal; `prepctl journal:verify` tells what else is."


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal.

    id       32 hex digits made by the writer before the first try: settles a COMMIT whose answer was lost
    episode  which episode; `seq` counts from 1 inside it
    at       UNIX seconds, journal clock
    """

    id: str
    episode: str
    seq: int
    kind: Kind
    at: float
    data: Mapping[str, Any]
    version: int = VERSION

    def dumps(self) -> str:
        """The data as JSON text, keys sorted: what is stored, hashed and compared."""
        return json.dumps(self.data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read(id: str, episode: str, seq: int, kind: str, version: int, at: float, data: str) -> Event:
    """A stored line back to a value. Raises Unknown for a kind or version of a newer program."""
    if version != VERSION or kind not in Kind.__members__.values():
        raise Unknown(f"episode {episode} seq {seq}: event {kind!r} version {version} is not known to this version")
    return Event(id, episode, seq, Kind(kind), at, json.loads(data), version)
