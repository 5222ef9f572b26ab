"""The disk collector on a mount that really hangs: a FUSE filesystem whose server never says a word."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from exporter.collectors.disk import DiskCollector


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
