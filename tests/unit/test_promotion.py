"""When is a runbook ready for more? Every number of `settings.promotion`, one step below it and at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from pydantic import ValidationError

from remediator.events import Verdict
from remediator.promotion import About, record, supports, upper_bound
from remediator.runbooks import Mode
from remediator.settings import Promotion
from remediator.shadow import Against, Came, Proposal, Seen, Wrong
from tests.unit.cases import NOW, book

DAY = 86400.0
NUMBERS = Promotion()
AGAINST = (Against(Wrong.HEALED_SOON, NOW, ""),)


def seen(number: int, *, days: int = 30, targets: int = 30, wrong: bool = False, fixed: bool = False) -> Seen:
    """One judged proposal; the number spreads it over days and targets."""
    at = NOW - (number % days) * DAY
    resource = f"docker:prep/{number % targets}"
    mode: Mode = "approve" if fixed else "shadow"
    return Seen(
        episode=f"e{number}",
        alert="EngineSlow",
        runbook="engine-slow",
        target={"service": resource},
        opened_at=at - 30,
        ended_at=at + 1200,
        answers=(),
        proposal=Proposal(at, mode, "mild", 1, 2, "restart_service", resource, "restart engine"),
        came=Came.HELPED if fixed else Came.HEALED,
        came_after=1200.0,
        book=book(),
        verdict=Verdict.FIXED if fixed else None,
        approved_by=("ada",) if fixed else (),
        against=AGAINST if wrong else (),
        judged=True,
    )


def many(count: int, *, wrong: int = 0, fixed: int = 0, days: int = 30, targets: int = 30) -> list[Seen]:
    return [
        seen(n, days=days, targets=targets, wrong=n < wrong, fixed=wrong <= n < wrong + fixed) for n in range(count)
    ]


def ready(found: Sequence[Seen], demoted: str | None = None) -> Mode:
    return record("engine-slow", found, About(book(), "shadow", demoted), NUMBERS).ready


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], "shadow"),
        (many(4), "shadow"),
        (many(5), "approve"),
        (many(5, days=2), "shadow"),
        (many(5, days=3), "approve"),
        (many(5, wrong=1), "approve"),
        (many(5, wrong=2), "shadow"),
        (many(30), "approve"),  # a shadow alone never shows that it helps
        (many(20, fixed=4), "approve"),
        (many(20, fixed=5), "auto"),
        (many(19, fixed=5), "approve"),
        (many(20, fixed=5, days=6), "approve"),
        (many(20, fixed=5, days=7), "auto"),
        (many(20, fixed=5, wrong=1), "auto"),
        (many(20, fixed=5, wrong=2), "approve"),
        (many(20, fixed=5, days=7, targets=4), "approve"),  # five on one target within a week
        (many(20, fixed=5, days=7, targets=5), "auto"),
    ],
)
def test_each_number_decides(found: list[Seen], expected: Mode) -> None:
    """One below it is not enough."""
    assert ready(found) == expected


def test_who_is_demoted_is_not_ready_to_act_alone() -> None:
    """Its budget is spent; a person has to restore it first."""
    assert ready(many(20, fixed=5), demoted="3 of its last 10 episodes were not proven fixed.") == "approve"


def test_evidence_of_another_version_is_none() -> None:
    """What was watched is what is loaded: other steps were never seen. A title or the mode itself changes no deed."""
    other = [replace(one, book=book(settle=1.0)) for one in many(20, fixed=5)]
    found = record("engine-slow", other, About(book(), "shadow"), NUMBERS)
    assert (found.ready, found.episodes, found.others) == ("shadow", 0, 20)
    same = [replace(one, book=book(mode="shadow", title="Slow")) for one in many(20, fixed=5)]
    assert record("engine-slow", same, About(book(), "shadow"), NUMBERS).ready == "auto"


def test_what_is_not_over_is_no_evidence() -> None:
    """Neither for nor against."""
    fresh = [replace(one, judged=False, against=AGAINST) for one in many(5)]
    found = record("engine-slow", fresh, About(book(), "shadow"), NUMBERS)
    assert (found.proposals, found.judged, found.wrong, found.ready) == (5, 0, 0, "shadow")


def test_a_mode_is_supported_by_itself_and_by_what_is_freer() -> None:
    """Who is ready for auto is ready to ask."""
    found = record("engine-slow", many(20, fixed=5), About(book(), "shadow"), NUMBERS)
    assert supports(found, "approve")
    assert supports(found, "auto")
    assert not supports(replace(found, ready="approve"), "auto")


@pytest.mark.parametrize(
    ("wrong", "judged", "bound"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 20, 0.1391), (1, 20, 0.2161), (0, 59, 0.0495), (1000, 2000, 0.5187)],
)
def test_few_episodes_leave_much_open(wrong: int, judged: int, bound: float) -> None:
    """One-sided Clopper-Pearson bounds at 95 %: 1 - 0.05 ** (1 / n) where none was wrong."""
    assert upper_bound(wrong, judged) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize(
    "below",
    [
        {"approve_episodes": 2},
        {"approve_days": 1},
        {"approve_wrong": 0.21},
        {"auto_episodes": 9},
        {"auto_days": 4},
        {"auto_wrong": 0.06},
        {"auto_fixed": 2},
        {"auto_recurrence": 11},
        {"watch": "4m"},
        {"heals_within": "29s"},
        {"returns_within": "4m"},
        {"window": "6d"},
    ],
)
def test_no_number_goes_under_its_floor(below: dict[str, object]) -> None:
    """A configuration cannot make trust cheap."""
    with pytest.raises(ValidationError):
        Promotion.model_validate(below)
