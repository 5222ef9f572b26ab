"""Errors of the exporter, by what can be done about them.

    ExporterError
    ├── ConfigError    a file is wrong: every fault listed with file, line and path; exit code 2
    ├── Transient      not now: success 0, the next scrape asks again
    │   └── Unreachable    nobody answered: the connection was refused, cut or silent until the deadline
    ├── Permanent      the backend answered no (a missing grant, table, file): success 0 until somebody mends it
    └── StateError     a cursor's state cannot be saved or is in use: its counters are not shown

A collector that raises one of the last three yields success 0 and no old value; the others are not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ExporterError(Exception):
    """Root of the tree; never raised itself."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in a configuration file.

    `where` is `file:line: path.inside.it`, `what` the mistake, `remedy` what to write instead ("" when plain).
    """

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.remedy})" if self.remedy else "")


class ConfigError(ExporterError):
    """The configuration cannot be used; carries every fault found, not only the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in faults))


class Transient(ExporterError):
    """The backend did not give what was asked this time: it is starting, busy, or ended the query by its own limit."""


class Unreachable(Transient):
    """No word from the backend: asking once more before the deadline would only wait again."""


class Permanent(ExporterError):
    """The backend answered no; asking again gives the same answer until an operator changes something."""


class StateError(ExporterError):
    """A cursor's position cannot be saved, so its counters must not be shown."""
