"""Errors of the remediator, by what the caller can do about them.

    RemediatorError
    ├── ConfigError      a file is wrong: every fault listed with file and path; exit code 2
    ├── Transient        the outside did not answer: nothing was done, ask again later
    ├── Permanent        the outside answered no: asking again gives the same answer
    ├── InDoubt          an effect may have begun and its end is unknown: never redo, settle at the target
    └── JournalError     the journal cannot be trusted or written: stop taking alerts, start no effect
        └── Conflict     somebody else wrote this place of an episode: drop the plan, read again

Expected refusals are not errors but values (`remediator.reasons.Refusal`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RemediatorError(Exception):
    """Root of the tree; never raised itself."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in a configuration file.

    `where` is `file: path.inside.it`, `what` the mistake, `remedy` what to write instead ("" when plain).
    """

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.remedy})" if self.remedy else "")


class ConfigError(RemediatorError):
    """Configuration or runbooks cannot be used; carries every fault found, not only the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in faults))


class Transient(RemediatorError):
    """Nothing was done and a later try may succeed: connection refused, timeout of a read."""


class Permanent(RemediatorError):
    """Nothing was done and a later try will not help: not found, not permitted, malformed."""


class InDoubt(RemediatorError):
    """An effect may have begun: timeout, reset, 5xx or cancellation after the call was sent."""


class JournalError(RemediatorError):
    """The journal cannot be read or written now."""


class Conflict(JournalError):
    """The sequence number was taken: another owner has appended to this episode."""
