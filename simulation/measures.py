"""What a played story was good for: figures of each class of incidents. Pure.

A *false action* is an effect on a target that was well when it began, whatever anybody saw. Minutes are those of
outage, summed over the services of an incident, those of a restart itself among them, also where the target was well;
*alone* is what they would have been with people only, who come as the handbook says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from remediator.events import Event, Kind
from remediator.world import Health
from simulation.run import Played
from simulation.story import Sort

CURABLE = frozenset({Sort.CURED, Sort.DOWN})
"""A restart would have healed it: what people had to do all the same is missed."""


@dataclass
class Row:
    """Counts of one class, minutes where the name says so.

    incidents  that began on a well service
    acted      with at least one effect; effects are theirs
    false      effects on a target that was well
    harmful    effects on a target that was well, or that died of it
    missed     curable ones that people had to end
    """

    incidents: int = 0
    acted: int = 0
    effects: int = 0
    false: int = 0
    harmful: int = 0
    missed: int = 0
    alone_minutes: float = 0.0
    minutes: float = 0.0

    def add(self, other: Row) -> None:
        for each in fields(Row):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass
class Result:
    """One story in figures.

    alerts  that would have called somebody without the remediator; `held` those that still did; `pages` the
    remediator's own. Silenced ones call nobody either way, and are in none
    """

    seed: int
    rows: dict[str, Row] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    doubled: int = 0
    doubts: int = 0
    alerts: int = 0
    held: int = 0
    pages: int = 0
    seconds: float = 0.0
    days: float = 0.0
    """Simulated ones; `seconds` are of CPU."""
    refused: dict[str, int] = field(default_factory=dict)
    """Episodes in which each reason was given."""

    @property
    def total(self) -> Row:
        """All classes together."""
        found = Row()
        for row in self.rows.values():
            found.add(row)
        return found

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(played: Played, violations: list[str]) -> Result:
    """The figures of one story."""
    world = played.world
    attempts = Counter(effect.attempt for effect in world.effects)
    result = Result(
        seed=world.story.seed,
        days=world.story.seconds / 86400.0,
        rows={sort.name: Row() for sort in Sort},
        violations=violations,
        doubled=sum(count - 1 for count in attempts.values()),
        doubts=sum(one.outcome not in ("done", "failed") for each in played.ledgers for one in each.attempts),
        alerts=played.alerts,
        held=played.held,
        pages=len(world.pages),
        refused=dict(Counter(reason for events in played.episodes.values() for reason in sorted(_reasons(events)))),
    )
    for number, case in played.cases.items():
        if case.merged:
            continue
        row = result.rows[case.incident.sort.name]
        row.incidents += 1
        row.alone_minutes += case.alone / 60
        row.minutes += sum(service.outage.get(number, 0.0) for service in world.services.values()) / 60
    acted: set[int] = set()
    for effect in world.effects:
        owner = effect.owner if effect.owner is not None else _latest(played, effect.service, effect.t)
        if owner is None:
            continue
        sort = played.cases[owner].incident.sort
        row = result.rows[sort.name]
        row.effects += 1
        row.minutes += effect.takes / 60 if effect.owner is None else 0.0  # an incident's own outage has it already
        row.false += effect.health is Health.HEALTHY
        row.harmful += effect.health is Health.HEALTHY or sort is Sort.DIES
        row.acted += owner not in acted
        acted.add(owner)
    for number, case in played.cases.items():
        if case.incident.sort in CURABLE and not case.merged and number not in acted:
            result.rows[case.incident.sort.name].missed += 1
    return result


def _reasons(events: Iterable[Event]) -> set[str]:
    return {str(event.data["reason"]) for event in events if event.kind is Kind.REFUSED}


def _latest(played: Played, service: str, t: float) -> int | None:
    """The latest incident of a service that is measured, for what was done to it while it was well."""
    found = [
        (case.incident.at, number)
        for number, case in played.cases.items()
        if case.incident.service == service and case.incident.at <= t and not case.merged
    ]
    return max(found)[1] if found else next(iter(played.cases), None)


def together(results: Iterable[Result]) -> Result:
    """Several stories as one."""
    whole = Result(seed=-1, rows={sort.name: Row() for sort in Sort})
    for result in results:
        for name, row in result.rows.items():
            whole.rows[name].add(row)
        for name in ("doubled", "doubts", "alerts", "held", "pages", "seconds", "days"):
            setattr(whole, name, getattr(whole, name) + getattr(result, name))
        whole.refused = dict(Counter(whole.refused) + Counter(result.refused))
        whole.violations += [f"seed {result.seed}: {said}" for said in result.violations]
    return whole


def whole_minutes(minutes: float) -> str:
    """For people: thousands apart, and never `-0`."""
    return f"{round(minutes):,}"


def time_of(days: float) -> tuple[str, str]:
    """A number and its unit: years from one year on, days below."""
    number, unit = (days / 365, "year") if days >= 365 else (days, "day")
    said = f"{number:.1f}".removesuffix(".0")
    return said, unit if said == "1" else f"{unit}s"


def wilson(count: int, of: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927): also meaningful when nothing was counted.

    centre = (p + z²/2n) / (1 + z²/n), half = z·sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n). For 0 of 100: 0 to 3.7 %.
    Raises ValueError for `of` 0.
    """
    if of <= 0:
        raise ValueError("a proportion of nothing")
    p, scale = count / of, 1 + z * z / of
    centre = (p + z * z / (2 * of)) / scale
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)
