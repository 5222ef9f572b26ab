"""Two small HTTP servers that stand outside of what is tested: a target to scrape, and people's inbox.

Both run in threads of the test's own process and answer HTTP/1.0, so no connection outlives its request.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.waiting import free_port, wait_until


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came in. Header names are lower case; `at` is UNIX seconds."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a stub answers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle of its request is what a test asked for; all else is told."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type] # as socketserver has it


class StubServer:
    """An HTTP server on 127.0.0.1 whose answers a test chooses; its port stays the same over stop() and start().

    requests   everything that came in, oldest first
    delay      seconds it waits before each answer
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.delay = 0.0
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def answer(self, request: Request) -> Answer:
        """What to answer; subclasses say it. Called from the server's threads."""
        return Answer()

    def start(self) -> Self:
        """Listen; nothing when it does."""
        if self._server is None:
            self._stopping.clear()
            self._server = _Server(("127.0.0.1", self.port), _handler(self))
            self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="stub", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening and end the requests under way: connections are refused from now on."""
        if self._server is None or self._thread is None:
            return
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = None

    def wait_requests(
        self,
        count: int = 1,
        matching: Callable[[Request], bool] = lambda request: True,
        deadline: float = 15.0,
    ) -> list[Request]:
        """Wait until at least `count` requests match; all that do."""

        def enough() -> list[Request]:
            found = [request for request in self.snapshot() if matching(request)]
            return found if len(found) >= count else []

        return wait_until(enough, f"{count} matching requests at {self.url}", deadline, seen=self._told)

    def snapshot(self) -> list[Request]:
        """The requests so far, safe to read while more come in."""
        with self._lock:
            return list(self.requests)

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self.requests.clear()

    def take(self, request: Request) -> Answer:
        """Keep a request, wait out the delay, and say the answer. Called from the server's threads."""
        with self._lock:
            self.requests.append(request)
        if self.delay:
            self._stopping.wait(self.delay)
        return self.answer(request)

    def _told(self) -> str:
        return "so far: " + ", ".join(f"{request.method} {request.path}" for request in self.snapshot()[-10:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _handler(stub: StubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def _serve(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            answer = stub.take(Request(self.command, self.path, headers, body, time.time()))
            try:
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client did not wait for the answer

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the requests are kept."""

    return Handler


class StubMetrics(StubServer):
    """A target for a real Prometheus: it exposes what a test sets.

    `set("prep_postgres_up", 0, server="postgres")` sets one series; `remove` takes series away. `status` is its answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self._series: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._text: str | None = None

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set one series; it is exposed from the next scrape on."""
        with self._lock:
            self._text = None
            self._series[(name, tuple(sorted(labels.items())))] = value

    def remove(self, name: str, **labels: str) -> None:
        """Take away every series of this name that has these labels."""
        wanted = set(labels.items())
        with self._lock:
            self._series = {
                key: value for key, value in self._series.items() if key[0] != name or not wanted <= set(key[1])
            }

    def set_text(self, text: str) -> None:
        """Expose this text as it is, instead of single series."""
        with self._lock:
            self._text = text

    def answer(self, request: Request) -> Answer:
        with self._lock:
            text = self._text if self._text is not None else "".join(map(_line, self._series.items()))
        return Answer(self.status, text.encode(), {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def wait_scrapes(self, count: int = 2, deadline: float = 15.0) -> None:
        """Wait until it has been scraped `count` more times: what was set before is known then."""
        self.wait_requests(len(self.snapshot()) + count, deadline=deadline)


def _line(series: tuple[tuple[str, tuple[tuple[str, str], ...]], float]) -> str:
    (name, labels), value = series
    # Escapes of the text format: backslash, quote and line feed (prometheus.io/docs, exposition formats).
    pairs = ",".join(
        '{}="{}"'.format(key, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for key, text in labels
    )
    return f"{name}{{{pairs}}} {float(value)!r}\n"


class WebhookRecorder(StubServer):
    """People's inbox: keeps each body that was posted. `status` and `delay` make it refuse or dawdle.

    `answers` are given first, one a request (a 503, then a 200), `status` after them.
    """

    def __init__(self, status: int = 200) -> None:
        super().__init__()
        self.status = status
        self.answers: list[int] = []

    def answer(self, request: Request) -> Answer:
        with self._lock:
            status = self.answers.pop(0) if self.answers else self.status
        return Answer(status)

    def bodies(self, path: str | None = None) -> list[Any]:
        """What was posted, as JSON, oldest first; to one path or to any."""
        posts = [request for request in self.snapshot() if request.method == "POST"]
        return [request.json() for request in posts if path is None or request.path == path]

    def alerts(self, path: str | None = None, **labels: str) -> list[dict[str, Any]]:
        """The alerts in all of Alertmanager's notifications that have these labels."""
        found = [alert for body in self.bodies(path) for alert in body["alerts"]]
        return [alert for alert in found if all(alert["labels"].get(key) == value for key, value in labels.items())]

    def wait_alert(self, path: str | None = None, deadline: float = 30.0, **labels: str) -> dict[str, Any]:
        """Wait until an alert with these labels has come in; the first."""
        return wait_until(lambda: self.alerts(path, **labels), f"an alert with {labels}", deadline, seen=self._told)[0]
