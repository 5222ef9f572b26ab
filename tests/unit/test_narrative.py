"""What people read: every event has a sentence, and the state of an episode has one too."""

from __future__ import annotations

import pytest

from remediator.events import Kind
from remediator.narrative import after, line, not_acted, why
from remediator.reason_words import WORDS, words
from remediator.reasons import Reason
from tests.unit.cases import NOW, History

HEALED = (
    History(NOW - 300)
    .diagnosed(NOW - 299)
    .intent(NOW - 270)
    .outcome(NOW - 268)
    .add(
        Kind.PROVING,
        NOW - 260,
        attempt="a1",
        good_since=NOW - 260,
        checks=[],
        probe="healthy",
        sentence="Good so far.",
    )
    .verdict(NOW - 140, "fixed")
    .add(Kind.CLOSED, NOW - 100, reason="cleared", sentence="The rule is not true any more.")
)


def test_every_kind_of_event_has_a_sentence() -> None:
    """A kind that is added without words is found here and not by a person at night."""
    more: dict[Kind, dict[str, object]] = {
        Kind.OBSERVED: {"alert": {"status": "resolved"}},
        Kind.CLAIMED: {"owner": "b", "epoch": 2},
        Kind.MATCHED: {"runbook": "engine-slow", "digest": "d"},
        Kind.REFUSED: {"reason": "cooldown", "sentence": "Too soon.", "earliest": None, "rung": "mild"},
        Kind.WOULD_ACT: {
            "rung": "mild",
            "action": "restart_service",
            "resource": "r",
            "summary": "restart it",
        },
        Kind.NEEDS_APPROVAL: {
            "rung": "mild",
            "action": "restart_service",
            "resource": "r",
            "summary": "restart it",
        },
        Kind.ALLOWED: {"rung": "mild", "waits": "needs_approval"},
        Kind.APPROVED: {"approval": "a", "who": "ada", "reason": ""},
        Kind.DECLINED: {"approval": "a", "who": "ada", "reason": "not now"},
        Kind.SETTLED: {"attempt": "a1", "settlement": "done", "detail": "seen", "by": "target"},
        Kind.HANDED_OVER: {
            "reason": "x",
            "sentence": "Look.",
            "alertname": "RemediationFailed",
            "severity": "P2",
        },
    }
    more |= {
        Kind.PAUSED: {"pause": 1, "scope": "all", "who": "ada", "reason": "deploying", "until": NOW},
        Kind.RESUMED: {"pause": 1, "who": "ada"},
        Kind.STORM_BEGAN: {"storm": 1, "open": 12},
        Kind.STORM_ENDED: {"storm": 1, "most": 12, "by": "calm", "reason": ""},
        Kind.DEMOTED: {"runbook": "engine-slow", "why": "3 of its last 10 attempts were not proven fixed."},
        Kind.RESTORED: {"runbook": "engine-slow", "who": "ada", "reason": "mended"},
        Kind.PROMOTED: {
            "runbook": "engine-slow",
            "from": "shadow",
            "to": "approve",
            "who": "ada",
            "reason": "watched it for a month",
            "despite": "",
        },
        Kind.NOT_TAKEN: {
            "what": "approve",
            "of": "a",
            "episode": "e",
            "who": "ada",
            "code": "answered",
            "sentence": "bob has declined it before: not now",
        },
    }
    events = [*HEALED.events]
    for kind, data in more.items():
        events += History().add(kind, NOW, **data).events[1:]
    assert {event.kind for event in events} == set(Kind)
    for event in events:
        assert line(event).endswith("."), line(event)
        assert ".." not in line(event)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (History(), "Deciding: Alert EngineSlow firing for service=engine; runbook engine-slow."),
        (
            History().add(
                Kind.REFUSED,
                NOW,
                reason="cooldown",
                sentence="It was acted on 5m ago.",
                earliest=NOW + 90,
                rung="mild",
            ),
            "Not acting (cooldown): It was acted on 5m ago. Decided again in 1m30s.",
        ),
        (
            History().intent(NOW - 5),
            "Acting now: restart_service on docker:prep/engine, at most 15s more.",
        ),
        (
            History().intent(NOW - 60),
            (
                "Attempt a1 (restart_service on docker:prep/engine) is in doubt: it may have taken effect. Nothing "
                "else is done there until the target or a person settles it (prepctl doubts:settle)."
            ),
        ),
        (
            History().intent(NOW - 60).outcome(NOW - 50),
            "Proving for 50s that restart_service on docker:prep/engine helped.",
        ),
        (History().intent(NOW - 60).outcome(NOW - 50).verdict(NOW - 5, "fixed"), "Proven fixed. s."),
        (
            History().add(
                Kind.WOULD_ACT,
                NOW,
                rung="mild",
                action="restart_service",
                resource="docker:prep/engine",
                summary="restart engine.",
            ),
            "Shadow: would restart_service on docker:prep/engine: restart engine.",
        ),
        (
            History().add(
                Kind.HANDED_OVER,
                NOW,
                reason="not_fixed",
                sentence="Tried all.",
                alertname="RemediationFailed",
                severity="P2",
            ),
            "People have it: Tried all.",
        ),
        (HEALED, "Closed (cleared): The rule is not true any more."),
    ],
)
def test_one_sentence_says_where_it_stands(history: History, expected: str) -> None:
    """The answer to "what is it doing, and why not more?"."""
    assert why(history.events, NOW) == expected


def test_an_alert_that_comes_again_does_not_hide_the_reason() -> None:
    """Alertmanager repeats itself; why nothing was done stays the answer."""
    history = History().add(
        Kind.WOULD_ACT, NOW - 9, rung="mild", action="restart_service", resource="r", summary="restart it."
    )
    history.add(Kind.OBSERVED, NOW, alert=history.events[0].data["alert"])
    assert why(history.events, NOW) == "Shadow: would restart_service on r: restart it."


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "+0s"), (0.25, "+250ms"), (95.0, "+1m35s"), (-3.0, "-3s")])
def test_time_since_the_first_event(seconds: float, text: str) -> None:
    """Also before it, when a clock went back."""
    assert after(seconds) == text


WOULD = {"rung": "mild", "action": "restart_service", "resource": "r", "summary": "restart engine."}
COOLING = {"reason": "cooldown", "sentence": "It was acted on 5m ago.", "earliest": None, "rung": "mild"}
GIVEN = {"reason": "not_fixed", "sentence": "Tried all.", "alertname": "RemediationFailed", "severity": "P2"}
CLEARED = {"reason": "cleared", "sentence": "The rule is not true any more."}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (HEALED, None),
        (History().intent(NOW - 60), None),  # it may have taken effect
        (History().intent(NOW - 60).outcome(NOW - 50, "in_doubt"), None),
        (History(), "Nothing was done so far: there was nothing decided yet."),
        (
            History().add(Kind.REFUSED, NOW, **COOLING),
            "Nothing was done so far: this target was acted on a short while ago (It was acted on 5m ago).",
        ),
        (
            History().add(Kind.REFUSED, NOW, **COOLING).add(Kind.CLOSED, NOW, **CLEARED),
            (
                "Nothing was done: this target was acted on a short while ago (It was acted on 5m ago); "
                "it ended so: The rule is not true any more."
            ),
        ),
        (
            History().add(Kind.WOULD_ACT, NOW, **WOULD).add(Kind.CLOSED, NOW, **CLEARED),
            (
                "Nothing was done: it may only watch here, not act; it would have done this: restart engine; "
                "it ended so: The rule is not true any more."
            ),
        ),
        (
            History().add(Kind.NEEDS_APPROVAL, NOW, **WOULD),
            "Nothing was done so far: a person must approve it first, and it was not used (restart engine).",
        ),
        (
            History()
            .add(Kind.NEEDS_APPROVAL, NOW, **WOULD)
            .add(Kind.DECLINED, NOW, approval=f"{2:032x}", who="ada", reason="Not tonight."),
            "Nothing was done so far: ada declined it (Not tonight).",
        ),
        (
            History().add(Kind.HANDED_OVER, NOW, **GIVEN),
            "Nothing was done so far: it was handed to people (Tried all).",
        ),
        (
            History().intent(NOW - 60).outcome(NOW - 50, "failed"),
            "Nothing was done so far: restart engine was tried and did not begin (said so).",
        ),
    ],
)
def test_one_sentence_says_why_nothing_was_done(history: History, expected: str | None) -> None:
    """The answer to "why did you not act?", and none where it has acted or may have."""
    assert not_acted(history.events) == expected


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_plain_words(reason: Reason) -> None:
    """They complete "nothing was done, since ...": no word of the program, no end of a sentence."""
    history = History().add(Kind.REFUSED, NOW, reason=reason, sentence="The value.", earliest=None, rung="mild")
    said = WORDS[reason]
    assert not_acted(history.events) == f"Nothing was done so far: {said} (The value)."
    assert said[0].islower() or said.startswith("Redis")
    assert not said.endswith(".")
    assert "_" not in said


def test_a_reason_of_another_version_is_its_own_word() -> None:
    """A journal outlives programs: what it says is told, never an error."""
    assert words("moon_is_full") == "moon is full"
