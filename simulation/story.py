"""What happens in one simulated year: incidents and faults, all drawn from the seed before anything runs.

A story is a value. It can be played again, and it can be made smaller (`shrink.py`): whatever an incident needs of
chance is drawn from the seed and its own number, so that taking another one out changes nothing in it.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

YEAR = 365 * 86400.0
A_YEAR = 200
"""Incidents of a year, where nobody asks for another number."""
BURST = 2.5 * 3600.0  # seconds within which the incidents of one bad day begin
REST = 2 * 86400.0  # seconds at the end in which nothing begins: whatever is open must come to its end
SERVICES = ("checkout", "billing", "search", "mail", "export", "ledger")
"""What a restart may heal; each depends on the database."""
ASKS, DATABASE = "sessions", "database"
"""What is only restarted with a person's yes; and what is never restarted: the primary."""
CROWD = tuple(f"worker{number:02}" for number in range(12))


class Sort(StrEnum):
    """Classes of incidents."""

    CURED = "a restart heals it"
    DOWN = "down, a restart brings it back"
    HEALS = "heals by itself"
    FLAPS = "comes and goes"
    STAYS = "no restart heals it"
    DIES = "dies of a restart"
    RETURNS = "comes back after a restart"
    ASKS = "needs a person's yes"
    CAUSE = "the database is down, its services are slow"
    STORM = "many at once, one cause"
    EXPORTER = "the exporter is wrong, the service is well"
    CUT_OFF = "only we cannot reach it, users can"
    FOREIGN = "an alert of staging; at times ours is ill as well"
    STALE = "an alert of hours ago"
    SILENCED = "silenced, people work on it"
    DEPLOYED = "a deployment is under way"
    PERSON = "a person works inside the container"
    NEVER = "of what is never acted upon"


WEIGHTS = {
    Sort.CURED: 30,
    Sort.DOWN: 12,
    Sort.HEALS: 12,
    Sort.FLAPS: 6,
    Sort.STAYS: 5,
    Sort.DIES: 2,
    Sort.RETURNS: 4,
    Sort.ASKS: 6,
    Sort.CAUSE: 2,
    Sort.STORM: 2,
    Sort.EXPORTER: 5,
    Sort.CUT_OFF: 1,
    Sort.FOREIGN: 3,
    Sort.STALE: 2,
    Sort.SILENCED: 3,
    Sort.DEPLOYED: 2,
    Sort.PERSON: 2,
    Sort.NEVER: 2,
}


class Wrong(StrEnum):
    """What may be wrong around an incident. `where` is a server's number, `much` a size; see `Fault`."""

    PROMETHEUS_AWAY = "a Prometheus does not answer"
    PROMETHEUS_RESTARTED = "a Prometheus has lost its newest samples"
    PROMETHEUS_LAGS = "a Prometheus is behind"
    PROMETHEUS_SKEWED = "a Prometheus has another clock"
    ALERTMANAGER_AWAY = "an Alertmanager does not answer"
    LATE = "deliveries come late"
    LOST = "deliveries are lost"
    TWICE = "deliveries come twice and out of order"
    FALSE_RESOLVED = "Alertmanager says resolved, and it is not"
    GATE_DOWN = "the gate is down"
    GATE_RESTARTED = "the gate forgets what it saw"
    ANSWER_LOST = "the target's answer is lost"
    CALL_LOST = "the call is lost"
    CALL_HANGS = "the call hangs, and nothing comes of it"
    SILENT = "the target cannot be asked how it ended"
    BLIND = "the direct probe has no answer"
    NO_EVIDENCE = "evidence cannot be read"
    PAUSED = "a person has paused everything"
    PAUSE_FILE = "the pause file is there"
    JOURNAL_AWAY = "the journal does not answer"
    CRASH = "the process dies"
    FREEZE = "the process is frozen"
    STOP = "the process is stopped and started"
    STEP = "the clock is set"
    SHADOW = "the mode is shadow for a while"
    APPROVE = "the mode is approve for a while"


HEAVY = {Wrong.CRASH: 6, Wrong.FREEZE: 4, Wrong.ANSWER_LOST: 3, Wrong.CALL_LOST: 2, Wrong.STEP: 2}
OFTEN = 60
"""How many times as often what a hunt is about comes."""
TWO = frozenset({Wrong.PROMETHEUS_LAGS, Wrong.PROMETHEUS_SKEWED})
"""Servers that are wrong one at a time: no two of them tell the same lie."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One thing that goes wrong. `at` and `lasts` in seconds; how it ends by itself, if it does, is in `lasts`."""

    number: int
    sort: Sort
    service: str
    at: float
    lasts: float

    def chance(self, seed: int) -> random.Random:
        """What chance has in store for it, whatever else happens."""
        return random.Random(f"{seed}/{self.number}")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something around it that is wrong from `at` for `lasts` seconds.

    where  number of the server or replica
    much   seconds of a step, a lag or a skew; of a crash or freeze: how many steps later it strikes
    """

    wrong: Wrong
    at: float
    lasts: float
    where: int = 0
    much: float = 0.0


@dataclass(frozen=True, slots=True)
class Story:
    """A seed and what comes of it. `replicas` 1: one process on SQLite; 2: two on a journal that they share."""

    seed: int
    replicas: int
    seconds: float
    incidents: tuple[Incident, ...]
    faults: tuple[Fault, ...]


def draw(
    seed: int, incidents: int = A_YEAR, seconds: float = YEAR, often: Collection[Sort | Wrong] = frozenset()
) -> Story:
    """The story of a seed: bad days in which some incidents come together, and faults around them.

    often  these come so many times as often as they would
    """
    rng = random.Random(seed)
    found: list[Incident] = []
    faults: list[Fault] = []
    while len(found) < incidents:
        begins = rng.uniform(600.0, seconds - REST)
        one = rng.choice(SERVICES)
        for _ in range(min(rng.choice((1, 1, 2, 3, 4, 6)), incidents - len(found))):
            incident = _incident(rng, len(found), begins + rng.uniform(0.0, BURST), one, often)
            found.append(incident)
            faults += _around(rng, incident.at, often)
    return Story(
        seed, 1 + seed % 2, seconds, tuple(sorted(found, key=_at)), tuple(sorted(faults, key=lambda fault: fault.at))
    )


def _at(incident: Incident) -> float:
    return incident.at


def _incident(rng: random.Random, number: int, at: float, usual: str, often: Collection[Sort | Wrong]) -> Incident:
    weights = [weight * (OFTEN if sort in often else 1) for sort, weight in WEIGHTS.items()]
    sort = rng.choices(list(WEIGHTS), weights)[0]
    service = usual if rng.random() < 0.5 else rng.choice(SERVICES)
    service = {Sort.ASKS: ASKS, Sort.CAUSE: DATABASE, Sort.NEVER: DATABASE, Sort.STORM: CROWD[0]}.get(sort, service)
    lasts = {
        Sort.HEALS: rng.uniform(15.0, 400.0),
        Sort.FLAPS: rng.uniform(300.0, 1500.0),
        Sort.RETURNS: rng.uniform(20.0, 170.0),
        Sort.EXPORTER: rng.uniform(120.0, 1200.0),
        Sort.CUT_OFF: rng.uniform(60.0, 1200.0),
        Sort.FOREIGN: rng.uniform(300.0, 3600.0),
        Sort.DEPLOYED: rng.uniform(120.0, 600.0),
        Sort.PERSON: rng.uniform(300.0, 900.0),
        Sort.SILENCED: rng.uniform(600.0, 1500.0),
        Sort.NEVER: rng.uniform(300.0, 900.0),
        Sort.STALE: rng.uniform(2.0, 5.0) * 3600.0,
    }.get(sort, 0.0)
    return Incident(number, sort, service, at, lasts)


def _around(rng: random.Random, at: float, often: Collection[Sort | Wrong]) -> Iterator[Fault]:
    """Up to three faults while it is going on."""
    kinds = list(Wrong)
    weights = [HEAVY.get(kind, 1) * (OFTEN if kind in often else 1) for kind in kinds]
    for wrong in rng.choices(kinds, weights, k=rng.choice((0, 0, 1, 1, 2, 3))):
        begins, lasts = at + rng.uniform(-60.0, 400.0), rng.uniform(20.0, 900.0)
        much = {
            Wrong.PROMETHEUS_LAGS: rng.uniform(40.0, 240.0),
            Wrong.PROMETHEUS_SKEWED: rng.choice((-1, 1)) * rng.uniform(8.0, 90.0),
            Wrong.STEP: rng.choice((-1, 1, 1)) * rng.choice((8.0, 120.0, 900.0, 2400.0, 4000.0)),
            Wrong.CRASH: float(rng.randrange(1, 60)),
            Wrong.FREEZE: float(rng.randrange(1, 60)),
        }.get(wrong, 0.0)
        if wrong is Wrong.JOURNAL_AWAY:
            lasts = min(lasts, 120.0)
        yield Fault(wrong, max(1.0, begins), lasts, 0 if wrong in TWO else rng.randrange(2), much)
