"""What goes into the journal and comes out of it besides events: frozen values, no I/O.

All times are UNIX seconds by the journal's clock: the database's on PostgreSQL, the machine's on SQLite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from remediator.facts import Facts
from remediator.reasons import Refusal

Decide = Callable[[Facts], Refusal | None]
"""The pure judgement under the intent's lock: a refusal, or None to go on."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An episode that is ours to work on until its lease ends.

    epoch       grows with every claim of the episode
    taken_over  another owner held it and let its lease run out: append `claimed` before anything else
    claims      claims in a row, this one included, that ended with neither a new event nor a planned release:
                three mean that it is stuck
    proof_at    when its last round of proof was asked, by whichever replica; UNIX seconds of the journal
    """

    episode: str
    epoch: int
    taken_over: bool
    claims: int
    proof_at: float | None = None


@dataclass(frozen=True, slots=True)
class InboxRow:
    """A fact from outside: `delivery` (no episode yet), `alert` (routed to one) or `click`."""

    id: int
    kind: str
    episode: str | None
    received_at: float
    body: bytes


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A click of a person that came to nothing.

    id       of the event that tells it: the same click is told once
    what     which act it was, a word of `clicks.Act`
    of       what it was about (a question, an attempt, a pause, a runbook), as it was given; "" where nothing is named
    episode  whose it is, None when it belongs to none or to none that is known
    code     why, in a word; `sentence` says it to people
    """

    id: str
    what: str
    of: str
    episode: str | None
    who: str
    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Routed:
    """One alert of a delivery and where it belongs.

    key          what makes two alerts one episode (`alerts.episode_key`)
    fingerprint  of this alert; an open episode that knows it gets the alert whatever the key says
    body         what the episode's inbox row will carry
    label        for people: what the episode is called until it has events
    opens        False for a resolved alert: it tells an open episode something and opens none
    """

    key: str
    fingerprint: str
    body: bytes
    label: str
    opens: bool = True


@dataclass(frozen=True, slots=True)
class EpisodeIndex:
    """What other episodes and people must find of an episode without folding it.

    severity `P0` to `P4` orders the work; fingerprints are added to the known ones, never taken away.
    """

    runbook: str | None = None
    severity: str | None = None
    firing: bool = True
    fingerprints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EpisodeRow:
    """The index entry of an episode. `due_at`, `owner` and `claims` are None, None and 0 once it is closed.

    `refused` is the reason for which it waits, None while it does not.
    """

    episode: str
    key: str
    label: str
    runbook: str | None
    severity: str | None
    firing: bool
    opened_at: float
    closed_at: float | None
    due_at: float | None
    owner: str | None
    claims: int
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """A person (or the journal itself) said stop. Scope `all`, `runbook:<name>` or `resource:<canonical>`."""

    id: int
    scope: str
    who: str
    reason: str
    since: float
    until: float | None


@dataclass(frozen=True, slots=True)
class Storm:
    """Too many episodes at once: nothing is begun. `most` is the largest number of them so far."""

    id: int
    began_at: float
    most: int


@dataclass(frozen=True, slots=True)
class Demotion:
    """A runbook that has failed too often: it may only ask for approval until a person restores it."""

    id: int
    runbook: str
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class Promoted:
    """A person gives a runbook more freedom. `despite`: why, although the shadow report does not support it; or ""."""

    runbook: str
    before: str
    to: str
    who: str
    reason: str
    despite: str


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt whose outcome is not written yet: what `pause` cannot stop any more."""

    attempt: str
    episode: str
    runbook: str
    resource: str
    at: float
