"""May this rung be done now, and in which way: at once, after a person's yes, or only in words. Pure.

In: a view and the rung whose turn it is, or a person's command. Out: one step. The guardrails are asked in their order.
"""

from __future__ import annotations

import math
from dataclasses import replace

from remediator.actions.base import ALWAYS_ASKED, Risk
from remediator.durations import human
from remediator.guardrails import (
    AFTER_LOOK,
    BEFORE_LOOK,
    BY_HAND,
    HELD_BACK,
    Answers,
    Case,
    bounds,
    first,
    mode_of,
    releasing,
    settling,
    stale,
    storm,
)
from remediator.ledger import Approval, Command, Ledger
from remediator.reasons import Reason, Refusal
from remediator.runbooks import Runbook, Rung
from remediator.sameness import digest_of, digest_of_target, same
from remediator.steps import (
    RETRY,
    STANDING,
    Allowed,
    AskApproval,
    Close,
    Diagnose,
    HandOver,
    Hold,
    Intend,
    Look,
    LookAtFacts,
    LookAtRule,
    Refuse,
    Step,
    View,
    Wait,
    WouldAct,
)
from remediator.world import Answer, World

LONG = 300.0  # seconds for which the same reason has stood, after which it is asked once a minute
HOLDS = (Reason.STORM, Reason.PAUSED, Reason.RELEASING)
"""What holds back many at once, until it is over and each one's turn comes."""
LEAD = 2.0  # seconds before the end of the settle time at which the last look begins


def decide(view: View, book: Runbook, rung: Rung) -> Step:
    """What comes of this rung now: an intent, a question, a word of the shadow, something to look at, or a refusal."""
    if view.facts is None:
        return LookAtFacts()
    case = Case(
        now=view.now,
        ledger=view.ledger,
        book=book,
        rung=rung,
        settings=view.settings,
        facts=view.facts,
        world=view.world,
        must_ask=rung.approval or view.risks[rung.action] in ALWAYS_ASKED or _target_asks(view, rung),
        approved=_approval(view, rung) is not None,
    )
    said: Answers = {}
    refusal = first(BEFORE_LOOK, case, said)
    if refusal is not None and refusal.reason is Reason.STALE_ALERT:
        return _give_up(view, refusal)
    if (late := _expired(view, case)) is not None:
        return late
    if refusal is not None:
        return _refuse(view, refusal, rung, said)
    evidence = not (rung.diagnose_first and book.diagnosis) or rung.name in view.ledger.diagnosed
    if view.world is None and (held := _held_back(case, said)) is not None:
        return _sit_out(view, case, held, said)
    early = first((settling,), case, said)
    ends = early.earliest or view.now if early else view.now
    if evidence and early is not None and view.now < ends - LEAD:
        return _refuse(view, replace(early, earliest=ends - LEAD), rung, said)
    if view.world is None:
        return Look(rung)
    if rung.same_target and not same(view.ledger.last, view.world):
        why = f"The rung before acted on something else than {rung.name} would: the cause is another one."
        return HandOver("another_cause", why, "RemediationNeedsPeople")
    limits = bounds(case)
    refusal = first(AFTER_LOOK, case, said) or first(
        tuple(rule for rule in limits if rule is not releasing), case, said
    )
    if refusal is None and not evidence:
        return Diagnose(rung)
    if refusal is None and releasing in limits and not _no_stands(view, case):
        # Last of all: whoever cannot go would be first in turn, be refused again, and keep all others waiting.
        refusal = first((releasing,), case, said)
    if refusal is None:
        return Hold(ends) if early else _allowed(view, case, view.world, said)
    if refusal.reason is Reason.RULE_CLEARED:
        return Close("cleared", refusal.sentence, _restarted(view.ledger, rung, view.world))
    if refusal.reason is Reason.RECURRENCE:
        return HandOver("recurrence", refusal.sentence, "RemediationRecurs")
    if refusal.reason is Reason.RELEASING and _only_waits(view, case):
        return Wait(view.now + STANDING)
    return _refuse(view, _not_after(refusal, early), rung, said)


def _not_after(refusal: Refusal, early: Refusal | None) -> Refusal:
    """While it settles, decide again at its end at the latest: no answer now must not delay a later yes."""
    if early is None or early.earliest is None:
        return refusal
    return replace(refusal, earliest=min(refusal.earliest or early.earliest, early.earliest))


def _allowed(view: View, case: Case, world: World, said: Answers) -> Step:
    """Nothing forbids it. The mode says whether it is done, asked for, or only written down."""
    ledger, rung = view.ledger, case.rung
    mode = mode_of(case.facts, case.book, view.settings.guards)
    if mode == "shadow":
        return _waits(view, rung, None, said) if _told(ledger, rung, world) else WouldAct(rung, world, said)
    if mode == "approve" or case.must_ask or _declined(view, rung):
        return _asked(view, case, world, said)
    return Intend(rung, world, case, answers=said)


def _told(ledger: Ledger, rung: Rung, world: World) -> bool:
    """Has the shadow said so? Of another container or query it says it anew, as a person would be asked anew."""
    same = ledger.would_act_digest in ("", digest_of_target(rung, world))
    return rung.name in ledger.would_act and same


def _restarted(ledger: Ledger, rung: Rung, world: World) -> bool:
    """Is a container another one than the shadow would have acted on, so that it was not over all by itself?"""
    items = world.preview.items if world.preview is not None else ()
    return bool(ledger.would_act) and any("started_at" in item for item in items) and not _told(ledger, rung, world)


def _asked(view: View, case: Case, world: World, answers: Answers) -> Step:
    """A person decides, on exactly what the preview shows now; another preview is another question."""
    rung, ledger = case.rung, view.ledger
    approved = _approval(view, rung)
    if approved is not None:
        return Intend(rung, world, case, approved.id, answers)
    attempt, digest = ledger.tries(rung.name) + 1, digest_of(rung, world)
    asked = ledger.approval
    if asked is not None and _declined(view, rung):
        said = f"{asked.declined_by} declined it: {asked.reason}"
        return _refuse(view, Refusal(Reason.DECLINED, said, view.now + STANDING), rung, answers)
    if asked is None or (asked.rung, asked.attempt, asked.digest) != (rung.name, attempt, digest) or asked.used:
        persons = 2 if view.risks[rung.action] is Risk.DESTRUCTIVE else 1
        return AskApproval(rung, world, digest, view.now + case.book.approve_within, persons, attempt, answers)
    return _waits(view, rung, Reason.NEEDS_APPROVAL, answers, asked.good_until)


def _expired(view: View, case: Case) -> HandOver | None:
    """The time to answer is over, whatever forbids it meanwhile: nobody is asked for what cannot be said yes to."""
    asked = view.ledger.approval
    if asked is None or asked.used or asked.declined_by or view.now < asked.good_until or not _must_ask(view, case):
        return None
    if (asked.rung, asked.attempt) != (case.rung.name, view.ledger.tries(case.rung.name) + 1):
        return None
    waited = human(asked.good_until - asked.asked_at)
    what = "Approved but not done" if asked.given else "No answer"
    return HandOver("approval_expired", f"{what} within {waited}: {asked.summary}", "RemediationNeedsPeople")


def _must_ask(view: View, case: Case) -> bool:
    """Is it for a person to say yes now? A shadow asks nobody."""
    mode = mode_of(case.facts, case.book, view.settings.guards)
    return mode == "approve" or (mode == "auto" and case.must_ask)


def _waits(view: View, rung: Rung, why: Reason | None, said: Answers, until: float = math.inf) -> Step:
    """It waits on; if something had forbidden it meanwhile, that is over, and must not look as if it were not."""
    return Allowed(rung, why, said) if view.ledger.refused else Wait(min(view.now + STANDING, until))


def _declined(view: View, rung: Rung) -> bool:
    """A person said no to this rung: that holds for the episode, also when it might go without asking by now."""
    asked = view.ledger.approval
    return asked is not None and asked.rung == rung.name and asked.declined_by is not None


def _no_stands(view: View, case: Case) -> bool:
    """A person's no is the answer, whose turn it may be; a shadow says what it would do all the same."""
    return _declined(view, case.rung) and mode_of(case.facts, case.book, view.settings.guards) != "shadow"


def _target_asks(view: View, rung: Rung) -> bool:
    """Does the target itself say that a person must agree, to what it would lose for instance?

    Before the look it does where it did when the question was asked that still stands, answered with yes or not yet.
    """
    if view.world is not None:
        return view.world.preview is not None and bool(view.world.preview.asks)
    asked = view.ledger.approval
    stands = asked is not None and asked.used is None and asked.declined_by is None
    return asked is not None and stands and asked.target_asked and asked.rung == rung.name


def _approval(view: View, rung: Rung) -> Approval | None:
    """The approval that lets this rung's next try go now: given, unused, in time, and for what the look shows."""
    asked = view.ledger.approval
    if asked is None or not asked.given or asked.declined_by or asked.used or view.now >= asked.good_until:
        return None
    if (asked.rung, asked.attempt) != (rung.name, view.ledger.tries(rung.name) + 1):
        return None
    return asked if view.world is not None and asked.digest == digest_of(rung, view.world) else None


def _give_up(view: View, refusal: Refusal) -> Step:
    if view.rule is None:
        return LookAtRule()
    if view.rule is Answer.NO:
        return Close("cleared", "The rule is not true any more.")
    said = f" Before that: {view.ledger.refused}." if view.ledger.refused else ""
    return HandOver(Reason.STALE_ALERT, f"{refusal.sentence}{said}", "RemediationNeedsPeople")


def _held_back(case: Case, said: Answers) -> Refusal | None:
    """What holds hundreds at once is asked before the look, which would be made of each of them for nothing.

    Not of one that something else has forbidden: it would be held back again, be the first whose turn it is, be refused
    for that other thing, and keep all others waiting for ever.
    """
    elsewhere = case.ledger.refused and case.ledger.refused not in HOLDS
    return first((storm,) if elsewhere else HELD_BACK, case, said)


def _sit_out(view: View, case: Case, refusal: Refusal, said: Answers) -> Step:
    """In a storm, and after it, hundreds wait: no look at each target, only at the rule, so that it comes to an end."""
    if view.rule is None:
        return LookAtRule()
    if view.rule is Answer.NO and view.ledger.would_act:
        return Look(case.rung)  # whether it was over by itself, the container says
    if view.rule is Answer.NO:
        return Close("cleared", "The rule is not true any more.")
    if refusal.reason is Reason.RELEASING and _only_waits(view, case):
        return Wait(view.now + STANDING)
    return _refuse(view, refusal, case.rung, said)


def _only_waits(view: View, case: Case) -> bool:
    """Does it wait for a person's answer, or as a shadow that has spoken, and for nothing else?

    Then it is in nobody's way, and nobody in its way: refused for others it would take turns with them for ever.
    """
    ledger, asked = view.ledger, view.ledger.approval
    if mode_of(case.facts, case.book, view.settings.guards) == "shadow":
        return not ledger.refused and case.rung.name in ledger.would_act
    waits = asked is not None and asked.rung == case.rung.name and asked.open
    return not ledger.refused and waits and _must_ask(view, case)


def _refuse(view: View, refusal: Refusal, rung: Rung, said: Answers) -> Step:
    """Decided again at `earliest`; without one after a short while, as a question may get an answer.

    Where the same has stood in the way for long, and nothing else has happened, it is asked less often.
    """
    latest = view.now + STANDING
    long = view.ledger.refused == refusal.reason and view.now > view.ledger.last_at + LONG
    again = view.now + (STANDING if long else RETRY)
    until = min(max(refusal.earliest, view.now), latest) if refusal.earliest is not None else again
    return Refuse(refusal, rung.name, until, said)


# -- what a person wants done ---------------------------------------------------------------------------------


def decide_command(view: View, book: Runbook, command: Command) -> Step:
    """Once, now, or not at all: a refusal is its end, since nobody waits at a terminal until it may be done."""
    ledger, rung = view.ledger, book.ladder[0]
    if (last := ledger.last) is not None:
        return Close(last.verdict or "did_not_begin", f"{last.summary} {last.detail}")
    if ledger.refused:
        return Close("refused", f"Not done ({ledger.refused}). {command.who} may ask again when that is over.")
    if view.facts is None:
        return LookAtFacts()
    case = Case(view.now, ledger, book, rung, view.settings, view.facts, view.world, command=command)
    said: Answers = {}
    refusal = first((stale,), case, said)
    if refusal is None and view.world is None:
        return Look(rung)
    if refusal is None and view.world is not None:
        refusal = first(BY_HAND, case, said) or _confirmed(rung, view.world, command) or first(bounds(case), case, said)
    if refusal is not None:
        return Refuse(refusal, rung.name, view.now, said)
    if rung.diagnose_first and book.diagnosis and rung.name not in ledger.diagnosed:
        return Diagnose(rung)
    return Intend(rung, case.look(), case, answers=said)


def _confirmed(rung: Rung, world: World, command: Command) -> Refusal | None:
    """Only what was shown is done."""
    if command.digest == digest_of(rung, world):
        return None
    return Refusal(Reason.NEEDS_APPROVAL, "What would be done has changed since it was confirmed: look at it again.")
