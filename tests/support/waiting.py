"""Waiting with a deadline, loopback ports and a small HTTP client for the servers that tests start.

Nothing here sleeps without a deadline, and nothing leaves a socket open.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

# Below the kernel's range for outgoing connections (ip_local_port_range starts at 32768), so that no client can
# take a server's port while the server is down between stop() and start().
_FIRST_PORT, _LAST_PORT = 20_000, 32_000
# A run in several processes (pytest-xdist names them gw0, gw1, …): each has a part of the ports, since one that was
# given out and has no listener yet looks free to the others.
_PARTS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PART = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_claimed: set[int] = set()


class NotInTime(AssertionError):
    """Something did not happen before its deadline; the message says what was awaited and what was seen last."""


def wait_until(
    condition: Callable[[], T],
    what: str,
    deadline: float = 30.0,
    every: float = 0.05,
    seen: Callable[[], str] | None = None,
) -> T:
    """Ask `condition` every `every` seconds until it is truthy, and return what it said.

    Connection errors and timeouts count as "not yet". After `deadline` seconds raises NotInTime with `what`, the
    last answer or error, and whatever `seen` returns (a log's tail, say).
    """
    end = time.monotonic() + deadline
    last: object = None
    while True:
        try:
            answer = condition()
            if answer:
                return answer
            last = answer
        except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
            last = error
        if time.monotonic() >= end:
            tail = f"\n{seen()}" if seen else ""
            raise NotInTime(f"waited {deadline:g} s for {what}; last: {last!r}{tail}")
        time.sleep(every)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on and that this run has not given out before."""
    for _ in range(1000):
        port = random.randrange(_FIRST_PORT + _PART, _LAST_PORT, _PARTS)
        if port in _claimed:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _claimed.add(port)
        return port
    raise OSError(f"no free port on 127.0.0.1 between {_FIRST_PORT} and {_LAST_PORT}")


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Does somebody accept connections on this port?"""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON. Raises AssertionError naming status and body when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise AssertionError(f"not JSON (status {self.status}): {self.body[:500]!r}") from error


def fetch(
    url: str,
    method: str = "GET",
    body: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 5.0,
) -> Reply:
    """One HTTP request on a connection of its own; any status is an answer. Raises OSError when there is none."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def post_json(url: str, value: object, headers: Mapping[str, str] | None = None, timeout: float = 5.0) -> Reply:
    """POST `value` as JSON."""
    return fetch(url, "POST", json.dumps(value), {"Content-Type": "application/json", **(headers or {})}, timeout)
