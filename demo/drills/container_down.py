"""Drills of the runbook container-down: a service has ended, and its restart policy does not bring it back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from demo.drills.base import Drill, Finding, Story, started_at
from demo.drills.untouched import LEFT_ALONE, people_know, refused_as
from demo.stack import PROJECT, Stack, wait_for

SERVICE = "python-compliance"
CONTAINER = f"{PROJECT}-{SERVICE}-1"


@contextmanager
def crashed(stack: Stack, story: Story) -> Iterator[None]:
    """A malformed rule ends the service at its next start; somebody has mended the rule, and nobody has set the restart
    policy that would bring the service back.
    """
    container = stack.docker.containers.get(CONTAINER)
    _policy(stack, "no")
    stack.fault("poison-rule")
    try:
        container.restart(timeout=5)
        wait_for(f"{SERVICE} to end", lambda: stack.inspect(SERVICE)["State"]["Status"] == "exited", 30)
    finally:
        stack.fault("unpoison-rule")
    _begin(stack, story, "ended by a malformed rule, mended since; no restart policy")
    try:
        yield
    finally:
        _as_before(stack)


@contextmanager
def stopped(stack: Stack, story: Story) -> Iterator[None]:
    """A person takes the service out, for a deployment perhaps. To the alert it looks alike."""
    stack.compose("stop", "--timeout", "10", SERVICE)
    _begin(stack, story, "stopped by a person")
    try:
        yield
    finally:
        _as_before(stack)


def _begin(stack: Stack, story: Story, what: str) -> None:
    state = stack.inspect(SERVICE)["State"]
    story.notes["fault"] = f"{SERVICE} {what} (exit code {state['ExitCode']})"
    story.notes["started_at"] = str(started_at(stack, SERVICE))
    story.notes["starts"] = str(story.seen.count("start", SERVICE) if story.seen else 0)
    story.times["fault"] = time.time()


def _policy(stack: Stack, name: str) -> None:
    policy: Any = {"Name": name}  # the SDK's type of it is private
    stack.docker.containers.get(CONTAINER).update(restart_policy=policy)


def _as_before(stack: Stack) -> None:
    _policy(stack, "unless-stopped")
    stack.compose("start", SERVICE, check=False)


def starts(story: Story) -> int:
    """How often it was started since the fault, by the engine's own word."""
    return (story.seen.count("start", SERVICE) if story.seen else 0) - int(story.notes["starts"])


def inspect_started(stack: Stack, story: Story) -> list[Finding]:
    """Started once, well, and nobody else was."""
    before, now = float(story.notes["started_at"]), started_at(stack, SERVICE)
    state = stack.inspect(SERVICE)["State"]
    story.times["effect"] = now
    return [
        Finding(f"{SERVICE} was started, once (Docker events)", starts(story) == 1, f"{starts(story)} start events"),
        Finding("StartedAt is later than the fault", now > story.times["fault"] > before, f"{before:.0f} -> {now:.0f}"),
        Finding("it is healthy (engine)", state["Health"]["Status"] == "healthy", state["Health"]["Status"]),
    ]


def inspect_untouched(stack: Stack, story: Story) -> list[Finding]:
    """Still as the person left it, also some looks later, and people have the alert."""
    people = people_know(stack, story, *ALERTS)
    before, now = float(story.notes["started_at"]), started_at(stack, SERVICE)
    status = stack.inspect(SERVICE)["State"]["Status"]
    return [
        Finding(f"{SERVICE} is still stopped (engine)", status == "exited", status),
        Finding("StartedAt is as it was", now == before, f"{before:.0f} -> {now:.0f}"),
        Finding("no start event", starts(story) == 0, f"{starts(story)} start events"),
        *people,
    ]


RUNBOOK = "container-down"
ALERTS = ("ContainerDown",)
HEALS = Drill(RUNBOOK, "The compliance engine has ended", RUNBOOK, ALERTS, crashed, inspect_started)
UNTOUCHED = Drill(
    f"{RUNBOOK}-stopped-by-a-person",
    "A person has stopped the compliance engine: left alone",
    RUNBOOK,
    ALERTS,
    stopped,
    inspect_untouched,
    expect=("target_stopped",),
    until=LEFT_ALONE,
    untouched=True,
    meanwhile=refused_as("target_stopped"),
)
DRILLS = (HEALS, UNTOUCHED)
