"""Catalog: streaming replication, as the primary and the replicas see it."""

from __future__ import annotations

from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

_REPLICATION = SUBJECT.collector(
    "replication",
    "at scrape time",
    "Streaming replication from both sides, over the sessions of the collector `postgres`. A link that is cut is not"
    " streaming, and is never a lag of 0.",
    "a role with `pg_monitor` on the primary and on each replica that is to be read, and `SELECT` on the heartbeat's"
    " column",
)
_REPLICA = Label("replica", "a key of `collectors.replication.replicas`: the replica's `application_name`")
_SIDE = Label("side", "who says so", ("primary", "replica"))
_SLOT = Label("slot", "one of `collectors.replication.slots`")
_SLOT_STATE = Label("state", "`lost`: its WAL is gone, what used it must be made anew", ("active", "inactive", "lost"))

STREAMING = SUBJECT.metric(
    "prep_replication_streaming",
    "gauge",
    "",
    "1 when that side streams WAL now (the primary: it sends to a standby of that name; the replica: its receiver"
    " streams), else 0. Absent when that side could not be asked.",
    _REPLICATION,
    _REPLICA,
    _SIDE,
)
EXPECTED = SUBJECT.metric(
    "prep_replication_replicas_expected", "gauge", "", "Replicas that the configuration names.", _REPLICATION
)
CONNECTED = SUBJECT.metric(
    "prep_replication_replicas_connected",
    "gauge",
    "",
    "Expected replicas that are connected to the primary, streaming or catching up.",
    _REPLICATION,
)
UNEXPECTED = SUBJECT.metric(
    "prep_replication_unexpected_receivers",
    "gauge",
    "",
    "Other connections that receive WAL from the primary: unknown replicas, archivers, logical subscribers.",
    _REPLICATION,
)
BEHIND = SUBJECT.metric(
    "prep_replication_behind_bytes",
    "gauge",
    "bytes",
    "WAL that the primary has written and the replica has not yet flushed or replayed. Side `primary`: by what the"
    " replica has reported, absent when it is not connected; side `replica`: by the replica's own positions, which also"
    " tell of a link that is cut.",
    _REPLICATION,
    _REPLICA,
    _SIDE,
    Label("position", "what it is behind with", ("flushed", "replayed")),
)
REPLIED = SUBJECT.metric(
    "prep_replication_last_reply_timestamp_seconds",
    "gauge",
    "seconds",
    "When the replica sent its last report to the primary, by the replica's clock; absent when it is not connected. It"
    " stands still when the link is silent, which the primary notices only after wal_sender_timeout.",
    _REPLICATION,
    _REPLICA,
)
SYNC_STATE = SUBJECT.metric(
    "prep_replication_sync_state",
    "gauge",
    "",
    "1 for the state that the primary gives to the connected replica; all 0 when it is not connected.",
    _REPLICATION,
    _REPLICA,
    Label("state", "pg_stat_replication.sync_state", ("async", "potential", "sync", "quorum")),
)
LAST_MESSAGE = SUBJECT.metric(
    "prep_replication_last_message_timestamp_seconds",
    "gauge",
    "seconds",
    "When the replica's receiver heard from the primary last; absent when it has no receiver.",
    _REPLICATION,
    _REPLICA,
)
REPLAYED = SUBJECT.metric(
    "prep_replication_last_replayed_transaction_timestamp_seconds",
    "gauge",
    "seconds",
    "When the last transaction that the replica has replayed was committed on the primary. On a primary without writes"
    " it grows old although nothing is missing: the heartbeat does not.",
    _REPLICATION,
    _REPLICA,
)
PAUSED = SUBJECT.metric(
    "prep_replication_replay_paused",
    "gauge",
    "",
    "1 when somebody has paused the replay on the replica.",
    _REPLICATION,
    _REPLICA,
)
HEARTBEAT = SUBJECT.metric(
    "prep_replication_heartbeat_timestamp_seconds",
    "gauge",
    "seconds",
    "Newest heartbeat that this server has: the primary's says that the platform writes, a replica's how far it is"
    " behind. Absent when none is configured or none was written.",
    _REPLICATION,
    Label("server", "a key of `collectors.postgres.servers`"),
)
SLOTS = SUBJECT.metric(
    "prep_replication_slots", "gauge", "", "Replication slots of the primary.", _REPLICATION, _SLOT_STATE
)
SLOTS_RETAINED = SUBJECT.metric(
    "prep_replication_slots_retained_bytes",
    "gauge",
    "bytes",
    "WAL that the primary keeps for the slot of that state which is furthest behind; 0 when there is none.",
    _REPLICATION,
    _SLOT_STATE,
)
SLOT_ACTIVE = SUBJECT.metric(
    "prep_replication_slot_active",
    "gauge",
    "",
    "1 when the expected slot is used now; 0 when it is not, or does not exist.",
    _REPLICATION,
    _SLOT,
)
SLOT_RETAINED = SUBJECT.metric(
    "prep_replication_slot_retained_bytes",
    "gauge",
    "bytes",
    "WAL that the primary keeps for the expected slot; absent when it does not exist or has lost its WAL.",
    _REPLICATION,
    _SLOT,
)
BASE_BACKUPS = SUBJECT.metric(
    "prep_replication_base_backups", "gauge", "", "Base backups that the primary sends now.", _REPLICATION
)
