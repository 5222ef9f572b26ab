"""What the switch knows and what follows from it: is the Watchdog overdue, who must be told what. Pure.

In: the state, the time (UNIX seconds that never step back), the rules. Out: a new state, and the deliveries that are
due. What must hold: silence for `accept` opens exactly one incident; an incident is told to every destination, once and
then each `repeat`; its end is told to all that were told of it; a restart changes none of this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["watchdog", "probe"]
GIVE_UP = 86_400.0
"""Seconds after which an end that somebody could not be told of is forgotten."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Times in seconds. `page_after` None: probes do not page. `destinations`: the names of all that are paged."""

    accept: float
    grace: float
    repeat: float
    page_after: float | None
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that people are told. `since`: when the fault began; `ended` None while it lasts.

    `told`: destination -> when it last took the page; `closed`: those that took the end.
    """

    id: str
    kind: Kind
    since: float
    began: float
    ended: float | None = None
    told: Mapping[str, float] = field(default_factory=dict)
    closed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """All that must outlive a restart.

    waiting_since   when the switch began to wait for its very first Watchdog
    heard           evaluation time of the newest Watchdog that was heard; None: none yet
    grace_until     until then an overdue silence is accepted once more; None: no grace was given in this silence
    failing_since   first of the probes that failed without a break; None: the last one succeeded
    """

    waiting_since: float
    heard: float | None = None
    grace_until: float | None = None
    failing_since: float | None = None
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message that is due: `ending` says that the incident is over."""

    incident: Incident
    destination: str
    ending: bool

    @property
    def key(self) -> tuple[str, str, bool]:
        """What tells it from others."""
        return self.incident.id, self.destination, self.ending


def begin(state: State | None, now: float, rules: Rules) -> State:
    """The state after a start or a freeze.

    Times ahead of `now` (the clock was set back) count as now. A silence that would end too soon gets its grace, but
    only once: a switch that is started again and again must page all the same.
    """
    if state is None:
        return State(waiting_since=now)
    state = replace(
        state,
        waiting_since=min(state.waiting_since, now),
        heard=None if state.heard is None else min(state.heard, now),
        grace_until=None if state.grace_until is None else min(state.grace_until, now + rules.grace),
        failing_since=None if state.failing_since is None else min(state.failing_since, now),
    )
    if now + rules.grace > due(state, rules) and state.grace_until is None and _open(state, "watchdog") is None:
        state = replace(state, grace_until=now + rules.grace)
    return state


def due(state: State, rules: Rules) -> float:
    """When the silence is no longer accepted."""
    last = state.waiting_since if state.heard is None else state.heard
    return max(last + rules.accept, state.grace_until or 0.0)


def hear(state: State, now: float, age: float, rules: Rules) -> State:
    """A Watchdog came that Prometheus evaluated `age` seconds ago (0: not known). One older than known is nothing."""
    heard = now - max(age, 0.0)
    if state.heard is not None and heard <= state.heard:
        return state
    # The silence is over, and with it its grace, only when this one is fresh.
    grace = None if now < heard + rules.accept else state.grace_until
    return replace(state, heard=heard, grace_until=grace)


def probed(state: State, now: float, *, up: bool) -> State:
    """A probe ended."""
    if up == (state.failing_since is None):
        return state
    return replace(state, failing_since=None if up else now)


def look(
    state: State, now: float, rules: Rules, *, probed: bool = True, under_way: Collection[str] = frozenset()
) -> State:
    """Open what has become an incident, end what is over, forget what everybody was told.

    `probed`: whether a probe has ended since the start or a freeze; what the last one before said opens nothing.
    `under_way`: ids of incidents of which somebody is being told now; they are not forgotten before it is known whether
    he took it, since then he must hear of the end.
    """
    overdue = now >= due(state, rules)
    last = state.waiting_since if state.heard is None else state.heard
    state = _turn(state, "watchdog", now, last if overdue else None)
    failing = state.failing_since
    down = failing is not None and rules.page_after is not None and now >= failing + rules.page_after
    if probed:
        state = _turn(state, "probe", now, failing if down else None)
    kept = tuple(each for each in state.incidents if each.id in under_way or not _settled(each, now, rules))
    return state if kept == state.incidents else replace(state, incidents=kept)


def deliveries(state: State, now: float, rules: Rules) -> list[Delivery]:
    """What must be said now; what fails is due again."""
    found = []
    for incident in state.incidents:
        for name in rules.destinations:
            told = incident.told.get(name)
            if incident.ended is None:
                if told is None or now - told >= rules.repeat:
                    found.append(Delivery(incident, name, ending=False))
            elif told is not None and name not in incident.closed:
                found.append(Delivery(incident, name, ending=True))
    return found


def delivered(state: State, delivery: Delivery, now: float) -> State:
    """A destination took a message."""

    def noted(incident: Incident) -> Incident:
        if incident.id != delivery.incident.id:
            return incident
        if delivery.ending:
            return replace(incident, closed=(*incident.closed, delivery.destination))
        return replace(incident, told={**incident.told, delivery.destination: now})

    return replace(state, incidents=tuple(noted(incident) for incident in state.incidents))


def _turn(state: State, kind: Kind, now: float, since: float | None) -> State:
    """`since`: when the fault began that is an incident now; None: there is none."""
    there = _open(state, kind)
    if since is not None and there is None:
        fresh = Incident(f"prep-switch-{kind}-{now:.3f}", kind, since, now)
        return replace(state, incidents=(*state.incidents, fresh))
    if since is None and there is not None:
        ended = tuple(replace(each, ended=now) if each is there else each for each in state.incidents)
        return replace(state, incidents=ended)
    return state


def _open(state: State, kind: Kind) -> Incident | None:
    return next((each for each in state.incidents if each.kind == kind and each.ended is None), None)


def _settled(incident: Incident, now: float, rules: Rules) -> bool:
    if incident.ended is None:
        return False
    waiting = [name for name in incident.told if name in rules.destinations and name not in incident.closed]
    return not waiting or now - incident.ended > GIVE_UP
