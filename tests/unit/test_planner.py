"""The planner: one view, one step. Time is passed in; nothing waits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remediator.actions.base import Risk
from remediator.events import Kind
from remediator.planner import next_step
from remediator.reasons import Reason
from remediator.sameness import digest_of_target
from remediator.steps import (
    AskApproval,
    Close,
    Diagnose,
    HandOver,
    Hold,
    Intend,
    Look,
    LookAtFacts,
    LookAtProof,
    LookAtRule,
    RecordProof,
    Refuse,
    SettleDoubt,
    Wait,
    WouldAct,
)
from remediator.world import Answer, Health
from tests.unit.cases import NOW, History, alert, book, facts, preview, proof_look, view, world


def test_evidence_is_read_while_it_settles() -> None:
    """The first look and the diagnosis come before the settle time is over."""
    young = History(opened_at=NOW - 1)
    assert isinstance(next_step(view(young)), Look)
    assert isinstance(next_step(view(young, world=world())), Diagnose)


def test_nothing_is_intended_before_the_settle_time_is_over() -> None:
    """With the evidence in hand it looks just before the end of the settle time, and holds to the second."""
    history = History(opened_at=NOW - 1).diagnosed(NOW - 0.5)
    step = next_step(view(history, world=world()))
    assert isinstance(step, Refuse)
    assert (step.refusal.reason, step.until) == (Reason.SETTLING, NOW + 27)
    assert isinstance(next_step(view(history, now=NOW + 27)), Look)
    seen = replace(world(), looked_at=NOW + 27)
    assert next_step(view(history, now=NOW + 27.8, world=seen)) == Hold(NOW + 29)
    assert isinstance(next_step(view(history, now=NOW + 29, world=seen)), Intend)


def test_it_intends_when_nothing_forbids_it() -> None:
    """Settled, diagnosed, seen: the mildest rung."""
    assert isinstance(next_step(view(History().diagnosed())), Look)
    step = next_step(view(History().diagnosed(), world=world()))
    assert isinstance(step, Intend)
    assert step.rung.name == "mild"


def test_shadow_writes_once_and_never_intends() -> None:
    """In shadow the same view gives `would_act`, and afterwards nothing but looking again."""
    shadow = facts(strictest_mode="shadow")
    history = History().diagnosed()
    assert isinstance(next_step(view(history, world=world(), facts=shadow)), WouldAct)
    history.add(Kind.WOULD_ACT, NOW, rung="mild")
    assert isinstance(next_step(view(history, world=world(), facts=shadow)), Wait)


def test_shadow_writes_again_about_another_target() -> None:
    """A container that was replaced since is another one, and that must be seen in the journal; its measures are not."""
    shadow = facts(strictest_mode="shadow")
    rung = book().ladder[0]
    history = History().diagnosed().add(Kind.WOULD_ACT, NOW, rung="mild", digest=digest_of_target(rung, world()))
    measured = world(preview=preview(items=({"id": "c1", "cpu": 0.9},)))
    assert isinstance(next_step(view(history, world=measured, facts=shadow)), Wait)
    losing = world(preview=preview(asks="what is in memory would be lost"))
    assert isinstance(next_step(view(history, world=losing, facts=shadow)), Wait)
    replaced = world(preview=preview(items=({"id": "c2"},)))
    assert isinstance(next_step(view(history, world=replaced, facts=shadow)), WouldAct)


def test_the_stricter_of_runbook_and_remediator_holds() -> None:
    """A runbook that may run in approve at most asks, although the remediator is in auto."""
    step = next_step(view(History().diagnosed(), world=world(), book=book(mode="approve")))
    assert isinstance(step, AskApproval)


def test_destructive_actions_never_run_in_auto() -> None:
    """Whatever the modes say, a destructive action asks."""
    step = next_step(view(History().diagnosed(), world=world(), risks={"restart_service": Risk.DESTRUCTIVE}))
    assert isinstance(step, AskApproval)


def test_an_intent_without_outcome_is_a_doubt_until_its_whole_duration_has_passed() -> None:
    """After a crash nothing is concluded before the deadline; then the target is asked."""
    history = History().diagnosed().intent(NOW - 5)
    assert next_step(view(history)) == Wait(NOW + 15)
    assert isinstance(next_step(view(history, now=NOW + 15)), SettleDoubt)


def test_who_takes_over_waits_the_whole_duration_from_when_it_saw_the_intent() -> None:
    """The old owner's clock does not count."""
    history = History().diagnosed().intent(NOW - 15).add(Kind.CLAIMED, NOW, owner="b", epoch=2)
    assert next_step(view(history, now=NOW + 1)) == Wait(NOW + 20)


@pytest.mark.parametrize("outcome", ["in_doubt", None])
def test_an_unknown_end_goes_to_people_and_is_never_redone(outcome: str | None) -> None:
    """Unknown from the target: handed over once, then it only asks on."""
    history = History().diagnosed().intent(NOW - 100)
    if outcome:
        history.outcome(NOW - 80, outcome)
    history.add(Kind.SETTLED, NOW - 50, attempt="a1", settlement="unknown", detail="no trace", evidence={}, by="target")
    step = next_step(view(history, world=world()))
    assert isinstance(step, HandOver)
    assert step.alertname == "RemediationInDoubt"
    history.add(Kind.HANDED_OVER, NOW, reason="in_doubt", sentence="s", alertname="RemediationInDoubt", severity="P1")
    assert isinstance(next_step(view(history, world=world(), rule=Answer.NO)), SettleDoubt)


def test_a_doubt_settled_as_done_is_proved_like_any_other() -> None:
    """The effect happened: what counts now is whether it helped."""
    history = History().diagnosed().intent(NOW - 100)
    history.add(Kind.SETTLED, NOW, attempt="a1", settlement="done", detail="restarted", evidence={}, by="target")
    assert isinstance(next_step(view(history)), LookAtProof)


def test_a_late_settlement_has_the_whole_time_to_be_proved() -> None:
    """An hour after the effect a person has seen it: whether it helped is asked from then on."""
    history = History().diagnosed().intent(NOW - 4000)
    history.add(Kind.SETTLED, NOW - 60, attempt="a1", settlement="done", detail="restarted", evidence={}, by="target")
    step = next_step(view(history, proof=proof_look(False, NOW)))
    assert isinstance(step, RecordProof)
    assert step.judged.verdict is None


def test_a_doubt_is_not_asked_about_while_its_call_may_still_begin() -> None:
    """A deadline shorter than the time in which the call may begin: what is asked too early is not known for good."""
    history = History().diagnosed().intent(NOW - 8, deadline=5.0, start_by=NOW + 2)
    assert next_step(view(history)) == Wait(NOW + 2)


def test_an_attempt_that_did_not_begin_goes_to_people_after_its_tries() -> None:
    """The gate refused it: one try is allowed on this rung, so a person is next."""
    history = History().diagnosed().intent(NOW - 10).outcome(NOW - 9, "failed")
    step = next_step(view(history, world=world()))
    assert isinstance(step, HandOver)
    assert step.reason == "did_not_begin"


def test_not_fixed_takes_the_next_rung_with_a_look_of_its_own() -> None:
    """The ladder: the next rung waits, is diagnosed again, looks again."""
    history = History().diagnosed().intent(NOW - 300).outcome(NOW - 290).verdict(NOW - 20, "not_fixed")
    assert isinstance(next_step(view(history)), Look)
    history.diagnosed(NOW - 5, rung="harsh")
    step = next_step(view(history, world=world()))
    assert isinstance(step, Intend)
    assert step.rung.name == "harsh"


def test_a_rung_for_the_same_target_touches_nothing_else() -> None:
    """The query that was cancelled in vain may be terminated; the next one in line is another cause, for people."""
    mild, harsh = book().ladder
    same = book(ladder=(mild, harsh.model_copy(update={"same_target": True})))
    history = History().diagnosed().intent(NOW - 300).outcome(NOW - 290).verdict(NOW - 20, "not_fixed")
    history.diagnosed(NOW - 5, rung="harsh")
    other = replace(world(), preview=preview(items=({"id": "c2"},)))
    assert isinstance(next_step(view(history, world=world(), book=same)), Intend)
    step = next_step(view(history, world=other, book=same))
    assert isinstance(step, HandOver)
    assert step.reason == "another_cause"


def test_another_query_of_the_same_session_is_another_cause() -> None:
    """What runs there now heeded no cancellation: it has not been asked to end."""
    mild, harsh = book().ladder
    same = book(ladder=(mild, harsh.model_copy(update={"same_target": True})))
    query = {"pid": 42, "backend_start": "a", "query_start": "b"}
    history = History().diagnosed().intent(NOW - 300, items=[query]).outcome(NOW - 290).verdict(NOW - 20, "not_fixed")
    history.diagnosed(NOW - 5, rung="harsh")
    for items, step in ((({**query, "age": 400},), Intend), (({**query, "query_start": "c"},), HandOver)):
        seen = replace(world(), preview=preview(items=items))
        assert isinstance(next_step(view(history, world=seen, book=same)), step)


def test_after_the_last_rung_people() -> None:
    """Everything tried, nothing helped."""
    history = History().diagnosed().intent(NOW - 900).outcome(NOW - 890).verdict(NOW - 600, "not_fixed")
    history.intent(NOW - 500, "a2", "harsh").outcome(NOW - 490, attempt="a2").verdict(NOW - 20, "not_fixed", "a2")
    step = next_step(view(history, world=world()))
    assert isinstance(step, HandOver)
    assert step.reason == "not_fixed"


@pytest.mark.parametrize("verdict", ["worse", "unknown"])
def test_the_first_doubt_about_the_proof_goes_to_people(verdict: str) -> None:
    """Worse or unknown: no next rung, whatever the ladder still has."""
    history = History().diagnosed().intent(NOW - 300).outcome(NOW - 290).verdict(NOW - 20, verdict)
    step = next_step(view(history, world=world()))
    assert isinstance(step, HandOver)
    assert step.reason == verdict


def test_fixed_closes_only_when_the_rule_is_not_true() -> None:
    """`resolved` closes nothing; the rule, asked at every Prometheus, does."""
    history = History().diagnosed().intent(NOW - 300).outcome(NOW - 290).verdict(NOW - 20, "fixed")
    assert isinstance(next_step(view(history)), LookAtRule)
    assert isinstance(next_step(view(history, rule=Answer.UNKNOWN)), Wait)
    assert isinstance(next_step(view(history, rule=Answer.NO)), Close)


def test_proven_fixed_but_still_firing_goes_to_people() -> None:
    """The proof and the rule disagree for longer than a proof may take."""
    history = History().diagnosed().intent(NOW - 900).outcome(NOW - 890).verdict(NOW - 301, "fixed")
    step = next_step(view(history, rule=Answer.YES))
    assert isinstance(step, HandOver)
    assert step.reason == "still_firing"


def test_a_hand_over_outlives_a_moment_in_which_the_rule_is_not_true() -> None:
    """Handed over and cleared in the same second: the page would be taken back before anybody got it."""
    history = History().diagnosed().intent(NOW - 300).outcome(NOW - 290).verdict(NOW - 1, "worse")
    history.add(Kind.HANDED_OVER, NOW, reason="worse", sentence="s", alertname="RemediationFailed", severity="P2")
    assert isinstance(next_step(view(history, now=NOW + 1, rule=Answer.NO)), Wait)
    assert isinstance(next_step(view(history, now=NOW + 121, rule=Answer.NO)), Close)


def test_a_stale_alert_is_given_up_to_people() -> None:
    """Refused for an hour: the look at the rule decides between closing and people."""
    old = History(opened_at=NOW - 3700, starts_at=NOW - 3700)
    assert isinstance(next_step(view(old, world=world())), LookAtRule)
    assert isinstance(next_step(view(old, world=world(), rule=Answer.YES)), HandOver)
    assert isinstance(next_step(view(old, world=world(), rule=Answer.NO)), Close)


def test_without_runbook_it_stays_open_while_it_fires() -> None:
    """A reload can still match it; resolved closes it."""
    history = History()
    assert isinstance(next_step(view(history, book=None)), Wait)
    history.add(Kind.OBSERVED, NOW, alert=alert("resolved").as_json())
    assert isinstance(next_step(view(history, book=None)), Close)


def test_one_round_of_proof_is_judged_and_recorded() -> None:
    """A good round starts the hold time; the next is due after `every`."""
    history = History().diagnosed().intent(NOW - 100).outcome(NOW - 90)
    step = next_step(view(history, proof=proof_look(True, NOW)))
    assert isinstance(step, RecordProof)
    assert (step.judged.verdict, step.judged.good_since, step.until) == (None, NOW, NOW + 10)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rule": Answer.UNKNOWN}, Reason.RULE_UNKNOWN),
        ({"skew": None}, Reason.CLOCK),
        ({"skew": 9.0}, Reason.CLOCK),
        ({"causes": ("PostgresDown",)}, Reason.BLOCKED_BY_CAUSE),
        ({"causes": None}, Reason.RULE_UNKNOWN),
        ({"muted": Answer.YES, "muted_by": "s1"}, Reason.MUTED),
        ({"muted": Answer.UNKNOWN}, Reason.ALERTMANAGER_UNREACHABLE),
        ({"probe": Health.HEALTHY}, Reason.VANTAGE_DISAGREES),
        ({"probe": Health.UNKNOWN}, Reason.VANTAGE_UNKNOWN),
        ({"preview": None, "preview_error": "gate"}, Reason.TARGET_UNREACHABLE),
        ({"preview": replace(world().preview, items=())}, Reason.NOTHING_TO_DO),  # type: ignore[type-var]
        ({"pause_file": True}, Reason.PAUSED),
        ({"looked_at": NOW - 6}, Reason.LOOK_STALE),
    ],
)
def test_every_answer_of_the_look_can_forbid_it(change: dict[str, object], reason: Reason) -> None:
    """Each unknown and each no, alone, is a refusal with its own name."""
    step = next_step(view(History().diagnosed(), world=replace(world(), **change)))
    assert isinstance(step, Refuse)
    assert step.refusal.reason is reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"paused": ("all: maintenance",)}, Reason.PAUSED),
        ({"paused": ("all: lost",), "regressed": "lost"}, Reason.JOURNAL_REGRESSED),
        ({"hold_off_until": NOW + 5}, Reason.RECOVERING),
        ({"head_at": NOW + 6}, Reason.CLOCK),
        ({"doubts": ("e0",)}, Reason.TARGET_IN_DOUBT),
        ({"holds": ("e0",)}, Reason.TARGET_BUSY),
        ({"open_firing": 10}, Reason.STORM),
        ({"last_effect_at": NOW - 1799}, Reason.COOLDOWN),
        ({"resource_hour": 2}, Reason.RATE_LIMIT),
        ({"resource_day": 4}, Reason.RATE_LIMIT),
        ({"runbook_hour": 2}, Reason.RATE_LIMIT),
        ({"all_hour": 10}, Reason.RATE_LIMIT),
        ({"all_day": 30}, Reason.RATE_LIMIT),
    ],
)
def test_every_limit_can_forbid_it(change: dict[str, object], reason: Reason) -> None:
    """Each limit, alone, is a refusal with its own name."""
    step = next_step(view(History().diagnosed(), world=world(), facts=facts(**change)))
    assert isinstance(step, Refuse)
    assert step.refusal.reason is reason


def test_in_a_storm_only_the_rule_is_asked() -> None:
    """Hundreds wait: no look at each target; who is cleared meanwhile closes, so that the storm comes to its end."""
    many = facts(open_firing=10)
    assert isinstance(next_step(view(History(), facts=many)), LookAtRule)
    for answer in (Answer.YES, Answer.UNKNOWN):
        step = next_step(view(History(), facts=many, rule=answer))
        assert isinstance(step, Refuse)
        assert step.refusal.reason is Reason.STORM
    assert isinstance(next_step(view(History(), facts=many, rule=Answer.NO)), Close)


def test_after_a_storm_only_the_rule_is_asked_until_it_is_ones_turn() -> None:
    """As in it; decided again after half a minute at the latest, when nobody wakes it before."""
    others = facts(releasing="episode e0 goes first")
    assert isinstance(next_step(view(History(), facts=others)), LookAtRule)
    step = next_step(view(History(), facts=others, rule=Answer.YES))
    assert isinstance(step, Refuse)
    assert (step.refusal.reason, step.until) == (Reason.RELEASING, NOW + 30)
    assert isinstance(next_step(view(History(), facts=others, rule=Answer.NO)), Close)
    assert isinstance(next_step(view(History(), facts=facts())), Look)


def test_the_journal_is_asked_only_where_something_could_be_begun() -> None:
    """A proof, a doubt and what people have need nobody's limits; whatever may lead to an intent does."""
    begun = History().diagnosed().intent(NOW - 30)
    over = History().add(Kind.HANDED_OVER, NOW - 100, reason="stale_alert", sentence="s", alertname="a", severity="P2")
    assert isinstance(next_step(view(begun, facts=None)), SettleDoubt)
    assert isinstance(next_step(view(begun.outcome(NOW - 25), facts=None)), LookAtProof)
    assert isinstance(next_step(view(over, facts=None)), LookAtRule)
    for history in (History(), History().diagnosed(), begun.verdict(NOW - 1, "not_fixed")):
        assert next_step(view(history, facts=None)) == LookAtFacts()
        assert next_step(view(history, facts=None, world=world())) == LookAtFacts()


@pytest.mark.parametrize(("since", "until"), [(100, 15), (299, 15), (301, 60), (4000, 60)])
def test_what_has_stood_in_the_way_for_long_is_asked_less_often(since: float, until: float) -> None:
    """As long as it is the same that forbids it; another reason is a new one."""
    silent = world(muted=Answer.YES, muted_by="s1")
    history = History(NOW - since - 10, NOW - since - 20).diagnosed(NOW - since - 5)
    history.add(Kind.REFUSED, NOW - since, reason="muted", sentence="s", earliest=None, rung="mild")
    step = next_step(view(history, world=silent, book=book(stale_after=9000)))
    assert isinstance(step, Refuse)
    assert (step.refusal.reason, step.until) == (Reason.MUTED, NOW + until)
    other = next_step(view(history, world=world(causes=("DatabaseDown",)), book=book(stale_after=9000)))
    assert isinstance(other, Refuse)
    assert (other.refusal.reason, other.until) == (Reason.BLOCKED_BY_CAUSE, NOW + 15)


def test_who_is_forbidden_by_something_else_is_looked_at_as_before() -> None:
    """Held back before the look it would be the first in turn again, be forbidden again, and keep all others waiting."""
    others = facts(releasing="episode e0 goes first")
    for reason, first in (
        ("blocked_by_cause", Look),
        ("muted", Look),
        ("releasing", LookAtRule),
        ("storm", LookAtRule),
    ):
        history = (
            History().diagnosed().add(Kind.REFUSED, NOW - 20, reason=reason, sentence="s", earliest=None, rung="mild")
        )
        assert isinstance(next_step(view(history, facts=others)), first), reason
    blocked = (
        History()
        .diagnosed()
        .add(Kind.REFUSED, NOW - 20, reason="blocked_by_cause", sentence="s", earliest=None, rung="mild")
    )
    still = next_step(view(blocked, facts=others, world=world(causes=("DatabaseDown",))))
    assert isinstance(still, Refuse)
    assert still.refusal.reason is Reason.BLOCKED_BY_CAUSE
    freed = next_step(view(blocked, facts=others, world=world()))
    assert isinstance(freed, Refuse)
    assert freed.refusal.reason is Reason.RELEASING
    cooling = next_step(view(blocked, facts=facts(releasing="e0", last_effect_at=NOW - 10), world=world()))
    assert isinstance(cooling, Refuse)
    assert cooling.refusal.reason is Reason.COOLDOWN, "whose turn it is, is the last thing to be asked"


def test_whoever_cannot_go_is_not_first_in_turn() -> None:
    """What evidence or a person's no forbids is asked before whose turn it is: refused for others it took turns with them."""
    others = facts(releasing="episode e0 goes first")
    blind = History().add(Kind.REFUSED, NOW - 15, reason="no_evidence", sentence="s", earliest=None, rung="mild")
    assert isinstance(next_step(view(blind, facts=others, world=world())), Diagnose)
    slow = next_step(view(History().diagnosed(), facts=others, world=world(looked_at=NOW - 60)))
    assert isinstance(slow, Refuse)
    assert slow.refusal.reason is Reason.LOOK_STALE


def test_a_shadow_whose_rule_is_over_looks_before_it_says_so() -> None:
    """While it is held back too: whether it was over by itself, the container says."""
    others = facts(releasing="episode e0 goes first", strictest_mode="shadow")
    spoken = History().diagnosed().add(Kind.WOULD_ACT, NOW - 60, rung="mild", digest="")
    assert isinstance(next_step(view(spoken, facts=others, rule=Answer.NO)), Look)
    assert isinstance(next_step(view(History(), facts=others, rule=Answer.NO)), Close)
