"""The target's side: the gate that lets an effect through once and in time, and the one action of the simulated world.

Everything that is done to a service is done here, and counted here (`World.effects`): what the journal says about it
is no evidence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from pydantic import BaseModel

from remediator.actions.base import Action, Call, Outcome, Preview, Result, Risk, Settled, Settlement
from remediator.errors import Transient
from remediator.reasons import Reason, Refusal
from remediator.settings import Settings
from remediator.world import Health
from simulation.books import ASKING, DATABASE_DOWN, DOWN, SLOW
from simulation.clock import START
from simulation.servers import SimPrometheus
from simulation.story import ASKS, Wrong
from simulation.world import Effect, Service, World

SEEN = 11.0
"""Seconds. What has been so for longer was there to be seen by the look that an effect rests on: `start_by` is
10 s after it."""
SEEN_BY_MONITORS = 45.0
"""The same, for what must be scraped first."""
YOUNG = 120.0  # seconds


class Params(BaseModel):
    """The service's name, from the alert's label."""

    service: str


class SimRestart(Action):
    """Restart of a service's container. One instance belongs to one life of a replica.

    moment  where the process may die or freeze
    """

    name: ClassVar[str] = "restart_service"
    risk: ClassVar[Risk] = Risk.DISRUPTIVE
    idempotent: ClassVar[bool] = False
    deadline: ClassVar[float] = 20.0
    params_model: ClassVar[type[BaseModel]] = Params

    def __init__(
        self,
        world: World,
        servers: tuple[SimPrometheus, ...],
        settings: Settings,
        moment: Callable[[], Awaitable[None]],
        judge: Callable[[Call], Awaitable[tuple[bool, list[str]]]],
    ) -> None:
        self.world, self.servers, self.settings = world, servers, settings
        self.moment, self.judge = moment, judge

    async def preview(self, params: BaseModel) -> Preview:
        """What a restart would do, with the target's own reasons against it."""
        world = self.world
        if world.wrong(Wrong.GATE_DOWN):
            raise Transient("the gate does not answer")
        service = world.services.get(params.service)  # type: ignore[attr-defined]
        now = world.clock.true()
        if service is None:
            return Preview(f"docker:sim/{params.service}", "no such service", (), now)  # type: ignore[attr-defined]
        item = {"id": f"{service.name}-{service.container}", "started_at": service.started_at}
        return Preview(f"docker:sim/{service.name}", f"restart {service.name}", (item,), now, self._against(service))

    def _against(self, service: Service) -> tuple[Refusal, ...]:
        world, found = self.world, []
        if service.name in self.settings.never:
            found.append(Refusal(Reason.NEVER_LIST, f"{service.name} is on the never list."))
        if world.occupied(service.name, world.t):
            found.append(Refusal(Reason.TARGET_EXEC_RUNNING, f"Somebody works inside {service.name}."))
        if world.t - service.started_at < YOUNG:
            until = world.clock.now() + YOUNG - (world.t - service.started_at)
            found.append(Refusal(Reason.TARGET_YOUNG, f"{service.name} was started lately.", until))
        return tuple(found)

    async def execute(self, call: Call) -> Outcome:
        """Through the gate, once, in time."""
        world = self.world
        await self.moment()
        if world.wrong(Wrong.GATE_DOWN):
            return Outcome(Result.FAILED, "connection refused")
        if world.wrong(Wrong.CALL_HANGS):
            await world.clock.sleep(call.deadline)
            raise TimeoutError
        if world.wrong(Wrong.CALL_LOST):
            return Outcome(Result.IN_DOUBT, "connection reset before an answer")
        if world.clock.true() > call.start_by or call.attempt in world.gate_seen:
            return Outcome(Result.FAILED, "the gate refused it: late, or seen before")
        intended, against = await self.judge(call)
        world.gate_seen.add(call.attempt)
        service = world.services[call.params.service]  # type: ignore[attr-defined]
        takes = world.random.uniform(1.0, 8.0)
        self._begin(service, call, intended, against, takes)
        after = service.after
        service.become(Health.DOWN, world.t)
        service.started_at = world.t
        world.clock.at(world.t + takes, lambda: self._up(service, after))
        await world.clock.sleep(takes)
        await self.moment()
        if world.wrong(Wrong.ANSWER_LOST):
            return Outcome(Result.IN_DOUBT, "connection reset")
        world.answered[call.attempt] = world.t
        return Outcome(Result.DONE, "204", call.items)

    def _begin(self, service: Service, call: Call, intended: bool, against: list[str], takes: float) -> None:
        """Write down what was so when it began."""
        world = self.world
        world.effects.append(
            Effect(
                t=world.t,
                attempt=call.attempt,
                service=service.name,
                health=service.health,
                owner=service.owner,
                forbidden=(*self._forbids(service), *against),
                late=world.clock.true() - call.start_by,
                intended=intended,
                fooled=service.probed(world.t) is not service.health,
                takes=takes,
            )
        )

    def _forbids(self, service: Service) -> Any:
        """What had been so for long enough to be seen."""
        world, since = self.world, self.world.t - SEEN
        probed = [service.probed(since + step) for step in (0.0, 3.0, 6.0, 9.0, SEEN)]
        if all(found is Health.HEALTHY for found in probed):
            yield "healthy"
        if world.silenced(service.name, since):
            yield "silenced"
        if world.paused(service.name, since):
            yield "paused"
        if world.occupied(service.name, since):
            yield "a person inside"
        if service.name in self.settings.never:
            yield "never"
        if since - service.started_at < YOUNG - SEEN and service.started_at <= since:
            yield "young"
        if (mode := world.mode(since)) != "auto":
            yield mode
        if self._caused():
            yield "a cause"
        if not self._ruled(service.name):
            yield "no rule"
        if any(server.away() for server in self.servers) and self._long(Wrong.PROMETHEUS_AWAY):
            yield "prometheus away"
        if self._long(Wrong.ALERTMANAGER_AWAY):
            yield "alertmanager away"
        if self._long(Wrong.PROMETHEUS_SKEWED):
            yield "skew"
        if self._long(Wrong.NO_EVIDENCE, 60.0):
            yield "no evidence"
        if self._long(Wrong.BLIND):
            yield "blind"

    def _long(self, wrong: Wrong, seconds: float = SEEN) -> bool:
        fault = self.world.wrong(wrong)
        return fault is not None and fault.at < self.world.t - seconds

    def _caused(self) -> bool:
        """Has the database been down for so long that every Prometheus that works shows it?"""
        database = self.world.services["database"]
        since = self.world.t - SEEN_BY_MONITORS
        if database.at(since) is not Health.DOWN or database.health is not Health.DOWN:
            return False
        return database.changes[-1][0] <= since and any(
            server.true(DATABASE_DOWN, "database") for server in self.servers
        )

    def _ruled(self, service: str) -> bool:
        """Do all servers show a rule of this service true, now or when it was looked at?"""
        names = (ASKING,) if service == ASKS else (SLOW, DOWN)
        if any(all(server.true(name, service) for server in self.servers) for name in names):
            return True
        target = self.world.services[service]
        since = self.world.t - SEEN - 2 * 15.0 - 10.0
        return any(t >= since for t, _ in target.changes[-6:]) or self._monitors_changed(since)

    def _monitors_changed(self, since: float) -> bool:
        """A server that fell ill or got well a moment ago has shown something else before."""
        ends = (Wrong.PROMETHEUS_AWAY, Wrong.PROMETHEUS_RESTARTED, Wrong.PROMETHEUS_LAGS, Wrong.PROMETHEUS_SKEWED)
        t = self.world.t
        return any(
            since <= edge <= t
            for wrong in ends
            for fault in self.world.faults(wrong)
            for edge in (fault.at, fault.at + fault.lasts)
        ) or any(
            since <= edge <= t for each in self.world.services.values() for span in each.shown for edge in span[:2]
        )

    def _up(self, service: Service, after: str) -> None:
        """The container has started."""
        world = self.world
        if after == "dies" and service.owner is not None:
            return
        if after == "stays" and service.owner is not None:
            service.become(Health.SICK, world.t)
            return
        owner = service.owner
        service.become(Health.HEALTHY, world.t)
        if after == "returns" and owner is not None:
            service.after = "stays"
            world.clock.at(world.t + service.relapse, lambda: self._again(service, owner))

    def _again(self, service: Service, owner: int) -> None:
        if service.health is Health.HEALTHY:
            service.owner = owner
            service.become(Health.SICK, self.world.t)

    async def settle(self, call: Call) -> Settled:
        """As the real one: by StartedAt and the gate's memory; no trace is no answer."""
        world = self.world
        if world.wrong(Wrong.SILENT) or world.wrong(Wrong.GATE_DOWN):
            raise Transient("the target does not answer")
        service, item = world.services[call.params.service], call.items[0]  # type: ignore[attr-defined]
        seen = call.attempt in world.gate_seen
        looked_at = call.start_by - self.settings.guards.start_within
        if service.started_at != item["started_at"] and START + service.started_at >= looked_at:
            return Settled(Settlement.DONE, "started after the intent")
        if not seen and START + world.gate_started < looked_at and world.clock.true() > call.start_by:
            return Settled(Settlement.NOT_DONE, "the gate was up all the while and never saw it")
        return Settled(Settlement.UNKNOWN, "no trace of it")
