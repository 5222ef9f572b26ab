"""CPU time of processes, as the kernel has counted it; of a server with short-lived children, also of those gone.

Source: proc(5). `schedstat` counts nanoseconds on the CPU; the children that a process has reaped stand in its `stat`
(cutime, cstime), in ticks.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def of_process(pid: int) -> float:
    """Seconds that the process's threads have used so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended meanwhile
    return total / 1e9


def of_tree(pid: int) -> float:
    """Seconds of a process, of its living children, and of those that it has reaped."""
    total = of_process(pid) + _reaped(pid)
    for child in psutil.Process(pid).children():
        try:
            total += of_process(child.pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def resident(pid: int) -> int:
    """Resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _reaped(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * _TICK
