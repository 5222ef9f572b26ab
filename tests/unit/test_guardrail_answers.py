"""What a decision's event says of the guardrails is what they said: the real planner, compared answer by answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator import guardrails
from remediator.console.checks import ORDER
from remediator.events import Kind
from remediator.guardrails import Case, locked
from remediator.ledger import Command
from remediator.planner import next_step
from remediator.reasons import Reason, Refusal
from remediator.sameness import digest_of
from remediator.steps import Allowed, AskApproval, Close, Diagnose, HandOver, Hold, Intend, Look, Refuse, Wait, WouldAct
from remediator.world import Answer, Health
from tests.unit.cases import NOW, History, book, facts, preview, settings, view, world

NOT_LABELLED = Refusal(Reason.TARGET_NOT_LABELLED, "It has no label.")
FACTS: dict[str, dict[str, Any]] = {
    "journal_regressed": {"regressed": "events are missing"},
    "paused": {"paused": ("all by ada: deploying",)},
    "recovering": {"hold_off_until": NOW + 60},
    "clock_behind": {"head_at": NOW + 3600},
    "in_doubt": {"doubts": ("e9",)},
    "busy": {"holds": ("e8",)},
    "storm": {"storm": "since noon"},
    "releasing": {"releasing": "e7 goes first"},
    "recurrence": {"fixed_lately": 99},
    "cooldown": {"last_effect_at": NOW - 5},
    "rate_limit": {"resource_hour": 99},
}
WORLD: dict[str, dict[str, Any]] = {
    "rule": {"rule": Answer.UNKNOWN},
    "clock_skew": {"skew": 99.0},
    "blocked_by": {"causes": ("PostgresDown",)},
    "muted": {"muted": Answer.YES},
    "preview_possible": {"preview": None},
    "target_agrees": {"preview": preview(refusals=(NOT_LABELLED,))},
    "vantage": {"probe": Health.HEALTHY},
    "nothing_to_do": {"preview": preview(items=())},
    "look_stale": {"looked_at": NOW - 60},
}
OTHERS = ("stale", "settling")
BREAKABLE = (*OTHERS, *FACTS, *WORLD)
DECISIONS = (Refuse, WouldAct, AskApproval, Allowed, Intend)


def seen(broken: frozenset[str], evidence: bool = True) -> tuple[Any, Case]:
    """The planner's step where these guardrails have a reason to say no, and the case by which they judge."""
    history = History(opened_at=NOW - 1 if "settling" in broken else NOW - 45)
    if "stale" in broken:
        history = History(opened_at=NOW - 90000, starts_at=NOW - 90000)
    if evidence:
        history.diagnosed()
    known, look = facts(), world()
    for name in broken:
        known = replace(known, **FACTS.get(name, {}))
        look = replace(look, **WORLD.get(name, {}))
    shown = view(history, facts=known, world=look, rule=Answer.YES)
    case = Case(NOW, history.ledger, book(), book().ladder[0], shown.settings, known, look)
    return next_step(shown), case


def compared(step: Any, case: Case) -> None:
    """Each answer is what its guardrail says; none before the no is missing, and none after it is there."""
    said = dict(step.answers)
    rules = {rule.__name__: rule for rule in ORDER}
    assert set(said) <= set(rules)
    for name, answer in said.items():
        refusal = rules[name](case)
        assert answer == (refusal.sentence if refusal else ""), name
    noes = [name for name in rules if said.get(name) and name != "settling"]
    if isinstance(step, Refuse) and step.refusal.reason is Reason.SETTLING:
        assert noes == []
        noes = ["settling"]
    if not isinstance(step, Refuse):
        assert noes == []
        assert set(said) == set(rules)
        return
    (decided,) = noes
    assert said[decided] == step.refusal.sentence
    upto = list(rules).index(decided)
    assert set(said) == set(list(rules)[: upto + 1])


@pytest.mark.parametrize("name", BREAKABLE)
def test_each_guardrails_no_is_told_with_all_that_passed_before_it(name: str) -> None:
    """One at a time, so that each of them is the one that decides, or ends the episode in its own way."""
    step, case = seen(frozenset({name}))
    refusal = next(rule for rule in ORDER if rule.__name__ == name)(case)
    assert refusal is not None, "the situation breaks nothing"
    if name in ("stale", "recurrence"):
        assert isinstance(step, HandOver)
        return
    assert isinstance(step, Refuse)
    assert step.refusal.reason is refusal.reason
    compared(step, case)


def test_every_guardrail_has_its_situation() -> None:
    """One that is added is compared too."""
    assert {rule.__name__ for rule in ORDER} == set(BREAKABLE)


@given(st.frozensets(st.sampled_from(BREAKABLE), max_size=4), st.booleans())
def test_whatever_comes_together_every_answer_is_true(broken: frozenset[str], evidence: bool) -> None:
    """Any mixture, with and without the evidence read: nothing is told as passed that did not pass."""
    step, case = seen(broken, evidence)
    assert isinstance(step, (*DECISIONS, HandOver, Close, Diagnose, Hold, Look)), step
    if isinstance(step, DECISIONS):
        compared(step, case)


@given(st.frozensets(st.sampled_from((*OTHERS, *FACTS)), max_size=3))
def test_before_the_look_every_answer_is_true_too(broken: frozenset[str]) -> None:
    """What is refused without a look has what was asked until then, and its own no; nothing that needs a look."""
    history = History(opened_at=NOW - 1 if "settling" in broken else NOW - 45)
    if "stale" in broken:
        history = History(opened_at=NOW - 90000, starts_at=NOW - 90000)
    known = facts()
    for name in broken:
        known = replace(known, **FACTS.get(name, {}))
    shown = view(history.diagnosed(), facts=known, rule=Answer.YES)
    step = next_step(shown)
    case = Case(NOW, history.ledger, book(), book().ladder[0], shown.settings, known)
    if not isinstance(step, Refuse):
        assert isinstance(step, Look | HandOver | Wait), step
        return
    rules = {rule.__name__: rule for rule in ORDER if rule not in guardrails.AFTER_LOOK}
    for name, answer in step.answers.items():
        refusal = rules[name](case)
        assert answer == (refusal.sentence if refusal else ""), name
    assert [answer for answer in step.answers.values() if answer] == [step.refusal.sentence]


@pytest.mark.parametrize("mode", ["auto", "approve", "shadow"])
def test_what_is_done_asked_or_said_has_all_answers(mode: str) -> None:
    """Every one passed, and is told."""
    known = facts(strictest_mode=mode)
    history = History().diagnosed()
    step = next_step(view(history, facts=known, world=world()))
    assert isinstance(step, {"auto": Intend, "approve": AskApproval, "shadow": WouldAct}[mode])
    compared(step, Case(NOW, history.ledger, book(), book().ladder[0], settings(), known, world()))


def test_what_is_allowed_again_has_all_answers() -> None:
    """After a pause that is over."""
    what = {"rung": "mild", "action": "restart_service", "resource": "r", "params": {}, "items": [], "summary": "s"}
    history = History().diagnosed().add(Kind.WOULD_ACT, NOW - 30, **what)
    history.add(Kind.REFUSED, NOW - 20, reason="paused", sentence="s", earliest=None, rung="mild")
    known = facts(strictest_mode="shadow")
    step = next_step(view(history, facts=known, world=world()))
    assert isinstance(step, Allowed)
    compared(step, Case(NOW, history.ledger, book(), book().ladder[0], settings(), known, world()))


@pytest.mark.parametrize("glass", [False, True])
@pytest.mark.parametrize("name", [None, *FACTS, "preview_possible", "target_agrees", "nothing_to_do", "look_stale"])
def test_a_persons_command_tells_its_answers(name: str | None, glass: bool) -> None:
    """Those that hold for commands, and behind a broken glass those only that it does not break."""
    rung = book().ladder[0].model_copy(update={"diagnose_first": False})
    plain = book(ladder=(rung,))
    command = Command("restart_service", digest_of(rung, world()), "ada", "why", glass)
    ledger = replace(History(opened_at=NOW - 5).ledger, command=command)
    known = replace(facts(), **FACTS.get(name or "", {}), **({"unproven": ("e8",)} if name == "busy" else {}))
    look = world(**WORLD.get(name or "", {}))
    shown = replace(view(History(), facts=known, world=look, book=plain), ledger=ledger)
    step = next_step(shown)
    case = Case(NOW, ledger, plain, rung, shown.settings, known, look, command=command)
    assert isinstance(step, Refuse | Intend), step
    rules = {rule.__name__: rule for rule in (guardrails.stale, *guardrails.BY_HAND, *guardrails.bounds(case))}
    for told, answer in step.answers.items():
        refusal = rules[told](case)
        assert answer == (refusal.sentence if refusal else ""), told
    noes = [told for told, answer in step.answers.items() if answer]
    if isinstance(step, Intend):
        assert (noes, set(step.answers)) == ([], set(rules))
    elif (
        name in ("preview_possible", "target_agrees", "nothing_to_do")
        or step.refusal.reason is not Reason.NEEDS_APPROVAL
    ):
        assert noes == [name]


def test_the_lock_tells_what_it_asks_once_more() -> None:
    """On the facts that it has read itself; after its no it asks no further."""
    history = History().diagnosed()
    case = Case(NOW, history.ledger, book(), book().ladder[0], settings(), facts(doubts=("e9",)), world())
    said: dict[str, str] = {}
    refusal = locked(case, said)
    assert refusal is not None
    assert [name for name, answer in said.items() if answer] == ["in_doubt"]
    assert said["in_doubt"] == refusal.sentence
    assert "busy" not in said
    assert said["recovering"] == ""


def test_they_are_small() -> None:
    """All of them, with the longest event's sentence: under a kilobyte of a decision that is written once."""
    step, _ = seen(frozenset())
    assert len(repr(dict(step.answers))) < 700
