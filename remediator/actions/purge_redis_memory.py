"""Give memory that Redis' allocator keeps and nobody uses back to the system: `MEMORY PURGE`.

It makes the container smaller, not `used_memory`: it helps against the container's limit, never against `maxmemory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from hiredis import ReplyError
from pydantic import BaseModel, Field

from remediator.actions.base import Call, Item, Outcome, Result, Risk
from remediator.actions.mending_redis import MendingRedis, RedisParams, Selected, Step
from remediator.actions.redis_guard import Passed
from remediator.reasons import Reason, Refusal
from remediator.redis_link import Link
from remediator.redis_state import Look

MIB = 1024 * 1024


class PurgeRedisMemoryParams(RedisParams):
    """`at_least`: bytes that the allocator must hold unused for it to be worth while."""

    at_least: int = Field(default=4 * MIB, ge=0)


class PurgeRedisMemory(MendingRedis):
    """Only jemalloc can do it; with another allocator Redis would say yes and do nothing."""

    name: ClassVar[str] = "purge_redis_memory"
    risk: ClassVar[Risk] = Risk.REVERSIBLE
    idempotent: ClassVar[bool] = True
    params_model: ClassVar[type[BaseModel]] = PurgeRedisMemoryParams

    async def select(self, link: Link, found: Look, params: BaseModel) -> Selected:
        del link
        wanted = PurgeRedisMemoryParams.model_validate(params.model_dump())
        if not found.info.get("mem_allocator", "").startswith("jemalloc"):
            allocator = found.info.get("mem_allocator")
            return Selected((), "Purge nothing.", (_nothing(f"The allocator is {allocator}: it cannot be purged."),))
        unused = found.number("allocator_resident") - found.number("allocator_active")
        if unused < wanted.at_least:
            sentence = f"The allocator holds {unused / MIB:.1f} MiB unused, under {wanted.at_least / MIB:.1f} MiB."
            return Selected((), "Purge nothing.", (_nothing(sentence),))
        item = {"run_id": found.run_id, "unused_bytes": unused}
        return Selected((item,), f"Give back {unused / MIB:.1f} MiB that Redis' allocator holds unused.")

    async def step(self, link: Link, found: Look, call: Call) -> Step:
        del link, found
        return Step(call.items, (("MEMORY", "PURGE"),))

    def told(self, step: Step, passed: Passed) -> Outcome:
        (answer,) = passed.answers
        if isinstance(answer, ReplyError):
            return Outcome(Result.FAILED, f"Redis refused: {answer}")
        return Outcome(Result.DONE, "Redis purged its allocator's memory.", step.items)

    async def still(self, link: Link, found: Look, call: Call) -> Sequence[Item]:
        """Nothing at the server tells a purge apart from time that passed."""
        del link, found, call
        return ()


def _nothing(sentence: str) -> Refusal:
    return Refusal(Reason.NOTHING_TO_DO, sentence)
