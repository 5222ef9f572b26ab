"""Killing or freezing a remediator at a system call of its own, and what a power loss would have taken with it.

strace counts a call for each thread apart and acts on entering it (strace(1), "Tampering"): a killed call is not carried
out, a stopped one is, and the process is stopped before it sees the answer.
"""

from __future__ import annotations

import re
import signal
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.run import Run, program
from tests.support.waiting import wait_until

_SHOWN = 4000  # bytes of a call: a whole statement or the head of a request
_HEADER, _FRAME = 32, 24  # bytes before the first frame of a WAL, and before each page in it
_LINE = re.compile(
    r"^(?:(?P<thread>\d+) +)?(?P<name>\w+)\(\d+<(?P<on>TCP:\[[^\]]*\]|[^>]*)>(?P<rest>.*)$", re.MULTILINE
)
_TEXT = re.compile(r'^[^"]*"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Scope:
    """What strace looks at.

    calls    names of the system calls
    path     only calls on this file of the remediator's folder, where one is given; others are not counted either
    threads  all threads of the process; False: the main one alone, which has every socket
    """

    calls: tuple[str, ...]
    path: str = ""
    threads: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """One system call as strace wrote it down.

    thread  its id; None where strace looked at the main thread alone
    on      the file's path, or `TCP:[here->there]` with addresses
    text    the first bytes that were written, as strace escapes them
    """

    thread: int | None
    name: str
    on: str
    text: str


@dataclass(frozen=True, slots=True)
class Point:
    """On entering the `when`-th call of this name, counted in the scope from when strace attached: `signal`.

    after  counted only from this point on, at which the process is stopped meanwhile: far fewer calls are between the
           two than since the beginning, so that the number is the same in another run
    """

    scope: Scope
    name: str
    when: int
    signal: str = "KILL"
    after: Point | None = None


class Trace:
    """strace on a running process: writes its calls down, and strikes at a point where one is given.

    folder  of the remediator, which has its journal and takes the log
    """

    def __init__(self, run: Run, pid: int, folder: Path, scope: Scope, point: Point | None = None) -> None:
        self._log = folder / "strace.txt"
        self._log.unlink(missing_ok=True)
        said = folder / "strace.log"
        said.write_text("")
        threads = ["-f"] if scope.threads else []
        path = ["-P", str(folder / scope.path)] if scope.path else []
        inject = [f"--inject={point.name}:signal={point.signal}:when={point.when}"] if point else []
        traced = ["-e", f"trace={','.join(scope.calls)}"]
        argv = [program("strace"), *threads, "-yy", "-s", str(_SHOWN), "-o", str(self._log), *path, *traced, *inject]
        self._process = run.spawn([*argv, "-p", str(pid)], said, stop=signal.SIGINT)
        wait_until(lambda: "attached" in said.read_text(), "strace to attach", 20, 0.02, said.read_text)

    def calls(self) -> list[Call]:
        """Those that were entered so far, in order."""
        if not self._log.exists():
            return []
        found = _LINE.finditer(self._log.read_text(errors="replace"))
        return [_call(each) for each in found]

    def stopped(self) -> bool:
        """Has the process been stopped by a point of signal STOP?"""
        return self._log.exists() and "--- stopped by SIGSTOP ---" in self._log.read_text(errors="replace")

    def detach(self) -> None:
        """Let the process go on alone; nothing when it is gone."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.detach()


def _call(line: re.Match[str]) -> Call:
    text = _TEXT.match(line["rest"])
    return Call(int(line["thread"]) if line["thread"] else None, line["name"], line["on"], text[1] if text else "")


def lose_last_commit(wal: Path) -> bool:
    """Cut the last transaction off a write-ahead log, as a power loss before its sync does; False: there is none.

    Format: sqlite.org/fileformat2.html, section 4. A frame counts while its salts are the header's; one that ends a
    transaction names the size of the database.
    """
    content = wal.read_bytes() if wal.exists() else b""
    if len(content) < _HEADER:
        return False
    page, salts = struct.unpack(">I", content[8:12])[0], content[16:24]
    ends = [_HEADER]
    for at in range(_HEADER, len(content) - _FRAME - page + 1, _FRAME + page):
        if content[at + 8 : at + 16] != salts:
            break
        if struct.unpack(">I", content[at + 4 : at + 8])[0]:
            ends.append(at + _FRAME + page)
    if len(ends) == 1:
        return False
    with wal.open("r+b") as file:
        file.truncate(ends[-2])
    return True
