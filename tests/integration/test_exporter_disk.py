"""The disk collector on a mount that really hangs: a FUSE filesystem whose server never says a word."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.collectors.disk import DiskCollector

_MNT_DETACH = 2


@pytest.fixture
def hung_mount(tmp_path: Path) -> Iterator[Path]:
    """A mount on which every call waits for ever; let go at the end. Needs root and /dev/fuse."""
    point = tmp_path / "hung"
    point.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"hung", str(point).encode(), b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "cannot mount a FUSE filesystem (root needed)")
        yield point
    finally:
        os.close(device)  # the kernel now answers every waiting call with ENOTCONN
        libc.umount2(str(point).encode(), _MNT_DETACH)


async def test_hung_mount_costs_one_thread_and_only_its_own_samples(hung_mount: Path, tmp_path: Path) -> None:
    """Scrape after scrape: the deadline holds, the good path has its samples, and no thread is added."""
    collector = DiskCollector({"good": tmp_path, "hung": hung_mount}, timeout=0.2)
    loop = asyncio.get_running_loop()
    threads = []
    for _ in range(5):
        began = loop.time()
        collected = await collector.collect(loop.time() + 5)
        assert loop.time() - began < 1
        assert {sample.labels for sample in collected.samples} == {("good",)}
        assert collected.fault is not None
        assert "disk hung" in collected.fault
        threads.append([thread.name for thread in threading.enumerate()].count("disk hung"))
    assert threads == [1] * 5
    await collector.close()
