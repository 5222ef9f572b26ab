"""RED metrics for an aiohttp service: rate, errors and duration of its requests, and how many it answers now.

In: an application with its routes, and the registry that the service already has. Out: a middleware and the handler
of `/metrics`. Names, help, labels and buckets are those of the catalog (`exporter.catalog`, collector `services`), so
alerts and dashboards read every service alike. It must never put anything of a request into a label but its method
and the *template* of the route that matched: a path, a query or a header would let a stranger make series.

    registry = CollectorRegistry()
    application = web.Application()
    application.router.add_post("/v1/checks", create_check)
    instrument(application, registry)

What is counted:

- Every request that was answered, also when the handler raised: an `HTTPException` counts by its status, any other
  exception is the 500 that aiohttp answers.
- A request whose client went away before it was answered (in a service with `handler_cancellation`) is in no counter
  and no histogram, because nothing was answered; `prep_http_requests_in_flight` falls. A service that never answers
  shows as a rate of 0 and a number in flight that stays up: alerts on durations need a second source for it.
- Requests that match no route share the handler `unmatched`; methods outside the catalog's set share `other`.
- `/metrics` itself is not counted: the scraper is no user.

A duration ends when the handler returns. aiohttp sends a plain response after that, so the time that a slow client
takes to read it is not in there; a streamed response is written inside its handler, so its time is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from exporter.catalog.entries import Metric
from exporter.catalog.services import HTTP_DURATION, HTTP_IN_FLIGHT, HTTP_REQUESTS

METRICS_PATH = "/metrics"
UNMATCHED = "unmatched"
"""Handler of every request that no route took: one bucket, whatever its path."""
OTHER_METHOD = "other"


def _closed_set(metric: Metric, label: str) -> tuple[str, ...]:
    """The catalog's values of one label. Raises ValueError when the catalog leaves it open."""
    values = next(each.values for each in metric.labels if each.name == label)
    if values is None:
        raise ValueError(f"label {label} of {metric.name} has no closed set in the catalog")
    return values


_METHODS = frozenset(_closed_set(HTTP_REQUESTS, "method"))
_CODE_CLASSES = _closed_set(HTTP_REQUESTS, "code_class")


class RequestMetrics:
    """The three families in one registry. Raises ValueError (prometheus_client's) when it already holds them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        # prometheus_client appends `_total` itself and wants the name without it.
        self._requests = Counter(
            HTTP_REQUESTS.name.removesuffix("_total"), HTTP_REQUESTS.help, HTTP_REQUESTS.label_names, registry=registry
        )
        self._duration = Histogram(
            HTTP_DURATION.name, HTTP_DURATION.help, HTTP_DURATION.label_names,
            buckets=HTTP_DURATION.buckets, registry=registry,
        )  # fmt: skip
        self._in_flight = Gauge(HTTP_IN_FLIGHT.name, HTTP_IN_FLIGHT.help, registry=registry)

    def middleware(self) -> Middleware:
        """A middleware that measures what is inside of it; put it first, so that the others are inside."""

        @web.middleware
        async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
            template = route_template(request)
            if template == METRICS_PATH:
                return await handler(request)
            began = time.perf_counter()
            with self._in_flight.track_inprogress():
                try:
                    response = await handler(request)
                except web.HTTPException as answer:
                    self._count(template, request.method, answer.status, began)
                    raise
                except Exception:  # counted and passed on; a cancelled request is no Exception and is not counted
                    self._count(template, request.method, 500, began)
                    raise
                self._count(template, request.method, response.status, began)
                return response

        return measure

    async def metrics(self, request: web.Request) -> web.Response:
        """Handler: everything in the registry, in the text format that the scraper asked for."""
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=encode(self._registry), headers={hdrs.CONTENT_TYPE: content_type})

    def begin_series(self, routes: Iterable[tuple[str, str]]) -> None:
        """Begin the series of these (template, method) pairs at 0.

        `rate()` sees a counter grow only between two samples: of a series that appears with its first error, that
        error is never seen.
        """
        for template, method in routes:
            self._duration.labels(template, method)
            for code_class in _CODE_CLASSES:
                self._requests.labels(template, method, code_class)

    def _count(self, template: str, method: str, status: int, began: float) -> None:
        """Count one answer; `began` is in seconds of time.perf_counter()."""
        known = method if method in _METHODS else OTHER_METHOD
        self._requests.labels(template, known, code_class(status)).inc()
        self._duration.labels(template, known).observe(time.perf_counter() - began)


def instrument(application: web.Application, registry: CollectorRegistry) -> RequestMetrics:
    """Measure every request of `application` and serve `registry` at GET /metrics.

    Call it after the routes were added and before the application is started; its own middleware becomes the
    outermost one. Raises ValueError when the registry already holds the families.
    For the whole process it turns off the `_created` series of prometheus_client: half as many series again, which
    are in no catalog and which nothing reads.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    families = RequestMetrics(registry)
    application.middlewares.insert(0, families.middleware())
    families.begin_series(_routes(application))
    application.router.add_get(METRICS_PATH, families.metrics)
    return families


def route_template(request: web.Request) -> str:
    """The route as it was added (`/v1/payments/{id}`), or `unmatched` (no such path, or not with this method)."""
    resource = request.match_info.route.resource
    if request.match_info.http_exception is not None or resource is None:
        return UNMATCHED
    return resource.canonical


def code_class(status: int) -> str:
    """Status 404 is `4xx`. What the closed set lacks (101, 600) goes to its nearest end."""
    return f"{min(max(status // 100, 2), 5)}xx"


def _routes(application: web.Application) -> list[tuple[str, str]]:
    # aiohttp adds HEAD to every GET; its series begin when somebody asks.
    return sorted(
        {
            (route.resource.canonical, route.method)
            for route in application.router.routes()
            if route.resource is not None
            and route.method in _METHODS - {hdrs.METH_HEAD}
            and route.resource.canonical != METRICS_PATH
        }
    )
