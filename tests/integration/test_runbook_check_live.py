"""`prepctl runbook:check --live` against real servers: what is in an action's way is told, and nothing is done."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from prepctl.errors import Exit
from remediator import gate, settings
from remediator.containers import Answered, Engine
from remediator.errors import Permanent, Transient
from tests.integration.recording_engine import RecordingEngine
from tests.support.docker_engine import DockerEngine
from tests.support.http_stubs import StubMetrics
from tests.support.remediation import (
    ENVIRONMENT,
    SICK,
    SickService,
    World,
    database_entry,
    query_book,
    restart_book,
    service_entries,
)
from tests.support.servers import Haproxy, PostgresServer, Run, free_port

LISTED, ELSEWHERE = "prep-listed-1", "prep-elsewhere-1"


@pytest.fixture
def recorder(run: Run) -> Iterator[RecordingEngine]:
    with RecordingEngine(run.folder("engine") / "s") as engine:
        yield engine


async def test_the_gate_is_asked_without_a_trace(run: Run, recorder: RecordingEngine) -> None:
    """Yes for a name on its list, no for another; the engine hears nothing, and a restart in the same second is let in."""
    made = gate.render(gate.Gate((LISTED,), cooldown=60, bind="127.0.0.1:{port}", socket=str(recorder.path)))
    with Haproxy(run, made, {"GATE_STARTED": str(int(time.time()))}, name="gate") as door:
        async with aiohttp.ClientSession() as session:
            engine = Engine(settings.Docker(gate_url=door.url), session)
            assert [await engine.allowed(name) for name in (LISTED, ELSEWHERE, LISTED)] == [True, False, True]
            assert recorder.requests == []
            sent = await engine.restart(LISTED, "a" * 32, time.time() + 8, 10)
            assert sent.answered is Answered.DONE
            # in its cooldown it is on the list all the same
            assert await engine.allowed(LISTED)
        assert len(recorder.requests) == 1


async def test_who_is_no_gate_is_sent_no_restart() -> None:
    """Something else at that address: it is asked who it is, and that is all. Nobody there: said so."""
    with StubMetrics() as other:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(Permanent):
                await Engine(settings.Docker(gate_url=other.url), session).allowed(LISTED)
            nobody = settings.Docker(gate_url=f"http://127.0.0.1:{free_port()}")
            with pytest.raises(Transient):
                await Engine(nobody, session).allowed(LISTED)
        assert [request.method for request in other.requests] == ["GET"]


NAMES = ("checked", "unlabelled")


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    """The gate lets the first one be restarted only."""
    with World(run, docker_engine, NAMES[:1]) as world:
        yield world


@pytest.fixture(scope="module")
def service(world: World) -> SickService:
    return world.service(NAMES[0])


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[PostgresServer]:
    server = PostgresServer(run, name="of-check").start()
    server.role("prep_remediator", "prep_remediator", "pg_read_all_stats", "pg_signal_backend")
    server.role("blind", "blind")
    yield server
    server.stop()


def check(folder: Path, world: World, books: list[dict[str, Any]], **sections: Any) -> subprocess.CompletedProcess[str]:
    """Write runbooks and settings, and run the command."""
    (folder / "books").mkdir()
    for book in books:
        (folder / "books" / f"{book['name']}.yml").write_text(yaml.safe_dump(book))
    config = {
        "environment": ENVIRONMENT,
        "webhook": {"token_files": ["/dev/null"]},
        "prometheus": {"urls": [world.prometheus.url], "scrape_interval": "1s"},
        "alertmanager": {"urls": [world.alertmanager.url]},
        "docker": {"gate_url": world.gate.url, "project": world.project},
        **sections,
    }
    (folder / "remediator.yml").write_text(yaml.safe_dump(config))
    argv = [sys.executable, "-m", "prepctl", "runbook:check", str(folder / "books"), "--live"]
    argv += ["--config", str(folder / "remediator.yml")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_all_is_well(tmp_path: Path, world: World, service: SickService, server: PostgresServer) -> None:
    """Grants, gate, labels, probes, rules and queries: exit code 0, and nothing was restarted."""
    service.begin()
    books = [restart_book([service.name]), query_book("db")]
    databases = {"db": database_entry(tmp_path, server.port)}
    found = check(tmp_path, world, books, services=service_entries([service]), databases=databases)
    assert (found.returncode, found.stderr) == (0, "")
    assert service.effects == 0


def test_what_is_in_the_way_is_told(tmp_path: Path, world: World, service: SickService, server: PostgresServer) -> None:
    """A role without its grants, a container that the gate does not know and that is not there, a rule that is not loaded,
    a proof that is no PromQL: all at once, with what to do, and exit code 1.
    """
    books = [restart_book([service.name]), query_book("db")]
    books[0]["match"]["alertnames"] = [SICK, "ServiceGone"]
    books[0]["proof"]["checks"][0]["query"] = "max(prep_service_sick"
    entries = service_entries([service])
    services = {**entries, NAMES[1]: entries[service.name]}
    databases = {"db": database_entry(tmp_path, server.port, "blind")}
    found = check(tmp_path, world, books, services=services, databases=databases)
    assert (found.returncode, found.stdout) == (Exit.NO, "")
    for words in (
        "cancel on db: would be refused target_not_allowed",
        "GRANT pg_read_all_stats TO blind; GRANT pg_signal_backend TO blind;",
        f"gate: {world.project}-{NAMES[1]}-1: the Docker gate answers 403 to a restart (prep-remediator gate:config",
        f"restart on {NAMES[1]}: would be refused target_count",
        "has no rule ServiceGone",
        "restart: proof.well: ",
    ):
        assert words in found.stderr, found.stderr
    assert "Traceback" not in found.stderr


def test_nobody_there(tmp_path: Path, world: World) -> None:
    """Servers that do not answer are told by their addresses; no traceback, and exit code 1."""
    nobody = f"http://127.0.0.1:{free_port()}"
    databases = {"db": database_entry(tmp_path, free_port())}
    found = check(
        tmp_path, world, [query_book("db")], databases=databases, prometheus={"urls": [nobody], "scrape_interval": "1s"}
    )
    assert found.returncode == Exit.NO
    for words in (f"prometheus {nobody}: cannot be asked", "cancel on db: cannot be looked at: PostgreSQL"):
        assert words in found.stderr, found.stderr
    assert "Traceback" not in found.stderr
