"""Service health: one service, where its alert's link leads. `service` chooses it; what it stands on is below, folded."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.limits import Rules
from dashboards.parts import YES_NO, About, Panel, Row, Series, alerts, board, number, trend

CHOSEN = 'service=~"$service"'


def build(rules: Rules) -> Dashboard:
    """The dashboard of http://localhost:3001/d/service-health."""
    rows = [
        Row("Is it well?", _health()),
        Row("What is wrong now", [alerts(CHOSEN, "No alert fires for the chosen services."), _restarts(rules)]),
        Row("Its traffic, errors, latency and resources", _trends(rules)),
        Row("PostgreSQL", _postgres(rules), collapsed=True),
        Row("Replication", _replication(rules), collapsed=True),
        Row("Redis", _redis(rules), collapsed=True),
        Row("Host and engine", _host(rules), collapsed=True),
        Row("Certificates, backups, vendors", _outside(rules), collapsed=True),
    ]
    says = "One service, chosen above: is it well, what is wrong with it, and with what it stands on?"
    return board("service-health", "Service Health", says, rows)


def _health() -> list[Panel]:
    return [
        number(
            About(
                "Answers",
                "Whether every chosen service answers its probe (ServiceDown).",
                "None of the chosen services is probed (collectors.probes.targets).",
            ),
            Series(f"min(service:probe_up:max{{{CHOSEN}}})"),
            words=YES_NO,
        ),
        number(
            About(
                "Container runs",
                "Whether a container of every chosen service runs (ContainerDown).",
                "None of the chosen services is a container that is expected (collectors.docker.expected_services).",
            ),
            Series(f"min(service:container_running:max{{{CHOSEN}}})"),
            words=YES_NO,
        ),
        number(
            About(
                "Container is unhealthy",
                "Whether the health check of a chosen service's container fails (ContainerUnhealthy).",
                "None of the chosen services is a container that is expected (collectors.docker.expected_services).",
            ),
            Series(f"max(service:container_unhealthy:max{{{CHOSEN}}})"),
            words={"0": ("no", "green"), "1": ("YES", "red")},
        ),
        number(
            About(
                "Is scraped",
                "Whether Prometheus could scrape every chosen service's own metrics (ServiceMetricsMissing, TargetDown).",
                "None of the chosen services has metrics of its own.",
            ),
            Series(f"min(up{{{CHOSEN}}})"),
            words=YES_NO,
        ),
        number(
            About(
                "Youngest container",
                "How long ago a chosen service's container was last started: what is new may be the cause.",
                "None of the chosen services is a container that is expected (collectors.docker.expected_services).",
                unit="dtdurations",
            ),
            Series(f"min(service:container_age_seconds:min{{{CHOSEN}}})"),
            decimals=0,
        ),
        number(
            About(
                "Killed for want of memory",
                "Whether the kernel ended a chosen service's container in its present or last run (ContainerOomKilled).",
                "None of the chosen services is a container that is expected (collectors.docker.expected_services).",
            ),
            Series(f"max(service:container_oom_killed:max{{{CHOSEN}}})"),
            words={"0": ("no", "green"), "1": ("YES", "red")},
        ),
    ]


def _restarts(rules: Rules) -> Panel:
    return trend(
        About(
            "Restarts in 15 minutes",
            "Restarts by Docker's restart policy; those by people or the remediator are not in it.",
            "None of the chosen services is a container that is expected (collectors.docker.expected_services).",
            limits=[rules.above("ContainerRestarting", "service:container_restarts:increase")],
        ),
        Series(f"max by (service) (service:container_restarts:increase{{{CHOSEN}}})", "{{service}}"),
    )


def _trends(rules: Rules) -> list[Panel]:
    no_requests = "None of the chosen services has had a request, or none has request metrics (exporter.instrument)."
    no_container = "Neither the exporter nor cAdvisor sees a container of the chosen services."
    return [
        trend(
            About("Requests", "Requests answered a second, by class of the status.", no_requests, unit="reqps"),
            Series(
                f'sum by (service, code_class) (rate(prep_http_requests_total{{{CHOSEN}, handler!~"/health.*|unmatched"}}[$__rate_interval]))',
                "{{service}} {{code_class}}",
            ),
        ),
        trend(
            About(
                "Share of requests that fail",
                "Share of requests answered with 5xx, over 5 minutes, or 15 where there are few.",
                no_requests,
                unit="percentunit",
                limits=[rules.above("ServiceErrorRateHigh", "service:http_errors:ratio")],
            ),
            Series(
                f"max by (service) (service:http_errors:ratio{{{CHOSEN}}} or 0 * service:http_requests:increase{{{CHOSEN}}})",
                "{{service}}",
            ),
        ),
        trend(
            About(
                "Time of a request, by route",
                "The time within which 95 of 100 requests to a route were answered; 0 while a service has none.",
                no_requests,
                unit="s",
                limits=[rules.above("ServiceLatencyHigh", "service:http_request_duration_seconds:p95")],
            ),
            Series(
                "histogram_quantile(0.95, sum by (le, service, handler) (rate("
                f'prep_http_request_duration_seconds_bucket{{{CHOSEN}, handler!~"/health.*|unmatched"}}[$__rate_interval]))) >= 0'
                f" or on (service) 0 * sum by (service) (prep_http_requests_in_flight{{{CHOSEN}}})",
                "{{service}} {{handler}}",
            ),
        ),
        trend(
            About(
                "CPU of its limit",
                "Share of the cores that the container may use, over 2 minutes.",
                no_container,
                unit="percentunit",
            ),
            Series(f"max by (service) (service:container_cpu_used:ratio{{{CHOSEN}}})", "{{service}}"),
            share=True,
        ),
        trend(
            About(
                "Memory of its limit",
                "Share of the memory that the container may use, without the file cache that the kernel can take back.",
                no_container,
                unit="percentunit",
                limits=[rules.above("ContainerMemoryHigh", "service:container_memory_used:ratio")],
            ),
            Series(f"max by (service) (service:container_memory_used:ratio{{{CHOSEN}}})", "{{service}}"),
            share=True,
        ),
        trend(
            About(
                "Pools: connections in use",
                "Share of each pool's connections that something uses now; at 1 the next request waits.",
                "None of the chosen services has a pool that it tells of (exporter.instrument).",
                unit="percentunit",
            ),
            Series(
                f'max by (service, backend) (prep_pool_connections{{{CHOSEN}, state="in_use"}}'
                f" / ignoring (state) prep_pool_connections_max{{{CHOSEN}}})",
                "{{service}} to {{backend}}",
            ),
            share=True,
        ),
    ]


def _postgres(rules: Rules) -> list[Panel]:
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


def _replication(rules: Rules) -> list[Panel]:
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


def _redis(rules: Rules) -> list[Panel]:
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


def _host(rules: Rules) -> list[Panel]:
    return [
        trend(
            About(
                "Room on disk",
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
        ),
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


def _outside(rules: Rules) -> list[Panel]:
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
