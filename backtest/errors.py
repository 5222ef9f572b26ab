"""What ends a backtest without a report, with the exit code that prepctl gives it."""

from __future__ import annotations


class Unusable(Exception):
    """It cannot go on: `message` says what and where, `do` the way out.

    code  1 history that is not there, 2 wrong usage or a file that is wrong, 3 Prometheus does not answer
    """

    def __init__(self, code: int, message: str, do: str = "") -> None:
        self.code, self.message, self.do = code, message, do
        super().__init__(message)
