"""The comparison of a drill's journal with the backtest of its recording: what is equal, what is unknown, what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerting.matching import inhibitions
from backtest.pretended import ASSUMED, UNSEEN
from demo.drills.base import Story
from remediator.reasons import Reason
from tests.e2e.compare import One, Step, beside, compared, demanded, told

ROOT = Path(__file__).resolve().parents[2]
APART = 4.0
KNOWN = {
    Reason.NO_RUNBOOK,
    Reason.NO_TARGET,
    Reason.FOREIGN_ALERT,
    Reason.STALE_ALERT,
    Reason.SETTLING,
    Reason.RULE_UNKNOWN,
    Reason.RULE_CLEARED,
    Reason.BLOCKED_BY_CAUSE,
    Reason.TARGET_NOT_ALLOWED,
    Reason.TARGET_BUSY,
    Reason.COOLDOWN,
    Reason.RATE_LIMIT,
    Reason.STORM,
    Reason.RELEASING,
    Reason.RECURRENCE,
}
"""Reasons that a history shows as the living remediator sees them."""


def steps(*said: tuple[float, str]) -> tuple[Step, ...]:
    return tuple(Step(at, what) for at, what in said)


ACTED = steps((4, "intent restart"), (40, "verdict fixed"), (41, "closed fixed"))


def test_each_reason_is_known_or_stands_for_an_assumption() -> None:
    """A new reason must be sorted in: does a history show it?"""
    assert set(UNSEEN) | KNOWN == set(Reason)
    assert not set(UNSEEN) & KNOWN
    assert set(UNSEEN.values()) <= ASSUMED.keys()


def test_the_same_decisions_are_equal() -> None:
    """A little apart in time; how long the evidence took decides nothing."""
    here = steps((1, "refused settling"), (5, "intent restart"), (30, "verdict fixed"), (31, "closed fixed"))
    assert beside(ACTED, here, APART) == (["intent restart", "verdict fixed", "closed fixed"], "", [])


@pytest.mark.parametrize(
    "here",
    [
        (),
        ACTED[:2],
        steps((4, "intent start"), (40, "verdict fixed"), (41, "closed fixed")),
        steps((9, "intent restart"), (40, "verdict fixed"), (41, "closed fixed")),
        steps((4, "refused cooldown"), (41, "closed cleared")),
        steps((3, "refused cooldown"), (4, "intent restart"), (40, "verdict fixed"), (41, "closed fixed")),
        (*ACTED, Step(60, "handed_over not_fixed")),
    ],
)
def test_what_differs_is_wrong(here: tuple[Step, ...]) -> None:
    """Missing, another step, another time, another reason, another order, one too many."""
    _, unknown, wrong = beside(ACTED, here, APART)
    assert (unknown, len(wrong)) == ("", 1)


@pytest.mark.parametrize(
    ("there", "here", "equal", "unknown"),
    [
        # The target's own word: the backtest would have acted.
        (steps((4, "refused query_has_written")), ACTED, [], "target"),
        (steps((4, "refused vantage_disagrees"), (9, "closed cleared")), ACTED, [], "probe"),
        # It held back only before the settle time was over: nothing came of it.
        (steps((2, "refused target_young"), *((s.at, s.what) for s in ACTED)), ACTED, [s.what for s in ACTED], ""),
        # It held back longer than that.
        (steps((2, "refused target_young"), (20, "intent restart")), ACTED, [], "target"),
        # Asked or watched there, done here.
        (steps((4, "would_act restart")), ACTED, [], "mode"),
        (steps((4, "needs_approval restart")), ACTED, [], "mode"),
        # A person said yes.
        (
            steps((4, "needs_approval retry"), (9, "intent retry"), (50, "verdict fixed")),
            steps((4, "needs_approval retry"), (64, "handed_over approval_expired")),
            ["needs_approval retry"],
            "people",
        ),
        # The runbook's own proof said something else than the rule.
        (steps((4, "intent restart"), (40, "verdict unknown")), ACTED, ["intent restart"], "proof"),
        (steps((4, "intent restart"), (40, "verdict not_fixed")), ACTED[:1], ["intent restart"], "proof"),
        (steps((4, "intent restart")), ACTED, ["intent restart"], "proof"),
        (steps((4, "intent restart"), (40, "handed_over in_doubt")), ACTED, ["intent restart"], "effect"),
        (steps((4, "intent restart"), (40, "handed_over in_doubt")), ACTED[:1], ["intent restart"], "effect"),
    ],
)
def test_what_no_history_holds_is_unknown(
    there: tuple[Step, ...], here: tuple[Step, ...], equal: list[str], unknown: str
) -> None:
    """Told as such, and nothing after it is taken for equal."""
    assert beside(there, here, APART) == (equal, unknown, [])


@pytest.mark.parametrize(("later", "equal"), [(-5, False), (-3, True), (18, True), (20, False)])
def test_a_refusal_may_wait_for_its_look(later: float, equal: bool) -> None:
    """A target that hangs uses up the time of the look; an intent must come at its time all the same."""
    for what in ("refused blocked_by_cause", "needs_approval restart"):
        found, _, wrong = beside(steps((100 + later, what)), steps((100, what)), APART)
        assert (bool(found), bool(wrong)) == (equal, not equal)
    assert beside(steps((110, "intent restart")), steps((100, "intent restart")), APART)[2]


@pytest.mark.parametrize(("end", "missed"), [(100.0, False), (120.0, True)])
def test_what_is_decided_as_the_history_ends_is_not_missed_yet(end: float, missed: bool) -> None:
    """One side may say it a moment later than the other; a real difference lies longer ago."""
    refused = steps((90, "refused cooldown"))
    for there, here in ((refused, ()), ((), refused)):
        assert bool(beside(there, here, APART, end)[2]) is missed


def test_an_unseen_refusal_excuses_nothing_before_it() -> None:
    """What differs first is wrong, whatever comes later."""
    there = steps((4, "refused cooldown"), (20, "refused target_young"))
    _, unknown, wrong = beside(there, ACTED, APART)
    assert (unknown, len(wrong)) == ("", 1)


@pytest.mark.parametrize(
    ("told_events", "wanted"),
    [
        ([], set()),
        ([("refused", {"reason": "settling"}), ("intent", {"rung": "restart"})], {"intent restart"}),
        ([("refused", {"reason": "cooldown"}), ("intent", {"rung": "restart"})], {"refused cooldown"}),
        ([("refused", {"reason": "target_young"}), ("intent", {"rung": "restart"})], {"target", "intent restart"}),
        ([("refused", {"reason": "vantage_disagrees"})], {"probe"}),
        ([("would_act", {"rung": "restart"})], {"mode"}),
        ([("needs_approval", {"rung": "retry"}), ("intent", {"rung": "retry"})], {"needs_approval retry"}),
    ],
)
def test_it_must_have_come_to_something(told_events: list[tuple[str, dict[str, str]]], wanted: set[str]) -> None:
    """By the episode that the drill has followed: nothing to compare is no success."""
    story = Story("drill", events=[{"kind": kind, "data": data} for kind, data in told_events])
    assert demanded(story) == wanted


def test_what_another_alert_mutes_is_unknown() -> None:
    """It was never delivered there: Alertmanager's own rules say so, on what the history holds of both."""

    def fired(name: str, severity: str, at: float, ended_at: float) -> dict[str, Any]:
        labels = {"alertname": name, "severity": severity, "service": "a", "symptom": "slow"}
        labels |= {"environment": "demo"}
        said = {"alertname": name, "target": "service=a", "runbook": "slow", "labels": labels, "sentence": ""}
        return {**said, "fired_at": at, "ended_at": ended_at, "story": []}

    worse, muted, later = fired("Worse", "P1", 100, 160), fired("Slow", "P2", 100, 200), fired("Slow", "P2", 170, 200)
    rules = inhibitions(yaml.safe_load((ROOT / "alertmanager" / "alertmanager.yml").read_text())["inhibit_rules"])
    here = told({"shipped": {"episodes": [worse, muted, later]}}, rules)
    assert [one.inhibited for one in here] == [False, True, False]
    found = compared([here[0]], here, APART)
    assert found.unknown == {"Slow service=a (slow)": "silences"}
    assert len(found.wrong) == 1, "what fired after the other one's end was delivered"


def test_episodes_are_found_by_alert_target_and_time() -> None:
    """One that only one side has is wrong; after an unknown one the limits of its runbook are not known either."""
    one = One("Slow", "service=a", "slow", 100.0, ACTED)
    assert compared([one], [replace(one, fired_at=102.0)], APART).wrong == []
    for there, here in (([one], []), ([], [one]), ([one], [replace(one, fired_at=110.0)])):
        assert compared(there, here, APART).wrong
    held = replace(one, steps=steps((4, "refused target_young")))
    later = replace(one, target="service=b", fired_at=300.0, steps=steps((304, "intent restart")))
    cooling = replace(later, steps=steps((304, "refused rate_limit")))
    found = compared([held, later], [one, cooling], APART)
    assert (found.wrong, list(found.unknown.values())) == ([], ["target", "target"])
    assert len(compared([one, later], [one, cooling], APART).wrong) == 1
    for there, here in (([held, later], [one]), ([held], [one, later])):
        assert compared(there, here, APART).wrong == []
    earlier = replace(later, fired_at=50.0)
    for there, here in (([earlier, held], [one]), ([held], [earlier, one])):
        assert len(compared(there, here, APART).wrong) == 1


def test_two_that_fire_together_may_come_in_either_order() -> None:
    """Shadow holds no target; here the first one holds it and the second one waits. Which is first is chance."""
    busy = One("Busy", "service=a", "cpu", 100.0, steps((4, "would_act cancel"), (10, "closed cleared")))
    slow = replace(busy, alert="Slow")
    first = replace(slow, steps=steps((4, "intent cancel"), (12, "verdict fixed"), (13, "closed fixed")))
    second = replace(busy, steps=steps((4, "refused target_busy"), (10, "closed cleared")))
    for there in ([busy, slow], [slow, busy]):
        found = compared(there, [second, first], APART)
        assert found.wrong == []
        assert found.unknown == {slow.name: "mode", busy.name: "mode"}
    alone = replace(second, target="service=b", runbook="other")
    there = [replace(busy, target="service=b", runbook="other"), slow]
    assert len(compared(there, [alone, first], APART).wrong) == 1, "another target's is no excuse"
    assert len(compared([busy], [second], APART).wrong) == 1, "nothing was done beside it"


def test_two_that_fire_together_may_have_changed_parts() -> None:
    """What was done for the one there is done for the other here: it is the same decision, and counts as equal."""
    busy = One("Busy", "service=a", "cpu", 100.0, ACTED)
    slow = replace(busy, alert="Slow", steps=steps((4, "refused target_in_doubt"), (12, "closed cleared")))
    first = replace(slow, steps=steps((4, "intent restart"), (38, "verdict fixed"), (39, "closed fixed")))
    second = replace(busy, steps=steps((4, "refused target_busy"), (10, "closed cleared")))
    for there, here in (([busy, slow], [second, first]), ([slow, busy], [first, second])):
        found = compared(there, here, APART)
        assert found.wrong == []
        assert {"intent restart", "verdict fixed", "closed fixed"} <= set(found.equal)
    apart = [replace(busy, target="service=b"), slow]
    assert compared(apart, [replace(second, target="service=b"), first], APART).equal == [], (
        "two targets have two parts"
    )


def test_a_look_a_moment_later_may_find_it_over() -> None:
    """Refused while it lasted on one side, closed on the other: told as unknown, and only so near to each other."""
    over, still = steps((70, "closed cleared")), steps((62, "refused target_not_allowed"))
    for there, here in ((over, still), (still, over)):
        assert beside(there, here, APART) == ([], "looks", [])
    assert "looks" in ASSUMED
    acts = steps((68, "intent restart"))
    assert beside(over, acts, APART) == ([], "looks", [])
    assert beside(acts, over, APART)[2], "acted there, and over here before: no look excuses it"
    assert beside(over, steps((40, "refused target_not_allowed")), APART)[2], "half a minute before is another decision"
