"""Restart one container of one compose service, through the Docker gate.

Only what the settings list, of our compose project, carries the opt-in label, runs, and nobody is working
on. One container a call; where a service has several, the sickest first. A stopped container is refused:
somebody or something stopped it, and starting it is another action. Never sends a stop timeout of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel

from remediator.actions.base import Call, Item, Preview
from remediator.actions.one_container import (
    OneContainer,
    ServiceParams,
    changed,
    identity,
    never_touched,
    not_touched,
    running_one_offs,
)
from remediator.containers import Container, GateState, Sent
from remediator.durations import human
from remediator.errors import Fault, RemediatorError
from remediator.reasons import Reason, Refusal
from remediator.settings import Service, Settings


class RestartService(OneContainer):
    """Restart a service's container and wait until the engine says that it runs again."""

    name: ClassVar[str] = "restart_service"
    deadline: ClassVar[float] = 45.0  # the engine's own grace period of 10 s, the kill, the start, and room
    of_redis: ClassVar[bool] = False
    """Does it know what a restart of Redis would lose? Where it does not, no Redis is restarted."""

    @classmethod
    def listed(cls, settings: Settings) -> Sequence[str]:
        return sorted(set(settings.services) - set(settings.databases) - set(settings.redis))

    @classmethod
    def obstacles(cls, settings: Settings, service: str) -> tuple[Fault, ...]:
        if faults := never_touched(settings, service):
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
        service = ServiceParams.model_validate(params.model_dump()).service
        resource = f"docker:{self._settings.docker.project}/{service}"
        if refusal := self._forbidden(service):
            return Preview(resource, "Nothing may be restarted.", (), self._clock.now(), (refusal,))
        gate, containers = await asyncio.gather(self._engine.gate(), self._engine.of_service(service))
        members = [item for item in containers if not item.one_off]
        one_offs = [item for item in containers if item.one_off]
        chosen = _sickest_first(members)[:1]
        refusals = await self._forbids(service, chosen[0].id if chosen else "", containers, gate)
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

    def _unlike(self, item: Item, found: Container) -> str:
        return changed(item, found)

    async def _last_look(self, call: Call, found: Container) -> str:
        """Who was called by the same alert may have gone in since the look, or another member have fallen ill."""
        service = ServiceParams.model_validate(call.params.model_dump()).service
        try:
            gate, containers = await asyncio.gather(self._engine.gate(), self._engine.of_service(service))
            refusals = await self._forbids(service, found.id, containers, gate)
        except RemediatorError as error:
            return f"{error}."
        return " ".join(refusal.sentence for refusal in refusals)

    async def _forbids(
        self, service: str, chosen: str, containers: Sequence[Container], gate: GateState
    ) -> list[Refusal]:
        """Everything that the engine tells against restarting the `chosen` one (its id) of the service's containers."""
        members = [item for item in containers if not item.one_off]
        return [
            *self._count(service, members),
            *self._group(service, [item for item in members if item.id != chosen]),
            *running_one_offs(service, [item for item in containers if item.one_off]),
            *[reason for item in members for reason in await self._against(item, gate)],
        ]

    async def _send(self, found: Container, call: Call, left: float) -> Sent:
        return await self._engine.restart(found.name, call.attempt, call.start_by, left)

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
        found = super()._count(service, members)
        if wanted.containers == 1 and not wanted.singleton:
            sentence = f"{service} has one container only, and its settings do not say `singleton: true`."
            found.append(Refusal(Reason.TARGET_NOT_ALLOWED, sentence))
        return found

    def _group(self, service: str, others: Sequence[Container]) -> list[Refusal]:
        """How many others stay healthy, or are coming up, while one restarts."""
        wanted: Service = self._settings.services[service]
        if wanted.containers == 1:
            return []  # that is said by `singleton`
        well = [item for item in others if item.status == "running" and item.health != "unhealthy"]
        if len(well) >= wanted.min_healthy:
            return []
        sentence = f"Of {service} {len(well)} other containers are healthy; at least {wanted.min_healthy} must be."
        return [Refusal(Reason.TARGET_GROUP, sentence)]

    async def _against(self, item: Container, gate: GateState) -> list[Refusal]:
        """Every reason of one container against restarting it."""
        docker = self._settings.docker
        found = self._unlabelled(item)
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


def _sickest_first(members: Sequence[Container]) -> list[Container]:
    return sorted(members, key=lambda item: (item.health != "unhealthy", item.started, item.name))


def _young(item: Container, age: float, young: float, now: float) -> Refusal:
    reason = Reason.TARGET_RESTARTING if item.restarts else Reason.TARGET_YOUNG
    who = f"by Docker's restart policy ({item.restarts} times so far)" if item.restarts else "by somebody"
    sentence = f"{item.name} was started {human(age)} ago {who}; it is left alone for {human(young)}."
    return Refusal(reason, sentence, earliest=now + young - age)
