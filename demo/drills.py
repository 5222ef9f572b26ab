"""Drills: a fault put in on purpose, what must come of it, and how that is read at the target.

A drill knows nothing of the terminal. `run` puts the fault in, follows the chain until the episode has come to its
end, then asks the target what really happened. Times come from Prometheus (first firing), from the journal
(webhook, intent, outcome, verdict) and from the target (StartedAt, PostgreSQL's log); effects are counted at the
target only.
"""

from __future__ import annotations

import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from demo.stack import Restarts, Stack, StackError, end, first_json, wait_for

STEPS = ("fault", "firing", "webhook", "evidence", "intent", "effect", "proving", "verdict", "closed")
Json = Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that had to be so, read at the target."""

    what: str
    holds: bool
    seen: str


@dataclass
class Story:
    """What happened so far: step -> UNIX seconds, sentences for the terminal, findings at the end."""

    drill: str
    times: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    episode: str = ""
    findings: list[Finding] = field(default_factory=list)
    restarts: Restarts | None = None
    error: str = ""

    def restarted(self, service: str) -> int:
        """Restart events of a service since the fault, by the engine's own word."""
        return self.restarts.count(service) if self.restarts else 0

    @property
    def ended(self) -> str:
        """The verdict, what it was handed over for, or that it would have acted."""
        for event in reversed(self.events):
            if event["kind"] == "verdict":
                return str(event["data"]["verdict"])
            if event["kind"] == "handed_over":
                return str(event["data"]["reason"])
        return "would_act" if any(event["kind"] == "would_act" for event in self.events) else ""

    def since_fault(self, step: str) -> float | None:
        """Seconds from the fault to a step, None when it has not happened."""
        return self.times[step] - self.times["fault"] if step in self.times else None

    def report(self, settle: float) -> Json:
        """The drill's part of report.json."""
        intent, webhook = self.times.get("intent"), self.times.get("webhook")
        return {
            "drill": self.drill,
            "episode": self.episode,
            "ended": self.ended,
            "seconds_since_fault": {
                step: round(self.since_fault(step) or 0.0, 3) for step in STEPS if step in self.times
            },
            "at": {step: self.times[step] for step in STEPS if step in self.times},
            "webhook_to_intent_seconds": round(intent - webhook, 3) if intent and webhook else None,
            "settle_seconds": settle,
            "findings": [{"what": found.what, "holds": found.holds, "seen": found.seen} for found in self.findings],
            "error": self.error,
        }


@dataclass(frozen=True)
class Drill:
    """One fault. `expect` is how the story must end; `until` the last step to wait for; `inspect` asks the target."""

    name: str
    title: str
    alertnames: tuple[str, ...]
    inject: Callable[[Stack, Story], AbstractContextManager[None]]
    inspect: Callable[[Stack, Story], list[Finding]]
    expect: tuple[str, ...] = ("fixed",)
    until: str = "closed"
    seconds: float = 150.0


def run(drill: Drill, stack: Stack, told: Callable[[Story], None]) -> Story:
    """Put the fault in and follow it to its end. `told` hears of every change. The fault is always taken out."""
    story = Story(drill.name, restarts=Restarts())
    try:
        with drill.inject(stack, story):
            told(story)
            deadline = time.monotonic() + drill.seconds
            while drill.until not in story.times and time.monotonic() < deadline:
                if _follow(drill, stack, story):
                    told(story)
                time.sleep(0.5)
            story.findings = drill.inspect(stack, story)
    except (StackError, OSError) as error:
        story.error = str(error)
    finally:
        if story.restarts:
            story.restarts.stop()
    _judge(drill, story)
    told(story)
    return story


def _judge(drill: Drill, story: Story) -> None:
    story.findings.insert(
        0, Finding(f"ended {' or '.join(drill.expect)}", story.ended in drill.expect, story.ended or "no end in time")
    )
    if drill.until not in story.times:
        story.findings.append(Finding(f"reached {drill.until}", False, f"not within {drill.seconds:.0f} s"))


def _follow(drill: Drill, stack: Stack, story: Story) -> bool:
    """Ask Prometheus and the journal once; True when something is new."""
    before = (len(story.times), len(story.events))
    since = story.times["fault"]
    if "firing" not in story.times and (at := first_firing(stack, drill.alertnames, since)):
        story.times["firing"] = at
    events = _episode(drill, stack, story, since)
    if events:
        story.events = events
        _read(story)
    return before != (len(story.times), len(story.events))


def first_firing(stack: Stack, alertnames: tuple[str, ...], since: float) -> float | None:
    """When Prometheus first had one of the alerts firing since then: the first sample of ALERTS, UNIX seconds."""
    names = "|".join(alertnames)
    window = max(10, int(time.time() - since) + 5)
    query = urllib.parse.quote(f'ALERTS{{alertname=~"{names}",alertstate="firing"}}[{window}s]')
    series = stack.get("prometheus", f"/api/v1/query?query={query}")["data"]["result"]
    return min((float(at) for one in series for at, _ in one["values"] if float(at) >= since), default=None)


def _episode(drill: Drill, stack: Stack, story: Story, since: float) -> list[Json]:
    """Events of the episode that acts (or would); until one does, of the first that was opened."""
    rows = stack.api("/api/v1/episodes?limit=50")["episodes"]
    best: list[Json] = []
    for row in rows:
        if row["opened_at"] < since - 1 or (story.episode and row["id"] != story.episode):
            continue
        events: list[Json] = stack.api(f"/api/v1/episodes/{row['id']}")["events"]
        if not events or events[0]["data"]["alert"]["labels"]["alertname"] not in drill.alertnames:
            continue
        if any(event["kind"] in ("intent", "would_act") for event in events):
            story.episode = row["id"]
            return events
        best = best or events
    return best


def _read(story: Story) -> None:
    """The journal's times; a step happens once, the first time counts."""
    for event in story.events:
        kind, data, at = event["kind"], event["data"], event["at"]
        match kind:
            case "opened":
                story.times["webhook"] = data.get("received_at", at)
            case "refused":
                story.notes["refused"] = data["sentence"]
            case "diagnosed":
                story.times.setdefault("evidence", at)
            case "intent":
                story.times.setdefault("intent", at)
                story.notes["intent"] = data["summary"]
            case "would_act":
                story.notes["intent"] = f"would {data['summary']}"
                story.times.setdefault("would_act", at)
            case "outcome" if data["result"] == "done":
                story.times.setdefault("effect", at)
                story.notes["effect"] = data["detail"]
            case "proving":
                story.times.setdefault("proving", at)
                story.notes["proving"] = data["sentence"]
            case "verdict":
                story.times["verdict"] = at
                story.notes["verdict"] = f"{data['verdict']}: {data['sentence']}"
            case "handed_over":
                story.times["handed_over"] = at
                story.notes["handed_over"] = data["sentence"]
            case "closed":
                story.times["closed"] = at
                story.notes["closed"] = data["sentence"]
            case _:
                continue


# -- the runaway query ------------------------------------------------------------------------------------


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


# -- the leaking compliance engine ------------------------------------------------------------------------


def started_at(stack: Stack, service: str) -> float:
    """The container's StartedAt, UNIX seconds."""
    text = stack.inspect(service)["State"]["StartedAt"]
    return datetime.fromisoformat(text).timestamp()


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
    others = story.restarts.others("python-compliance") if story.restarts else []
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


def paged(stack: Stack, since: float) -> list[str]:
    """Names of the remediator's own alerts that reached the people's inbox since then."""
    found = []
    for message in stack.get("inbox", "/api/messages"):
        if message["received"] < since:
            continue
        names = [alert["labels"]["alertname"] for alert in message.get("alerts", ())]
        found += [name for name in names if name.startswith("Remediation")]
    return sorted(set(found))


QUERY_ALERTS = ("DatabaseLongRunningQuery", "DatabaseCpuHigh", "DatabaseCpuSaturated")
COMPLIANCE_ALERTS = ("ComplianceChecksSlow", "ComplianceStalled")

DATABASE = Drill("high-database-cpu", "A runaway query burns the database", QUERY_ALERTS, runaway_query, inspect_query)
COMPLIANCE = Drill(
    "compliance-engine-slow",
    "The compliance engine leaks its sessions",
    COMPLIANCE_ALERTS,
    leaked_sessions,
    inspect_restart,
)
TOUR = (DATABASE, COMPLIANCE)

DIES = Drill(
    "compliance-engine-dies",
    "The restarted engine does not come back",
    COMPLIANCE_ALERTS,
    leaked_and_poisoned,
    inspect_restart_only,
    expect=("unknown", "worse"),
    until="handed_over",
    seconds=240,
)
RETURNS = Drill(
    "compliance-fault-returns",
    "The fault is back within the hold time",
    COMPLIANCE_ALERTS,
    leaked_again,
    inspect_restart_only,
    expect=("not_fixed",),
    until="handed_over",
    seconds=240,
)
SHADOW_DATABASE = Drill(
    "high-database-cpu-shadow",
    "Shadow: the runaway query is left alone",
    QUERY_ALERTS,
    runaway_query,
    inspect_query_untouched,
    expect=("would_act",),
    until="would_act",
)
SHADOW_COMPLIANCE = Drill(
    "compliance-engine-slow-shadow",
    "Shadow: the slow engine is left alone",
    COMPLIANCE_ALERTS,
    leaked_sessions,
    inspect_untouched,
    expect=("would_act",),
    until="would_act",
)
ALL = {drill.name: drill for drill in (*TOUR, DIES, RETURNS, SHADOW_DATABASE, SHADOW_COMPLIANCE)}
