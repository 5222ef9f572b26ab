"""Reloading a running exporter: checked first, swapped at once, nobody turned away, no counter back, nothing told twice."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from exporter.server import TIMEOUT_HEADER
from tests.integration.exporter_parts import ROLE, ROLE_PASSWORD, platform
from tests.integration.test_exporter_process import Found, key, read
from tests.support.servers import Database, PostgresServer, Reply, Run, Service, fetch, free_port, wait_until

CHECKS = key("prep_compliance_check_duration_seconds_count")
SUCCESSFUL = key("prep_config_last_reload_successful")
SINCE = key("prep_config_last_reload_success_timestamp_seconds")


@dataclass
class Exporter:
    """A running exporter and its configuration as data."""

    service: Service
    port: int
    file: Path
    config: dict[str, Any]
    database: Database

    def get(self, path: str = "/metrics", method: str = "GET", budget: float = 10.0) -> Reply:
        headers = {TIMEOUT_HEADER: str(budget)}
        return fetch(f"http://127.0.0.1:{self.port}{path}", method, headers=headers, timeout=15)

    def page(self) -> Found:
        return read(self.get().text)

    def write(self) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(self.config))
        fresh.replace(self.file)

    def reload(self) -> Reply:
        self.write()
        return self.get("/-/reload", "POST")

    def hang_up(self) -> None:
        self.service.signal(signal.SIGHUP)

    def finish(self, number: int) -> None:
        """Checks that become final now."""
        self.database.sql(
            "insert into compliance_checks (order_ref, rule_set, finished_at, result)"
            f" select 'o', 'r', clock_timestamp(), 'pass' from generate_series(1, {number})"
        )


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[PostgresServer]:
    """A server that these tests may freeze."""
    server = PostgresServer(run, name="of-reload").start()
    yield server
    server.stop()


@pytest.fixture
def exporter(run: Run, server: PostgresServer) -> Iterator[Exporter]:
    """PostgreSQL, a cursor and a disk; the cursor's state in the folder."""
    database, port = platform(server), free_port()
    folder = run.folder(f"reload-{port}")
    (folder / "secret").write_text(ROLE_PASSWORD)
    postgres = {
        "host": "127.0.0.1",
        "port": server.port,
        "database": database.name,
        "user": ROLE,
        "password_file": str(folder / "secret"),
    }
    config = {
        "web": {"listen_address": f"127.0.0.1:{port}", "enable_reload": True},
        "collectors": {
            "postgres": {"servers": {"postgres": postgres}},
            "compliance": {"state_file": str(folder / "compliance.json"), "margin": "500ms"},
            "disk": {"paths": {"/": "/"}},
        },
    }
    file = folder / "exporter.yml"
    service = Service(
        run,
        ["prep-exporter", f"--config.file={file}"],
        ready_url=f"http://127.0.0.1:{port}/-/ready",
        name=f"reload-exporter-{port}",
    )
    made = Exporter(service, port, file, config, database)
    made.write()
    service.start()
    yield made
    service.kill()
    database.drop()


def test_new_configuration_is_taken_over(exporter: Exporter) -> None:
    """By POST and by SIGHUP: a path more, a collector less, and the time of it as a series."""
    before = exporter.page()
    assert (before[SUCCESSFUL], before[SINCE]) == (1, pytest.approx(time.time(), abs=30))
    exporter.config["collectors"]["disk"]["paths"]["state"] = str(exporter.file.parent)
    reply = exporter.reload()
    assert (reply.status, reply.text) == (200, "taken over\n")
    after = exporter.page()
    assert key("prep_filesystem_free_bytes", path="state") in after
    assert after[SINCE] > before[SINCE]

    exporter.config["collectors"]["disk"]["enabled"] = False
    exporter.write()
    exporter.hang_up()
    wait_until(
        lambda: key("prep_scrape_collector_success", collector="disk") not in exporter.page(), "SIGHUP to count", 10
    )
    assert exporter.page()[SUCCESSFUL] == 1


def test_mistake_keeps_the_last_good(exporter: Exporter) -> None:
    """Every mistake is in the answer with its line, the series says so, everything goes on; mended, it counts again."""
    exporter.page()
    good = json.dumps(exporter.config)
    exporter.config["collectors"]["disk"] = {"paths": {"/x": "/nowhere"}, "timeout": 3}
    exporter.config["web"]["max_request"] = 1
    reply = exporter.reload()
    assert reply.status == 500
    for place in ("collectors.disk.timeout: 3 does not say", "/nowhere: does not exist", "did you mean max_requests?"):
        assert place in reply.text
    assert reply.text.count("exporter.yml:") == 3
    found = exporter.page()
    assert found[SUCCESSFUL] == 0
    assert key("prep_filesystem_free_bytes", path="/") in found
    assert CHECKS in found

    exporter.file.write_text("collectors: [")
    exporter.hang_up()
    exporter.service.wait_log("is not YAML")
    exporter.config = json.loads(good)
    assert exporter.reload().status == 200
    assert exporter.page()[SUCCESSFUL] == 1


def test_address_cannot_change(exporter: Exporter) -> None:
    """It is said, and the old one still answers."""
    exporter.config["web"]["listen_address"] = f"127.0.0.1:{free_port()}"
    exporter.config["web"]["telemetry_path"] = "/m"
    reply = exporter.reload()
    assert reply.status == 500
    assert "web.listen_address: cannot change" in reply.text
    assert "web.telemetry_path: cannot change" in reply.text
    assert "restart the exporter" in reply.text
    assert exporter.page()[SUCCESSFUL] == 0


def test_mistake_in_the_web_configuration_refuses_all_of_it(exporter: Exporter) -> None:
    """The one is not taken over without the other; a good one counts with the same reload."""
    web = exporter.file.parent / "web.yml"
    web.write_text("basic_auth_users: {a: clear}\n")
    exporter.config["web"]["config_file"] = str(web)
    reply = exporter.reload()
    assert reply.status == 500
    assert f"{web}:1: basic_auth_users.a: is not a bcrypt hash" in reply.text
    assert exporter.page()[SUCCESSFUL] == 0
    web.write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    assert exporter.reload().status == 200
    assert exporter.get().headers["x-frame-options"] == "deny"


def test_reload_over_http_is_off_unless_it_is_switched_on(exporter: Exporter) -> None:
    """And can be switched off by a reload; a GET is none."""
    assert exporter.get("/-/reload").status == 405
    exporter.config["web"]["enable_reload"] = False
    assert exporter.reload().status == 200
    reply = exporter.reload()
    assert reply.status == 403
    assert "SIGHUP" in reply.text


def test_no_counter_goes_back_and_nobody_is_turned_away(exporter: Exporter) -> None:
    """Scrapes and writers go on over many reloads: each scrape is answered, counters only rise, and the sum is exact."""
    exporter.page()
    stop, written = threading.Event(), 0
    shown: list[tuple[float, float | None]] = []
    statuses: set[int] = set()

    def scrape() -> None:
        while not stop.is_set():
            reply = exporter.get()
            statuses.add(reply.status)
            shown.append((time.monotonic(), read(reply.text).get(CHECKS)))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        scrapers = [pool.submit(scrape) for _ in range(2)]
        for number in range(12):
            exporter.finish(number + 1)
            written += number + 1
            exporter.config["collectors"]["disk"]["paths"][f"p{number}"] = "/"
            assert exporter.reload().status == 200
        stop.set()
        for each in scrapers:
            each.result(20)
    assert statuses == {200}
    # Two scrapers: an answer that was begun earlier may arrive later, so each one's own order is what counts.
    assert max(value for _, value in shown if value is not None) <= written
    assert exporter.page()[CHECKS] == written
    missing = sum(1 for _, value in shown if value is None)
    assert missing <= len(shown) / 5, f"{missing} of {len(shown)} scrapes without the cursor"
    assert exporter.page()[SUCCESSFUL] == 1


def test_one_scraper_never_sees_a_counter_fall(exporter: Exporter) -> None:
    """In the order of one Prometheus: over reloads, the total never goes back and is in every scrape."""
    exporter.page()
    values: list[float | None] = []
    for _ in range(10):
        exporter.finish(3)
        exporter.write()
        exporter.hang_up()
        values += [exporter.page().get(CHECKS) for _ in range(3)]
    known = [value for value in values if value is not None]
    assert known == sorted(known)
    assert len(known) >= len(values) - 2
    wait_until(lambda: exporter.page().get(CHECKS) == 30, "all checks to be counted", 10)


def test_probes_count_on_over_reloads(exporter: Exporter) -> None:
    """Counters and histograms that live in memory: over many reloads none falls or begins anew, and they go on; with
    another scheme it is another probe."""
    nobody = free_port()
    targets = {
        "web": {"url": f"http://127.0.0.1:{exporter.port}/-/healthy"},
        "gone": {"url": f"tcp://127.0.0.1:{nobody}"},
    }
    exporter.config["collectors"]["probes"] = {
        "interval": "400ms",
        "targets": {name: {**target, "timeout": "200ms"} for name, target in targets.items()},
    }
    assert exporter.reload().status == 200
    tried, failed = (
        key("prep_probe_duration_seconds_count", target="web"),
        key("prep_probe_failures_total", target="gone", reason="connect"),
    )
    wait_until(lambda: exporter.page().get(failed, 0) >= 3, "some rounds", 10)
    seen: list[tuple[float, float]] = []
    for number in range(6):
        exporter.config["collectors"]["disk"]["paths"][f"p{number}"] = "/"
        assert exporter.reload().status == 200
        page = exporter.page()
        seen.append((page[tried], page[failed]))
    assert seen == sorted(seen)
    assert min(seen[0]) >= 3
    wait_until(lambda: exporter.page()[failed] > seen[-1][1] + 1, "the counter to go on", 10)
    exporter.config["collectors"]["probes"]["targets"]["gone"]["url"] = f"http://127.0.0.1:{nobody}/"
    assert exporter.reload().status == 200
    wait_until(
        lambda: key("prep_probe_status_class", target="gone", status_class="none") in exporter.page(), "HTTP", 10
    )
    page = exporter.page()
    assert page[failed] < seen[-1][1]
    assert page[tried] >= seen[-1][0]


def test_scrape_under_way_is_answered_also_with_postgres_frozen(exporter: Exporter) -> None:
    """A reload waits a moment for it and no longer; what is ready is answered, and the new configuration holds."""
    exporter.page()
    exporter.config["collectors"]["disk"]["paths"]["more"] = "/"
    with exporter.database.server.frozen(), concurrent.futures.ThreadPoolExecutor(2) as pool:
        scrape = pool.submit(exporter.get, "/metrics")
        wait_until(lambda: busy(exporter), "the scrape to be under way", 5)
        began = time.monotonic()
        assert exporter.reload().status == 200
        assert time.monotonic() - began < 6
        reply = scrape.result(15)
        assert reply.status == 200
        found = read(reply.text)
        assert found[key("prep_scrape_collector_success", collector="postgres")] == 0
        assert key("prep_filesystem_free_bytes", path="/") in found
        after = read(exporter.get(budget=1.5).text)
        assert key("prep_filesystem_free_bytes", path="more") in after
    wait_until(lambda: CHECKS in exporter.page(), "the cursor to go on", 15)


def busy(exporter: Exporter) -> bool:
    """Whether somebody's connection is being served."""
    served = psutil.Process(exporter.service.pid).net_connections("tcp")
    return any(each.laddr.port == exporter.port and each.status == psutil.CONN_ESTABLISHED for each in served)


def test_sigterm_in_the_middle_of_reloads_is_exit_code_0(exporter: Exporter) -> None:
    """Whatever is under way, it ends in order."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(attempt, exporter) for _ in range(6)]
        exporter.hang_up()
        assert exporter.service.terminate(15) == 0
        for each in calls:
            each.result(20)
    assert "Traceback" not in exporter.service.log_text()


def attempt(exporter: Exporter) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        exporter.reload()
