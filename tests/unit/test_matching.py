"""Which alerts are a runbook's: all that it names must agree, and a time that cannot be is a person's."""

from __future__ import annotations

import pytest

from remediator.matching import Matched, match
from remediator.planner import next_step
from remediator.reasons import Reason, Refusal
from remediator.steps import HandOver, LookAtRule
from remediator.world import Answer
from tests.unit.cases import NOW, History, alert, book, view, world


def test_all_that_is_named_agrees() -> None:
    """The right alert, so that the refusals below are for the one thing that differs."""
    found = match(alert(), [book()], "test")
    assert isinstance(found, Matched)
    assert found.target == {"service": "engine"}


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"environment": "staging"}, Reason.FOREIGN_ALERT),
        ({"environment": ""}, Reason.FOREIGN_ALERT),
        ({"environment": "Test"}, Reason.FOREIGN_ALERT),
        ({"job": "exporter2"}, Reason.FOREIGN_ALERT),
        ({"job": ""}, Reason.FOREIGN_ALERT),
        ({"component": "engin"}, Reason.FOREIGN_ALERT),
        ({"component": ""}, Reason.FOREIGN_ALERT),
        ({"component": "engine "}, Reason.FOREIGN_ALERT),
        ({"alertname": "EngineSlowly"}, Reason.NO_RUNBOOK),
        ({"alertname": ".*"}, Reason.NO_RUNBOOK),
        ({"service": ""}, Reason.NO_TARGET),
    ],
)
def test_one_thing_that_differs_is_a_refusal(labels: dict[str, str], reason: Reason) -> None:
    """Environment, job, pinned label, name, target: compared as they are, nothing is a pattern."""
    refusal = match(alert("firing", NOW - 60, **labels), [book()], "test")
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason


def test_an_alert_from_the_future_is_given_up_to_people() -> None:
    """A minute ahead is a clock's own error; more is a time that nobody can count from."""
    near = next_step(view(History(starts_at=NOW + 59).diagnosed(), world=world()))
    assert not isinstance(near, LookAtRule)
    ahead = History(starts_at=NOW + 61).diagnosed()
    assert isinstance(next_step(view(ahead, world=world())), LookAtRule)
    step = next_step(view(ahead, world=world(), rule=Answer.YES))
    assert isinstance(step, HandOver)
    assert step.reason == Reason.STALE_ALERT
