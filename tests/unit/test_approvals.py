"""Asking people: what is asked, what an answer is worth, and when it is not worth anything any more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remediator import guardrails
from remediator.actions.base import Risk
from remediator.events import Kind
from remediator.guardrails import Case, mode_of
from remediator.planner import next_step
from remediator.reasons import Reason
from remediator.sameness import digest_of
from remediator.steps import Allowed, AskApproval, HandOver, Intend, Refuse, Wait
from remediator.world import Answer
from tests.unit.cases import NOW, History, book, facts, preview, settings, view, world

ASKING = book(mode="approve")
MILD = ASKING.ladder[0]
DIGEST = digest_of(MILD, world())
DESTRUCTIVE = {"restart_service": Risk.DESTRUCTIVE}


def asked(at: float = NOW - 60, **changes: Any) -> History:
    """A question for the mild rung waits since `at`."""
    data = {
        "rung": "mild",
        "action": "restart_service",
        "resource": "docker:prep/engine",
        "params": {},
        "items": [{"id": "c1"}],
        "summary": "restart engine",
        "digest": DIGEST,
        "good_until": at + 1800,
        "persons": 1,
        "try": 1,
    }
    return History().diagnosed().add(Kind.NEEDS_APPROVAL, at, **(data | changes))


def answered(history: History, kind: Kind = Kind.APPROVED, who: str = "ada", reason: str = "") -> History:
    """The latest question is answered."""
    asked = history.ledger.approval
    assert asked is not None
    return history.add(kind, NOW - 5, approval=asked.id, who=who, reason=reason)


def step(history: History, **changes: Any) -> Any:
    return next_step(view(history, **({"book": ASKING, "world": world()} | changes)))


@pytest.mark.parametrize(
    ("item", "other"),
    [
        ({"run_id": "r", "from": 30, "factor": 1.25, "to": 37, "cap": 60}, {"from": 48, "to": 60}),
        ({"run_id": "r", "from": 30, "factor": 1.25, "to": 37, "cap": 60}, {"factor": 2.0, "to": 60}),
        ({"run_id": "r", "id": 7, "address": "10.0.0.1:4000", "idle": 900}, {"run_id": "s"}),
    ],
    ids=["another value", "another step", "another life of Redis"],
)
def test_a_yes_is_for_what_was_shown(item: dict[str, Any], other: dict[str, Any]) -> None:
    """A value that somebody has changed meanwhile, or ids that are counted anew, are another question."""
    shown, now = (digest_of(MILD, world(preview=preview(items=(each,)))) for each in (item, item | other))
    assert shown != now


def test_the_question_says_what_until_when_and_of_how_many() -> None:
    """Bound to the preview's digest, to the first try of the rung, and to the runbook's own time."""
    question = step(History().diagnosed())
    assert isinstance(question, AskApproval)
    assert (question.digest, question.good_until, question.persons, question.attempt) == (DIGEST, NOW + 1800, 1, 1)


def test_a_yes_to_what_loses_nothing_is_none_to_what_has_come_to_lose_something() -> None:
    """How much it is changes from look to look, and makes no new question; that it is something does."""
    loses = [
        digest_of(MILD, world(preview=replace(preview(), asks=f"It would lose {count} keys."))) for count in (3, 4)
    ]
    assert loses[0] == loses[1]
    assert loses[0] != digest_of(MILD, world(preview=preview()))


def test_it_waits_and_looks_again_each_minute_until_the_end() -> None:
    """Not longer than the question is good."""
    assert step(asked()) == Wait(NOW + 60)
    assert step(asked(NOW - 1790)) == Wait(NOW + 10)


def test_an_approval_becomes_one_intent() -> None:
    """It carries the approval, which the intent consumes: the same rung once more is another question."""
    history = answered(asked())
    intend = step(history)
    assert isinstance(intend, Intend)
    assert history.ledger.approval is not None
    assert intend.approval == history.ledger.approval.id
    history.intent(NOW - 4, approval=intend.approval).outcome(NOW - 3, "failed")
    assert history.ledger.approval.used == "a1"
    twice = ASKING.model_copy(update={"ladder": (MILD.model_copy(update={"attempts": 2}),)})
    again = step(history, book=twice)
    assert isinstance(again, AskApproval)
    assert again.attempt == 2


def test_an_approval_of_something_else_is_none() -> None:
    """The container was started anew, or another one would be restarted: it is asked again, for that."""
    for item in ({"id": "c2"}, {"id": "c1", "started_at": "later"}):
        other = replace(world(), preview=preview(items=(item,)))
        question = step(answered(asked()), world=other)
        assert isinstance(question, AskApproval), item
        assert question.digest != DIGEST


def test_measures_do_not_change_what_was_approved() -> None:
    """How long a query runs by now is no other query."""
    longer = replace(world(), preview=preview(items=({"id": "c1", "running_seconds": 99.0},)))
    assert isinstance(step(answered(asked()), world=longer), Intend)


def test_everything_is_looked_at_again_when_it_is_approved() -> None:
    """The rule, silences, the probe and the limits have their say at the click; the approval stays good."""
    for look, limits, reason in (
        ({"muted": Answer.YES, "muted_by": "s1"}, {}, Reason.MUTED),
        ({}, {"last_effect_at": NOW - 5}, Reason.COOLDOWN),
        ({}, {"paused": ("all by bob: mine",)}, Reason.PAUSED),
        ({}, {"storm": "since noon"}, Reason.STORM),
    ):
        refuse = step(answered(asked()), world=replace(world(), **look), facts=facts(**limits))
        assert isinstance(refuse, Refuse)
        assert refuse.refusal.reason is reason


def test_an_approval_that_is_too_old_is_handed_over() -> None:
    """Answered or not: nobody's yes of three hours ago restarts anything."""
    for history, said in ((asked(NOW - 1800), "No answer"), (answered(asked(NOW - 1800)), "Approved but not done")):
        over = step(history)
        assert isinstance(over, HandOver)
        assert over.reason == "approval_expired"
        assert over.sentence.startswith(said)


def test_what_forbade_it_for_a_while_leaves_the_question_as_it_was() -> None:
    """It is written down that nothing forbids it any more: whoever lists what waits must see it again, the same."""
    history = asked().add(Kind.REFUSED, NOW - 30, reason="muted", sentence="s", earliest=None, rung="mild")
    assert step(history) == Allowed(MILD, Reason.NEEDS_APPROVAL)
    history.add(Kind.ALLOWED, NOW - 20, rung="mild", waits="needs_approval")
    assert step(history) == Wait(NOW + 60)
    shadow = History().diagnosed().add(Kind.WOULD_ACT, NOW - 50, rung="mild")
    shadow.add(Kind.REFUSED, NOW - 30, reason="storm", sentence="s", earliest=None, rung="mild")
    assert step(shadow, facts=facts(strictest_mode="shadow")) == Allowed(MILD, None)


def test_a_decline_holds_when_it_need_not_ask_any_more() -> None:
    """The runbook was restored meanwhile: what a person has declined is not done by itself."""
    refuse = step(answered(asked(), Kind.DECLINED, reason="mine"), book=book())
    assert isinstance(refuse, Refuse)
    assert refuse.refusal.reason is Reason.DECLINED


def test_a_decline_holds_for_the_episode() -> None:
    """With who and why; it is not asked again, also when the preview changes."""
    history = answered(asked(), Kind.DECLINED, reason="it is mine")
    for seen in (world(), replace(world(), preview=preview(items=({"id": "c2"},)))):
        refuse = step(history, world=seen)
        assert isinstance(refuse, Refuse)
        assert refuse.refusal.reason is Reason.DECLINED
        assert "ada declined it: it is mine" in refuse.refusal.sentence


def test_destructive_actions_need_two_persons() -> None:
    """One yes is not enough; in auto they ask all the same."""
    question = step(History().diagnosed(), book=book(), risks=DESTRUCTIVE)
    assert isinstance(question, AskApproval)
    assert question.persons == 2
    history = answered(asked(persons=2))
    assert isinstance(step(history, risks=DESTRUCTIVE), Wait)
    assert isinstance(step(answered(history, who="bob"), risks=DESTRUCTIVE), Intend)


@pytest.mark.parametrize(
    ("mode", "must_ask", "approved", "reason"),
    [
        ("shadow", False, True, Reason.SHADOW),
        ("approve", False, False, Reason.NEEDS_APPROVAL),
        ("approve", False, True, None),
        ("auto", True, False, Reason.NEEDS_APPROVAL),
        ("auto", True, True, None),
        ("auto", False, False, None),
    ],
)
def test_mode_and_approval_are_judged_again_under_the_lock(
    mode: str, must_ask: bool, approved: bool, reason: Reason | None
) -> None:
    """The mode may have become stricter between the plan and the intent."""
    case = Case(
        NOW, History().ledger, book(), MILD, settings(), facts(strictest_mode=mode), world(), must_ask, approved
    )
    refusal = guardrails.locked(case)
    assert (refusal.reason if refusal else None) is reason


def test_a_runbook_that_fails_too_often_only_asks() -> None:
    """Three of the last ten; what is older does not count, and a person's row counts whatever was since."""
    guards = settings().guards
    poor = (True, False, True, False, False)
    assert mode_of(facts(recent=poor), book(), guards) == "approve"
    assert mode_of(facts(recent=(*(True,) * 8, *poor)), book(), guards) == "auto"
    assert mode_of(facts(demoted="it failed"), book(), guards) == "approve"
    assert mode_of(facts(demoted="it failed", strictest_mode="shadow"), book(), guards) == "shadow"
    assert isinstance(step(History().diagnosed(), book=book(), facts=facts(recent=poor)), AskApproval)


def test_the_same_fix_again_and_again_becomes_a_ticket() -> None:
    """Handed over as P3 instead of done once more; a rung of an episode under way goes on."""
    often = facts(fixed_lately=5)
    over = step(History().diagnosed(), book=book(), facts=often)
    assert isinstance(over, HandOver)
    assert (over.reason, over.alertname) == ("recurrence", "RemediationRecurs")
    begun = History().diagnosed().intent(NOW - 300).outcome(NOW - 290).verdict(NOW - 20, "not_fixed")
    begun.diagnosed(NOW - 5, rung="harsh")
    assert isinstance(step(begun, book=book(), facts=often), Intend)


def test_after_a_storm_one_goes_at_a_time() -> None:
    """Who goes first is in the sentence."""
    refuse = step(History().diagnosed(), book=book(), facts=facts(releasing="episode e0 goes first"))
    assert isinstance(refuse, Refuse)
    assert refuse.refusal.reason is Reason.RELEASING
    assert "e0" in refuse.refusal.sentence


def test_who_only_waits_is_not_refused_for_others() -> None:
    """A question, or a shadow's word, is in nobody's way; refused for others, two of them took turns for ever."""
    others: dict[str, Any] = {"facts": facts(releasing="episode e0 goes first"), "world": None, "rule": Answer.YES}
    shadow = History().diagnosed().add(Kind.WOULD_ACT, NOW - 60, rung="mild", digest="")
    in_shadow = others | {"facts": facts(releasing="episode e0 goes first", strictest_mode="shadow")}
    for history, seen in ((asked(), others), (shadow, in_shadow)):
        assert step(history, **seen) == Wait(NOW + 60)
        looked = {name: value for name, value in seen.items() if name != "world"}
        assert step(history, **looked) == Wait(NOW + 60), "nor after the look that ended what had forbidden it"
        history.add(Kind.REFUSED, NOW - 30, reason="releasing", sentence="s", earliest=None, rung="mild")
        assert isinstance(step(history, **seen), Refuse)
    in_auto = others | {"book": book(mode="auto")}
    for history, seen in ((answered(asked()), others), (asked(), in_auto), (shadow, in_auto)):
        refuse = step(history, **seen)
        assert isinstance(refuse, Refuse), "it could be done, and waits for its turn"
        assert refuse.refusal.reason is Reason.RELEASING


def test_a_no_stands_whose_turn_it_may_be() -> None:
    """Declined after its look, it is not refused for others, which would put it first in turn."""
    declined = answered(asked(), Kind.DECLINED, reason="not now")
    declined.add(Kind.REFUSED, NOW - 4, reason="declined", sentence="s", earliest=None, rung="mild")
    refuse = step(declined, facts=facts(releasing="episode e0 goes first"))
    assert isinstance(refuse, Refuse)
    assert refuse.refusal.reason is Reason.DECLINED


def test_a_question_that_only_the_target_wants_waits_and_ends_as_any_other() -> None:
    """In auto, before the look that would say so once more: not refused for others, and over in time."""
    others: dict[str, Any] = {"facts": facts(releasing="episode e0 goes first"), "world": None, "rule": Answer.YES}
    in_auto = others | {"book": book(mode="auto")}
    assert step(asked(target_asked=True), **in_auto) == Wait(NOW + 60)
    asks = world(preview=preview(asks=("it would lose sessions",)))
    digest = digest_of(MILD, asks)
    assert step(asked(target_asked=True, digest=digest), **(in_auto | {"world": asks})) == Wait(NOW + 60)
    for forbids in ({"paused": ("all by ada: x",)}, {"storm": "since noon"}, {"releasing": "e0"}):
        for question in (asked(NOW - 1801, target_asked=True), answered(asked(NOW - 1801, target_asked=True))):
            over = step(question, **(in_auto | {"facts": facts(**forbids)}))
            assert isinstance(over, HandOver), forbids
            assert over.reason == "approval_expired"
    yes = step(answered(asked(target_asked=True)), **in_auto)
    assert isinstance(yes, Refuse), "it could be done, and waits for its turn"


@pytest.mark.parametrize("forbids", [{"paused": ("all by ada: x",)}, {"storm": "since noon"}, {"releasing": "e0"}])
def test_a_question_is_over_in_time_whatever_forbids_it(forbids: dict[str, Any]) -> None:
    """People are told that nobody answered, not at the end of the pause or the storm."""
    for history in (asked(NOW - 1801), answered(asked(NOW - 1801))):
        over = step(history, facts=facts(**forbids), world=None)
        assert isinstance(over, HandOver)
        assert over.reason == "approval_expired"
    in_shadow = facts(**forbids, strictest_mode="shadow")
    assert not isinstance(step(asked(NOW - 1801), facts=in_shadow, world=None), HandOver), "a shadow asks nobody"


def test_a_storm_lasts_beyond_the_number_that_made_it() -> None:
    """Latched: few open episodes do not end it; a person's end overrides the number."""
    few = step(History().diagnosed(), book=book(), facts=facts(open_firing=1, storm="since noon"))
    assert isinstance(few, Refuse)
    assert few.refusal.reason is Reason.STORM
    many = facts(open_firing=99, storm_overridden=True)
    assert isinstance(step(History().diagnosed(), book=book(), facts=many), Intend)
