"""Calls that block, in a thread of their own, with a deadline, and never two of one kind.

A thread that hangs inside the kernel (a dead mount) cannot be ended. So each worker has at most one thread, ever: while
its call hangs, further calls fail at once instead of piling up. Threads are daemons: a hung one does not hold up exit.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from exporter.errors import Transient

T = TypeVar("T")
_Job = tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]


class Worker:
    """One thread for one kind of blocking call. Used from one event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy: asyncio.Future[Any] | None = None

    async def run(self, call: Callable[[], T], deadline: float) -> T:
        """What `call` returns or raises. `deadline` is in the loop's time, seconds.

        Raises Transient when the deadline passes (the call goes on in its thread) or while an earlier call still
        hangs, in which case `call` is not begun.
        """
        if self._busy is not None and not self._busy.done():
            raise Transient(f"{self._name}: an earlier call has not come back")
        loop = asyncio.get_running_loop()
        self._busy = future = loop.create_future()
        future.add_done_callback(_forget)
        self._start()
        self._jobs.put((call, future, loop))
        done, _ = await asyncio.wait({future}, timeout=max(0.0, deadline - loop.time()))
        if not done:
            raise Transient(f"{self._name}: no answer in time")
        result: T = future.result()
        return result

    def close(self) -> None:
        """Let the thread end after the call it is in."""
        self._jobs.put(None)
        self._thread = None

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, future, loop = job
            try:
                value, error = call(), None
            except BaseException as caught:  # noqa: BLE001 - carried to the awaiting task, which handles it
                value, error = None, caught
            try:
                loop.call_soon_threadsafe(_settle, future, value, error)
            except RuntimeError:
                return  # the loop has ended: nobody waits any more
            del call, value, error, future


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _forget(future: asyncio.Future[Any]) -> None:
    """Mark an exception as seen: the one who waited may have gone, and asyncio would complain to the log."""
    if not future.cancelled():
        future.exception()
