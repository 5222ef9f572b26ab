"""The three families of request metrics in one registry, for every kind of service: how to count and to show them.

In: finished requests. Out: counter, histogram and gauge of prometheus_client, named as in the catalog, and their page.
It must never put anything of a request into a label but its method and the template of its route; of its headers only
the trace id is read, and that becomes an exemplar, which makes no series.

Exemplars: a request whose `traceparent` (W3C Trace Context, level 1) says that it is sampled leaves its trace id on the
counter and on the bucket of its duration. They are shown in OpenMetrics only; the other formats have none. Trace ids
that are not sampled lead nowhere and are left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from exporter.catalog.entries import Metric
from exporter.catalog.services import HTTP_DURATION, HTTP_IN_FLIGHT, HTTP_REQUESTS
from exporter.negotiation import negotiate

METRICS_PATH = "/metrics"
UNMATCHED = "unmatched"
"""Handler of every request that no route took: one bucket, whatever its path."""
OTHER_METHOD = "other"

_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 0x01


def _closed_set(metric: Metric, label: str) -> tuple[str, ...]:
    """The catalog's values of one label. Raises ValueError when the catalog leaves it open."""
    values = next(each.values for each in metric.labels if each.name == label)
    if values is None:
        raise ValueError(f"label {label} of {metric.name} has no closed set in the catalog")
    return values


METHODS = frozenset(_closed_set(HTTP_REQUESTS, "method"))
_CODE_CLASSES = _closed_set(HTTP_REQUESTS, "code_class")


@dataclass(frozen=True, slots=True)
class _Series:
    """The children of one handler and method, looked up once: it is most of the cost of counting."""

    requests: Mapping[str, Counter]
    duration: Histogram


class RequestMetrics:
    """The three families in one registry. Raises ValueError (prometheus_client's) when it already holds them.

    For the whole process it turns off the `_created` series of prometheus_client: half as many series again, which are
    in no catalog and which nothing reads.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry
        # prometheus_client appends `_total` itself and wants the name without it.
        self._requests = Counter(
            HTTP_REQUESTS.name.removesuffix("_total"), HTTP_REQUESTS.help, HTTP_REQUESTS.label_names, registry=registry
        )
        self._duration = Histogram(
            HTTP_DURATION.name, HTTP_DURATION.help, HTTP_DURATION.label_names,
            buckets=HTTP_DURATION.buckets, registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge(HTTP_IN_FLIGHT.name, HTTP_IN_FLIGHT.help, registry=registry)
        self._series: dict[tuple[str, str], _Series] = {}

    def begin_series(self, routes: Iterable[tuple[str, str]]) -> None:
        """Begin the series of these (template, method) pairs at 0.

        `rate()` sees a counter grow only between two samples: of a series that appears with its first error, that
        error is never seen.
        """
        for template, method in routes:
            self._of(template, method)

    def count(self, template: str, method: str, status: int, began: float, traceparent: str | None) -> None:
        """Count one answer. `template` is one of the service's routes or `unmatched`; `began` is in seconds of
        time.perf_counter(); `traceparent` is the request's header.
        """
        series = self._of(template, method if method in METHODS else OTHER_METHOD)
        exemplar = {"trace_id": trace} if (trace := trace_id(traceparent)) else None
        series.requests[code_class(status)].inc(exemplar=exemplar)
        series.duration.observe(time.perf_counter() - began, exemplar)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Everything in the registry as text for this Accept header, and its Content-Type."""
        form = negotiate(accept)
        return (openmetrics if form.openmetrics else text)(self._registry), form.content_type

    def _of(self, template: str, method: str) -> _Series:
        found = self._series.get((template, method))
        if found is None:
            requests = {each: self._requests.labels(template, method, each) for each in _CODE_CLASSES}
            found = self._series[template, method] = _Series(requests, self._duration.labels(template, method))
        return found


def code_class(status: int) -> str:
    """Status 404 is `4xx`. What the closed set lacks (101, 600) goes to its nearest end."""
    return f"{min(max(status // 100, 2), 5)}xx"


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a sampled request; None for everything else, also for what is no traceparent.

    Worked example: `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01` -> `0af7651916cd43dd8448eb211c80319c`.
    A later version may have more behind the flags, version 00 may not.
    """
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    if found is None or (found["version"] == "00" and found["more"]) or not int(found["flags"], 16) & _SAMPLED:
        return None
    return found["trace"]
