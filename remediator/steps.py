"""What the planner may know of one episode, and what it may say is next. Values; who decides is `planner.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from remediator.actions.base import Risk
from remediator.facts import Facts
from remediator.guardrails import Case
from remediator.ledger import Attempt, Ledger
from remediator.reasons import Reason, Refusal
from remediator.runbooks import Runbook, Rung
from remediator.settings import Settings
from remediator.verification import Judged
from remediator.world import Answer, ProofLook, World

RETRY = 15.0  # seconds until a question without an answer is asked again
STANDING = 60.0  # seconds between two looks at what people have in hand; also the longest wait without a reason


@dataclass(frozen=True, slots=True)
class View:
    """Everything the planner may know.

    risks       risk of each action by name
    world       the look for this rung, None before it
    proof       one round of proof, None before it
    rule        what Prometheus says of the alert's rule, None before it was asked
    facts       what others did, None before the journal was asked
    last_round  when a round of proof was last asked, by whichever replica, None when none was
    """

    now: float
    ledger: Ledger
    book: Runbook | None
    settings: Settings
    facts: Facts | None
    risks: dict[str, Risk]
    world: World | None = None
    proof: ProofLook | None = None
    rule: Answer | None = None
    last_round: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing now; due again at `until` (UNIX seconds)."""

    until: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing until `until`, seconds away, and what was seen is kept: the last look is made in good time."""

    until: float


@dataclass(frozen=True, slots=True)
class LookAtFacts:
    """Read from the journal what others did, then ask again."""


@dataclass(frozen=True, slots=True)
class Look:
    """See everything that can forbid this rung, then ask again."""

    rung: Rung


@dataclass(frozen=True, slots=True)
class LookAtProof:
    """Ask one round of proof, then ask again."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class LookAtRule:
    """Ask every Prometheus whether the alert's rule is true, then ask again."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Write down why not (once per reason and rung), and decide again at `until`.

    answers  what the guardrails said, see `guardrails.Answers`; of each step that a decision ends in
    """

    refusal: Refusal
    rung: str | None
    until: float
    answers: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Diagnose:
    """Capture evidence before a restart destroys it."""

    rung: Rung


@dataclass(frozen=True, slots=True)
class WouldAct:
    """Shadow: write what would be done."""

    rung: Rung
    world: World
    answers: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class AskApproval:
    """Ask people for exactly this; it waits for them until `good_until`.

    digest   of what would be done (`digest_of`): an approval is good for nothing else
    persons  how many different people must say yes
    attempt  which try of this rung it would be: an approval pays for one
    """

    rung: Rung
    world: World
    digest: str
    good_until: float
    persons: int
    attempt: int
    answers: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Write down that what forbade it is over: it waits for a person again, or as a shadow (`waits` None)."""

    rung: Rung
    waits: Reason | None
    answers: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Intend:
    """Write the intent, under the lock and with the limits judged again, then act. It consumes the approval, if any."""

    rung: Rung
    world: World
    case: Case
    approval: str | None = None
    answers: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class SettleDoubt:
    """Ask the target whether an attempt with an unknown end took effect."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class RecordProof:
    """Write what this round of proof showed, when it changed something; due again at `until`."""

    attempt: Attempt
    judged: Judged
    look: ProofLook
    until: float


@dataclass(frozen=True, slots=True)
class HandOver:
    """To people: a standing state, told again each minute until the rule is not true any more."""

    reason: str
    sentence: str
    alertname: str


@dataclass(frozen=True, slots=True)
class Close:
    """The episode is over. `changed`: the container is another one than the shadow would have acted on."""

    reason: str
    sentence: str
    changed: bool = False


Step = (
    Wait
    | Hold
    | LookAtFacts
    | Look
    | LookAtProof
    | LookAtRule
    | Refuse
    | Diagnose
    | WouldAct
    | AskApproval
    | Allowed
    | Intend
    | SettleDoubt
    | RecordProof
    | HandOver
    | Close
)
