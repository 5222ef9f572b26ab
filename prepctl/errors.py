"""What ends a command without success, and the exit code that says so to a script.

0  done
1  the answer is no: not found, refused, not ready; a drill or a promise that did not hold
2  wrong usage, or a file that is wrong, or cannot be read or written: token file, runbooks
3  the remediator cannot be reached, or cannot answer now: try again
4  the token does not let in

Ctrl-C ends with 130, a reader of the output that has gone with 141 (`__main__.py`).
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    FORBIDDEN = 4


class Failure(Exception):
    """A command that cannot go on: `message` says what and where, `do` the way out."""

    def __init__(self, code: Exit, message: str, do: str = "") -> None:
        self.code = code
        self.message = message
        self.do = do
        super().__init__(message)
