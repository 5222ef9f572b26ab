"""An event loop whose clock jumps to the next timer: seconds of waiting take no time, and are exact."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class _Jumping(selectors.SelectSelector):
    """A selector that moves the clock on instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("nothing is under way and nothing will ever happen")
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """The loop with the jumping clock; for code without threads and sockets."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def in_virtual_time(test: Callable[[], Awaitable[T]]) -> T:
    """Run an async test from start to end on the jumping clock."""

    async def whole() -> T:
        return await test()

    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(whole())


def now() -> float:
    """The running loop's time, seconds."""
    return asyncio.get_running_loop().time()
