"""What would have come of one episode, in one word and one sentence. Pure.

In: events, of a replay or of a remediator that lived. Out: a state, the reason and the sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from remediator import narrative
from remediator.durations import human
from remediator.events import Event, Kind
from remediator.reasons import Reason


class State(StrEnum):
    """Every end that an episode may come to here."""

    ACT = "would act"
    ASK = "would ask"
    REFUSED = "refused"
    BLOCKED = "blocked by its cause"
    OVER = "over before"
    NO_RUNBOOK = "no runbook"
    UNKNOWN = "unknown"


UNKNOWABLE = frozenset({Reason.RULE_UNKNOWN, Reason.CLOCK})
DECIDED = frozenset({Kind.INTENT, Kind.NEEDS_APPROVAL, Kind.WOULD_ACT, Kind.HANDED_OVER})
ECHO = 60.0  # seconds after its beginning at which an alert is delivered again only if its first episode is closed
UNSAID = frozenset({Reason.SETTLING, Reason.STALE_ALERT})
"""Refusals that say when, not why."""


@dataclass(frozen=True, slots=True)
class Decided:
    """One episode's end.

    reason    of a refusal; "" where there is none
    at        when it would have acted, asked, or was first refused for this reason; None where nothing was decided
    rungs     what would have been done, in order
    held      seconds for which it was refused before it would have acted
    """

    state: State
    reason: str
    sentence: str
    at: float | None = None
    action: str = ""
    resource: str = ""
    rungs: tuple[str, ...] = ()
    held: float = 0.0


def decided(events: Sequence[Event]) -> Decided:
    """By what counts most: an intent, a question to people, the reason that forbade it for the longest time."""
    refusals = [event for event in events if event.kind is Kind.REFUSED and event.data["reason"] not in UNSAID]
    if intents := [event for event in events if event.kind is Kind.INTENT]:
        return _acted(State.ACT, intents, refusals)
    if asked := [event for event in events if event.kind is Kind.NEEDS_APPROVAL]:
        return _acted(State.ASK, asked, refusals)
    handed = [event for event in events if event.kind is Kind.HANDED_OVER and event.data["reason"] in list(Reason)]
    if handed and (handed[0].data["reason"] not in UNSAID or not refusals):
        return _handed_over(handed[0])
    if refusals:
        return _refused(_longest(events, refusals))
    if events[-1].kind is Kind.CLOSED:
        return Decided(State.OVER, "", narrative.line(events[-1]))
    return Decided(State.UNKNOWN, "", "The history ends before anything was decided.")


def is_echo(events: Sequence[Event]) -> bool:
    """Opened late, closed without a decision: an earlier episode's alert went on firing (`keep_firing_for`)."""
    late = events[0].at > float(events[0].data["alert"]["starts_at"]) + ECHO
    said = any(
        event.kind in DECIDED or (event.kind is Kind.REFUSED and event.data["reason"] not in UNSAID) for event in events
    )
    return late and not said and events[-1].kind is Kind.CLOSED


def _acted(state: State, events: Sequence[Event], refusals: Sequence[Event]) -> Decided:
    first = events[0]
    data = first.data
    before = [event for event in refusals if event.at < first.at]
    held = first.at - before[0].at if before else 0.0
    rungs = tuple(dict.fromkeys(event.data["rung"] for event in events))
    what = f"{data['action']} on {data['resource']}"
    if state is State.ACT:
        said = f"Would {what}" + (f", then {' and '.join(rungs[1:])}" if rungs[1:] else "")
    else:
        said = f"Would ask a person for {what}"
    late = f", after {human(held)} of waiting ({before[-1].data['reason']})" if before else ""
    sentence = f"{said}, at {narrative.clock(first.at)}{late}."
    return Decided(state, "", sentence, first.at, data["action"], data["resource"], rungs, held)


def _handed_over(event: Event) -> Decided:
    return Decided(State.REFUSED, event.data["reason"], narrative.line(event), event.at)


def _longest(events: Sequence[Event], refusals: Sequence[Event]) -> Event:
    """The first refusal for the reason that stood longest; one that stands at the end stands for ever."""
    decisions = [event for event in events if event.kind is not Kind.OBSERVED]
    stood: dict[str, float] = {}
    for event, following in pairwise([*decisions, None]):
        if event in refusals and event is not None:
            lasted = math.inf if following is None else following.at - event.at
            stood[event.data["reason"]] = stood.get(event.data["reason"], 0.0) + lasted
    reason = max(stood, key=lambda name: stood[name])
    return next(event for event in refusals if event.data["reason"] == reason)


def _refused(event: Event) -> Decided:
    reason = event.data["reason"]
    if reason in UNKNOWABLE:
        return Decided(State.UNKNOWN, reason, f"History lacks what decides: {event.data['sentence']}", event.at)
    state = State.BLOCKED if reason == Reason.BLOCKED_BY_CAUSE else State.REFUSED
    return Decided(state, reason, narrative.line(event), event.at)
