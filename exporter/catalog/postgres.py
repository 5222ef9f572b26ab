"""Catalog: PostgreSQL's core."""

from __future__ import annotations

from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

_POSTGRES = SUBJECT.collector(
    "postgres",
    "at scrape time",
    "The core of one or more PostgreSQL servers, over one kept session each; `up` by a fresh login.",
    "a role with `pg_monitor` (without it other sessions look empty, so the collector refuses to count them)",
)
_SERVER = Label("server", "a key of `collectors.postgres.servers`")

POSTGRES_UP = SUBJECT.metric(
    "prep_postgres_up",
    "gauge",
    "",
    "1 when a new client could log in during this scrape, 0 when not: the kept session alone does not make it 1.",
    _POSTGRES,
    _SERVER,
)
POSTGRES_CONNECTIONS = SUBJECT.metric(
    "prep_postgres_connections", "gauge", "", "Client sessions, this exporter's own included.", _POSTGRES, _SERVER
)
POSTGRES_CONNECTIONS_MAX = SUBJECT.metric(
    "prep_postgres_connections_max",
    "gauge",
    "",
    "Client sessions that roles without privileges can have: max_connections less the reserved ones.",
    _POSTGRES,
    _SERVER,
)
POSTGRES_OLDEST_QUERY = SUBJECT.metric(
    "prep_postgres_oldest_query_start_timestamp_seconds",
    "gauge",
    "seconds",
    "When the oldest query that now runs in a client session began; absent when none runs.",
    _POSTGRES,
    _SERVER,
)
POSTGRES_LONG_QUERIES = SUBJECT.metric(
    "prep_postgres_long_running_queries",
    "gauge",
    "",
    "Queries running in client sessions for longer than `long_query_seconds` of the configuration (300 as shipped).",
    _POSTGRES,
    _SERVER,
)
POSTGRES_OLDEST_TRANSACTION = SUBJECT.metric(
    "prep_postgres_oldest_transaction_start_timestamp_seconds",
    "gauge",
    "seconds",
    "When the oldest open transaction of a client session in that state began; absent when there is none.",
    _POSTGRES,
    _SERVER,
    Label("state", "state of the session, aborted transactions included", ("active", "idle in transaction")),
)
POSTGRES_BLOCKED = SUBJECT.metric(
    "prep_postgres_blocked_sessions",
    "gauge",
    "",
    "Sessions waiting for a lock that another session holds.",
    _POSTGRES,
    _SERVER,
)
POSTGRES_XID_AGE = SUBJECT.metric(
    "prep_postgres_xid_age_transactions",
    "gauge",
    "transactions",
    "Age of the oldest datfrozenxid of any database, in transactions; wraparound protection stops writes near 2^31.",
    _POSTGRES,
    _SERVER,
)
POSTGRES_ROLE = SUBJECT.metric(
    "prep_postgres_role",
    "gauge",
    "",
    "1 for the role that the server has now, 0 for the other.",
    _POSTGRES,
    _SERVER,
    Label("role", "pg_is_in_recovery()", ("primary", "replica")),
)
POSTGRES_START = SUBJECT.metric(
    "prep_postgres_start_timestamp_seconds", "gauge", "seconds", "When the server was started.", _POSTGRES, _SERVER
)
