"""Service health: one service, where its alert's link leads. `service` chooses it; what it stands on is below, folded."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards import backends
from dashboards.limits import Rules
from dashboards.parts import YES_NO, About, Panel, Row, Series, alerts, board, number, trend

CHOSEN = 'service=~"$service"'


def build(rules: Rules) -> Dashboard:
    """The dashboard of http://localhost:3001/d/service-health."""
    rows = [
        Row("Is it well?", _health()),
        Row("What is wrong now", [alerts(CHOSEN, "No alert fires for the chosen services."), _restarts(rules)]),
        Row("Its traffic, errors, latency and resources", _trends(rules)),
        Row("PostgreSQL", backends.postgres(rules), collapsed=True),
        Row("Replication", backends.replication(rules), collapsed=True),
        Row("Redis", backends.redis(rules), collapsed=True),
        Row("Host and engine", backends.host(rules), collapsed=True),
        Row("Certificates, backups, vendors", backends.outside(rules), collapsed=True),
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
