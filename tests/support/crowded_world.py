"""What stands around a remediator that is measured: a crowd of sick services behind the real gate, Prometheus, Alertmanager.

The crowd's alerts are true at Prometheus, and a test posts them itself: Alertmanager routes only what the remediator has
to say, to people.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from remediator import gate
from tests.support.crowd import names
from tests.support.haproxy import Haproxy
from tests.support.http_stubs import WebhookRecorder
from tests.support.prometheus import AlertmanagerServer, PrometheusServer, scrape_config
from tests.support.remediation import ENVIRONMENT, SERVICES_JOB, SICK, TOKEN, Remediator, restart_book
from tests.support.run import Run
from tests.support.service import Service
from tests.support.waiting import fetch, free_port, wait_until

APART = (0.05, 0.15)  # seconds between an effect and the next POST, by chance: out of step with every poll
OFTEN = {"cooldown": "1m", "per_hour": 1000, "per_day": 1000}


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart as the target saw it come in, UNIX seconds."""

    at: float
    service: str


class CrowdedWorld:
    """`count` sick services and all that a remediator asks about them; each restart heals one."""

    def __init__(self, run: Run, count: int) -> None:
        self.run, self.project, self.names = run, "crowd", names(count)
        folder = run.folder("crowd")
        self._restarts = folder / "restarts"
        self._port, socket = free_port(), folder / "engine.sock"
        self._stack = ExitStack()
        enter = self._stack.enter_context
        argv = ["python", "-m", "tests.support.crowd", socket, self._port, self._restarts, self.project, count]
        crowd = Service(run, [str(word) for word in argv], ready_log="^ready", name="crowd").start()
        self._stack.callback(crowd.kill)
        self.inbox = enter(WebhookRecorder())
        self.alertmanager = enter(AlertmanagerServer(run, _routes(self.inbox.url)))
        scraped = scrape_config(
            {SERVICES_JOB: self._port}, [self.alertmanager.port], interval="1s", environment=ENVIRONMENT
        )
        self.prometheus = enter(PrometheusServer(run, scraped, {"crowd.rules.yml": _RULES}))
        made = gate.Gate(
            tuple(f"{self.project}-{name}-1" for name in self.names), bind="127.0.0.1:{port}", socket=str(socket)
        )
        started = {"GATE_STARTED": str(int(time.time()) - 60)}
        self.gate = enter(Haproxy(run, gate.render(made), started, name="gate"))
        wait_until(lambda: len(self.prometheus.alerts()) == count, f"{count} alerts at Prometheus", 30)

    def remediator(
        self, *, settle: str, storm_episodes: int, all_per_hour: int, name: str = "remediator"
    ) -> Remediator:
        """A remediator over the whole crowd, evidence, gate and second look included; not started yet."""
        book = restart_book(self.names, settle=settle, limits=OFTEN)
        # well as soon as one of them is: a proof that all are would never come
        check = {"name": "well", "query": "min(prep_service_sick)", "below": 1}
        book["proof"] = {"hold": "2s", "timeout": "60s", "every": "5s", "checks": [check]}
        probe = {"slower_than": "2s", "timeout": "2s"}
        services = {
            each: {"singleton": True, "probe": {**probe, "url": f"http://127.0.0.1:{self._port}/health/{each}"}}
            for each in self.names
        }
        guards = {"storm_episodes": storm_episodes, "all_per_hour": all_per_hour, "all_per_day": all_per_hour}
        return Remediator(self, [book], name=name, services=services, guards=guards)

    def restarts(self) -> list[Restart]:
        """What was done, by the target's own count, oldest first."""
        lines = self._restarts.read_text().splitlines() if self._restarts.exists() else []
        return [Restart(float(at), service) for at, service in (line.split() for line in lines)]

    def decided(self, remediator: Remediator) -> int:
        """How many decisions were made, to act or for the storm, by the remediator's metrics: quick to ask."""
        lines = fetch(f"{remediator.url}/metrics", timeout=10).text.splitlines()
        counted = ('prep_remediator_refused_total{reason="storm"}', "prep_remediator_attempts_total{")
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith(counted)))

    def accounted(self, remediator: Remediator) -> dict[str, str]:
        """By service, what became of its alert: `acted`, or the reason of the last refusal."""
        found = {restart.service: "acted" for restart in self.restarts()}
        for row in remediator.ask(f"episodes?limit={2 * len(self.names)}")["episodes"]:
            events = remediator.events(row["id"])
            service = events[0]["data"]["alert"]["labels"]["service"] if events else ""
            reasons = [event["data"]["reason"] for event in events if event["kind"] == "refused"]
            if reasons:
                found.setdefault(service, reasons[-1])
        return found

    def bodies(self, posts: int, alerts: int) -> list[bytes]:
        """So many deliveries of so many alerts, round and round over the crowd; no two alike."""
        return [
            self.body([self.names[(post * alerts + each) % len(self.names)] for each in range(alerts)], post)
            for post in range(posts)
        ]

    def body(self, services: Sequence[str], number: int = 0) -> bytes:
        """One delivery as Alertmanager writes it."""
        labels = {"alertname": SICK, "environment": ENVIRONMENT}
        return json.dumps(
            {
                "receiver": "remediator",
                "status": "firing",
                "alerts": [_alert(service, self._port) for service in services],
                "groupLabels": {"alertname": SICK},
                "commonLabels": labels,
                "commonAnnotations": {},
                "externalURL": self.alertmanager.url,
                "version": "4",
                "groupKey": f'{{}}:{{alertname="{SICK}",number="{number}"}}',
                "truncatedAlerts": 0,
            }
        ).encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def post(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[float, float]:
    """One delivery; when it was sent and when it was answered, UNIX seconds. Raises RuntimeError unless it is a yes."""
    host, path = url.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.connect()
    sent = time.time()
    connection.request("POST", f"/{path}", body, {"Content-Type": "application/json", **headers})
    status = connection.getresponse().status
    answered = time.time()
    connection.close()
    if status != 200:
        raise RuntimeError(f"{url} answers {status}")
    return sent, answered


def one_by_one(world: CrowdedWorld, remediator: Remediator) -> Iterator[tuple[str, tuple[float, float]]]:
    """Deliver one alert for each service, the next one after the effect; service, when sent and when answered."""
    for service in world.names:
        yield service, _acted_upon(world, remediator, service)
        time.sleep(random.uniform(*APART))


def _acted_upon(world: CrowdedWorld, remediator: Remediator, service: str) -> tuple[float, float]:
    before = len(world.restarts())
    times = post(f"{remediator.url}/alertmanager", world.body([service]), {"Authorization": f"Bearer {TOKEN}"})
    wait_until(lambda: len(world.restarts()) > before, f"the effect on {service}", 30, 0.01, remediator.story)
    return times


_SINCE = datetime.now(UTC)


def _alert(service: str, port: int) -> Mapping[str, Any]:
    labels = {
        "alertname": SICK,
        "environment": ENVIRONMENT,
        "instance": f"127.0.0.1:{port}",
        "job": SERVICES_JOB,
        "runbook": "restart",
        "service": service,
        "severity": "P2",
    }
    return {
        "status": "firing",
        "labels": labels,
        "annotations": {
            "summary": f"{service} is sick.",
            "description": f"{service} answers its health check with an error for 2 minutes; orders wait in its queue.",
            "runbook_url": "https://handbook.example.org/service-sick",
        },
        "startsAt": _SINCE.isoformat(),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph?g0.expr=prep_service_sick+%3E+0&g0.tab=1",
        "fingerprint": hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:16],
    }


def _routes(people: str) -> dict[str, Any]:
    return {
        "route": {
            "receiver": "nobody",
            "group_by": ["..."],
            "group_wait": "100ms",
            "group_interval": "1s",
            "repeat_interval": "1h",
            "routes": [{"receiver": "people", "matchers": ['component="remediator"']}],
        },
        "receivers": [{"name": "nobody"}, {"name": "people", "webhook_configs": [{"url": f"{people}/people"}]}],
    }


_RULES = {
    "groups": [
        {
            "name": "crowd",
            "interval": "1s",
            "rules": [
                {"alert": SICK, "expr": "prep_service_sick > 0", "labels": {"severity": "P2", "runbook": "restart"}}
            ],
        }
    ]
}
