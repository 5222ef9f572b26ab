"""Collector `containers`: CPU and memory of the services that `docker` found running.

In: cgroup files of the host, version 1 or 2; Docker's stats, taken in the background, where there are none. Out: a
counter of CPU seconds and the working set. It must never ask Docker itself: its stats call can take seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
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
    cache, never below 0, as the kubelet reckons it.
    """
    found = tuple(roots)

    def read(container: Running) -> Reading | None:
        for root in found:
            for relative in _places(container):
                reading = _read_v2(root / relative) or _read_v1(root, relative)
                if reading is not None:
                    return reading
        return None

    return read


def _places(container: Running) -> tuple[str, ...]:
    """Where Docker puts a container: by the driver `cgroupfs`, or by `systemd` as a scope below a slice."""
    parent = container.cgroup_parent.strip("/")
    if parent.endswith(".slice"):
        parts = parent.removesuffix(".slice").split("-")
        slices = "/".join("-".join(parts[: end + 1]) + ".slice" for end in range(len(parts)))
        return (f"{slices}/docker-{container.id}.scope",)
    return (f"{parent or 'docker'}/{container.id}", f"system.slice/docker-{container.id}.scope")


def _read_v2(directory: Path) -> Reading | None:
    cpu = _table(directory / "cpu.stat").get("usage_usec")
    if cpu is None:
        return None
    inactive = _table(directory / "memory.stat").get("inactive_file", 0)
    return Reading(cpu / 1e6, _working_set(directory / "memory.current", inactive))


def _read_v1(root: Path, relative: str) -> Reading | None:
    cpu = _number(root / "cpuacct" / relative / "cpuacct.usage")
    if cpu is None:
        return None
    memory = root / "memory" / relative
    inactive = _table(memory / "memory.stat").get("total_inactive_file", 0)
    return Reading(cpu / 1e9, _working_set(memory / "memory.usage_in_bytes", inactive))


def _working_set(path: Path, inactive: int) -> int | None:
    usage = _number(path)
    return None if usage is None else max(0, usage - inactive)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _table(path: Path) -> dict[str, int]:
    """Lines of `key value`; empty when the file is not there (the container has just ended)."""
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    except (OSError, ValueError):
        return {}
