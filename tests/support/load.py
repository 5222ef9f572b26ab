"""A light load generator for HTTP: so many POSTs over so many kept connections, each answer timed.

Bytes are written and read by hand over asyncio: what a client library costs would be taken from the server, which runs
on the same cores.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

GIVE_UP = 120.0  # seconds for the whole load


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of it. Seconds; `statuses` counts answers, 0 is a connection that broke."""

    took: float
    latencies: tuple[float, ...]
    statuses: Mapping[int, int]

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.took

    def percentile(self, number: int) -> float:
        """The latency that so many of a hundred do not exceed."""
        return statistics.quantiles(self.latencies, n=100)[number - 1]


def fire(url: str, bodies: Sequence[bytes], at_once: int, headers: Mapping[str, str]) -> Loaded:
    """POST each body once; `at_once` connections, each with one request under way."""
    parts = urlsplit(url)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n{head}"
    requests = [f"{start}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    return asyncio.run(_fire(parts.hostname or "127.0.0.1", parts.port or 80, requests, at_once))


async def _fire(host: str, port: int, requests: Sequence[bytes], at_once: int) -> Loaded:
    left, latencies, statuses = iter(requests), list[float](), dict[int, int]()
    connections = [await asyncio.open_connection(host, port) for _ in range(at_once)]
    began = time.perf_counter()
    async with asyncio.timeout(GIVE_UP):
        await asyncio.gather(*(_send(*each, left, latencies, statuses) for each in connections))
    took = time.perf_counter() - began
    for _, writer in connections:
        writer.close()
    return Loaded(took, tuple(latencies), statuses)


async def _send(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    left: Iterator[bytes],
    latencies: list[float],
    statuses: dict[int, int],
) -> None:
    for request in left:
        began = time.perf_counter()
        writer.write(request)
        try:
            status = await _answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            status = 0
        latencies.append(time.perf_counter() - began)
        statuses[status] = statuses.get(status, 0) + 1
        if status == 0:
            return


async def _answer(reader: asyncio.StreamReader) -> int:
    """Read one whole answer with a Content-Length; its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    length = next((int(line.split(":")[1]) for line in head if line.lower().startswith("content-length:")), 0)
    await reader.readexactly(length)
    return int(head[0].split()[1])
