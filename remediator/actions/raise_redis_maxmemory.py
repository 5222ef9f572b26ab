"""Raise Redis' `maxmemory` by one step, within its cap, with the way back in the outcome.

The cap is the smallest of: the settings' word, 60 % of the container's memory limit (a fork's copies and the clients'
buffers need the rest), and what leaves half of the host's MemAvailable free. Where one is not known, it is refused.
The change is not written to Redis' file: after its next start the former value holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import aiohttp
from hiredis import ReplyError
from pydantic import BaseModel, Field

from remediator.actions.base import Call, Item, Outcome, Result, Risk
from remediator.actions.mending_redis import MendingRedis, RedisParams, Selected, Step
from remediator.actions.redis_guard import Passed
from remediator.clock import Clock
from remediator.containers import Engine
from remediator.reasons import Reason, Refusal
from remediator.redis_link import Link
from remediator.redis_state import Look
from remediator.settings import Settings

SHARE = 0.6  # of the container's memory limit
MIB = 1024 * 1024
MEMINFO = Path("/proc/meminfo")


class RaiseRedisMaxmemoryParams(RedisParams):
    """`factor`: by how much at once."""

    factor: float = Field(default=1.25, gt=1.0, le=2.0)


class RaiseRedisMaxmemory(MendingRedis):
    """`CONFIG SET maxmemory`, only while it is still what the look saw: compared by Redis in the guard's script."""

    name: ClassVar[str] = "raise_redis_maxmemory"
    risk: ClassVar[Risk] = Risk.REVERSIBLE
    idempotent: ClassVar[bool] = True
    params_model: ClassVar[type[BaseModel]] = RaiseRedisMaxmemoryParams

    def __init__(
        self, settings: Settings, session: aiohttp.ClientSession, clock: Clock, meminfo: Path = MEMINFO
    ) -> None:
        super().__init__(settings, clock)
        self._engine = Engine(settings.docker, session)
        self._meminfo = meminfo

    async def select(self, link: Link, found: Look, params: BaseModel) -> Selected:
        del link
        wanted = RaiseRedisMaxmemoryParams.model_validate(params.model_dump())
        before = found.number("maxmemory")
        if before == 0:
            return _none(Reason.NOTHING_TO_DO, "maxmemory is 0: nothing holds Redis back, there is nothing to raise.")
        bounds = await self._bounds(wanted.service, found)
        unknown = [why for limit, why in bounds if limit is None]
        if unknown:
            return _none(Reason.REDIS_AT_CAP, f"How far maxmemory may be raised is not known: {'; '.join(unknown)}.")
        cap, why = min((limit, why) for limit, why in bounds if limit is not None)
        after = min(int(before * wanted.factor), cap)
        if after <= before:
            return _none(Reason.REDIS_AT_CAP, f"maxmemory is {_mib(before)}; {_mib(cap)} is the most: {why}.")
        item = {"run_id": found.run_id, "from": before, "factor": wanted.factor, "to": after, "cap": cap}
        return Selected((item,), f"Raise maxmemory of {wanted.service} from {_mib(before)} to {_mib(after)} ({why}).")

    async def step(self, link: Link, found: Look, call: Call) -> Step:
        """The cap is counted anew: what was room at the look may be somebody else's by now."""
        del link
        wanted = RaiseRedisMaxmemoryParams.model_validate(call.params.model_dump())
        bounds = await self._bounds(wanted.service, found)
        if len(call.items) != 1 or any(limit is None or limit < call.items[0]["to"] for limit, _ in bounds):
            return Step((), ())
        (item,) = call.items
        return Step((item,), (("CONFIG", "SET", "maxmemory", int(item["to"])),), str(item["from"]))

    def told(self, step: Step, passed: Passed) -> Outcome:
        (answer,), (item,) = passed.answers, step.items
        if isinstance(answer, ReplyError):
            return Outcome(Result.FAILED, f"Redis refused: {answer}")
        back = f"The way back: CONFIG SET maxmemory {item['from']}. It is not in Redis' file."
        return Outcome(Result.DONE, f"maxmemory raised from {item['from']} to {item['to']} bytes. {back}", step.items)

    async def still(self, link: Link, found: Look, call: Call) -> Sequence[Item]:
        del link
        return [item for item in call.items if found.number("maxmemory") == item["from"]]

    async def _bounds(self, service: str, found: Look) -> list[tuple[int | None, str]]:
        """Each bound in bytes, None when it is not known, with words for it."""
        cap = self._settings.redis[service].maxmemory_cap
        return [
            (cap or None, "the settings' maxmemory_cap" if cap else "the settings give no maxmemory_cap"),
            await self._container(service),
            self._host(found),
        ]

    async def _container(self, service: str) -> tuple[int | None, str]:
        members = [item for item in await self._engine.of_service(service) if not item.one_off]
        if len(members) != 1:
            return None, f"service {service} has {len(members)} containers"
        limit = int((members[0].raw.get("HostConfig") or {}).get("Memory") or 0)
        if not limit:
            return None, f"{members[0].name} has no memory limit"
        return int(limit * SHARE), f"60 % of the container's limit of {_mib(limit)}"

    def _host(self, found: Look) -> tuple[int | None, str]:
        """Half of MemAvailable may be taken. This machine's counts only if Redis runs on it: by its size in bytes."""
        try:
            text = self._meminfo.read_text()
        except OSError as error:
            return None, f"{self._meminfo}: {error.strerror}"
        sizes = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
        total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
        if total is None or free is None or abs(total - found.number("total_system_memory")) > MIB:
            return None, "Redis runs on another machine, whose free memory cannot be seen from here"
        return found.number("used_memory") + free // 2, f"half of the host's {_mib(free)} of free memory"


def _none(reason: Reason, sentence: str) -> Selected:
    return Selected((), "Raise nothing.", (Refusal(reason, sentence),))


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"
