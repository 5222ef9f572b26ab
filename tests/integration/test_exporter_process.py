"""`prep-exporter` as a process, as Prometheus and an operator meet it."""

from __future__ import annotations

import concurrent.futures
import gzip
import http.client
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from exporter.catalog import METRICS
from exporter.server import TIMEOUT_HEADER
from tests.integration.exporter_parts import ROLE, ROLE_PASSWORD, platform
from tests.support.servers import (
    Database,
    DockerEngine,
    PostgresServer,
    Reply,
    Run,
    Service,
    fetch,
    free_port,
    program,
    wait_until,
)
from tests.unit.test_exporter_settings import TEN_KINDS

ON_POSTGRES = ("prep_postgres", "prep_compliance", "prep_payment", "prep_security")
"""Beginnings of the names that come from PostgreSQL."""

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


@dataclass
class Exporter:
    """One exporter, its configuration and its page."""

    service: Service
    port: int
    config: Path
    database: Database

    def get(self, path: str = "/metrics", headers: Mapping[str, str] | None = None) -> Reply:
        return fetch(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=15.0)

    def page(self, budget: float = 10.0) -> Found:
        reply = self.get(headers={TIMEOUT_HEADER: str(budget)})
        assert reply.status == 200
        return read(reply.text)


def read(text: str) -> Found:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[PostgresServer]:
    """A server that these tests may freeze, and stop if they start it again."""
    server = PostgresServer(run, name="of-exporter").start()
    yield server
    server.stop()


@pytest.fixture
def exporter(run: Run, server: PostgresServer, docker_engine: DockerEngine, project: str) -> Iterator[Exporter]:
    """The console script with all collectors, on real backends."""
    docker_engine.service_container(project, "redis", mem_limit="32m")
    made = make(run, platform(server), docker_engine.host, project)
    made.service.start()
    yield made
    made.service.kill()
    made.database.drop()


def make(run: Run, database: Database, docker_host: str, project: str) -> Exporter:
    """An exporter's files; not started."""
    port = free_port()
    folder = run.folder(f"exporter-{port}")
    (folder / "secret").write_text(ROLE_PASSWORD)
    postgres = {
        "host": "127.0.0.1",
        "port": database.server.port,
        "database": database.name,
        "user": ROLE,
        "password_file": str(folder / "secret"),
    }
    collectors = {
        "postgres": {"servers": {"postgres": postgres}},
        "docker": {
            "base_url": docker_host,
            "project": project,
            "expected_services": ["redis", "payments"],
            "interval": "1s",
        },
        "containers": {},
        "compliance": {"state_file": str(folder / "compliance.json"), "margin": "500ms"},
        "payments": {"state_file": str(folder / "payments.json"), "margin": "500ms"},
        "security": {"state_file": str(folder / "security.json"), "margin": "500ms"},
        "disk": {"paths": {"/": "/", "state": str(folder)}},
    }
    config = folder / "exporter.yml"
    config.write_text(yaml.safe_dump({"web": {"listen_address": f"127.0.0.1:{port}"}, "collectors": collectors}))
    argv = ["prep-exporter", f"--config.file={config}", "--log.level=debug"]
    service = Service(run, argv, ready_url=f"http://127.0.0.1:{port}/-/ready", name=f"exporter-{port}")
    return Exporter(service, port, config, database)


def test_every_collector_is_well_and_promtool_has_no_objection(exporter: Exporter) -> None:
    """All collectors succeed on real backends, every series is in the catalog, and promtool finds nothing."""
    found = exporter.page()
    for collector in ("postgres", "compliance", "payments", "security", "disk", "containers", "docker"):
        assert found[key("prep_scrape_collector_success", collector=collector)] == 1, exporter.service.tail()
    assert found[key("prep_container_state", compose_service="redis", state="running")] == 1
    assert found[key("prep_container_state", compose_service="payments", state="missing")] == 1
    assert found[key("prep_container_cpu_seconds_total", compose_service="redis")] > 0
    names = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name, _ in found}
    assert names <= set(METRICS)
    text = exporter.get().text
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_page_comes_as_the_scraper_likes_it(exporter: Exporter) -> None:
    """OpenMetrics and gzip when asked for, text otherwise, always with a content type that Prometheus 3 takes."""
    plain = exporter.get()
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    zipped = exporter.get(headers={"Accept-Encoding": "gzip"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert set(read(gzip.decompress(zipped.body).decode())) == set(read(plain.text))
    accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"
    open_metrics = exporter.get(headers={"Accept": accept})
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = list(parse_openmetrics(open_metrics.text))  # type: ignore[no-untyped-call]
    assert len(families) > 20


def test_other_pages(exporter: Exporter) -> None:
    """A page for people, and the answers for whoever starts and stops it."""
    landing = exporter.get("/")
    assert landing.status == 200
    assert "/metrics" in landing.text
    assert "compliance" in landing.text
    assert exporter.get("/-/healthy").status == 200
    assert exporter.get("/-/ready").status == 200
    assert exporter.get("/nothing").status == 404


def test_frozen_postgres_delays_and_removes_nothing_else(exporter: Exporter) -> None:
    """SIGSTOP of PostgreSQL: an answer within Prometheus' own time, every other sample there, back by itself."""
    before = exporter.page()
    process = psutil.Process(exporter.service.pid)
    others = {each for each in before if not each[0].startswith(ON_POSTGRES)}
    with exporter.database.server.frozen():
        for _ in range(4):
            began = time.monotonic()
            found = exporter.page(budget=1.5)
            assert time.monotonic() - began < 1.5
            assert {each for each in found if each[0].startswith(ON_POSTGRES)} == {
                key("prep_postgres_up", server="postgres")
            }
            assert found[key("prep_postgres_up", server="postgres")] == 0
            assert found[key("prep_scrape_collector_success", collector="postgres")] == 0
            for cursor in ("compliance", "payments", "security"):
                assert found[key("prep_scrape_collector_success", collector=cursor)] == 0
            assert others <= set(found)
            assert connections(process, exporter.database.server.port) <= 1
    wait_until(
        lambda: exporter.page()[key("prep_scrape_collector_success", collector="compliance")] == 1, "recovery", 15
    )
    found = exporter.page()
    assert found[key("prep_postgres_up", server="postgres")] == 1
    assert set(before) <= set(found)


def connections(process: psutil.Process, port: int) -> int:
    """Connections that the process has to this port."""
    return sum(1 for each in process.net_connections("tcp") if each.raddr and each.raddr.port == port)


def test_sixteen_scrapers_hold_one_connection_and_all_are_answered(exporter: Exporter) -> None:
    """Released at once, they share the runs: every page is whole, and PostgreSQL sees one session."""
    exporter.page()
    process, most = psutil.Process(exporter.service.pid), 0
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        pages = [pool.submit(exporter.page) for _ in range(64)]
        while not all(page.done() for page in pages):
            most = max(most, connections(process, exporter.database.server.port))
            time.sleep(0.005)
    assert len({frozenset(page.result()) for page in pages}) == 1
    assert most <= 2, "the kept session, and for a moment the login that proves `up`"


def test_killed_at_any_moment_it_counts_every_check_once(exporter: Exporter) -> None:
    """kill -9 while scrapes and writers run: no counter goes back beyond a saved one, and the total is exact."""
    dice = random.Random(20)
    exporter.page()
    shown, written = 0.0, 0
    for _ in range(5):
        for _ in range(dice.randint(1, 4)):
            number = dice.randint(1, 30)
            exporter.database.sql(
                "insert into compliance_checks (order_ref, rule_set, finished_at, result)"
                f" select 'o', 'r', clock_timestamp(), 'pass' from generate_series(1, {number})"
            )
            written += number
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            scrape = pool.submit(counted, exporter)
            time.sleep(dice.random() * 0.03)
            exporter.service.kill()
            answer = scrape.result()
        exporter.service.start()
        if answer is not None:
            assert answer >= shown
            shown = answer
        now = counted(exporter)
        assert now is not None
        assert now >= shown, "what was shown was taken back"
        shown = now
    assert shown == written


def counted(exporter: Exporter) -> float | None:
    """Checks that the page tells; None when the process died under the question or the collector was not ready."""
    try:
        return exporter.page().get(key("prep_compliance_check_duration_seconds_count"))
    except (OSError, http.client.HTTPException):
        return None


def test_sigterm_ends_it_at_once_also_with_postgres_frozen(exporter: Exporter) -> None:
    """SIGTERM is exit code 0 within seconds, whatever the backends do; nothing secret is in the log."""
    exporter.page()
    with exporter.database.server.frozen(), concurrent.futures.ThreadPoolExecutor(1) as pool:
        scrape = pool.submit(exporter.get, "/metrics")
        time.sleep(0.3)
        began = time.monotonic()
        assert exporter.service.terminate(10) == 0
        assert time.monotonic() - began < 6
        scrape.exception()
    assert ROLE_PASSWORD not in exporter.service.log_text()
    for line in exporter.service.log_text().splitlines():
        assert json.loads(line)["event"]


def test_faults_are_logged_once(exporter: Exporter) -> None:
    """A fault is one warning when it begins and one line when it is over, not one a scrape."""
    exporter.page()
    exporter.database.server.stop()
    time.sleep(1.1)
    for _ in range(4):
        assert exporter.page()[key("prep_postgres_up", server="postgres")] == 0
    exporter.database.server.start()
    wait_until(lambda: exporter.page()[key("prep_postgres_up", server="postgres")] == 1, "recovery", 15)
    lines = [json.loads(line) for line in exporter.service.log_text().splitlines()]
    told = [(line["event"], line.get("collector")) for line in lines]
    assert told.count(("collector failed", "postgres")) == 1
    assert told.count(("collector recovered", "postgres")) == 1


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "exporter", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_wrong_configuration_is_exit_code_2_with_every_mistake(tmp_path: Path) -> None:
    """Both at the check and at the start, each mistake has its line."""
    path = tmp_path / "exporter.yml"
    path.write_text("web: {port: 1}\ncollectors:\n  disk: {paths: {}, timeout: 2}\n  memcached: {}\n")
    for arguments in (["--config.check"], []):
        done = run_script(f"--config.file={path}", *arguments)
        assert done.returncode == 2
        for place in (
            "exporter.yml:1: web.port",
            "exporter.yml:3: collectors.disk.paths",
            "exporter.yml:4: collectors.memcached",
        ):
            assert place in done.stderr
        assert "4 mistakes" in done.stderr
    assert run_script(f"--config.file={tmp_path / 'none.yml'}").returncode == 2


def test_ten_mistakes_in_one_file_are_all_told(tmp_path: Path) -> None:
    """The check of a file with more than ten mistakes of different kinds: each has its line and its remedy, exit code 2."""
    path = tmp_path / "exporter.yml"
    path.write_text(TEN_KINDS.format(folder=tmp_path))
    done = run_script(f"--config.file={path}", "--config.check", "--web.max-requests=0")
    assert done.returncode == 2
    *told, summary = done.stderr.splitlines()
    assert summary == "14 mistakes in the configuration"
    assert len(told) == 14
    assert sum(line.startswith(f"{path}:") for line in told) == 13
    assert sum(line.startswith("--web.max-requests: is out of its range") for line in told) == 1
    assert all(line.endswith(")") for line in told)


def test_good_configuration_is_exit_code_0(exporter: Exporter) -> None:
    """The check says so and starts nothing."""
    done = run_script(f"--config.file={exporter.config}", "--config.check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "good" in done.stdout


def test_taken_address_is_exit_code_1(exporter: Exporter, tmp_path: Path) -> None:
    """Nobody is left running without an address."""
    config = yaml.safe_load(exporter.config.read_text())
    config["collectors"]["compliance"]["state_file"] = str(tmp_path / "other.json")
    (tmp_path / "exporter.yml").write_text(yaml.safe_dump(config))
    done = run_script(f"--config.file={tmp_path / 'exporter.yml'}")
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert exporter.service.alive
