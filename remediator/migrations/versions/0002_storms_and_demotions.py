"""What is latched over all episodes: storms and demotions; and why an episode waits, for whoever reads the index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
oldest = "0001"

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Nothing that is there changes its meaning: a replica of the version before goes on beside this one."""
    op.add_column("episodes", sa.Column("refused", sa.Text))
    op.create_table(
        "storms",
        sa.Column("id", ID, primary_key=True),
        sa.Column("began_at", sa.Double, nullable=False),
        sa.Column("most", sa.Integer, nullable=False),
        sa.Column("calm_since", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("ended_by", sa.Text),
        sa.Column("reason", sa.Text),
    )
    op.create_table(
        "demotions",
        sa.Column("id", ID, primary_key=True),
        sa.Column("runbook", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("ended_by", sa.Text),
        sa.Column("reason", sa.Text),
    )
    op.create_index("charges_episode", "charges", ["episode", "at"])
    op.create_index("demotions_runbook", "demotions", ["runbook", "ended_at"])


def downgrade() -> None:
    """Storms and demotions are forgotten."""
    op.drop_index("charges_episode", "charges")
    op.drop_table("demotions")
    op.drop_table("storms")
    op.drop_column("episodes", "refused")
