"""The whole compose stack: faults put in, the real chain followed, effects read at the target.

Every test has a stack of its own: limits and cooldowns are durable, and one drill would be refused for the sake of
the one before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from demo import tour
from demo.drills import (
    base,
    compliance_engine_slow,
    container_down,
    high_database_cpu,
    redis_connection_failures,
    replica_not_streaming,
    table,
)
from demo.drills.base import Drill, Story
from demo.drills.registry import ALL, TOUR
from demo.stack import BUILD, PROJECT, Stack, StackError, wait_for
from tests.e2e import compare, panels, replay
from tests.support.run import Run

pytestmark = pytest.mark.timeout(600)


@contextmanager
def stack_in(mode: str, drill: Drill | None = None) -> Iterator[Stack]:
    """The demo's stack in a mode, as the drill wants it, taken down afterwards."""
    stack = Stack()
    if running := stack.docker.containers.list(all=True, filters={"label": f"com.docker.compose.project={PROJECT}"}):
        pytest.fail(f"{len(running)} containers of a demo are there already; take it down first: make demo-down")
    try:
        tour.prepare(stack, mode, durations=not (drill and drill.shipped), adapt=drill.adapt if drill else None)
        stack.up()
        yield stack
    except StackError as error:
        pytest.fail(str(error))
    finally:
        stack.down()


def held(drill: Drill, stack: Stack) -> Story:
    """Run a drill; everything that had to be so must be so."""
    story = base.run(drill, stack, lambda story: None)
    assert not story.error, story.error
    wrong = [f"{found.what}: {found.seen}" for found in story.findings if not found.holds]
    assert not wrong, f"{wrong}\n{story.notes}"
    return story


SIDE_BY_SIDE = (*TOUR, redis_connection_failures.HEALS, replica_not_streaming.HEALS)
"""Each on a target of its own: none is refused for the sake of another."""


@pytest.mark.timeout(900)
def test_four_faults_heal(run: Run, tmp_path: Path) -> None:
    """The tour (a runaway query, a leaking engine), a Redis without connections and a hung replica on one stack: each mended
    once, each proven, nobody else touched; what was recorded fires at the same minute in promtool, and a backtest of it
    decides as the remediator did.

    The dashboards have something to show in every panel, and show each of the faults.
    """
    begun: dict[str, float] = {}
    with stack_in("auto") as stack:
        for drill in SIDE_BY_SIDE:
            story = held(drill, stack)
            replay.held(stack, story, tmp_path)
            waited = story.times["intent"] - story.times["webhook"] - tour.settle_of(stack.config, drill.runbook)
            assert waited <= 1.0, f"{drill.name}: the intent came {waited:.2f} s after the settle time"
            panels.moved(stack, drill, story)
            begun[drill.name] = story.times["fault"]
            compare.held(drill, stack, story)
        panels.burned(stack, begun[compliance_engine_slow.HEALS.name])
        panels.answered(stack)
        panels.pictured(stack, run, BUILD.parent / "dashboards")


def test_a_container_that_is_down_is_started(tmp_path: Path) -> None:
    """Once, healthy afterwards, proven."""
    with stack_in("auto") as stack:
        story = held(container_down.HEALS, stack)
        replay.held(stack, story, tmp_path)
        compare.held(container_down.HEALS, stack, story)


def test_an_engine_that_dies_at_its_restart_goes_to_people() -> None:
    """The service does not come back: unknown or worse, one restart, and a page."""
    with stack_in("auto") as stack:
        compare.held(compliance_engine_slow.DIES, stack, held(compliance_engine_slow.DIES, stack))


def test_a_fault_that_returns_within_the_hold_time_is_not_fixed() -> None:
    """Good, then bad again: not_fixed, one restart, and a page."""
    with stack_in("auto") as stack:
        compare.held(compliance_engine_slow.RETURNS, stack, held(compliance_engine_slow.RETURNS, stack))


def test_shadow_changes_nothing() -> None:
    """The same faults: the journal tells what would have been done, the target is as it was."""
    with stack_in("shadow") as stack:
        for drill in (high_database_cpu.SHADOW, compliance_engine_slow.SHADOW):
            story = held(drill, stack)
            told = next(event for event in story.events if event["kind"] == "would_act")
            assert told["data"]["items"], "it does not say on what"
            assert not any(event["kind"] == "intent" for event in story.events)
            compare.held(drill, stack, story)


def test_the_gate_restarts_nothing_but_what_is_allowed() -> None:
    """From where the remediator is: postgres through the gate is 403, and its container is as it was. And of a platform that
    is well every target is scraped, every collector has all its samples, and the handbook's commands read it.
    """
    with stack_in("shadow") as stack:
        before = stack.inspect("postgres")["State"]["StartedAt"]
        asked = (
            "import http.client, time, uuid; c = http.client.HTTPConnection('docker-gate', 2375, timeout=5);"
            "c.request('POST', '/v1.41/containers/prep-postgres-1/restart', headers={'X-Attempt-Id': uuid.uuid4().hex,"
            " 'X-Start-By': str(int(time.time()) + 9)}); print(c.getresponse().status)"
        )
        said = stack.compose("exec", "-T", "remediator", "python3", "-c", asked).stdout.strip()
        assert said == "403"
        assert stack.inspect("postgres")["State"]["StartedAt"] == before
        wait_for("prometheus to scrape all", lambda: _all_up(stack), 60)
        wait_for("every collector to succeed", lambda: _all_collected(stack), 60)
        for command in READ:
            done = stack.compose("exec", "-T", "remediator", "prepctl", *command.split(), check=False)
            assert (done.returncode, done.stderr) == (0, ""), f"{command}: {done.stdout}{done.stderr}"
            print(f"prepctl {command}: {done.stdout.splitlines()[0]}")


READ = (
    "payments:recent --failed",
    "compliance:stats",
    "redis:pool-stats",
    "redis:info memory",
    "db:connections",
    "db:replication --service postgres-replica",
    "disk:docker",
    "containers:facts python-compliance",
    "logs:errors --tail 50",
)
"""The handbook's reading commands, as they are typed on the platform."""


def _all_up(stack: Stack) -> bool:
    targets = stack.get("prometheus", "/api/v1/targets?state=active")["data"]["activeTargets"]
    return bool(targets) and all(target["health"] == "up" for target in targets)


def _all_collected(stack: Stack) -> bool:
    asked = "/api/v1/query?query=min(prep_scrape_collector_success)"
    found = stack.get("prometheus", asked)["data"]["result"]
    return bool(found) and found[0]["value"][1] == "1"


@pytest.mark.timeout(1200)
@pytest.mark.campaign(seconds=900)
def test_on_the_shipped_durations_it_is_proven_before_people_must_have_answered(tmp_path: Path) -> None:
    """Rules, Prometheus, Alertmanager, settle and hold times as they ship, against the handbook's response time."""
    drill = replica_not_streaming.SHIPPED
    with stack_in(drill.mode, drill) as stack:
        story = held(drill, stack)
        replay.held(stack, story, tmp_path)
        compare.held(drill, stack, story)
        row = table.Row.of(drill, story, stack)
    Console(width=150).print(table.table([row]))
    print(row.as_json())
    most = table.limit(row.response)
    assert most is not None
    assert row.effect is not None
    assert row.proven is not None
    assert row.effect < row.proven < most


@pytest.fixture(scope="module")
def rows() -> Iterator[list[table.Row]]:
    """Of the drills that held, as one table at the end."""
    found: list[table.Row] = []
    yield found
    if found:
        table.write(found, BUILD / "drills.json")
        Console(width=150).print(table.table(found))


@pytest.mark.timeout(600)
@pytest.mark.campaign(seconds=150)
@pytest.mark.parametrize("name", [name for name, drill in ALL.items() if not drill.shipped])
def test_every_drill_ends_as_it_must(name: str, rows: list[table.Row], tmp_path: Path) -> None:
    """Each on a stack of its own; fault, firing, effect and proof in seconds, beside the time that people have.

    What Prometheus recorded meanwhile, replayed in promtool, fires the same alert at the same minute, and backtested gives
    the decisions of the journal in their order.
    """
    drill = ALL[name]
    with stack_in(drill.mode, drill) as stack:
        time.sleep(panels.BASELINE)
        story = held(drill, stack)
        if "firing" in story.times:
            replay.held(stack, story, tmp_path)
            panels.moved(stack, drill, story)
            compare.held(drill, stack, story)
        rows.append(table.Row.of(drill, story, stack))
    print(f"{name}: {rows[-1].as_json()}", flush=True)
