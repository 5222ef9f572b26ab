"""The switch's own series, made from its state at each scrape. docs/dead-mans-switch.md lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from switch.intake import Worth
from switch.probing import Look
from switch.watch import State

SERIES: Mapping[str, str] = {
    "prep_switch_build_info": "gauge",
    "prep_switch_watchdog_evaluated_timestamp_seconds": "gauge",
    "prep_switch_watchdog_due_timestamp_seconds": "gauge",
    "prep_switch_watchdog_received_total": "counter",
    "prep_switch_incident": "gauge",
    "prep_switch_pages_total": "counter",
    "prep_switch_state_saved": "gauge",
    "prep_switch_probe_up": "gauge",
    "prep_switch_probe_last_duration_seconds": "gauge",
    "prep_switch_probe_last_run_timestamp_seconds": "gauge",
}
"""Every series and its kind: what rules may read. Tests hold the page and docs/dead-mans-switch.md to it."""


@dataclass(frozen=True, slots=True)
class View:
    """What a scrape shows. `look` None: no probe has ended yet, or there is none."""

    state: State
    due: float
    look: Look | None
    looked: float
    saved: bool


class Metrics(Collector):
    """`view` is asked at each scrape."""

    def __init__(self, version: str, destinations: Iterable[str], view: Callable[[], View]) -> None:
        self.registry = CollectorRegistry()
        self._view = view
        self._version = version
        self.received = Counter(
            "prep_switch_watchdog_received_total",
            "Deliveries of Alertmanager, by what they were.",
            ["worth"],
            registry=self.registry,
        )
        self.pages = Counter(
            "prep_switch_pages_total",
            "Tries to deliver a message, by destination and what came of it.",
            ["destination", "outcome"],
            registry=self.registry,
        )
        for worth in Worth:
            self.received.labels(worth.value)
        for name in destinations:
            for outcome in ("delivered", "failed"):
                self.pages.labels(name, outcome)
        self.registry.register(self)

    def page(self) -> bytes:
        """Text format 0.0.4."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        view = self._view()
        state = view.state
        build = GaugeMetricFamily("prep_switch_build_info", "Always 1; which switch runs here.", labels=["version"])
        build.add_metric([self._version], 1.0)
        yield build
        if state.heard is not None:
            yield _gauge(
                "prep_switch_watchdog_evaluated_timestamp_seconds",
                "When the newest Watchdog that was heard had been evaluated; absent before the first.",
                state.heard,
            )
        yield _gauge(
            "prep_switch_watchdog_due_timestamp_seconds", "When the silence will be no longer accepted.", view.due
        )
        incidents = GaugeMetricFamily(
            "prep_switch_incident", "1 while the switch pages for it, else 0.", labels=["kind"]
        )
        for kind in ("watchdog", "probe"):
            lasts = any(each.kind == kind and each.ended is None for each in state.incidents)
            incidents.add_metric([kind], float(lasts))
        yield incidents
        yield _gauge(
            "prep_switch_state_saved", "1 when the state on the disk is the one in memory, else 0.", float(view.saved)
        )
        if view.look is not None:
            yield from _probe(view.look, view.looked)


def _probe(look: Look, at: float) -> Iterator[Metric]:
    yield _gauge(
        "prep_switch_probe_up", "1 when the last control probe was answered in time and as expected.", float(look.up)
    )
    yield _gauge("prep_switch_probe_last_duration_seconds", "How long the last control probe took.", look.took)
    yield _gauge("prep_switch_probe_last_run_timestamp_seconds", "When the last control probe ended.", at)


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)
