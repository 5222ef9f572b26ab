"""Time that moves only when the simulation moves it, and tasks that wait for it.

Tasks run in one event loop, one after the other; `settle` returns when each of them has ended or waits for a later
time. So the order is the same every time, and an hour of waiting costs nothing.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

START = 1_800_000_000.0  # UNIX seconds at which every story begins


class Clock:
    """Simulated time; also the remediator's own clock, which people may set (`stepped` seconds ahead).

    t  seconds since the story began; never goes back, never is set: truth, and the clock of the target's side
    """

    def __init__(self) -> None:
        self.t = 0.0
        self.stepped = 0.0
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._running = 0
        self._idle: asyncio.Event = asyncio.Event()
        self.tasks: set[asyncio.Task[Any]] = set()

    def now(self) -> float:
        """The remediator's wall clock, UNIX seconds."""
        return START + self.t + self.stepped

    def boottime(self) -> float:
        return self.t

    def true(self) -> float:
        """UNIX seconds as they really are: the clock of the target, of Prometheus and of Alertmanager."""
        return START + self.t

    async def sleep(self, seconds: float) -> None:
        await self.until(self.t + max(0.0, seconds))

    # -- what happens later ---------------------------------------------------------------------------------

    def at(self, t: float, call: Callable[[], None]) -> None:
        """Do something when it is `t`."""
        self._number += 1
        heapq.heappush(self._later, (max(t, self.t), self._number, call))

    def next(self) -> float | None:
        """When the next thing happens, None when nothing will."""
        return self._later[0][0] if self._later else None

    async def advance(self, t: float) -> None:
        """Let time pass up to `t`, and everything happen that is due by then."""
        while self._later and self._later[0][0] <= t:
            at, _, call = heapq.heappop(self._later)
            self.t = max(self.t, at)
            call()
            if self._running:
                await self.settle()
        self.t = max(self.t, t)

    # -- tasks --------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it beside the others from the next `settle` on."""
        task = asyncio.ensure_future(work)
        self._running += 1
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        self._left()

    def _left(self) -> None:
        self._running -= 1
        if self._running <= 0:
            self._idle.set()

    async def settle(self) -> None:
        """Until every task has ended or waits for a later time."""
        while self._running > 0:
            self._idle.clear()
            await self._idle.wait()

    async def until(self, t: float) -> None:
        """Inside of a spawned task: wait until it is `t`."""
        if t <= self.t:
            return
        future = asyncio.get_running_loop().create_future()

        def wake() -> None:
            self._running += 1
            if not future.done():
                future.set_result(None)

        self.at(t, wake)
        self._left()
        try:
            await future
        except asyncio.CancelledError:
            if not future.done() or future.cancelled():
                self._running += 1  # it is not woken: it was called back before its time
                future.cancelled()
                self._forget(wake)
            raise

    def _forget(self, wake: Callable[[], None]) -> None:
        self._later = [entry for entry in self._later if entry[2] is not wake]
        heapq.heapify(self._later)

    async def close(self) -> None:
        """Nothing goes on any more."""
        for task in list(self.tasks):
            task.cancel()
            with suppress(BaseException):
                await task
