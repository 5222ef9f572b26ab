"""What is true in the simulated world, whatever anybody believes: services, faults, and everything that was done.

The truth has a history, so that a Prometheus that is behind can show what was true a while ago, and so that an
effect can be judged by what held in the seconds before it.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from remediator.events import Event
from remediator.people import OwnAlert
from remediator.prometheus import Sample
from remediator.world import Health
from simulation.clock import Clock
from simulation.story import ASKS, CROWD, DATABASE, SERVICES, Fault, Story, Wrong

DEPENDENTS = SERVICES[:2]
"""Services that are slow when the database is down."""


@dataclass
class Span:
    """So from `start` to `end` (seconds since the story began); still so while `end` is None."""

    start: float
    end: float | None = None

    def holds(self, since: float, at: float) -> bool:
        """Was it so all the time from `since` to `at`?"""
        return self.start <= since and (self.end is None or self.end > at)


@dataclass
class Service:
    """One service with one container.

    after    what the next restart does: heals, stays, dies, returns (ill again `relapse` seconds later)
    owner    number of the incident that it suffers from now, None while it is well
    """

    name: str
    changes: list[tuple[float, Health]] = field(default_factory=lambda: [(0.0, Health.HEALTHY)])
    after: str = "heals"
    relapse: float = 40.0
    owner: int | None = None
    started_at: float = -86400.0
    container: int = 1
    shown: list[tuple[float, float, Health]] = field(default_factory=list)
    """(from, to, what) monitors see instead of the truth."""
    unseen: list[tuple[float, float]] = field(default_factory=list)
    """(from, to) in which the direct probe sees what the monitors see."""
    outage: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds ill or down, by incident."""

    @property
    def health(self) -> Health:
        return self.changes[-1][1]

    def become(self, health: Health, t: float) -> None:
        """From now on."""
        before, was = self.changes[-1]
        if was is not Health.HEALTHY and self.owner is not None:
            self.outage[self.owner] += t - before
        self.changes.append((t, health))
        if health is Health.HEALTHY:
            self.owner = None

    def at(self, t: float) -> Health:
        """What was true then."""
        if t >= self.changes[-1][0]:
            return self.changes[-1][1]
        place = bisect_right(self.changes, t, key=lambda change: change[0])
        return self.changes[max(0, place - 1)][1]

    def quiet(self, since: float) -> bool:
        """Has nothing been amiss since then, as far as anybody could see?"""
        last, health = self.changes[-1]
        return health is Health.HEALTHY and last < since and (not self.shown or self.shown[-1][1] < since)

    def monitored(self, t: float) -> Health:
        """What exporters have shown of it at that time."""
        for start, end, what in self.shown:
            if start <= t < end:
                return what
        return self.at(t)

    def probed(self, t: float) -> Health:
        """What the remediator's own probe finds."""
        return self.monitored(t) if any(start <= t < end for start, end in self.unseen) else self.at(t)


@dataclass(frozen=True, slots=True)
class Effect:
    """One call that took effect: what was so at that moment, for the invariants. Times in seconds since the beginning.

    health     of the target when it began
    forbidden  what had forbidden it for longer than the remediator needs to see it, in words; empty when nothing had
    owner      number of the incident that the target suffered from, None when it was well
    late       seconds after `start_by`, on the target's clock; negative: in time
    intended   was its intent durable?
    fooled     both the monitors and the probe saw another thing than what was true
    takes      seconds for which the container was away
    """

    t: float
    attempt: str
    service: str
    health: Health
    owner: int | None
    forbidden: tuple[str, ...]
    late: float
    intended: bool
    fooled: bool
    takes: float


@dataclass
class Page:
    """One thing that people were told, the first time."""

    t: float
    alert: OwnAlert


class World:
    """All of it. Chance at run time (`random`) is only about delays."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.clock = Clock()
        self.random = random.Random(f"{story.seed}/delays")
        self.services = {name: Service(name) for name in (*SERVICES, *CROWD, ASKS, DATABASE)}
        self.effects: list[Effect] = []
        self.pages: dict[tuple[str, str], Page] = {}
        self.events: list[Event] = []
        self.event_times: dict[str, float] = {}
        self.acknowledged: dict[str, float] = {}
        """Firing alerts of ours that were acknowledged: label text -> first time."""
        self.silences: list[tuple[str, Span]] = []
        self.pauses: list[tuple[str, Span]] = []
        self.inside: list[tuple[str, Span]] = []
        """A person works inside the container of that service."""
        self.modes: list[tuple[str, Span]] = []
        """Modes stricter than auto that every replica has been told."""
        self.shown: dict[tuple[str, float], tuple[Sample, ...]] = {}
        """What rules have shown at a time, as every server of the same scrape shows it."""
        self.steps: list[float] = []
        self.noticed: list[float] = []
        """When a process has noticed a step of its clock."""
        self.births: list[float] = []
        """When a process has started."""
        self.declined: set[str] = set()
        """Questions to which a person has said no."""
        self.answered: dict[str, float] = {}
        """Attempts of which the target has said that they are done, and when."""
        self.gate_seen: set[str] = set()
        self.gate_started = -86400.0
        self._faults: dict[Wrong, list[Fault]] = defaultdict(list)
        for fault in story.faults:
            self._faults[fault.wrong].append(fault)

    @property
    def t(self) -> float:
        return self.clock.t

    # -- faults -------------------------------------------------------------------------------------------------

    def wrong(self, wrong: Wrong, where: int | None = None) -> Fault | None:
        """The fault of this kind that holds now, if one does."""
        t = self.clock.t
        for fault in self._faults.get(wrong, ()):
            if fault.at > t:
                return None
            if t < fault.at + fault.lasts and where in (None, fault.where):
                return fault
        return None

    def faults(self, wrong: Wrong) -> Iterator[Fault]:
        yield from self._faults.get(wrong, ())

    # -- what forbids an effect -----------------------------------------------------------------------------------

    def silenced(self, service: str, since: float) -> bool:
        return any(name == service and span.holds(since, self.t) for name, span in self.silences)

    def paused(self, service: str, since: float) -> bool:
        return any(name in ("all", service) and span.holds(since, self.t) for name, span in self.pauses)

    def occupied(self, service: str, since: float) -> bool:
        return any(name == service and span.holds(since, self.t) for name, span in self.inside)

    def mode(self, since: float) -> str:
        """The strictest mode that has held since then."""
        held = {name for name, span in self.modes if span.holds(since, self.t)}
        return next((mode for mode in ("shadow", "approve") if mode in held), "auto")

    def stop(self, spans: list[tuple[str, Span]], what: str) -> None:
        """The latest one of these that is about `what` is over."""
        for name, span in reversed(spans):
            if name == what and span.end is None:
                span.end = self.t
                return
