"""PrometheusRetentionShort on a real Prometheus: what a server says of its retention, and what it does not."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from alerting.slo_model import seconds
from tests.support.run import program
from tests.support.servers import PrometheusServer, Run
from tests.support.waiting import wait_until
from tests.unit.rule_files import ROOT, alerts, read

DAY = 86400
ALERT = alerts()["PrometheusRetentionShort"]["expr"]


def server(run: Run, retention: str) -> PrometheusServer:
    """A Prometheus that scrapes itself each second under the job `prometheus`; not started."""
    made = PrometheusServer(run, "", options=[f"--storage.tsdb.retention.time={retention}"])
    made.config_file.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: prometheus, static_configs: [{{targets: ['127.0.0.1:{made.port}']}}]}}]\n"
    )
    return made


def with_history(made: PrometheusServer, days: int, tmp_path: Path) -> None:
    """A block with one sample for each of the last days."""
    now = int(time.time())
    text = "# TYPE old gauge\n"
    text += "".join(f"old 1 {at}\n" for at in range(now - days * DAY, now, DAY))
    source = tmp_path / "history.txt"
    source.write_text(text + "# EOF\n")
    line = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(source), str(made.folder / "data")]
    subprocess.run(line, check=True, capture_output=True, timeout=60)


def test_the_composed_retention_is_understood(run: Run) -> None:
    """Prometheus itself reads docker-compose.yml's flag as 45 days, and the young server raises no alarm."""
    command = read(ROOT / "docker-compose.yml")["services"]["prometheus"]["command"]
    (kept,) = [part.partition("=")[2] for part in command if part.startswith("--storage.tsdb.retention.time=")]
    with server(run, kept) as prometheus:
        prometheus.wait_for("prometheus_tsdb_time_retentions_total")
        assert seconds(prometheus.api("status/runtimeinfo")["storageRetention"]) == 45 * DAY
        assert prometheus.query(ALERT) == []


@pytest.mark.parametrize(("retention", "days", "short"), [("15d", 40, True), ("45d", 60, False)])
def test_a_server_that_deleted_is_judged_by_what_is_left(
    run: Run, tmp_path: Path, retention: str, days: int, short: bool
) -> None:
    """Both delete their oldest blocks; only the one that keeps 15 days has too little left."""
    made = server(run, retention)
    with_history(made, days, tmp_path)
    with made as prometheus:
        wait_until(lambda: bool(prometheus.query("prometheus_tsdb_time_retentions_total > 0")), "a deletion", 90.0, 0.2)
        left = prometheus.value("time() - prometheus_tsdb_lowest_timestamp_seconds")
        assert left is not None
        assert seconds(retention) - DAY <= left <= seconds(retention) + 2 * DAY, "the deletion is what was wanted"
        assert [sample.value < 31 * DAY for sample in prometheus.query(ALERT)] == ([True] if short else [])
