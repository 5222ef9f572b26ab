"""SQLite: one process, one file, durable before it is acknowledged.

A whole transaction runs in one thread (one for writing, one for reading): the event loop never waits for the
disk, a cancelled caller cannot cut a transaction in half, and it is four times as fast as a driver that crosses
threads at every statement. What waited while the last COMMIT was written goes into one transaction: under load the sync
of the disk is shared, and alone nobody waits for company. `sqlite:///:memory:` runs in the caller's thread and keeps
nothing: for simulations.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from remediator.errors import JournalError
from remediator.journal.lane import DATA_FAULTS, LOOK_SECONDS, Lane
from remediator.journal.store import Body, NoSpace, Unstorable
from remediator.journal.transaction import new_id

T = TypeVar("T")

BALLAST = 8 * 1024 * 1024  # bytes kept back for outcomes when the disk is full
# File systems on which SQLite's locks or fsync cannot be relied on (sqlite.org/howtocorrupt.html, section 2).
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "fuse.sshfs", "fuse.glusterfs"})
FULL, IOERR, CORRUPT, CANTOPEN, NOTADB, READONLY = 13, 10, 11, 14, 26, 8  # sqlite.org/rescode.html, primary codes


class SQLiteStore:
    """A journal in a file that this process alone has open; in memory when there is no path.

    shared  one in memory may hold several replicas of a simulation
    ids     of new episodes, see `Tx`
    """

    def __init__(
        self,
        path: Path | None,
        clock: Callable[[], float],
        *,
        shared: bool = False,
        ids: Callable[[], str] = new_id,
    ) -> None:
        self.path = path
        self.shared = shared and path is None
        self.broken: str | None = None
        self._clock = clock
        self._ids = ids
        self._lock: int | None = None
        self._writer: Lane | None = None
        self._reader: Lane | None = None

    async def open(self) -> None:
        """Take the file. Raises JournalError: in use, on a network, not writable, not durable."""
        if self.path is None:
            self._writer = self._reader = Lane(None, self._clock, self._told, self._sound, self._ids)
            return
        self._lock = _take(self.path)
        try:
            self._writer = Lane(self.path, self._clock, self._told, self._sound, self._ids)
            await self._writer.start()
            _sync_folder(self.path.parent)
            self._reader = Lane(self.path, self._clock, self._told)
            await self._reader.start()
        except BaseException:
            await self.close()
            raise

    async def write(self, body: Body[T], *, patient: bool = False) -> T:  # noqa: ARG002 - here each one is
        return await self._in(self._writer, body)

    async def read(self, body: Body[T]) -> T:
        return await self._in(self._reader, body)

    async def now(self) -> float:
        return self._clock()

    async def _in(self, lane: Lane | None, body: Body[T]) -> T:
        if lane is None:
            raise JournalError("the journal is closed")
        return await lane.run(body)

    def _sound(self) -> None:
        """Before each write, in its thread: what waited behind an I/O error must not be written either."""
        if self.broken is not None:
            raise JournalError(f"the journal is broken: {self.broken}; restart the remediator to recover it")

    def _told(self, error: BaseException) -> BaseException:
        """Which of SQLite's errors this is. After an I/O error, pages may be lost that a later success hides."""
        if isinstance(error, DATA_FAULTS):
            return Unstorable(f"journal {self.path}: {error}")
        if not isinstance(error, DBAPIError):
            return error
        cause = error.orig
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF if isinstance(cause, sqlite3.Error) else 0
        said = f"journal {self.path}: {cause} ({getattr(cause, 'sqlite_errorname', 'no code')})"
        if code == FULL:
            return NoSpace(f"{said}; free space on its volume")
        if code == sqlite3.SQLITE_INTERRUPT:
            return JournalError(f"journal {self.path}: a look was ended after {LOOK_SECONDS:g} s")
        if code in (IOERR, CORRUPT, CANTOPEN, NOTADB, READONLY):
            self.broken = said
        return JournalError(said)

    def room(self) -> float | None:
        """Share of the file system that is free for this process, 0 to 1; None in memory. Raises OSError."""
        if self.path is None:
            return None
        space = os.statvfs(self.path.parent)
        return space.f_bavail / space.f_blocks if space.f_blocks else 0.0

    def keep_ballast(self) -> None:
        """Hold a few megabytes back while there is plenty, for `drop_ballast`."""
        if self.path is None or (file := self._ballast(self.path)).exists():
            return
        space = os.statvfs(self.path.parent)
        if space.f_bavail * space.f_frsize < 4 * BALLAST:
            return
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, BALLAST)
        finally:
            os.close(descriptor)

    def drop_ballast(self) -> bool:
        """The disk is full and an outcome must be written: give the space back. False when there is none left."""
        if self.path is None or not (file := self._ballast(self.path)).exists():
            return False
        file.unlink()
        return True

    @staticmethod
    def _ballast(path: Path) -> Path:
        return path.with_name(path.name + ".ballast")

    async def close(self) -> None:
        for lane in {self._reader, self._writer} - {None}:
            if lane is not None:
                await lane.close()
        self._reader = self._writer = None
        if self._lock is not None:
            os.close(self._lock)  # the lock ends with the descriptor; the file stays, removing it would race
            self._lock = None


def _take(path: Path) -> int:
    """Lock the file beside the journal for this process. Returns its descriptor; raises JournalError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (kind := _file_system(path.parent)) in REMOTE:
            raise JournalError(f"journal {path} is on {kind}: use a local disk, or a PostgreSQL journal")
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalError(f"journal {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise JournalError(
            f"journal {path} is in use by process {holder}: one process only on SQLite; "
            "ask the running remediator over its API, or use a PostgreSQL journal"
        ) from error
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # the WAL takes over its mode
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise JournalError(f"journal {path} cannot be opened: {error.strerror}") from error
    return descriptor


def _file_system(folder: Path) -> str:
    """Type of the file system that holds a folder, "" when it cannot be told (proc_pid_mountinfo(5))."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            return right.split()[0]
    return ""


def _sync_folder(folder: Path) -> None:
    """Make the new file's name itself durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
