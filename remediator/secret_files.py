"""Secrets that come by file, several valid at once, re-read when a file changes.

In: the paths of one kind of secret (tokens, passwords). Out: their values now, as bytes. A value is never logged and
never part of a message. An empty file holds no secret: an empty one would match an empty header.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

Stamp = tuple[int, int, int, int]


class SecretFiles:
    """The secrets of `files`, each a line; `kind` is the word for one of them in the log.

    The files are looked at on every call (one stat each): while rotating, the old and the new one are both valid, and
    removing the old file ends the old secret at once.
    """

    def __init__(self, files: Sequence[Path], kind: str) -> None:
        self._files = tuple(files)
        self._kind = kind
        self._known: dict[Path, tuple[Stamp, bytes]] = {}
        self._complained: set[Path] = set()

    def now(self) -> list[bytes]:
        """The secrets that can be read now; none when no file holds one."""
        return [secret for path in self._files if (secret := self._read(path))]

    def _read(self, path: Path) -> bytes:
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size)
            known = self._known.get(path)
            if known is None or known[0] != stamp:
                self._known[path] = known = (stamp, path.read_bytes().strip())
        except OSError as error:
            self._known.pop(path, None)
            self._complain(path, error.strerror or type(error).__name__)
            return b""
        if not known[1]:
            self._complain(path, "is empty")
            return b""
        self._complained.discard(path)
        return known[1]

    def _complain(self, path: Path, why: str) -> None:
        """Once per file until it is well again: a line per request would be a flood."""
        if path not in self._complained:
            self._complained.add(path)
            said = f"{self._kind} file cannot be used; whoever has this {self._kind} is refused"
            log.error(said, file=str(path), why=why)


def one_of(offered: bytes, secrets: Sequence[bytes]) -> bool:
    """Is it one of these? Every one is compared, also after a match: the time taken says nothing about which it was."""
    return bool(sum(hmac.compare_digest(offered, secret) for secret in secrets))
