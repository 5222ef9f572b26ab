"""What the remediator stands on goes away: it does nothing, and says by name why. On real servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.docker_engine import DockerEngine
from tests.support.remediation import (
    SICK,
    STALLED,
    Remediator,
    SickService,
    World,
    restart_book,
    service_entries,
)
from tests.support.servers import Run, fetch, wait_until

NAME = "closed"
LONGER = 2.0  # seconds after the refusal for which nothing may happen: it decides again meanwhile


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, [NAME]) as world:
        yield world


@pytest.fixture(scope="module")
def target(world: World) -> SickService:
    return world.service(NAME)


@pytest.fixture
def service(world: World, target: SickService) -> SickService:
    """The target, sick, counted from now on."""
    for server in (world.prometheus, world.alertmanager, world.gate):
        server.start()
    target.sicken()
    target.begin()
    return target


def remediator(world: World, service: SickService, *, book: dict[str, Any] | None = None, **changes: Any) -> Remediator:
    made = restart_book([service.name], **(book or {}))
    return Remediator(world, [made], services=service_entries([service]), **changes)


def nothing_happens(service: SickService, already: int = 0) -> None:
    """For a while after the refusal the target is left alone."""
    end = time.monotonic() + LONGER
    wait_until(lambda: time.monotonic() > end or service.effects > already, "a while to pass", LONGER + 10, 0.2)
    assert service.effects == already


@pytest.mark.parametrize(
    ("server", "fault", "reason"),
    [
        ("prometheus", "stop", "rule_unknown"),
        ("prometheus", "freeze", "rule_unknown"),
        ("alertmanager", "stop", "alertmanager_unreachable"),
        ("alertmanager", "freeze", "alertmanager_unreachable"),
        ("gate", "stop", "target_unreachable"),
        ("gate", "freeze", "target_unreachable"),
    ],
)
def test_nothing_without_what_it_stands_on(
    world: World, service: SickService, server: str, fault: str, reason: str
) -> None:
    """Down or frozen: no effect and the named reason. Back after a stop, the same alert is remediated once."""
    part = getattr(world, server)
    with remediator(world, service) as ours:
        getattr(part, fault)()
        try:
            assert ours.post(service.name)
            ours.wait_reason(reason)
            nothing_happens(service)
        finally:
            part.thaw() if fault == "freeze" else part.start()
        if fault == "stop":
            ours.wait_event("verdict", deadline=60)
            assert service.effects == 1


def test_a_second_alert_inside_the_cooldown(world: World, service: SickService) -> None:
    """Remediated once; sick again within the cooldown, by another alert: `cooldown`, and no second restart."""
    limits = {"cooldown": "10m", "per_hour": 1000, "per_day": 1000}
    with remediator(world, service, book={"limits": limits}) as ours:
        assert ours.post(service.name)
        ours.wait_rest()
        assert service.effects == 1
        service.sicken()
        again = time.time()
        assert ours.post(service.name, alertname=STALLED)
        ours.wait_reason("cooldown", since=again)
        nothing_happens(service, already=1)


def test_an_alert_of_another_environment(world: World, service: SickService) -> None:
    """Staging's alert at production's remediator, all else right: foreign, journaled, left alone."""
    with remediator(world, service) as ours:
        assert ours.post(service.name, environment="staging")
        ours.wait_reason("foreign_alert")
        nothing_happens(service)


def test_shadow_changes_nothing(world: World, service: SickService) -> None:
    """Mode shadow goes the whole way up to the act, says what it would do, and does not."""
    with remediator(world, service, mode="shadow") as ours:
        assert ours.post(service.name)
        would = ours.wait_event("would_act")
        assert would["data"]["action"] == "restart_service"
        assert would["data"]["items"][0]["container"] == service.container.name
        nothing_happens(service)
        kinds = [kind for row in ours.episodes() for kind in ours.kinds(row["id"])]
        assert not {"intent", "outcome"} & set(kinds)


def test_the_pause_file_stops_it(world: World, service: SickService) -> None:
    """The file that works even without the journal: `paused`; taken away, the same alert is remediated once."""
    with remediator(world, service) as ours:
        ours.pause_file.touch()
        assert ours.post(service.name)
        ours.wait_reason("paused")
        nothing_happens(service)
        ours.pause_file.unlink()
        ours.wait_event("verdict", deadline=60)
        assert service.effects == 1


def test_a_silence_stops_it(world: World, service: SickService) -> None:
    """A person has silenced the target: `muted`; when the silence is over, it is remediated once."""
    with remediator(world, service) as ours:
        silence = world.alertmanager.silence(service=service.name, comment="a person is on it")
        try:
            assert ours.post(service.name)
            ours.wait_reason("muted")
            nothing_happens(service)
        finally:
            world.alertmanager.expire(silence)
        ours.wait_event("verdict", deadline=60)
        assert service.effects == 1


def test_from_the_rule_to_the_repair(world: World, service: SickService) -> None:
    """Nobody posts by hand: Prometheus' rule, Alertmanager's webhook, one restart, proof, and the end."""
    with remediator(world, service) as ours:
        world.deliver(service.name, ours)
        ours.wait_event("opened")
        ours.wait_event("verdict", deadline=60)
        assert service.effects == 1


def receiver_of(world: World, service: SickService) -> str:
    """To whom Alertmanager routes this service's alert; "" while it does not hold it."""
    active = fetch(f"{world.alertmanager.url}/api/v2/alerts?active=true&filter=service%3D%22{service.name}%22").json()
    found = [alert["receivers"][0]["name"] for alert in active if alert["labels"]["alertname"] == SICK]
    return found[0] if found else ""


def test_an_alert_that_was_never_delivered_is_read_back_at_start(world: World, service: SickService) -> None:
    """Lost by whoever took it before: the new process has it from Alertmanager, and remediates once. No webhook leads to it."""
    receiver = wait_until(lambda: receiver_of(world, service), "Alertmanager to know it", 30, 0.2)
    with remediator(world, service, alertmanager={"receiver": receiver}) as ours:
        ours.wait_event("opened", deadline=20)
        ours.wait_event("verdict", deadline=60)
        assert service.effects == 1


@pytest.mark.campaign(seconds=100)
@pytest.mark.timeout(200)
def test_an_alert_that_was_never_delivered_is_read_back_within_a_minute(world: World, service: SickService) -> None:
    """As above, lost while the process runs."""
    receiver = wait_until(lambda: receiver_of(world, service), "Alertmanager to know it", 30, 0.2)
    service.heal()
    wait_until(lambda: not receiver_of(world, service), "Alertmanager to forget it", 30, 0.2)
    with remediator(world, service, alertmanager={"receiver": receiver}) as ours:
        service.sicken()
        ours.wait_event("opened", deadline=75)
        ours.wait_event("verdict", deadline=60)
        assert service.effects == 1
