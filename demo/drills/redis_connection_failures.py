"""Drills of the runbooks about Redis: a leak is closed and nobody else is, and sessions are not lost for a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from demo.drills.base import Drill, Finding, Story, paged, started_at
from demo.drills.untouched import LEFT_ALONE, people_know, refused_as
from demo.fault_redis import LEAKY
from demo.stack import PROJECT, Stack, end, first_json, wait_for

KEPT = 10
"""Connections of one source that the runbook leaves open (`keep`)."""
SESSIONS = 400
LASTING = 10
"""Seconds after which a connection is one that its client keeps: a look or a probe comes and goes."""


def redis(stack: Stack, *words: str) -> str:
    """One command, by redis-cli inside the container."""
    return stack.compose("exec", "-T", "redis", "redis-cli", *words).stdout


def connections(stack: Stack, min_age: int = 0) -> dict[int, str]:
    """Id to name of every client that has been there for `min_age` seconds, by Redis' own list.

    redis-cli itself and the health check are left out.
    """
    lines = [line for line in redis(stack, "CLIENT", "LIST").splitlines() if line.startswith("id=")]
    fields = [dict(word.split("=", 1) for word in line.split(" ") if "=" in word) for line in lines]
    fields = [one for one in fields if not one.get("lib-name", "").startswith("redis-cli")]
    return {int(one["id"]): one["name"] for one in fields if int(one["age"]) >= min_age}


@contextmanager
def leaked_connections(stack: Stack, story: Story) -> Iterator[None]:
    """A reporting client opens connections until three are left, and gives none back."""
    story.notes["started_at"] = str(started_at(stack, "redis"))
    exporters = [number for number, name in connections(stack).items() if name == "prep_exporter"]
    story.notes["exporter"] = ",".join(map(str, sorted(exporters)))
    story.times["fault"] = time.time()
    process = stack.start_fault("leak-redis", "--spare", "3", "--seconds", "240")
    try:
        said = first_json(process, ("connections", "most"))
        story.notes["fault"] = f"{said['connections']} of {said['most']} connections of Redis leaked"
        yield
    finally:
        end(process)


@contextmanager
def no_connection_left(stack: Stack, story: Story) -> Iterator[None]:
    """The same client takes every connection there is: whoever comes next is turned away, the remediator too."""
    story.notes["started_at"] = str(started_at(stack, "redis"))
    story.notes["kept"] = ",".join(map(str, sorted(connections(stack, LASTING))))
    story.times["fault"] = time.time()
    process = stack.start_fault("leak-redis", "--spare", "0", "--seconds", "240")
    try:
        said = first_json(process, ("connections", "most"))
        seen = stack.compose("exec", "-T", "redis", "redis-cli", "PING", check=False)
        story.notes["turned_away"] = (seen.stdout + seen.stderr).strip()
        story.notes["fault"] = f"{said['connections']} of {said['most']} connections of Redis leaked, none is left"
        yield
    finally:
        end(process)


@contextmanager
def frozen_with_sessions(stack: Stack, story: Story) -> Iterator[None]:
    """People are logged in, nothing is saved to disk, and Redis freezes: only a restart would bring it back."""
    stack.fault("put-sessions", "--count", str(SESSIONS))
    story.notes["started_at"] = str(started_at(stack, "redis"))
    container = stack.docker.containers.get(str(stack.inspect("redis")["Id"]))
    story.times["fault"] = time.time()
    container.kill(signal="SIGSTOP")
    story.notes["fault"] = f"Redis frozen (SIGSTOP) with {SESSIONS} sessions and no persistence"
    try:
        yield
    finally:
        container.kill(signal="SIGCONT")


@contextmanager
def exporter_cut_off(stack: Stack, story: Story) -> Iterator[None]:
    """The exporter alone loses the platform's network: to its alerts everything is down, and everything is well."""
    story.notes["started_at"] = str(started_at(stack, "redis"))
    network = stack.docker.networks.get(f"{PROJECT}_platform")
    container = stack.docker.containers.get(f"{PROJECT}-exporter-1")
    story.times["fault"] = time.time()
    network.disconnect(container)
    story.notes["fault"] = "the exporter is cut off from the platform's network, nobody else is"
    try:
        yield
    finally:
        network.connect(container, aliases=["exporter"])


def inspect_closed(stack: Stack, story: Story) -> list[Finding]:
    """Of the leak's connections those of the runbook are left; nobody else was closed, nothing was restarted."""
    now = connections(stack)
    leaked = sum(name == LEAKY for name in now.values())
    exporters = ",".join(str(number) for number, name in sorted(now.items()) if name == "prep_exporter")
    before, since = float(story.notes["started_at"]), started_at(stack, "redis")
    restarted = story.others_restarted()
    return [
        Finding(f"at most {KEPT} of the leaked connections are left (CLIENT LIST)", leaked <= KEPT, f"{leaked} left"),
        Finding(
            "the exporter's connection is the same one (its id)",
            bool(exporters) and exporters == story.notes["exporter"],
            f"{story.notes['exporter']} -> {exporters}",
        ),
        Finding("redis was not restarted (StartedAt)", since == before, f"{before:.0f} -> {since:.0f}"),
        Finding("no container was restarted", not restarted, ", ".join(restarted) or "none"),
    ]


def inspect_let_in_again(stack: Stack, story: Story) -> list[Finding]:
    """Nobody got in, now everybody does; only the leak's connections were closed, nothing was restarted."""
    now = connections(stack)
    leaked = sum(name == LEAKY for name in now.values())
    closed = {int(number) for number in story.notes["kept"].split(",")} - set(now)
    before, since = float(story.notes["started_at"]), started_at(stack, "redis")
    restarted, refused = story.others_restarted(), story.notes["turned_away"]
    return [
        Finding("Redis turned a new client away (PING by redis-cli)", "max number of clients" in refused, refused),
        Finding(f"at most {KEPT} of the leaked connections are left (CLIENT LIST)", leaked <= KEPT, f"{leaked} left"),
        Finding("who kept a connection before the leak still has it (by id)", not closed, f"{sorted(closed)} are gone"),
        Finding("redis was not restarted (StartedAt)", since == before, f"{before:.0f} -> {since:.0f}"),
        Finding("no container was restarted", not restarted, ", ".join(restarted) or "none"),
    ]


def inspect_sessions_kept(stack: Stack, story: Story) -> list[Finding]:
    """Same life, every session still there, and people were asked."""
    before, since = float(story.notes["started_at"]), started_at(stack, "redis")
    count = story.restarted("redis")
    told = wait_for("the page in the people's inbox", lambda: paged(stack, story.times["fault"]), 90)
    stack.docker.containers.get(str(stack.inspect("redis")["Id"])).kill(signal="SIGCONT")
    keys = wait_for("Redis to answer", lambda: redis(stack, "--scan", "--pattern", "session:*").split(), 30)
    return [
        Finding("redis was not restarted (StartedAt)", since == before, f"{before:.0f} -> {since:.0f}"),
        Finding("no restart event", count == 0, f"{count} restart events"),
        Finding("every session is still there", len(keys) == SESSIONS, f"{len(keys)} of {SESSIONS} keys"),
        Finding("people were asked (inbox)", "RemediationNeedsApproval" in told, ", ".join(told)),
    ]


def inspect_nothing_done(stack: Stack, story: Story) -> list[Finding]:
    """No intent in any episode, no container restarted, Redis answers, and people have the alerts."""
    people = people_know(stack, story, "RedisDown", "PostgresDown", "CollectorFailing")
    before, since = float(story.notes["started_at"]), started_at(stack, "redis")
    others, pong = story.others_restarted(), redis(stack, "PING").strip()
    return [
        Finding("redis was not restarted (StartedAt)", since == before, f"{before:.0f} -> {since:.0f}"),
        Finding("no container was restarted (Docker events)", not others, ", ".join(others) or "none"),
        Finding("Redis is well (PING)", pong == "PONG", pong),
        *people,
    ]


HEALS = Drill(
    "redis-connection-failures",
    "A client leaks its connections to Redis",
    "redis-connection-failures",
    ("RedisConnectionsHigh", "RedisRejectsConnections"),
    leaked_connections,
    inspect_closed,
)
EXHAUSTED = Drill(
    "redis-connections-exhausted",
    "Every connection to Redis is taken, and nobody gets in, the remediator neither",
    "redis-connection-failures",
    ("RedisConnectionsHigh", "RedisRejectsConnections"),
    no_connection_left,
    inspect_let_in_again,
    seconds=180,
)
KEEPS_SESSIONS = Drill(
    "redis-would-lose-sessions",
    "Redis is frozen, and a restart would log everybody out",
    "redis-down",
    ("RedisDown",),
    frozen_with_sessions,
    inspect_sessions_kept,
    expect=("approval_expired",),
    until="handed_over",
    seconds=180,
    untouched=True,
)
EXPORTER_BLIND = Drill(
    "redis-exporter-cut-off",
    "The exporter alone has lost the network: nothing is down",
    "redis-down",
    ("RedisDown",),
    exporter_cut_off,
    inspect_nothing_done,
    expect=("vantage_disagrees",),
    until=LEFT_ALONE,
    untouched=True,
    meanwhile=refused_as("vantage_disagrees"),
)
DRILLS = (HEALS, EXHAUSTED, KEEPS_SESSIONS, EXPORTER_BLIND)
