"""Looking back at episodes: limits that a shadow never touches, causes and storms elsewhere, what is not judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from remediator.events import OWN, Event, Kind
from remediator.hindsight import look_back
from remediator.reasons import Reason
from remediator.settings import Promotion
from remediator.shadow import AFTERWARDS, Came, Seen, Wrong
from remediator.shadow_report import Past, report
from tests.unit.cases import DIGEST, NOW, History, book
from tests.unit.test_shadow_report import ASKED, CLEARED, PROPOSED, history, named

BOOK = book()
DAY = 86400.0
NUMBERS = Promotion()


def moment(name: str, minutes: float, lasts: float = 1200.0, **changes: Any) -> list[Event]:
    """A moment to act so many minutes before now, over by itself so many seconds later."""
    at = NOW - minutes * 60.0 - 30.0
    made = history(name, at).add(Kind.WOULD_ACT, at + 30, **{**PROPOSED, **changes})
    return named(name, made.add(Kind.CLOSED, at + 30 + lasts, **CLEARED))


def back(
    *told: Sequence[Event], own: Sequence[Event] = (), books: Sequence[str] = ("engine-slow",)
) -> tuple[Seen, ...]:
    histories = {events[0].episode: events for events in told}
    return look_back(histories, own, dict.fromkeys([*books, DIGEST] if books else [], BOOK), NUMBERS, NOW)


def test_a_shadow_is_held_to_the_cooldown_that_it_never_charges() -> None:
    """What auto would not have done is no evidence: ten minutes after the first one it would still have cooled down."""
    first, second, third = back(moment("a", 200, 300), moment("b", 190, 300), moment("c", 165))
    assert (first.limit, first.judged) == (None, True)
    assert (second.limit, second.judged) == (Reason.COOLDOWN, False)
    assert (third.limit, third.judged) == (None, True)  # counted from the first: the second was not done


def test_a_shadow_is_held_to_its_rate() -> None:
    """Four a day: the fifth would have been refused, on another target too, as it is the same runbook."""
    told = [moment(f"e{n}", 400 - 40 * n, 300, resource=f"docker:prep/{n}") for n in range(5)]
    assert [one.limit for one in back(*told)] == [None] * 4 + [Reason.RATE_LIMIT]


def test_without_the_runbook_no_limit_is_guessed() -> None:
    """Its numbers are not known."""
    assert [one.limit for one in back(moment("a", 200), moment("b", 190), books=())] == [None, None]


def test_what_came_before_its_end_is_not_its_return() -> None:
    """A second alert of the same target, over before the first one is; then both are back half an hour later."""
    long, short, again = back(moment("a", 200, 1500), moment("b", 190, 60), moment("c", 140))
    assert (long.ended_at, short.ended_at) == (NOW - 200 * 60 + 1500, NOW - 190 * 60 + 60)
    assert long.back_after == again.opened_at - long.ended_at
    assert short.back_after == again.opened_at - short.ended_at
    assert again.back_after is None


def other(name: str, alertname: str, minutes: float, environment: str = "test") -> list[Event]:
    """An episode of another alert, without a runbook."""
    at = NOW - minutes * 60.0
    made = History(at, at, alertname=alertname, environment=environment)
    made.events[0] = Event(
        made.events[0].id, name, 1, Kind.OPENED, at, {"alert": made.events[0].data["alert"], "received_at": at}
    )
    return made.events


@pytest.mark.parametrize(
    ("alertname", "minutes", "expected"),
    [
        ("PostgresDown", 195, [Wrong.CAUSE_ELSEWHERE]),
        ("PostgresDown", 185, []),  # over ten minutes later: another story
        ("PostgresDown", 205, []),  # before: the guardrail saw it or it was over
        ("DiskFull", 195, []),  # no cause of this one
    ],
)
def test_a_cause_that_shows_itself_too_late(alertname: str, minutes: float, expected: list[Wrong]) -> None:
    """An alert of `blocked_by` opens an episode of its own within ten minutes after the moment to act."""
    (seen,) = back(moment("a", 200), other("b", alertname, minutes))
    assert [one.kind for one in seen.against] == expected


def test_a_cause_in_another_environment_is_none() -> None:
    """Staging's alerts come to production's remediator by mistake at times."""
    (seen,) = back(moment("a", 200), other("b", "PostgresDown", 195, "staging"))
    assert seen.against == ()


def test_a_storm_that_begins_too_late() -> None:
    """Five minutes later twelve episodes are open: it was no single fault."""
    storm = Event("f" * 32, OWN, 1, Kind.STORM_BEGAN, NOW - 195 * 60, {"storm": 1, "open": 12})
    (seen,) = back(moment("a", 200), own=[storm])
    assert [(one.kind, one.detail) for one in seen.against] == [
        (Wrong.CAUSE_ELSEWHERE, "12 episodes were open at once")
    ]


@pytest.mark.parametrize("reason", list(Reason))
def test_what_a_guardrail_says_too_late(reason: Reason) -> None:
    """Those of the table speak against it within ten minutes; the others, and all of them later, do not."""
    for minutes, within in ((5, True), (15, False)):
        at = NOW - 200 * 60.0
        made = history("a", at - 30).add(Kind.WOULD_ACT, at, **PROPOSED)
        refused = {"reason": reason, "sentence": "No.", "earliest": None, "rung": "mild"}
        made.add(Kind.REFUSED, at + minutes * 60, **refused).add(Kind.CLOSED, at + 3000, **CLEARED)
        (seen,) = back(named("a", made))
        expected = [AFTERWARDS[reason]] if within and reason in AFTERWARDS else []
        assert [one.kind for one in seen.against] == expected


def test_before_the_watch_is_over_nothing_is_judged() -> None:
    """Nine minutes after the moment a cause may still show itself."""
    (early,) = back(moment("a", 9, 130))
    (late,) = back(moment("a", 11, 130))
    assert (early.came, early.judged, late.judged) == (Came.HEALED, False, True)


def test_a_doubt_counts_against_it() -> None:
    """Done or not, nobody knows: it is not shown that it helped."""
    at = NOW - 7200
    made = history("a", at).intent(at + 40, "1" * 32).outcome(at + 60, "in_doubt", "1" * 32)
    (seen,) = back(named("a", made))
    assert (seen.came, [one.kind for one in seen.against], seen.wrong) == (Came.NOT_HELPED, [Wrong.NOT_HELPED], True)


def test_a_persons_command_and_alerts_without_a_runbook_are_no_episodes_of_it() -> None:
    """They are what is looked for around the others."""
    assert back(other("b", "DiskFull", 10)) == ()


def test_the_budget_is_counted_since_the_last_restore() -> None:
    """As `journal/watch.py` counts it: deeds of every version, the latest ones, not proven fixed is a failure."""
    told = {}
    for number, verdict in enumerate(("not_fixed", "fixed", "unknown", "fixed")):
        at = NOW - (40 - 10 * number) * DAY
        made = history(f"e{number}", at).intent(at + 40, f"{number:032x}").outcome(at + 50, "done", f"{number:032x}")
        told[f"e{number}"] = named(f"e{number}", made.verdict(at + 300, verdict, f"{number:032x}"))
    back_again = {"runbook": "engine-slow", "who": "ada", "reason": "mended"}
    told[OWN] = [Event("f" * 32, OWN, 1, Kind.RESTORED, NOW - 35 * DAY, back_again)]
    (record,) = report(Past(NOW, 0.0, told, books={BOOK.name: BOOK}, documents={DIGEST: BOOK}), NUMBERS).records
    assert (record.acted, record.failed) == (3, 1)
    (record,) = report(
        Past(NOW, 0.0, told, books={BOOK.name: BOOK}, documents={DIGEST: BOOK}, budget=(1, 1)), NUMBERS
    ).records
    assert (record.acted, record.failed) == (1, 0)


def test_a_question_that_was_asked_again_is_not_wrong() -> None:
    """Its yes is bound to what it is about, so nothing else could have been done; a shadow has no such guard."""
    at = NOW - 7200
    made = history("a", at).add(Kind.NEEDS_APPROVAL, at + 30, **ASKED).add(Kind.NEEDS_APPROVAL, at + 90, **ASKED)
    made.add(Kind.APPROVED, at + 95, approval=made.events[-1].id, who="ada", reason="")
    made.intent(at + 100, "1" * 32, approval=made.events[-2].id).outcome(at + 104, "done", "1" * 32)
    (seen,) = back(named("a", made.verdict(at + 300, "fixed", "1" * 32)))
    assert (seen.came, seen.approved_by, seen.against, seen.judged) == (Came.HELPED, ("ada",), (), True)
    shadow = history("a", at).add(Kind.WOULD_ACT, at + 30, **PROPOSED).add(Kind.WOULD_ACT, at + 90, **PROPOSED)
    (seen,) = back(named("a", shadow.add(Kind.CLOSED, at + 3000, **CLEARED)))
    assert [one.kind for one in seen.against] == [Wrong.ANOTHER_TARGET]


def test_a_version_that_is_not_at_hand_is_no_evidence_for_the_loaded_one() -> None:
    """Its body was lost, or cannot be read any more: what it would have done is not what is loaded now."""
    told = moment("a", 200)
    told[0] = replace(told[0], data={**told[0].data, "digest": "lost"})
    past = Past(NOW, 0.0, {"a": told}, books={BOOK.name: BOOK})
    (record,) = report(past, NUMBERS).records
    assert (record.episodes, record.others) == (0, 1)
    (record,) = report(replace(past, histories={"a": moment("a", 200)}), NUMBERS).records
    assert (record.episodes, record.others) == (1, 0)


def test_a_no_counts_whenever_it_is_said() -> None:
    """Whoever is woken declines after eleven minutes: that speaks against it as one of the first minute does."""
    at = NOW - 4 * 3600.0
    for minutes in (1, 11, 29):
        made = history("a", at).add(Kind.NEEDS_APPROVAL, at + 30, **ASKED)
        made.add(Kind.DECLINED, at + 30 + minutes * 60, approval="x", who="ada", reason="a deployment")
        (seen,) = back(named("a", made.add(Kind.CLOSED, at + 3600, **CLEARED)))
        assert [one.kind for one in seen.against] == [Wrong.PERSON_SAID_NO], minutes
        assert seen.wrong
