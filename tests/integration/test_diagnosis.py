"""Evidence from a real Docker Engine and a real PostgreSQL: captured, redacted, bounded, and sealed by its digest."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from remediator import captures_docker, gate
from remediator.containers import Engine
from remediator.diagnosis import NAMES, Diagnoses
from tests.integration.adapting import settings
from tests.support.docker_engine import DockerEngine, ServiceContainer
from tests.support.http_stubs import Answer, Request, StubServer
from tests.support.servers import Haproxy, PostgresServer, Run, wait_until

CANARY = "c4nary-9f3b1e77"
CARD = "4242424242424242"
SAID = f"""
echo "line one"
echo "connecting to postgresql://prep_app:{CANARY}@postgres/prepchef" >&2
echo '{{"msg": "declined", "card": "{CARD}", "token": "{CANARY}", "mail": "anna.canary@example.org"}}'
for n in $(seq 1 150); do echo "check $n finished"; done
trap 'exit 0' TERM; sleep 2147483647 & wait
"""


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def talking(run: Run, docker_engine: DockerEngine, project: str) -> Iterator[tuple[Haproxy, ServiceContainer, str]]:
    """A container that has said secrets, behind the gate."""
    container = docker_engine.service_container(
        project, "python-compliance", command=("sh", "-c", SAID), environment={"SECRET_KEY": CANARY}, stop_timeout=1
    )
    text = gate.render(gate.Gate((), bind="127.0.0.1:{port}", socket=str(docker_engine.socket)))
    with Haproxy(run, text, {"GATE_STARTED": str(int(time.time()))}, name="gate") as proxy:
        wait_until(lambda: "check 150" in container.logs(), "the container to speak", 10)
        yield proxy, container, project


class Leaky(StubServer):
    """A health page that says too much."""

    def answer(self, request: Request) -> Answer:
        return Answer(503, f'{{"redis": "redis://:{CANARY}@redis:6379", "engine": "no free session"}}'.encode())


async def test_containers_and_probe(
    talking: tuple[Haproxy, ServiceContainer, str], session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Logs, facts and probe are written 0600, without a canary, with what people need, and match their digests."""
    proxy, container, project = talking
    with Leaky() as page:
        probe = {"url": page.url, "slower_than": "1s"}
        config = settings(
            tmp_path,
            docker={"gate_url": proxy.url, "project": project},
            services={"python-compliance": {"probe": probe}},
        )
        evidence = await Diagnoses(config, session).run(
            "e1", ["container_logs", "container_facts", "service_probe"], {"service": "python-compliance"}
        )
    assert evidence.complete, evidence.summary
    folder = Path(evidence.path)
    manifest = (folder / "manifest.json").read_bytes()
    assert evidence.digest == hashlib.sha256(manifest).hexdigest()
    for name, about in json.loads(manifest)["files"].items():
        data = (folder / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == about["sha256"]
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    everything = "".join(path.read_text() for path in folder.iterdir()) + repr(evidence)
    assert CANARY not in everything
    assert CARD not in everything
    assert "anna.canary" not in everything
    logs = (folder / "container_logs.txt").read_text()
    assert "check 150 finished" in logs
    assert "check 10 finished" not in logs  # the last 100 lines
    assert container.name in (folder / "container_facts.txt").read_text()
    assert "no free session" in (folder / "service_probe.txt").read_text()
    assert "status 503" in evidence.summary["service_probe"]


async def test_disks_and_events(
    talking: tuple[Haproxy, ServiceContainer, str], session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """What is full, what could go, whose log has no end, and what has happened; the environment is never in it."""
    proxy, container, project = talking
    (tmp_path / "much").write_bytes(b"x" * 3_000_000)
    config = settings(tmp_path, docker={"gate_url": proxy.url, "project": project, "timeout": "8s"})
    container.container.restart(timeout=1)
    names = ["disk_use", "docker_disk", "container_events"]
    evidence = await Diagnoses(config, session).run("e1", names, {"service": "python-compliance"})
    assert evidence.complete, evidence.summary
    texts = {name: (Path(evidence.path) / f"{name}.txt").read_text() for name in names}
    assert CANARY not in "".join(texts.values())
    disks = json.loads(texts["disk_use"])
    root = next(each for each in disks["file_systems"] if each["mount"] == "/")
    assert abs(root["bytes"] - os.statvfs("/").f_blocks * os.statvfs("/").f_frsize) < 1
    assert disks["largest_folders"]["bytes_by_folder"][str(tmp_path)] >= 3_000_000
    docker = json.loads(texts["docker_disk"])
    assert docker["totals"]["layers_bytes"] > 0
    assert any(each["used"] for each in docker["largest_images"])
    assert docker["containers_without_log_rotation"] == [container.name]
    actions = [json.loads(line)["action"] for line in texts["container_events"].splitlines()]
    assert "restart" in actions
    assert {json.loads(line)["container"] for line in texts["container_events"].splitlines()} == {container.name}


class Counting(StubServer):
    """An engine that is asked in the middle of its own count, and has nothing else to tell."""

    def answer(self, request: Request) -> Answer:
        if request.path == "/system/df":
            return Answer(503, b'{"message":"a disk usage operation is already running"}')
        return Answer(200, b"[]")


async def test_a_count_that_the_engine_cannot_give_is_no_hindrance(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """It takes long where there is much, just when it is needed: the rest is evidence enough, and says what is missing."""
    with Counting() as engine:
        config = settings(tmp_path, docker={"gate_url": engine.url, "project": "prep"})
        evidence = await Diagnoses(config, session).run("e1", ["docker_disk"], {})
    assert evidence.complete, evidence.summary
    told = json.loads((Path(evidence.path) / "docker_disk.txt").read_text())
    assert "already running" in told["totals"]["not_counted"]


def test_a_walk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many files at most, and it says that there may be more; links are not followed, what is not there is told."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            (tmp_path / name / str(number)).write_bytes(b"x" * 5000)
    (tmp_path / "link").symlink_to("/usr")
    whole = captures_docker.largest(tmp_path)
    assert (whole["complete"], set(whole["bytes_by_folder"])) == (
        True,
        {str(tmp_path), *map(str, tmp_path.glob("[ab]"))},
    )
    monkeypatch.setattr(captures_docker, "FILES", 4)
    assert captures_docker.largest(tmp_path)["complete"] is False
    assert "error" in captures_docker.largest(tmp_path / "gone")


async def test_frames_of_both_streams_become_text(
    talking: tuple[Haproxy, ServiceContainer, str], session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Docker's stream headers do not get into the file."""
    proxy, _, project = talking
    config = settings(tmp_path, docker={"gate_url": proxy.url, "project": project})
    evidence = await Diagnoses(config, session).run("e1", ["container_logs"], {"service": "python-compliance"})
    text = (Path(evidence.path) / "container_logs.txt").read_text()
    assert "\x00" not in text
    assert "\ufffd" not in text


async def test_of_long_lines_the_end_is_kept(
    talking: tuple[Haproxy, ServiceContainer, str], session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """More than is kept is no reason to have none: without evidence nothing would be done at all."""
    proxy, _, project = talking
    config = settings(tmp_path, docker={"gate_url": proxy.url, "project": project})
    engine = Engine(config.docker, session)
    (found,) = await engine.of_service("python-compliance")
    whole = await engine.logs(found, 100, 1_000_000)
    assert len(whole) > 200
    assert await engine.logs(found, 100, 200) == whole[-200:]


async def test_what_cannot_be_read_is_said(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """No gate, no database, no such name: incomplete, each with its reason, and still written."""
    evidence = await Diagnoses(settings(tmp_path), session).run(
        "../../etc", ["container_logs", "long_queries", "strange"], {"service": "x"}
    )
    assert not evidence.complete
    assert set(evidence.summary) == {"container_logs", "long_queries", "strange"}
    assert Path(evidence.path).is_relative_to(tmp_path / "evidence")
    assert (Path(evidence.path) / "manifest.json").exists()


async def test_an_unwritable_folder_is_no_evidence(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """A full or broken disk: no path, no digest, incomplete."""
    (tmp_path / "evidence").write_text("a file where the folder should be")
    evidence = await Diagnoses(settings(tmp_path), session).run("e1", [], {})
    assert (evidence.digest, evidence.path, evidence.complete) == ("", "", False)


async def test_old_evidence_goes(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """After `evidence_days` a folder is removed; younger ones stay."""
    diagnoses = Diagnoses(settings(tmp_path), session)
    old, young = [Path((await diagnoses.run(name, [], {})).path) for name in ("old", "young")]
    os.utime(old, (time.time() - 31 * 86400,) * 2)
    assert diagnoses.prune(time.time()) == 1
    assert (old.exists(), young.exists()) == (False, True)


async def test_the_database(postgres_server: PostgresServer, session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Long queries, who blocks whom, and who burns CPU; statements without literals."""
    postgres_server.role("prep_remediator", "pw", "pg_read_all_stats", "pg_signal_backend")
    (tmp_path / "password").write_text("pw")
    entry = {"host": "127.0.0.1", "port": postgres_server.port, "database": "postgres", "user": "prep_remediator"}
    config = settings(tmp_path, databases={"postgres": {**entry, "password_file": tmp_path / "password"}})
    burning = f"do $$ begin loop perform '{CANARY}'; end loop; end $$"
    with (
        postgres_server.session("begin; select pg_advisory_xact_lock(42)") as root,
        postgres_server.session(f"select '{CANARY}', pg_advisory_xact_lock(42)") as waiting,
        postgres_server.session(burning) as hog,
    ):
        wait_until(lambda: postgres_server.backends(f"pid = {waiting.pid} and wait_event_type = 'Lock'"), "a lock", 10)
        hog.wait_active()
        names = ["long_queries", "blocking_tree", "cpu_by_backend"]
        began = time.monotonic()
        evidence = await Diagnoses(config, session).run("e1", names, {"service": "postgres"})
        assert time.monotonic() - began < 3.0
        postgres_server.sql(
            f"select pg_terminate_backend(p) from unnest(array[{root.pid}, {waiting.pid}, {hog.pid}]) p"
        )
    assert evidence.complete, evidence.summary
    texts = {name: (Path(evidence.path) / f"{name}.txt").read_text() for name in names}
    assert CANARY not in "".join(texts.values()) + repr(evidence)
    assert evidence.summary["blocking_tree"] == "1 sessions blocked by 1"
    tree = [json.loads(line) for line in texts["blocking_tree"].splitlines()]
    assert [(row["pid"], row["blocked_by"]) for row in tree] == [(root.pid, []), (waiting.pid, [root.pid])]
    assert any(json.loads(line)["pid"] == hog.pid for line in texts["long_queries"].splitlines())
    assert json.loads(texts["cpu_by_backend"].splitlines()[0])["pid"] == hog.pid


async def test_causes_of_a_busy_database(run: Run, session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """A large table read without an index, and the statement that took the most time: named, without its literals."""
    server = PostgresServer(run, {"shared_preload_libraries": "pg_stat_statements"}, name="causes").start()
    try:
        server.role("prep_remediator", "pw", "pg_read_all_stats")
        server.sql("create table small as select 1 as n; create table orders as select generate_series(1, 20000) as n")
        server.sql(f"select count(*) from orders where n::text = '{CANARY}'; select n from small")
        server.sql("analyze orders")
        (tmp_path / "password").write_text("pw")
        entry = {"host": "127.0.0.1", "port": server.port, "database": "postgres", "user": "prep_remediator"}
        config = settings(tmp_path, databases={"postgres": {**entry, "password_file": tmp_path / "password"}})
        names = ["sequential_scans", "top_statements", "replication_state"]
        missing = await Diagnoses(config, session).run("e1", names, {"service": "postgres"})
        assert missing.complete, missing.summary
        assert missing.summary["top_statements"] == "pg_stat_statements is not installed in this database"
        server.sql("create extension pg_stat_statements")
        server.sql(f"select count(pg_sleep(0.3)), '{CANARY}' as word")
        evidence = await Diagnoses(config, session).run("e1", names, {"service": "postgres"})
    finally:
        server.stop()
    assert evidence.complete, evidence.summary
    texts = {name: (Path(evidence.path) / f"{name}.txt").read_text() for name in names}
    assert CANARY not in "".join(texts.values()) + repr(evidence) + repr(missing)
    (table,) = [json.loads(line) for line in texts["sequential_scans"].splitlines()]
    assert (table["table"], table["indexes"], table["rows"]) == ("public.orders", 0, 20000)
    assert evidence.summary["sequential_scans"].startswith("1 large tables were read without an index, most of all")
    assert "pg_sleep" in json.loads(texts["top_statements"].splitlines()[0])["query"]
    assert evidence.summary["replication_state"] == "postgres: takes writes, no standby, 0 slots"


async def test_both_ends_of_replication(
    run: Run, postgres_server: PostgresServer, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """What the replica and its primary say of the link; one that does not answer is evidence too."""
    postgres_server.role("prep_remediator", "pw", "pg_read_all_stats", "pg_signal_backend")
    (tmp_path / "password").write_text("pw")
    entry = {"host": "127.0.0.1", "database": "postgres", "user": "prep_remediator", "timeout": "3s"}
    entry["password_file"] = str(tmp_path / "password")
    replica = postgres_server.replica(name="evidence")
    replica.wait_caught_up()
    ports = {"postgres": postgres_server.port, "replica": replica.port}
    databases = {name: {**entry, "port": port} for name, port in ports.items()}
    databases["replica"]["replica_of"] = "postgres"
    diagnoses = Diagnoses(settings(tmp_path, databases=databases), session)
    try:
        evidence = await diagnoses.run("e1", ["replication_state"], {"service": "replica"})
        assert evidence.complete, evidence.summary
        said = evidence.summary["replication_state"]
        assert said.startswith("replica: in recovery, streaming, silent for ")
        assert "postgres: takes writes, evidence-" in said
        state = json.loads((Path(evidence.path) / "replication_state.txt").read_text())
        assert state["postgres"]["standbys"][0]["state"] == "streaming"
        assert state["replica"]["receiver"]["status"] == "streaming"
    finally:
        replica.stop()
    evidence = await diagnoses.run("e1", ["replication_state"], {"service": "postgres"})
    assert evidence.complete, evidence.summary
    assert evidence.summary["replication_state"].endswith("replica: does not answer")
    assert not (await diagnoses.run("e1", ["replication_state"], {"service": "replica"})).complete


def test_names_are_the_closed_set() -> None:
    """What runbooks may name."""
    assert {
        "container_logs",
        "container_facts",
        "service_probe",
        "long_queries",
        "blocking_tree",
        "cache_hits",
        "connections",
        "cpu_by_backend",
        "sequential_scans",
        "top_statements",
        "replication_state",
        "container_events",
        "disk_use",
        "docker_disk",
        "recent_failures",
        "redis_clients",
        "redis_info",
        "redis_keys",
        "stripe_status",
    } == NAMES
