"""The handbook's reading commands against real servers: what the evidence would hold, without its canaries."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from prepctl.cli import app
from prepctl.errors import Exit, Failure
from remediator import gate
from tests.integration.adapting import NOWHERE
from tests.integration.redis_parts import PASSWORD, USER, Client, give_rights
from tests.support.docker_engine import DockerEngine
from tests.support.servers import (
    Haproxy,
    PostgresServer,
    PrometheusServer,
    RedisServer,
    Run,
    StubMetrics,
    scrape_config,
    wait_until,
)

CANARY = "c4nary-5d20aa18"
CARD = "4242424242424242"
SAID = f"""
echo "connecting to postgresql://prep_app:{CANARY}@postgres/prepchef" >&2
echo '{{"msg": "declined", "card": "{CARD}", "token": "{CANARY}", "mail": "anna.canary@example.org"}}'
for n in $(seq 1 150); do echo "check $n finished"; done
trap 'exit 0' TERM; sleep 2147483647 & wait
"""
ERRORS = f"""
echo "2026-11-28 INFO all is well"
echo '{{"level": "error", "msg": "no session", "token": "{CANARY}"}}' >&2
sleep 0.3  # the engine dates a line when it has read it, and it reads the two outputs side by side
for n in $(seq 1 5); do echo "ERROR check $n failed"; done
trap 'exit 0' TERM; sleep 2147483647 & wait
"""


class Desk:
    """A person with a configuration of the remediator and its secrets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "token").write_text("t")

    def configured(self, **parts: Any) -> None:
        base = {
            "environment": "test",
            "webhook": {"token_files": [str(self._folder / "token")]},
            "prometheus": {"urls": [NOWHERE], "timeout": "2s"},
            "alertmanager": {"urls": [NOWHERE]},
            "docker": {"gate_url": NOWHERE, "project": "prep"},
            "journal": {"evidence_dir": str(self._folder / "evidence")},
        }
        (self._folder / "remediator.yml").write_text(yaml.safe_dump({**base, **parts}))

    def asks(self, *words: str) -> Any:
        given = [*words, "--config", str(self._folder / "remediator.yml")]
        return CliRunner().invoke(app, given)

    def reads(self, *words: str) -> Any:
        """With --json: what it found."""
        said = self.asks(*words, "--json")
        assert said.exit_code == 0, said.exception
        return json.loads(said.output)

    def fails(self, *words: str) -> Failure:
        said = self.asks(*words)
        assert isinstance(said.exception, Failure), said.output
        return said.exception


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.configured()
    return desk


def test_the_database(postgres_server: PostgresServer, desk: Desk, tmp_path: Path) -> None:
    """Counted, listed, blocked, on the CPU: each by its own command, statements without literals; the replica by name."""
    postgres_server.role("prep_remediator", "pw", "pg_read_all_stats", "pg_signal_backend")
    (tmp_path / "password").write_text("pw")
    entry = {"host": "127.0.0.1", "port": postgres_server.port, "database": "postgres", "user": "prep_remediator"}
    entry["password_file"] = str(tmp_path / "password")
    desk.configured(databases={"postgres": entry, "replica": {**entry, "port": 9, "replica_of": "postgres"}})
    before = int(postgres_server.value("select count(*) from pg_stat_activity where backend_type = 'client backend'"))
    with (
        postgres_server.session("begin; select pg_advisory_xact_lock(43)") as root,
        postgres_server.session(f"select '{CANARY}', pg_advisory_xact_lock(43)") as waiting,
    ):
        wait_until(lambda: postgres_server.backends(f"pid = {waiting.pid} and wait_event_type = 'Lock'"), "a lock", 10)
        counted = desk.reads("db:connections")
        assert sum(row["connections"] for row in counted["found"]) >= before + 2
        most = postgres_server.value("show max_connections")
        assert f" of {most} connections, " in counted["said"]
        tree = desk.reads("db:locks")["found"]
        assert [(row["pid"], row["blocked_by"]) for row in tree] == [(root.pid, []), (waiting.pid, [root.pid])]
        shown = desk.asks("db:queries").output
        assert f"{waiting.pid}" in shown
        assert "pg_advisory_xact_lock(?)" in shown.replace("\n", "")
        assert CANARY not in shown + repr(tree)
        assert any(row["pid"] == waiting.pid for row in desk.reads("db:cpu")["found"])
        assert desk.reads("db:replication")["found"]["postgres"]["in_recovery"] is False
        postgres_server.sql(f"select pg_terminate_backend(p) from unnest(array[{root.pid}, {waiting.pid}]) p")
    assert "not installed" in desk.reads("db:statements")["said"]
    assert "no table of 10,000 rows" in desk.reads("db:scans")["said"]
    silent = desk.fails("db:queries", "--service", "replica")
    assert silent.code is Exit.UNREACHABLE
    assert "takes no connection" in silent.message


def test_redis(run: Run, desk: Desk, tmp_path: Path) -> None:
    """INFO whole and by section, who holds the connections, what the keys are; no name and no value of any."""
    server = RedisServer(run, options=["--maxmemory", "100mb"], name="read").start()
    try:
        give_rights(server)
        (tmp_path / "redis").write_text(PASSWORD)
        entry = {"host": "127.0.0.1", "port": server.port, "user": USER, "password_file": str(tmp_path / "redis")}
        desk.configured(redis={"redis": entry})
        server.command("SET", "session:ana@example.com", CANARY)
        with closing(Client(server.port, "leaky")):
            pool = desk.reads("redis:pool-stats")
            shown = desk.asks("redis:pool-stats").output
        assert {row["source"]: row["connections"] for row in pool["found"]}["leaky from 127.0.0.1"] == 1
        assert "leaky from 127.0.0.1" in shown
        memory = desk.asks("redis:info", "memory").output
        assert "maxmemory_human 100.00M" in memory.splitlines()[0]
        assert "maxmemory:104857600" in memory
        assert "redis_version" not in memory
        assert "a restart would lose: 1 keys" in desk.asks("redis:info").output
        keys = desk.asks("redis:keys").output
        assert "session:*" in keys
        assert CANARY not in memory + keys + shown
        assert "ana@" not in memory + keys + shown
        wrong = desk.fails("redis:info", "nosuch")
        assert (wrong.code, "no section 'nosuch'" in wrong.message) == (Exit.NO, True)
        desk.configured(redis={"redis": {**entry, "user": "nobody"}})
        assert "WRONGPASS" in desk.fails("redis:pool-stats").message
        desk.configured(redis={"redis": entry, "other": entry})
        unsaid = desk.fails("redis:keys")
        assert (unsaid.code, unsaid.do) == (Exit.USAGE, "--service: other, redis.")
        assert desk.fails("redis:keys", "--service", "third").code is Exit.NO
    finally:
        server.stop()


@pytest.fixture
def engine(run: Run, docker_engine: DockerEngine, project: str) -> Iterator[Haproxy]:
    """Two services that talk, behind the gate."""
    made = {"python-compliance": SAID, "payments": ERRORS}
    found = [
        docker_engine.service_container(
            project, name, command=("sh", "-c", said), environment={"SECRET_KEY": CANARY}, stop_timeout=1
        )
        for name, said in made.items()
    ]
    text = gate.render(gate.Gate((), bind="127.0.0.1:{port}", socket=str(docker_engine.socket)))
    with Haproxy(run, text, {"GATE_STARTED": str(int(time.time()))}, name="reading-gate") as proxy:
        wait_until(lambda: "check 150" in found[0].logs() and "check 5" in found[1].logs(), "them to speak", 10)
        yield proxy


def test_containers_and_disk(engine: Haproxy, desk: Desk, project: str) -> None:
    """Logs, facts, events and disk through the gate; errors of all services in the order of time; nothing secret."""
    desk.configured(docker={"gate_url": engine.url, "project": project, "timeout": "8s"})
    everything = [
        desk.asks("containers:logs", "python-compliance").output,
        desk.asks("containers:facts", "python-compliance").output,
        desk.asks("containers:events", "python-compliance").output,
        desk.asks("disk:docker").output,
        desk.asks("disk:usage").output,
    ]
    assert "check 150 finished" in everything[0]
    assert '"status"' in everything[1].lower() or "running" in everything[1]
    assert "start" in everything[2]
    assert "LARGEST_IMAGES" in everything[3].upper()
    assert "/" in everything[4]
    errors = desk.reads("logs:errors", "--tail", "3")
    everything.append(json.dumps(errors))
    assert [line.rsplit(" ERROR ")[-1] for line in errors["found"]] == [f"check {n} failed" for n in (3, 4, 5)]
    assert errors["said"] == "3 of 6 lines that tell of errors, in the logs of 2 containers"
    everything.append(desk.asks("logs:errors", "--service", "payments").output)
    assert "no session" in everything[-1]
    assert "all is well" not in everything[-1]
    assert not [each for each in everything if CANARY in each or CARD in each or "anna.canary" in each]
    missing = desk.fails("containers:logs", "nosuch")
    assert (missing.code, "nosuch has no container" in missing.message) == (Exit.NO, True)
    desk.configured()
    assert desk.fails("containers:logs", "python-compliance").code is Exit.UNREACHABLE


def test_the_caches_hit_rate(run: Run, metrics: StubMetrics, desk: Desk) -> None:
    """By a real Prometheus, of the service that is asked for; without one it is said that nobody knows."""
    metrics.set("prep_compliance_cache_requests_total", 0, result="hit", service="python-compliance")
    metrics.set("prep_compliance_cache_requests_total", 0, result="miss", service="python-compliance")
    metrics.set("prep_compliance_cache_requests_total", 0, result="miss", service="other")
    config = scrape_config({"prep-services": metrics.port}, interval="200ms")
    with PrometheusServer(run, config, name="cache") as prometheus:
        desk.configured(prometheus={"urls": [NOWHERE, prometheus.url], "timeout": "2s"})
        prometheus.wait_for("prep_compliance_cache_requests_total == 0")
        metrics.set("prep_compliance_cache_requests_total", 90, result="hit", service="python-compliance")
        metrics.set("prep_compliance_cache_requests_total", 10, result="miss", service="python-compliance")
        metrics.set("prep_compliance_cache_requests_total", 900, result="miss", service="other")
        prometheus.wait_for('prep_compliance_cache_requests_total{result="hit"} == 90')
        found = desk.reads("compliance:stats")
        assert found["said"] == "cache hits: 90.0% within 5m, 90.0% within 1h, 90.0% within 1d"
        assert desk.reads("compliance:stats", "--service", "third")["found"][0]["hit_rate"] is None
    desk.configured()
    silent = desk.asks("compliance:stats", "--json")
    assert json.loads(silent.output)["said"] == "the cache's hit rate is not known: Prometheus does not answer"
    assert silent.exit_code == Exit.UNREACHABLE


def test_a_configuration_that_cannot_be_used_is_wrong_usage(desk: Desk, tmp_path: Path) -> None:
    """Every fault is named, and where the command would work."""
    (tmp_path / "remediator.yml").write_text("environment: test\nstrange: 1\n")
    failure = desk.fails("disk:usage")
    assert failure.code is Exit.USAGE
    assert "strange" in failure.message
    assert "webhook" in failure.message
    (tmp_path / "remediator.yml").unlink()
    assert "docker compose exec remediator prepctl" in desk.fails("db:queries").do


def test_a_secret_that_cannot_be_read_is_wrong_usage(desk: Desk, tmp_path: Path) -> None:
    """Its path and why, whoever needs it; nothing in the words is taken for the secret itself."""
    path = str(tmp_path / "no_token")
    entry = {"host": "127.0.0.1", "port": 9, "database": "postgres", "user": "me", "password_file": path}
    payments = {"url": NOWHERE, "token_file": path}
    desk.configured(databases={"postgres": entry}, payments={"payments": payments})
    for words in (("db:connections",), ("payments:recent",)):
        failure = desk.fails(*words)
        assert failure.code is Exit.USAGE
        assert f"{path}: secret cannot be read: No such file" in failure.message


def test_only_what_is_listed_is_probed(desk: Desk) -> None:
    """A name that the configuration does not know is a no, not an answer that nobody knows."""
    failure = desk.fails("containers:probe", "nosuch")
    assert failure.code is Exit.NO
    assert "nosuch is not listed" in failure.message


def test_all_health_is_probed_at_once(run: Run, desk: Desk, tmp_path: Path) -> None:
    """`health:check --all`: what answers and what does not, also when no remediator runs."""
    server = RedisServer(run, name="probed").start()
    try:
        give_rights(server)
        (tmp_path / "redis").write_text(PASSWORD)
        entry = {"host": "127.0.0.1", "user": USER, "password_file": str(tmp_path / "redis")}
        desk.configured(redis={"redis": {**entry, "port": server.port}, "other": {**entry, "port": 9}})
        shown = CliRunner().invoke(
            app,
            ["--url", NOWHERE, "health:check", "--all", "--config", str(tmp_path / "remediator.yml")],
        )
    finally:
        server.stop()
    assert [line.split()[:2] for line in shown.output.splitlines()[1:]] == [["other", "down"], ["redis", "healthy"]]
    assert isinstance(shown.exception, Failure)
    assert shown.exception.code is Exit.UNREACHABLE
