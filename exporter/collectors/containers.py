"""Collector `containers`: CPU and memory of the services that `docker` found running.

In: cgroup files of the host, version 1 or 2; Docker's stats, taken in the background, where there are none. Out: a
counter of CPU seconds and the working set. It must never ask Docker itself: its stats call can take seconds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from exporter.catalog import containers as catalog
from exporter.collectors.inventory import Inventory, Reading, Running
from exporter.samples import Collected, Sample
from exporter.workers import Worker

Reader = Callable[[Running], Reading | None]


class ContainersCollector:
    """One reading for each running container, summed for each service."""

    name = "containers"

    def __init__(self, inventory: Inventory, read: Reader) -> None:
        self._inventory = inventory
        self._read = read
        self._worker = Worker("cgroup files")

    async def collect(self, deadline: float) -> Collected:
        running = self._inventory.running(asyncio.get_running_loop().time())
        readings = await self._worker.run(lambda: [self._read(container) for container in running], deadline)
        pairs = [(one.service, reading or one.stats) for one, reading in zip(running, readings, strict=True)]
        unread = sorted({service for service, reading in pairs if reading is None})
        found = [(service, reading) for service, reading in pairs if reading is not None and service not in unread]
        fault = f"containers: no cgroup files and no stats of {', '.join(unread)}" if unread else None
        return Collected(tuple(_summed(found)), fault)

    async def close(self) -> None:
        self._worker.close()


def _summed(readings: Iterable[tuple[str, Reading]]) -> Iterator[Sample]:
    """One CPU and at most one memory sample a service; a part that is unknown makes the sum unknown."""
    by_service: dict[str, list[Reading]] = {}
    for service, reading in readings:
        by_service.setdefault(service, []).append(reading)
    for service, parts in by_service.items():
        yield Sample(catalog.CONTAINER_CPU, (service,), sum(part.cpu_seconds for part in parts))
        memory = [part.working_set for part in parts if part.working_set is not None]
        if len(memory) == len(parts):
            yield Sample(catalog.CONTAINER_MEMORY, (service,), float(sum(memory)))


def cgroup_reader(roots: Iterable[Path]) -> Reader:
    """A function that reads one container's files below the first root that has them; None when none has.

    Files: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.stat `usage_usec`, memory.current) and
    admin-guide/cgroup-v1 (cpuacct.usage in nanoseconds, memory.usage_in_bytes). Working set = use less inactive file
    cache, never below 0, as the kubelet reckons it. Where a container was found is remembered: looking for it costs
    more than reading it.
    """
    found = tuple(str(root) for root in roots)
    known: dict[str, Callable[[], Reading | None]] = {}

    def read(container: Running) -> Reading | None:
        place = known.get(container.id)
        if place is not None and (reading := place()) is not None:
            return reading
        if len(known) > _MOST_KNOWN:
            known.clear()
        for root in found:
            for relative in _places(container):
                for place in (partial(_read_v2, f"{root}/{relative}"), partial(_read_v1, root, relative)):
                    if (reading := place()) is not None:
                        known[container.id] = place
                        return reading
        return None

    return read


_MOST_KNOWN = 1000
"""Containers whose place is remembered; ended ones are forgotten with all others then."""


def _places(container: Running) -> tuple[str, ...]:
    """Where Docker puts a container: by the driver `cgroupfs`, or by `systemd` as a scope below a slice."""
    parent = container.cgroup_parent.strip("/")
    if parent.endswith(".slice"):
        parts = parent.removesuffix(".slice").split("-")
        slices = "/".join("-".join(parts[: end + 1]) + ".slice" for end in range(len(parts)))
        return (f"{slices}/docker-{container.id}.scope",)
    return (f"{parent or 'docker'}/{container.id}", f"system.slice/docker-{container.id}.scope")


def _read_v2(directory: str) -> Reading | None:
    cpu = _field(f"{directory}/cpu.stat", b"usage_usec")
    if cpu is None:
        return None
    inactive = _field(f"{directory}/memory.stat", b"inactive_file") or 0
    return Reading(cpu / 1e6, _working_set(f"{directory}/memory.current", inactive))


def _read_v1(root: str, relative: str) -> Reading | None:
    cpu = _number(_bytes(f"{root}/cpuacct/{relative}/cpuacct.usage"))
    if cpu is None:
        return None
    memory = f"{root}/memory/{relative}"
    inactive = _field(f"{memory}/memory.stat", b"total_inactive_file") or 0
    return Reading(cpu / 1e9, _working_set(f"{memory}/memory.usage_in_bytes", inactive))


def _working_set(path: str, inactive: int) -> int | None:
    usage = _number(_bytes(path))
    return None if usage is None else max(0, usage - inactive)


def _field(path: str, name: bytes) -> int | None:
    """The number in the line `name number`; None without such a line or file."""
    _, found, rest = (b"\n" + _bytes(path)).partition(b"\n" + name + b" ")
    return _number(rest.partition(b"\n")[0]) if found else None


def _number(text: bytes) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _bytes(path: str) -> bytes:
    """A small file of the kernel; empty when it is not there (the container has just ended)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _FILE_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


_FILE_BYTES = 65536
"""More than any of them has; the kernel gives such a file whole in one read."""
