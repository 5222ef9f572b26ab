"""Prometheus and Alertmanager as the remediator's eyes ask them: away, restarted, behind, with another clock, of two
minds.

They answer the same questions as `remediator.prometheus.Prometheus` and `remediator.alertmanager.Alertmanager`, so
that the real `remediator.sight.Sight` looks through them. What they show is a function of the truth's history and of
the faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from remediator.alerts import label_hash
from remediator.errors import Transient
from remediator.prometheus import Rule, Sample
from remediator.world import Health
from simulation.books import ASKING, DATABASE_DOWN, DOWN, JOB, LATENCY, RULES, TRAFFIC
from simulation.clock import START
from simulation.story import ASKS, DATABASE, Wrong
from simulation.world import World

SCRAPE = 15.0  # seconds
WINDOW = 60.0  # seconds: the range of the queries
REMEMBERED = 200
REFILL = 75.0  # seconds after a restart until a range has its samples again
BAD, GOOD = 9.0, 1.0  # seconds, of a slow and of a well service


class SimPrometheus:
    """One of the two servers that evaluate the rules. Scrapes each 15 s."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.url = f"http://prometheus-{number}"

    # -- as the real client ---------------------------------------------------------------------------------------

    async def rules(self) -> tuple[Rule, ...]:
        self._answers()
        t = self._sees()
        return tuple(
            Rule(name, expression, {}, "ok", "", frozenset({"firing"} if self._value(name, t) else ()))
            for name, expression in RULES.items()
        )

    async def query(self, expression: str) -> tuple[Sample, ...]:
        self._answers()
        return self.evaluate(expression)

    async def up(self) -> tuple[tuple[Sample, ...], float]:
        self._answers()
        skewed = self.world.wrong(Wrong.PROMETHEUS_SKEWED, self.number)
        skew = abs(self.world.clock.stepped + (skewed.much if skewed else 0.0))
        if self._restarted():
            return (), skew
        t = self._sees()
        now = self.world.clock.true()
        return tuple(
            Sample({"job": JOB, "service": name}, 0.0 if service.monitored(t) is Health.DOWN else 1.0, now)
            for name, service in self.world.services.items()
        ), skew

    async def skew(self) -> float:
        _, skew = await self.up()
        return skew

    # -- what it sees ---------------------------------------------------------------------------------------------

    def away(self) -> bool:
        return self.world.wrong(Wrong.PROMETHEUS_AWAY, self.number) is not None

    def _answers(self) -> None:
        if self.away():
            raise Transient(f"{self.url}: no answer")

    def _restarted(self) -> bool:
        fault = self.world.wrong(Wrong.PROMETHEUS_RESTARTED, self.number)
        return fault is not None and self.world.t < fault.at + REFILL

    def _sees(self) -> float:
        """When its newest scrape was."""
        lags = self.world.wrong(Wrong.PROMETHEUS_LAGS, self.number)
        t = self.world.t - (lags.much if lags else 0.0) - 5.0 * self.number
        return t - t % SCRAPE

    def evaluate(self, expression: str) -> tuple[Sample, ...]:
        """The value now. Without samples in the range it is empty, whatever is true."""
        if self._restarted():
            return ()
        t = self._sees()
        for name, rule in RULES.items():
            if expression == rule:
                return self._value(name, t)
        asks_time = "timestamp" in expression
        found = []
        for name, service in self.world.services.items():
            if service.monitored(t) is Health.DOWN and LATENCY.metric in expression:
                continue  # a dead service has no samples
            if asks_time:
                found.append(Sample({"service": name}, START + t, START + t))
            elif LATENCY.metric in expression:
                found.append(Sample({"service": name}, self._worst(name, t), START + t))
            elif TRAFFIC.metric in expression:
                calm = service.monitored(t) is Health.DOWN
                found.append(Sample({"service": name}, 0.0 if calm else 12.0, START + t))
        return tuple(found)

    def _worst(self, name: str, t: float) -> float:
        """The slowest of the range."""
        service = self.world.services[name]
        if service.quiet(t - WINDOW):
            return GOOD
        times = (t - step * SCRAPE for step in range(int(WINDOW / SCRAPE)))
        return BAD if any(service.monitored(at) is Health.SICK for at in times) else GOOD

    def _value(self, rule: str, t: float) -> tuple[Sample, ...]:
        """The samples of a rule's expression: one for each service for which it is true."""
        if self._restarted():
            return ()
        known = self.world.shown.get((rule, t))
        if known is None:
            known = self._evaluated(rule, t)
            if t < self.world.t:  # what was true before now is not changed any more
                if len(self.world.shown) > REMEMBERED:
                    self.world.shown.clear()
                self.world.shown[rule, t] = known
        return known

    def _evaluated(self, rule: str, t: float) -> tuple[Sample, ...]:
        found = []
        for name, service in self.world.services.items():
            if service.quiet(t - WINDOW):
                continue
            health = service.monitored(t)
            if rule == DATABASE_DOWN:
                true = name == DATABASE and health is Health.DOWN
            elif rule == DOWN:
                true = name not in (ASKS, DATABASE) and health is Health.DOWN
            else:
                true = (name == ASKS) is (rule == ASKING) and self._slow(name, health, t)
            if true:
                found.append(Sample({"service": name}, BAD, START + t))
        return tuple(found)

    def _slow(self, name: str, health: Health, t: float) -> bool:
        return health is not Health.DOWN and self._worst(name, t) == BAD

    def names(self, rule: str) -> list[str]:
        """Services for which the rule is true by what it shows."""
        return [sample.labels["service"] for sample in self._value(rule, self._sees())]

    def true(self, rule: str, service: str) -> bool | None:
        """Is the rule true for this service by what it shows? None when it does not answer or shows nothing."""
        if self.away() or self._restarted():
            return None
        return service in self.names(rule)


class SimAlertmanager:
    """One of the two. It holds what the Prometheus servers have sent, and every silence."""

    def __init__(self, world: World, number: int, firing: Mapping[tuple[str, str], float]) -> None:
        self.world, self.number = world, number
        self.url = f"http://alertmanager-{number}"
        self._firing = firing

    def away(self) -> bool:
        return self.world.wrong(Wrong.ALERTMANAGER_AWAY, self.number) is not None

    def _answers(self) -> None:
        if self.away():
            raise Transient(f"{self.url}: no answer")

    async def alerts(self, *params: tuple[str, str]) -> list[dict[str, Any]]:
        """All, or with parameters only what is not muted."""
        self._answers()
        found = []
        for (rule, service), since in self._firing.items():
            by = [f"s-{service}"] if self.world.silenced(service, self.world.t) else []
            if params and by:
                continue
            alert = alert_of(rule, service, "firing", since)
            found.append({**alert, "status": {"state": "suppressed" if by else "active", "silencedBy": by}})
        return found

    async def silences(self) -> list[dict[str, Any]]:
        self._answers()
        return [
            {"id": f"s-{name}", "matchers": [{"name": "service", "value": name}]}
            for name, span in self.world.silences
            if span.holds(self.world.t, self.world.t)
        ]


def severity_of(rule: str) -> str:
    """Down is for people at once, slow may wait for the remediator."""
    return "P1" if rule in (DOWN, DATABASE_DOWN) else "P2"


def alert_of(rule: str, service: str, status: str, since: float, **labels: str) -> dict[str, Any]:
    """An alert as Alertmanager has it. `since` in seconds since the story began."""
    all_labels = {
        "alertname": rule,
        "job": JOB,
        "service": service,
        "environment": "production",
        "severity": severity_of(rule),
        **labels,
    }
    return {
        "status": status,
        "labels": all_labels,
        "annotations": {},
        "startsAt": datetime.fromtimestamp(START + since, UTC).isoformat(),
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": label_hash(all_labels),
    }


def agree(servers: Sequence[SimPrometheus], rule: str, service: str) -> bool:
    """Do all servers show the rule true?"""
    return all(server.true(rule, service) for server in servers)
