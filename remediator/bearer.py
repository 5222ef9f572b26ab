"""Bearer tokens that come by file.

In: the `Authorization` header of a request. Out: one `Answer`. A token is never logged, never part of a message, and
compared in constant time.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from remediator.secret_files import SecretFiles, one_of


class Answer(StrEnum):
    """What a header is worth.

    `unconfigured` is not the caller's fault: no secret can be read now, so nobody can be let in.
    """

    OK = "ok"
    MISSING = "missing"
    WRONG = "wrong"
    UNCONFIGURED = "unconfigured"


class Tokens:
    """The tokens of one surface (webhook, API); several are valid at once while they are rotated."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = SecretFiles(files, "token")

    def check(self, header: str | None) -> Answer:
        """Is this `Authorization` header one of ours? RFC 6750, section 2.1: `Bearer <token>`."""
        tokens = self._files.now()
        if not tokens:
            return Answer.UNCONFIGURED
        scheme, _, given = (header or "").strip().partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            return Answer.MISSING
        return Answer.OK if one_of(given.encode("utf-8", "surrogateescape"), tokens) else Answer.WRONG
