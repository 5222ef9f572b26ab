"""Golden signals: does the platform work for its customers, and which of the four signals says no?"""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.backends import room_on_disk
from dashboards.limits import Rules
from dashboards.parts import UP_DOWN, YES_NO, About, Panel, Row, Series, alerts, board, chosen, number, trend


def build(rules: Rules) -> Dashboard:
    """The dashboard of http://localhost:3001/d/golden-signals."""
    silent = "No alert fires, not even Watchdog, which always does: look whether Prometheus evaluates its rules."
    rows = [
        Row("Does it work?", _health()),
        Row("What is wrong now", [alerts("", silent), _by_level()]),
        Row("The four signals: traffic, errors, latency, saturation", _signals(rules)),
        Row("Saturation, container by container", _containers(rules), collapsed=True),
        Row("The eyes themselves: exporter and Prometheus", _eyes(rules), collapsed=True),
    ]
    says = "Does the platform work for its customers, and which of the four golden signals says no?"
    return board("golden-signals", "Golden Signals", says, rows)


def _health() -> list[Panel]:
    return [
        number(
            About(
                "Platform",
                "Whether customers are served: 0 when neither payments nor python-compliance answers (PlatformDown, P0).",
                "Nobody probes the platform: see ProbeDataMissing.",
            ),
            Series("max(service:platform_up:max{})"),
            words=UP_DOWN,
        ),
        number(
            About(
                "All services answer",
                "Whether every chosen service answers its probe (ServiceDown). The table below names the one that does not.",
                "None of the chosen services is probed.",
            ),
            Series('min(service:probe_up:max{service=~"$service"})'),
            words=YES_NO,
        ),
        number(
            About(
                "PostgreSQL",
                "Whether a new client could log in at the last scrape (PostgresDown).",
                "Neither exporter tells of PostgreSQL: see SignalMissing.",
            ),
            Series("max(service:postgres_up:max{})"),
            words=UP_DOWN,
        ),
        number(
            About(
                "Replica streams",
                "Whether every expected replica streams, by both sides of the link (ReplicaNotStreaming).",
                "No replica is expected (collectors.replication.replicas).",
            ),
            Series("min(service:replication_streaming:min{})"),
            words=YES_NO,
        ),
        number(
            About(
                "Redis",
                "Whether Redis answered a PING at the last scrape (RedisDown).",
                "Neither exporter tells of Redis: see SignalMissing.",
            ),
            Series("max(service:redis_up:max{})"),
            words=UP_DOWN,
        ),
        chosen(
            About(
                "The remediator may",
                "The mode in force: shadow only tells what it would do, approve asks a person first, auto acts. A pause stops all three.",
                "The remediator is not scraped: nothing is healed (RemediatorDown).",
            ),
            Series("prep_remediator_mode{} == 1", "{{mode}}"),
        ),
    ]


def _by_level() -> Panel:
    return trend(
        About(
            "Alerts that fire, by level",
            "How many fire, by severity. The level none is Watchdog alone: it always fires, so that silence is news.",
            "No alert fires, not even Watchdog: look whether Prometheus evaluates its rules.",
        ),
        Series('count by (severity) (ALERTS{alertstate="firing"})', "{{severity}}"),
        stacked=True,
    )


def _signals(rules: Rules) -> list[Panel]:
    served = 'service=~"$service"'
    paths = 'handler!~"/health.*|unmatched"'
    return [
        trend(
            About(
                "Traffic: requests",
                "Requests answered a second, by service; health checks are left out.",
                "None of the chosen services has request metrics (exporter.instrument).",
                unit="reqps",
            ),
            Series(
                f"sum by (service) (rate(prep_http_requests_total{{{served}, {paths}}}[$__rate_interval]))",
                "{{service}}",
            ),
        ),
        trend(
            About(
                "Errors: share of requests",
                "Share of requests answered with 5xx, over 5 minutes, or 15 where there are few.",
                "None of the chosen services has had a request.",
                unit="percentunit",
                limits=[rules.above("ServiceErrorRateHigh", "service:http_errors:ratio")],
            ),
            Series(
                f"max by (service) (service:http_errors:ratio{{{served}}} or 0 * service:http_requests:increase{{{served}}})",
                "{{service}}",
            ),
        ),
        trend(
            About(
                "Latency: 95 % are quicker than",
                "The time within which 95 of 100 requests were answered, over 5 minutes.",
                "None of the chosen services has had a request in 5 minutes.",
                unit="s",
                limits=[rules.above("ServiceLatencyHigh", "service:http_request_duration_seconds:p95")],
            ),
            Series(f"max by (service) (service:http_request_duration_seconds:p95{{{served}}})", "{{service}}"),
        ),
        trend(
            About(
                "Saturation: PostgreSQL's connections",
                "Share of the connections that a client without privileges can have.",
                "Neither exporter tells of PostgreSQL's connections.",
                unit="percentunit",
                limits=[
                    rules.above("DatabaseConnectionsHigh", "service:postgres_connections_used:ratio"),
                    rules.above("DatabaseConnectionsExhausted", "service:postgres_connections_used:ratio"),
                ],
            ),
            Series("max by (service) (service:postgres_connections_used:ratio{})", "{{service}}"),
            share=True,
        ),
        trend(
            About(
                "Saturation: PostgreSQL's CPU",
                "Share of the cores that PostgreSQL's container may use, over 2 minutes.",
                "Neither the exporter nor cAdvisor tells of PostgreSQL's container.",
                unit="percentunit",
                limits=[rules.above("DatabaseCpuHigh", "service:container_cpu_used:ratio")],
            ),
            Series('max by (service) (service:container_cpu_used:ratio{service="postgres"})', "{{service}}"),
            share=True,
        ),
        trend(
            About(
                "Saturation: Redis' memory",
                "Share of maxmemory in use.",
                "Redis has no maxmemory (RedisNoMemoryLimit), so there is no share to show.",
                unit="percentunit",
                limits=[rules.above("RedisMemoryHigh", "service:redis_memory_used:ratio")],
            ),
            Series("max by (service) (service:redis_memory_used:ratio{})", "{{service}}"),
            share=True,
        ),
        trend(
            About(
                "Saturation: Redis' connections",
                "Share of maxclients in use.",
                "Neither exporter tells of Redis' connections.",
                unit="percentunit",
                limits=[rules.above("RedisConnectionsHigh", "service:redis_clients_used:ratio")],
            ),
            Series("max by (service) (service:redis_clients_used:ratio{})", "{{service}}"),
            share=True,
        ),
        room_on_disk(rules, "Saturation: room on disk"),
        trend(
            About(
                "Saturation: requests under way",
                "Requests being answered now, by service: what piles up when something behind is slow.",
                "None of the chosen services has request metrics (exporter.instrument).",
            ),
            Series(f"sum by (service) (prep_http_requests_in_flight{{{served}}})", "{{service}}"),
        ),
    ]


def _containers(rules: Rules) -> list[Panel]:
    served = 'service=~"$service"'
    return [
        trend(
            About(
                "CPU of its limit",
                "Share of the cores that each container may use, over 2 minutes. Only PostgreSQL's has an alert.",
                "Neither the exporter nor cAdvisor sees the chosen containers.",
                unit="percentunit",
            ),
            Series(f"max by (service) (service:container_cpu_used:ratio{{{served}}})", "{{service}}"),
            span=12,
            share=True,
        ),
        trend(
            About(
                "Memory of its limit",
                "Share of the memory that each container may use, without the file cache that the kernel can take back.",
                "Neither the exporter nor cAdvisor sees the chosen containers.",
                unit="percentunit",
                limits=[rules.above("ContainerMemoryHigh", "service:container_memory_used:ratio")],
            ),
            Series(f"max by (service) (service:container_memory_used:ratio{{{served}}})", "{{service}}"),
            span=12,
            share=True,
        ),
    ]


def _eyes(rules: Rules) -> list[Panel]:
    return [
        trend(
            About(
                "Targets that answer",
                "Share of each job's targets that Prometheus could scrape: a line below 1 is a blind spot.",
                "Prometheus scrapes nothing.",
                unit="percentunit",
            ),
            Series("avg by (job) (up{})", "{{job}}"),
            share=True,
        ),
        trend(
            About(
                "Collectors that succeed",
                "1 while a collector of the exporter gives all its samples, 0 while not (CollectorFailing, BusinessCollectorFailing).",
                "The exporter is not scraped (ExporterDown).",
                unit="none",
            ),
            Series("min by (collector) (collector:scrape_success:max{})", "{{collector}}"),
            share=True,
        ),
        trend(
            About(
                "Background collectors: since the last success",
                "How long ago each of them last succeeded; its samples vanish after three of its intervals.",
                "No background collector has succeeded yet.",
                unit="s",
                limits=[
                    rules.above("CollectorStale", "collector:last_success_age_seconds:min", '=~"docker|probes|vendors')
                ],
            ),
            Series(
                'max by (collector) (collector:last_success_age_seconds:min{collector=~"docker|probes|vendors"})',
                "{{collector}}",
            ),
        ),
        trend(
            About(
                "Time of a scrape",
                "How long each collector of the exporter takes.",
                "The exporter is not scraped (ExporterDown).",
                unit="s",
            ),
            Series("max by (collector) (prep_scrape_collector_duration_seconds{})", "{{collector}}"),
        ),
        trend(
            About(
                "Time of the rules",
                "How long Prometheus takes for each group of rules; near the interval alerts come late (PrometheusRulesLate).",
                "Prometheus does not scrape itself (PrometheusUnwatched).",
                unit="s",
            ),
            Series("max by (rule_group) (prometheus_rule_group_last_duration_seconds{})", "{{rule_group}}"),
        ),
        trend(
            About(
                "Notifications to Alertmanager",
                "Alerts sent, and those that could not be sent, a second (PrometheusNotificationsFailing).",
                "Prometheus does not scrape itself (PrometheusUnwatched).",
                unit="cps",
            ),
            Series("sum(rate(prometheus_notifications_sent_total{}[$__rate_interval]))", "sent"),
            Series("sum(rate(prometheus_notifications_errors_total{}[$__rate_interval]))", "failed"),
        ),
    ]
