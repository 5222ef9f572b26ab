"""The switch's memory on disk: one small file, replaced as a whole and synced.

In: a `State`. Out: the file, durable when `save` returns (written beside, synced, renamed, directory synced). What
cannot be read is put aside as `<name>.unreadable`. One process only: a second one is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from switch.watch import Incident, State

VERSION = 1


class StateError(Exception):
    """The file cannot be used; the message says what to do."""


class StateFile:
    """Open it once, before `load`; its lock is held while the process lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.put_aside = False
        """Whether an unreadable file was found and moved away."""
        self._lock: int | None = None

    def load(self) -> State | None:
        """The saved state; None when there is none that can be read. Raises StateError."""
        try:
            self._take_lock()
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{self.path} cannot be read: {error.strerror}") from error
        state = decode(text)
        if state is None:
            try:
                self.path.replace(self.path.with_name(self.path.name + ".unreadable"))
            except OSError as error:
                raise StateError(f"{self.path} is unreadable and cannot be put aside: {error.strerror}") from error
            self.put_aside = True
        return state

    def save(self, state: State) -> None:
        """Make it durable. Raises OSError; then the former state still stands, or already this one."""
        fresh = self.path.with_name(self.path.name + ".new")
        with fresh.open("wb") as file:
            file.write(encode(state))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        path = self.path.with_name(self.path.name + ".lock")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StateError(f"{path} cannot be made: {error.strerror}; give the switch a folder of its own") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StateError(f"{self.path} is in use by another switch; give each its own file") from error
        self._lock = lock


def encode(state: State) -> bytes:
    """State to bytes; `decode` is its inverse."""
    return json.dumps({"version": VERSION, **asdict(state)}, separators=(",", ":")).encode()


def decode(text: str) -> State | None:
    """Bytes' text to a state; None when it is not what `encode` of this version writes."""
    try:
        content: Any = json.loads(text)
        if content["version"] != VERSION:
            return None
        return State(
            waiting_since=float(content["waiting_since"]),
            heard=_optional(content["heard"]),
            grace_until=_optional(content["grace_until"]),
            failing_since=_optional(content["failing_since"]),
            incidents=tuple(_incident(each) for each in content["incidents"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _incident(content: Any) -> Incident:
    if content["kind"] not in ("watchdog", "probe"):
        raise ValueError("not a kind of incident")
    return Incident(
        id=str(content["id"]),
        kind=content["kind"],
        since=float(content["since"]),
        began=float(content["began"]),
        ended=_optional(content["ended"]),
        told={str(name): float(at) for name, at in content["told"].items()},
        closed=tuple(str(name) for name in content["closed"]),
    )


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)
