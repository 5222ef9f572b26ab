"""The backtest of what a real Prometheus recorded decides as the remediator did that lived through it."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from backtest import command
from backtest.outcome import State, decided
from backtest.report import what
from remediator import narrative
from remediator.events import Event, Kind
from tests.support.docker_engine import DockerEngine
from tests.support.remediation import SICK, SLOW, Remediator, SickService, World, restart_book, service_entries
from tests.support.servers import Run, wait_until

SERVICES = ("mended", "spoiled", "lucky", "stubborn")
SETTLE, COOLDOWN, PATIENCE = 8.0, 60.0, 8.0
APART = 4.0  # seconds between the same decision here and there: two scrapes, two evaluations
KINDS = (Kind.REFUSED, Kind.INTENT, Kind.NEEDS_APPROVAL, Kind.VERDICT, Kind.HANDED_OVER, Kind.CLOSED)


@pytest.fixture
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, SERVICES) as world:
        yield world


def decisions(events: Sequence[Event]) -> list[str]:
    """What was decided, in order: `refused cooldown`, `intent restart`, `verdict fixed`, …

    Not what the direct probe alone forbade, in the second between the target's recovery and its rule's: that no history holds.
    """
    said = [what(event) for event in events if event.kind in KINDS]
    return [each for each in said if each != "refused vantage_disagrees"]


def seen_for(world: World, service: str, times: int = 5) -> None:
    """It fires for some evaluations (one a second) on end: what comes and goes between two of them no history holds, and those
    of the time before are not of this one."""
    alert = f'ALERTS{{alertname="{SICK}",alertstate="firing",service="{service}"}}'
    world.prometheus.wait_for(f"count_over_time({alert}[{times + 1}s]) >= {times}")


def lived(ours: Remediator, since: float) -> list[list[Event]]:
    """The journal's episodes, oldest first."""
    return [
        [
            Event(f"{each['seq']:032x}", row["id"], each["seq"], Kind(each["kind"]), each["at"], each["data"])
            for each in ours.events(row["id"])
        ]
        for row in ours.episodes(since)
    ]


def backtest(ours: Remediator, since: float, until: float) -> dict[str, Any]:
    out = io.StringIO()
    stamps = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in (since, until)]
    with contextlib.redirect_stdout(out):
        code = command.main(["--config", str(ours.config), "--since", stamps[0], "--until", stamps[1], "--json"])
    assert code == 0
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def driven(ours: Remediator) -> list[dict[str, Any]]:
    """Episodes that have a runbook; the second alert of a sick service has none."""
    return [row for row in ours.episodes() if row["runbook"]]


def closed(ours: Remediator, count: int) -> None:
    """So many of them, and all closed."""
    wait_until(
        lambda: len(rows := driven(ours)) == count and all(row["closed_at"] for row in rows),
        f"{count} closed episodes",
        60,
        0.3,
        ours.story,
    )


def live_through(world: World, services: dict[str, SickService], ours: Remediator) -> None:
    """Mended; the same again within the cooldown; symptom of a cause; gone before it settled; not mended by anything."""
    mended, spoiled, lucky, stubborn = (services[name] for name in SERVICES)
    mended.sicken()
    closed(ours, 1)
    mended.sicken()
    ours.wait_reason("cooldown")
    seen_for(world, "mended")
    mended.heal()
    closed(ours, 2)
    world.metrics.set("prep_long_queries", 1, service="database")
    world.prometheus.wait_for(f'ALERTS{{alertname="{SLOW}",alertstate="firing"}}')
    spoiled.sicken()
    ours.wait_reason("blocked_by_cause")
    seen_for(world, "spoiled")
    spoiled.heal()
    closed(ours, 3)
    world.metrics.set("prep_long_queries", 0, service="database")
    world.prometheus.wait_for(f'ALERTS{{alertname="{SLOW}"}}', lambda found: not found)
    lucky.sicken()
    wait_until(lambda: len(driven(ours)) == 4, "an episode", 20, 0.1)
    seen_for(world, "lucky", 3)
    lucky.heal()
    closed(ours, 4)
    stubborn.incurable = True
    stubborn.sicken()
    ours.wait_event("handed_over", deadline=60)


@pytest.mark.timeout(300)
def test_it_decides_as_the_remediator_did(world: World) -> None:
    """Five episodes, one of each end: the same decisions in the same order, and effects at the same time."""
    began = time.time() - 5
    services = {name: world.service(name) for name in SERVICES}
    book = restart_book(
        SERVICES,
        patience=PATIENCE,
        match={"alertnames": [SICK], "jobs": ["prep-services"]},
        blocked_by=[SLOW],
        settle=f"{SETTLE:g}s",
        limits={"cooldown": f"{COOLDOWN:g}s", "per_hour": 100, "per_day": 100},
    )
    world.metrics.set("prep_long_queries", 0, service="database")
    with Remediator(world, [book], services=service_entries(services.values())) as ours:
        for name in SERVICES:
            world.deliver(name, ours)
        live_through(world, services, ours)
        rows = [events for events in lived(ours, began) if events[0].data.get("runbook")]
        # The last end lies within the history there too, a little later than here.
        world.prometheus.wait_for(f"vector(time()) > {time.time() + APART}")
        found = backtest(ours, began, time.time())
    there = [(decisions(events), decided(events)) for events in rows]
    assert [came.state for _, came in there] == [State.ACT, State.REFUSED, State.BLOCKED, State.OVER, State.ACT]
    here = [each for each in found["shipped"]["episodes"] if each["runbook"]]
    told = "\n".join(f"{step['at']:.0f} {each['target']} {step['sentence']}" for each in here for step in each["story"])
    lived_as = "\n".join(f"{event.at:.2f} {event.kind} {narrative.line(event)}" for events in rows for event in events)
    said = f"the backtest:\n{told}\nthe remediator:\n{lived_as}"
    ends = [(came.state, came.reason or None) for _, came in there]
    assert [(each["state"], each["reason"]) for each in here] == ends, said
    for each, (order, came) in zip(here, there, strict=True):
        assert [step["what"] for step in each["story"] if step["what"].partition(" ")[0] in KINDS] == order, said
        assert (each["rungs"], each["action"]) == (list(came.rungs), came.action or None)
        assert (each["at"] is None) == (came.at is None)
        assert came.at is None or abs(each["at"] - came.at) < APART, each["sentence"]
    assert sum(service.effects for service in services.values()) == 2
