"""RED metrics for an aiohttp service: rate, errors and duration of its requests, and how many it answers now.

For an ASGI service see `exporter.instrument_asgi`.

In: an application with its routes, and the registry that the service already has. Out: a middleware and the handler
of `/metrics`. Names, help, labels and buckets are those of the catalog (`exporter.catalog`, collector `services`), so
alerts and dashboards read every service alike. It must never put anything of a request into a label but its method
and the *template* of the route that matched: a path, a query or a header would let a stranger make series.
The trace id of a sampled request becomes an exemplar (`exporter.request_metrics`), which makes none.

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

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry

from exporter.request_metrics import METHODS, METRICS_PATH, UNMATCHED, RequestMetrics


def instrument(application: web.Application, registry: CollectorRegistry) -> RequestMetrics:
    """Measure every request of `application` and serve `registry` at GET /metrics.

    Call it after the routes were added and before the application is started; its own middleware becomes the
    outermost one. Raises ValueError when the registry already holds the families.
    """
    families = RequestMetrics(registry)
    application.middlewares.insert(0, _middleware(families))
    families.begin_series(_routes(application))

    async def metrics(request: web.Request) -> web.Response:
        body, content_type = families.page(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    application.router.add_get(METRICS_PATH, metrics)
    return families


def _middleware(families: RequestMetrics) -> Middleware:
    """A middleware that measures what is inside of it."""

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        template = route_template(request)
        if template == METRICS_PATH:
            return await handler(request)
        began = time.perf_counter()

        def count(status: int) -> None:
            families.count(template, request.method, status, began, request.headers.get("traceparent"))

        with families.in_flight.track_inprogress():
            try:
                response = await handler(request)
            except web.HTTPException as answer:
                count(answer.status)
                raise
            except Exception:  # counted and passed on; a cancelled request is no Exception and is not counted
                count(500)
                raise
            count(response.status)
            return response

    return measure


def route_template(request: web.Request) -> str:
    """The route as it was added (`/v1/payments/{id}`), or `unmatched` (no such path, or not with this method)."""
    resource = request.match_info.route.resource
    if request.match_info.http_exception is not None or resource is None:
        return UNMATCHED
    return resource.canonical


def _routes(application: web.Application) -> list[tuple[str, str]]:
    # aiohttp adds HEAD to every GET; its series begin when somebody asks.
    return sorted(
        {
            (route.resource.canonical, route.method)
            for route in application.router.routes()
            if route.resource is not None
            and route.method in METHODS - {hdrs.METH_HEAD}
            and route.resource.canonical != METRICS_PATH
        }
    )
