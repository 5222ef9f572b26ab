"""Catalog: what every service of the platform publishes itself."""

from __future__ import annotations

from exporter.catalog.entries import DURATION_BUCKETS, Label, Subject

SUBJECT = Subject()

_SERVICES = SUBJECT.collector(
    "services",
    "inside each service",
    "The services' own request metrics (`exporter.instrument`), scraped by Prometheus from the services: the second"
    " source of the business signals when PostgreSQL is ill.",
    "the middleware in the service, a target label `service` in prometheus.yml",
)
_HANDLER = Label("handler", "the route's template; `unmatched` for the rest")
_METHOD = Label("method", "HTTP method", ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"))

HTTP_REQUESTS = SUBJECT.metric(
    "prep_http_requests_total",
    "counter",
    "",
    "Requests answered.",
    _SERVICES,
    _HANDLER,
    _METHOD,
    Label("code_class", "class of the status", ("2xx", "3xx", "4xx", "5xx")),
)
HTTP_DURATION = SUBJECT.metric(
    "prep_http_request_duration_seconds",
    "histogram",
    "seconds",
    "Time from a request's head to its answer's end.",
    _SERVICES,
    _HANDLER,
    _METHOD,
    buckets=DURATION_BUCKETS,
)
HTTP_IN_FLIGHT = SUBJECT.metric("prep_http_requests_in_flight", "gauge", "", "Requests being answered now.", _SERVICES)
ENGINE_SESSIONS = SUBJECT.metric(
    "prep_compliance_engine_sessions",
    "gauge",
    "",
    "Sessions of the rule engine.",
    _SERVICES,
    Label("state", "what the session does", ("free", "busy")),
)
CACHE_REQUESTS = SUBJECT.metric(
    "prep_compliance_cache_requests_total",
    "counter",
    "",
    "Look-ups in the RegEngine cache.",
    _SERVICES,
    Label("result", "how it ended", ("hit", "miss")),
)
_BACKEND = Label("backend", "what the pool connects to", ("postgres", "redis"))
POOL_CONNECTIONS = SUBJECT.metric(
    "prep_pool_connections",
    "gauge",
    "",
    "Connections of the service's pool.",
    _SERVICES,
    _BACKEND,
    Label("state", "whether something uses it now", ("in_use", "idle")),
)
POOL_CONNECTIONS_MAX = SUBJECT.metric(
    "prep_pool_connections_max",
    "gauge",
    "",
    "Connections that the pool may have; what is beyond waits or fails.",
    _SERVICES,
    _BACKEND,
)
