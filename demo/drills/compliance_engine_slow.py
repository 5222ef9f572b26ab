"""Drills of the runbook compliance-engine-slow: the engine leaks its sessions, and only a restart brings them back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from demo.drills.base import Drill, Finding, Story, paged, started_at
from demo.stack import Stack, end, wait_for


@contextmanager
def leaked_sessions(stack: Stack, story: Story) -> Iterator[None]:
    """Clients that hang up in the middle of a check: three of four engine sessions are never given back."""
    story.notes["started_at"] = str(started_at(stack, "python-compliance"))
    story.times["fault"] = time.time()
    said = stack.fault("leak-sessions", "--count", "3")
    story.notes["fault"] = f"three of four engine sessions leaked {said[-1] if said else ''}"
    yield


@contextmanager
def leaked_and_poisoned(stack: Stack, story: Story) -> Iterator[None]:
    """The same, and a malformed rule that nobody notices until the next start: the restart kills the service."""
    stack.fault("poison-rule")
    try:
        with leaked_sessions(stack, story):
            yield
    finally:
        stack.fault("unpoison-rule")
        stack.compose(
            "up", "--detach", "--wait", "--no-build", "--no-deps", "--force-recreate", "python-compliance", check=False
        )


@contextmanager
def leaked_again(stack: Stack, story: Story) -> Iterator[None]:
    """The same, and again 25 seconds after the service is back: good by then, and ill again within the hold time."""
    process = stack.start_fault("slow-again", "--after", "25")
    try:
        with leaked_sessions(stack, story):
            yield
    finally:
        end(process)
        stack.compose("restart", "--timeout", "5", "python-compliance", check=False)


def fast_checks_since(stack: Stack, at: float) -> int:
    """Checks that began and finished after a moment, in under five seconds, by the platform's own table."""
    statement = (
        "select count(*) from compliance_checks where finished_at is not null"  # noqa: S608 - a number of ours
        f" and created_at > to_timestamp({at:.6f}) and finished_at - created_at < interval '5 seconds'"
    )
    return int(stack.sql(statement))


def inspect_restart(stack: Stack, story: Story) -> list[Finding]:
    """One restart by the engine's events, through the gate, and real checks are fast again under load."""
    before, now = float(story.notes["started_at"]), started_at(stack, "python-compliance")
    count = story.restarted("python-compliance")
    story.times["effect"] = now
    fast = wait_for("50 fast checks after the restart", lambda: (n := fast_checks_since(stack, now)) >= 50 and n, 60)
    others = story.others_restarted("python-compliance")
    return [
        Finding("python-compliance was restarted, once (Docker events)", count == 1, f"{count} restart events"),
        Finding("StartedAt is later than the fault", now > story.times["fault"] > before, f"{before:.0f} -> {now:.0f}"),
        Finding("at least 50 checks under 5 s since (database)", fast >= 50, f"{fast} checks"),
        Finding("no other container was restarted", not others, ", ".join(others) or "none"),
    ]


def inspect_restart_only(stack: Stack, story: Story) -> list[Finding]:
    """Exactly one restart, however it ended, and people were told."""
    count = story.restarted("python-compliance")
    told = wait_for("the page in the people's inbox", lambda: paged(stack, story.times["fault"]), 90)
    return [
        Finding("python-compliance was restarted, once (Docker events)", count == 1, f"{count} restart events"),
        Finding("people were told (inbox)", bool(told), ", ".join(told)),
    ]


def inspect_untouched(stack: Stack, story: Story) -> list[Finding]:
    """Shadow: same StartedAt, no restart event."""
    before, now = float(story.notes["started_at"]), started_at(stack, "python-compliance")
    count = story.restarted("python-compliance")
    stack.compose("restart", "--timeout", "5", "python-compliance", check=False)
    return [
        Finding("python-compliance was not restarted (StartedAt)", now == before, f"{before:.0f} -> {now:.0f}"),
        Finding("no restart event", count == 0, f"{count} restart events"),
    ]


RUNBOOK = "compliance-engine-slow"
ALERTS = ("ComplianceChecksSlow", "ComplianceStalled")

HEALS = Drill(RUNBOOK, "The compliance engine leaks its sessions", RUNBOOK, ALERTS, leaked_sessions, inspect_restart)
DIES = Drill(
    "compliance-engine-dies",
    "The restarted engine does not come back",
    RUNBOOK,
    ALERTS,
    leaked_and_poisoned,
    inspect_restart_only,
    expect=("unknown", "worse"),
    until="handed_over",
    seconds=240,
)
RETURNS = Drill(
    "compliance-fault-returns",
    "The fault is back within the hold time",
    RUNBOOK,
    ALERTS,
    leaked_again,
    inspect_restart_only,
    expect=("not_fixed",),
    until="handed_over",
    seconds=240,
)
SHADOW = Drill(
    f"{RUNBOOK}-shadow",
    "Shadow: the slow engine is left alone",
    RUNBOOK,
    ALERTS,
    leaked_sessions,
    inspect_untouched,
    expect=("would_act",),
    until="would_act",
    mode="shadow",
)
DRILLS = (HEALS, DIES, RETURNS, SHADOW)
