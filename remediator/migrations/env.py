"""Alembic's entry: runs on the connection, and in the transaction, that `journal/migrate.py` hands over."""

from alembic import context

from remediator.journal.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
