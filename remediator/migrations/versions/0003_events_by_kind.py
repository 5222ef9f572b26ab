"""An index for the journal's page: events of a kind, the newest first, also where the kind is rare."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
oldest = "0001"


def upgrade() -> None:
    """Only an index: a replica of the version before goes on beside this one, and keeps it up without knowing of it."""
    op.create_index("events_kind", "events", ["kind", "at", "episode", "seq"])


def downgrade() -> None:
    """A rare kind is looked for in the whole journal again."""
    op.drop_index("events_kind", "events")
