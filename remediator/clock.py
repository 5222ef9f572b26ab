"""Time as an object, so that rules take `now` and a simulation can own it.

All times in the remediator are UNIX seconds (float, UTC). Durations are seconds.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """What the shell asks of time."""

    def now(self) -> float:
        """Wall clock, UNIX seconds."""

    def boottime(self) -> float:
        """Seconds since boot, suspend included; never stepped (clock_gettime(2), CLOCK_BOOTTIME)."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


@dataclass
class StepDetector:
    """Notices that the wall clock was stepped (NTP, a person, a restored machine).

    Compares wall clock and CLOCK_BOOTTIME from tick to tick: a difference over `tolerance` seconds is a
    step. Cooldowns and rate limits cannot be trusted after one, so the caller starts nothing for a full
    cooldown by boot time (`docs/architecture.md`, clocks).
    """

    clock: Clock
    tolerance: float = 5.0
    _offset: float = field(init=False)

    def __post_init__(self) -> None:
        self._offset = self.clock.now() - self.clock.boottime()

    def tick(self) -> float | None:
        """Return the size of a step in seconds (signed) since the last tick, or None."""
        offset = self.clock.now() - self.clock.boottime()
        step = offset - self._offset
        self._offset = offset
        return step if abs(step) > self.tolerance else None
