"""Drills of the runbook replica-not-streaming: the replica's receiver hangs; alike from outside, it was promoted, or
the primary hangs. One of them runs on the shipped durations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from demo.drills.base import Drill, Finding, Story, started_at
from demo.drills.untouched import LEFT_ALONE, people_know, refused_as
from demo.stack import PROJECT, Stack, wait_for

REPLICA, PRIMARY = "postgres-replica", "postgres"


def ask(stack: Stack, service: str, statement: str) -> str:
    """One value from a server, asked by its superuser inside its container; "" while it does not answer."""
    psql = ("psql", "-U", "postgres", "-d", "prepchef", "-AtX", "-c", statement)
    return stack.compose("exec", "-T", service, *psql, check=False).stdout.strip()


@contextmanager
def hung_receiver(stack: Stack, story: Story) -> Iterator[None]:
    """The process that receives WAL is stopped: the server answers on, nothing reaches it, only its end heals that."""
    pid = wait_for("the replica to stream", lambda: ask(stack, REPLICA, "select pid from pg_stat_wal_receiver"), 60)
    story.notes["started_at"] = str(started_at(stack, REPLICA))
    story.notes["primary"] = ask(stack, PRIMARY, "select pg_postmaster_start_time()")
    story.times["fault"] = time.time()
    stack.compose("exec", "-T", REPLICA, "bash", "-c", f"kill -STOP {int(pid)}")
    story.notes["fault"] = f"the replica's WAL receiver hangs, pid {pid}"
    yield


@contextmanager
def promoted(stack: Stack, story: Story) -> Iterator[None]:
    """Somebody has made the replica a primary. From outside it is a replica that streams no more."""
    wait_for("the replica to stream", lambda: ask(stack, REPLICA, "select pid from pg_stat_wal_receiver"), 60)
    story.notes["started_at"] = str(started_at(stack, REPLICA))
    story.times["fault"] = time.time()
    ask(stack, REPLICA, "select pg_promote(true, 20)")
    story.notes["fault"] = "the replica was promoted"
    yield


@contextmanager
def primary_hangs(stack: Stack, story: Story) -> Iterator[None]:
    """The primary hangs as a whole. What the replica shows is a symptom of that, and its restart would heal nothing."""
    wait_for("the replica to stream", lambda: ask(stack, REPLICA, "select pid from pg_stat_wal_receiver"), 60)
    story.notes["started_at"] = str(started_at(stack, REPLICA))
    story.notes["primary"] = str(started_at(stack, PRIMARY))
    container = stack.docker.containers.get(f"{PROJECT}-{PRIMARY}-1")
    story.times["fault"] = time.time()
    container.pause()
    story.notes["fault"] = "every process of the primary is frozen (docker pause)"
    try:
        yield
    finally:
        container.unpause()


def inspect_restart(stack: Stack, story: Story) -> list[Finding]:
    """One restart by the engine's events, the primary as it was, and what it writes arrives again."""
    before, now = float(story.notes["started_at"]), started_at(stack, REPLICA)
    story.times["effect"] = now
    streams = "select count(*) from pg_stat_replication where state = 'streaming'"
    wait_for("it to stream", lambda: ask(stack, PRIMARY, streams) == "1", 60)
    written = ask(stack, PRIMARY, "select pg_current_wal_flush_lsn()")
    replayed = f"select pg_last_wal_replay_lsn() >= '{written}'::pg_lsn"
    arrived = wait_for("the primary's position to be replayed", lambda: ask(stack, REPLICA, replayed) == "t", 60)
    count, others = story.restarted(REPLICA), story.others_restarted(REPLICA)
    primary = ask(stack, PRIMARY, "select pg_postmaster_start_time()")
    return [
        Finding(f"{REPLICA} was restarted, once (Docker events)", count == 1, f"{count} restart events"),
        Finding("StartedAt is later than the fault", now > story.times["fault"] > before, f"{before:.0f} -> {now:.0f}"),
        Finding("what the primary writes arrives (WAL position)", bool(arrived), written),
        Finding("the primary is the same (postmaster's start)", primary == story.notes["primary"], primary),
        Finding("no other container was restarted", not others, ", ".join(others) or "none"),
    ]


def inspect_untouched(stack: Stack, story: Story) -> list[Finding]:
    """The promoted server is as it was, takes writes, and people know of two primaries."""
    people = people_know(stack, story, "ReplicationTwoPrimaries", "ReplicaNotStreaming")
    before, now = float(story.notes["started_at"]), started_at(stack, REPLICA)
    count, standby = story.restarted(REPLICA), ask(stack, REPLICA, "select pg_is_in_recovery()")
    return [
        Finding(f"{REPLICA} was not restarted (StartedAt)", now == before, f"{before:.0f} -> {now:.0f}"),
        Finding("no restart event", count == 0, f"{count} restart events"),
        Finding("it takes writes still (pg_is_in_recovery)", standby == "f", standby),
        *people,
    ]


def inspect_symptom_left_alone(stack: Stack, story: Story) -> list[Finding]:
    """Neither the replica nor the primary nor anybody else was restarted, and people have the cause."""
    people = people_know(stack, story, "PostgresDown")
    before, now = float(story.notes["started_at"]), started_at(stack, REPLICA)
    primary, others = started_at(stack, PRIMARY), story.others_restarted()
    return [
        Finding(f"{REPLICA} was not restarted (StartedAt)", now == before, f"{before:.0f} -> {now:.0f}"),
        Finding("the primary was not either (StartedAt)", str(primary) == story.notes["primary"], f"{primary:.0f}"),
        Finding("no container was restarted (Docker events)", not others, ", ".join(others) or "none"),
        *people,
    ]


RUNBOOK = "replica-not-streaming"
ALERTS = ("ReplicaNotStreaming",)
REASONS = ("blocked_by_cause", "replica_promoted")

HEALS = Drill(RUNBOOK, "A replica's receiver hangs", RUNBOOK, ALERTS, hung_receiver, inspect_restart, seconds=240.0)
PROMOTED = Drill(
    "replica-promoted",
    "The replica that streams no more was promoted",
    RUNBOOK,
    ALERTS,
    promoted,
    inspect_untouched,
    expect=REASONS,
    until=LEFT_ALONE,
    untouched=True,
    meanwhile=refused_as(*REASONS),
)
CAUSE = Drill(
    "replica-cause-is-the-primary",
    "The replica streams no more because the primary hangs",
    RUNBOOK,
    ALERTS,
    primary_hangs,
    inspect_symptom_left_alone,
    expect=("blocked_by_cause",),
    until=LEFT_ALONE,
    untouched=True,
    meanwhile=refused_as("blocked_by_cause"),
)
SHIPPED = replace(
    HEALS,
    name=f"{RUNBOOK}-shipped-timing",
    title="A replica's receiver hangs, on the shipped durations",
    seconds=900.0,
    shipped=True,
)
DRILLS = (HEALS, PROMOTED, CAUSE, SHIPPED)
