"""Request metrics of an ASGI service, on a real server: the same families, and a closed set of handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from aiohttp import ClientError, ClientSession, ClientTimeout
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from exporter.instrument_asgi import Receive, Scope, Send, instrument_asgi
from tests.support.waiting import free_port

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ROUTES = [
    ("GET", "/things/{id}"),
    ("GET", "/things/all"),
    ("GET", "/files/{rest:path}"),
    ("POST", "/refuse"),
    ("GET", "/break"),
    ("GET", "/cut"),
    ("GET", "/mute"),
    ("GET", "/wait"),
]


class Service:
    """A plain ASGI application with a route of each fate, on a real server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.started = False
        self.entered, self.gone = asyncio.Event(), asyncio.Event()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        application = instrument_asgi(self._application, self.registry, ROUTES)
        self.server = uvicorn.Server(
            uvicorn.Config(application, port=self.port, log_level="critical", lifespan="on", ws="none")
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def requests(self, handler: str, method: str, code: str) -> float | None:
        return self.value("prep_http_requests_total", handler=handler, method=method, code_class=code)

    def durations(self, handler: str, method: str) -> float | None:
        return self.value("prep_http_request_duration_seconds_count", handler=handler, method=method)

    def handlers(self) -> set[str]:
        return {
            sample.labels["handler"]
            for family in self.registry.collect()
            for sample in family.samples
            if "handler" in sample.labels
        }

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["path"] == "/refuse":
            await answer(send, 409, b"no")
        elif scope["path"] == "/break":
            raise RuntimeError("broken on purpose")
        elif scope["path"] == "/cut":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("broken in the middle on purpose")
        elif scope["path"] == "/mute":
            return
        elif scope["path"] == "/wait":
            self.entered.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone.set()
        else:
            await answer(send, 200, b"there")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self.started = True
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def answer(send: Send, status: int, body: bytes) -> None:
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    running = asyncio.create_task(service.server.serve())
    async with asyncio.timeout(10):
        while not service.server.started:
            await asyncio.sleep(0.01)
    yield service
    service.server.should_exit = True
    await running


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession(timeout=ClientTimeout(total=10)) as session:
        yield session


async def status(client: ClientSession, url: str, method: str = "GET", **rest: Any) -> int:
    async with client.request(method, url, **rest) as reply:
        await reply.read()
        return reply.status


async def test_answers_are_counted_under_the_template_of_their_route(service: Service, client: ClientSession) -> None:
    """Ids and rests of paths make no series; a template without a name goes before one with."""
    for path in ("/things/1", "/things/2?page=2", "/things/all", "/files/a/b/c"):
        assert await status(client, service.url + path) == 200
    assert await status(client, f"{service.url}/refuse", "POST") == 409
    assert service.requests("/things/{id}", "GET", "2xx") == 2
    assert service.requests("/things/all", "GET", "2xx") == 1
    assert service.requests("/files/{rest:path}", "GET", "2xx") == 1
    assert service.requests("/refuse", "POST", "4xx") == 1
    assert service.durations("/things/{id}", "GET") == 2
    assert service.started, "the lifespan reaches the application"


async def test_strangers_make_no_series(service: Service, client: ClientSession) -> None:
    """Unknown paths, methods that a route does not have and methods that nobody knows share one bucket."""
    before = service.handlers()
    for path in ("/a", "/b/c", "/things/1/2", "/things/", "/%F0%9F%92%A3"):
        await status(client, service.url + path)
    await status(client, f"{service.url}/things/1", "DELETE")
    await status(client, f"{service.url}/things/1", "PROPFIND")
    await status(client, f"{service.url}/things/1", "HEAD")
    assert service.requests("unmatched", "GET", "2xx") == 5
    assert service.requests("unmatched", "DELETE", "2xx") == 1
    assert service.requests("unmatched", "other", "2xx") == 1
    assert service.requests("/things/{id}", "HEAD", "2xx") == 1
    assert service.handlers() - before == {"unmatched"}


@pytest.mark.parametrize("path", ["/break", "/cut", "/mute"])
async def test_what_is_broken_counts_as_5xx_once(service: Service, client: ClientSession, path: str) -> None:
    """Broken before an answer, in the middle of one, or silent: one error, whatever the first status was."""
    try:
        assert await status(client, service.url + path) == 500
    except ClientError:
        assert path == "/cut"
    assert service.requests(path, "GET", "5xx") == 1
    assert service.requests(path, "GET", "2xx") == 0
    assert service.value("prep_http_requests_in_flight") == 0


async def test_client_that_goes_away_was_not_answered(service: Service, client: ClientSession) -> None:
    """The number in flight rises and falls again, and no answer is counted."""
    waiting = asyncio.create_task(status(client, f"{service.url}/wait"))
    async with asyncio.timeout(10):
        await service.entered.wait()
        assert service.value("prep_http_requests_in_flight") == 1
        waiting.cancel()
        await service.gone.wait()
        while service.value("prep_http_requests_in_flight") != 0:
            await asyncio.sleep(0.01)
    assert service.durations("/wait", "GET") == 0


async def test_page_has_the_services_families_and_exemplars_in_openmetrics(
    service: Service, client: ClientSession
) -> None:
    """The page is OpenMetrics with trace ids for whoever asks, text for the others, and is not counted itself."""
    await status(client, f"{service.url}/things/1", headers={"traceparent": SAMPLED})
    async with client.get(
        f"{service.url}/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"}
    ) as reply:
        families = list(parse_openmetrics(await reply.text()))
    traces = {sample.exemplar.labels["trace_id"] for each in families for sample in each.samples if sample.exemplar}
    assert traces == {"0af7651916cd43dd8448eb211c80319c"}
    async with client.get(f"{service.url}/metrics") as reply:
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "0af7651916cd43dd" not in await reply.text()
    assert await status(client, f"{service.url}/metrics", "HEAD") == 200
    assert "/metrics" not in service.handlers()


def test_known_series_begin_at_0() -> None:
    """Each route's counters are there before the first request; a method without a series of its own is refused."""
    registry = CollectorRegistry()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 200, b"")

    instrument_asgi(application, registry, ROUTES)
    labels = {"handler": "/refuse", "method": "POST", "code_class": "5xx"}
    assert registry.get_sample_value("prep_http_requests_total", labels) == 0
    with pytest.raises(ValueError, match="PURGE"):
        instrument_asgi(application, CollectorRegistry(), [("PURGE", "/x")])
