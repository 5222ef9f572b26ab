"""What to do next with one episode. Pure: `next_step(view) -> Step`. May a rung be done? That is `deciding.py`.

The engine performs the step, appends what came of it and asks again; it may be interrupted after any step.
A step that needs to see the world says so (`Look`, `LookAtProof`, `LookAtRule`), and the engine asks again with
what it saw. Nothing here waits, reads a clock or talks to anybody.

Order of one episode:
    doubt first   a begun attempt without a known end is settled before anything else is thought of
    proof second  a done one is proved, for the whole hold time
    people third  what was handed over stays so until the rule is not true any more
    then          refuse, look, diagnose, settle, look again, intend (evidence is read while it settles, and the last
                  look is made just before its end, so that the intent follows at once)
"""

from __future__ import annotations

from remediator.deciding import decide, decide_command
from remediator.durations import human
from remediator.events import Verdict
from remediator.ledger import Attempt, Ledger
from remediator.runbooks import Runbook, Rung
from remediator.steps import (
    RETRY,
    STANDING,
    Close,
    HandOver,
    LookAtProof,
    LookAtRule,
    RecordProof,
    SettleDoubt,
    Step,
    View,
    Wait,
)
from remediator.verification import judge
from remediator.world import Answer

PATIENCE = 60.0  # seconds for which an open doubt is asked about before people are told; the asking goes on each minute
LONGEST_START = 60.0  # seconds from the intent in which an effect may begin at the latest; start_by is another clock's
UNMATCHED_DAYS = 1.0


def next_step(view: View) -> Step:
    """The one next step. Deterministic; the same view always gives the same step."""
    last = view.ledger.last
    if last is not None and last.in_doubt:
        return _doubt(view, last)
    if view.book is None:
        return _without_runbook(view)
    if last is not None and last.took_effect and last.verdict is None:
        return _prove(view, view.book, last)
    if view.ledger.command is not None:
        return decide_command(view, view.book, view.ledger.command)
    if view.ledger.handed_over or (last is not None and last.verdict is Verdict.FIXED):
        return _standing(view, view.book)
    rung = _rung(view.book, view.ledger)
    if isinstance(rung, HandOver):
        return rung
    return decide(view, view.book, rung)


# -- what was begun -------------------------------------------------------------------------------------


def _doubt(view: View, attempt: Attempt) -> Step:
    """Nothing is concluded before the attempt's whole duration has passed; then the target is asked."""
    over = max(attempt.at, view.ledger.taken_over_at) + attempt.deadline
    over = max(over, min(attempt.start_by, attempt.at + LONGEST_START))
    if view.now < over:
        return Wait(over)
    told = view.ledger.handed_over == "in_doubt"
    if told or (attempt.settlement is None and view.now < over + PATIENCE):
        return SettleDoubt(attempt)
    why = attempt.detail or "The target could not be asked."
    return HandOver("in_doubt", f"Not known whether it took effect: {attempt.summary} {why}", "RemediationInDoubt")


def _prove(view: View, book: Runbook, attempt: Attempt) -> Step:
    if view.proof is None:
        return LookAtProof(attempt)
    judged = judge(attempt, book.proof, view.proof, view.last_round)
    return RecordProof(attempt, judged, view.proof, view.now + (0.0 if judged.verdict else book.proof.every))


# -- what people have, or nobody needs any more -----------------------------------------------------------


def _without_runbook(view: View) -> Step:
    """No runbook, no target, or not ours: journaled, open while it fires so that a reload can match it."""
    if view.ledger.last_delivery == "resolved":
        return Close("resolved", "Resolved by itself; no runbook was involved.")
    if view.now > view.ledger.last_at + UNMATCHED_DAYS * 86400.0:
        return Close("expired", "Not heard of for a day; no runbook was involved.")
    return Wait(view.now + STANDING)


def _standing(view: View, book: Runbook) -> Step:
    """Handed over, or proved: it ends when every Prometheus says that the rule is not true."""
    ledger = view.ledger
    if view.rule is None:
        return LookAtRule()
    if view.rule is Answer.NO:
        told_until = ledger.handed_over_at + max(STANDING, book.proof.hold)
        if ledger.handed_over and view.now < told_until:
            # a fault that comes and goes must not take its page back before anybody got it
            return Wait(min(told_until, view.now + STANDING))
        if ledger.handed_over:
            return Close("cleared", f"The rule is not true any more, after it was handed over ({ledger.handed_over}).")
        return Close("fixed", "Proven fixed, and the rule is not true any more.")
    last = ledger.last
    if not ledger.handed_over and last is not None and view.now > last.verdict_at + book.proof.timeout:
        waited = human(view.now - last.verdict_at)
        return HandOver("still_firing", f"Proven fixed, yet the rule is true {waited} later.", "RemediationNeedsPeople")
    return Wait(view.now + (STANDING if ledger.handed_over else RETRY))


# -- what could be done -----------------------------------------------------------------------------------


def _rung(book: Runbook, ledger: Ledger) -> Rung | HandOver:
    """The rung whose turn it is, mildest first; people after the last one or at the first doubt."""
    last = ledger.last
    if last is None:
        return book.ladder[0]
    rung = book.rung(last.rung)
    if rung is None:
        return HandOver("runbook_changed", f"The runbook has no rung {last.rung!r} any more.", "RemediationNeedsPeople")
    if last.did_not_begin:
        if ledger.tries(rung.name) < rung.attempts:
            return rung
        return HandOver("did_not_begin", f"{last.summary} did not begin: {last.detail}", "RemediationFailed")
    if last.verdict is Verdict.NOT_FIXED:
        following = book.ladder.index(rung) + 1
        if following < len(book.ladder):
            return book.ladder[following]
        return HandOver("not_fixed", f"{last.summary}: done, and not fixed. It was the last rung.", "RemediationFailed")
    verdict = last.verdict or Verdict.UNKNOWN
    return HandOver(verdict, f"{last.summary}: done, and the verdict is {verdict}.", "RemediationFailed")
