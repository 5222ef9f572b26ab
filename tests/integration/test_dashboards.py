"""Every query of every panel in a real Prometheus, with the shipped rules, beside the real exporter and a real service."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml

from dashboards import preview
from dashboards.queries import Query, committed, filled, panels, queries
from demo.profile import load_table, render
from tests.integration.demo_platform import DATABASE, Platform
from tests.support.browser import Chromium, audit
from tests.support.servers import PostgresServer, PrometheusServer, RedisServer, Run, Service, free_port, wait_until
from tests.unit.rule_contract import given, named, promql, recordings, selectors
from tests.unit.rule_files import ROOT

QUERIES = [query for dashboard in committed().values() for query in queries(dashboard)]
ABSENT = (
    "alertmanager_", "prep_backup", "prep_container", "prep_engine", "prep_pool", "prep_probe", "prep_redis_sessions", "prep_remediator",
    "prep_replication_behind", "prep_vendor", "prometheus_notifications", "service:replication_lag",
)  # fmt: skip
"""What this small platform lacks: an engine, a replica, a remediator, an Alertmanager, and what the shipped configuration leaves
off. tests/e2e has the rest."""
ABSENT_VALUES = ('slo="payments-api', 'job="prep-remediator"', "docker|probes|vendors")
"""The same, where a value names it: there is no payments service."""
LIMIT_SECONDS = 0.100
LOOKS = 3
"""The best of them counts: what else the machine does can only make a query slower."""


@pytest.fixture(scope="module")
def prometheus(run: Run) -> Iterator[PrometheusServer]:
    """With the demo's rules, which are the shipped ones with shorter times, on a platform that has been used a little."""
    platform = Platform(run, PostgresServer(run).start(), RedisServer(run).start())
    compliance = platform.service("compliance").start()
    exporter, page = _exporter(run, platform)
    server = _prometheus(run, page, platform.url("compliance").removeprefix("http://"))
    try:
        _use(platform)
        _settled(server)
        yield server
    finally:
        server.stop()
        exporter.stop()
        compliance.stop()
        platform.postgres.stop()
        platform.redis.stop()


def _exporter(run: Run, platform: Platform) -> tuple[Service, str]:
    folder = run.folder("exporter-of-dashboards")
    config = yaml.safe_load((ROOT / "config" / "exporter.yml").read_text())
    collectors = config["collectors"]
    for name in ("docker", "containers", "probes"):
        collectors[name]["enabled"] = False
    collectors["docker"] = {"enabled": False, "expected_services": ["none"]}
    server = {
        "host": "127.0.0.1",
        "port": platform.postgres.port,
        "database": DATABASE,
        "user": "prep_exporter",
        "password_file": str(platform.secrets / "postgres_exporter_password"),
    }
    collectors["postgres"] = {"servers": {"postgres": server}}
    collectors["replication"] |= {"replicas": {"postgres-replica": {}}}
    collectors["redis"] = {"servers": {"redis": {"host": "127.0.0.1", "port": platform.redis.port}}}
    collectors["disk"] = {"paths": {"/": "/"}}
    for name in ("compliance", "payments", "security"):
        collectors[name]["state_file"] = str(folder / f"{name}.json")
    port = free_port()
    config["scrape"]["timeout_offset"] = "100ms"  # of two seconds half of one would be much
    config["web"] = {"listen_address": f"127.0.0.1:{port}"}
    path = folder / "exporter.yml"
    path.write_text(yaml.safe_dump(config))
    service = Service(run, ["prep-exporter", f"--config.file={path}"], ready_url=f"http://127.0.0.1:{port}/-/ready")
    return service.start(), f"127.0.0.1:{port}"


def _prometheus(run: Run, exporter: str, compliance: str) -> PrometheusServer:
    folder = run.folder("rules-of-dashboards")
    render(ROOT, folder, load_table(ROOT / "demo" / "profile.yml"))
    rules = {path.name: _quick(path) for path in sorted((folder / "alert-rules").glob("*.rules.yml"))}
    timing = {"global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}}
    server = PrometheusServer(run, timing, rules).start()
    jobs = {
        "prep-exporter": {"targets": [exporter]},
        "prep-services": {"targets": [compliance], "labels": {"service": "python-compliance"}},
        "prometheus": {"targets": [f"127.0.0.1:{server.port}"]},
    }
    scraped = [{"job_name": job, "static_configs": [target]} for job, target in jobs.items()]
    server.reload({**timing, "scrape_configs": scraped})
    return server


def _quick(path: Path) -> Mapping[str, object]:
    """Every group each second: some wait a minute for their turn."""
    content: dict[str, list[dict[str, object]]] = yaml.safe_load(path.read_text())
    for group in content["groups"]:
        group.pop("interval", None)
    return content


def _use(platform: Platform) -> None:
    """A heartbeat, and some checks while the exporter looks."""
    platform.sql("insert into replication_heartbeat (beat_at) values (clock_timestamp())")
    platform.redis.command("CONFIG", "SET", "maxmemory", "64mb")
    for _ in range(8):
        assert platform.check().status == 201
        time.sleep(0.5)


def _settled(server: PrometheusServer) -> None:
    """Rules that read other rules' recordings have had their rounds."""
    server.wait_for('slo:events:increase1h{slo="compliance-latency"} > 0', deadline=60)
    server.wait_for("service:http_request_duration_seconds:p95 > 0", deadline=60)
    server.wait_for("count(rate(prep_payments_finalized_total[8s]))", deadline=60)


def lacking(expr: str) -> set[str]:
    """Names that the expression reads, through recordings, and that this platform lacks."""
    found = {value for value in ABSENT_VALUES if value in expr}
    for selector in selectors(promql.parse(expr)):
        name = named(selector)
        if name.startswith(ABSENT):
            found.add(name)
        elif name in recordings():
            found |= set().union(*(lacking(inner) for inner, _ in recordings()[name]))
    return found


@pytest.mark.timeout(90)
def test_every_query_is_answered(prometheus: PrometheusServer) -> None:
    """It parses in Prometheus, returns samples that are numbers where there is something to show, and takes under 100 ms."""
    wrong: list[str] = []

    def all_answer() -> bool:
        wrong[:] = [said for query in QUERIES if (said := objection(prometheus, query))]
        return not wrong

    wait_until(all_answer, "every query to be answered", 45, 1.0, seen=lambda: "\n".join(wrong))


def objection(prometheus: PrometheusServer, query: Query) -> str:
    """What is wrong with the answer to a query; empty when nothing is."""
    expr = filled(query.expr, rate_interval="8s")
    where = f"{query.dashboard}, {query.panel} {query.place}"
    seconds = []
    for _ in range(LOOKS):
        begun = time.perf_counter()
        samples = prometheus.query(expr)
        seconds.append(time.perf_counter() - begun)
        if seconds[-1] <= LIMIT_SECONDS:
            break
    if min(seconds) > LIMIT_SECONDS:
        return f"{where}: {min(seconds):.3f} s"
    if not samples and not lacking(expr) and "ALERTS{" not in expr:
        return f"{where}: no data: {expr}"
    return ""


def test_most_queries_are_held_to_return_data() -> None:
    """The list of what this platform lacks does not hollow the test out."""
    held = [query for query in QUERIES if not lacking(filled(query.expr)) and "ALERTS{" not in query.expr]
    assert len(held) > len(QUERIES) / 3, f"{len(held)} of {len(QUERIES)}"
    for name in ABSENT:
        assert any(each.startswith(name) for each in {*given(), *recordings()})


def test_variables_and_annotations_are_answered(prometheus: PrometheusServer) -> None:
    """Prometheus takes the marks' expressions, and the variables find jobs, instances and services."""
    for dashboard in committed().values():
        for each in dashboard["annotations"]["list"]:
            prometheus.query(filled(each["expr"]))
    for label, match in (("job", "up"), ("instance", 'up{job=~".+"}'), ("service", '{service!=""}')):
        found = prometheus.api(f"label/{label}/values?{urlencode({'match[]': match})}")
        assert len(found) >= 2, (label, found)
    assert all(panel["targets"] for dashboard in committed().values() for panel in panels(dashboard))


# ---- without Grafana ---------------------------------------------------------------------------------------------------


def test_the_preview_shows_every_panel(prometheus: PrometheusServer, run: Run, tmp_path: Path) -> None:
    """In a real Chromium: each panel has its chart, its numbers, its table, or words that say why there is nothing; no error, and
    nothing serious that axe-core finds.
    """
    path = tmp_path / "preview.html"
    assert preview.main(["--url", prometheus.url, "--since", "1m", "--out", str(path)]) == 0
    shown = [panel for dashboard in committed().values() for panel in panels(dashboard)]
    with Chromium(run) as chromium, chromium.person() as person:
        for dark in (False, True):
            person.page.emulate_media(color_scheme="dark" if dark else "light")
            person.page.goto(path.as_uri())
            person.page.wait_for_selector("html[data-drawn]")
            assert audit(person.page) == []
        assert person.page.locator("article").count() == len(shown)
        charts = person.page.locator(".chart")
        assert charts.count() == person.page.locator(".chart canvas").count() > 20
        assert person.page.evaluate(PAINTED) == charts.count()
        for article in person.page.locator("article:not(:has(canvas))").all():
            assert len(article.locator(".tile strong, td, .empty").first.inner_text()) > 0, article.inner_text()
        assert person.page.locator("#golden-signals article", has_text="PostgreSQL").first.inner_text().count("up") == 1
        assert "://" not in re.sub(
            r"http://127[^\s<]*|http://localhost[^\s<]*", "", person.page.locator("main").inner_text()
        )
        assert person.faults == []


PAINTED = """() => [...document.querySelectorAll('.chart canvas')].filter(canvas => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels.some((value, place) => place % 4 === 3 && value > 0);
}).length"""
"""How many charts have something drawn in them."""


def test_the_preview_says_what_hinders_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No Prometheus there: exit code 2, where it asked, and what to do."""
    address = f"http://127.0.0.1:{free_port()}"
    assert preview.main(["--url", address, "--out", str(tmp_path / "no.html")]) == 2
    said = capsys.readouterr().err
    assert address in said
    assert "make demo KEEP=1" in said
    assert not (tmp_path / "no.html").exists()
