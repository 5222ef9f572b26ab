"""What people say, on real parts: the program as it ships, a gate, containers that count their own lives.

An approval is one restart, however often it is given; a decline, an expired or an overtaken question is none. A storm is one
page and no restart; the pause file holds for every replica.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
import yaml

from tests.support.docker_engine import DockerEngine
from tests.support.remediation import Remediator, SickService, World, restart_book, service_entries
from tests.support.run import Run
from tests.support.waiting import Reply, post_json, wait_until

ENGINE = "engine"
CROWD = tuple(f"s{number}" for number in range(4))
PEOPLE = ("ada", "bob")


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, [ENGINE, *CROWD]) as world:
        yield world


@pytest.fixture(scope="module")
def engine(world: World) -> SickService:
    return world.service(ENGINE)


@pytest.fixture
def asking(world: World, engine: SickService) -> Iterator[Remediator]:
    """A remediator that must ask, and two people who may answer."""
    book = restart_book([ENGINE], mode="approve", approve_within="60s")
    remediator = Remediator(world, [book], name="asking", services=service_entries([engine]))
    with_people(remediator)
    engine.heal()
    engine.begin()
    with remediator:
        yield remediator
    engine.heal()


def with_people(remediator: Remediator) -> None:
    """Write tokens of `PEOPLE` and name them in its configuration."""
    made = yaml.safe_load(remediator.config.read_text())
    made["operators"] = {}
    for name in PEOPLE:
        (remediator.folder / f"{name}-token").write_text(f"{name}-token\n")
        made["operators"][name] = {"token_files": [str(remediator.folder / f"{name}-token")]}
    remediator.config.write_text(yaml.safe_dump(made))


def say(remediator: Remediator, who: str, what: str, approval: str, **body: Any) -> Reply:
    url = f"{remediator.url}/api/v1/approvals/{approval}/{what}"
    return post_json(url, body, {"Authorization": f"Bearer {who}-token"}, 10)


def question(remediator: Remediator, since: float) -> dict[str, Any]:
    """The question that waits."""

    def found() -> list[dict[str, Any]]:
        return [row for row in remediator.ask("approvals")["approvals"] if row["asked_at"] >= since]

    return wait_until(found, "a question", 40, 0.2, remediator.story)[0]


def test_an_approval_is_one_restart(asking: Remediator, engine: SickService, world: World) -> None:
    """Both say yes at the same moment, and again: the container starts once, it is proven, people hear of both."""
    began = time.time()
    engine.sicken()
    assert asking.post(ENGINE)
    asked = question(asking, began)
    assert engine.effects == 0
    assert engine.container.name in str(asked["items"])
    heard = "RemediationNeedsApproval"
    wait_until(lambda: heard in world.people(asked["episode"]), "people to be asked", 20, 0.2, asking.story)
    with ThreadPoolExecutor(4) as pool:
        clicks = [
            pool.submit(say, asking, who, "approve", asked["id"], digest=asked["digest"]) for who in (*PEOPLE, *PEOPLE)
        ]
        statuses = [click.result().status for click in clicks]
    assert 202 in statuses
    assert set(statuses) <= {202, 409}
    asking.wait_event("verdict", began)
    asking.wait_rest(began)
    assert engine.effects == 1
    kinds = asking.kinds(asked["episode"])
    assert (kinds.count("approved"), kinds.count("intent")) == (1, 1)


def test_a_decline_is_no_restart(asking: Remediator, engine: SickService) -> None:
    """Not then, and not when the alert comes again."""
    began = time.time()
    engine.sicken()
    assert asking.post(ENGINE)
    asked = question(asking, began)
    assert say(asking, "ada", "decline", asked["id"], digest=asked["digest"], reason="I am on it").status == 202
    asking.wait_reason("declined", began)
    assert asking.post(ENGINE)
    assert say(asking, "bob", "approve", asked["id"], digest=asked["digest"]).status == 409
    time.sleep(3)
    assert engine.effects == 0


def test_what_was_approved_and_has_changed_is_asked_again(asking: Remediator, engine: SickService) -> None:
    """A person restarts the container by hand between the question and the click: the yes restarts nothing."""
    engine.incurable = True
    try:
        began = time.time()
        engine.sicken()
        assert asking.post(ENGINE)
        asked = question(asking, began)
        engine.container.container.restart(timeout=1)
        wait_until(lambda: engine.effects == 1, "the restart by hand", 20)
        engine.sicken()
        say(asking, "ada", "approve", asked["id"], digest=asked["digest"])
        another = wait_until(
            lambda: (
                [row for row in asking.ask("approvals")["approvals"] if row["digest"] != asked["digest"]]
                or [each for each in asking.reasons(began) if each == "target_young"]
            ),
            "another question, or a refusal",
            40,
            0.2,
            asking.story,
        )
        assert another
        assert engine.effects == 1, "only the one by hand"
    finally:
        engine.incurable = False


def test_a_storm_is_one_page_and_no_restart(world: World) -> None:
    """Four at once where three are a storm; ended by a person, they go one at a time, each proven before the next."""
    crowd = [world.service(name) for name in CROWD]
    guards = {"storm_episodes": 3, "storm_calm": "1h", "all_per_hour": 1000, "all_per_day": 1000, "start_within": "4s"}
    book = restart_book(CROWD, settle="2s")
    book["proof"]["checks"] = [{"name": "well", "query": "prep_service_sick", "by": ["service"], "below": 1}]
    remediator = Remediator(world, [book], name="storm", services=service_entries(crowd), guards=guards)
    with_people(remediator)
    for service in crowd:
        service.sicken()
    with remediator:
        began = time.time()
        assert remediator.post(*CROWD)
        wait_until(lambda: storms(world), "the page", 30, 0.2, remediator.story)
        remediator.wait_reason("storm", began)
        time.sleep(6)
        assert [service.effects for service in crowd] == [0] * len(crowd)
        assert len(storms(world)) == 1
        body = {"reason": "the cause is gone"}
        answer = post_json(f"{remediator.url}/api/v1/storm/end", body, {"Authorization": "Bearer ada-token"}, 10)
        assert answer.status == 200, answer
        wait_until(
            lambda: all(service.effects == 1 for service in crowd), "each to be restarted", 150, 0.5, remediator.story
        )
        remediator.wait_rest(began, 60)
        events = [event for row in remediator.episodes(began) for event in remediator.events(row["id"])]
        spans = sorted(
            (intent["at"], next(v["at"] for v in events if v["kind"] == "verdict" and attempt(v) == attempt(intent)))
            for intent in events
            if intent["kind"] == "intent"
        )
        assert len(spans) == len(CROWD)
        assert all(proven <= begun for (_, proven), (begun, _) in pairwise(spans)), spans
        assert [service.effects for service in crowd] == [1] * len(crowd)


def attempt(event: dict[str, Any]) -> str:
    return str(event["data"]["attempt"])


def storms(world: World) -> set[str]:
    """Label sets under which people heard of a storm."""
    told = world.inbox.alerts("/people", alertname="RemediationStorm")
    return {str(sorted(alert["labels"].items())) for alert in told}
