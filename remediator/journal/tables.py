"""The journal's tables, for SQLite and PostgreSQL alike. `remediator/migrations` creates them.

Only `events` is the truth; `charges`, `episodes` and `work` are indexes over it that are written in the same
transaction (`Journal.verify` recomputes the charges). `seals` holds digests over the events. There are no foreign
keys: an alert or an outcome must be storable whatever is missing, and a row lock on a parent would let a reader
block an owner.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

metadata = MetaData()
Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only in INTEGER PRIMARY KEY

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

inbox = Table(
    "inbox",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("episode", Text),
    Column("received_at", Double, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("processed_at", Double),
)
_UNROUTED = text("processed_at IS NULL AND episode IS NULL")
_TAKEN = text("processed_at IS NOT NULL")
_UNTAKEN = text("processed_at IS NULL AND episode IS NOT NULL")
Index("inbox_unrouted", inbox.c.id, sqlite_where=_UNROUTED, postgresql_where=_UNROUTED)
Index("inbox_untaken", inbox.c.episode, inbox.c.id, sqlite_where=_UNTAKEN, postgresql_where=_UNTAKEN)
Index("inbox_taken", inbox.c.processed_at, sqlite_where=_TAKEN, postgresql_where=_TAKEN)

events = Table(
    "events",
    metadata,
    Column("episode", Text, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("attempt", Text),
    Column("data", Text, nullable=False),
    Column("seal", Integer),
    PrimaryKeyConstraint("episode", "seq"),
)
_ONCE = text("kind IN ('intent', 'outcome')")
Index("events_once", events.c.attempt, events.c.kind, unique=True, sqlite_where=_ONCE, postgresql_where=_ONCE)
Index("events_at", events.c.at)
Index("events_kind", events.c.kind, events.c.at, events.c.episode, events.c.seq)
Index("events_seal", events.c.seal, events.c.at)

seals = Table(
    "seals",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("count", Integer, nullable=False),
    Column("made_by", Text, nullable=False),
)

episodes = Table(
    "episodes",
    metadata,
    Column("episode", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("runbook", Text),
    Column("severity", Text),
    Column("firing", Boolean, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("closed_at", Double),
    Column("refused", Text),
)
_OPEN = text("closed_at IS NULL")
Index("episodes_open_key", episodes.c.key, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN)
Index("episodes_opened_at", episodes.c.opened_at)

fingerprints = Table(
    "fingerprints",
    metadata,
    Column("fingerprint", Text, nullable=False),
    Column("episode", Text, nullable=False),
    PrimaryKeyConstraint("fingerprint", "episode"),
)

work = Table(
    "work",
    metadata,
    Column("episode", Text, primary_key=True),
    Column("due_at", Double, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("owner", Text),
    Column("epoch", Integer, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("claims", Integer, nullable=False),
    Column("nudged", Boolean, nullable=False),
    Column("proof_at", Double),
)
Index("work_due", work.c.due_at)

charges = Table(
    "charges",
    metadata,
    Column("attempt", Text, primary_key=True),
    Column("episode", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("runbook", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("result", Text),
    Column("settlement", Text),
    Column("verdict", Text),
)
_UNPROVED = text("verdict IS NULL")
Index("charges_resource", charges.c.resource, charges.c.at)
Index("charges_runbook", charges.c.runbook, charges.c.at)
Index("charges_at", charges.c.at)
Index("charges_episode", charges.c.episode, charges.c.at)
Index("charges_unproved", charges.c.resource, sqlite_where=_UNPROVED, postgresql_where=_UNPROVED)

documents = Table(
    "documents",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

pauses = Table(
    "pauses",
    metadata,
    Column("id", Id, primary_key=True),
    Column("token", Text, nullable=False, unique=True),
    Column("scope", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("ends_at", Double),
    Column("ended_at", Double),
    Column("ended_by", Text),
)

replicas = Table(
    "replicas",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("mode", Text, nullable=False),
    Column("config_digest", Text, nullable=False),
    Column("seen_at", Double, nullable=False),
)

storms = Table(
    "storms",
    metadata,
    Column("id", Id, primary_key=True),
    Column("began_at", Double, nullable=False),
    Column("most", Integer, nullable=False),
    Column("calm_since", Double),
    Column("ended_at", Double),
    Column("ended_by", Text),
    Column("reason", Text),
)

demotions = Table(
    "demotions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("runbook", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("why", Text, nullable=False),
    Column("ended_at", Double),
    Column("ended_by", Text),
    Column("reason", Text),
)
Index("demotions_runbook", demotions.c.runbook, demotions.c.ended_at)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Id, primary_key=True),
    Column("cause", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("size", Integer, nullable=False),
    Column("prefix", LargeBinary, nullable=False),
)

dead_letter_counts = Table(
    "dead_letter_counts",
    metadata,
    Column("cause", Text, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last_at", Double, nullable=False),
)
