"""Write the pinned lists of the metrics of other people's exporters: tests/data/third_party/*.json.

In: the programs of this machine (Debian's packages as a rule), run for a moment against servers that are started for
it, and for cAdvisor, of which Debian has no package, its documentation. Out: a file a program with its version and, by
name, type and label names. Run it when a version is to be pinned anew: `python -m scripts.third_party_metrics`. It must
never be part of the product: the lists only say what a rule may read.

What a program shows depends on the machine and on what it watches, so the servers here are given what the rules ask
for: a replica with a slot, an open transaction, a key that expires, a rule that fails, a receiver.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support.daemon import Daemon
from tests.support.prometheus import AlertmanagerServer, PrometheusServer
from tests.support.servers import PostgresServer, RedisServer, Run, WebhookRecorder, fetch, free_port, wait_until

OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "third_party"
_TYPE = re.compile(r"^# TYPE (?P<name>\S+) (?P<type>\w+)$", re.MULTILINE)
_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? \S+", re.MULTILINE)
_LABEL = re.compile(r'([a-zA-Z_]\w*)="(?:[^"\\]|\\.)*"')
_PARTS = re.compile(r"_(bucket|sum|count)$")
_INNER = {"le", "quantile"}

CADVISOR_VERSION = "0.49"
CADVISOR_LABELS = (
    "id", "name", "image", "container_label_com_docker_compose_service", "container_label_com_docker_compose_project",
)  # fmt: skip
"""On every series of a container that Compose made; metrics/prometheus.go, DefaultContainerLabels."""
CADVISOR: dict[str, tuple[str, ...]] = {
    "container_cpu_cfs_periods_total": (),
    "container_cpu_cfs_throttled_periods_total": (),
    "container_cpu_usage_seconds_total": ("cpu",),
    "container_last_seen": (),
    "container_memory_failcnt": (),
    "container_memory_usage_bytes": (),
    "container_memory_working_set_bytes": (),
    "container_oom_events_total": (),
    "container_spec_cpu_period": (),
    "container_spec_cpu_quota": (),
    "container_spec_memory_limit_bytes": (),
    "container_start_time_seconds": (),
}
"""The families that a rule may want, with what they have beside the common labels; docs/storage/prometheus.md and
metrics/prometheus.go of cAdvisor. Debian has no package of it, so nothing was run: this is read, not measured."""


class Exporter(Daemon):
    """One exporter on a free port of 127.0.0.1."""

    def __init__(
        self, run: Run, program: str, arguments: list[str], flag: str, environment: dict[str, str] | None = None
    ) -> None:
        super().__init__(run, program)
        self.port = free_port()
        self._argv = [program, f"{flag}=127.0.0.1:{self.port}", *arguments]
        self._more = environment or {}

    def argv(self) -> list[str]:
        return ["env", *(f"{key}={value}" for key, value in self._more.items()), *self._argv]

    def ready(self) -> bool:
        return fetch(f"http://127.0.0.1:{self.port}/metrics", timeout=5).status == 200


def families(page: str) -> dict[str, dict[str, Any]]:
    """A page in Prometheus' text format: type and label names by family; `le` and `quantile` are the type's own."""
    kinds = {found["name"]: found["type"] for found in _TYPE.finditer(page)}
    made: dict[str, dict[str, Any]] = {}
    for sample in _SAMPLE.finditer(page):
        name = sample["name"]
        base = name if name in kinds else _PARTS.sub("", name)
        labels = made.setdefault(base, {"type": kinds.get(base, "untyped"), "labels": set()})["labels"]
        labels |= set(_LABEL.findall(sample["labels"] or "")) - _INNER
    return made


def write(program: str, version: str, source: str, metrics: dict[str, dict[str, Any]]) -> None:
    """One pinned list, a family a line."""
    lines = [
        f"    {json.dumps(name)}: {json.dumps({'type': each['type'], 'labels': sorted(each['labels'])})}"
        for name, each in sorted(metrics.items())
    ]
    head = {"program": program, "version": version, "source": source}
    fields = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    body = ",\n".join(lines)
    text = f'{{\n{fields},\n  "metrics": {{\n{body}\n  }}\n}}\n'
    (OUT / f"{program}.json").write_text(text, encoding="utf-8")


def version(program: str) -> str:
    """`0.11.1` of `postgres_exporter, version 0.11.1 (...)`; redis_exporter says `Redis Metrics Exporter v1.45.0`."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"(?:version |Exporter v?)(\d[\w.]*)", done.stdout + done.stderr)
    if found is None:
        raise SystemExit(f"{program} --version says no version: {done.stdout}{done.stderr}")
    return found[1]


def page(port: int) -> str:
    """What a program shows at /metrics."""
    return fetch(f"http://127.0.0.1:{port}/metrics", timeout=20).text


def databases(run: Run) -> None:
    """postgres_exporter at a primary (with a replica, a slot, a session in a transaction) and at the replica."""
    program = "prometheus-postgres-exporter"
    with PostgresServer(run) as primary:
        primary.sql("select pg_create_physical_replication_slot('pinned', true)")
        primary.sql("create table seen (id int)")
        replica = primary.replica()
        merged: dict[str, dict[str, Any]] = {}
        for server in (primary, replica):
            source = f"{server.dsn('postgres')}?sslmode=disable"
            with Exporter(run, program, [], "--web.listen-address", {"DATA_SOURCE_NAME": source}) as exporter:
                for name, each in families(page(exporter.port)).items():
                    merged.setdefault(name, {"type": each["type"], "labels": set()})["labels"] |= each["labels"]
        replica.stop()
    write(program, version(program), "GET /metrics of a primary and of its replica", merged)


def caches(run: Run) -> None:
    """redis_exporter at a Redis with a limit of memory and a key that expires."""
    program = "prometheus-redis-exporter"
    with RedisServer(run, options=["--maxmemory", "64mb"]) as redis:
        redis.command("SET", "key", "value", "EX", "600")
        address = f"--redis.addr=redis://127.0.0.1:{redis.port}"
        with Exporter(run, program, [address], "--web.listen-address") as exporter:
            write(program, version(program), "GET /metrics", families(page(exporter.port)))


def machine(run: Run) -> None:
    """node_exporter with its own set of collectors; of the machine's disks no more than the families matter."""
    program = "prometheus-node-exporter"
    with Exporter(run, program, [], "--web.listen-address") as exporter:
        write(program, version(program), "GET /metrics", families(page(exporter.port)))


def own(run: Run) -> None:
    """Prometheus, with one rule, an Alertmanager to tell and itself to scrape; and that Alertmanager."""
    with WebhookRecorder() as receiver:
        hook = {"url": f"{receiver.url}/", "send_resolved": True}
        config = {
            "route": {"receiver": "a", "group_wait": "0s"},
            "receivers": [{"name": "a", "webhook_configs": [hook]}],
        }
        with AlertmanagerServer(run, config) as alertmanager:
            rule = {"alert": "Always", "expr": "vector(1)"}
            settings = {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager.port}"]}]}]},
                "scrape_configs": [
                    {"job_name": "alertmanager", "static_configs": [{"targets": [f"127.0.0.1:{alertmanager.port}"]}]}
                ],
            }
            rules = {"one.rules.yml": {"groups": [{"name": "one", "rules": [rule]}]}}
            # Prometheus finds its Alertmanager only after seconds, and says an alert again after a minute by itself.
            with PrometheusServer(run, settings, rules, ["--rules.alert.resend-delay=1s"]) as prometheus:
                wait_until(lambda: alertmanager.alerts(alertname="Always"), "the alert", 20)
                time.sleep(2)
                metrics = families(page(prometheus.port))
                for series in prometheus.api('series?match[]={__name__=~"up|scrape_.*|ALERTS.*"}'):
                    labels = set(series) - {"__name__", "instance", "job"}
                    metrics.setdefault(series["__name__"], {"type": "gauge", "labels": set()})["labels"] |= labels
                write("prometheus", version("prometheus"), "GET /metrics, and the series it makes itself", metrics)
            write(
                "prometheus-alertmanager",
                version("prometheus-alertmanager"),
                "GET /metrics",
                families(page(alertmanager.port)),
            )


def cadvisor() -> None:
    """cAdvisor, out of its documentation."""
    metrics = {
        name: {
            "type": "counter" if name.endswith(("_total", "_failcnt")) else "gauge",
            "labels": (*CADVISOR_LABELS, *more),
        }
        for name, more in CADVISOR.items()
    }
    source = "docs/storage/prometheus.md and metrics/prometheus.go, read and not run; the families that rules may want"
    write("cadvisor", CADVISOR_VERSION, source, metrics)


def main() -> None:
    """Write every list."""
    OUT.mkdir(parents=True, exist_ok=True)
    run = Run.open()
    try:
        for part in (machine, caches, own, databases):
            part(run)
    finally:
        run.close()
    cadvisor()
    for path in sorted(OUT.glob("*.json")):
        pinned = json.loads(path.read_text(encoding="utf-8"))
        print(f"{path.name}: {pinned['version']}, {len(pinned['metrics'])} families")


if __name__ == "__main__":
    main()
