"""What is seen of an episode afterwards: what would have been done, what really came, what speaks against it. Values.

`hindsight.py` reads them out of the journal's events, `shadow_words.py` says them, `promotion.py` counts them.
docs/trust-by-steps.md says what each word means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from remediator.events import Kind, Verdict
from remediator.reasons import Reason
from remediator.runbooks import Mode, Runbook

PROPOSALS: Mapping[Kind, Mode] = {Kind.WOULD_ACT: "shadow", Kind.NEEDS_APPROVAL: "approve", Kind.INTENT: "auto"}


class Came(StrEnum):
    """What really came after the moment to act (or after the alert, where there was none)."""

    OPEN = "open"  # it is not over yet
    HEALED = "healed_alone"
    PERSON = "person_acted"
    LASTED = "lasted"  # until people had it
    HELPED = "helped"  # it was done, and proven
    NOT_HELPED = "not_helped"  # it was done, or may have been, and is not proven


class Wrong(StrEnum):
    """What speaks against a proposal afterwards."""

    HEALED_SOON = "healed_soon"
    FOUND_HEALTHY = "found_healthy"
    CAUSE_ELSEWHERE = "cause_elsewhere"
    TARGET_CHANGED = "target_changed"
    ANOTHER_TARGET = "another_target"
    PERSON_SAID_NO = "person_said_no"
    NOT_HELPED = "not_helped"


AFTERWARDS: Mapping[str, Wrong] = {
    Reason.BLOCKED_BY_CAUSE: Wrong.CAUSE_ELSEWHERE,
    Reason.STORM: Wrong.CAUSE_ELSEWHERE,
    Reason.PROVIDER_FAILING: Wrong.CAUSE_ELSEWHERE,
    Reason.MUTED: Wrong.PERSON_SAID_NO,
    Reason.PAUSED: Wrong.PERSON_SAID_NO,
    Reason.DECLINED: Wrong.PERSON_SAID_NO,
    Reason.VANTAGE_DISAGREES: Wrong.FOUND_HEALTHY,
    Reason.NOTHING_TO_DO: Wrong.FOUND_HEALTHY,
    Reason.TARGET_COUNT: Wrong.TARGET_CHANGED,
    Reason.TARGET_EXEC_RUNNING: Wrong.TARGET_CHANGED,
    Reason.TARGET_NOT_RUNNING: Wrong.TARGET_CHANGED,
    Reason.TARGET_ONE_OFF: Wrong.TARGET_CHANGED,
    Reason.TARGET_RESTARTING: Wrong.TARGET_CHANGED,
    Reason.TARGET_STOPPED: Wrong.TARGET_CHANGED,
    Reason.TARGET_YOUNG: Wrong.TARGET_CHANGED,
    Reason.REPLICA_BUSY: Wrong.TARGET_CHANGED,
    Reason.REPLICA_PROMOTED: Wrong.TARGET_CHANGED,
}
"""A guardrail that says one of these within `numbers.watch` after the proposal said it too late: it would be done."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A guardrail's no, as it was given."""

    at: float
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Against:
    """One thing that speaks against a proposal, `at` UNIX seconds; `detail` has names and numbers."""

    kind: Wrong
    at: float
    detail: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """What would have been done, was asked for, or was done (`mode`), first in its episode.

    step, steps  its place in the ladder; 0 of 0 when the runbook is not known
    """

    at: float
    mode: Mode
    rung: str
    step: int
    steps: int
    action: str
    resource: str
    summary: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One episode, looked back at.

    book          the runbook it was decided on, None where it is not at hand
    came_after    seconds from the proposal (without one from the first delivery) to what came; None while open
    back_after    seconds after its end in which an alert of the same runbook came for the same target again; None when
                  none did
    person        who acted meanwhile by `prepctl act`, as name and action
    limit         the limit by which it would not have acted then, after what it would have done before; None: by none
    judged        is it known what speaks against the proposal?
    """

    episode: str
    alert: str
    runbook: str
    target: Mapping[str, str]
    opened_at: float
    ended_at: float | None
    answers: tuple[Answer, ...]
    proposal: Proposal | None
    came: Came
    came_after: float | None
    book: Runbook | None = None
    back_after: float | None = None
    person: str = ""
    verdict: Verdict | None = None
    approved_by: tuple[str, ...] = ()
    against: tuple[Against, ...] = ()
    limit: Reason | None = None
    judged: bool = False

    @property
    def wrong(self) -> bool:
        return self.judged and bool(self.against)
