"""A cursor's state on disk: one small file, replaced as a whole, never torn, written by one process at a time.

In: a `State`. Out: the file, durable when `save()` returns: written beside it, synced, renamed over it, and the
directory synced (rename(2) alone does not survive a power cut; ext4 and xfs need the directory's fsync as well).
A file that cannot be read is put aside as `<name>.unreadable`, so that it can be looked at and nobody is stuck.
It must never raise for what stands in a file, only for a disk that does not obey (StateError).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from exporter.cursor import State
from exporter.errors import StateError

VERSION = 1
"""Of the file's format. A file of another version is put aside: its meaning is not known here."""


class Files(Protocol):
    """The steps of a durable replacement; a test's own version dies between any two of them."""

    def write_synced(self, path: Path, data: bytes) -> None:
        """Create or overwrite, then fsync."""

    def replace(self, old: Path, new: Path) -> None:
        """rename(2)."""

    def sync_directory(self, path: Path) -> None:
        """Sync the directory, so that the rename is durable."""


class DiskFiles:
    """The real disk."""

    def write_synced(self, path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, old: Path, new: Path) -> None:
        old.replace(new)

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class StateFile:
    """One cursor's file. `load` and `save` are called one after the other by one worker thread; `close` by any thread,
    also while one of them hangs in the kernel: then the lock is given back when it returns, never under it. So whoever
    takes the file over, in this process or another, begins after the last write.
    """

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self.path = path
        self._files = files or DiskFiles()
        self._lock: int | None = None
        self._busy = threading.Lock()
        self._closed = False
        self.put_aside = False
        """Whether an unreadable file was found and moved away."""

    def load(self) -> State | None:
        """The saved state; None when there is none, or none that can be read.

        Takes the file's lock first and keeps it while the process lives, since two writers would each count what the
        other has counted. Raises StateError when another process holds it or the disk does not obey.
        """
        with self._in_use():
            return self._load()

    def _load(self) -> State | None:
        try:
            self._take_lock()
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            text = ""
        except OSError as error:
            raise StateError(f"{self.path} cannot be read: {error.strerror}") from error
        state = decode(text)
        if state is None:
            self._move_away()
        return state

    def save(self, state: State) -> None:
        """Make `state` durable. Raises StateError; then the former state still stands, or already this one."""
        temporary = self.path.with_name(self.path.name + ".new")
        with self._in_use():
            try:
                self._files.write_synced(temporary, encode(state))
                self._files.replace(temporary, self.path)
                self._files.sync_directory(self.path.parent)
            except OSError as error:
                raise StateError(
                    f"{self.path} cannot be written: {error.strerror}; its counters are not shown"
                ) from error

    def close(self) -> None:
        """Give the lock back, at once or when the call that is under way returns; nothing is written after that."""
        self._closed = True
        self._let_go()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        try:
            with self._busy:
                if self._closed:
                    raise StateError(f"{self.path} was given back already")
                yield
        finally:
            self._let_go()

    def _let_go(self) -> None:
        # Called after `_closed` is set and after each use: whichever comes last finds both done.
        if self._closed and self._busy.acquire(blocking=False):
            try:
                if self._lock is not None:
                    os.close(self._lock)
                    self._lock = None
            finally:
                self._busy.release()

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        path = self.path.with_name(self.path.name + ".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StateError(
                f"{path} cannot be made: {error.strerror}; give the exporter a directory of its own"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StateError(f"{path} cannot be locked: {error.strerror}") from error
            raise StateError(f"{self.path} is in use by another exporter; give each one its own file") from error
        self._lock = descriptor

    def _move_away(self) -> None:
        try:
            self.path.replace(self.path.with_name(self.path.name + ".unreadable"))
        except OSError as error:
            raise StateError(f"{self.path} is unreadable and cannot be put aside: {error.strerror}") from error
        self.put_aside = True


def encode(state: State) -> bytes:
    """State to the file's bytes; `decode` is its inverse."""
    content = {
        "version": VERSION,
        "source": state.source,
        "layout": state.layout,
        "floor": state.floor,
        "looked": state.looked,
        "seen": [[id_, at] for id_, at in state.seen.items()],
        "totals": dict(state.totals),
        "cuts": state.cuts,
    }
    return json.dumps(content, separators=(",", ":")).encode()


def decode(text: str) -> State | None:
    """The file's text to a state; None when it is not what `encode` of this version writes."""
    try:
        content: Any = json.loads(text)
        if content["version"] != VERSION:
            return None
        seen = {_whole(id_): _whole(at) for id_, at in content["seen"]}
        totals = {_text(key): _whole(value) for key, value in content["totals"].items()}
        state = State(
            source=_text(content["source"]),
            layout=_text(content["layout"]),
            floor=_whole(content["floor"]),
            looked=_whole(content["looked"]),
            seen=seen,
            totals=totals,
            cuts=_whole(content.get("cuts", 0)),  # not in the files of earlier releases
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    sound = all(at >= state.floor for at in seen.values()) and all(
        value >= 0 for value in (*totals.values(), state.cuts)
    )
    return state if sound else None


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("not an integer")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("not a string")
    return value
