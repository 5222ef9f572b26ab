"""What a person does by hand, on real parts: prepctl as it ships, the remediator, a gate, a container that counts its lives.

Shown, confirmed, done once, proven, in whatever mode; bound by limits, pauses and the target's own reasons. A broken glass
passes the pause and not the target, and people hear of it once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.support.docker_engine import DockerEngine
from tests.support.remediation import ROOT, Remediator, SickService, World, restart_book, service_entries
from tests.support.run import Run
from tests.support.waiting import free_port, wait_until

NAME = "engine"
ROLES = {"ada": "admin", "bob": "operator", "eve": "viewer"}
ACT = ("act", "restart_service", "--service", NAME)
GLASS = "RemediationBreakGlass"
LONGER = 2.0  # seconds after a no for which nothing may happen


@pytest.fixture(scope="module")
def world(run: Run, docker_engine: DockerEngine) -> Iterator[World]:
    with World(run, docker_engine, [NAME]) as world:
        yield world


@pytest.fixture(scope="module")
def target(world: World) -> SickService:
    return world.service(NAME)


@pytest.fixture
def engine(target: SickService) -> SickService:
    """Well, and counted from now on; the gate's cooldown of a second is over."""
    target.heal()
    time.sleep(1.1)
    target.begin()
    return target


def started(world: World, engine: SickService, *, book: Mapping[str, Any] | None = None, **changes: Any) -> Remediator:
    """A remediator, not started yet, with a person of each role."""
    made = Remediator(world, [restart_book([NAME], **(book or {}))], services=service_entries([engine]), **changes)
    config = yaml.safe_load(made.config.read_text())
    config["operators"] = {}
    for name, role in ROLES.items():
        (made.folder / f"{name}-token").write_text(f"{name}-token\n")
        config["operators"][name] = {"token_files": [str(made.folder / f"{name}-token")], "role": role}
    made.config.write_text(yaml.safe_dump(config))
    return made


def prepctl(ours: Remediator, who: str, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PREPCTL_URL": url or ours.url,
        "PREPCTL_TOKEN_FILE": str(ours.folder / f"{who}-token"),
    }
    argv = [sys.executable, "-m", "prepctl", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


def digest(ours: Remediator, who: str) -> str:
    """Of what would be done, as it is shown."""
    shown = prepctl(ours, who, *ACT, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.split("digest ")[1].split()[0]


def command(ours: Remediator, who: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What is shown now, confirmed."""
    return prepctl(ours, who, *ACT, "--digest", digest(ours, who), *arguments)


def ended(ours: Remediator, since: float) -> list[dict[str, Any]]:
    """The events of the command's episode, once it is closed."""

    def closed() -> bool:
        return bool(ours.episodes(since)) and all(row["closed_at"] for row in ours.episodes(since))

    wait_until(closed, "the command's end", 40, 0.2, ours.story)
    return ours.events(ours.episodes(since)[-1]["id"])


def nothing_happens(engine: SickService) -> None:
    end = time.monotonic() + LONGER
    wait_until(lambda: time.monotonic() > end or engine.effects > 0, "a while to pass", LONGER + 10, 0.2)
    assert engine.effects == 0


def test_a_command_is_one_restart_in_any_mode(world: World, engine: SickService) -> None:
    """Mode shadow binds the automation. Evidence, intent, effect, proof, end; charged to the target like any other."""
    with started(world, engine, mode="shadow", book={"limits": {"cooldown": "10m"}}) as ours:
        seen = digest(ours, "bob")
        nothing_happens(engine)
        wrong = prepctl(ours, "bob", *ACT, "--digest", "0" * 12, "--reason", "it leaks")
        assert (wrong.returncode, "digest" in wrong.stderr) == (1, True), wrong
        since = time.time()
        said = prepctl(ours, "bob", *ACT, "--digest", seen, "--reason", "it leaks")
        assert (said.returncode, said.stdout.count("Taken.")) == (0, 1), said
        events = ended(ours, since)
        assert engine.effects == 1
        kinds = [event["kind"] for event in events if event["kind"] != "proving"]
        assert kinds == ["opened", "diagnosed", "intent", "outcome", "verdict", "closed"]
        assert events[0]["sentence"] == f"bob wants restart_service on service={NAME}: it leaks."
        assert events[-1]["data"]["reason"] == "fixed"
        assert ours.ask("journal/verify")["problems"] == []
        again = time.time()
        engine.begin()
        assert command(ours, "bob", "--reason", "once more").returncode == 0
        assert [event["data"]["reason"] for event in ended(ours, again) if event["kind"] == "refused"] == ["cooldown"]
        nothing_happens(engine)


def test_who_may(world: World, engine: SickService) -> None:
    """A viewer may look at nothing of it; only an admin may break the glass."""
    with started(world, engine) as ours:
        assert prepctl(ours, "eve", *ACT, "--dry-run").returncode == 4
        seen = digest(ours, "bob")
        assert prepctl(ours, "eve", *ACT, "--digest", seen, "--reason", "mine").returncode == 4
        broken = prepctl(ours, "bob", *ACT, "--digest", seen, "--break-glass", "now")
        assert (broken.returncode, "role admin" in broken.stderr) == (4, True), broken
        assert prepctl(ours, "bob", *ACT, "--digest", seen).returncode == 2, "a reason must be given"
        nothing_happens(engine)
        assert ours.episodes() == []


def test_a_pause_binds_a_person_too_until_the_glass_is_broken(world: World, engine: SickService) -> None:
    """Paused by file, which is looked for right before the effect too. Broken, it is one restart, and told once."""
    with started(world, engine) as ours:
        ours.pause_file.touch()
        wait_until(lambda: ours.ask("pauses")["pauses"], "the pause to be known", 20, 0.2)
        since = time.time()
        assert command(ours, "ada", "--reason", "it leaks").returncode == 0
        assert [event["data"]["reason"] for event in ended(ours, since) if event["kind"] == "refused"] == ["paused"]
        nothing_happens(engine)
        since = time.time()
        assert command(ours, "ada", "--break-glass", "customers wait").returncode == 0
        events = ended(ours, since)
        assert engine.effects == 1, ours.story()
        assert (events[0]["data"]["command"]["who"], events[0]["data"]["command"]["break_glass"]) == ("ada", True)
        told = wait_until(lambda: world.inbox.alerts("/people", alertname=GLASS), "people to hear of it", 20, 0.2)
        assert len(told) == 1
        assert "ada breaks the glass" in told[0]["annotations"]["summary"]
        assert "customers wait" in told[0]["annotations"]["summary"]


def test_what_was_handed_to_people_they_may_act_on(world: World, engine: SickService) -> None:
    """The automation's restart did not help and is with people: a command is no second one beside it, but theirs."""
    engine.incurable = True
    try:
        with started(world, engine, book={"proof": {**restart_book([NAME])["proof"], "timeout": "3s"}}) as ours:
            engine.sicken()
            assert ours.post(NAME)
            ours.wait_event("handed_over")
            assert engine.effects == 1
            since = time.time()
            assert command(ours, "bob", "--reason", "once more, with the cause gone").returncode == 0
            events = ended(ours, since)
            assert engine.effects == 2, ours.story()
            assert events[-1]["data"]["reason"] == "not_fixed"
            assert ours.ask("status")["demoted"] == []
    finally:
        engine.incurable = False
        engine.heal()


def test_no_glass_is_before_the_target(world: World, engine: SickService) -> None:
    """Its own reasons hold for everybody: here the opt-in label is missing."""
    with started(world, engine, docker={"label": "another.label"}) as ours:
        since = time.time()
        shown = prepctl(ours, "ada", *ACT, "--dry-run")
        assert "target_not_labelled" in shown.stdout
        assert command(ours, "ada", "--break-glass", "now").returncode == 0
        said = [event["data"]["reason"] for event in ended(ours, since) if event["kind"] == "refused"]
        assert said == ["target_not_labelled"]
        nothing_happens(engine)


def test_no_glass_is_before_a_doubt(world: World, engine: SickService) -> None:
    """A restart of the automation's is on its way, and its end is not known: no second one beside it."""
    way = world.proxy(world.gate.port)
    hold = way.hold_on(b"/restart")
    rung = {**restart_book([NAME])["ladder"][0], "deadline": "60s"}
    with started(world, engine, docker={"gate_url": way.url}, book={"ladder": [rung]}) as ours:
        engine.sicken()
        assert ours.post(NAME)
        hold.wait(20)
        since = time.time()
        assert command(ours, "ada", "--break-glass", "now").returncode == 0
        said = [event["data"]["reason"] for event in ended(ours, since) if event["kind"] == "refused"]
        assert said == ["target_in_doubt"]
        nothing_happens(engine)
    way.close()


def test_the_remediator_is_down(world: World, engine: SickService) -> None:
    """What to run by hand is printed, not run, and the exit code says that it was not done."""
    ours = started(world, engine)
    said = prepctl(ours, "ada", *ACT, "--reason", "it leaks", url=f"http://127.0.0.1:{free_port()}")
    assert said.returncode == 3, said
    assert f"com.docker.compose.service={NAME}" in said.stdout
    assert "docker restart" in said.stdout
    query = prepctl(
        ours, "ada", "act", "cancel_query", "--service", "postgres", "--dry-run", url=f"http://127.0.0.1:{free_port()}"
    )
    assert (query.returncode, "pg_cancel_backend" in query.stdout) == (3, True), query
    nothing_happens(engine)
