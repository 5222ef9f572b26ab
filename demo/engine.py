"""The compliance engine: a few sessions, each good for one evaluation at a time, and the pool that lends them.

In: compiled rules, an order, and where regulations come from. Out: a verdict. A session is what a licence of a real
rule engine is: scarce, stateful, and slow, because it consults each rule in turn. The pool lends it in the order of
arrival, lets only so many callers wait, and whoever stops waiting gives up its place, however that comes about.

What the pool cannot do is take back a session by itself: whoever acquires one has to release it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from demo.rules import Facts, Rule

Regulations: TypeAlias = Callable[[frozenset[str]], Awaitable[Mapping[str, Mapping[str, Any]]]]
"""Gives the documents with these codes."""


class EngineBusy(Exception):
    """No session came free: too many callers wait already, or this one has waited long enough."""


class EngineClosed(Exception):
    """The service is stopping; nobody gets a session any more."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an order did. `violations` are the names of the rules that it breaks."""

    violations: tuple[str, ...]

    @property
    def result(self) -> str:
        """`pass` or `fail`, as the table has it."""
        return "fail" if self.violations else "pass"


@dataclass(slots=True)
class EngineSession:
    """One session. `order_ref` and `since` (UNIX seconds) tell what it works on; None when it is free."""

    number: int
    order_ref: str | None = None
    since: float | None = None
    consulted: list[str] = field(default_factory=list)
    """The rules that the present evaluation has been through."""

    async def evaluate(
        self, rules: Sequence[Rule], order_ref: str, order: Mapping[str, Any], regulations: Regulations, pace: float
    ) -> Verdict:
        """Go through `rules`; takes about `pace` seconds in all, spread over the rules, 40 % more or less.

        Raises whatever `regulations` raises. The waits stand for the engine's own consultation of a rule (a remote
        call in the real one); the rules themselves are really evaluated.
        """
        self.order_ref, self.since = order_ref, time.time()
        self.consulted.clear()
        documents = await regulations(frozenset().union(*(rule.regulations for rule in rules)))
        facts = Facts(order, documents)
        violations = []
        step = pace * random.uniform(0.6, 1.4) / len(rules)
        for rule in rules:
            await asyncio.sleep(step)
            self.consulted.append(rule.name)
            if not rule.holds(facts):
                violations.append(rule.name)
        return Verdict(tuple(violations))

    def clear(self) -> None:
        """Forget the evaluation."""
        self.order_ref = self.since = None
        self.consulted.clear()


class EnginePool:
    """`size` sessions, and a queue of at most `most_waiting` callers, served in the order of arrival."""

    def __init__(self, size: int, most_waiting: int) -> None:
        self.sessions = tuple(EngineSession(number) for number in range(size))
        self._free = deque(self.sessions)
        self._waiting: deque[asyncio.Future[EngineSession]] = deque()
        self._most_waiting = most_waiting
        self._closed = False

    @property
    def busy(self) -> int:
        """Sessions that are lent."""
        return len(self.sessions) - len(self._free)

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._waiting)

    async def acquire(self, patience: float) -> EngineSession:
        """Wait at most `patience` seconds for a session. Raises EngineBusy or EngineClosed.

        A caller that is cancelled while it waits leaves the queue; a session that was just handed to it goes on to
        the next one.
        """
        if self._closed:
            raise EngineClosed("the service is stopping")
        if self._free:  # a free session means an empty queue: release() hands it on as long as somebody waits
            return self._free.popleft()
        if len(self._waiting) >= self._most_waiting:
            raise EngineBusy(f"{len(self._waiting)} checks wait for a session already")
        place: asyncio.Future[EngineSession] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(patience):
                return await place
        except TimeoutError as error:
            self._leave(place)
            raise EngineBusy(f"no session came free in {patience:g} s") from error
        except asyncio.CancelledError:
            self._leave(place)
            raise

    def release(self, session: EngineSession) -> None:
        """Give a session back; it goes to whoever has waited longest."""
        session.clear()
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(session)
                return
        self._free.append(session)

    def close(self) -> None:
        """Turn away everybody who waits; those who have a session may end."""
        self._closed = True
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(EngineClosed("the service is stopping"))

    def _leave(self, place: asyncio.Future[EngineSession]) -> None:
        if place.done() and not place.cancelled() and place.exception() is None:
            self.release(place.result())
        elif place in self._waiting:
            self._waiting.remove(place)
