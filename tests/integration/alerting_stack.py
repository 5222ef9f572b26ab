"""The rendered demo profile in a real Prometheus and Alertmanager, fed by stand-ins for the scraped services.

Servers and configuration are real: addresses are all that is changed in the rendered files. What is scraped
is made up here, by the clock; what would reach the remediator and people is caught by one recorder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.profile import load_table, render
from tests.support.http_stubs import Answer, Request, StubServer, WebhookRecorder
from tests.support.servers import AlertmanagerServer, PrometheusServer, Run, wait_until

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "token-of-the-integration-test"
PROMETHEUS, ALERTMANAGER = Path("prometheus/prometheus.yml"), Path("alertmanager/alertmanager.yml")


class Scraped(StubServer):
    """A stand-in for one scraped service: `page` gives values by `name{labels}`; None: the service fails."""

    def __init__(self, page: Callable[[], dict[str, float] | None]) -> None:
        super().__init__()
        self._page = page

    @property
    def address(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self.port}"

    def answer(self, request: Request) -> Answer:
        page = self._page()
        if page is None:
            return Answer(500)
        text = "".join(f"{name} {value!r}\n" for name, value in page.items())
        return Answer(200, text.encode(), {"Content-Type": "text/plain; version=0.0.4"})


@dataclass
class Platform:
    """What the scraped services say. All is well until a test sets a fault; counters only ever grow.

    fast, slow            checks that end each second within 5 s, and within 10 s
    compliance_source     can the exporter read the checks from the database?
    exporter_up           does the exporter answer?
    long_queries, cores   queries over the limit, and cores that the database uses of its one
    """

    fast: float = 10.0
    slow: float = 0.0
    compliance_source: bool = True
    exporter_up: bool = True
    long_queries: int = 0
    cores: float = 0.3
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _counted: float = field(default_factory=time.monotonic)
    _ended_fast: float = 0.0
    _ended_slow: float = 0.0
    _cpu_seconds: float = 0.0

    def count(self) -> None:
        """Let the counters grow at the present rates up to now; called before a rate changes or a scrape."""
        with self._lock:
            seconds, self._counted = time.monotonic() - self._counted, time.monotonic()
            self._ended_fast += seconds * self.fast
            self._ended_slow += seconds * self.slow
            self._cpu_seconds += seconds * self.cores

    def exporter(self) -> dict[str, float] | None:
        """The exporter's page."""
        self.count()
        if not self.exporter_up:
            return None
        page = {
            'prep_postgres_up{server="postgres"}': 1.0,
            'prep_postgres_long_running_queries{server="postgres"}': float(self.long_queries),
            'prep_container_cpu_seconds_total{compose_service="postgres"}': self._cpu_seconds,
            'prep_container_cpu_limit_cores{compose_service="postgres"}': 1.0,
            'prep_scrape_collector_success{collector="compliance"}': float(self.compliance_source),
        }
        if self.compliance_source:
            page |= self._checks("prep_compliance_check_duration_seconds", "")
            page["prep_compliance_cursor_catching_up"] = 0.0
        return page

    def compliance(self) -> dict[str, float]:
        """python-compliance's own page."""
        self.count()
        page = self._checks("prep_http_request_duration_seconds", 'handler="/v1/checks",method="POST",')
        return {**page, 'prep_compliance_engine_sessions{state="busy"}': 1.0}

    def _checks(self, name: str, labels: str) -> dict[str, float]:
        ended = float(int(self._ended_fast) + int(self._ended_slow))
        plain = "{" + labels.rstrip(",") + "}" if labels else ""
        return {
            f'{name}_bucket{{{labels}le="5.0"}}': float(int(self._ended_fast)),
            f'{name}_bucket{{{labels}le="10.0"}}': ended,
            f'{name}_bucket{{{labels}le="+Inf"}}': ended,
            f"{name}_count{plain}": ended,
        }


class Told(WebhookRecorder):
    """Catches what Alertmanager sends: to the remediator at /alertmanager, to people at /<receiver>."""

    def deliveries(
        self, path: str, alertname: str, since: float, status: str = "firing", **labels: str
    ) -> list[Delivery]:
        """Such alerts delivered to that path after `since` (UNIX seconds), oldest first."""
        wanted = {"alertname": alertname, **labels}.items()
        return [
            Delivery(request, alert)
            for request in self.snapshot()
            if request.path == path and request.at >= since
            for alert in request.json()["alerts"]
            if alert["status"] == status and wanted <= alert["labels"].items()
        ]

    def wait(
        self, path: str, alertname: str, since: float, deadline: float, status: str = "firing", **labels: str
    ) -> Delivery:
        """The first of these; waits up to `deadline` seconds. Raises NotInTime with all that came since."""
        return wait_until(
            lambda: self.deliveries(path, alertname, since, status, **labels),
            f"{alertname} ({status}) at {path}",
            deadline,
            0.1,
            lambda: self.all_since(since),
        )[0]

    def all_since(self, since: float) -> str:
        """What came, one line a notification, for a failure's message."""
        return "\n".join(
            f"{request.at - since:+6.1f} s {request.path} {alert['status']} {alert['labels']}"
            for request in self.snapshot()
            if request.at >= since
            for alert in request.json()["alerts"]
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert, and the request that brought it."""

    request: Request
    alert: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything that runs."""

    platform: Platform
    told: Told
    prometheus: PrometheusServer
    alertmanager: AlertmanagerServer


def servers(
    run: Run, folder: Path, told: Told, exporter: Scraped, compliance: Scraped, other: Scraped
) -> tuple[AlertmanagerServer, PrometheusServer]:
    """The two servers on the profile rendered into `folder`, not started; compose's names become loopback."""
    render(ROOT, folder, load_table(ROOT / "demo" / "profile.yml"))
    token = folder / "token"
    token.write_text(f"{TOKEN}\n", encoding="utf-8")
    told_at = told.url.removeprefix("http://")
    routes = (folder / ALERTMANAGER).read_text(encoding="utf-8")
    for name in ("remediator:11471", "inbox:8025", "switch:8026"):
        routes = routes.replace(name, told_at)
    for name in ("remediator_token", "switch_token"):
        routes = routes.replace(f"/run/secrets/{name}", str(token))
    alertmanager = AlertmanagerServer(run, routes)
    config = (folder / PROMETHEUS).read_text(encoding="utf-8")
    for name, address in {
        "exporter:11470": exporter.address,
        "python-compliance:8080": compliance.address,
        "payments:8080": other.address,
        "load:8080": other.address,
        "remediator:11471": other.address,
        "switch:8026": other.address,
        "alertmanager:9093": f"127.0.0.1:{alertmanager.port}",
    }.items():
        config = config.replace(name, address)
    rules = {path.name: path for path in sorted((folder / "alert-rules").glob("*.rules.yml"))}
    return alertmanager, PrometheusServer(run, config, rules)
