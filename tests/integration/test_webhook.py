"""Intake over a real socket into a real journal: what is answered is durable, and nothing else is."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from remediator.alerts import parse
from remediator.errors import JournalError
from tests.support.deliveries import REAL, alert, delivery, read
from tests.support.http_side import BEARER, OTHER_TOKEN, TOKEN, Side, serve
from tests.support.waiting import free_port

MANY = 200


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    """The HTTP side with a small limit for bodies: 1 MiB."""
    async with serve(tmp_path, max_bytes=1024 * 1024) as side:
        yield side


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a limit on connections: 200 at once are 200 at once."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def post(client: aiohttp.ClientSession, side: Side, body: Any, **headers: str) -> tuple[int, Any]:
    """POST to the webhook with the valid token; `headers` add to it."""
    async with client.post(side.hook, data=body, headers={**BEARER, **headers}) as answer:
        return answer.status, await answer.json()


def _head(length: int) -> bytes:
    """A request's head, for a body that is written by hand."""
    lines = ("POST /alertmanager HTTP/1.1", "Host: x", f"Authorization: Bearer {TOKEN}", f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def stored(folder: Path) -> list[bytes]:
    """Bodies in the inbox, read past the program."""
    with sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True) as database:
        found = [row[0] for row in database.execute("SELECT body FROM inbox WHERE kind = 'delivery' ORDER BY id")]
    database.close()
    return found


# -- what is taken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
async def test_a_real_body_is_stored_byte_for_byte(
    side: Side, client: aiohttp.ClientSession, tmp_path: Path, name: str
) -> None:
    """What Alertmanager sent is in the journal as it came, before it is told so."""
    status, said = await post(client, side, read(name))
    assert (status, said["status"]) == (200, "stored")
    assert stored(tmp_path) == [read(name)]
    assert side.count("prep_remediator_deliveries_total", result="stored") == 1
    assert side.journal.wake.is_set()


async def test_alerts_are_counted_by_status(side: Side, client: aiohttp.ClientSession) -> None:
    """Of a group each alert counts, firing and resolved apart."""
    await post(client, side, read("firing_10"))
    await post(client, side, read("resolved_1"))
    assert side.count("prep_remediator_alerts_total", status="firing") == 10
    assert side.count("prep_remediator_alerts_total", status="resolved") == 1


async def test_alerts_that_were_cut_off_are_read_from_alertmanager(side: Side, client: aiohttp.ClientSession) -> None:
    """Alertmanager never delivers what `max_alerts` cut: the rest is asked for, and counted."""
    assert (await post(client, side, read("firing_10")))[0] == 200
    assert not side.blind.is_set()
    assert (await post(client, side, read("truncated_3_of_5")))[0] == 200
    assert side.blind.is_set()
    assert side.count("prep_remediator_truncated_alerts_total") == 3


async def test_a_compressed_body_is_read(side: Side, client: aiohttp.ClientSession, tmp_path: Path) -> None:
    """A proxy in between may compress; what is stored is the plain body."""
    body = gzip.compress(read("firing_1"))
    status, _ = await post(client, side, body, **{"Content-Encoding": "gzip"})
    assert status == 200
    assert stored(tmp_path) == [read("firing_1")]


async def test_a_body_of_unknown_length_is_read(side: Side, client: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Chunked, without Content-Length."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(read("firing_10")), 1000):
            yield read("firing_10")[start : start + 1000]

    assert (await post(client, side, pieces()))[0] == 200
    assert stored(tmp_path) == [read("firing_10")]


# -- who may send -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "token_missing"),
        ("", "token_missing"),
        ("Bearer", "token_missing"),
        ("Bearer ", "token_missing"),
        (f"Basic {TOKEN}", "token_missing"),
        ("Bearer wrong", "token_wrong"),
        (f"Bearer {TOKEN}x", "token_wrong"),
        (f"Bearer {TOKEN[:-1]}", "token_wrong"),
        ("Bearer z\u00e4hne", "token_wrong"),
    ],
)
async def test_without_the_token_nothing_is_taken(
    side: Side, client: aiohttp.ClientSession, tmp_path: Path, header: str | None, code: str
) -> None:
    """401 with what to do, no body read, nothing stored, the token in no answer."""
    headers = {} if header is None else {"Authorization": header}
    async with client.post(side.hook, data=read("firing_1"), headers=headers) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        said = await answer.text()
    assert json.loads(said)["error"]["code"] == code
    assert TOKEN not in said
    assert stored(tmp_path) == []
    assert side.count("prep_remediator_deliveries_total", result="unauthorized") == 1


async def test_tokens_are_rotated_without_a_gap(side: Side, client: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Old alone, both, new alone: the files are read again when they change, without a restart."""
    old, new = BEARER, {"Authorization": f"Bearer {OTHER_TOKEN}"}

    async def statuses() -> list[int]:
        found = []
        for headers in (old, new):
            async with client.post(side.hook, data=read("firing_1"), headers=headers) as answer:
                found.append(answer.status)
        return found

    assert await statuses() == [200, 401]
    (tmp_path / "token.next").write_text(f"{OTHER_TOKEN}\n")
    assert await statuses() == [200, 200]
    (tmp_path / "token").unlink()
    assert await statuses() == [401, 200]


async def test_without_any_token_the_sender_is_asked_to_wait(
    side: Side, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """No token can be read: the fault is ours, so 503 (Alertmanager tries again), and nobody gets in."""
    (tmp_path / "token").unlink()
    for headers in (BEARER, {"Authorization": "Bearer "}, {}):
        async with client.post(side.hook, data=read("firing_1"), headers=headers) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert stored(tmp_path) == []


@pytest.mark.parametrize("path", ["/alertmanager/", "/Alertmanager", "/alertmanager/x", "/", "//alertmanager"])
async def test_only_the_exact_path_takes_deliveries(
    side: Side, client: aiohttp.ClientSession, tmp_path: Path, path: str
) -> None:
    """A near miss is 404 and not a second way in; "/" leads a browser to the console and is there for GET alone."""
    async with client.post(side.url + path, data=read("firing_1"), headers=BEARER) as answer:
        assert answer.status == (405 if path == "/" else 404)
    assert stored(tmp_path) == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_only_post_takes_deliveries(side: Side, client: aiohttp.ClientSession, method: str) -> None:
    """Other methods are told which one it is."""
    async with client.request(method, side.hook, data=read("firing_1"), headers=BEARER) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


# -- what can never be read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b'{"version": "4", "alerts": [', "not_json"),
        (b"", "not_json"),
        (delivery([alert()], version="5"), "unknown_version"),
        (b'["version", "4"]', "not_an_object"),
        (delivery([{"status": "firing"}]), "bad_alert"),
        (b"[" * 200_000, "not_json"),
    ],
)
async def test_what_can_never_be_read_is_kept_counted_and_told(
    side: Side, client: aiohttp.ClientSession, tmp_path: Path, body: bytes, cause: str
) -> None:
    """2xx, since a 4xx would come again at every flush; a dead letter, and a look at what it may have carried."""
    status, said = await post(client, side, body)
    assert (status, said["status"], said["cause"]) == (200, "dead_letter", cause)
    assert stored(tmp_path) == []
    assert await side.journal.dead_letters() == {cause: 1}
    assert side.count("prep_remediator_dead_letters_total", cause=cause) == 1
    assert side.count("prep_remediator_deliveries_total", result="dead_letter") == 1
    assert side.blind.is_set()


async def test_a_full_quota_still_counts(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """Dead letters cannot fill the disk: two are kept, all five are counted and told."""
    async with serve(tmp_path, dead_letters=2) as side:
        for _ in range(5):
            assert (await post(client, side, b"{"))[1]["status"] == "dead_letter"
        assert await side.journal.dead_letters() == {"not_json": 5}
    with sqlite3.connect(tmp_path / "journal.db") as database:
        assert database.execute("SELECT count(*) FROM dead_letters").fetchone() == (2,)
    database.close()


async def test_20_megabytes_are_refused_early_and_told(
    side: Side, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """413 from its declared length alone; recorded, since Alertmanager does not try a 4xx again in that flush."""
    status, said = await post(client, side, io.BytesIO(b" " * (20 * 1024 * 1024)))
    assert (status, said["error"]["code"]) == (413, "too_large")
    assert await side.journal.dead_letters() == {"too_large": 1}
    assert side.count("prep_remediator_deliveries_total", result="too_large") == 1
    assert side.blind.is_set()
    assert stored(tmp_path) == []
    assert (await post(client, side, read("firing_1")))[0] == 200


async def test_the_answer_comes_before_a_large_body_does(side: Side) -> None:
    """Whoever declares 20 MB is answered after the first bytes: the rest is never waited for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(side.url.rsplit(":", 1)[1]))
    writer.write(_head(20 * 1024 * 1024) + b'{"receiver":"x"')
    async with asyncio.timeout(10.0):
        assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
    writer.close()
    await writer.wait_closed()


async def test_a_stream_without_end_is_cut_at_the_limit(side: Side, client: aiohttp.ClientSession) -> None:
    """Chunked bodies have no declared length: counted while they come."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 65536

    status, said = await post(client, side, endless())
    assert (status, said["error"]["code"]) == (413, "too_large")


async def test_a_bomb_is_cut_at_the_limit(side: Side, client: aiohttp.ClientSession) -> None:
    """50 MB of blanks compress to 50 kB: the limit holds for what comes out."""
    status, _ = await post(client, side, gzip.compress(b" " * 50_000_000), **{"Content-Encoding": "gzip"})
    assert status == 413


async def test_half_a_body_is_not_a_delivery(side: Side, tmp_path: Path) -> None:
    """The sender dies in the middle: nothing is stored, nothing hangs."""
    _, writer = await asyncio.open_connection("127.0.0.1", int(side.url.rsplit(":", 1)[1]))
    writer.write(_head(2000) + read("firing_1")[:500])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(5.0):
        while not side.count("prep_remediator_deliveries_total", result="incomplete"):
            await asyncio.sleep(0.01)
    assert stored(tmp_path) == []


async def test_a_large_body_does_not_block_the_loop(side: Side, client: aiohttp.ClientSession) -> None:
    """A body of nearly 1 MiB is parsed off the loop's thread, which never works as long as that takes at once.

    Counted in the thread's own processor time, so that a busy machine changes nothing.
    """
    large = delivery([alert(labels={"n": str(n), "pad": "x" * 500}, fingerprint=f"{n:x}") for n in range(1100)])
    assert 800_000 < len(large) < 1024 * 1024
    began = time.thread_time()
    parse(large)
    parsing = time.thread_time() - began
    longest, posting = 0.0, asyncio.create_task(post(client, side, large))
    while not posting.done():
        before = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - before)
    assert (await posting)[0] == 200
    assert longest < parsing / 2


# -- when it cannot be taken ------------------------------------------------------------------------------


async def test_a_journal_that_fails_is_said_and_tried_again(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """503 with Retry-After while it cannot be written; 200 as soon as it can; the alerts are read back meanwhile."""
    ill = True

    async def store(bodies: Sequence[tuple[str, bytes]]) -> None:
        if ill:
            raise JournalError("database or disk is full")
        await served.journal.store(bodies)

    async with serve(tmp_path, store=store) as served:
        async with client.post(served.hook, data=read("firing_1"), headers=BEARER) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert "disk is full" in (await answer.json())["error"]["message"]
        assert served.blind.is_set()
        assert served.count("prep_remediator_journal_failures_total") == 1
        assert served.count("prep_remediator_deliveries_total", result="journal_failed") == 1
        ill = False
        assert (await post(client, served, read("firing_1")))[0] == 200
    assert stored(tmp_path) == [read("firing_1")]


async def test_more_than_can_wait_is_asked_to_come_again(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """A stuck journal does not pile bodies up: beyond the bound 503 at once, and those within it are kept."""
    gate = asyncio.Event()

    async def store(bodies: Sequence[tuple[str, bytes]]) -> None:
        await gate.wait()
        await served.journal.store(bodies)

    async with serve(tmp_path, store=store, waiting=8) as served:
        posts = [asyncio.create_task(post(client, served, read("firing_1"))) for _ in range(40)]
        async with asyncio.timeout(30.0):  # at most 8 are in the writer's hands and 8 wait
            while served.count("prep_remediator_deliveries_total", result="overloaded") < 24:
                await asyncio.sleep(0.01)
        gate.set()
        answers = [await task for task in posts]
    statuses = [status for status, _ in answers]
    assert set(statuses) == {200, 503}
    assert len(stored(tmp_path)) == statuses.count(200) >= 8


async def test_a_journal_that_hangs_is_not_waited_for(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """503 after the time a sender waits; what was told to come again is not written behind its back later."""
    gate = asyncio.Event()

    async def store(bodies: Sequence[tuple[str, bytes]]) -> None:
        await gate.wait()
        await served.journal.store(bodies)

    first, second, third = (delivery([alert(fingerprint=mark)]) for mark in "abc")
    async with serve(tmp_path, store=store, patience=1.0) as served:
        writing = asyncio.create_task(post(client, served, first))
        await asyncio.sleep(0.1)
        statuses = [(await post(client, served, second))[0], (await writing)[0]]
        gate.set()
        statuses.append((await post(client, served, third))[0])
    assert statuses == [503, 503, 200]
    assert stored(tmp_path) == [first, third]


async def test_shutting_down_leaves_nobody_waiting(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """When the writer ends, whoever waits for it is told to come again: no silence, no false yes."""
    never = asyncio.Event()

    async def store(bodies: Sequence[tuple[str, bytes]]) -> None:
        await never.wait()

    async with serve(tmp_path, store=store) as side:
        waiting = [asyncio.create_task(side.intake.batcher.put(b"{}")) for _ in range(3)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [JournalError] * 3
    with pytest.raises(JournalError):
        await side.intake.batcher.put(b"{}")


# -- load and death ---------------------------------------------------------------------------------------


async def test_200_at_once_share_transactions(side: Side, client: aiohttp.ClientSession, tmp_path: Path) -> None:
    """All are stored, in far fewer transactions than bodies."""
    bodies = [delivery([alert(fingerprint=f"{n:016x}")]) for n in range(MANY)]
    answers = await asyncio.gather(*(post(client, side, body) for body in bodies))
    assert {status for status, _ in answers} == {200}
    assert sorted(stored(tmp_path)) == sorted(bodies)
    batches = side.count("prep_remediator_intake_batch_deliveries_count")
    assert batches < MANY / 2


class Process:
    """The HTTP side as a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "tests.support.http_side", str(folder), str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self.pid = self._process.pid
        self.hook = f"http://127.0.0.1:{self.port}/alertmanager"

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more."""
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    yield process
    process.kill()


async def _flood(client: aiohttp.ClientSession, hook: str, acknowledged: set[bytes], count: int) -> None:
    """`count` posts at once; those answered with 200 are in `acknowledged`, the others failed somehow."""

    async def one(n: int) -> None:
        body = delivery([alert(fingerprint=f"{n:016x}")])
        try:
            async with client.post(hook, data=body, headers=BEARER) as answer:
                if answer.status == 200:
                    acknowledged.add(body)
        except (aiohttp.ClientError, ConnectionError):
            return

    await asyncio.gather(*(one(n) for n in range(count)))


@pytest.mark.parametrize("moment", [1, 60, 150])
async def test_killed_under_load_it_has_lost_nothing_it_acknowledged(
    process: Process, client: aiohttp.ClientSession, tmp_path: Path, moment: int
) -> None:
    """kill -9 after so many acknowledgements: each of them is in the journal that is opened again."""
    acknowledged: set[bytes] = set()
    flood = asyncio.create_task(_flood(client, process.hook, acknowledged, MANY))
    while len(acknowledged) < moment and not flood.done():
        await asyncio.sleep(0)
    process.kill()
    await flood
    assert len(acknowledged) >= moment
    assert acknowledged <= set(stored(tmp_path))


async def test_an_error_of_the_disk_is_never_a_yes(
    process: Process, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The journal's files cannot grow (RLIMIT_FSIZE): 503 for what is not durable; the next start takes it."""
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    size = (tmp_path / "journal.db-wal").stat().st_size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard))
    acknowledged: set[bytes] = set()
    await _flood(client, process.hook, acknowledged, 20)
    async with client.post(process.hook, data=read("firing_1"), headers=BEARER) as answer:
        assert answer.status == 503
    process.kill()
    assert acknowledged <= set(stored(tmp_path))
    async with serve(tmp_path) as side:
        assert (await post(client, side, read("firing_1")))[0] == 200
    assert read("firing_1") in stored(tmp_path)
