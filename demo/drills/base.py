"""What a drill is: a fault put in on purpose, what must come of it, and how that is read at the target.

The drills themselves stand beside, a file a symptom; registry.py lists them. A drill knows nothing of the terminal.
`run` puts the fault in, follows the chain until the episode has come to its end, then asks the target what really
happened. Times come from Prometheus (first firing), from the journal (webhook, intent, outcome, verdict) and from the
target (StartedAt, PostgreSQL's log); effects are counted at the target only.
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from demo.stack import EngineEvents, Stack, StackError

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
    alert: str = ""
    findings: list[Finding] = field(default_factory=list)
    seen: EngineEvents | None = None
    error: str = ""

    def restarted(self, service: str) -> int:
        """Restart events of a service since the fault, by the engine's own word."""
        return self.seen.count("restart", service) if self.seen else 0

    def others_restarted(self, *services: str) -> list[str]:
        """Containers of other services that were restarted since the fault."""
        return self.seen.others("restart", *services) if self.seen else []

    @property
    def ended(self) -> str:
        """The verdict, what it was handed over for, that it would have acted, or what it was refused for last."""
        for event in reversed(self.events):
            if event["kind"] == "verdict":
                return str(event["data"]["verdict"])
            if event["kind"] == "handed_over":
                return str(event["data"]["reason"])
        if any(event["kind"] == "would_act" for event in self.events):
            return "would_act"
        return next((str(e["data"]["reason"]) for e in reversed(self.events) if e["kind"] == "refused"), "")

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
    """One fault.

    name        of the drill, unique
    runbook     whose remediation it tries
    alertnames  alerts that it makes; the episode of one of them is followed
    inject      puts the fault in, sets `story.times["fault"]`, and takes it out again
    inspect     asks the target what really happened
    expect      how the story may end: a verdict, or the reason of the hand-over
    until       the last step to wait for
    seconds     for all of it
    mode        of the remediator while it runs
    untouched   a negative drill: it looks alike, and must not be touched
    meanwhile   called at each look: a person's part, an approval for instance
    adapt       changes the rendered configuration for this drill alone; given the folder, before the stack starts
    shipped     runs on the shipped durations, not on the demo's
    """

    name: str
    title: str
    runbook: str
    alertnames: tuple[str, ...]
    inject: Callable[[Stack, Story], AbstractContextManager[None]]
    inspect: Callable[[Stack, Story], list[Finding]]
    expect: tuple[str, ...] = ("fixed",)
    until: str = "closed"
    seconds: float = 150.0
    mode: str = "auto"
    untouched: bool = False
    meanwhile: Callable[[Stack, Story], None] | None = None
    adapt: Callable[[Path], None] | None = None
    shipped: bool = False


def run(drill: Drill, stack: Stack, told: Callable[[Story], None]) -> Story:
    """Put the fault in and follow it to its end. `told` hears of every change. The fault is always taken out."""
    story = Story(drill.name, seen=EngineEvents())
    try:
        with drill.inject(stack, story):
            told(story)
            deadline = time.monotonic() + drill.seconds
            while drill.until not in story.times and time.monotonic() < deadline:
                if _follow(drill, stack, story):
                    told(story)
                if drill.meanwhile:
                    drill.meanwhile(stack, story)
                time.sleep(0.5)
            story.findings = drill.inspect(stack, story)
    except (StackError, OSError) as error:
        story.error = str(error)
    finally:
        if story.seen:
            story.seen.stop()
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
                story.alert = data["alert"]["labels"]["alertname"]
            case "refused":
                story.times.setdefault("refused", at)
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


def started_at(stack: Stack, service: str) -> float:
    """The container's StartedAt, UNIX seconds."""
    text = stack.inspect(service)["State"]["StartedAt"]
    return datetime.fromisoformat(text).timestamp()


def paged(stack: Stack, since: float) -> list[str]:
    """Names of the remediator's own alerts that reached the people's inbox since then."""
    found = []
    for message in stack.get("inbox", "/api/messages"):
        if message["received"] < since:
            continue
        names = [alert["labels"]["alertname"] for alert in message.get("alerts", ())]
        found += [name for name in names if name.startswith("Remediation")]
    return sorted(set(found))
