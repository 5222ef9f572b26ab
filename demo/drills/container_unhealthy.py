"""Drills of the runbook container-unhealthy: a service runs, and its health check and the direct probe both fail."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from demo.drills.base import Drill, Finding, Story, started_at
from demo.drills.untouched import LEFT_ALONE, people_know, refused_as
from demo.stack import PROJECT, Stack, wait_for

SERVICE = "python-compliance"
CONTAINER = f"{PROJECT}-{SERVICE}-1"


@contextmanager
def frozen(stack: Stack, story: Story) -> Iterator[None]:
    """The service's process takes connections and answers nobody. Without load: no check waits, and no other alert of
    the service is first.
    """
    stack.compose("stop", "--timeout", "5", "load")
    container = stack.docker.containers.get(CONTAINER)
    story.notes["started_at"] = str(started_at(stack, SERVICE))
    container.kill(signal="SIGSTOP")
    story.times["fault"] = time.time()
    story.notes["fault"] = f"{SERVICE} is frozen (SIGSTOP)"
    try:
        yield
    finally:
        container.kill(signal="SIGCONT")
        stack.compose("start", "load", check=False)


@contextmanager
def frozen_by_somebody(stack: Stack, story: Story) -> Iterator[None]:
    """The same, and somebody is at work inside: a debugger that stops a process looks just so."""
    at_work = subprocess.Popen(
        stack.command("exec", "-T", SERVICE, "sleep", "600"), env=stack.environment, stdin=subprocess.DEVNULL
    )
    try:
        wait_for(f"somebody to work in {SERVICE}", lambda: stack.inspect(SERVICE)["ExecIDs"], 20)
        with frozen(stack, story):
            yield
    finally:
        at_work.kill()
        at_work.wait()
        stack.compose("restart", "--timeout", "5", SERVICE, check=False)


@contextmanager
def frozen_in_deployment(stack: Stack, story: Story) -> Iterator[None]:
    """Somebody deploys the service, says so as the handbook has it, and its new container hangs."""
    said = {"scope": f"service:{SERVICE}", "who": "drill", "reason": "deploying", "for_seconds": 600}
    pause = stack.api("/api/v1/pauses", said)["pause"]["id"]
    stack.compose("up", "--detach", "--wait", "--no-build", "--no-deps", "--force-recreate", SERVICE)
    try:
        with frozen(stack, story):
            story.notes["fault"] = f"{SERVICE} is being deployed (pause {pause}), and its new container hangs"
            yield
    finally:
        stack.compose("restart", "--timeout", "5", SERVICE, check=False)


def inspect_restarted(stack: Stack, story: Story) -> list[Finding]:
    """Restarted once, healthy by the engine's word, and nobody else was."""
    before, now = float(story.notes["started_at"]), started_at(stack, SERVICE)
    count, others = story.restarted(SERVICE), story.others_restarted(SERVICE)
    health = stack.inspect(SERVICE)["State"]["Health"]["Status"]
    story.times["effect"] = now
    return [
        Finding(f"{SERVICE} was restarted, once (Docker events)", count == 1, f"{count} restart events"),
        Finding("StartedAt is later than the fault", now > story.times["fault"] > before, f"{before:.0f} -> {now:.0f}"),
        Finding("it is healthy (engine)", health == "healthy", health),
        Finding("no other container was restarted", not others, ", ".join(others) or "none"),
    ]


def inspect_untouched(stack: Stack, story: Story) -> list[Finding]:
    """As it was, also some looks later, and people have the alert."""
    people = people_know(stack, story, *ALERTS)
    before, now = float(story.notes["started_at"]), started_at(stack, SERVICE)
    count = story.restarted(SERVICE)
    return [
        Finding(f"{SERVICE} was not restarted (StartedAt)", now == before, f"{before:.0f} -> {now:.0f}"),
        Finding("no restart event", count == 0, f"{count} restart events"),
        *people,
    ]


RUNBOOK = "container-unhealthy"
ALERTS = ("ContainerUnhealthy",)
HEALS = Drill(RUNBOOK, "The compliance engine is frozen", RUNBOOK, ALERTS, frozen, inspect_restarted)
UNTOUCHED = Drill(
    f"{RUNBOOK}-somebody-at-work",
    "Somebody works inside the frozen engine: left alone",
    RUNBOOK,
    ALERTS,
    frozen_by_somebody,
    inspect_untouched,
    expect=("target_exec_running",),
    until=LEFT_ALONE,
    untouched=True,
    meanwhile=refused_as("target_exec_running"),
)
DEPLOYED = Drill(
    f"{RUNBOOK}-being-deployed",
    "The frozen engine is being deployed: left alone",
    RUNBOOK,
    ALERTS,
    frozen_in_deployment,
    inspect_untouched,
    expect=("paused",),
    until=LEFT_ALONE,
    untouched=True,
    meanwhile=refused_as("paused"),
)
DRILLS = (HEALS, UNTOUCHED, DEPLOYED)
