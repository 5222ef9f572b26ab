"""Blocking calls in one thread each: a hung call costs one thread, for ever one, and its own answer only."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from exporter.collectors.disk import DiskCollector, parse
from exporter.errors import Transient
from exporter.workers import Worker


def deadline(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def threads_of(worker: str) -> int:
    """Living threads of a worker; those of other tests may be ending meanwhile."""
    return sum(thread.name == worker for thread in threading.enumerate())


async def test_value_and_error_come_back() -> None:
    """What the call returns or raises is what the caller gets."""
    worker = Worker("w")
    assert await worker.run(lambda: 42, deadline(5)) == 42

    def fails() -> None:
        raise OSError(2, "gone")

    with pytest.raises(OSError, match="gone"):
        await worker.run(fails, deadline(5))
    assert await worker.run(lambda: 43, deadline(5)) == 43
    worker.close()


async def test_hung_call_holds_one_thread_and_refuses_the_next() -> None:
    """While a call hangs no second one is begun; when it comes back, the worker is as before."""
    worker, release, begun = Worker("hung mount"), threading.Event(), []

    def hang() -> None:
        begun.append(1)
        release.wait(20)

    with pytest.raises(Transient, match="no answer in time"):
        await worker.run(hang, deadline(0.02))
    for _ in range(5):
        with pytest.raises(Transient, match="has not come back"):
            await worker.run(hang, deadline(5))
    assert (len(begun), threads_of("hung mount")) == (1, 1)
    release.set()
    for _ in range(500):
        try:
            assert await worker.run(lambda: "back", deadline(5)) == "back"
            break
        except Transient:
            await asyncio.sleep(0.01)
    else:
        pytest.fail("the worker never came back")
    worker.close()


async def test_missing_path_makes_only_itself_silent(tmp_path: Path) -> None:
    """A path that is not there is told; the others have their samples."""
    collector = DiskCollector({"good": tmp_path, "gone": tmp_path / "none"}, timeout=5.0)
    collected = await collector.collect(deadline(5))
    assert {sample.labels for sample in collected.samples} == {("good",)}
    assert collected.fault is not None
    assert "disk gone" in collected.fault
    await collector.close()


def test_statvfs_becomes_bytes_and_inodes() -> None:
    """Blocks are counted in f_frsize, and free is what users without privileges have."""
    room = os.statvfs_result((4096, 512, 1000, 300, 200, 50, 40, 30, 0, 255))
    values = {sample.metric.name: sample.value for sample in parse("/", room)}
    assert values == {
        "prep_filesystem_free_bytes": 200 * 512.0,
        "prep_filesystem_size_bytes": 1000 * 512.0,
        "prep_filesystem_files_free": 30.0,
        "prep_filesystem_files": 50.0,
    }


def test_filesystem_without_inodes_has_no_sample_of_them() -> None:
    """btrfs says 0 inodes; shown, that would be a full disk."""
    room = os.statvfs_result((4096, 4096, 1000, 300, 200, 0, 0, 0, 0, 255))
    assert {sample.metric.name for sample in parse("/", room)} == {
        "prep_filesystem_free_bytes",
        "prep_filesystem_size_bytes",
    }
