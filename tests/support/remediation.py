"""The whole remediator on real parts: its process, Prometheus, Alertmanager, the Docker gate, a target that heals.

In: a run and an engine. Out: a `World` (what stands around), `SickService` (a container whose restart heals it and
which counts its own lives) and `Remediator` (the program as it ships, with short times). Nothing here hides a second
effect: the gate's and the runbooks' cooldown are 1 s, no fix is one too many, and the target itself counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

import yaml

from remediator import gate
from tests.support.docker_engine import DockerEngine, ServiceContainer
from tests.support.haproxy import Haproxy
from tests.support.http_stubs import Answer, Request, StubMetrics, WebhookRecorder
from tests.support.prometheus import AlertmanagerServer, PrometheusServer
from tests.support.run import Run
from tests.support.service import Service
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import Reply, fetch, free_port, post_json, wait_until

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT, SERVICES_JOB, QUERIES_JOB = "test", "prep-services", "prep-exporter"
TOKEN, API_TOKEN = "webhook-token-of-the-tests", "api-token-of-the-tests"
OPTED_IN = {"prep-ops.remediate": "true"}
START_WITHIN, DEADLINE = 4.0, 4.0  # seconds: an effect may begin, and is over
SLOW_MACHINE = 20.0  # seconds for an effect where many run at once
PATIENCE = 20.0  # seconds after an effect until it counts as no help
HOLD_OFF = START_WITHIN + DEADLINE  # seconds without an intent after a kill
SICK, STALLED, SLOW = "ServiceSick", "ServiceStalled", "DatabaseSlow"

# A service with a web server: well after a start unless it is incurable, and what it is told to be meanwhile. /lives has
# a line a start.
_SERVICE = r"""
mkdir -p /www/cgi-bin
state() {  # name, value of the metric, what else it does
  printf '#!/bin/sh\n%s\necho prep_service_sick %s >/www/new; mv /www/new /www/metrics.txt\n' "$3" "$2" >/www/cgi-bin/$1
  printf 'printf "Content-Type: text/plain\\r\\n\\r\\ndone\\n"\n' >>/www/cgi-bin/$1
  chmod +x /www/cgi-bin/$1
}
state well 0 'rm -f /www/incurable; echo ok >/www/health'
state sick 1 'rm -f /www/health'
state incurable 1 'rm -f /www/health; touch /www/incurable'
[ -e /www/incurable ] || /www/cgi-bin/well >/dev/null
echo life >>/www/lives
trap "$ON_STOP" TERM INT
httpd -f -p 127.0.0.1:$PORT -h /www & wait
"""


class LiveMetrics(StubMetrics):
    """Series whose values are asked for at each scrape."""

    def __init__(self) -> None:
        super().__init__()
        self._watched: list[tuple[str, Callable[[], float], Mapping[str, str]]] = []

    def watch(self, name: str, value: Callable[[], float], **labels: str) -> None:
        """Expose what `value` says at each scrape; called from the server's threads."""
        self._watched.append((name, value, labels))

    def answer(self, request: Request) -> Answer:
        for name, value, labels in self._watched:
            self.set(name, value(), **labels)
        return super().answer(request)


class SickService:
    """One container of a compose service. `sicken` makes its health fail until it is restarted, or `heal` is called.

    effects     starts since `begin`: what was done to it, by its own count
    incurable   a restart does not help: a second one is hidden by nothing but the remediator's own knowledge
    stubborn    it does not stop before it is killed, so that a restart takes over a second
    """

    incurable = False

    def __init__(self, world: World, name: str, *, stubborn: bool = False) -> None:
        self.name, self.project = name, world.project
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.container: ServiceContainer = world.engine.service_container(
            world.project,
            name,
            labels=OPTED_IN,
            command=("sh", "-c", _SERVICE),
            environment={"PORT": str(self.port), "ON_STOP": "" if stubborn else "exit 0"},
            stop_timeout=1,
            network="host",
        )
        self._world = world
        wait_until(lambda: fetch(f"{self.url}/health", timeout=2).status == 200, f"{name} to be well", 20)
        world.scrape(self)
        self.begin()

    def begin(self) -> None:
        """Count effects from now on."""
        self._lives = self.lives()

    def lives(self) -> int:
        """How often it was started since it was made."""
        return len(fetch(f"{self.url}/lives", timeout=5).text.split())

    @property
    def effects(self) -> int:
        return self.lives() - self._lives

    def sicken(self) -> None:
        """From now on sick, and known to Prometheus as such."""
        self._become("incurable" if self.incurable else "sick", 1)

    def heal(self) -> None:
        """Well without a restart, and known as such."""
        self._become("well", 0)

    def _become(self, state: str, value: int) -> None:
        answer = fetch(f"{self.url}/cgi-bin/{state}", timeout=5)
        assert answer.status == 200, answer
        query = f'prep_service_sick{{service="{self.name}"}} == {value}'
        self._world.prometheus.wait_for(query, deadline=30)


class World:
    """What stands around a remediator. Services are declared by name first: the gate's list is made of them."""

    def __init__(self, run: Run, engine: DockerEngine, names: Sequence[str] = ()) -> None:
        self.run, self.engine = run, engine
        self.project = engine.project()
        self.folder = run.folder("world")
        self._targets = self.folder / "targets"
        self._targets.mkdir()
        self._stack = ExitStack()
        enter = self._stack.enter_context
        self._stack.callback(engine.remove_all, self.project)
        self.inbox = enter(WebhookRecorder())
        self.metrics = enter(LiveMetrics())
        self._receivers: dict[str, tuple[str, str]] = {}
        self.alertmanager = enter(AlertmanagerServer(run, self._routes()))
        self.prometheus = enter(PrometheusServer(run, self._scrapes(), {"faults.rules.yml": RULES}))
        made = gate.Gate(
            tuple(f"{self.project}-{name}-1" for name in names),
            cooldown=1,
            bind="127.0.0.1:{port}",
            socket=str(engine.socket),
        )
        # Begun some time ago, as far as anybody asks: a gate is older than the attempts that it witnesses.
        started = {"GATE_STARTED": str(int(time.time()) - 60)}
        self.gate = enter(Haproxy(run, gate.render(made), started, name="gate"))

    def service(self, name: str) -> SickService:
        """A running container of a declared service, well and scraped."""
        return SickService(self, name)

    def scrape(self, service: SickService) -> None:
        """Have Prometheus scrape it, with its name as the target label `service`."""
        entry = [{"targets": [f"127.0.0.1:{service.port}"], "labels": {"service": service.name}}]
        fresh = self._targets / f"{service.name}.new"
        fresh.write_text(json.dumps(entry))
        fresh.replace(self._targets / f"{service.name}.json")

    def proxy(self, upstream: int) -> TcpProxy:
        """A proxy that ends with the world."""
        proxy = TcpProxy(upstream).start()
        self._stack.callback(proxy.close)
        return proxy

    def deliver(self, service: str, remediator: Remediator) -> None:
        """Route the alerts of a service to a remediator's webhook, as the shipped configuration does."""
        self._receivers[service] = (f"{remediator.url}/alertmanager", TOKEN)
        self.alertmanager.reload(self._routes())

    def people(self, episode: str) -> list[str]:
        """Names of the alerts that people got about an episode."""
        told = self.inbox.alerts("/people", episode=episode)
        return list(dict.fromkeys(alert["labels"]["alertname"] for alert in told if alert["status"] == "firing"))

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _routes(self) -> dict[str, Any]:
        hooks = [
            {"name": f"remediator-{name}", "webhook_configs": [_hook(url, token)]}
            for name, (url, token) in self._receivers.items()
        ]
        ours = ['alertname=~"Service.+|Database.+"']
        routes = [
            {"receiver": f"remediator-{name}", "matchers": [*ours, f'service="{name}"'], "continue": True}
            for name in self._receivers
        ]
        return {
            "route": {
                "receiver": "people",
                "group_by": ["..."],
                "group_wait": "100ms",
                "group_interval": "1s",
                "repeat_interval": "1h",
                "routes": routes,
            },
            "receivers": [{"name": "people", "webhook_configs": [_hook(f"{self.inbox.url}/people")]}, *hooks],
        }

    def _scrapes(self) -> dict[str, Any]:
        found = [{"files": [f"{self._targets}/*.json"]}]
        return {
            "global": {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
                "external_labels": {"environment": ENVIRONMENT},
            },
            "scrape_configs": [
                {"job_name": SERVICES_JOB, "metrics_path": "/metrics.txt", "file_sd_configs": found},
                {
                    "job_name": QUERIES_JOB,
                    "static_configs": [{"targets": [f"127.0.0.1:{self.metrics.port}"]}],
                },
            ],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{self.alertmanager.port}"]}]}]},
        }


def _hook(url: str, token: str = "") -> dict[str, Any]:
    sent = {"http_config": {"authorization": {"credentials": token}}} if token else {}
    return {"url": url, "send_resolved": True, **sent}


def _rule(name: str, expression: str) -> dict[str, Any]:
    return {"alert": name, "expr": expression, "labels": {"severity": "P2", "runbook": "faults"}}


RULES = {
    "groups": [
        {
            "name": "faults",
            "interval": "1s",
            "rules": [
                _rule(SICK, "prep_service_sick > 0"),
                _rule(STALLED, "prep_service_sick > 0"),
                _rule(SLOW, "prep_long_queries > 0"),
            ],
        }
    ]
}


def restart_book(
    services: Iterable[str], deadline: float = DEADLINE, patience: float = PATIENCE, **changes: Any
) -> dict[str, Any]:
    """A runbook that restarts these services; its proof needs all of them well. `changes` replace whole keys."""
    names = "|".join(services)
    check = {"name": "well", "query": f'max(prep_service_sick{{service=~"{names}"}})', "below": 1}
    rung = {"action": "restart_service", "deadline": f"{deadline:g}s"}
    book = _book("restart", [SICK, STALLED], SERVICES_JOB, rung, check, patience)
    return {**book, "vantage": {"kind": "probe"}, "diagnosis": ["container_facts", "container_logs"], **changes}


def query_book(database: str, patience: float = PATIENCE, **changes: Any) -> dict[str, Any]:
    """A runbook that cancels the oldest long query of this database."""
    check = {"name": "none long", "query": f'max(prep_long_queries{{service="{database}"}})', "below": 1}
    rung = {"action": "cancel_query"}
    book = _book("cancel", [SLOW], QUERIES_JOB, rung, check, patience)
    book["ladder"][0]["params"] |= {"min_age": "300ms", "on_cpu": False}
    return {**book, "vantage": {"kind": "preview"}, "diagnosis": ["long_queries"], **changes}


def _book(
    name: str, alerts: list[str], job: str, rung: Mapping[str, Any], check: Mapping[str, Any], patience: float
) -> dict[str, Any]:
    """What both have in common. Three tries of what did not begin: a wrong "not begun" must show as two effects."""
    common = {"name": name, "params": {"service": {"label": "service"}}, "deadline": f"{DEADLINE:g}s", "attempts": 3}
    return {
        "format": 1,
        "name": name,
        "title": f"{name} in a test",
        "match": {"alertnames": alerts, "jobs": [job]},
        "target_labels": ["service"],
        "settle": "200ms",
        "ladder": [{**common, **rung}],
        "proof": {"hold": "2s", "timeout": f"{patience:g}s", "every": "2s", "checks": [dict(check)]},
        "limits": {"cooldown": "1s", "per_hour": 1000, "per_day": 1000, "recurrence": 1000},
    }


class Surroundings(Protocol):
    """What a remediator's settings are made of."""

    run: Run
    project: str
    prometheus: PrometheusServer
    alertmanager: AlertmanagerServer
    gate: Haproxy


class Remediator:
    """`prep-remediator` as a process, with a configuration, runbooks and a journal of its own.

    books     runbooks as mappings
    without   guardrails that are replaced by "allowed" (`tests/support/mutated.py`); with "" it is the program itself
    changes   whole sections of the settings
    """

    def __init__(
        self,
        world: Surroundings,
        books: Sequence[Mapping[str, Any]],
        *,
        name: str = "remediator",
        without: str = "",
        **changes: Any,
    ) -> None:
        self.world, self.name = world, name
        self.folder = world.run.folder(f"{name}-home")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.operator = _OPERATOR
        self.pause_file = self.folder / "pause"
        self.journal = self.folder / "journal.db"
        for file, content in (("token", TOKEN), ("api-token", API_TOKEN)):
            (self.folder / file).write_text(f"{content}\n")
        (self.folder / "runbooks").mkdir()
        for book in books:
            (self.folder / "runbooks" / f"{book['name']}.yml").write_text(yaml.safe_dump(dict(book)))
        self.config = self.folder / "remediator.yml"
        self.config.write_text(yaml.safe_dump(_settings(self, changes)))
        program = ["python", "-m", "tests.support.mutated", without] if without else ["prep-remediator"]
        env = {"TZ": "UTC", **({"PYTHONPATH": str(ROOT)} if without else {})}
        self.process = Service(
            world.run,
            [*program, f"--config.file={self.config}"],
            ready_url=f"{self.url}/-/healthy",
            name=name,
            start_seconds=60,
            env=env,
        )

    def start(self) -> Self:
        self.process.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.process.kill()

    # What comes in.

    def post(self, *services: str, timeout: float = 10.0, **labels: Any) -> bool:
        """Deliver one alert a service as Alertmanager does. True: acknowledged; OSError when it died meanwhile."""
        return self.send(delivery(services, **labels), timeout).status == 200

    def send(self, body: Mapping[str, Any], timeout: float = 10.0) -> Reply:
        return post_json(f"{self.url}/alertmanager", body, {"Authorization": f"Bearer {TOKEN}"}, timeout)

    def settle(self, attempt: str, settlement: str) -> None:
        """A person's word about a doubt."""
        said = {"settlement": settlement, "who": "test", "reason": "seen at the target"}
        answer = post_json(f"{self.url}/api/v1/doubts/{attempt}/settle", said, _OPERATOR)
        assert answer.status == 202, answer

    # What the journal says.

    def ask(self, path: str) -> Any:
        answer = fetch(f"{self.url}/api/v1/{path}", headers=_OPERATOR, timeout=10)
        assert answer.status == 200, answer
        return answer.json()

    def episodes(self, since: float = 0.0) -> list[dict[str, Any]]:
        """Episodes opened since then (UNIX seconds), oldest first; of the latest twenty."""
        return [each for each in self.ask("episodes?limit=20")["episodes"] if each["opened_at"] >= since]

    def events(self, episode: str) -> list[dict[str, Any]]:
        return list(self.ask(f"episodes/{episode}")["events"])

    def kinds(self, episode: str) -> list[str]:
        return [event["kind"] for event in self.events(episode)]

    def reasons(self, since: float = 0.0) -> list[str]:
        """Why nothing was done, in order, over all episodes since then."""
        events = [event for each in self.episodes(since) for event in self.events(each["id"])]
        return [event["data"]["reason"] for event in events if event["kind"] == "refused"]

    def wait_reason(self, reason: str, since: float = 0.0, deadline: float = 30.0) -> None:
        wait_until(
            lambda: reason in self.reasons(since), f"refusal {reason}", deadline, 0.2, lambda: str(self.reasons(since))
        )

    def wait_event(self, kind: str, since: float = 0.0, deadline: float = 40.0) -> dict[str, Any]:
        """The first event of this kind in any episode since then."""

        def found() -> list[dict[str, Any]]:
            events = [event for each in self.episodes(since) for event in self.events(each["id"])]
            return [event for event in events if event["kind"] == kind]

        return wait_until(found, f"an event {kind}", deadline, 0.2, self.process.tail)[0]

    def at_rest(self, since: float = 0.0) -> bool:
        """Is every episode since then closed or with people, and nothing in the inbox?"""
        rows = self.episodes(since)
        return bool(rows) and all(row["closed_at"] or "handed_over" in self.kinds(row["id"]) for row in rows)

    def wait_rest(self, since: float = 0.0, deadline: float = 60.0) -> None:
        wait_until(lambda: self.at_rest(since), "every episode to be closed or with people", deadline, 0.5, self.story)

    def story(self) -> str:
        """All episodes and their events in a few lines, for a failure's message."""
        lines = []
        for row in self.episodes()[-3:]:
            lines.append(f"{row['id']} {row['alert']} closed={row['closed_at']}")
            lines += [f"  {each['at']:.2f} {each['kind']}: {each['sentence']}" for each in self.events(row["id"])]
        return "\n".join(lines) + f"\n{self.process.tail(15)}"


_OPERATOR = {"Authorization": f"Bearer {API_TOKEN}"}


def delivery(
    services: Iterable[str],
    *,
    alertname: str = SICK,
    job: str = "",
    environment: str = ENVIRONMENT,
    status: str = "firing",
    note: str = "",
    age: float = 0.0,
) -> dict[str, Any]:
    """A webhook body of version 4 with one alert a service, begun `age` seconds ago.

    `note` goes into each alert, to be found again by it.
    """
    job = job or (QUERIES_JOB if alertname == SLOW else SERVICES_JOB)
    stamp = datetime.fromtimestamp(time.time() - age, UTC).isoformat()
    alerts = [
        {
            "status": status,
            "labels": {
                "alertname": alertname,
                "service": name,
                "job": job,
                "environment": environment,
                "severity": "P2",
            },
            "annotations": {"note": note} if note else {},
            "startsAt": stamp,
            "endsAt": "0001-01-01T00:00:00Z" if status == "firing" else stamp,
        }
        for name in services
    ]
    return {"version": "4", "receiver": "remediator", "groupKey": "{}", "truncatedAlerts": 0, "alerts": alerts}


def database_entry(folder: Path, port: int, user: str = "prep_remediator") -> dict[str, Any]:
    """An entry of `settings.databases`; the role's password is its name."""
    password = folder / f"{user}.password"
    password.write_text(f"{user}\n")
    entry = {"host": "127.0.0.1", "port": port, "database": "postgres", "user": user, "timeout": "3s"}
    return {**entry, "password_file": str(password)}


def service_entries(services: Iterable[SickService]) -> dict[str, Any]:
    """`settings.services` for these."""
    probe = {"slower_than": "2s", "timeout": "2s"}
    return {each.name: {"singleton": True, "probe": {**probe, "url": f"{each.url}/health"}} for each in services}


def _settings(remediator: Remediator, changes: Mapping[str, Any]) -> dict[str, Any]:
    world, folder = remediator.world, remediator.folder
    sections: dict[str, Any] = {
        "environment": ENVIRONMENT,
        "mode": "auto",
        "runbooks": str(folder / "runbooks"),
        "pause_file": str(remediator.pause_file),
        "listen": {"host": "127.0.0.1", "port": remediator.port},
        "webhook": {"token_files": [str(folder / "token")]},
        "api_token_files": [str(folder / "api-token")],
        "journal": {"url": f"sqlite:///{remediator.journal}"},
        "prometheus": {"urls": [world.prometheus.url], "scrape_interval": "1s", "timeout": "2s"},
        "alertmanager": {"urls": [world.alertmanager.url], "timeout": "2s"},
        "docker": {"gate_url": world.gate.url, "project": world.project, "young": "0s", "timeout": "3s"},
        "guards": {
            "start_within": f"{START_WITHIN:g}s",
            "storm_episodes": 1000,
            "all_per_hour": 1000,
            "all_per_day": 1000,
            "budget_failures": 1000,
        },
        "log_format": "json",
    }
    for name, change in changes.items():
        given = sections.get(name)
        sections[name] = {**given, **change} if isinstance(given, dict) and isinstance(change, Mapping) else change
    sections["journal"] = {
        "evidence_dir": str(folder / "evidence"),
        "lease": "30s",
        "renew": "10s",
        "poll": "500ms",
    } | (sections["journal"])
    return sections
