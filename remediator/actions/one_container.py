"""What restarting and starting have in common: one container of one compose service, through the gate, once.

Only what the settings list, of our compose project, and never what the remediator stands on. The container must be the
one of the preview, in the same life, when the call is sent; afterwards the engine's StartedAt and the gate's memory say
whether it was done.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import aiohttp
from pydantic import BaseModel, ConfigDict, Field

from remediator.actions.base import Action, Call, Item, Outcome, Result, Risk, Settled, Settlement
from remediator.clock import Clock
from remediator.containers import Answered, Container, Engine, GateState, Sent
from remediator.durations import human
from remediator.errors import Fault, RemediatorError, Transient
from remediator.fetch import Refused
from remediator.gate import REMEMBERED
from remediator.reasons import Reason, Refusal
from remediator.settings import Settings, footing


class ServiceParams(BaseModel):
    """`service`: name of an entry of `settings.services`, which is the compose service's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: str = Field(min_length=1, max_length=128)


class OneContainer(Action):
    """One effect on one container of a service."""

    risk: ClassVar[Risk] = Risk.DISRUPTIVE
    idempotent: ClassVar[bool] = False
    params_model: ClassVar[type[BaseModel]] = ServiceParams

    def __init__(self, settings: Settings, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._settings = settings
        self._engine = Engine(settings.docker, session)
        self._clock = clock
        self._never = frozenset(settings.never) | footing(settings)

    @abstractmethod
    def _unlike(self, item: Item, found: Container) -> str:
        """What is different from the preview, as words; "" when the effect may still begin. Pure."""

    @abstractmethod
    async def _send(self, found: Container, call: Call, left: float) -> Sent:
        """The call itself, within `left` seconds."""

    async def _last_look(self, call: Call, found: Container) -> str:
        """Right before the call is sent: why not, as a sentence; "" when nothing forbids it. Never raises."""
        del call, found
        return ""

    @abstractmethod
    def _of_another_kind(self, service: str) -> Refusal | None:
        """Is it a service that another action must know how to handle?"""

    async def execute(self, call: Call) -> Outcome:
        started = self._clock.boottime()
        if len(call.items) != 1:
            return Outcome(Result.FAILED, f"One container a call, not {len(call.items)}; nothing was sent.")
        item = call.items[0]
        try:
            found = await self._engine.inspect(str(item["id"]))
        except RemediatorError as error:
            return Outcome(Result.FAILED, f"The container could not be read, nothing was sent: {error}")
        if change := self._unlike(item, found):
            return Outcome(Result.FAILED, f"Nothing was sent: {change}.")
        if why := await self._last_look(call, found):
            return Outcome(Result.FAILED, f"Nothing was sent: {why}")
        left = call.deadline - (self._clock.boottime() - started)
        if left <= 0:
            return Outcome(Result.FAILED, "The deadline passed before anything was sent.")
        sent = await self._send(found, call, left)
        if sent.answered is Answered.DONE:
            return Outcome(Result.DONE, sent.detail, call.items)
        if sent.answered is Answered.UNSURE:
            return Outcome(Result.IN_DOUBT, sent.detail, call.items)
        return Outcome(Result.FAILED, sent.detail)

    async def settle(self, call: Call) -> Settled:
        """Done: StartedAt changed and is later than the look. Not done: the gate, up all the while, never let
        the attempt through and would not any more. All else is unknown, and for people.
        """
        item = call.items[0]
        gate = await self._engine.gate()
        seen = await self._engine.seen(call.attempt)
        try:
            found = await self._engine.inspect(str(item["id"]))
        except Refused as error:
            if error.status != 404:
                raise Transient(str(error)) from error
            found = None
        # The intent was written after the look, and `start_by` is the look plus this, on the target's clock.
        looked_at = call.start_by - self._settings.guards.start_within
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
        if not seen and gate.started < looked_at and call.start_by < gate.now < call.start_by + REMEMBERED / 2:
            sentence = "The gate was up all the while, never saw the attempt and would refuse it as late now."
            return Settled(Settlement.NOT_DONE, sentence, evidence)
        return Settled(Settlement.UNKNOWN, _why_unknown(gate, seen, found, looked_at, call.start_by), evidence)

    def _forbidden(self, service: str) -> Refusal | None:
        if service in self._never:
            sentence = f"{service} is on the never list: a primary database, or what the remediator stands on."
            return Refusal(Reason.NEVER_LIST, sentence)
        if service not in self._settings.services:
            return Refusal(Reason.TARGET_NOT_ALLOWED, f"{service} is not in the settings' list of services.")
        return self._of_another_kind(service)

    def _count(self, service: str, members: Sequence[Container]) -> list[Refusal]:
        """Another number is a deployment half-way, or not the platform that the settings describe."""
        wanted = self._settings.services[service].containers
        if len(members) == wanted:
            return []
        sentence = f"{service} has {len(members)} containers, {wanted} are expected."
        return [Refusal(Reason.TARGET_COUNT, sentence)]

    def _unlabelled(self, item: Container) -> list[Refusal]:
        label = self._settings.docker.label
        if item.labels.get(label) == "true":
            return []
        return [Refusal(Reason.TARGET_NOT_LABELLED, f"{item.name} does not carry the label {label}=true.")]


def never_touched(settings: Settings, service: str) -> tuple[Fault, ...]:
    """The fault of a service that nothing may ever restart or start; () for any other."""
    if service not in frozenset(settings.never) | footing(settings):
        return ()
    said = f"{service} is a primary database, or what the remediator stands on: it is never restarted, nor started"
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
    if gate.now >= start_by + REMEMBERED / 2:
        return "It is too long ago: the gate may have forgotten it."
    if gate.now <= start_by:
        return f"The gate would still take the attempt for {human(start_by - gate.now + 1)}."
    return "The target's answers do not fit together."
