"""RED metrics for an ASGI service (Starlette, FastAPI, Django, plain): the same families as `exporter.instrument`.

In: an ASGI 3 application, its routes, and the registry that the service already has. Out: an application around it,
which counts and serves GET /metrics. No framework is needed, and none is asked which route it took: the routes are
named here, so the label's values are a closed set whatever the framework does.

    application = instrument_asgi(application, registry, [("POST", "/v1/checks"), ("GET", "/v1/checks/{id}")])

A route's template is compared with the path as the server gives it (`scope["path"]`): `{name}` is one segment,
`{name:path}` the rest. The first that fits is taken, templates without names before the others. A path or method that
is not named is `unmatched`.

What is counted is told in `exporter.instrument`; three things differ, because ASGI tells more. A duration ends with the
answer's last byte. An application that breaks after it has begun to answer counts as 5xx, for the client's answer is
cut. One that ends without an answer counts as 5xx, unless the client has gone away: then nothing was answered.
Websockets and the lifespan pass through untouched.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry

from exporter.request_metrics import METHODS, METRICS_PATH, UNMATCHED, RequestMetrics

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_NAME = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(:path)?\}")


def instrument_asgi(
    application: Application, registry: CollectorRegistry, routes: Iterable[tuple[str, str]]
) -> Application:
    """An application that counts the requests of `application` and serves `registry` at GET /metrics.

    `routes`: (method, template) of each. Raises ValueError when a method is not one of the catalog's, and when the
    registry already holds the families.
    """
    return _Instrumented(application, RequestMetrics(registry), _Routes(routes))


class _Routes:
    """From method and path to template."""

    def __init__(self, routes: Iterable[tuple[str, str]]) -> None:
        self.named = [(template, method) for method, template in routes]
        if strange := sorted({method for _, method in self.named}.difference(METHODS)):
            raise ValueError(f"no method that is counted by its name: {strange}")
        self._plain = {(method, template) for template, method in self.named if not _NAME.search(template)}
        self._patterns = [
            (method, _pattern(template), template) for template, method in self.named if _NAME.search(template)
        ]

    def template(self, method: str, path: str) -> str:
        """The template of the route; `unmatched` when none fits."""
        # A HEAD is answered by the route of its GET in every framework.
        for asked in (method, "GET") if method == "HEAD" else (method,):
            if (asked, path) in self._plain:
                return path
            for wanted, pattern, template in self._patterns:
                if wanted == asked and pattern.fullmatch(path):
                    return template
        return UNMATCHED


def _pattern(template: str) -> re.Pattern[str]:
    parts, end = [], 0
    for found in _NAME.finditer(template):
        parts += [re.escape(template[end : found.start()]), ".+" if found[1] else "[^/]+"]
        end = found.end()
    return re.compile("".join([*parts, re.escape(template[end:])]), re.DOTALL)


@dataclass(slots=True)
class _Answer:
    """What became of one request. `status` None: nothing was answered yet; `over`: its last byte was sent."""

    status: int | None = None
    over: bool = False
    gone: bool = False


class _Instrumented:
    """The application around."""

    def __init__(self, application: Application, metrics: RequestMetrics, routes: _Routes) -> None:
        self._application = application
        self._metrics = metrics
        self._routes = routes
        metrics.begin_series(routes.named)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
        elif scope["path"] == METRICS_PATH and scope["method"] in ("GET", "HEAD"):
            await self._page(scope, send)
        else:
            await self._measured(scope, receive, send)

    async def _measured(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, answer = time.perf_counter(), _Answer()

        def count(status: int) -> None:
            template = self._routes.template(scope["method"], scope["path"])
            self._metrics.count(template, scope["method"], status, began, _header(scope, b"traceparent"))

        async def heard() -> Message:
            message = await receive()
            answer.gone = answer.gone or message["type"] == "http.disconnect"
            return message

        async def told(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                answer.status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body") and not answer.over:
                answer.over = True
                count(answer.status or 500)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._application(scope, heard, told)
            except Exception:  # counted and passed on; a cancelled request is no Exception and is not counted
                if not answer.over:
                    count(500)
                raise
            if not answer.over and not answer.gone:
                count(500)

    async def _page(self, scope: Scope, send: Send) -> None:
        body, content_type = self._metrics.page(_header(scope, b"accept") or "")
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _header(scope: Scope, name: bytes) -> str | None:
    """A header's value; several of one name are one list (RFC 9110, 5.3). None when it is not there."""
    found = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return ",".join(found) if found else None
