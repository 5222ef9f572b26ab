"""Drills of the runbook high-database-cpu: a person's report burns a core of the primary."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from demo.drills.base import Drill, Finding, Story
from demo.stack import Stack, end, first_json


@contextmanager
def runaway_query(stack: Stack, story: Story, *options: str) -> Iterator[None]:
    """A reading query that burns a core on the primary, in a session of its own."""
    process = stack.start_fault("runaway-query", "--seconds", "300", *options)
    said = first_json(process, ("pid", "backend_start"))
    story.times["fault"] = time.time()
    story.notes["fault"] = f"a reading query burns a core, pid {said['pid']}"
    story.notes["pid"] = str(said["pid"])
    story.notes["backend_start"] = str(said["backend_start"])
    try:
        yield
    finally:
        stack.fault("stop-queries")
        end(process)


_ENDED = re.compile(
    r"\[(\d+)\] .*(canceling statement due to user request|terminating connection due to administrator command)"
)


def ended_sessions(stack: Stack, since: float) -> list[tuple[int, str]]:
    """(pid, how) of every session that somebody cancelled or terminated since then, by PostgreSQL's own log."""
    return [(int(pid), how) for pid, how in _ENDED.findall(stack.logs("postgres", since))]


def inspect_query(stack: Stack, story: Story) -> list[Finding]:
    """The pid's query is gone by PostgreSQL's own word, and nobody else was touched."""
    pid = int(story.notes["pid"])
    still = stack.sql(
        f"select count(*) from pg_stat_activity where pid = {pid} and backend_start = '{story.notes['backend_start']}'"  # noqa: S608
        " and state = 'active'"
    )
    ended = ended_sessions(stack, story.times["fault"])
    return [
        Finding("the runaway query is gone (pg_stat_activity)", still == "0", f"{still} active with pid {pid}"),
        Finding("it was ended, once (server log)", [one for one, _ in ended].count(pid) == 1, f"{ended}"),
        Finding("no other session was touched (server log)", all(one == pid for one, _ in ended), f"{ended}"),
    ]


def inspect_query_untouched(stack: Stack, story: Story) -> list[Finding]:
    """Shadow: the query still runs and nobody was touched."""
    pid = int(story.notes["pid"])
    still = stack.sql(f"select count(*) from pg_stat_activity where pid = {pid} and state = 'active'")  # noqa: S608
    ended = ended_sessions(stack, story.times["fault"])
    return [
        Finding("the query still runs (pg_stat_activity)", still == "1", f"{still} active with pid {pid}"),
        Finding("no session was touched (server log)", not ended, f"{ended}"),
    ]


RUNBOOK = "high-database-cpu"
ALERTS = ("DatabaseLongRunningQuery", "DatabaseCpuHigh", "DatabaseCpuSaturated")

HEALS = Drill(RUNBOOK, "A runaway query burns the database", RUNBOOK, ALERTS, runaway_query, inspect_query)
SHADOW = Drill(
    f"{RUNBOOK}-shadow",
    "Shadow: the runaway query is left alone",
    RUNBOOK,
    ALERTS,
    runaway_query,
    inspect_query_untouched,
    expect=("would_act",),
    until="would_act",
    mode="shadow",
)
DRILLS = (HEALS, SHADOW)
