"""Restart one container of one compose service, through the Docker gate.

Only what the settings list, of our compose project, carries the opt-in label, runs, and nobody is working
on. One container a call; where a service has several, the sickest first. A stopped container is refused:
somebody or something stopped it, and starting it is another action. Never sends a stop timeout of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, Field

from remediator.actions.base import (
    Action,
    Call,
    Item,
    Outcome,
    Preview,
    Result,
    Risk,
    Settled,
    Settlement,
)
from remediator.clock import Clock
from remediator.containers import Answered, Container, Engine, GateState
from remediator.durations import human
from remediator.errors import Fault, RemediatorError, Transient
from remediator.fetch import Refused
from remediator.reasons import Reason, Refusal
from remediator.settings import Service, Settings


class RestartServiceParams(BaseModel):
    """`service`: name of an entry of `settings.services`, which is the compose service's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: str = Field(min_length=1, max_length=128)


class RestartService(Action):
    """Restart a service's container and wait until the engine says that it runs again."""

    name: ClassVar[str] = "restart_service"
    risk: ClassVar[Risk] = Risk.DISRUPTIVE
    idempotent: ClassVar[bool] = False
    deadline: ClassVar[float] = 45.0  # the engine's own grace period of 10 s, the kill, the start, and room
    params_model: ClassVar[type[BaseModel]] = RestartServiceParams
    of_redis: ClassVar[bool] = False
    """Does it know what a restart of Redis would lose? Where it does not, no Redis is restarted."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._settings = settings
        self._engine = Engine(settings.docker, session)
        self._clock = clock
        self._never = frozenset(settings.never) | footing(settings)

    @classmethod
    def listed(cls, settings: Settings) -> Sequence[str]:
        return sorted(set(settings.services) - set(settings.databases) - set(settings.redis))

    @classmethod
    def obstacles(cls, settings: Settings, service: str) -> tuple[Fault, ...]:
        if faults := never_restarted(settings, service):
            return faults
        entry = settings.services.get(service)
        if entry is None:
            return (Fault(f"services.{service}", "is not listed: it is never restarted", "list it, if it may be"),)
        if service in settings.databases:
            return (Fault(f"databases.{service}", "is a database server", "only restart_replica restarts one"),)
        if service in settings.redis and not cls.of_redis:
            said = "is a Redis: this action does not know what a restart would lose"
            return (Fault(f"redis.{service}", said, "use restart_redis"),)
        if entry.containers == 1 and not entry.singleton:
            said = "is the only container of its service: a restart takes the service down"
            return (Fault(f"services.{service}.singleton", said, "say `singleton: true`, if it may"),)
        return ()

    async def preview(self, params: BaseModel) -> Preview:
        service = RestartServiceParams.model_validate(params.model_dump()).service
        resource = f"docker:{self._settings.docker.project}/{service}"
        if refusal := self._forbidden(service):
            return Preview(resource, "Nothing may be restarted.", (), self._clock.now(), (refusal,))
        gate, containers = await asyncio.gather(self._engine.gate(), self._engine.of_service(service))
        members = [item for item in containers if not item.one_off]
        one_offs = [item for item in containers if item.one_off]
        refusals = [
            *self._count(service, members),
            *self._group(service, members),
            *running_one_offs(service, one_offs),
            *[reason for item in members for reason in await self._against(item, gate)],
        ]
        chosen = _sickest_first(members)[:1]
        left_out = [not_touched(item, "one-off container, somebody's own command") for item in one_offs]
        left_out += [not_touched(item, "one container a time") for item in members if item not in chosen]
        names = ", ".join(item.name for item in chosen) or "no container"
        return Preview(
            resource=resource,
            summary=f"Restart {names} of service {service}.",
            items=tuple(identity(item) for item in chosen),
            target_now=gate.now,
            refusals=tuple(refusals),
            left_out=tuple(left_out),
        )

    async def execute(self, call: Call) -> Outcome:
        started = self._clock.boottime()
        if len(call.items) != 1:
            return Outcome(Result.FAILED, f"One container a call, not {len(call.items)}; nothing was sent.")
        item = call.items[0]
        try:
            found = await self._engine.inspect(str(item["id"]))
        except RemediatorError as error:
            return Outcome(Result.FAILED, f"The container could not be read, nothing was sent: {error}")
        if change := changed(item, found):
            return Outcome(Result.FAILED, f"Nothing was sent: {change}.")
        if why := await self._last_look(call, found):
            return Outcome(Result.FAILED, f"Nothing was sent: {why}")
        left = call.deadline - (self._clock.boottime() - started)
        if left <= 0:
            return Outcome(Result.FAILED, "The deadline passed before anything was sent.")
        sent = await self._engine.restart(found.name, call.attempt, call.start_by, left)
        if sent.answered is Answered.DONE:
            return Outcome(Result.DONE, sent.detail, call.items)
        if sent.answered is Answered.UNSURE:
            return Outcome(Result.IN_DOUBT, sent.detail, call.items)
        return Outcome(Result.FAILED, sent.detail)

    async def settle(self, call: Call) -> Settled:
        """As `settled_by_start`."""
        return await settled_by_start(self._engine, call, self._settings.guards.start_within)

    async def _last_look(self, call: Call, found: Container) -> str:
        """Right before the call is sent: why not, as a sentence; "" when nothing forbids it. Never raises."""
        del call, found
        return ""

    def _forbidden(self, service: str) -> Refusal | None:
        if service in self._never:
            sentence = f"{service} is on the never list: a primary database, or what the remediator stands on."
            return Refusal(Reason.NEVER_LIST, sentence)
        if service not in self._settings.services:
            return Refusal(Reason.TARGET_NOT_ALLOWED, f"{service} is not in the settings' list of services.")
        return self._of_another_kind(service)

    def _of_another_kind(self, service: str) -> Refusal | None:
        """A database server is no service like others: only `restart_replica` knows what it must not break."""
        if service in self._settings.databases:
            return Refusal(
                Reason.TARGET_NOT_ALLOWED, f"{service} is a database server: only restart_replica restarts one."
            )
        if service in self._settings.redis and not self.of_redis:
            sentence = f"{service} is a Redis, and {self.name} does not know what it would lose: restart_redis does."
            return Refusal(Reason.TARGET_NOT_ALLOWED, sentence)
        return None

    def _count(self, service: str, members: Sequence[Container]) -> list[Refusal]:
        """The right number of containers; an only one goes down meanwhile, which must be said aloud."""
        wanted: Service = self._settings.services[service]
        found = []
        if len(members) != wanted.containers:
            sentence = f"{service} has {len(members)} containers, {wanted.containers} are expected."
            found.append(Refusal(Reason.TARGET_COUNT, sentence))
        if wanted.containers == 1 and not wanted.singleton:
            sentence = f"{service} has one container only, and its settings do not say `singleton: true`."
            found.append(Refusal(Reason.TARGET_NOT_ALLOWED, sentence))
        return found

    def _group(self, service: str, members: Sequence[Container]) -> list[Refusal]:
        """How many others stay healthy while one restarts. It is the sickest that restarts, so it is none of them."""
        wanted: Service = self._settings.services[service]
        if wanted.containers == 1:
            return []  # that is said by `singleton`
        well = [item for item in _sickest_first(members)[1:] if item.status == "running" and item.health != "unhealthy"]
        if len(well) >= wanted.min_healthy:
            return []
        sentence = f"Of {service} {len(well)} other containers are healthy; at least {wanted.min_healthy} must be."
        return [Refusal(Reason.TARGET_GROUP, sentence)]

    async def _against(self, item: Container, gate: GateState) -> list[Refusal]:
        """Every reason of one container against restarting it."""
        docker = self._settings.docker
        found = []
        if item.labels.get(docker.label) != "true":
            sentence = f"{item.name} does not carry the label {docker.label}=true."
            found.append(Refusal(Reason.TARGET_NOT_LABELLED, sentence))
        if item.status == "restarting":
            sentence = f"{item.name} is being restarted by Docker ({item.restarts} times so far)."
            return [*found, Refusal(Reason.TARGET_RESTARTING, sentence)]
        if item.status != "running":
            sentence = f"{item.name} is {item.status}: something stopped it, and starting it is another action."
            return [*found, Refusal(Reason.TARGET_NOT_RUNNING, sentence)]
        age = max(0.0, gate.now - item.started)  # the gate counts whole seconds
        if age < docker.young:
            found.append(_young(item, age, docker.young, self._clock.now()))
        if commands := await self._engine.running_execs(item):
            sentence = f"Somebody runs a command inside {item.name}: {len(commands)} exec running."
            found.append(Refusal(Reason.TARGET_EXEC_RUNNING, sentence))
        return found


async def settled_by_start(engine: Engine, call: Call, start_within: float) -> Settled:
    """Done: StartedAt changed and is later than the look. Not done: the gate, up all the while, never let
    the attempt through and would not any more. All else is unknown, and for people.
    """
    item = call.items[0]
    gate = await engine.gate()
    seen = await engine.seen(call.attempt)
    try:
        found = await engine.inspect(str(item["id"]))
    except Refused as error:
        if error.status != 404:
            raise Transient(str(error)) from error
        found = None
    # The intent was written after the look, and `start_by` is the look plus this, on the target's clock.
    looked_at = call.start_by - start_within
    evidence = {
        "gate_started": gate.started,
        "gate_now": gate.now,
        "attempt_seen_by_gate": seen,
        "started_at_before": item["started_at"],
        "started_at_now": found.started_at if found else None,
        "status_now": found.status if found else None,
    }
    if found and found.started_at != item["started_at"] and found.started >= looked_at:
        who = "the gate let this attempt through" if seen else "the gate did not see this attempt: somebody else's"
        return Settled(
            Settlement.DONE, f"{found.name} was started at {found.started_at}, after the intent; {who}.", evidence
        )
    if not seen and gate.started < looked_at and gate.now > call.start_by:
        sentence = "The gate was up all the while, never saw the attempt and would refuse it as late now."
        return Settled(Settlement.NOT_DONE, sentence, evidence)
    return Settled(Settlement.UNKNOWN, _why_unknown(gate, seen, found, looked_at, call.start_by), evidence)


def _sickest_first(members: Sequence[Container]) -> list[Container]:
    return sorted(members, key=lambda item: (item.health != "unhealthy", item.started, item.name))


def footing(settings: Settings) -> frozenset[str]:
    """Host names of what the remediator itself stands on: restarting one would blind or behead it."""
    urls = (settings.docker.gate_url, *settings.prometheus.urls, *settings.alertmanager.urls, settings.journal.url)
    hosts = {urlsplit(url).hostname for url in urls}
    return frozenset(host for host in hosts if host)


def never_restarted(settings: Settings, service: str) -> tuple[Fault, ...]:
    """The fault of a service that nothing may ever restart; () for any other."""
    if service not in frozenset(settings.never) | footing(settings):
        return ()
    said = f"{service} is a primary database, or what the remediator stands on: it is never restarted"
    return (Fault("never", said, "leave it to people"),)


def identity(item: Container) -> Item:
    """What a preview says of a container; execution touches nothing that differs from it."""
    return {
        "container": item.name,
        "id": item.id,
        "started_at": item.started_at,
        "image": item.image,
        "restarts": item.restarts,
    }


def changed(item: Item, found: Container, status: str = "running") -> str:
    """What is different from the preview, as words; "" when it is the same container in the same life and status."""
    now = identity(found)
    other = [name for name in now if now[name] != item.get(name)]
    if other:
        return f"{found.name} changed since the look ({', '.join(other)})"
    return "" if found.status == status else f"{found.name} is {found.status} now"


def _young(item: Container, age: float, young: float, now: float) -> Refusal:
    reason = Reason.TARGET_RESTARTING if item.restarts else Reason.TARGET_YOUNG
    who = f"by Docker's restart policy ({item.restarts} times so far)" if item.restarts else "by somebody"
    sentence = f"{item.name} was started {human(age)} ago {who}; it is left alone for {human(young)}."
    return Refusal(reason, sentence, earliest=now + young - age)


def running_one_offs(service: str, one_offs: Sequence[Container]) -> list[Refusal]:
    running = [item.name for item in one_offs if item.status in ("running", "paused", "restarting")]
    if not running:
        return []
    sentence = f"A one-off container of {service} runs ({', '.join(running)}): somebody is at work there."
    return [Refusal(Reason.TARGET_ONE_OFF, sentence)]


def not_touched(item: Container, why: str) -> Item:
    return {"container": item.name, "id": item.id, "status": item.status, "why": why}


def _why_unknown(gate: GateState, seen: bool, found: Container | None, looked_at: float, start_by: float) -> str:
    if found is None:
        return "The container is gone: whether it was restarted before cannot be told."
    if found.status != "running":
        return f"{found.name} is {found.status}: it may have been left stopped by the restart."
    if seen:
        return f"The gate let the attempt through, but {found.name} has not been started since."
    if gate.started >= looked_at:
        return "The gate was restarted meanwhile and remembers nothing of before."
    if gate.now <= start_by:
        return f"The gate would still take the attempt for {human(start_by - gate.now + 1)}."
    return "The target's answers do not fit together."
