"""Catalog: Redis."""

from __future__ import annotations

from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

_REDIS = SUBJECT.collector(
    "redis",
    "at scrape time",
    "The core of one or more Redis servers, over one kept connection each: a real PING, then INFO once.",
    "a user that may `PING` and `INFO` (see below)",
)
_SERVER = Label("server", "a key of `collectors.redis.servers`")

REDIS_UP = SUBJECT.metric(
    "prep_redis_up",
    "gauge",
    "",
    "1 when the server answered a PING in this scrape, in whatever state it is; 0 when not, or when it refused the"
    " login.",
    _REDIS,
    _SERVER,
)
REDIS_STATE = SUBJECT.metric(
    "prep_redis_state",
    "gauge",
    "",
    "1 for what the server answered to PING, 0 for the others. `loading`: it reads its data set; `writes_refused`:"
    " MISCONF, it cannot save and takes no writes; `stale`: a replica without its primary; `busy`: a script blocks it.",
    _REDIS,
    _SERVER,
    Label("state", "out of PING's answer", ("ready", "loading", "writes_refused", "stale", "busy")),
)
REDIS_PING = SUBJECT.metric(
    "prep_redis_ping_seconds", "gauge", "seconds", "How long the PING of this scrape took.", _REDIS, _SERVER
)
REDIS_MEMORY_USED = SUBJECT.metric(
    "prep_redis_memory_used_bytes", "gauge", "bytes", "Memory that Redis has allocated.", _REDIS, _SERVER
)
REDIS_MEMORY_MAX = SUBJECT.metric(
    "prep_redis_memory_max_bytes",
    "gauge",
    "bytes",
    "Memory that Redis may allocate: `maxmemory`, or the machine's whole memory when that is 0 (no limit), so that the"
    " used share is always a number.",
    _REDIS,
    _SERVER,
)
REDIS_MEMORY_LIMITED = SUBJECT.metric(
    "prep_redis_memory_limited", "gauge", "", "1 when `maxmemory` is set, 0 when it is 0.", _REDIS, _SERVER
)
REDIS_CLIENTS = SUBJECT.metric(
    "prep_redis_clients", "gauge", "", "Client connections, this exporter's own included.", _REDIS, _SERVER
)
REDIS_CLIENTS_MAX = SUBJECT.metric(
    "prep_redis_clients_max", "gauge", "", "Client connections that Redis accepts.", _REDIS, _SERVER
)
REDIS_REJECTED = SUBJECT.metric(
    "prep_redis_rejected_connections_total",
    "counter",
    "",
    "Connections refused because as many as allowed were there.",
    _REDIS,
    _SERVER,
)
REDIS_EVICTED = SUBJECT.metric(
    "prep_redis_evicted_keys_total", "counter", "", "Keys thrown out because of `maxmemory`.", _REDIS, _SERVER
)
REDIS_KEYS = SUBJECT.metric(
    "prep_redis_keys", "gauge", "", "Keys in all databases; absent while the data set is loaded.", _REDIS, _SERVER
)
REDIS_KEYS_EXPIRING = SUBJECT.metric(
    "prep_redis_expiring_keys",
    "gauge",
    "",
    "Keys in all databases that have a time to live; absent while the data set is loaded.",
    _REDIS,
    _SERVER,
)
REDIS_LOOKUPS = SUBJECT.metric(
    "prep_redis_lookups_total",
    "counter",
    "",
    "Look-ups of keys by reading commands.",
    _REDIS,
    _SERVER,
    Label("result", "whether the key was there", ("hit", "miss")),
)
REDIS_SAVED = SUBJECT.metric(
    "prep_redis_rdb_last_save_timestamp_seconds",
    "gauge",
    "seconds",
    "When the last snapshot was saved well; the server's start when there was none since.",
    _REDIS,
    _SERVER,
)
REDIS_SAVE_OK = SUBJECT.metric(
    "prep_redis_rdb_last_save_successful", "gauge", "", "0 when the last snapshot failed.", _REDIS, _SERVER
)
REDIS_CHANGES = SUBJECT.metric(
    "prep_redis_rdb_unsaved_changes",
    "gauge",
    "",
    "Changes since the last snapshot; they only grow where none is configured.",
    _REDIS,
    _SERVER,
)
REDIS_AOF_ENABLED = SUBJECT.metric(
    "prep_redis_aof_enabled", "gauge", "", "1 when an append-only file is written.", _REDIS, _SERVER
)
REDIS_AOF_OK = SUBJECT.metric(
    "prep_redis_aof_last_write_successful",
    "gauge",
    "",
    "0 when the last write to the append-only file failed; 1 where none is written.",
    _REDIS,
    _SERVER,
)
REDIS_SESSIONS = SUBJECT.metric(
    "prep_redis_sessions",
    "gauge",
    "",
    "Sessions in the configured session store, counted by one command of constant cost; absent when none is"
    " configured. Expired ones count until Redis has removed them.",
    _REDIS,
    _SERVER,
)
