"""Situations in which a guardrail must say no, each made so that only this one stands between the alert and the effect.

`SITUATIONS` is the table of docs/safety-case.md too: `python -m tests.faults.situations` prints it, and
`tests/unit/test_guardrail_table.py` holds the page to it. `tests/faults/test_guardrail_mutants.py` plays each one.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import docker.errors

from tests.faults.targets import Reader, Target, Web
from tests.support.http_stubs import Answer, Request, StubServer
from tests.support.remediation import (
    OPTED_IN,
    SICK,
    STALLED,
    Remediator,
    World,
    database_entry,
    query_book,
    restart_book,
    service_entries,
)
from tests.support.servers import Database, PostgresServer, fetch, wait_until
from tests.support.tcp_proxy import Hold, TcpProxy
from tests.support.waiting import free_port, post_json

WEB, CROWD, READER = "web", ("s0", "s1", "s2"), "accounts"
BEFORE = 25.0  # seconds for what a situation does before its alert
AHEAD = 60.0  # seconds of a clock that is wrong
Changes = Mapping[str, Any]


class Undo(ExitStack):
    """What a situation did to the world, to be taken back; and what its settings have made for its play.

    journal  the database of the journal, and the way there
    hold     where a call to the gate is held up
    """

    journal: tuple[Database, TcpProxy]
    hold: Hold


@dataclass
class Bench:
    """What is there for all situations: well, and scraped."""

    world: World
    web: Web
    crowd: Sequence[Web]
    reader: Reader
    postgres: PostgresServer

    @property
    def targets(self) -> list[Target]:
        return [self.web, *self.crowd, self.reader]


@dataclass
class Stage:
    """One remediator in one situation. `undo` takes back what the situation did to the world."""

    bench: Bench
    ours: Remediator
    target: Target
    undo: Undo
    began: float = field(default_factory=time.time)

    @property
    def effects(self) -> int:
        """What was done to any of the targets."""
        return sum(target.effects for target in self.bench.targets)

    def post(self, *services: str, **labels: Any) -> None:
        """Deliver the target's alert, or others."""
        assert self.ours.post(*(services or (self.target.name,)), **{"alertname": self.target.alertname, **labels})

    def said(self) -> set[str]:
        """Every reason given so far, and the kinds of events: what it says instead of acting."""
        events = [each for row in self.ours.episodes() for each in self.ours.events(row["id"])]
        return {str(each["data"].get("reason")) for each in events} | {each["kind"] for each in events}

    def wait_effects(self, count: int) -> None:
        wait_until(lambda: self.effects >= count, f"{count} effects", BEFORE, 0.1, self.ours.story)

    def remediate(self, **labels: Any) -> None:
        """One whole remediation, which is as it must be."""
        before = self.effects
        since = time.time()
        self.post(**labels)
        self.ours.wait_rest(since, 40)
        assert self.effects == before + 1, self.ours.story()


Play = Callable[[Stage], int]


def plain(stage: Stage) -> int:
    """The target is sick, and its alert comes."""
    stage.post()
    return 0


@dataclass(frozen=True)
class Situation:
    """One row.

    guardrail  by its name in `tests/support/mutated.py`
    when       what makes it say no
    reason     of the refusal, the hand-over or the closing; or the event that stands in an effect's place
    also       what else says no to this, to be replaced with it: then there is an effect
    still      what stops it even then, and cannot be replaced: there is no effect
    play       brings it about and delivers the alert; how many effects were right until then
    services   how many of the crowd belong to the runbook too
    quick      also in every run, not only in the campaign
    """

    guardrail: str
    when: str
    reason: str
    book: Changes = field(default_factory=dict)
    settings: Callable[[Bench, Undo], Changes] = lambda bench, undo: {}
    play: Play = plain
    also: str = ""
    still: str = ""
    services: int = 0
    reads: bool = False
    quick: bool = False

    def remediator(self, bench: Bench, undo: Undo, without: str) -> Remediator:
        """With the guardrails of `without` replaced; not started."""
        webs = [bench.web, *bench.crowd[: self.services]]
        made = query_book(READER) if self.reads else restart_book([each.name for each in webs])
        book = {**made, **self.book}
        sections: dict[str, Any] = {
            "services": service_entries(webs),
            "databases": {READER: database_entry(bench.world.folder, bench.reader.server.port)},
        }
        for name, change in self.settings(bench, undo).items():
            given = sections.get(name)
            sections[name] = {**given, **change} if isinstance(given, dict) and change else change
        return Remediator(bench.world, [book], without=without, **sections)

    def row(self) -> tuple[str, str, str, str]:
        """The cells of its row."""
        without = "an effect"
        if self.also:
            without = f"none while {_code(self.also)} holds, which says no to the same; without both an effect"
        if self.still:
            with_it = f" and without {_code(self.also)}" if self.also else ""
            without = f"none{with_it}: {self.still}"
        return _code(self.guardrail), self.when, f"`{self.reason}`", without


def _code(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(","))


# -- settings ---------------------------------------------------------------------------------------------


def guards(**numbers: Any) -> Callable[[Bench, Undo], Changes]:
    return lambda bench, undo: {"guards": numbers}


def docker(**changes: Any) -> Callable[[Bench, Undo], Changes]:
    return lambda bench, undo: {"docker": changes}


def service(**changes: Any) -> Callable[[Bench, Undo], Changes]:
    """The web's entry in the settings, changed."""
    return lambda bench, undo: {"services": {WEB: {**service_entries([bench.web])[WEB], **changes}}}


def another_number(bench: Bench, undo: Undo) -> Changes:
    return service(containers=2, singleton=False, min_healthy=0)(bench, undo)


def well_by_another_page(bench: Bench, undo: Undo) -> Changes:
    probe = {"url": f"{bench.web.url}/metrics.txt", "slower_than": "2s", "timeout": "2s"}
    return service(probe=probe)(bench, undo)


def nobody(section: str, key: str, *, several: bool = False) -> Callable[[Bench, Undo], Changes]:
    """An address where nobody listens."""

    def made(bench: Bench, undo: Undo) -> Changes:
        url = f"http://127.0.0.1:{free_port()}"
        return {section: {key: [url] if several else url}}

    return made


def never(bench: Bench, undo: Undo) -> Changes:
    """On the never list, so it cannot be listed as a service."""
    return {"services": {}, "never": [WEB]}


def protected(bench: Bench, undo: Undo) -> Changes:
    entry = database_entry(bench.world.folder, bench.reader.server.port)
    return {"databases": {READER: {**entry, "protected_applications": ["reader-"]}}}


def slow_look(bench: Bench, undo: Undo) -> Changes:
    """Reading silences takes longer than a look may be old."""
    way = bench.world.proxy(bench.world.alertmanager.port)
    way.delay = 0.4
    undo.callback(way.close)
    return {"alertmanager": {"urls": [way.url]}, "guards": {"look_max_age": "500ms"}}


class Ahead(StubServer):
    """In front of Prometheus: every time in its answers is a minute ahead, as its clock would be."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.upstream = upstream

    def answer(self, request: Request) -> Answer:
        reply = fetch(f"{self.upstream}{request.path}", timeout=5)
        body = reply.json()
        data = body.get("data")
        if urlsplit(request.path).path == "/api/v1/query" and data:
            rows = [data] if data["resultType"] == "scalar" else data["result"]
            for row in rows:
                sample = row["result"] if data["resultType"] == "scalar" else row["value"]
                sample[0] += AHEAD
        return Answer(reply.status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def another_clock(bench: Bench, undo: Undo) -> Changes:
    ahead = Ahead(bench.world.prometheus.url)
    ahead.start()
    undo.callback(ahead.stop)
    return {"prometheus": {"urls": [ahead.url]}}


def no_evidence(bench: Bench, undo: Undo) -> Changes:
    """A file where the folder of the evidence should be."""
    place = bench.world.folder / "no-folder"
    place.touch()
    return {"journal": {"evidence_dir": str(place)}}


def on_postgres(bench: Bench, undo: Undo) -> Changes:
    database = bench.postgres.fresh_database()
    undo.callback(database.drop)
    way = bench.world.proxy(bench.postgres.port)
    undo.callback(way.close)
    url = database.dsn(scheme="postgresql+asyncpg").replace(f":{bench.postgres.port}/", f":{way.port}/")
    undo.journal = (database, way)
    return {"journal": {"url": url, "lease": "6s", "renew": "1s"}}


def holding_gate(bench: Bench, undo: Undo) -> Changes:
    """A way to the gate on which the first restart is held up."""
    way = bench.world.proxy(bench.world.gate.port)
    undo.callback(way.close)
    undo.hold = way.hold_on(b"/restart")
    return {"docker": {"gate_url": way.url}}


# -- what happens -----------------------------------------------------------------------------------------


def posted(**labels: Any) -> Play:
    """The alert comes with other labels, or from another time."""

    def play(stage: Stage) -> int:
        stage.post(**labels)
        return 0

    return play


def healed(stage: Stage) -> int:
    stage.target.heal()
    stage.post()
    return 0


def silenced(stage: Stage) -> int:
    alertmanager = stage.bench.world.alertmanager
    stage.undo.callback(alertmanager.expire, alertmanager.silence(service=WEB))
    return plain(stage)


def pause(stage: Stage) -> int:
    body = {"who": "test", "reason": "a test", "scope": "all"}
    answer = post_json(f"{stage.ours.url}/api/v1/pauses", body, stage.ours.operator, 10)
    assert answer.status == 201, answer
    return int(answer.json()["pause"]["id"])


def paused(stage: Stage) -> int:
    pause(stage)
    return plain(stage)


def paused_by_file(stage: Stage) -> int:
    stage.ours.pause_file.touch()
    return plain(stage)


def released(stage: Stage) -> int:
    """A pause held two back and is over; the first of them does not help."""
    other = stage.bench.crowd[0]
    other.incurable = stage.bench.web.incurable = True
    for each in (other, stage.bench.web):
        each.sicken()
    number = pause(stage)
    stage.post(WEB, other.name)
    wait_until(lambda: stage.ours.reasons().count("paused") >= 2, "both to be held back", BEFORE, 0.2)
    answer = fetch(f"{stage.ours.url}/api/v1/pauses/{number}?who=test", "DELETE", headers=stage.ours.operator)
    assert answer.status == 200, answer
    stage.wait_effects(1)
    return 1


def lost_events(stage: Stage) -> int:
    """A backup is put in the journal's place: the newest events of what was acknowledged are missing."""
    database, way = stage.undo.journal
    stage.post(environment="staging")
    stage.ours.wait_event("opened")
    database.sql("delete from events where seq = (select max(seq) from events)")
    way.reset()
    wait_until(lambda: stage.ours.post(WEB), "it to be taken", BEFORE, 0.5)
    return 0


def killed(stage: Stage) -> int:
    stage.ours.process.kill()
    stage.ours.start()
    return plain(stage)


def journal_ahead(stage: Stage) -> int:
    """Its newest event is an hour ahead: written by a clock that was wrong."""
    stage.remediate()
    wait_until(lambda: all(row["closed_at"] for row in stage.ours.episodes()), "it to be closed", BEFORE, 0.2)
    stage.ours.process.terminate()
    with closing(sqlite3.connect(stage.ours.journal)) as connection, connection:
        connection.execute("update events set at = at + 3600 where at = (select max(at) from events)")
    stage.ours.start()
    stage.target.sicken()
    stage.target.begin()
    stage.post()
    return 0


def under_way(stage: Stage) -> int:
    """Another episode's restart is on its way to the gate, and nobody knows of its end."""
    stage.post()
    stage.undo.hold.wait(BEFORE)
    stage.post(alertname=STALLED)
    return 0


def unproven(stage: Stage) -> int:
    """Another episode's restart has not helped so far."""
    stage.bench.web.incurable = True
    stage.target.sicken()
    stage.post()
    stage.wait_effects(1)
    stage.post(alertname=STALLED)
    return 1


def again(times: int = 1) -> Play:
    """Remediated so many times, and sick once more."""

    def play(stage: Stage) -> int:
        for _ in range(times):
            stage.target.sicken()
            stage.target.begin()
            stage.remediate()
            wait_until(lambda: all(row["closed_at"] for row in stage.ours.episodes()), "the end of it", BEFORE, 0.2)
        stage.target.sicken()
        stage.target.begin()
        stage.post()
        return 0

    return play


def crowded(stage: Stage) -> int:
    for each in stage.bench.crowd[:2]:
        each.sicken()
    stage.post(WEB, *(each.name for each in stage.bench.crowd[:2]))
    return 0


def at_once(stage: Stage) -> int:
    """Four are decided at the same moment, and one is allowed."""
    for each in stage.bench.crowd:
        each.sicken()
    stage.post(WEB, *CROWD)
    stage.wait_effects(1)
    return 1


def demoted(stage: Stage) -> int:
    """The runbook has not helped one service, and another one is sick."""
    first, second = stage.bench.web, stage.bench.crowd[0]
    first.incurable = True
    first.sicken()
    stage.post()
    stage.ours.wait_event("handed_over")
    second.sicken()
    stage.post(second.name)
    return 1


def extra(stage: Stage, **options: Any) -> None:
    """Another container of the service."""
    world = stage.bench.world
    made = world.engine.service_container(world.project, WEB, labels=OPTED_IN, **options)
    stage.undo.callback(made.remove)
    if options.get("command") == ("true",):
        made.wait_status("exited")


def beside(**options: Any) -> Play:
    def play(stage: Stage) -> int:
        extra(stage, **options)
        return plain(stage)

    return play


def inside(stage: Stage) -> int:
    container = stage.bench.web.container
    container.exec_in_background("sleep", "600")
    stage.undo.callback(container.exec, "sh", "-c", "killall sleep || true")
    return plain(stage)


def restarted_by_docker(stage: Stage) -> int:
    web = stage.bench.web
    policy: Any = {"Name": "always", "MaximumRetryCount": 0}
    web.container.container.update(restart_policy=policy)
    stage.undo.callback(let_go, web)
    lives = web.lives()
    # A moment later: an exec that ends the container's first process may be ended with it before it is over itself.
    web.container.exec("sh", "-c", "(sleep 0.3; kill -TERM 1) >/dev/null 2>&1 &")
    wait_until(lambda: web.lives() > lives, "Docker to start it again", BEFORE, 0.2)
    web.sicken()
    web.begin()
    return plain(stage)


def let_go(web: Web) -> None:
    """No restart policy any more, and running: Docker changes nothing of a container that is just being restarted."""
    never: Any = {"Name": "no", "MaximumRetryCount": 0}

    def let() -> bool:
        try:
            web.container.container.update(restart_policy=never)
        except docker.errors.APIError:
            return False
        return fetch(f"{web.url}/health", timeout=2).status in (200, 404)

    wait_until(let, "the container to be nobody's", BEFORE, 0.2)


def written(stage: Stage) -> int:
    stage.bench.reader.sicken("begin; create temporary table t ();")
    return plain(stage)


def _ladder(action: str, **changes: Any) -> dict[str, Any]:
    """The ladder of the tests' runbooks, with other fields of its rung."""
    made = query_book(READER) if action == "cancel" else restart_book([WEB])
    rung = made["ladder"][0]
    return {"ladder": [{**rung, **changes, "params": {**rung["params"], **changes.get("params", {})}}]}


ASKS_AGAIN = "the statement that ends a query asks the same again at the server"
ITSELF = {"vantage": {"kind": "preview"}}
LONG = {"cooldown": "1s", "per_hour": 1000, "per_day": 1000}
SITUATIONS: tuple[Situation, ...] = (
    # the alert
    Situation("match", "an alert of another environment", "foreign_alert", play=posted(environment="staging")),
    Situation("match", "an alert of another team's job", "foreign_alert", play=posted(job="theirs")),
    Situation("stale", "an alert that began two hours ago", "stale_alert", play=posted(age=7200.0)),
    Situation("stale", "an alert that begins in an hour", "stale_alert", play=posted(age=-3600.0)),
    Situation("settling", "the settle time is not over", "settling", book={"settle": "1h"}),
    # the operator
    Situation("paused", "a person has paused it", "paused", play=paused, quick=True),
    Situation(
        "paused",
        "the pause file is there",
        "paused",
        play=paused_by_file,
        still="the engine looks for the file once more right before the effect",
    ),
    Situation("mode_of", "mode `shadow`", "would_act", settings=lambda bench, undo: {"mode": "shadow"}),
    Situation("mode_of", "mode `approve`", "needs_approval", settings=lambda bench, undo: {"mode": "approve"}),
    Situation("must_ask", "a rung with `approval: true`", "needs_approval", book=_ladder("restart", approval=True)),
    Situation(
        "demotion",
        "the runbook has failed too often",
        "needs_approval",
        settings=guards(budget_failures=1, budget_episodes=3),
        book={"proof": {**restart_book([WEB])["proof"], "timeout": "3s", "every": "1s"}},
        play=demoted,
        services=1,
    ),
    # what is true now
    Situation("rule", "Prometheus finds the rule not true", "cleared", book=ITSELF, play=healed),
    Situation(
        "rule",
        "no Prometheus has such a rule",
        "rule_unknown",
        book={"match": {**restart_book([WEB])["match"], "alertnames": [SICK, "ServiceGone"]}},
        play=posted(alertname="ServiceGone"),
    ),
    Situation("clock_skew", "Prometheus' clock is a minute ahead", "clock", settings=another_clock),
    Situation(
        "blocked_by",
        "a cause is firing",
        "blocked_by_cause",
        book={"match": {**restart_book([WEB])["match"], "alertnames": [SICK]}, "blocked_by": [STALLED]},
    ),
    Situation("muted", "a person has silenced the target", "muted", play=silenced),
    Situation(
        "muted",
        "Alertmanager cannot be asked for silences",
        "alertmanager_unreachable",
        settings=nobody("alertmanager", "urls", several=True),
    ),
    Situation("vantage", "the direct probe finds the target well", "vantage_disagrees", settings=well_by_another_page),
    Situation("vantage", "the service has no probe", "vantage_unknown", settings=service(probe=None)),
    Situation(
        "preview_possible",
        "the gate does not answer",
        "target_unreachable",
        book={"diagnosis": []},
        settings=nobody("docker", "gate_url"),
        still="no intent can be written without a preview, and there is no other way to the target",
    ),
    Situation("evidence_first", "evidence cannot be written", "no_evidence", settings=no_evidence),
    Situation("look_stale", "the look took longer than it may be old", "look_stale", settings=slow_look),
    # the target's own reasons
    Situation(
        "target_agrees:target_not_allowed",
        "an only container, and nobody has said `singleton: true`",
        "target_not_allowed",
        settings=service(singleton=False),
    ),
    Situation(
        "target_agrees:target_not_labelled",
        "the container lacks the opt-in label",
        "target_not_labelled",
        settings=docker(label="another.label"),
        quick=True,
    ),
    Situation(
        "target_agrees:target_one_off",
        "a one-off container of the service runs",
        "target_one_off",
        play=beside(oneoff=True),
    ),
    Situation(
        "target_agrees:target_count",
        "one container where two are expected",
        "target_count",
        settings=another_number,
    ),
    Situation(
        "target_agrees:target_group",
        "one other container is healthy where two must be",
        "target_group",
        settings=service(containers=2, singleton=False, min_healthy=2),
        play=beside(number=2),
    ),
    Situation(
        "target_agrees:target_exec_running",
        "somebody works inside the container",
        "target_exec_running",
        play=inside,
    ),
    Situation(
        "target_agrees:target_young",
        "the container was started lately",
        "target_young",
        settings=docker(young="24h"),
    ),
    Situation(
        "target_agrees:target_restarting",
        "Docker's restart policy has just started it",
        "target_restarting",
        settings=docker(young="24h"),
        play=restarted_by_docker,
    ),
    Situation(
        "target_agrees:target_not_running",
        "one of the service's containers is stopped",
        "target_not_running",
        settings=another_number,
        play=beside(number=2, command=("true",)),
    ),
    Situation(
        "target_agrees:never_list",
        "the service is on the never list",
        "never_list",
        book={**ITSELF, "diagnosis": []},
        settings=never,
        also="nothing_to_do",
        still="the preview names no container, and the action takes nothing else",
    ),
    Situation(
        "target_agrees:query_has_written",
        "the long query's transaction has written",
        "query_has_written",
        play=written,
        reads=True,
        also="nothing_to_do",
        still=ASKS_AGAIN,
    ),
    Situation(
        "target_agrees:query_protected",
        "the long query is of a protected application",
        "query_protected",
        settings=protected,
        reads=True,
        also="nothing_to_do",
        still=ASKS_AGAIN,
    ),
    Situation(
        "nothing_to_do",
        "no query is as old as the runbook says",
        "nothing_to_do",
        book=_ladder("cancel", params={"min_age": "1h"}),
        reads=True,
        also="target_agrees:nothing_to_do",
        still="the preview names no query, and the statement ends no other",
    ),
    # the limits
    Situation(
        "recovering",
        "the run before did not end cleanly",
        "recovering",
        book=_ladder("restart", deadline="60s"),
        play=killed,
    ),
    Situation("clock_behind", "the journal is an hour ahead of the clock", "clock", play=journal_ahead),
    Situation(
        "journal_regressed",
        "acknowledged events are missing in a journal on PostgreSQL",
        "journal_regressed",
        settings=on_postgres,
        play=lost_events,
        also="paused",
    ),
    Situation(
        "in_doubt",
        "another episode's restart has begun, its end is not known",
        "target_in_doubt",
        book=_ladder("restart", deadline="60s"),
        settings=holding_gate,
        play=under_way,
        also="busy",
    ),
    Situation("busy", "another episode's restart is not proven", "target_busy", play=unproven),
    Situation(
        "cooldown",
        "the target was restarted a moment ago",
        "cooldown",
        book={"limits": {**LONG, "cooldown": "10m"}},
        play=again(),
    ),
    Situation(
        "rate_limit",
        "the hour's number of the target is used up",
        "rate_limit",
        book={"limits": {**LONG, "per_hour": 1}},
        play=again(),
    ),
    Situation(
        "rate_limit",
        "the hour's number over all runbooks is used up",
        "rate_limit",
        settings=guards(all_per_hour=1),
        play=again(),
    ),
    Situation(
        "recurrence",
        "the runbook has fixed the target so often this week",
        "recurrence",
        book={"limits": {**LONG, "recurrence": 2}},
        play=again(2),
    ),
    Situation(
        "storm",
        "three episodes are open where two are a storm",
        "storm",
        settings=guards(storm_episodes=2),
        play=crowded,
        services=2,
    ),
    Situation(
        "releasing",
        "after a pause of all another one went first and is not proven",
        "releasing",
        book={"proof": {**restart_book([WEB])["proof"], "hold": "60s", "timeout": "60s"}},
        play=released,
        services=1,
    ),
    Situation(
        "locked",
        "four are decided at the same moment, one an hour is allowed",
        "rate_limit",
        settings=guards(all_per_hour=1),
        book={"settle": "1s"},
        play=at_once,
        services=3,
        quick=True,
    ),
)


def table() -> list[str]:
    """The rows of the page."""
    return ["| " + " | ".join(each.row()) + " |" for each in SITUATIONS]


if __name__ == "__main__":
    print("\n".join(table()))
