"""What a replica remembers of its journal outside of it: has the database forgotten something?

A standby that was promoted, or a restored backup, may lack the last transactions: the intent is gone and its
effect is done. So the newest event that was acknowledged, and which server acknowledged it, is kept in a file of
this replica and looked up on every new connection.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import bindparam, select, text

from remediator.errors import JournalError
from remediator.journal.seals import Seal
from remediator.journal.tables import events
from remediator.journal.transaction import Tx

_SERVER = text(
    "SELECT system_identifier::text AS system, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline "
    "FROM pg_control_system()"
)
_THERE = select(events.c.seq).where(events.c.id == bindparam("of"))
SIZE = 512  # bytes: one write of one block, so that a killed process leaves the old line or the new one


@dataclass(frozen=True, slots=True)
class Server:
    """Which database server, and on which history: both change when a standby takes over or a backup is restored."""

    system: str
    timeline: str


class Witness:
    """The file. `regressed` says what is missing, "" while nothing is."""

    def __init__(self, file: Path) -> None:
        self.regressed = ""
        self._file = file
        self._server: Server | None = None
        self._event = ""
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            kept = os.pread(self._descriptor, SIZE, 0)
        except OSError as error:
            raise JournalError(f"{file}, which tells a lost journal, cannot be used: {error.strerror}") from error
        if kept.strip():
            self._load(kept)

    def _load(self, kept: bytes) -> None:
        try:
            data = json.loads(kept)
            self._server, self._event = Server(data["system"], data["timeline"]), data["event"]
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(f"{self._file} cannot be read: {error}; look at the journal, then remove it") from error

    def acknowledged(self, event: str) -> None:
        """The journal has acknowledged this event. Not synced: a killed process must leave it, a dead host need not."""
        self._event = event
        self._save()

    def look(self, tx: Tx) -> None:
        """On a new connection: is it the same server, and does it know the last event?"""
        row = tx.rows(_SERVER)[0]
        found = Server(row.system, row.timeline)
        if self._server is None:
            self._server = found
            self._save()
            return
        if found != self._server:
            self.regressed = (
                f"another database server answers (system {found.system}, timeline {found.timeline}; "
                f"before: {self._server.system}, {self._server.timeline})"
            )
        elif self._event and tx.row(_THERE, {"of": self._event}) is None:
            self.regressed = f"event {self._event} was acknowledged and is not there any more"

    def accept(self, tx: Tx) -> None:
        """The loss was written down for people: go on from what the server has now."""
        row = tx.rows(_SERVER)[0]
        self._server, self._event, self.regressed = Server(row.system, row.timeline), "", ""
        self._save()

    def _save(self) -> None:
        if self._server is not None and not self.regressed:
            data = {"system": self._server.system, "timeline": self._server.timeline, "event": self._event}
            os.pwrite(self._descriptor, json.dumps(data).encode().ljust(SIZE), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class SeenSeal:
    """The newest seal that this replica has seen, in a file: a journal that was replaced while nothing ran lacks it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def load(self) -> Seal | None:
        """None when none was seen. Raises JournalError when the file cannot be read."""
        try:
            kept = self._file.read_bytes().strip()
            return Seal(**json.loads(kept)) if kept else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise JournalError(f"{self._file} cannot be read: {error}; look at the journal, then remove it") from error

    def keep(self, seal: Seal | None) -> None:
        """Not synced, as for the witness. Raises OSError."""
        line = json.dumps(asdict(seal)) if seal is not None else ""
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, line.encode().ljust(SIZE), 0)
        finally:
            os.close(descriptor)
