"""The journal's first shape. Never edited: later shapes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
oldest = "0001"

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _partial(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    clause = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=clause, postgresql_where=clause)


def upgrade() -> None:
    """From nothing."""
    op.create_table("meta", sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))
    _intake()
    _episodes()
    _limits()
    op.create_table(
        "documents", sa.Column("digest", sa.Text, primary_key=True), sa.Column("body", sa.Text, nullable=False)
    )
    op.create_table(
        "replicas",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("config_digest", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
    )


def _intake() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", ID, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("episode", sa.Text),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("processed_at", sa.Double),
    )
    _partial("inbox_unrouted", "inbox", ["id"], "processed_at IS NULL AND episode IS NULL")
    _partial("inbox_untaken", "inbox", ["episode", "id"], "processed_at IS NULL AND episode IS NOT NULL")
    _partial("inbox_taken", "inbox", ["processed_at"], "processed_at IS NOT NULL")
    op.create_table(
        "dead_letters",
        sa.Column("id", ID, primary_key=True),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("prefix", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "dead_letter_counts",
        sa.Column("cause", sa.Text, primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("last_at", sa.Double, nullable=False),
    )


def _episodes() -> None:
    op.create_table(
        "events",
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("attempt", sa.Text),
        sa.Column("data", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("episode", "seq"),
    )
    _partial("events_once", "events", ["attempt", "kind"], "kind IN ('intent', 'outcome')", unique=True)
    op.create_index("events_at", "events", ["at"])
    op.create_table(
        "episodes",
        sa.Column("episode", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("runbook", sa.Text),
        sa.Column("severity", sa.Text),
        sa.Column("firing", sa.Boolean, nullable=False),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("closed_at", sa.Double),
    )
    _partial("episodes_open_key", "episodes", ["key"], "closed_at IS NULL", unique=True)
    op.create_index("episodes_opened_at", "episodes", ["opened_at"])
    op.create_table(
        "fingerprints",
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("episode", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", "episode"),
    )
    op.create_table(
        "work",
        sa.Column("episode", sa.Text, primary_key=True),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("claims", sa.Integer, nullable=False),
        sa.Column("nudged", sa.Boolean, nullable=False),
    )
    op.create_index("work_due", "work", ["due_at"])


def _limits() -> None:
    op.create_table(
        "charges",
        sa.Column("attempt", sa.Text, primary_key=True),
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("runbook", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("settlement", sa.Text),
        sa.Column("verdict", sa.Text),
    )
    op.create_index("charges_resource", "charges", ["resource", "at"])
    op.create_index("charges_runbook", "charges", ["runbook", "at"])
    op.create_index("charges_at", "charges", ["at"])
    _partial("charges_unproved", "charges", ["resource"], "verdict IS NULL")
    op.create_table(
        "pauses",
        sa.Column("id", ID, primary_key=True),
        sa.Column("token", sa.Text, nullable=False, unique=True),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("ends_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("ended_by", sa.Text),
    )


def downgrade() -> None:
    """To nothing: the history is lost."""
    for table in ("pauses", "charges", "work", "fingerprints", "episodes", "events"):
        op.drop_table(table)
    for table in ("dead_letter_counts", "dead_letters", "inbox", "replicas", "documents", "meta"):
        op.drop_table(table)
