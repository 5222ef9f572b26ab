"""Incidents as they begin and end, and the people who come when an alert calls them.

People come as the handbook's table says (alert-rules/severity.yml): each incident draws how long its person takes to
answer and to mend it, and takes as long with the remediator as without one. So what is saved is what the remediator
did before they came, less what it made worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from remediator.world import Health
from simulation.alerting import Alert, Alerting
from simulation.books import PENDING, SLOW
from simulation.servers import severity_of
from simulation.story import CROWD, DATABASE, Incident, Sort
from simulation.world import DEPENDENTS, Service, Span, World

RESPOND = {"P1": 900.0, "P2": 3600.0}
"""Seconds within which a person answers, at the latest; alert-rules/severity.yml, `respond`."""
HOLD = {"P1": 0.0, "P2": 180.0}
"""Seconds for which people are not told while the remediator tries; there, `hold`."""
SEEN_AFTER = 15.0 + PENDING  # seconds from a fault to its alert: a scrape, and the rule's own time
MEND = (300.0, 1200.0)  # seconds that a person takes
SICK = {
    Sort.CURED: "heals",
    Sort.HEALS: "stays",
    Sort.FLAPS: "heals",
    Sort.STAYS: "stays",
    Sort.DIES: "dies",
    Sort.RETURNS: "returns",
    Sort.ASKS: "heals",
    Sort.STALE: "heals",
    Sort.SILENCED: "heals",
    Sort.PERSON: "heals",
    Sort.NEVER: "heals",
}
"""What a restart does to a service that is ill in such an incident."""
BY_ITSELF = frozenset({Sort.HEALS, Sort.FLAPS, Sort.SILENCED, Sort.DEPLOYED, Sort.PERSON, Sort.NEVER})
"""It ends `lasts` seconds after its beginning if nobody has ended it before."""


@dataclass
class Case:
    """An incident as it went.

    alone   seconds of outage if only people had been there, over all services of it
    merged  its service was ill already: it is not measured
    """

    incident: Incident
    respond: float
    mend: float
    alone: float = 0.0
    merged: bool = False
    called: bool = False
    alerted: bool = False


class Persons:
    """Plays the incidents, and the people."""

    def __init__(self, world: World, alerting: Alerting) -> None:
        self.world, self.alerting = world, alerting
        self.cases: dict[int, Case] = {}
        self.alerts = self.held = 0
        """Alerts that would have called a person without the remediator, and those that still did. No silenced one."""
        self.pause: Callable[[str, float], None] = lambda scope, lasts: None
        self.over: Callable[[Case], None] = lambda case: None
        alerting.told, alerting.reminded = self.told, self.reminded
        for incident in world.story.incidents:
            world.clock.at(incident.at, partial(self.begin, incident))

    # -- incidents ------------------------------------------------------------------------------------------------

    def begin(self, incident: Incident) -> None:
        """It begins now."""
        chance = incident.chance(self.world.story.seed)
        severity = "P1" if incident.sort in (Sort.CAUSE, Sort.DOWN) else "P2"
        case = Case(incident, chance.uniform(0.3, 1.0) * RESPOND[severity], chance.uniform(*MEND))
        self.cases[incident.number] = case
        service = self.world.services[incident.service]
        if service.health is not Health.HEALTHY or service.monitored(self.world.t) is not Health.HEALTHY:
            case.merged = True
            return
        self._alone(case)
        special = {
            Sort.CAUSE: self._cause,
            Sort.STORM: self._storm,
            Sort.EXPORTER: self._exporter,
            Sort.CUT_OFF: self._exporter,
            Sort.FOREIGN: self._foreign,
            Sort.DEPLOYED: self._deployed,
        }.get(incident.sort, self._plain)
        special(case, service)
        if incident.sort in BY_ITSELF:
            self.world.clock.at(self.world.t + incident.lasts, partial(self.end, case))

    def _alone(self, case: Case) -> None:
        """What it costs if nobody but people is there."""
        sort, lasts = case.incident.sort, case.incident.lasts
        people = SEEN_AFTER + case.respond + case.mend
        case.alone = min(people, lasts) if sort in BY_ITSELF else people
        if sort in (Sort.EXPORTER, Sort.CUT_OFF):
            case.alone = 0.0  # its users never noticed
        if sort is Sort.FLAPS:
            case.alone /= 2
        if sort is Sort.STORM:
            case.alone *= len(CROWD)
        if sort is Sort.CAUSE:
            case.alone *= 1 + sum(self.world.services[name].health is Health.HEALTHY for name in DEPENDENTS)

    def fall(self, case: Case, service: Service, health: Health, after: str) -> None:
        """The service falls ill of this incident, if it is well."""
        if service.health is Health.HEALTHY:
            service.owner, service.after = case.incident.number, after
            service.become(health, self.world.t)

    def _plain(self, case: Case, service: Service) -> None:
        sort, lasts, world = case.incident.sort, case.incident.lasts, self.world
        if sort is Sort.DOWN:
            self.fall(case, service, Health.DOWN, "heals")
            return
        if sort is Sort.SILENCED:
            self._span(world.silences, service.name, lasts)
        if sort is Sort.PERSON:
            self._span(world.inside, service.name, lasts)
        if sort is Sort.STALE:
            self.alerting.older[service.name] = lasts
        service.relapse = lasts if sort is Sort.RETURNS else 40.0
        self.fall(case, service, Health.SICK, SICK[sort])
        if sort is Sort.FLAPS:
            self._flap(case, service)

    def _span(self, spans: list[tuple[str, Span]], name: str, lasts: float) -> None:
        spans.append((name, Span(self.world.t)))
        self.world.clock.at(self.world.t + lasts, lambda: self.world.stop(spans, name))

    def _flap(self, case: Case, service: Service) -> None:
        """Ill and well in turn, until it is over."""
        world = self.world
        if world.t >= case.incident.at + case.incident.lasts:
            return
        if service.health is Health.HEALTHY:
            self.fall(case, service, Health.SICK, "heals")
        elif service.owner == case.incident.number and service.health is Health.SICK:
            service.become(Health.HEALTHY, world.t)
        world.clock.at(world.t + world.random.uniform(30.0, 150.0), partial(self._flap, case, service))

    def _cause(self, case: Case, service: Service) -> None:
        self.fall(case, service, Health.DOWN, "stays")
        for name in DEPENDENTS:
            later = self.world.t + self.world.random.uniform(5.0, 60.0)
            self.world.clock.at(later, partial(self._suffer, case, self.world.services[name]))

    def _suffer(self, case: Case, service: Service) -> None:
        if self.world.services[DATABASE].owner == case.incident.number:
            self.fall(case, service, Health.SICK, "stays")

    def _storm(self, case: Case, _: Service) -> None:
        for name in CROWD:
            later = self.world.t + self.world.random.uniform(0.0, 10.0)
            crowd = self.world.services[name]
            self.world.clock.at(later, partial(self.fall, case, crowd, Health.SICK, "stays"))

    def _exporter(self, case: Case, service: Service) -> None:
        t, lasts = self.world.t, case.incident.lasts
        service.shown.append((t, t + lasts, Health.SICK))
        if case.incident.sort is Sort.CUT_OFF:
            service.unseen.append((t, t + lasts))

    def _foreign(self, case: Case, service: Service) -> None:
        """Staging's service of the same name is ill, and at times ours as well."""
        alert = (SLOW, service.name)
        self.alerting.foreign(alert, "firing", self.world.t, 1.0, environment="staging")
        resolved = case.incident.lasts
        self.alerting.foreign(alert, "resolved", self.world.t, resolved, environment="staging")
        if case.incident.number % 2:
            self.fall(case, service, Health.SICK, "heals")
        else:
            case.alone = 0.0

    def _deployed(self, case: Case, service: Service) -> None:
        """Started anew again and again, slow meanwhile; half of the people say so to the remediator."""
        if case.incident.number % 2:
            self.pause(f"service:{service.name}", case.incident.lasts)
        self.fall(case, service, Health.SICK, "stays")
        self._restarted(case, service)

    def _restarted(self, case: Case, service: Service) -> None:
        world = self.world
        if world.t < case.incident.at + case.incident.lasts:
            service.started_at = world.t
            service.container += 1
            world.clock.at(world.t + world.random.uniform(30.0, 115.0), partial(self._restarted, case, service))

    def end(self, case: Case) -> None:
        """It is over: by itself, or because a person has mended it."""
        for service in self.world.services.values():
            if service.owner == case.incident.number:
                service.become(Health.HEALTHY, self.world.t)
        self.over(case)

    # -- people ---------------------------------------------------------------------------------------------------

    def told(self, alert: Alert, t: float) -> None:
        """An alert fires: who is on call is told, at once or when the remediator has had its time."""
        service = self.world.services[alert[1]]
        number = service.owner if service.owner is not None else self._shown_by(service)
        case = self.cases.get(number) if number is not None else None
        calls = not self.world.silenced(alert[1], self.world.t)
        self.alerts += calls
        severity = severity_of(alert[0])
        self.world.clock.at(t + HOLD[severity], partial(self._hear, alert, case, calls))

    def _shown_by(self, service: Service) -> int | None:
        """The incident that makes monitors show the service ill."""
        return next(
            (number for number, case in reversed(self.cases.items()) if case.incident.service == service.name), None
        )

    def _hear(self, alert: Alert, case: Case | None, counted: bool) -> None:
        if alert not in self.alerting.fired or self.world.silenced(alert[1], self.world.t):
            return
        self.held += 1
        self.alerts += not counted  # its silence has ended meanwhile: it calls with the remediator and without it
        if case is None or case.called:
            return
        case.called = True
        self.world.clock.at(self.world.t + case.respond, partial(self._come, case))

    def reminded(self, alert: Alert) -> None:
        """It still fires, and nobody is on the way: who is on call comes for what ails the service by now."""
        case = self._ailing(alert[1])
        if case is not None and not self.world.silenced(alert[1], self.world.t):
            case.called = True
            self.world.clock.at(self.world.t + case.respond, partial(self._come, case))

    def _ailing(self, service: str) -> Case | None:
        """The incident that a service suffers from and for which nobody has been called yet."""
        number = self.world.services[service].owner
        case = self.cases.get(number) if number is not None else None
        return None if case is None or case.called else case

    def _come(self, case: Case) -> None:
        """The person is there, and works on it if it is still ill."""
        ill = [each for each in self.world.services.values() if each.owner == case.incident.number]
        if not ill:
            case.called = False  # a later alert of the same incident calls again
            if (other := self._ailing(case.incident.service)) is not None:
                other.called = True  # the alert never stopped, so nobody was called for what came next: it is seen now
                self._come(other)
            return
        for service in ill:
            if case.incident.number % 3:
                self._span(self.world.inside, service.name, case.mend)
        self.world.clock.at(self.world.t + case.mend, partial(self._mended, case))

    def _mended(self, case: Case) -> None:
        for service in self.world.services.values():
            if service.owner == case.incident.number:
                service.started_at = self.world.t
                service.container += 1
        case.called = False
        self.end(case)
