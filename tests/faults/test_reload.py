"""A reload under a sick service, on real servers: the effects are counted at the service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.docker_engine import DockerEngine
from tests.support.remediation import API_TOKEN, STALLED, Remediator, SickService, World, restart_book, service_entries
from tests.support.servers import Run, post_json, wait_until

NAME = "reloaded"
LONGER = 3.0  # seconds after a reload in which nothing may happen: it decides again several times meanwhile


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, [NAME]) as world:
        yield world


@pytest.fixture(scope="module")
def target(world: World) -> SickService:
    return world.service(NAME)


@pytest.fixture
def service(target: SickService) -> SickService:
    """The target, sick, counted from now on."""
    target.sicken()
    target.begin()
    return target


def reload(ours: Remediator, book: dict[str, Any] | None = None, **settings: Any) -> None:
    """Change the settings, and the runbook where one is given; returns when it holds."""
    config = yaml.safe_load(ours.config.read_text()) | settings
    ours.config.write_text(yaml.safe_dump(config))
    if book is not None:
        (ours.folder / "runbooks" / "restart.yml").write_text(yaml.safe_dump(book))
    answer = post_json(f"{ours.url}/-/reload", {}, {"Authorization": f"Bearer {API_TOKEN}"}, timeout=15)
    assert answer.status == 200, answer


def nothing_happens(service: SickService, already: int = 0) -> None:
    end = time.monotonic() + LONGER
    wait_until(lambda: time.monotonic() > end or service.effects > already, "a while to pass", LONGER + 10, 0.2)
    assert service.effects == already


def test_a_stricter_mode_holds_before_the_reload_is_answered(world: World, service: SickService) -> None:
    """Auto becomes shadow while the settle time runs: nothing is done. Auto again: the same episode is done, once."""
    book = restart_book([NAME], settle="3s")
    with Remediator(world, [book], services=service_entries([service])) as ours:
        assert ours.post(NAME)
        ours.wait_event("diagnosed")
        reload(ours, mode="shadow")
        ours.wait_event("would_act")
        nothing_happens(service)
        reload(ours, mode="auto")
        ours.wait_event("verdict", deadline=60)
        assert (service.effects, len(ours.episodes())) == (1, 1)


def test_a_service_that_is_taken_off_the_list_is_left_alone(world: World, service: SickService) -> None:
    """Looked at and found restartable; then a person takes it out of the settings: `target_not_allowed`."""
    book = restart_book([NAME], settle="3s", vantage={"kind": "preview"})
    with Remediator(world, [book], services=service_entries([service])) as ours:
        assert ours.post(NAME)
        ours.wait_event("diagnosed")
        reload(ours, services={})
        ours.wait_reason("target_not_allowed")
        nothing_happens(service)


def test_an_episode_under_way_obeys_a_longer_cooldown(world: World, service: SickService) -> None:
    """Decided on a cooldown of a second; an hour is set while it settles: the restart before counts now."""
    with Remediator(world, [restart_book([NAME])], services=service_entries([service])) as ours:
        assert ours.post(NAME)
        ours.wait_rest()
        assert service.effects == 1
        reload(ours, restart_book([NAME], settle="4s"))
        service.sicken()
        again = time.time()
        assert ours.post(NAME, alertname=STALLED)
        ours.wait_event("diagnosed", since=again)
        reload(ours, restart_book([NAME], limits={"cooldown": "1h", "per_hour": 1000, "per_day": 1000}))
        ours.wait_reason("cooldown", since=again)
        nothing_happens(service, already=1)
