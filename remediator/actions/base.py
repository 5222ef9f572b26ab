"""The contract of an action: what it would do, doing it once, and finding out whether it was done.

An action is typed, allow-listed and bounded: no shell, no template over a label, no retry anywhere. The
engine calls, in this order and never out of it: `preview` (read only, gives the canonical resource, exactly
what would be touched, and the target's own reasons against it), then, after the intent is in the journal,
`execute` once, then, only when the outcome is unknown and the deadline has passed, `settle`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel

from remediator.errors import Fault
from remediator.reasons import Refusal
from remediator.settings import Settings

Json = Any  # what `json.dumps` takes: answers of servers go into the journal as they came
Item = Mapping[str, Json]


class Risk(StrEnum):
    """How bad it is to be wrong. Never in mode auto: destructive actions ask two persons, financial ones, which move
    money, ask one.
    """

    READ = "read"
    REVERSIBLE = "reversible"
    DISRUPTIVE = "disruptive"
    DESTRUCTIVE = "destructive"
    FINANCIAL = "financial"


ALWAYS_ASKED = frozenset({Risk.DESTRUCTIVE, Risk.FINANCIAL})


class Result(StrEnum):
    """How an attempt ended.

    `failed` is said only when the effect provably did not begin; timeout, reset, 5xx, cancellation and
    shutdown are `in_doubt`.
    """

    DONE = "done"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"


class Settlement(StrEnum):
    """What the target says about an attempt in doubt. Absence of a trace is `unknown`, never `not_done`."""

    DONE = "done"
    NOT_DONE = "not_done"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Preview:
    """What an action would do to the target as it is now.

    resource    canonical name that holds, cooldowns, limits and doubts belong to: `docker:project/service`,
                `pg:system_identifier`; computed from the target, never from a label
    summary     one sentence for people
    items       exactly what would be touched, each with its full identity; empty = nothing to do
    refusals    the target's own reasons against acting (no opt-in label, exec running, …)
    target_now  the clock at the target's side, UNIX seconds: `start_by` is counted on it
    left_out    what looks alike and would not be touched, with the reason (shown to people)
    asks        why a person must say yes to this, whatever the mode is; "" = nothing in it needs one
    """

    resource: str
    summary: str
    items: tuple[Item, ...]
    target_now: float
    refusals: tuple[Refusal, ...] = ()
    left_out: tuple[Item, ...] = ()
    asks: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt, as it was written into the journal before it is made.

    attempt     32 hex digits; travels to the target's side and is refused there when seen before
    params      validated params of the action
    items       what the preview listed; execution touches a subset of it
    resource    canonical resource of the preview
    start_by    UNIX seconds on the *target side's* clock after which the target must refuse to begin
    deadline    seconds for the whole execution; afterwards the outcome is in doubt
    intent_at   UNIX seconds, journal clock, when the intent was written
    """

    attempt: str
    params: BaseModel
    items: tuple[Item, ...]
    resource: str
    start_by: float
    deadline: float
    intent_at: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How `execute` ended. `touched` is a subset of the call's items; `detail` a sentence without secrets."""

    result: Result
    detail: str
    touched: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """The answer of `settle` with the evidence it rests on."""

    settlement: Settlement
    detail: str
    evidence: Mapping[str, Json] = field(default_factory=dict)


class Action(ABC):
    """One kind of intervention. Instances hold their clients; they keep no state between calls."""

    name: ClassVar[str]
    risk: ClassVar[Risk]
    idempotent: ClassVar[bool]
    """Would a second run of the same change nothing more? For people to read: what may have begun is never done again,
    and what provably did not begin may be, within the rung's `attempts`, whatever this says."""
    deadline: ClassVar[float]
    """Default seconds for `execute`; a rung may set its own, longer one."""
    params_model: ClassVar[type[BaseModel]]
    asks_when: ClassVar[str] = ""
    """When a preview of it `asks`, whatever the mode is; for people to read."""

    @classmethod
    def listed(cls, settings: Settings) -> Sequence[str] | None:
        """The services that the settings name for actions of this kind; None when they name none for it at all."""
        del settings
        return None

    @classmethod
    def obstacles(cls, settings: Settings, service: str) -> tuple[Fault, ...]:
        """Why it could never act on this service as long as the settings are what they are; () when it could.

        `where` is the key of the settings. Asked while runbooks are checked, never in place of `preview`.
        """
        del settings, service
        return ()

    @abstractmethod
    async def preview(self, params: BaseModel) -> Preview:
        """Read what would be touched.

        Raises Transient when the target or the way to it does not answer, Permanent when it says no.
        Bounded by the caller's timeout; changes nothing.
        """

    @abstractmethod
    async def execute(self, call: Call) -> Outcome:
        """Do it, once. Never raises for what the target answers: that is an outcome.

        Cancellation may strike at any await and means doubt; the caller writes that down.
        """

    @abstractmethod
    async def settle(self, call: Call) -> Settled:
        """After the deadline: did the effect happen? Reads only, at the target; raises Transient when it
        cannot be asked now.
        """
