"""What the background look at Docker leaves for the collector at scrape time: which containers run now.

In: written by `docker`, handed on to the next one by a reload. Out: read by `containers`. It must never hand out a look
that is too old.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from exporter.errors import Transient


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU and memory of one container. `working_set` in bytes, None where the memory controller is off."""

    cpu_seconds: float
    working_set: int | None


@dataclass(frozen=True, slots=True)
class Running:
    """One running container of an expected service.

    `cgroup_parent` is HostConfig.CgroupParent ("" = Docker's default); `stats` is Docker's own word on its use, asked
    for only where the cgroup files could not be read.
    """

    service: str
    id: str
    cgroup_parent: str
    stats: Reading | None = None


class Inventory:
    """The last look's running containers."""

    def __init__(self, max_age: float) -> None:
        """`max_age` in seconds: three intervals of the background collector."""
        self._max_age = max_age
        self._running: tuple[Running, ...] = ()
        self._taken: float | None = None

    def put(self, running: tuple[Running, ...], now: float) -> None:
        """Replace what was known; `now` in the loop's time, seconds."""
        self._running, self._taken = running, now

    def inherit(self, before: Inventory, services: Collection[str]) -> None:
        """Take over another's last look, as far as it is about these services; it grows no younger by that."""
        self._running = tuple(one for one in before._running if one.service in services)
        self._taken = before._taken

    def running(self, now: float) -> tuple[Running, ...]:
        """Containers that ran at the last look. Raises Transient when there was none, or it is too old."""
        if self._taken is None:
            raise Transient("containers: the collector docker has not seen any yet")
        if now - self._taken > self._max_age:
            raise Transient(f"containers: the collector docker last saw them {now - self._taken:.0f} s ago")
        return self._running
