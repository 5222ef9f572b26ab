"""What every guardrail said at a decision, as far as the journal tells: passed, refused, or not asked.

In: an event in which something was decided. Out: a line a guardrail, in the order in which they are asked. Pure. The
journal keeps the first refusal and asks no further, so those before it passed and those after it were not asked; where
two guardrails share a reason, only those before the first of them are told as passed.
"""

from __future__ import annotations

from dataclasses import dataclass

from remediator import guardrails
from remediator.events import Event, Kind
from remediator.guardrails import AFTER_LOOK, BEFORE_LOOK, BY_HAND, GLASS, LIMITS, Guardrail
from remediator.ledger import Command
from remediator.reasons import Reason

BEFORE, LATER = "before the look", "limits"
ORDER: tuple[Guardrail, ...] = tuple(dict.fromkeys((*BEFORE_LOOK, guardrails.settling, *AFTER_LOOK, *LIMITS)))
_SAYS: dict[Reason, Guardrail] = {
    Reason.STALE_ALERT: guardrails.stale,
    Reason.JOURNAL_REGRESSED: guardrails.journal_regressed,
    Reason.PAUSED: guardrails.paused,
    Reason.SETTLING: guardrails.settling,
    Reason.RULE_CLEARED: guardrails.rule,
    Reason.RULE_UNKNOWN: guardrails.rule,
    Reason.CLOCK: guardrails.clock_skew,
    Reason.BLOCKED_BY_CAUSE: guardrails.blocked_by,
    Reason.MUTED: guardrails.muted,
    Reason.ALERTMANAGER_UNREACHABLE: guardrails.muted,
    Reason.TARGET_UNREACHABLE: guardrails.preview_possible,
    Reason.VANTAGE_DISAGREES: guardrails.vantage,
    Reason.VANTAGE_UNKNOWN: guardrails.vantage,
    Reason.NOTHING_TO_DO: guardrails.target_agrees,
    Reason.RECOVERING: guardrails.recovering,
    Reason.TARGET_IN_DOUBT: guardrails.in_doubt,
    Reason.TARGET_BUSY: guardrails.busy,
    Reason.STORM: guardrails.settling,  # it is asked before a look is made, and again with the limits
    Reason.RELEASING: guardrails.settling,  # so is this
    Reason.RECURRENCE: guardrails.recurrence,
    Reason.COOLDOWN: guardrails.cooldown,
    Reason.RATE_LIMIT: guardrails.rate_limit,
}
"""The first guardrail that can say it; one that is not here is said by the target itself."""
_SHARED = {
    Reason.CLOCK: guardrails.clock_behind,
    Reason.RULE_UNKNOWN: guardrails.blocked_by,
    Reason.TARGET_UNREACHABLE: guardrails.target_agrees,
    Reason.NOTHING_TO_DO: guardrails.nothing_to_do,
    Reason.STORM: guardrails.storm,
    Reason.RELEASING: guardrails.releasing,
}
"""The last one, where several can say it."""
_ALL_PASSED = (Kind.WOULD_ACT, Kind.NEEDS_APPROVAL, Kind.INTENT, Kind.ALLOWED)
_NO_GUARDRAIL = frozenset(
    {
        Reason.NO_RUNBOOK,
        Reason.NO_TARGET,
        Reason.FOREIGN_ALERT,
        Reason.SHADOW,
        Reason.NEEDS_APPROVAL,
        Reason.DECLINED,
        Reason.NO_EVIDENCE,
        Reason.LOOK_STALE,
    }
)


@dataclass(frozen=True, slots=True)
class Check:
    """A guardrail's answer. `said` is passed, refused, or not asked; `what` its own first sentence."""

    name: str
    said: str
    what: str


def checks(event: Event, command: Command | None = None) -> tuple[Check, ...]:
    """In order; empty where no guardrail decided. `command` for an episode that a person began."""
    if event.kind in _ALL_PASSED:
        return tuple(_check(rule, "passed") for rule in _order(command))
    if event.kind is not Kind.REFUSED or event.data["reason"] not in Reason.__members__.values():
        return ()
    reason = Reason(event.data["reason"])
    if reason in _NO_GUARDRAIL or not event.data.get("rung"):
        return ()
    return tuple(_of_refusal(reason, _order(command)))


def _of_refusal(reason: Reason, order: tuple[Guardrail, ...]) -> list[Check]:
    first = _SAYS.get(reason, guardrails.target_agrees)
    last = _SHARED.get(reason, first)
    at = order.index(first) if first in order else len(order)
    end = order.index(last) if last in order else at
    told = []
    for number, rule in enumerate(order):
        refuses = rule in (first, last) and not (reason is Reason.STORM and rule is first)
        if refuses:
            told.append(_check(rule, "refused" if first is last or reason is Reason.STORM else "refused here or below"))
        elif number < at:
            told.append(_check(rule, "passed"))
        else:
            told.append(_check(rule, "not told" if number < end else "not asked"))
    return told


def _order(command: Command | None) -> tuple[Guardrail, ...]:
    if command is None:
        return ORDER
    limits = LIMITS if not command.break_glass else tuple(rule for rule in LIMITS if rule not in GLASS)
    return tuple(dict.fromkeys((guardrails.stale, *BY_HAND, *limits)))


def _check(rule: Guardrail, said: str) -> Check:
    text = " ".join((rule.__doc__ or "").split())
    return Check(rule.__name__.replace("_", " "), said, text.partition(". ")[0].rstrip(".") + ".")
