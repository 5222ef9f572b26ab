"""Start one stopped container of one compose service, through the Docker gate, once.

Only what the settings list, of our compose project, carries the opt-in label, and whose end the engine's own record
shows to be nobody's wish: a start of it failed, or, without a restart policy that would have brought it back, it ended
with an error or the kernel ended it for want of memory. Whatever a person may have stopped stays stopped. One container
a call. Never a database: one that is down cannot be asked whether it had been promoted.
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
from remediator.containers import Container, Sent, timestamp
from remediator.durations import human
from remediator.errors import Fault
from remediator.reasons import Reason, Refusal
from remediator.settings import Settings

ASKED = frozenset({0, 130, 137, 143})
"""Exit codes of a process that was asked to end, or of one that had done its work: 0, and 128 + SIGINT, SIGKILL,
SIGTERM (signal(7)), which `docker stop` and `docker kill` send. Nobody can tell a person's from another's."""
KILLED = 137
ENDLESS = frozenset({"always", "unless-stopped"})
"""Restart policies that bring back whatever ends by itself: what is stopped under one of them, somebody stopped."""

ASKS = "The kernel may have ended it for want of memory, or somebody has killed it: the engine cannot tell which."

DATABASE = "is a database server: while it is down nobody can tell whether it was promoted"


class StartService(OneContainer):
    """Start a service's stopped container."""

    name: ClassVar[str] = "start_service"
    deadline: ClassVar[float] = 30.0  # networks and mounts of a start, on a busy machine
    asks_when: ClassVar[str] = "after an end with 137, for want of memory or by somebody's hand"

    @classmethod
    def listed(cls, settings: Settings) -> Sequence[str]:
        return sorted(set(settings.services) - set(settings.databases))

    @classmethod
    def obstacles(cls, settings: Settings, service: str) -> tuple[Fault, ...]:
        if faults := never_touched(settings, service):
            return faults
        if service not in settings.services:
            return (Fault(f"services.{service}", "is not listed: it is never started", "list it, if it may be"),)
        if service in settings.databases:
            return (Fault(f"databases.{service}", DATABASE, "leave it to people"),)
        return ()

    async def preview(self, params: BaseModel) -> Preview:
        service = ServiceParams.model_validate(params.model_dump()).service
        resource = f"docker:{self._settings.docker.project}/{service}"
        if refusal := self._forbidden(service):
            return Preview(resource, "Nothing may be started.", (), self._clock.now(), (refusal,))
        gate, containers = await asyncio.gather(self._engine.gate(), self._engine.of_service(service))
        members = [item for item in containers if not item.one_off]
        one_offs = [item for item in containers if item.one_off]
        stopped = [item for item in members if item.status not in ("running", "paused", "restarting")]
        chosen = stopped[:1]
        refusals = [
            *self._count(service, members),
            *running_one_offs(service, one_offs),
            *[reason for item in members if item not in stopped for reason in _busy(item)],
            *[reason for item in stopped for reason in self._against(item, gate.now)],
        ]
        left_out = [not_touched(item, "one-off container, somebody's own command") for item in one_offs]
        left_out += [
            not_touched(item, "one container a time" if item in stopped else "it is not stopped")
            for item in members
            if item not in chosen
        ]
        names = ", ".join(f"{item.name} ({_end(item)})" for item in chosen) or "no container"
        return Preview(
            resource=resource,
            summary=f"Start {names} of service {service}.",
            items=tuple(_identity(item) for item in chosen),
            target_now=gate.now,
            refusals=tuple(refusals),
            left_out=tuple(left_out),
            asks=ASKS if any(_killed_for_memory(item) for item in chosen) else "",
        )

    def _unlike(self, item: Item, found: Container) -> str:
        """It must be the same stopped container, and have ended only once since."""
        if change := changed(item, found, status=found.status):
            return change
        if _identity(found)["ended_at"] != item.get("ended_at"):
            return f"{found.name} has ended once more since the look"
        return stopped_now(found)

    async def _send(self, found: Container, call: Call, left: float) -> Sent:
        return await self._engine.start(found.name, call.attempt, call.start_by, left)

    def _of_another_kind(self, service: str) -> Refusal | None:
        """A database that is down cannot be asked: one that had been promoted would come back as a second primary."""
        if service in self._settings.databases:
            return Refusal(Reason.TARGET_NOT_ALLOWED, f"{service} {DATABASE}.")
        return None

    def _against(self, item: Container, now: float) -> list[Refusal]:
        """Every reason of one stopped container against starting it. `now` is the gate's clock."""
        docker = self._settings.docker
        found = self._unlabelled(item)
        age = max(0.0, now - timestamp(item.raw["Created"]))  # the gate counts whole seconds
        if age < docker.young:
            sentence = (
                f"{item.name} was made {human(age)} ago: somebody is at work; it is left for {human(docker.young)}."
            )
            found.append(Refusal(Reason.TARGET_YOUNG, sentence, earliest=self._clock.now() + docker.young - age))
        if why := stopped_by_somebody(item):
            found.append(Refusal(Reason.TARGET_STOPPED, f"{item.name} {why}"))
        return found


def stopped_by_somebody(item: Container) -> str:
    """Why a person may have stopped it, or starting it once more is no help, as words; "" when neither is so.

    The engine keeps no word of who stopped a container, and its events only for the last 256 of all containers: what
    is left is how it ended, and what its restart policy would have done.
    """
    state, host = item.raw["State"], item.raw.get("HostConfig") or {}
    told = host.get("RestartPolicy") or {}
    policy, code = told.get("Name") or "no", int(state.get("ExitCode") or 0)
    endless = policy in ENDLESS or (policy == "on-failure" and code != 0 and not told.get("MaximumRetryCount"))
    if item.status == "created" and not state.get("Error"):
        return "was made and never started: somebody deploys it, or wants it so."
    if item.status not in ("exited", "created"):
        return f"is {item.status}: it cannot be started."
    if item.restarts:
        return f"was started {item.restarts} times by its restart policy, which has given up: once more is no help."
    if state.get("Error"):
        return ""
    if endless:
        return f"ended with {code} and its restart policy ({policy}) did not bring it back: somebody has stopped it."
    if code in ASKED and not _killed_for_memory(item):
        return f"ended with {code}, as one that was asked to end: somebody may have stopped it."
    return ""


def _killed_for_memory(item: Container) -> bool:
    """It may have been: OOMKilled is of any process in it, in its whole life, and a person's kill ends with 137 too."""
    state = item.raw["State"]
    return bool(state.get("OOMKilled")) and int(state.get("ExitCode") or 0) == KILLED


def _busy(item: Container) -> list[Refusal]:
    """A container that is neither stopped nor simply running: a person's, or its restart policy's."""
    if item.status == "running":
        return []
    if item.status == "restarting":
        return [Refusal(Reason.TARGET_RESTARTING, f"{item.name} is being restarted by Docker.")]
    return [Refusal(Reason.TARGET_STOPPED, f"{item.name} is {item.status}: somebody has stopped it.")]


def _end(item: Container) -> str:
    """How it ended, in a few words."""
    state = item.raw["State"]
    if state.get("OOMKilled"):
        return "ended for want of memory"
    error = " ".join(str(state.get("Error") or "").split())
    return f"start failed: {error[:120]}" if error else f"ended with {state.get('ExitCode')}"


def _identity(item: Container) -> Item:
    return {**identity(item), "ended_at": item.raw["State"].get("FinishedAt"), "end": _end(item)}


def stopped_now(found: Container) -> str:
    """Why it may not be started by now, as words; "" when it may."""
    if found.status not in ("exited", "created"):
        return f"{found.name} is {found.status} now"
    why = stopped_by_somebody(found)
    return f"{found.name} {why.rstrip('.')}" if why else ""
