"""A small world with its own clock, for the real planner, engine and journal: no sleeping, all from one seed.

Services fall ill, heal, die and relapse; Prometheus is away at times; Alertmanager sends late and twice;
people silence and pause; the process dies before or after any journal write and around the effect. What the
world does is drawn from the seed before the run, so a seed replays exactly.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import BaseModel

from remediator.actions.base import Action, Call, Outcome, Preview, Result, Risk, Settled, Settlement
from remediator.errors import Transient
from remediator.events import Event
from remediator.ledger import Ledger
from remediator.people import OwnAlert
from remediator.runbooks import Runbook, Rung
from remediator.world import Answer, CheckSample, Evidence, Health, ProofLook, World

START = 1_800_000_000.0


class Crash(BaseException):
    """The process is gone. Not an Exception, so that nothing on the way can swallow it."""


@dataclass
class SimClock:
    """Time that moves only when the simulation moves it. `stepped` is what somebody set the wall clock ahead."""

    t: float = 0.0
    stepped: float = 0.0

    def now(self) -> float:
        return START + self.t + self.stepped

    def boottime(self) -> float:
        return self.t

    async def sleep(self, seconds: float) -> None:
        self.t += seconds


@dataclass
class Effect:
    """Something that really happened to a service: what the invariants count."""

    at: float
    service: str
    attempt: str


@dataclass
class SimService:
    """What is true, whatever anybody believes.

    `after` is what the next restart does: heals, stays (sick), dies, returns (sick again after `relapse`).
    """

    name: str
    sick_since: float | None = None
    down: bool = False
    started_at: float = START - 86400
    after: str = "heals"
    relapse: float = 40.0
    relapse_at: float | None = None

    def truth(self, now: float) -> Health:
        if self.down:
            return Health.DOWN
        if self.relapse_at is not None and now >= self.relapse_at:
            self.sick_since, self.relapse_at = self.relapse_at, None
        return Health.SICK if self.sick_since is not None and now >= self.sick_since else Health.HEALTHY

    def restart(self, now: float) -> None:
        self.started_at = now
        self.down = self.after == "dies"
        if self.after == "stays":
            return
        self.sick_since = None
        if self.after == "returns":
            self.relapse_at = now + self.relapse


@dataclass
class SimWorld:
    """Truth, faults and everything that was done. `spans` are times in which something is so, by name."""

    seed: int
    clock: SimClock = field(default_factory=SimClock)
    services: dict[str, SimService] = field(default_factory=dict)
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    gate_seen: set[str] = field(default_factory=set)
    pages: list[OwnAlert] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    random: random.Random = field(init=False)
    crash_at: int = -1
    steps: int = 0
    pause_file: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def during(self, what: str, slack: float = 0.0) -> bool:
        """Is `what` so now? With `slack` only when it has been so for that many seconds."""
        now = self.clock.now()
        return any(start + slack <= now < end for start, end in self.spans.get(what, ()))

    def step(self) -> None:
        """A moment at which the process may die."""
        self.steps += 1
        if self.steps == self.crash_at:
            raise Crash

    def rule_true(self, service: str) -> bool:
        """The alert's rule: true 20 s after the service fell ill or went down."""
        target = self.services[service]
        now = self.clock.now()
        if target.truth(now) is Health.HEALTHY:
            return False
        return target.down or (target.sick_since is not None and now >= target.sick_since + 20)

    def body(self, service: str, status: str) -> bytes:
        """What Alertmanager sends for this service."""
        since = self.services[service].sick_since or self.clock.now()
        labels = {
            "alertname": "EngineSlow",
            "job": "exporter",
            "component": "engine",
            "service": service,
            "environment": "test",
            "severity": "P2",
        }
        alert = {
            "status": status,
            "labels": labels,
            "annotations": {},
            "startsAt": datetime.fromtimestamp(since + 20, UTC).isoformat(),
            "endsAt": "0001-01-01T00:00:00Z",
            "fingerprint": f"fp-{service}",
        }
        return json.dumps({"version": "4", "status": status, "receiver": "remediator", "alerts": [alert]}).encode()


class Params(BaseModel):
    service: str


class SimRestart(Action):
    """A restart through a gate that fences attempts, as the real one does."""

    name: ClassVar[str] = "restart_service"
    risk: ClassVar[Risk] = Risk.DISRUPTIVE
    idempotent: ClassVar[bool] = False
    deadline: ClassVar[float] = 20.0
    params_model: ClassVar[type[BaseModel]] = Params

    def __init__(self, world: SimWorld) -> None:
        self.world = world

    async def preview(self, params: BaseModel) -> Preview:
        service = self.world.services[params.service]  # type: ignore[attr-defined]
        item = {"service": service.name, "started_at": service.started_at}
        return Preview(f"docker:sim/{service.name}", f"restart {service.name}", (item,), self.world.clock.now())

    async def execute(self, call: Call) -> Outcome:
        world, name = self.world, call.params.service  # type: ignore[attr-defined]
        world.step()
        if world.during("gate down"):
            return Outcome(Result.FAILED, "connection refused")
        if world.clock.now() > call.start_by or call.attempt in world.gate_seen:
            return Outcome(Result.FAILED, "refused by the gate")
        world.gate_seen.add(call.attempt)
        world.clock.t += 1.0
        world.services[name].restart(world.clock.now())
        world.effects.append(Effect(world.clock.now(), name, call.attempt))
        world.step()
        if world.during("answers lost"):
            return Outcome(Result.IN_DOUBT, "connection reset")
        return Outcome(Result.DONE, "204", call.items)

    async def settle(self, call: Call) -> Settled:
        world = self.world
        if world.during("target silent"):
            raise Transient("the target does not answer")
        service = world.services[call.params.service]  # type: ignore[attr-defined]
        if service.started_at > call.intent_at:
            return Settled(Settlement.DONE, "StartedAt is later than the intent")
        if call.attempt not in world.gate_seen and not world.during("gate down"):
            return Settled(Settlement.NOT_DONE, "the gate never saw it")
        return Settled(Settlement.UNKNOWN, "no trace")


class SimSight:
    """Sees the truth, except where the world says that a server is away."""

    def __init__(self, world: SimWorld, action: SimRestart) -> None:
        self.world, self.action = world, action

    async def rule(self, alertname: str, labels: Mapping[str, str]) -> tuple[Answer, str, float | None]:
        if self.world.during("prometheus down"):
            return Answer.UNKNOWN, "prometheus does not answer", None
        true = self.world.rule_true(labels["service"])
        return (Answer.YES if true else Answer.NO), "asked", 0.0

    async def look(
        self, book: Runbook, rung: Rung, params: BaseModel | None, labels: Mapping[str, str], now: float
    ) -> World:
        world = self.world
        rule, detail, skew = await self.rule("", labels)
        world.clock.t += world.random.uniform(0.05, 0.4)
        away = world.during("gate down") or params is None
        return World(
            looked_at=now,
            rule=rule,
            rule_detail=detail,
            skew=skew,
            causes=("PostgresDown",) if world.during("cause firing") else (),
            muted=Answer.YES if world.during("silenced") else Answer.NO,
            muted_by="s1",
            probe=world.services[labels["service"]].truth(world.clock.now()),
            probe_detail="",
            preview=None if away or params is None else await self.action.preview(params),
            preview_error="gate" if away else "",
            pause_file=world.pause_file,
        )

    async def proof(self, book: Runbook, labels: Mapping[str, str], since: float, now: float) -> ProofLook:
        world = self.world
        health = world.services[labels["service"]].truth(world.clock.now())
        silent = world.during("prometheus down") or health is Health.DOWN
        value = None if silent else (1.0 if health is Health.HEALTHY else 9.0)
        good = None if value is None else value < 5
        return ProofLook(world.clock.now(), (CheckSample("fast", value, good, str(value)),), health, "")

    async def active_alerts(self) -> list[bytes]:
        return [self.world.body(name, "firing") for name in self.world.services if self.world.rule_true(name)]


class SimPeople:
    """The inbox of people. With `takes` False no Alertmanager takes anything; `posted` are the times of all tries."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.takes = True
        self.posted: list[float] = []

    async def post(self, alerts: Sequence[OwnAlert]) -> bool:
        self.world.pages += alerts
        self.posted.append(self.world.clock.now())
        return self.takes


class SimDiagnoses:
    """Evidence is always there, or, at times, cannot be read."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world

    async def run(self, episode: str, names: Sequence[str], labels: Mapping[str, str]) -> Evidence:
        return Evidence("0" * 64, f"{episode}/evidence", not self.world.during("no evidence"), {})


class MortalJournal:
    """The real journal; the process may die right before and right after each write that changes something."""

    WRITES = frozenset({"append", "intend", "outcome", "put_document"})
    FINDS = frozenset({"route", "claim"})

    def __init__(self, journal: Any, world: SimWorld) -> None:
        self._journal, self._world = journal, world

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._journal, name)
        if name not in self.WRITES | self.FINDS:
            return found

        async def mortal(*args: Any, **kwargs: Any) -> Any:
            if name in self.WRITES:
                self._world.step()
            result = await found(*args, **kwargs)
            if name in self.WRITES or result:
                self._world.step()
            return result

        return mortal


def record(world: SimWorld) -> Any:
    """The engine's observer: keeps every durable event of this life of the process."""

    def observe(event: Event, ledger: Ledger) -> None:
        world.events.append(event)

    return observe
