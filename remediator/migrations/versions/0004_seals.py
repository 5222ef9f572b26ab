"""Seals over the events, so that what is edited or cut later shows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
oldest = "0001"


def upgrade() -> None:
    """A column that a replica of the version before leaves empty, as an event that no seal holds yet, and a table."""
    op.add_column("events", sa.Column("seal", sa.Integer()))
    op.create_index("events_seal", "events", ["seal", "at"])
    op.create_table(
        "seals",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    """The seals are lost; the events stay."""
    op.drop_table("seals")
    op.drop_index("events_seal", "events")
    op.drop_column("events", "seal")
