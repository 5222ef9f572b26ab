"""What the services stand on, as folded rows of service health: PostgreSQL, replication, Redis, host, what is outside."""

from __future__ import annotations

from dashboards.limits import Rules
from dashboards.parts import About, Panel, Series, number, trend


def postgres(rules: Rules) -> list[Panel]:
    """Sessions, locks and ages of PostgreSQL."""
    empty = "The exporter could not ask PostgreSQL (collector postgres)."
    return [
        trend(
            About(
                "Queries that run too long",
                "Queries in client sessions that run for longer than long_query_seconds.",
                empty,
                limits=[rules.above("DatabaseLongRunningQuery", "service:postgres_long_running_queries:max")],
            ),
            Series("max by (service) (service:postgres_long_running_queries:max{})", "{{service}}"),
        ),
        trend(
            About(
                "Sessions that wait for a lock",
                "Sessions waiting for a lock that another session holds.",
                empty,
                limits=[rules.above("DatabaseBlockedSessions", "service:postgres_blocked_sessions:max")],
            ),
            Series("max by (service) (service:postgres_blocked_sessions:max{})", "{{service}}"),
        ),
        trend(
            About(
                "Connections",
                "Client sessions of each server, and how many it takes.",
                empty,
            ),
            Series("max by (server) (prep_postgres_connections{})", "{{server}}"),
            Series("max by (server) (prep_postgres_connections_max{})", "{{server}}: at most"),
        ),
        trend(
            About(
                "Oldest transaction at work",
                "Age of the oldest open transaction of a session that works.",
                "No session is in a transaction.",
                unit="s",
                limits=[rules.above("DatabaseTransactionOld", "service:postgres_active_transaction_age_seconds:max")],
            ),
            Series(
                "max by (service) (service:postgres_active_transaction_age_seconds:max{}) or on () 0 * max(service:postgres_up:max{})",
                "oldest",
            ),
        ),
        trend(
            About(
                "Oldest idle transaction",
                "Age of the oldest open transaction of a session that does nothing: it holds locks and keeps vacuum from its work.",
                "No session is idle in a transaction.",
                unit="s",
                limits=[rules.above("DatabaseIdleInTransaction", "service:postgres_idle_transaction_age_seconds:max")],
            ),
            Series(
                "max by (service) (service:postgres_idle_transaction_age_seconds:max{}) or on () 0 * max(service:postgres_up:max{})",
                "oldest",
            ),
        ),
        trend(
            About(
                "Age of the oldest transaction id",
                "In transactions; near 2^31 PostgreSQL stops taking writes.",
                empty,
                limits=[
                    rules.above("DatabaseXidAgeHigh", "service:postgres_xid_age_transactions:max"),
                    rules.above("DatabaseXidAgeCritical", "service:postgres_xid_age_transactions:max"),
                ],
            ),
            Series("max by (service) (service:postgres_xid_age_transactions:max{})", "{{service}}"),
        ),
    ]


def replication(rules: Rules) -> list[Panel]:
    """Both sides of the link."""
    empty = "No replica is expected, or neither side could be asked (collector replication)."
    return [
        trend(
            About(
                "Heartbeat: age on the primary",
                "Age of the newest row that the platform wrote: when it grows, writes fail.",
                "No heartbeat is configured, or none was ever written.",
                unit="s",
                limits=[rules.above("DatabaseWritesFailing", "service:postgres_heartbeat_age_seconds:min")],
            ),
            Series("min by (service) (service:postgres_heartbeat_age_seconds:min{})", "{{service}}"),
        ),
        trend(
            About(
                "Replica behind, in time",
                "How much older the replica's newest heartbeat is than the primary's; a cut link shows, unlike in replay lag.",
                empty,
                unit="s",
                limits=[rules.above("ReplicationLag", "service:replication_lag_seconds:max")],
            ),
            Series("max by (service) (service:replication_lag_seconds:max{})", "{{service}}"),
        ),
        trend(
            About(
                "Replica behind, in bytes",
                "WAL that the primary has written and the replica has not replayed.",
                empty,
                unit="bytes",
                limits=[rules.above("ReplicationLag", "service:replication_behind_bytes:max")],
            ),
            Series("max by (service) (service:replication_behind_bytes:max{})", "{{service}}"),
        ),
        trend(
            About(
                "WAL kept for slots",
                "WAL that the primary keeps for the slot that is furthest behind; it can fill the disk.",
                "The exporter could not ask the primary for its slots.",
                unit="bytes",
                limits=[rules.above("ReplicationSlotRetainsWal", "service:replication_slots_retained_bytes:max")],
            ),
            Series("max by (service) (service:replication_slots_retained_bytes:max{})", "{{service}}"),
        ),
        trend(
            About("Link streams, by side", "1 while that side says that WAL streams; both must.", empty, unit="none"),
            Series("min by (replica, side) (prep_replication_streaming{})", "{{replica}}, says the {{side}}"),
            share=True,
        ),
    ]


def redis(rules: Rules) -> list[Panel]:
    """Memory, clients and look-ups of Redis."""
    empty = "Neither exporter tells of Redis (SignalMissing)."
    own = "The exporter could not ask Redis (collector redis)."
    return [
        trend(
            About("Memory", "Memory that Redis has allocated, and how much it may.", own, unit="bytes"),
            Series("max by (server) (prep_redis_memory_used_bytes{})", "{{server}}"),
            Series("max by (server) (prep_redis_memory_max_bytes{})", "{{server}}: at most"),
        ),
        trend(
            About("Clients", "Connections, and how many Redis takes.", own),
            Series("max by (server) (prep_redis_clients{})", "{{server}}"),
            Series("max by (server) (prep_redis_clients_max{})", "{{server}}: at most"),
        ),
        trend(
            About("Answer to PING", "How long the exporter's PING took.", own, unit="s"),
            Series("max by (server) (prep_redis_ping_seconds{})", "{{server}}"),
        ),
        trend(
            About(
                "Keys evicted in 5 minutes",
                "Keys that Redis threw out because its memory was full.",
                empty,
                limits=[rules.above("RedisEvicts", "service:redis_evicted_keys:increase")],
            ),
            Series("max by (service) (service:redis_evicted_keys:increase{})", "{{service}}"),
        ),
        trend(
            About(
                "Connections refused in 5 minutes",
                "Connections that Redis refused because it had as many as it takes.",
                empty,
                limits=[rules.above("RedisRejectsConnections", "service:redis_rejected_connections:increase")],
            ),
            Series("max by (service) (service:redis_rejected_connections:increase{})", "{{service}}"),
        ),
        trend(
            About("Look-ups", "Look-ups of keys a second, by whether the key was there.", own, unit="ops"),
            Series(
                "sum by (server, result) (rate(prep_redis_lookups_total{}[$__rate_interval]))", "{{server}} {{result}}"
            ),
        ),
    ]


def room_on_disk(rules: Rules, title: str) -> Panel:
    """Free space of each filesystem, as golden signals show it too."""
    return trend(
        About(
            title,
            "Share of each filesystem that is still free.",
            "Neither the exporter nor node_exporter sees a filesystem.",
            unit="percentunit",
            limits=[
                rules.below("DiskSpaceLow", "path:filesystem_free:ratio"),
                rules.below("DiskFull", "path:filesystem_free:ratio"),
            ],
        ),
        Series("min by (path) (path:filesystem_free:ratio{})", "{{path}}"),
        share=True,
    )


def host(rules: Rules) -> list[Panel]:
    """Disks, and what the engine holds on its own."""
    return [
        room_on_disk(rules, "Room on disk"),
        trend(
            About(
                "Free inodes",
                "Share of each filesystem's inodes that is still free. A filesystem without a fixed number has none to show.",
                "No filesystem that is watched has a fixed number of inodes.",
                unit="percentunit",
                limits=[rules.below("DiskInodesLow", "path:filesystem_files_free:ratio")],
            ),
            Series("min by (path) (path:filesystem_files_free:ratio{})", "{{path}}"),
            share=True,
        ),
        trend(
            About(
                "What the engine holds on its disk",
                "Images, containers' own layers, volumes and build cache, as of the engine's last reckoning (each 10 minutes).",
                "The engine has not reckoned yet, or its reckoning failed (collector engine_disk).",
                unit="bytes",
            ),
            Series("max by (kind) (prep_engine_disk_used_bytes{})", "{{kind}}"),
            Series("max by (kind) (prep_engine_disk_reclaimable_bytes{})", "{{kind}}: unused"),
        ),
    ]


def outside(rules: Rules) -> list[Panel]:
    """What the shipped configuration leaves off: each is words until it is configured."""
    return [
        number(
            About(
                "Certificate: time left",
                "Time until the first certificate expires that a probe was shown.",
                "No probe speaks TLS (collectors.probes.targets).",
                unit="s",
                limits=[
                    rules.below("CertificateExpires", "service:certificate_remaining_seconds:min"),
                    rules.below("CertificateExpiresSoon", "service:certificate_remaining_seconds:min"),
                ],
            ),
            Series("min(service:certificate_remaining_seconds:min{})"),
            span=6,
        ),
        number(
            About(
                "Oldest of the newest backups",
                "Age of the newest complete backup of the source that is worst off.",
                "No backup is watched (collectors.backups).",
                unit="s",
                limits=[
                    rules.above("BackupMissed", "service:backup_age_seconds:min"),
                    rules.above("BackupTooOld", "service:backup_age_seconds:min"),
                ],
            ),
            Series("max(service:backup_age_seconds:min{})"),
            span=6,
        ),
        number(
            About(
                "Last verified restore",
                "Age of the last verified restore of the source that is worst off: a backup that nobody has restored is a hope.",
                "No backup is watched, or no restore was ever verified (collectors.backups).",
                unit="s",
                limits=[rules.above("BackupNotVerified", "prep_backup_last_verified_restore_timestamp_seconds")],
            ),
            Series("max(time() - prep_backup_last_verified_restore_timestamp_seconds{})"),
            span=6,
        ),
        number(
            About(
                "Vendors in trouble",
                "How many vendors' status pages tell of an outage (VendorOutage), as far as they can be read.",
                "No vendor's status page is read (collectors.vendors).",
                unit="none",
            ),
            Series('sum(prep_vendor_status{indicator=~"major|critical"})'),
            words={"0": ("none", "green")},
            span=6,
        ),
    ]
