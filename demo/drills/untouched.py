"""What negative drills have in common: it was looked at, refused for a named reason, and people were told."""

from __future__ import annotations

import time
from collections.abc import Callable

from demo.drills.base import Finding, Story
from demo.stack import Stack, wait_for

LEFT_ALONE = "left_alone"
"""The step of a story at which the awaited refusal stands in the journal."""
WATCHED = 15.0  # seconds after that, in which nothing may happen either: several looks


def refused_as(*reasons: str) -> Callable[[Stack, Story], None]:
    """For `Drill.meanwhile`: notes when one of these reasons is what the journal says last."""

    def look(_: Stack, story: Story) -> None:
        refused = [event for event in story.events if event["kind"] == "refused"]
        if refused and refused[-1]["data"]["reason"] in reasons:
            story.times.setdefault(LEFT_ALONE, refused[-1]["at"])

    return look


def told(stack: Stack, since: float, *alertnames: str) -> list[str]:
    """Which of these alerts have reached the people's inbox since then."""
    messages = [message for message in stack.get("inbox", "/api/messages") if message["received"] >= since]
    names = {alert["labels"]["alertname"] for message in messages for alert in message.get("alerts", ())}
    return sorted(names & set(alertnames))


def people_know(stack: Stack, story: Story, *alertnames: str) -> list[Finding]:
    """After some more looks: no intent stands in the journal, and one of the alerts is with people."""
    time.sleep(WATCHED)
    since = story.times["fault"]
    rows = [row for row in stack.api("/api/v1/episodes?limit=50")["episodes"] if row["opened_at"] >= since - 1]
    kinds = [event["kind"] for row in rows for event in stack.api(f"/api/v1/episodes/{row['id']}")["events"]]
    intents = kinds.count("intent")
    found = wait_for("the alert in the people's inbox", lambda: told(stack, since, *alertnames), 90)
    return [
        Finding(
            "nothing was begun (journal)", bool(kinds) and not intents, f"{intents} intents in {len(rows)} episodes"
        ),
        Finding("people were told (inbox)", bool(found), ", ".join(found)),
    ]
