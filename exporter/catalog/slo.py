"""Catalog: objectives, as they are agreed."""

from __future__ import annotations

from exporter.catalog.entries import Label, Subject

SUBJECT = Subject()

_SLO = SUBJECT.collector(
    "slo",
    "at scrape time",
    "The objectives of the configuration, so that rules and dashboards reckon with the agreed numbers.",
    "nothing",
)
_NAME = Label("slo", "a key of `collectors.slo.objectives`")

SLO_OBJECTIVE = SUBJECT.metric(
    "prep_slo_objective_ratio",
    "gauge",
    "ratio",
    "Share of events that must be good within the window, 0 to 1; the error budget is 1 less this.",
    _SLO,
    _NAME,
)
SLO_WINDOW = SUBJECT.metric(
    "prep_slo_window_seconds", "gauge", "seconds", "How long the objective's window is.", _SLO, _NAME
)
