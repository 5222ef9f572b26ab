"""Probes against real sockets: healthy, hung, refusing, dripping and babbling ones, and real certificates."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from exporter.background_settings import ProbesCollector as ProbesSettings
from exporter.collectors.probes import ProbesCollector
from exporter.errors import Transient
from exporter.trust import Trust
from tests.integration.exporter_parts import in_seconds, shown
from tests.support.servers import Answer, Request, StubServer, free_port

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def listening(behave: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port of 127.0.0.1 that does as told on every connection; its port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await behave(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(answer: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        await reader.read()

    return behave


def repeating(first: bytes, then: bytes, pause: float) -> Behaviour:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(then)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


async def silent(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def hanging_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    return


@asynccontextmanager
async def collector(targets: Mapping[str, Mapping[str, Any]], **settings: Any) -> AsyncIterator[ProbesCollector]:
    made = ProbesCollector(ProbesSettings.model_validate({"targets": targets, "interval": "60s", **settings}))
    try:
        yield made
    finally:
        await made.close()


def reasons(found: Mapping[tuple[str, ...], float], target: str) -> list[str]:
    """Why it has failed so far, once for each time."""
    return [
        key[2] for key, value in found.items() if key[:2] == ("probe_failures_total", target) for _ in range(int(value))
    ]


ILL: list[tuple[str, Behaviour, str, str]] = [
    ("silent", silent, "timeout", "none"),
    ("hanging_up", hanging_up, "answer", "none"),
    ("dripping head", repeating(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.05), "timeout", "none"),
    ("dripping body", repeating(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x", 0.05), "timeout", "2xx"),
    ("stopping body", answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nx"), "timeout", "2xx"),
    ("garbage", answering(b"\x00\xff\x16SSH-2.0-x\r\n\r\n\r\n"), "answer", "none"),
    ("endless line", repeating(b"HTTP/1.1 200 ", b"x" * 65536, 0.001), "answer", "none"),
    ("endless chunk", answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "answer", "none"),
    ("strange status", answering(b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n"), "status", "none"),
    ("failing", answering(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), "status", "5xx"),
    ("redirect", answering(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), "status", "3xx"),
    ("bad cookie", answering(b"HTTP/1.1 200 OK\r\nSet-Cookie: \xff;;=\r\nContent-Length: 2\r\n\r\nno"), "text", "2xx"),
]


async def test_whatever_a_host_does_it_costs_its_own_timeout() -> None:
    """Twelve ill hosts, one that refuses and a name without address beside a healthy one: one short round, each told."""
    async with collectors_of_ill() as (probes, names):
        began = time.monotonic()
        found = shown(await probes.collect(in_seconds(20)))
        assert time.monotonic() - began < 3.0
        told = {name: (reasons(found, name), status_of(found, name)) for name in names}
        expected = {name: ([reason], status) for name, _, reason, status in ILL}
        assert told == {
            **expected,
            "healthy": ([], "2xx"),
            "refusing": (["connect"], "none"),
            "nameless": (told["nameless"][0], "none"),
        }
        assert told["nameless"][0] in (["resolve"], ["timeout"])  # a resolver without a network may take its time
        assert {name for name in names if found["probe_up", name] == 1} == {"healthy"}
        assert all(found["probe_duration_seconds", name] == 1 for name in names)


def status_of(found: Mapping[tuple[str, ...], float], target: str) -> str:
    (status,) = [key[2] for key, value in found.items() if key[:2] == ("probe_status_class", target) and value == 1]
    return status


@asynccontextmanager
async def collectors_of_ill() -> AsyncIterator[tuple[ProbesCollector, list[str]]]:
    """One collector over all of `ILL`, a refused port, a name without address, and a healthy host."""
    settings = {"timeout": "1s", "expected_text": "ok"}
    async with listening(answering(OK)) as healthy:
        targets = {
            "healthy": {"url": f"http://127.0.0.1:{healthy}/", **settings},
            "refusing": {"url": f"http://127.0.0.1:{free_port()}/", **settings},
            "nameless": {"url": "http://no-such-host.invalid/", **settings},
        }
        servers = [listening(behave) for _, behave, _, _ in ILL]
        ports = [await server.__aenter__() for server in servers]
        for (name, *_), port in zip(ILL, ports, strict=True):
            targets[name] = {"url": f"http://127.0.0.1:{port}/", **settings}
        try:
            async with collector(targets, at_once=20) as made:
                yield made, list(targets)
        finally:
            for server in servers:
                await server.__aexit__(None, None, None)


async def test_places_are_bounded_and_all_are_used() -> None:
    """Nine hung hosts in three places: three connections at once, three timeouts long."""
    open_now, most = 0, 0

    async def counting(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            await reader.read(-1)  # until the probe gives up
        finally:
            open_now -= 1

    async with listening(counting) as port:
        targets = {f"t{number}": {"url": f"http://127.0.0.1:{port}/", "timeout": "300ms"} for number in range(9)}
        async with collector(targets, at_once=3) as probes:
            began = time.monotonic()
            found = shown(await probes.collect(in_seconds(20)))
            took = time.monotonic() - began
    assert most == 3
    assert 0.85 < took < 1.6
    assert all(found["probe_up", name] == 0 for name in targets)


async def test_target_that_comes_back_is_up_at_once_and_counters_only_rise() -> None:
    """Up, down, up: the histogram counts every probe, the failures stay counted, and no connection is kept."""
    stub = StubServer()
    async with collector({"web": {"url": stub.url, "timeout": "1s"}}) as probes:
        ups, counts, failures = [], [], []
        for up in (True, False, True, True):
            if up:
                stub.start()
            else:
                stub.stop()
            found = shown(await probes.collect(in_seconds(5)))
            ups.append(found["probe_up", "web"])
            counts.append(found["probe_duration_seconds", "web"])
            failures.append(len(reasons(found, "web")))
    stub.stop()
    assert (ups, counts, failures) == ([1, 0, 1, 1], [1, 2, 3, 4], [0, 1, 1, 1])


class Redirecting(StubServer):
    """/ leads to /end, /loop to itself, /away to a scheme that nobody knows."""

    def answer(self, request: Request) -> Answer:
        to = {"/": "/end", "/loop": "/loop", "/away": "gopher://x/", "/broken": "http://[::"}.get(request.path)
        return Answer(200, b"the end") if to is None else Answer(302, b"", {"Location": to})


async def test_redirects_are_followed_only_when_told() -> None:
    """Told: up to the end, and a loop or a place that is none is a failure. Not told: not one request more."""
    with Redirecting() as stub:
        follow = {"follow_redirects": True, "timeout": "3s"}
        targets = {
            "plain": {"url": f"{stub.url}/", "expected_status": [302]},
            "told": {"url": f"{stub.url}/", "expected_text": "the end", **follow},
            "loop": {"url": f"{stub.url}/loop", **follow},
            "away": {"url": f"{stub.url}/away", **follow},
            "broken": {"url": f"{stub.url}/broken", **follow},
        }
        async with collector(targets) as probes:
            found = shown(await probes.collect(in_seconds(10)))
        ends = [request.path for request in stub.snapshot()].count("/end")
        one = stub.snapshot()[0]
    assert {name: found["probe_up", name] for name in targets} == {
        "plain": 1, "told": 1, "loop": 0, "away": 0, "broken": 0,
    }  # fmt: skip
    assert ends == 1
    assert {name: reasons(found, name) for name in ("loop", "away", "broken")} == {
        "loop": ["answer"], "away": ["answer"], "broken": ["answer"],
    }  # fmt: skip
    assert (one.method, one.headers["user-agent"], one.headers["accept-encoding"]) == (
        "GET",
        "prep-exporter",
        "identity",
    )


async def test_body_is_read_up_to_its_cap() -> None:
    """An endless body ends at the cap: up when the text is in it by then, no text beyond it, and no time lost."""
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nready")
        while True:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async with listening(endless) as port:
        here = {"url": f"http://127.0.0.1:{port}/", "timeout": "5s", "max_body_bytes": 100_000}
        targets = {"in": {**here, "expected_text": "ready"}, "beyond": {**here, "expected_text": "never"}}
        async with collector(targets) as probes:
            began = time.monotonic()
            found = shown(await probes.collect(in_seconds(10)))
            assert time.monotonic() - began < 2
    assert (found["probe_up", "in"], reasons(found, "beyond")) == (1, ["text"])
    assert sent < 50_000_000  # what the sockets' buffers take, not what could be sent in 5 s


async def test_tcp_probe_connects_and_says_nothing() -> None:
    """Up when somebody listens, `connect` when nobody does; not a byte is sent."""
    heard: list[bytes] = []

    async def hearing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            heard.append(await reader.read(1))

    async with listening(hearing) as port:
        targets = {"open": {"url": f"tcp://localhost:{port}"}, "closed": {"url": f"tcp://127.0.0.1:{free_port()}"}}
        async with collector(targets) as probes:
            found = shown(await probes.collect(in_seconds(10)))
    assert (found["probe_up", "open"], reasons(found, "closed")) == (1, ["connect"])
    assert [part for part in heard if part] == []
    assert not any(key[0] == "probe_status_class" for key in found)


# Certificates

EXPIRES = datetime.now(UTC).replace(microsecond=0) + timedelta(days=20)
EXPIRED = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)


def server_tls(ca: trustme.CA, name: str, expires: datetime) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    begins = min(expires, datetime.now(UTC)) - timedelta(days=10)
    ca.issue_cert(name, not_before=begins, not_after=expires).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    """An authority and the file of its certificate."""
    ca, file = trustme.CA(), tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    return ca, file


@pytest.mark.parametrize("scheme", ["https", "tls"])
async def test_certificate_is_checked_and_its_expiry_shown(scheme: str, authority: tuple[trustme.CA, Path]) -> None:
    """Valid: up, with its expiry. Expired: down, and its expiry too. Another name or an unknown authority: down, and no
    expiry, since nobody vouches for it."""
    ca, file = authority
    of = "/" if scheme == "https" else ""
    async with (
        listening(answering(OK), server_tls(ca, "localhost", EXPIRES)) as valid,
        listening(answering(OK), server_tls(ca, "localhost", EXPIRED)) as expired,
        listening(answering(OK), server_tls(ca, "elsewhere.example", EXPIRES)) as misnamed,
        listening(answering(OK), server_tls(trustme.CA(), "localhost", EXPIRES)) as foreign,
        listening(answering(b"SSH-2.0-x\r\n")) as plain,
        listening(silent) as hung,
    ):
        ports = {
            "valid": valid, "expired": expired, "misnamed": misnamed, "foreign": foreign, "plain": plain, "hung": hung,
            "refusing": free_port(),
        }  # fmt: skip
        targets = {
            name: {"url": f"{scheme}://localhost:{port}{of}", "timeout": "1s", "ca_file": str(file)}
            for name, port in ports.items()
        }
        async with collector(targets) as probes:
            for _ in range(2):  # the second time on contexts that were kept
                found = shown(await probes.collect(in_seconds(10)))
    assert {name for name in targets if found["probe_up", name] == 1} == {"valid"}
    told = {name: set(reasons(found, name)) for name in targets}
    assert told["plain"] <= {"tls", "timeout"}  # a server that waits for more looks like one that hangs
    assert {name: reason for name, reason in told.items() if name != "plain"} == {
        "valid": set(), "expired": {"tls"}, "misnamed": {"tls"}, "foreign": {"tls"}, "hung": {"timeout"},
        "refusing": {"connect"},
    }  # fmt: skip
    expiries = {key[1]: value for key, value in found.items() if key[0].startswith("probe_certificate_expiry")}
    assert expiries == {"valid": EXPIRES.timestamp(), "expired": EXPIRED.timestamp()}


async def test_authorities_are_loaded_once_for_all_probes_and_beside_the_loop(
    authority: tuple[trustme.CA, Path], tmp_path: Path
) -> None:
    """Loading them takes long, so it costs nobody's timeout: one context for all that name a file, kept while the file
    holds what it held, also when it was doubted; a file that is not there is told each time."""
    _, file = authority
    trust = Trust([file, None, tmp_path / "none"])
    made = set(await asyncio.gather(*(trust.context(file) for _ in range(50))))
    (thread,) = [each for each in threading.enumerate() if each.name == f"authorities {file}"]
    assert thread is not threading.main_thread()
    assert len(made) == 1
    for _ in range(3):
        trust.doubt(file)
        assert await trust.context(file) in made
    assert await trust.context(None) not in made
    assert await trust.context(file, expired=True) not in made
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await trust.context(tmp_path / "none")
    await trust.close()


async def test_renewed_authority_is_taken_without_a_restart(tmp_path: Path) -> None:
    """The file of authorities is read again once a certificate was refused."""
    ca, file = trustme.CA(), tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    async with (
        listening(answering(OK), server_tls(ca, "localhost", EXPIRES)) as port,
        collector({"web": {"url": f"https://localhost:{port}/", "ca_file": str(file)}}) as probes,
    ):
        assert shown(await probes.collect(in_seconds(10)))["probe_up", "web"] == 0
        ca.cert_pem.write_to_path(str(file))
        assert shown(await probes.collect(in_seconds(10)))["probe_up", "web"] == 1
        file.unlink()  # a good context is kept
        assert shown(await probes.collect(in_seconds(10)))["probe_up", "web"] == 1


async def test_round_that_is_cut_short_is_told_and_the_next_one_is_whole() -> None:
    """A deadline before the probes' own timeouts ends the round, leaves no task, and keeps nothing busy."""
    async with (
        listening(silent) as hung,
        collector({"hung": {"url": f"http://127.0.0.1:{hung}/", "timeout": "300ms"}}, at_once=1) as probes,
    ):
        with pytest.raises(Transient, match="not over at its deadline"):
            await probes.collect(in_seconds(0.1))
        found = shown(await probes.collect(in_seconds(5)))
    assert found["probe_duration_seconds", "hung"] == 1
