"""Time for the switch: UNIX seconds that never step while the process lives.

The wall clock is read once; from then on the kernel's CLOCK_BOOTTIME counts, which also goes on while the machine
sleeps. So a clock that is set does neither page nor hush.
"""

from __future__ import annotations

import time


class Clock:
    """`now()` for everything that waits; `wall()` only to compare with another machine's time."""

    def __init__(self) -> None:
        self._zero = time.time() - self._boottime()

    def now(self) -> float:
        """UNIX seconds as of the start, plus what has passed since."""
        return self._zero + self._boottime()

    def wall(self) -> float:
        """The wall clock."""
        return time.time()

    @staticmethod
    def _boottime() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
