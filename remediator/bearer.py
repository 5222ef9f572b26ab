"""Bearer tokens that come by file, several valid at once, re-read when a file changes.

In: the `Authorization` header of a request. Out: one `Answer`. A token is never logged, never part of a
message, and compared in constant time. An empty file holds no token: an empty one would match an empty
header.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

Stamp = tuple[int, int, int, int]


class Answer(StrEnum):
    """What a header is worth.

    `unconfigured` is not the caller's fault: no token can be read now, so nobody can be let in.
    """

    OK = "ok"
    MISSING = "missing"
    WRONG = "wrong"
    UNCONFIGURED = "unconfigured"


class Tokens:
    """The tokens of one surface (webhook, API).

    `files` are looked at on every check (one stat each): while rotating, the old and the new one are both
    valid, and removing the old file ends the old token at once.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self._known: dict[Path, tuple[Stamp, bytes]] = {}
        self._complained: set[Path] = set()

    def check(self, header: str | None) -> Answer:
        """Is this `Authorization` header one of ours? RFC 6750, section 2.1: `Bearer <token>`."""
        tokens = [token for path in self._files if (token := self._token(path))]
        if not tokens:
            return Answer.UNCONFIGURED
        scheme, _, given = (header or "").strip().partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            return Answer.MISSING
        # Every token is compared, also after a match: the time taken says nothing about which one it was.
        offered = given.encode("utf-8", "surrogateescape")
        return Answer.OK if sum(hmac.compare_digest(offered, token) for token in tokens) else Answer.WRONG

    def _token(self, path: Path) -> bytes:
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
            log.error("token file cannot be used; whoever has this token is refused", file=str(path), why=why)
