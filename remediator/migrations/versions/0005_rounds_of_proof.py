"""When an episode's last round of proof was asked, so that whichever replica asks the next one goes on from there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
oldest = "0001"


def upgrade() -> None:
    """A column that a replica of the version before leaves as it is: then its round counts as one that nobody made."""
    op.add_column("work", sa.Column("proof_at", sa.Double()))


def downgrade() -> None:
    """Each proof under way begins its hold time anew."""
    op.drop_column("work", "proof_at")
