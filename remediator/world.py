"""The fresh look: what is true now, as values. No I/O here (`sight.py` fills them in).

Every field says "unknown" in its own way; unknown never counts as permission.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from remediator.actions.base import Preview


class Answer(StrEnum):
    """What all the servers asked say together: `yes` or `no` only when they all do, else `unknown`."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Health(StrEnum):
    """What the remediator's own direct probe of the target found, past every exporter."""

    HEALTHY = "healthy"
    SICK = "sick"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class World:
    """One look at everything that can forbid an effect.

    looked_at        UNIX seconds, journal clock, when the look *began*
    rule             does every Prometheus evaluate the alert's rule true for this target?
    rule_detail      the expression's value, or why it is unknown
    skew             largest difference between Prometheus' clock and ours, seconds; None = not known
    causes           alerts of the runbook's `blocked_by` that are pending or firing; None = not known
    muted            is an alert of this episode silenced or inhibited at any Alertmanager?
    muted_by         ids of silences, or labels of what inhibits, for the sentence
    probe            the direct probe of the target
    probe_detail     what it found, with the time it took
    preview          what the rung's action would do; None when it could not be asked
    preview_error    why not
    pause_file       the pause file is there
    """

    looked_at: float
    rule: Answer
    rule_detail: str
    skew: float | None
    causes: tuple[str, ...] | None
    muted: Answer
    muted_by: str
    probe: Health
    probe_detail: str
    preview: Preview | None
    preview_error: str
    pause_file: bool


@dataclass(frozen=True, slots=True)
class CheckSample:
    """One proof query's answer. value None = no sample, NaN or stale: that is unknown, never good."""

    name: str
    value: float | None
    good: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class ProofLook:
    """One round of the runbook's proof.

    at        UNIX seconds, journal clock
    checks    every query with its sample
    probe     the direct probe in the same round
    """

    at: float
    checks: tuple[CheckSample, ...]
    probe: Health
    probe_detail: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a diagnosis captured: redacted, bounded, kept beside the journal; its digest goes inside."""

    digest: str
    path: str
    complete: bool
    summary: Mapping[str, str] = field(default_factory=dict)
