"""Bring the journal's tables to this program's shape: Alembic, inside a transaction of the journal itself.

Versions overlap while replicas are replaced one after the other. So each revision names in `oldest` the oldest program
that may go on with the tables that it leaves, and the journal keeps that name: a program that meets a revision it does
not know goes on when it is not older, and is refused when it is (docs/decisions/0007-revisions-that-only-add.md).
"""

from __future__ import annotations

from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import inspect, text

from remediator.errors import JournalError
from remediator.journal import index
from remediator.journal.transaction import MIGRATION_LOCK, Tx

log = structlog.get_logger(__name__)

FOLDER = Path(__file__).resolve().parent.parent / "migrations"
OLDEST = "oldest_revision"
"""The mark with the oldest revision whose programs may use these tables. Revisions are numbers of four digits."""


def migrate(tx: Tx, folder: Path = FOLDER) -> None:
    """Create or upgrade the tables. Raises JournalError when a newer program has changed what this one relies on.

    Two replicas that start at once take turns under a lock.
    """
    tx.lock(MIGRATION_LOCK)
    config = Config()
    config.set_main_option("script_location", str(folder))
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head() or ""
    found = _found(tx)
    if found > newest:
        _beside_newer(tx, found, newest)
        return
    if found < newest:
        config.attributes["connection"] = tx.connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise JournalError(f"journal cannot be upgraded from {found or 'nothing'} to {newest}: {error}") from error
    oldest = str(scripts.get_revision(newest).module.oldest)
    if index.mark(tx, OLDEST) != oldest:
        index.set_mark(tx, OLDEST, oldest)


def _found(tx: Tx) -> str:
    """The journal's revision; "" for an empty database."""
    if not inspect(tx.connection).has_table("alembic_version"):
        return ""
    return str(tx.run(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _beside_newer(tx: Tx, found: str, newest: str) -> None:
    """A newer program was here: go on, when it says that it has only added to what this one relies on."""
    oldest = index.mark(tx, OLDEST)
    if oldest is None or newest < oldest:
        raise JournalError(
            f"journal has revision {found}, written by a newer version; it takes programs from revision "
            f"{oldest or found} on, and this one has {newest}: start the newer version"
        )
    log.warning("the journal has a newer revision, which allows this version to go on", found=found, ours=newest)
