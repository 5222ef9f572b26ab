"""Request metrics: what is counted, under which labels, and what a stranger cannot do to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest
from aiohttp import ClientResponse, ClientTimeout, web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from exporter.instrument import instrument
from exporter.request_metrics import code_class, trace_id

Client = TestClient[web.Request, web.Application]


class Service:
    """A small service with one route of each fate, and a door that a handler waits at."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.entered = asyncio.Event()
        self.door = asyncio.Event()
        self.left = asyncio.Event()
        self.application = web.Application()
        self.application.router.add_get("/things/{id}", self._thing)
        self.application.router.add_post("/refuse", self._refuse)
        self.application.router.add_get("/break", self._break)
        self.application.router.add_get("/wait", self._wait)
        self.application.router.add_route("*", "/any", self._thing)
        instrument(self.application, self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def requests(self, handler: str, method: str, code: str) -> float | None:
        return self.value("prep_http_requests_total", handler=handler, method=method, code_class=code)

    def handlers(self) -> set[str]:
        return {
            sample.labels["handler"]
            for family in self.registry.collect()
            for sample in family.samples
            if "handler" in sample.labels
        }

    async def _thing(self, request: web.Request) -> web.Response:
        return web.Response(text=request.match_info.get("id", "any"))

    async def _refuse(self, request: web.Request) -> web.Response:
        raise web.HTTPConflict(text="no")

    async def _break(self, request: web.Request) -> web.Response:
        raise RuntimeError("broken on purpose")

    async def _wait(self, request: web.Request) -> web.Response:
        self.entered.set()
        try:
            await self.door.wait()
        finally:
            self.left.set()
        return web.Response(text="open")


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    # TestServer runs with handler_cancellation, as python-compliance does.
    async with TestClient(TestServer(service.application)) as client:
        yield client


async def test_an_answer_is_counted_under_the_route_template(service: Service, client: Client) -> None:
    """Two ids of one route are one series, and the histogram holds both."""
    for number in ("1", "2"):
        assert (await client.get(f"/things/{number}?page={number}")).status == 200
    assert service.requests("/things/{id}", "GET", "2xx") == 2
    assert service.value("prep_http_request_duration_seconds_count", handler="/things/{id}", method="GET") == 2
    assert (
        service.value("prep_http_request_duration_seconds_bucket", handler="/things/{id}", method="GET", le="5.0") == 2
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "code"), [("POST", "/refuse", 409, "4xx"), ("GET", "/break", 500, "5xx")]
)
async def test_what_a_handler_raises_counts_by_the_status_that_was_answered(
    service: Service, client: Client, method: str, path: str, status: int, code: str
) -> None:
    """An HTTPException counts by its status, any other exception as 5xx; both reach the client unchanged."""
    assert (await client.request(method, path)).status == status
    assert service.requests(path, method, code) == 1
    assert service.requests(path, method, "2xx") == 0


async def test_unknown_paths_and_methods_share_one_bucket(service: Service, client: Client) -> None:
    """A stranger who tries paths and methods makes no series of his own."""
    before = service.handlers()
    for path in ("/a", "/b/c", "/things", "/%F0%9F%92%A3"):
        assert (await client.get(path)).status == 404
    assert (await client.delete("/things/1")).status == 405
    assert (await client.request("PROPFIND", "/any")).status == 200
    assert service.requests("unmatched", "GET", "4xx") == 4
    assert service.requests("unmatched", "DELETE", "4xx") == 1
    assert service.requests("/any", "other", "2xx") == 1
    assert service.handlers() - before == {"unmatched", "/any"}


async def test_requests_in_flight_rise_and_fall(service: Service, client: Client) -> None:
    """The gauge is what is being answered now."""
    waiting = asyncio.create_task(_status(client.get("/wait")))
    await service.entered.wait()
    assert service.value("prep_http_requests_in_flight") == 1
    service.door.set()
    assert await waiting == 200
    assert service.value("prep_http_requests_in_flight") == 0


async def test_a_request_nobody_waits_for_is_not_counted_as_answered(service: Service, client: Client) -> None:
    """When the client goes away the gauge falls, and neither counter nor histogram tells of an answer."""
    waiting = asyncio.create_task(_status(client.get("/wait", timeout=ClientTimeout(total=30))))
    await service.entered.wait()
    waiting.cancel()
    await asyncio.wait_for(service.left.wait(), 5)
    await asyncio.sleep(0)  # the handler has left; its middleware runs on in the same step or the next
    assert service.value("prep_http_requests_in_flight") == 0
    assert service.value("prep_http_request_duration_seconds_count", handler="/wait", method="GET") == 0


async def test_known_series_are_there_before_the_first_request(service: Service) -> None:
    """Each route's counters begin at 0 in each class, so that the first error is a rise."""
    for code in ("2xx", "3xx", "4xx", "5xx"):
        assert service.requests("/refuse", "POST", code) == 0
    assert service.value("prep_http_request_duration_seconds_count", handler="/things/{id}", method="GET") == 0


async def test_the_scrape_is_served_and_not_counted(service: Service, client: Client) -> None:
    """GET /metrics gives the registry as text and is no user's request."""
    await client.get("/things/1")
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(await answer.text())}
    assert names == {"prep_http_requests", "prep_http_request_duration_seconds", "prep_http_requests_in_flight"}
    assert "/metrics" not in service.handlers()
    open_metrics = await client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert (await open_metrics.text()).endswith("# EOF\n")


@pytest.mark.parametrize(
    ("status", "expected"), [(101, "2xx"), (204, "2xx"), (302, "3xx"), (404, "4xx"), (503, "5xx"), (999, "5xx")]
)
def test_code_class(status: int, expected: str) -> None:
    """Every status falls into one of the four classes of the catalog."""
    assert code_class(status) == expected


SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (SAMPLED, "0af7651916cd43dd8448eb211c80319c"),
        (f" {SAMPLED} ", "0af7651916cd43dd8448eb211c80319c"),
        (SAMPLED.replace("00-", "01-", 1) + "-later", "0af7651916cd43dd8448eb211c80319c"),
        (SAMPLED[:-2] + "00", None),
        (SAMPLED + "-more", None),
        (SAMPLED.upper(), None),
        (SAMPLED.replace("00-", "ff-", 1), None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01", None),
        ('00-"} 1\nprep_up 0-b7ad6b7169203331-01', None),
        ("", None),
        (None, None),
    ],
)
def test_trace_id_is_that_of_a_sampled_request(header: str | None, expected: str | None) -> None:
    """What W3C Trace Context calls valid and sampled gives its id; everything else gives none."""
    assert trace_id(header) == expected


async def test_trace_id_becomes_an_exemplar_in_openmetrics_only(service: Service, client: Client) -> None:
    """A slow request leads to its trace; text, which has no exemplars, stays without, and no series is made."""
    await client.get("/things/1", headers={"traceparent": SAMPLED})
    await client.get("/refuse", headers={"traceparent": "nonsense"})
    page = await client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    found = [
        (sample.name, sample.exemplar.labels)
        for family in parse_openmetrics(await page.text())
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert {name for name, _ in found} == {"prep_http_requests_total", "prep_http_request_duration_seconds_bucket"}
    assert all(labels == {"trace_id": "0af7651916cd43dd8448eb211c80319c"} for _, labels in found)
    assert "0af7651916cd43dd" not in await (await client.get("/metrics")).text()


async def _status(request: Awaitable[ClientResponse]) -> int:
    return (await request).status
