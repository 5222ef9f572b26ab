"""Each thing that the remediator stands on, down, frozen, slow or lying: no effect, a named reason, people told once.

Real servers behind a proxy that breaks the way there. What was done is counted at the target. `told once`: one alert,
however often it is posted. The table of docs/remediator-illness.md is held to these cases.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.targets import Reader, Target, Web
from tests.support.docker_engine import DockerEngine
from tests.support.http_stubs import StubMetrics
from tests.support.remediation import (
    ENVIRONMENT,
    RULES,
    SERVICES_JOB,
    SICK,
    STALLED,
    Remediator,
    World,
    database_entry,
    delivery,
    query_book,
    restart_book,
    service_entries,
)
from tests.support.servers import (
    AlertmanagerServer,
    Database,
    PostgresServer,
    PrometheusServer,
    Run,
    fetch,
    wait_until,
)
from tests.support.tcp_proxy import TcpProxy

STALE = 5.0  # seconds after which an alert that could not be acted on is a person's
LONGER = 2.0  # seconds after a refusal for which nothing may happen
TIMEOUT = "1s"  # of every question: the look and its refusal are over before the alert is too old
SLOW = 1.5  # seconds before each piece of an answer


def _down(proxy: TcpProxy) -> None:
    proxy.refuse()
    proxy.reset()


ILL: dict[str, Callable[[TcpProxy], None]] = {
    "down": _down,
    "frozen": lambda proxy: proxy.freeze(),
    "slow": lambda proxy: setattr(proxy, "delay", SLOW),
}
WELL: dict[str, Callable[[TcpProxy], None]] = {
    "down": lambda proxy: proxy.accept(),
    "frozen": lambda proxy: proxy.thaw(),
    "slow": lambda proxy: setattr(proxy, "delay", 0.0),
}
BACKENDS = ("prometheus", "alertmanager", "gate", "target")
REASONS = {
    "prometheus": "rule_unknown",
    "alertmanager": "alertmanager_unreachable",
    "gate": "target_unreachable",
    "target": "target_unreachable",
}


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, ["web"]) as world:
        yield world


@pytest.fixture(scope="module")
def web(world: World) -> Web:
    return Web(world, "web")


@pytest.fixture(scope="module")
def reader(world: World) -> Iterator[Reader]:
    reader = Reader(world, "accounts")
    yield reader
    reader.close()


@dataclass
class Bench:
    """Two sick targets, and a remediator whose ways to everything lead through proxies."""

    world: World
    web: Web
    reader: Reader
    folder: Path
    ways: dict[str, TcpProxy] = field(default_factory=dict)

    def remediator(self, settle: str = "200ms", stale: str = f"{STALE:g}s", **changes: Any) -> Remediator:
        """`changes` add to sections of the settings."""
        books = [restart_book([self.web.name], stale_after=stale, settle=settle)]
        books.append(query_book(self.reader.name, stale_after=stale))
        ways = {name: proxy.url for name, proxy in self.ways.items()}
        sections: dict[str, Any] = {
            "prometheus": {"urls": [ways["prometheus"]], "timeout": TIMEOUT},
            "alertmanager": {"urls": [ways["alertmanager"]], "timeout": TIMEOUT},
            "docker": {"gate_url": ways["gate"], "timeout": TIMEOUT},
            "databases": {self.reader.name: self.entry(self.ways["target"].port)},
        }
        for name, change in changes.items():
            sections[name] = {**sections.get(name, {}), **change}
        return Remediator(self.world, books, services=service_entries([self.web]), **sections)

    def entry(self, port: int) -> dict[str, Any]:
        """The reader's settings, at this port."""
        return {**database_entry(self.folder, port), "timeout": TIMEOUT}

    def about(self, backend: str) -> Target:
        """Whose remediation needs this backend."""
        return self.reader if backend == "target" else self.web


@pytest.fixture
def bench(world: World, web: Web, reader: Reader, tmp_path: Path) -> Iterator[Bench]:
    upstreams = {
        "prometheus": world.prometheus.port,
        "alertmanager": world.alertmanager.port,
        "gate": world.gate.port,
        "target": reader.server.port,
    }
    bench = Bench(world, web, reader, tmp_path, {name: world.proxy(port) for name, port in upstreams.items()})
    for target in (web, reader):
        target.sicken()
        target.begin()
    yield bench
    for proxy in bench.ways.values():
        proxy.close()


# -- what each case ends with -----------------------------------------------------------------------------


def left_to_people(ours: Remediator, target: Target, reason: str, well: Callable[[], None] = lambda: None) -> None:
    """Refused by this name, left alone, and with people by one alert once it is too old to be acted on.

    `well` is called when it is theirs: an Alertmanager that was ill takes it then.
    """
    body = delivery([target.name], alertname=target.alertname)
    began = time.monotonic()
    assert ours.send(body).status == 200
    ours.wait_reason(reason)
    wait_until(lambda: time.monotonic() > began + STALE + 0.5, "the alert to be too old", STALE + 5, 0.2)
    assert ours.send(body).status == 200  # Alertmanager repeats it, which makes it due
    episode = handed_over(ours)
    well()
    told_once(ours, body, episode)
    assert ours.reasons()[0] == reason, ours.story()
    assert target.effects == 0


def handed_over(ours: Remediator) -> str:
    """Its episode, once it is with people."""

    def found() -> list[str]:
        return [row["id"] for row in ours.episodes() if "handed_over" in ours.kinds(row["id"])]

    return wait_until(found, "the hand-over", 40, 0.3, ours.story)[0]


def told_once(ours: Remediator, body: dict[str, Any], episode: str) -> None:
    """Posted again and again, it is one alert at Alertmanager and one message to people."""
    world = ours.world
    posted = world.alertmanager.wait_alert(deadline=30, episode=episode)["updatedAt"]
    ours.send(body)
    ours.send(body)
    wait_until(
        lambda: world.alertmanager.alerts(episode=episode)[0]["updatedAt"] > posted,
        "the next post",
        20,
        0.2,
        ours.story,
    )
    end = time.monotonic() + LONGER
    wait_until(lambda: time.monotonic() > end, "another group interval", LONGER + 5)
    assert [alert["labels"]["alertname"] for alert in world.alertmanager.alerts(episode=episode)] == [
        "RemediationNeedsPeople"
    ]
    assert len(world.inbox.alerts("/people", episode=episode)) == 1


# -- down, frozen, slow -----------------------------------------------------------------------------------


@pytest.mark.parametrize("illness", ["down", "frozen", "slow"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_answer(bench: Bench, backend: str, illness: str) -> None:
    """Nobody answers, or not in time: unknown is never permission."""
    way, target = bench.ways[backend], bench.about(backend)
    with bench.remediator() as ours:
        ILL[illness](way)
        left_to_people(ours, target, REASONS[backend], lambda: WELL[illness](way))


# -- lying ------------------------------------------------------------------------------------------------


def another_prometheus(world: World, scraped: int | None) -> PrometheusServer:
    """One with the same rules that scrapes this port for the services' job, or nothing."""
    targets = [{"targets": [f"127.0.0.1:{scraped}"], "labels": {"service": "web"}}] if scraped else []
    config = {
        "global": {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
            "external_labels": {"environment": ENVIRONMENT},
        },
        "scrape_configs": [{"job_name": SERVICES_JOB, "static_configs": targets}],
    }
    return PrometheusServer(world.run, config, {"faults.rules.yml": RULES}, name="another-prometheus")


def test_prometheus_answers_with_nothing(bench: Bench) -> None:
    """It has the rule and sees nothing of what it is about: an empty answer is blindness, not health."""
    with another_prometheus(bench.world, None) as empty, bench.remediator(prometheus={"urls": [empty.url]}) as ours:
        left_to_people(ours, bench.web, "rule_unknown")


def test_prometheus_answers_with_old_samples(bench: Bench) -> None:
    """An exporter repeats what was true a minute ago: the rule is true, the target's own answer says that it is well."""
    bench.web.heal()
    with StubMetrics() as exporter:
        old = int((time.time() - 60) * 1000)
        exporter.set_text(f"prep_service_sick 1 {old}\n")
        with another_prometheus(bench.world, exporter.port) as stale:
            stale.wait_for("prep_service_sick == 1")
            with bench.remediator(prometheus={"urls": [stale.url]}) as ours:
                left_to_people(ours, bench.web, "vantage_disagrees")


def test_one_prometheus_of_two_disagrees(bench: Bench) -> None:
    """One says sick, the other one well: nobody knows."""
    with StubMetrics() as exporter:
        exporter.set("prep_service_sick", 0)
        with another_prometheus(bench.world, exporter.port) as other:
            other.wait_for("prep_service_sick == 0")
            with bench.remediator(prometheus={"urls": [bench.world.prometheus.url, other.url]}) as ours:
                left_to_people(ours, bench.web, "rule_unknown")


def test_alertmanager_answers_with_garbage(bench: Bench) -> None:
    """200 and JSON that is none of Alertmanager's: whether anybody has silenced it is not known."""
    way = bench.ways["alertmanager"]
    with bench.remediator() as ours:
        way.garbage = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        left_to_people(ours, bench.web, "alertmanager_unreachable", lambda: setattr(way, "garbage", None))


def test_one_alertmanager_of_two_has_forgotten_the_silence(bench: Bench) -> None:
    """One of them knows of a silence: somebody is on it, whatever the other one says."""
    world = bench.world
    nobody = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    with AlertmanagerServer(world.run, nobody, name="another-alertmanager") as other:
        other.silence(service=bench.web.name)
        with bench.remediator(alertmanager={"urls": [world.alertmanager.url, other.url]}) as ours:
            left_to_people(ours, bench.web, "muted")


def test_gate_answers_with_garbage(bench: Bench) -> None:
    """200 and JSON that is no engine's."""
    bench.ways["gate"].garbage = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    with bench.remediator() as ours:
        left_to_people(ours, bench.web, "target_unreachable")


def test_gate_knows_no_such_container(bench: Bench) -> None:
    """An engine without the service's containers: none to choose from is not the right number of them."""
    with bench.remediator(docker={"project": "elsewhere"}) as ours:
        left_to_people(ours, bench.web, "target_count")


def test_target_is_another_server(bench: Bench, postgres_server: PostgresServer) -> None:
    """Another PostgreSQL at the address, where nothing runs too long: an empty choice never means everything."""
    postgres_server.role("prep_remediator", "prep_remediator", "pg_read_all_stats", "pg_signal_backend")
    with bench.remediator(databases={bench.reader.name: bench.entry(postgres_server.port)}) as ours:
        left_to_people(ours, bench.reader, "nothing_to_do")


# -- the journal ------------------------------------------------------------------------------------------


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    database = postgres_server.fresh_database()
    yield database
    database.drop()


def journal_of(database: Database, way: TcpProxy) -> dict[str, Any]:
    """Settings of a PostgreSQL journal behind a proxy."""
    url = database.dsn(scheme="postgresql+asyncpg").replace(f":{database.server.port}/", f":{way.port}/")
    return {"url": url, "lease": "6s", "renew": "1s", "poll": "500ms"}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("illness", ["down", "frozen", "slow"])
def test_journal_no_answer(bench: Bench, database: Database, illness: str) -> None:
    """An alert that was taken is not acted on, the next one is not taken: 503, so that Alertmanager keeps it.

    People have the alert itself, by a route that does not lead over the remediator. Back again, one effect.
    """
    way = bench.world.proxy(database.server.port)
    journal = journal_of(database, way)
    with bench.remediator(settle="5s", stale="1h", journal=journal) as ours:
        assert ours.post(bench.web.name)
        ILL[illness](way)
        refused = ours.send(delivery([bench.web.name]), timeout=30)
        assert (refused.status, refused.json()["error"]["code"]) == (503, "journal_failed")
        end = time.monotonic() + 5 + LONGER
        wait_until(lambda: time.monotonic() > end, "the settle time to be over", 5 + LONGER + 5)
        assert bench.web.effects == 0
        assert failures(ours) > 0
        told = bench.world.inbox.alerts("/people", alertname=SICK, service=bench.web.name)
        assert len({alert["fingerprint"] for alert in told}) == 1
        WELL[illness](way)
        assert wait_until(lambda: ours.post(bench.web.name), "the journal to be back", 30, 0.5)
        ours.wait_event("verdict", deadline=90)
        assert bench.web.effects == 1
    way.close()


def failures(ours: Remediator) -> float:
    """What the rule RemediatorJournalFailing looks at, which tells people."""
    text = fetch(f"{ours.url}/metrics", timeout=10).text
    lines = [line for line in text.splitlines() if line.startswith("prep_remediator_journal_failures_total ")]
    return float(lines[0].split()[1])


def test_journal_has_lost_events(bench: Bench, database: Database) -> None:
    """A backup of a minute ago is put in its place: what was acknowledged is missing, and a person must look first."""
    way = bench.world.proxy(database.server.port)
    with bench.remediator(settle="5s", stale="1h", journal=journal_of(database, way)) as ours:
        assert ours.post(bench.web.name)
        ours.wait_event("refused")
        database.sql("delete from events where seq = (select max(seq) from events)")
        way.reset()
        body = delivery([bench.web.name], alertname=STALLED)
        assert wait_until(lambda: ours.send(body).status == 200, "it to be taken", 20, 0.5)
        ours.wait_reason("journal_regressed")
        end = time.monotonic() + 5 + LONGER
        wait_until(lambda: time.monotonic() > end, "the settle time to be over", 5 + LONGER + 5)
        assert bench.web.effects == 0
        [pause] = ours.ask("pauses")["pauses"]
        assert pause["who"] == "journal"
    way.close()


def test_journal_has_lost_an_episodes_beginning(bench: Bench, database: Database) -> None:
    """A hand in the journal: what is left of the episode is no ground to act on, and the API tells people so."""
    way = bench.world.proxy(database.server.port)
    with bench.remediator(settle="5s", stale="1h", journal=journal_of(database, way)) as ours:
        assert ours.post(bench.web.name)
        ours.wait_event("refused")
        [episode] = ours.episodes()
        database.sql("delete from events where seq = 1")
        way.reset()
        told = functools.partial(bench.world.inbox.alerts, "/people", alertname="RemediationNeedsPeople")
        wait_until(lambda: any("are missing" in each["annotations"]["summary"] for each in told()), "people", 60, 0.5)
        assert "events of it are missing" in ours.ask(f"episodes/{episode['id']}")["why"]
        assert bench.web.effects == 0
    way.close()
