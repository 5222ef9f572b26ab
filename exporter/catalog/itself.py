"""Catalog: the exporter itself: how each scrape went."""

from __future__ import annotations

from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

_SELF = SUBJECT.collector(
    "exporter", "at scrape time", "How the scrape itself went. Always there, also when every backend is ill.", "nothing"
)
_COLLECTOR = Label("collector", "a collector of this page")

BUILD_INFO = SUBJECT.metric(
    "prep_build_info",
    "gauge",
    "",
    "Always 1; which exporter runs here.",
    _SELF,
    Label("version", "version of the distribution"),
    Label("revision", "PREP_REVISION of the image, else `unknown`"),
    Label("python", "version of the interpreter"),
)
COLLECTOR_SUCCESS = SUBJECT.metric(
    "prep_scrape_collector_success",
    "gauge",
    "",
    "1 when the collector gave all its samples in this scrape (background: in its last run), 0 when not.",
    _SELF,
    _COLLECTOR,
)
COLLECTOR_DURATION = SUBJECT.metric(
    "prep_scrape_collector_duration_seconds",
    "gauge",
    "seconds",
    "How long the collector ran for this scrape (background: in its last run).",
    _SELF,
    _COLLECTOR,
)
COLLECTOR_LAST_SUCCESS = SUBJECT.metric(
    "prep_collector_last_success_timestamp_seconds",
    "gauge",
    "seconds",
    "When a background collector last succeeded; absent before the first time. Its samples vanish when they are older"
    " than three of its intervals.",
    _SELF,
    _COLLECTOR,
)
SERIES_DROPPED = SUBJECT.metric(
    "prep_exporter_series_dropped_total",
    "counter",
    "",
    "Series not shown because their family had `scrape.max_series` already, counted in each run of the collector; 0"
    " for every family that could outgrow it.",
    _SELF,
    Label("metric", "a family of this page"),
)
CONFIG_RELOAD_SUCCESSFUL = SUBJECT.metric(
    "prep_config_last_reload_successful",
    "gauge",
    "",
    "1 when the last reading of the configuration (at the start, by SIGHUP, by `POST /-/reload`) was taken over, 0 when"
    " it had a mistake and the former one still holds.",
    _SELF,
)
CONFIG_RELOAD_SUCCESS = SUBJECT.metric(
    "prep_config_last_reload_success_timestamp_seconds",
    "gauge",
    "seconds",
    "When a configuration was last taken over; the start counts.",
    _SELF,
)
WEB_CONFIG_SUCCESSFUL = SUBJECT.metric(
    "prep_web_config_last_reload_successful",
    "gauge",
    "",
    "1 when the web configuration file (TLS, users) and the files it names were good when they last changed, 0 when the"
    " former content still holds; absent without such a file.",
    _SELF,
)
