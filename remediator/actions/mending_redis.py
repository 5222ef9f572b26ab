"""What the mild actions on a Redis server have in common: look, check again, do it behind the guard, find out.

Redis' own reasons against acting are the same for all: it is loading, it cannot save (its disk is full, Redis is well),
it is a replica, it does not serve.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from remediator.actions.base import Action, Call, Item, Outcome, Preview, Result, Settled, Settlement
from remediator.actions.redis_guard import REMEMBERED, Passed, guarded, mark, open_gate
from remediator.clock import Clock
from remediator.errors import Fault, Permanent, RemediatorError, Transient
from remediator.fetch import describe
from remediator.reasons import Reason, Refusal
from remediator.redis_link import NAME, Command, Link, connected
from remediator.redis_state import Look, look
from remediator.settings import Redis, Settings


class RedisParams(BaseModel):
    """`service`: name of an entry of `settings.redis`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: str = Field(min_length=1, max_length=128)


@dataclass(frozen=True, slots=True)
class Selected:
    """What would be touched: as `Preview` has it, without the target's own reasons."""

    items: tuple[Item, ...]
    summary: str
    refusals: tuple[Refusal, ...] = ()
    left_out: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What is sent for the items that are still what they were; `maxmemory` as `guarded` takes it."""

    items: tuple[Item, ...]
    effects: tuple[Command, ...]
    maxmemory: str = ""


class MendingRedis(Action):
    """One mild effect in a Redis server. Every item carries the server's `run_id`: its life."""

    deadline: ClassVar[float] = 8.0
    params_model: ClassVar[type[BaseModel]] = RedisParams

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    @classmethod
    def listed(cls, settings: Settings) -> Sequence[str]:
        return sorted(settings.redis)

    @classmethod
    def obstacles(cls, settings: Settings, service: str) -> tuple[Fault, ...]:
        if service in settings.redis:
            return ()
        return (Fault(f"redis.{service}", "is not listed: nothing in it is ever touched", "list it, if it may be"),)

    @abstractmethod
    async def select(self, link: Link, found: Look, params: BaseModel) -> Selected:
        """What would be touched on this server as it is now. Reads only."""

    @abstractmethod
    async def step(self, link: Link, found: Look, call: Call) -> Step:
        """Look at the call's items once more, right before; those that have changed are left out. Reads only."""

    @abstractmethod
    def told(self, step: Step, passed: Passed) -> Outcome:
        """From the answers of the effects to an outcome."""

    @abstractmethod
    async def still(self, link: Link, found: Look, call: Call) -> Sequence[Item]:
        """Those of the call's items that are as they were before it. Raises what reading raises."""

    async def preview(self, params: BaseModel) -> Preview:
        service = self.params_model.model_validate(params.model_dump()).service  # type: ignore[attr-defined] # all have it
        redis = self._settings.redis.get(service)
        resource = resource_of(self._settings, service)
        if redis is None:
            refusal = Refusal(Reason.TARGET_NOT_ALLOWED, f"{service} is not in the settings' list of Redis servers.")
            return Preview(resource, "Nothing may be touched.", (), self._clock.now(), (refusal,))
        async with connected(redis) as link:
            found = await look(link, redis)
            if refusals := against(found):
                return Preview(resource, "Nothing may be touched.", (), found.now, refusals)
            chosen = await self.select(link, found, params)
        return Preview(resource, chosen.summary, chosen.items, found.now, chosen.refusals, chosen.left_out)

    async def execute(self, call: Call) -> Outcome:
        redis = self._settings.redis.get(call.params.service)  # type: ignore[attr-defined] # all have it
        if redis is None:
            return Outcome(Result.FAILED, "It is not in the settings any more; nothing was sent.")
        try:
            async with connected(redis, _tag(call.attempt), within=min(redis.timeout, call.deadline)) as link:
                return await self._behind_the_guard(link, redis, call)
        except RemediatorError as error:
            # `_behind_the_guard` answers for itself once the effect is on its way.
            return Outcome(Result.FAILED, f"Nothing was sent: {describe(error)}")

    async def settle(self, call: Call) -> Settled:
        """By the mark that this life of Redis laid beside the effect, when something has changed with it. No mark is
        not done only while the server could not have thrown it away, or when everything is as it was before; all else
        is for people. What remains: somebody's FLUSHALL takes the mark too.
        """
        redis = self._settings.redis.get(call.params.service)  # type: ignore[attr-defined] # all have it
        if redis is None:
            raise Permanent("It is not in the settings any more: it cannot be asked.")
        async with connected(redis) as link:
            found = await look(link, redis)
            if found.state != "ready":
                raise Transient(f"{link.where} is not ready: {found.state}")
            (marked,) = await link.ask(("EXISTS", mark(call.attempt)))
            same = bool(call.items) and found.run_id == call.items[0]["run_id"]
            still = await self.still(link, found, call) if same else ()
        evidence = {"run_id": found.run_id, "marked": marked == 1, "server_now": found.now, "as_before": len(still)}
        if marked == 1 and still and len(still) == len(call.items):
            said = "Redis let this attempt through and remembers it, and yet everything is as it was before."
            return Settled(Settlement.UNKNOWN, said, evidence)
        if not same:
            # A mark out of a file proves that it was let through, not that what it changed was in that file too.
            return Settled(Settlement.UNKNOWN, "Redis was started anew since: it may have lost the effect.", evidence)
        if marked == 1:
            return Settled(Settlement.DONE, "Redis let this attempt through, and remembers it.", evidence)
        if found.now <= call.start_by:
            return Settled(Settlement.UNKNOWN, "The attempt's time is not over: it may still be on its way.", evidence)
        remembers = not found.evicts and found.now < call.start_by + REMEMBERED / 2000
        if len(still) == len(call.items) or remembers:
            return Settled(Settlement.NOT_DONE, "Redis never let this attempt through, and would not now.", evidence)
        said = "Redis has no mark of it, but may have lost it by now, and something has changed."
        return Settled(Settlement.UNKNOWN, said, evidence)

    async def _behind_the_guard(self, link: Link, redis: Redis, call: Call) -> Outcome:
        found = await look(link, redis)
        if resource_of(self._settings, call.params.service) != call.resource:  # type: ignore[attr-defined]
            return Outcome(Result.FAILED, "The settings name another server by now; nothing was sent.")
        if refusals := against(found):
            return Outcome(Result.FAILED, f"Nothing was sent: {refusals[0].sentence}")
        if any(item["run_id"] != found.run_id for item in call.items):
            return Outcome(Result.FAILED, "Redis was started anew since the look; nothing was sent.")
        script = await open_gate(link)
        step = await self.step(link, found, call)
        if not step.items:
            return Outcome(Result.FAILED, "Nothing was sent: none of it is as it was at the look.")
        try:
            passed = await guarded(link, script, call, found.run_id, step.effects, step.maxmemory)
        except RemediatorError as error:
            return Outcome(Result.IN_DOUBT, f"No answer to the effect: {describe(error)}", step.items)
        if passed.refused.startswith("repeated"):  # a copy of the call, which somebody on the way has made, went before
            return Outcome(Result.IN_DOUBT, f"Redis says {passed.refused}.", step.items)
        if passed.refused:
            return Outcome(Result.FAILED, f"Redis did not begin it, {passed.refused}.")
        return self.told(step, passed)


def against(found: Look) -> tuple[Refusal, ...]:
    """Redis' own reasons against any effect on it. Pure."""
    if found.state == "loading":
        left = found.info.get("loading_eta_seconds", "?")
        return (Refusal(Reason.REDIS_LOADING, f"Redis reads its data set ({left} s left by its own word): wait."),)
    if found.info.get("rdb_bgsave_in_progress") == "1" or found.info.get("aof_rewrite_in_progress") == "1":
        return (Refusal(Reason.REDIS_LOADING, "Redis writes its data set to disk just now: wait."),)
    if cannot_save(found):
        sentence = "Redis cannot write to its disk, and says so (MISCONF): look at the disk. Redis itself is well."
        return (Refusal(Reason.REDIS_CANNOT_SAVE, sentence),)
    if found.info.get("role") != "master":
        return (Refusal(Reason.REDIS_ROLE, "This Redis is a replica: what is wrong is to be mended at its primary."),)
    if found.state != "ready":
        return (Refusal(Reason.TARGET_UNREACHABLE, f"Redis serves nothing now: {found.state}."),)
    return ()


def cannot_save(found: Look) -> bool:
    """Did its last snapshot or its last write to the append-only file fail?"""
    statuses = ("rdb_last_bgsave_status", "aof_last_write_status")
    return found.state == "cannot_save" or any(found.info.get(name, "ok") != "ok" for name in statuses)


def resource_of(settings: Settings, service: str) -> str:
    """One name for all actions on one server, a restart of its container too: holds and cooldowns are shared."""
    if service in settings.services or (redis := settings.redis.get(service)) is None:
        return f"docker:{settings.docker.project}/{service}"
    return f"redis:{redis.host}:{redis.port}"


def _tag(attempt: str) -> str:
    """The client's name during an attempt: seen in CLIENT LIST and in the server's log of slow commands."""
    return f"{NAME}/{attempt}"
