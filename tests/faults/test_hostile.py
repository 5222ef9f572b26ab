"""Hostile input at the real process, all runbooks in auto, all targets live: it takes everything and does nothing.

The targets are sick, and an alert that named them rightly would be acted on; each test ends with such an alert, and with
exactly one effect. What was done is counted at the targets.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.targets import Reader
from tests.support.docker_engine import DockerEngine
from tests.support.hostile import Aim, bodies
from tests.support.journals import Place
from tests.support.remediation import (
    API_TOKEN,
    ENVIRONMENT,
    QUERIES_JOB,
    SERVICES_JOB,
    SICK,
    SLOW,
    STALLED,
    TOKEN,
    Remediator,
    SickService,
    World,
    database_entry,
    query_book,
    restart_book,
    service_entries,
)
from tests.support.servers import Run, fetch, wait_until

SOME, MANY = 3_000, 20_000
SEED = int(os.environ.get("HOSTILE_SEED", "5"))
SENDERS = 4
LEFT = "DatabaseLeft"  # matched by the runbook of queries, and by no rule
FORBIDDEN = {*range(32), 127, *range(128, 160)} - {ord("\n")}  # what a terminal acts on
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Stage:
    """Three live targets and the remediator that may act on them."""

    remediator: Remediator
    service: SickService
    well: SickService
    reader: Reader
    marker: Path

    def aims(self) -> tuple[Aim, Aim]:
        """What a restart and what a cancel is done for."""
        well, marker = self.well.name, self.marker
        return (
            Aim(SICK, STALLED, SERVICES_JOB, ENVIRONMENT, self.service.name, well, marker),
            Aim(SLOW, LEFT, QUERIES_JOB, ENVIRONMENT, self.reader.name, well, marker),
        )

    def effects(self) -> tuple[int, int, int]:
        """By the targets' own count: restarts of the sick and of the well service, ended queries."""
        return self.service.effects, self.well.effects, self.reader.effects


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, ["checkout", "search"]) as world:
        yield world


@pytest.fixture(scope="module")
def reader(world: World) -> Iterator[Reader]:
    reader = Reader(world, "accounts")
    yield reader
    reader.close()


@pytest.fixture
def stage(world: World, reader: Reader, tmp_path: Path) -> Iterator[Stage]:
    """`checkout` and `accounts` are sick, `search` is well; no limit hides an effect."""
    service, well = world.service("checkout"), world.service("search")
    match = {"alertnames": [SLOW, LEFT], "jobs": [QUERIES_JOB]}
    books = [restart_book([service.name, well.name]), query_book(reader.name, match=match)]
    remediator = Remediator(
        world,
        books,
        services=service_entries([service, well]),
        databases={reader.name: database_entry(tmp_path, reader.server.port)},
        guards={"storm_episodes": 1_000_000},
        log_format="console",
    )
    service.sicken()
    reader.sicken()
    service.begin()
    with remediator:
        yield Stage(remediator, service, well, reader, tmp_path / "marker")
    service.container.remove()
    well.container.remove()


# -- bodies -----------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_some_bodies(stage: Stage) -> None:
    """3,000, in every run, with the same seed."""
    nothing_comes_of(stage, SEED, SOME)


@pytest.mark.campaign(seconds=1200)
@pytest.mark.timeout(2400)
def test_many_bodies(stage: Stage) -> None:
    """20,000, with another seed each time unless `HOSTILE_SEED` names one."""
    given = os.environ.get("HOSTILE_SEED")
    nothing_comes_of(stage, int(given) if given else random.randrange(2**32), MANY)


def nothing_comes_of(stage: Stage, seed: int, count: int) -> None:
    """Sent, answered, worked off, read by people: no effect. Then one right alert a target: one effect each."""
    print(f"HOSTILE_SEED={seed}, {count} bodies")
    pid = stage.remediator.process.pid
    answers = send_all(stage, seed, count)
    print(f"answers: {dict(answers)}")
    assert sum(answers.values()) == count
    assert set(answers) <= {200, 413}
    wait_until(
        lambda: waiting(stage.remediator) == 0, "every body to be worked off", 900, 2, stage.remediator.process.tail
    )
    assert stage.effects() == (0, 0, 0)
    assert not stage.marker.exists()
    assert "touch" not in stage.reader.server.log_text()
    assert stage.remediator.process.pid == pid
    people_can_read_it(stage)
    right_alerts_are_acted_on(stage)
    assert stage.remediator.process.terminate() == 0
    the_journal_is_sound(stage.remediator.journal)


def send_all(stage: Stage, seed: int, count: int) -> Counter[int]:
    """Half of them aimed at each sick target; the statuses."""
    half = count // 2
    first, second = stage.aims()
    made = [bodies(seed, half, first), bodies(seed + 1, count - half, second)]
    url = f"{stage.remediator.url}/alertmanager"

    def send(body: bytes) -> int:
        return fetch(url, "POST", body, {**BEARER, "Content-Type": "application/json"}, timeout=30).status

    answers = Counter[int]()
    with ThreadPoolExecutor(SENDERS) as pool:
        for several in made:
            answers.update(pool.map(send, (body for _, body in several)))
    return answers


def waiting(remediator: Remediator) -> int:
    """Bodies and alerts that nobody has taken yet, read past the program."""
    with sqlite3.connect(f"file:{remediator.journal}?mode=ro", uri=True, timeout=10) as database:
        found = database.execute("SELECT count(*) FROM inbox WHERE processed_at IS NULL").fetchone()[0]
    database.close()
    return int(found)


# -- what people see --------------------------------------------------------------------------------------


def people_can_read_it(stage: Stage) -> None:
    """Every episode and event is told by the API; neither prepctl nor the log lets a control character through."""
    rows = stage.remediator.ask("episodes?limit=500")["episodes"]
    assert len(rows) > 100
    prints = [prepctl(stage.remediator, "episodes:list", "--all", "--limit", "500")]
    prints += [prepctl(stage.remediator, "episodes:show", row["id"]) for row in rows[-20:]]
    prints.append(prepctl(stage.remediator, "journal:tail", "--limit", "1000"))
    for text in (*prints, stage.remediator.process.log_text()):
        assert not FORBIDDEN & set(map(ord, text)), escapes(text)
    log = stage.remediator.process.log_text()
    assert "Traceback" not in log
    assert "episode failed" not in log


def escapes(text: str) -> str:
    """The first lines that hold what they must not, spelled out."""
    return "\n".join(repr(line) for line in text.split("\n") if FORBIDDEN & set(map(ord, line)))[:2000]


def prepctl(remediator: Remediator, *arguments: str) -> str:
    environment = {
        **os.environ,
        "PREPCTL_URL": remediator.url,
        "PREPCTL_TOKEN_FILE": str(remediator.folder / "api-token"),
    }
    argv = [sys.executable, "-m", "prepctl", *arguments]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert API_TOKEN not in ran.stdout
    return ran.stdout


def right_alerts_are_acted_on(stage: Stage) -> None:
    """What has kept everything else from having an effect was not that nothing can have one."""
    assert stage.remediator.post(stage.service.name)
    assert stage.remediator.post(stage.reader.name, alertname=SLOW)
    wait_until(
        lambda: stage.service.effects == 1 and stage.reader.effects == 1,
        "one effect each",
        60,
        0.5,
        stage.remediator.story,
    )
    assert stage.effects() == (1, 0, 1)


def the_journal_is_sound(file: Path) -> None:
    """By SQLite's own check and by ours, with the program gone."""
    with sqlite3.connect(file) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
    assert asyncio.run(differences(file)) == []


async def differences(file: Path) -> list[str]:
    """What the charges say otherwise than the events."""
    place = Place(f"sqlite:///{file}", file.parent / "check")
    journal = await place.open()
    found = await journal.verify()
    await place.close()
    return found


# -- what is no HTTP --------------------------------------------------------------------------------------

HEAD = b"POST /alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
NO_HTTP = {
    "noise": bytes(range(256)) * 4,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "escape in the path": b"POST /alert\x1b[2Jmanager HTTP/1.1\r\nHost: x\r\n\r\n",
    "escape in a header": HEAD + b"X-A: \x1b]0;owned\x07\r\nContent-Length: 2\r\n\r\n{}",
    "NUL in a header": HEAD + b"X-A: \x00\r\nContent-Length: 2\r\n\r\n{}",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 50\r\n\r\n{}",
    "length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n{}",
    "no chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "endless header": HEAD + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n",
    "no gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "unknown encoding": HEAD + b"Content-Encoding: \xff\r\nContent-Length: 2\r\n\r\n{}",
}


def test_what_is_no_http(stage: Stage) -> None:
    """Refused or cut off, never a 5xx, and nothing of it in the log: a scan must not fill the disk, nor a terminal."""
    for name, request in NO_HTTP.items():
        answer = talk(stage.remediator.port, request)
        assert not answer or b" 2" in answer[:12] or b" 4" in answer[:12], (name, answer[:200])
    log = stage.remediator.process.log_text()
    assert not FORBIDDEN & set(map(ord, log)), escapes(log)
    assert "Traceback" not in log
    assert "owned" not in log
    right_alerts_are_acted_on(stage)


def talk(port: int, request: bytes) -> bytes:
    """Send it, and what came back until the end, or for a second."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        answer = b""
        try:
            connection.sendall(request)
            while piece := connection.recv(65536):
                answer += piece
        except OSError:
            pass
        return answer
