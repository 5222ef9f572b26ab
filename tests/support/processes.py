"""Which processes are ours: identity, signals to a whole tree, and what a mount table still holds.

A process is named by its id together with the moment of its start, never by its name alone: ids are given out anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process for good: its id, and its start in clock ticks since boot (proc(5), field 22 of /proc/<pid>/stat)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this id now; None when there is none (a zombie counts as none)."""
        stat = _stat(pid)
        return None if stat is None or stat.state == "Z" else cls(pid, stat.started)

    @classmethod
    def parse(cls, line: str) -> Identity:
        """Read one line of /proc/<pid>/stat."""
        return cls(int(line.split(" ", 1)[0]), _parse(line).started)

    @property
    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    @property
    def frozen(self) -> bool:
        """Is it stopped by SIGSTOP?"""
        stat = _stat(self.pid)
        return stat is not None and stat.started == self.started and stat.state == "T"

    def send(self, number: signal.Signals) -> bool:
        """Signal this very process; False when it is gone. The descriptor keeps the id from being reused meanwhile."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if Identity.of(self.pid) != self:
                return False
            signal.pidfd_send_signal(descriptor, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    started: int


def _parse(line: str) -> _Stat:
    # The command's name stands in parentheses and may hold anything, parentheses too.
    fields = line[line.rindex(")") + 2 :].split()
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def _stat(pid: int) -> _Stat | None:
    try:
        return _parse(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def descendants(root: int) -> list[Identity]:
    """Every living process below `root`, parents before children."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None:
            children.setdefault(stat.parent, []).append(pid)
    found: list[Identity] = []
    row = [root]
    while row:
        row = [child for parent in row for child in children.get(parent, [])]
        found += [identity for identity in map(Identity.of, row) if identity is not None]
    return found


def tree(root: Identity) -> list[Identity]:
    """`root` and all below it, parents before children; empty when `root` is gone."""
    return [root, *descendants(root.pid)] if root.alive else []


def carrying(marker: str) -> list[Identity]:
    """Every process whose environment at its start held exactly `marker` (`NAME=value`), ourselves left out."""
    wanted = marker.encode()
    found = []
    for pid in _pids():
        identity = Identity.of(pid)
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if identity is not None and pid != os.getpid() and wanted in environment.split(b"\0"):
            found.append(identity)
    return found


def freeze(root: Identity, deadline: float = 10.0) -> None:
    """SIGSTOP to a whole tree, parents first, until nothing in it runs."""
    end = time.monotonic() + deadline
    while moving := [process for process in tree(root) if not process.frozen]:
        for process in moving:
            process.send(signal.SIGSTOP)
        if time.monotonic() > end:
            raise TimeoutError(f"processes {[process.pid for process in moving]} did not freeze within {deadline:g} s")
        time.sleep(0.005)


def thaw(root: Identity) -> None:
    """SIGCONT to a whole tree, children first."""
    for process in reversed(tree(root)):
        process.send(signal.SIGCONT)


def end(processes: Iterable[tuple[Identity, signal.Signals]], deadline: float = 10.0) -> None:
    """End processes with everything below them: each by its own signal, by SIGKILL what is left after `deadline` s."""
    roots = [(process, number) for process, number in processes if process.alive]
    everything = [process for root, _ in roots for process in tree(root)]
    for root, number in roots:
        thaw(root)
        root.send(number)
    gone(everything, deadline)
    kill(everything)


def kill(processes: Iterable[Identity], deadline: float = 10.0) -> None:
    """SIGKILL to each, and wait until the kernel has let go of all."""
    left = list(processes)
    for process in left:
        process.send(signal.SIGKILL)
    if not gone(left, deadline):
        raise TimeoutError(f"processes {[p.pid for p in left if p.alive]} outlived SIGKILL by {deadline:g} s")


def gone(processes: Iterable[Identity], deadline: float) -> bool:
    """Wait up to `deadline` seconds until none of them lives."""
    left = list(processes)
    limit = time.monotonic() + deadline
    while left := [process for process in left if process.alive]:
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def unmount_below(folder: Path) -> None:
    """Take away what a killed engine left mounted below `folder`, the deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    for point in sorted((p for p in points if p.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True, timeout=10)


def boot_id() -> str:
    """Differs after each start of the machine; process ids and start times mean nothing across it."""
    with contextlib.suppress(FileNotFoundError):
        return BOOT_ID.read_text().strip()
    return ""


def peak_memory(pid: int) -> int:
    """The most that a process has had resident so far, bytes (proc(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024  # type: ignore[index]
