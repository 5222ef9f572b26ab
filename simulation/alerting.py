"""From what the Prometheus servers show to what the remediator gets: alerts that fire and resolve, and their
deliveries.

Deliveries come late, twice, out of order, not at all, or say resolved of what is not; a Prometheus that is away
resolves its alerts by itself after four minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from simulation.books import ASKING, DATABASE_DOWN, DOWN, PENDING, SLOW
from simulation.servers import SimPrometheus, alert_of
from simulation.story import Fault, Wrong
from simulation.world import World

ENDS_AFTER = 240.0  # seconds: EndsAt of an alert that nobody sends any more
REPEAT = 4 * 3600.0  # seconds
RULES = (SLOW, ASKING, DOWN, DATABASE_DOWN)
Alert = tuple[str, str]
"""Rule and service."""


class Alerting:
    """Evaluates the rules each time it is asked (`tick`) and hands deliveries to `deliver`.

    fired  what fires, since when (seconds since the story began)
    """

    def __init__(self, world: World, servers: tuple[SimPrometheus, ...]) -> None:
        self.world, self.servers = world, servers
        self.fired: dict[Alert, float] = {}
        self.deliver: Callable[[bytes, tuple[Alert, ...]], None] = lambda body, alerts: None
        self.told: Callable[[Alert, float], None] = lambda alert, since: None
        self.reminded: Callable[[Alert], None] = lambda alert: None
        self.older: dict[str, float] = {}
        """Service -> seconds by which its next alert began earlier than it did."""
        self._true: dict[tuple[int, Alert], float] = {}
        self._shown: dict[Alert, float] = {}
        self._sent: dict[Alert, float] = {}
        for fault in world.faults(Wrong.FALSE_RESOLVED):
            world.clock.at(fault.at, partial(self._lie, fault))

    @property
    def busy(self) -> bool:
        """Is there anything that may change with time alone?"""
        return bool(self.fired or self._true)

    def tick(self) -> None:
        """Evaluate every rule at every server that works."""
        t = self.world.t
        for server in self.servers:
            if not server.away():
                self._evaluate(server, t)
        blind = any(server.away() for server in self.servers)
        for alert in list(self.fired):
            if t - self._shown.get(alert, t) > (ENDS_AFTER if blind else 1.0):
                self._send(alert, "resolved", self.fired.pop(alert))
            elif t - self._sent.get(alert, t) > REPEAT:
                self._send(alert, "firing", self.fired[alert])
                self.reminded(alert)

    def _evaluate(self, server: SimPrometheus, t: float) -> None:
        true = {(rule, name): None for rule in RULES for name in server.names(rule)}  # in order, as a set is not
        for key in [key for key in self._true if key[0] == server.number and key[1] not in true]:
            del self._true[key]
        for alert in true:
            self._shown[alert] = t
            since = self._true.setdefault((server.number, alert), t)
            if t - since >= PENDING and alert not in self.fired:
                began = since - self.older.pop(alert[1], 0.0)
                self.fired[alert] = began
                self.told(alert, t)
                self._send(alert, "firing", began)

    def _lie(self, fault: Fault) -> None:
        """It fires, and Alertmanager says resolved; a minute later it says firing again."""
        for alert, since in self.fired.items():
            self._send(alert, "resolved", since)
            self.world.clock.at(self.world.t + 60.0, partial(self._still, alert, since))

    def _still(self, alert: Alert, since: float) -> None:
        if alert in self.fired:
            self._send(alert, "firing", since)

    def _send(self, alert: Alert, status: str, since: float) -> None:
        world, rng = self.world, self.world.random
        self._sent[alert] = world.t
        if world.wrong(Wrong.LOST) or world.silenced(alert[1], world.t):
            return
        for _ in range(3 if world.wrong(Wrong.TWICE) else rng.choice((1, 1, 1, 2))):
            late = rng.uniform(20.0, 240.0) if world.wrong(Wrong.LATE) else rng.uniform(0.1, 3.0)
            self.foreign(alert, status, since, late)

    def foreign(self, alert: Alert, status: str, since: float, late: float, **labels: str) -> None:
        """Deliver one alert after `late` seconds, with other labels where they are given."""
        found = alert_of(*alert, status, since, **labels)
        body = {"version": "4", "status": status, "receiver": "remediator", "alerts": [found]}
        ours = (alert,) if status == "firing" and not labels else ()
        self.world.clock.at(self.world.t + late, lambda: self.deliver(json.dumps(body).encode(), ours))
