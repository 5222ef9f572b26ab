"""Restart the container of a Redis, after asking Redis what that would lose.

All that forbids a restart of a service forbids this one. Besides: a Redis that loads is not down, one that cannot save
has a full disk, one with replicas would hand its emptiness on to them. What would be lost, or cannot be known, since it
does not answer, waits for a person; `cache_only` in the settings says aloud that nothing in it is worth keeping.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import BaseModel

from remediator.actions.base import Call, Outcome, Preview, Result
from remediator.actions.mending_redis import against
from remediator.actions.restart_service import RestartService
from remediator.errors import Fault, RemediatorError, Transient
from remediator.reasons import Reason, Refusal
from remediator.redis_link import connected
from remediator.redis_state import look, loss
from remediator.settings import Redis, Settings


@dataclass(frozen=True, slots=True)
class Stake:
    """What a restart would cost: Redis' own refusals, and what would be lost as words ("" = nothing worth keeping)."""

    refusals: tuple[Refusal, ...] = ()
    loses: str = ""


class RestartRedis(RestartService):
    """A restart of a service that is a Redis."""

    name: ClassVar[str] = "restart_redis"
    of_redis: ClassVar[bool] = True
    asks_when: ClassVar[str] = "where something would be lost, or Redis cannot tell"

    @classmethod
    def listed(cls, settings: Settings) -> tuple[str, ...]:
        return tuple(sorted(set(settings.services) & set(settings.redis)))

    @classmethod
    def obstacles(cls, settings: Settings, service: str) -> tuple[Fault, ...]:
        if service not in settings.redis:
            said = "is not listed: nobody could say what a restart would lose"
            return (Fault(f"redis.{service}", said, "list it, if it may be restarted"),)
        return super().obstacles(settings, service)

    async def preview(self, params: BaseModel) -> Preview:
        service = self.params_model.model_validate(params.model_dump()).service  # type: ignore[attr-defined] # it has it
        redis = self._settings.redis.get(service)
        if redis is None:
            found = await super().preview(params)
            refusal = Refusal(Reason.TARGET_NOT_ALLOWED, f"{service} is not in the settings' list of Redis servers.")
            return replace(found, items=(), refusals=(*found.refusals, refusal))
        found, stake = await asyncio.gather(super().preview(params), at_stake(redis))
        items = tuple({**item, "loses": stake.loses} for item in found.items)
        refusals = (*found.refusals, *stake.refusals)
        if not stake.loses:
            return replace(found, items=items, refusals=refusals)
        asks = f"It would lose {stake.loses}."
        return replace(found, items=items, refusals=refusals, asks=asks, summary=f"{found.summary} {asks}")

    async def execute(self, call: Call) -> Outcome:
        redis = self._settings.redis.get(call.params.service)  # type: ignore[attr-defined] # it has it
        if redis is None or len(call.items) != 1:
            return Outcome(Result.FAILED, "Not one Redis of the settings any more; nothing was sent.")
        began = self._clock.boottime()
        try:
            stake = await at_stake(redis)
        except RemediatorError as error:
            return Outcome(Result.FAILED, f"Nothing was sent: {error}")
        if stake.refusals:
            return Outcome(Result.FAILED, f"Nothing was sent: {stake.refusals[0].sentence}")
        if stake.loses and not call.items[0].get("loses"):
            return Outcome(Result.FAILED, f"Nothing was sent: since the look it has come to lose {stake.loses}.")
        return await super().execute(replace(call, deadline=call.deadline - (self._clock.boottime() - began)))


async def at_stake(redis: Redis) -> Stake:
    """Ask Redis. Raises Permanent when it does not let us ask, which is no reason to restart it."""
    try:
        async with connected(redis) as link:
            found = await look(link, redis)
    except Transient as error:
        return Stake(loses="" if redis.cache_only else f"what nobody knows: it cannot be asked ({error})")
    refusals = against(found)
    if found.info.get("connected_slaves", "0") != "0":
        sentence = f"{found.info['connected_slaves']} replicas follow it: what it loses, they would lose too."
        refusals = (*refusals, Refusal(Reason.REDIS_ROLE, sentence))
    return Stake(refusals, "" if refusals else loss(found, redis))
