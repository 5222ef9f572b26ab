"""What the journal's tables say about everybody else: other episodes, limits, pauses, replicas. A value.

Read without a lock to plan, and once more under the intent's lock to decide.
"""

from __future__ import annotations

from dataclasses import dataclass

RECURRENCE_WINDOW = 7 * 86400.0
"""Seconds in which proven fixes of one target by one runbook are counted."""


@dataclass(frozen=True, slots=True)
class Facts:
    """
    now               UNIX seconds, journal clock (the database's clock on PostgreSQL)
    paused            active pauses that hold here, each as a phrase with scope, person and reason
    regressed         the journal has lost what was acknowledged, as a phrase; "" while people need not look
    strictest_mode    among the live replicas, this one included
    last_effect_at    latest charge on the resource by another episode, None when there is none
    *_hour, *_day     charges in the last 3,600 and 86,400 seconds
    doubts            other episodes with an unsettled attempt on the resource
    holds             other episodes with an attempt on the resource that is not proven yet
    unproven          of `holds` those that act or are being proven: the others are with people
    open_firing       open episodes that have a runbook and fire
    hold_off_until    no intent before: unclean start, clock step; None when there is no reason to wait
    hold_off_why      the latest such reason, as a phrase
    head_at           time of the newest event; 0.0 in an empty journal
    storm             the latched storm as a phrase, None while there is none
    storm_overridden  a person has ended the storm, and the number of open episodes has not been low since
    releasing         who goes first after a storm or a pause, as a phrase; None when this episode may go
    demoted           why the runbook may only ask for approval by now, None while it may do what its mode says
    recent            the runbook's latest episodes that acted since it was last restored, newest first: proven fixed?
    fixed_lately      proven fixes of this runbook on this resource within RECURRENCE_WINDOW
    """

    now: float
    paused: tuple[str, ...]
    strictest_mode: str
    last_effect_at: float | None
    resource_hour: int
    resource_day: int
    runbook_hour: int
    runbook_day: int
    all_hour: int
    all_day: int
    doubts: tuple[str, ...]
    holds: tuple[str, ...]
    open_firing: int
    hold_off_until: float | None
    head_at: float
    storm: str | None = None
    storm_overridden: bool = False
    releasing: str | None = None
    demoted: str | None = None
    recent: tuple[bool, ...] = ()
    fixed_lately: int = 0
    unproven: tuple[str, ...] = ()
    regressed: str = ""
    hold_off_why: str = ""


def calm(now: float, mode: str) -> Facts:
    """A journal in which nobody else does anything and no limit is touched: what rehearsals and tests begin with."""
    return Facts(
        now=now,
        paused=(),
        strictest_mode=mode,
        last_effect_at=None,
        resource_hour=0,
        resource_day=0,
        runbook_hour=0,
        runbook_day=0,
        all_hour=0,
        all_day=0,
        doubts=(),
        holds=(),
        open_firing=1,
        hold_off_until=None,
        head_at=now,
    )
