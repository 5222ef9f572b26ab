"""The shadow report on real parts: Prometheus' rule, Alertmanager's webhook, a remediator in shadow, containers.

What it says is held against what we did to the targets and what Docker counted, not against the journal alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.docker_engine import DockerEngine
from tests.support.remediation import SICK, SLOW, Remediator, World, restart_book, service_entries
from tests.support.run import Run
from tests.support.waiting import wait_until

ALONE, BYHAND, SILENT, CLIMBS = "alone", "byhand", "silent", "climbs"
NEAR = 6.0  # seconds between what we did and what the remediator has seen of it
LOOKED = 75.0  # seconds: a shadow that has said what it would do looks again each minute


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, [ALONE, BYHAND, SILENT, CLIMBS]) as world:
        yield world


def told(ours: Remediator, service: str) -> list[dict[str, Any]]:
    """What the report has of this service's own alert; another rule is true of it too."""
    found = ours.ask("shadow")["episodes"]
    return [each for each in found if (each["alert"], each["target"]) == (SICK, {"service": service})]


@pytest.mark.timeout(240)
def test_it_says_what_happened_to_each_target(world: World) -> None:
    """One heals by itself, one is restarted by a hand, one is silenced. Nothing was done, and each is told as it was."""
    services = [world.service(name) for name in (ALONE, BYHAND, SILENT)]
    alone, byhand, silent = services
    book = restart_book([ALONE, BYHAND, SILENT])
    with Remediator(world, [book], services=service_entries(services), mode="shadow") as ours:
        for service in services:
            world.deliver(service.name, ours)
        silence = world.alertmanager.silence(service=SILENT, comment="a deployment")
        since = time.time()
        for service in services:
            service.sicken()
        wait_until(lambda: all(proposed(ours, name) for name in (ALONE, BYHAND)), "both moments", 60, 0.2, ours.story)
        acted = told(ours, ALONE)[0]["proposal"]["at"]
        assert since <= acted <= time.time()
        byhand.container.container.restart(timeout=0)
        alone.heal()
        healed = time.time()
        assert ours.post(SILENT)  # Alertmanager keeps to itself what is silenced; an older delivery may still come
        ours.wait_reason("muted")
        wait_until(lambda: all(over(ours, name) for name in (ALONE, BYHAND)), "both to be over", 100, 0.5, ours.story)
        (first,), (second,), (third,) = (told(ours, name) for name in (ALONE, BYHAND, SILENT))
        world.alertmanager.expire(silence)
    assert (alone.effects, byhand.effects, silent.effects) == (0, 1, 0)
    assert [each["proposal"]["action"] for each in (first, second)] == ["restart_service"] * 2
    assert first["came"] == "healed_alone"
    assert healed - NEAR <= acted + first["came_after"] <= healed + LOOKED
    assert second["came"] == "person_acted"
    assert (third["proposal"], third["came"]) == (None, "open")
    assert "muted" in [answer["reason"] for answer in third["answers"]]
    silent.heal()


def proposed(ours: Remediator, service: str) -> bool:
    return any(each["proposal"] for each in told(ours, service))


def over(ours: Remediator, service: str) -> bool:
    return all(each["ended_at"] for each in told(ours, service))


def prepctl(ours: Remediator, *arguments: str) -> str:
    """The command as a person runs it; what it printed. Raises with its complaint when it does not end well."""
    said = {"PREPCTL_URL": ours.url, "PREPCTL_TOKEN_FILE": str(ours.folder / "api-token"), "PREPCTL_WHO": "ada"}
    argv = [sys.executable, "-m", "prepctl", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **said})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(120)
def test_a_promotion_holds_after_the_reload_and_for_one_runbook_only(world: World) -> None:
    """Into its own files, read anew: this runbook asks now, the other one goes on watching, and the report tells it."""
    service = world.service(CLIMBS)
    book = restart_book([CLIMBS])
    other = {**book, "name": "other", "match": {**book["match"], "alertnames": [SLOW]}}
    with Remediator(world, [book, other], services=service_entries([service]), mode="shadow") as ours:
        files = (f"--config={ours.config}", f"--runbooks={ours.folder}/runbooks", "--yes")
        why = ("--reason=it is a test", "--despite-report=nothing was watched")
        prepctl(ours, "runbook:promote", "restart", "--to=approve", *why, *files)
        modes = {each["runbook"]: each["mode"] for each in ours.ask("shadow")["runbooks"]}
        assert modes == {"restart": "shadow", "other": "shadow"}
        prepctl(ours, "reload")
        modes = {each["runbook"]: each["mode"] for each in ours.ask("shadow")["runbooks"]}
        assert modes == {"restart": "approve", "other": "shadow"}
        service.sicken()
        assert ours.post(CLIMBS)
        ours.wait_event("needs_approval")
        assert service.effects == 0
        told = prepctl(ours, "shadow:report", "--runbook=restart")
    assert "ada promotes runbook restart from shadow to approve: it is a test." in told
    assert "it asked a person to let it do this (step 1 of 1, restart)" in told
    service.heal()
