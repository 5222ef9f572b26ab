"""Collector `disk`: room on named paths, by statvfs(3).

In: paths of the configuration. Out: bytes and inodes. It must never let a mount that hangs hold up anything but its own
path: each path has one thread, and no second one while it hangs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from exporter.catalog import disk as catalog
from exporter.errors import Transient
from exporter.samples import Collected, Sample
from exporter.workers import Worker


class DiskCollector:
    """All configured paths, side by side."""

    name = "disk"

    def __init__(self, paths: Mapping[str, Path], timeout: float) -> None:
        """`paths`: label to the path in this container. `timeout` in seconds, for each."""
        self._paths = {label: (path, Worker(f"disk {label}")) for label, path in paths.items()}
        self._timeout = timeout

    async def collect(self, deadline: float) -> Collected:
        deadline = min(deadline, asyncio.get_running_loop().time() + self._timeout)
        parts = await asyncio.gather(*(self._path(label, deadline) for label in self._paths))
        samples = tuple(sample for part in parts for sample in part.samples)
        return Collected(samples, "; ".join(part.fault for part in parts if part.fault) or None)

    async def close(self) -> None:
        for _, worker in self._paths.values():
            worker.close()

    async def _path(self, label: str, deadline: float) -> Collected:
        path, worker = self._paths[label]
        try:
            room = await worker.run(lambda: os.statvfs(path), deadline)
        except OSError as error:
            return Collected((), f"disk {label}: {path}: {error.strerror}")
        except Transient as error:
            return Collected((), str(error))
        return Collected(parse(label, room))


def parse(label: str, room: os.statvfs_result) -> tuple[Sample, ...]:
    """The words of statvfs(3) to samples; sizes in bytes (blocks of f_frsize). `f_bavail` is what is left for users
    without privileges.

    Filesystems without a fixed number of inodes (btrfs) say 0 files: no sample, since "0 free" would be a false alarm.
    """
    samples = (
        Sample(catalog.FILESYSTEM_FREE, (label,), float(room.f_bavail * room.f_frsize)),
        Sample(catalog.FILESYSTEM_SIZE, (label,), float(room.f_blocks * room.f_frsize)),
    )
    if room.f_files == 0:
        return samples
    return (
        *samples,
        Sample(catalog.FILESYSTEM_FILES_FREE, (label,), float(room.f_favail)),
        Sample(catalog.FILESYSTEM_FILES, (label,), float(room.f_files)),
    )
