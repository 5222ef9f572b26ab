"""An open episode after a reload: its own version of the runbook, and never freer than the newest one."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.planner import next_step
from remediator.reasons import Reason
from remediator.runbooks import Limits, Runbook
from remediator.steps import AskApproval, Intend, Refuse, WouldAct
from remediator.versions import binding
from tests.unit.cases import NOW, History, book, facts, view, world


def limits(**changes: Any) -> Limits:
    return book().limits.model_copy(update=changes)


def test_the_same_version_is_itself() -> None:
    """Without a newer one nothing is mixed."""
    assert binding(book(), book()) == book()


@pytest.mark.parametrize(
    ("newest", "others", "reason"),
    [
        (book(limits=limits(cooldown=7200.0)), {"last_effect_at": NOW - 3600}, Reason.COOLDOWN),
        (book(limits=limits(per_hour=1)), {"resource_hour": 1}, Reason.RATE_LIMIT),
        (book(limits=limits(per_day=2)), {"runbook_day": 2}, Reason.RATE_LIMIT),
        (book(settle=300.0), {}, Reason.SETTLING),
    ],
)
def test_a_stricter_number_holds_at_once(newest: Runbook, others: dict[str, Any], reason: Reason) -> None:
    """What the old version allows is refused by the new one's number, in an episode of the old one."""
    history, known = History().diagnosed(), facts(**others)
    assert isinstance(next_step(view(history, world=world(), facts=known)), Intend)
    step = next_step(view(history, world=world(), facts=known, book=binding(book(), newest)))
    assert isinstance(step, Refuse)
    assert step.refusal.reason is reason


def test_a_freer_number_does_not_hold() -> None:
    """More freedom is for episodes that are decided on it."""
    freer = book(mode="auto", settle=0.0, limits=Limits(cooldown=1.0, per_hour=100, per_day=100))
    assert binding(book(mode="approve"), freer) == book(mode="approve")


def test_a_stricter_mode_holds() -> None:
    """Decided in auto, then the runbook was held to approve: it asks."""
    asks = binding(book(), book(mode="approve"))
    assert isinstance(next_step(view(History().diagnosed(), world=world(), book=asks)), AskApproval)


def test_an_approval_that_was_added_is_asked_for() -> None:
    """By the rung's name; a rung that only the new version has is none of this episode's."""
    mild, harsh = book().ladder
    newest = book(ladder=(mild.model_copy(update={"approval": True, "deadline": 1.0}),))
    bound = binding(book(), newest)
    assert bound.ladder == (mild.model_copy(update={"approval": True}), harsh)
    assert isinstance(next_step(view(History().diagnosed(), world=world(), book=bound)), AskApproval)


def test_without_its_runbook_an_episode_begins_nothing_new() -> None:
    """Removed: shadow, with the ladder and the proof as they were decided."""
    bound = binding(book(), None)
    assert isinstance(next_step(view(History().diagnosed(), world=world(), book=bound)), WouldAct)
    assert (bound.ladder, bound.proof) == (book().ladder, book().proof)


def test_the_ladder_is_the_decided_one() -> None:
    """What would be done, and how it is proved, does not change under an episode."""
    harsh = book().ladder[1]
    newest = book(ladder=(harsh,), proof=book().proof.model_copy(update={"hold": 600.0}), title="new")
    assert binding(book(), newest) == book()
