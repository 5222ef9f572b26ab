"""Killing a remediator at a chosen write of its journal, and what a power loss would have taken with it."""

from __future__ import annotations

import re
import signal
import struct
import subprocess
from pathlib import Path
from typing import Self

from tests.support.run import Run, program
from tests.support.waiting import wait_until

_HEADER, _FRAME = 32, 24  # bytes before the first frame of a WAL, and before each page in it


class Trace:
    """strace on a running process: counts its journal's syncs, and kills it with -9 on entering the `at`-th.

    SQLite calls fdatasync once a transaction, after its pages are written and before COMMIT answers.
    """

    def __init__(self, run: Run, pid: int, folder: Path, at: int | None = None) -> None:
        self._log = folder / "strace.txt"
        self._log.unlink(missing_ok=True)
        said = folder / "strace.log"
        said.write_text("")
        inject = [f"--inject=fdatasync:signal=KILL:when={at}"] if at else []
        argv = [program("strace"), "-f", "-y", "-o", str(self._log), "-e", "trace=fdatasync", *inject, "-p", str(pid)]
        self._process = run.spawn(argv, said, stop=signal.SIGINT)
        wait_until(lambda: "attached" in said.read_text(), "strace to attach", 20, 0.02, said.read_text)

    def syncs(self) -> list[str]:
        """The file of each sync so far, in order."""
        if not self._log.exists():
            return []
        return re.findall(r"^\d+ +fdatasync\(\d+<([^>]*)>", self._log.read_text(), re.MULTILINE)

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
