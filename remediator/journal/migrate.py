"""Bring the journal's tables to this program's shape: Alembic, inside a transaction of the journal itself."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import inspect, text

from remediator.errors import JournalError
from remediator.journal.transaction import MIGRATION_LOCK, Tx

FOLDER = Path(__file__).resolve().parent.parent / "migrations"


def migrate(tx: Tx) -> None:
    """Create or upgrade the tables. Raises JournalError when a newer program has written this journal.

    Two replicas that start at once take turns under a lock.
    """
    tx.lock(MIGRATION_LOCK)
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    newest = ScriptDirectory.from_config(config).get_current_head()
    if inspect(tx.connection).has_table("alembic_version"):
        found = tx.run(text("SELECT version_num FROM alembic_version")).scalar()
        if found == newest:
            return
    config.attributes["connection"] = tx.connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        said = f"journal cannot be upgraded to {newest}: {error}; was it written by a newer version?"
        raise JournalError(said) from error
