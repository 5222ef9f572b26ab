"""Restart one PostgreSQL replica, through the Docker gate: a container like others, and a server that others rely on.

All that `restart_service` asks of a container holds. Beyond that the server itself is asked, at the address of that
container, and so is its primary: it must be in recovery, sick by its own word, not what commits wait for, not the last
that streams, and at work for nobody. Right before the call is sent both are asked once more, the replica last: one that
was promoted in between is the primary now. Whatever cannot be known is a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import asyncpg
from pydantic import BaseModel

from remediator.actions import replicas
from remediator.actions.base import Call, Preview
from remediator.actions.one_container import ServiceParams, never_touched
from remediator.actions.restart_service import RestartService
from remediator.containers import Container
from remediator.errors import Fault, RemediatorError, Transient
from remediator.fetch import describe
from remediator.postgres import LOST, connected
from remediator.reasons import Reason, Refusal
from remediator.settings import Database, Settings


class RestartReplica(RestartService):
    """Restart a replica that does not stream, and wait until the engine says that it runs again.

    `service` of the params names an entry of `settings.services` and of `settings.databases`, with `replica_of`.
    """

    name: ClassVar[str] = "restart_replica"

    @classmethod
    def listed(cls, settings: Settings) -> Sequence[str]:
        return sorted(name for name in settings.services if _is_replica(settings, name))

    @classmethod
    def obstacles(cls, settings: Settings, service: str) -> tuple[Fault, ...]:
        if not _is_replica(settings, service):
            said = "is no replica of a primary in `databases`: it is never restarted"
            return (Fault(f"databases.{service}.replica_of", said, "say whose replica it is"),)
        return never_touched(settings, service)

    async def preview(self, params: BaseModel) -> Preview:
        service = ServiceParams.model_validate(params.model_dump()).service
        found = await super().preview(params)
        if not found.items or _not_running(found):
            return found
        container = await self._engine.inspect(str(found.items[0]["id"]))
        case, unlike = await self._asked(service, container)
        against = (*found.refusals, *unlike, *(replicas.refusals(case) if case else ()))
        server = case.replica.server if case else None
        told = {"system": server.system, "server_started": server.started, "address": server.address} if server else {}
        sick = case.replica.sick_because if case else ""
        nothing = any(refusal.reason is Reason.NOTHING_TO_DO for refusal in against)
        return replace(
            found,
            summary=f"Restart {container.name}, a replica: {sick}." if sick else f"Restart {container.name}.",
            items=() if nothing else tuple({**item, **told} for item in found.items),
            refusals=against,
        )

    def _of_another_kind(self, service: str) -> Refusal | None:
        if _is_replica(self._settings, service):
            return None
        return Refusal(Reason.TARGET_NOT_ALLOWED, f"{service} is not in the settings as a replica (`replica_of`).")

    def _count(self, service: str, members: Sequence[Container]) -> list[Refusal]:
        """One address is one server; whether it may go is asked at the primary."""
        if len(members) == 1:
            return []
        return [Refusal(Reason.TARGET_COUNT, f"{service} has {len(members)} containers, 1 is expected.")]

    async def _last_look(self, call: Call, found: Container) -> str:
        if why := await super()._last_look(call, found):
            return why
        item, service = call.items[0], ServiceParams.model_validate(call.params.model_dump()).service
        if (refusal := self._forbidden(service)) is not None:
            return refusal.sentence
        try:
            case = await self._case(service, found, str(item.get("address")))
        except RemediatorError as error:
            return f"{error}."
        if refusals := replicas.refusals(case):
            return " ".join(refusal.sentence for refusal in refusals)
        server = case.replica.server
        if (server.system, server.started) != (item.get("system"), item.get("server_started")):
            return f"Another server answers at {server.address} now, started {server.started}."
        return ""

    async def _asked(self, service: str, container: Container) -> tuple[replicas.Case | None, tuple[Refusal, ...]]:
        """The servers' words. First by the settings' name, as clients use it: it must lead into the container."""
        database = self._settings.databases[service]
        named = await self._replica(service, database)
        if named.server.address not in container.addresses:
            there, has = named.server.address or "no address", ", ".join(container.addresses) or "none"
            said = f"{database.host} leads to a server at {there}; {container.name} has {has}."
            return None, (Refusal(Reason.REPLICA_UNPROVEN, said),)
        return await self._case(service, container, named.server.address), ()

    async def _case(self, service: str, container: Container, address: str) -> replicas.Case:
        """The primary, then the replica at the container's own address. Raises Transient when one does not answer."""
        entry, database = self._settings.services[service], self._settings.databases[service]
        primary = self._settings.databases[database.replica_of or ""]
        try:
            async with connected(primary) as connection:
                leading = await replicas.read_primary(connection)
        except (*LOST, asyncpg.PostgresError) as error:
            raise Transient(f"PostgreSQL {database.replica_of}, the primary: {describe(error)}") from error
        return replicas.Case(
            service=service,
            addresses=container.addresses,
            started=container.started,
            singleton=entry.singleton,
            min_healthy=entry.min_healthy,
            primary=leading,
            replica=await self._replica(service, database.model_copy(update={"host": address})),
        )

    async def _replica(self, service: str, database: Database) -> replicas.Replica:
        try:
            async with connected(database) as connection:
                return await replicas.read_replica(connection, database)
        except (*LOST, asyncpg.PostgresError) as error:
            raise Transient(f"PostgreSQL {service} at {database.host}: {describe(error)}") from error


def _is_replica(settings: Settings, service: str) -> bool:
    """Is it in the settings as a replica of a primary that is there too?"""
    database = settings.databases.get(service)
    primary = settings.databases.get(database.replica_of or "") if database else None
    return service in settings.services and primary is not None and primary.replica_of is None


def _not_running(found: Preview) -> bool:
    """A container that does not run has no server to ask; why it does not is said already."""
    return any(refusal.reason in (Reason.TARGET_NOT_RUNNING, Reason.TARGET_RESTARTING) for refusal in found.refusals)
