"""What to do next with one episode. Pure: `next_step(view) -> Step`.

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

import hashlib
import json
import math
from dataclasses import dataclass, replace

from remediator.actions.base import ALWAYS_ASKED, Item, Preview, Risk
from remediator.durations import human
from remediator.events import Verdict
from remediator.facts import Facts
from remediator.guardrails import AFTER_LOOK, BEFORE_LOOK, BY_HAND, Case, bounds, first, mode_of, settling, stale, storm
from remediator.ledger import Approval, Attempt, Command, Ledger
from remediator.reasons import Reason, Refusal
from remediator.runbooks import Runbook, Rung
from remediator.settings import Settings
from remediator.verification import Judged, judge
from remediator.world import Answer, ProofLook, World

RETRY = 15.0  # seconds until a question without an answer is asked again
PATIENCE = 60.0  # seconds for which an open doubt is asked about before people are told; the asking goes on
LEAD = 2.0  # seconds before the end of the settle time at which the last look begins
STANDING = 60.0  # seconds between two looks at what people have in hand; also the longest wait without a reason
UNMATCHED_DAYS = 1.0


@dataclass(frozen=True, slots=True)
class View:
    """Everything the planner may know.

    risks       risk of each action by name
    world       the look for this rung, None before it
    proof       one round of proof, None before it
    rule        what Prometheus says of the alert's rule, None before it was asked
    last_round  when this process last asked a round of this proof, None when it has not
    """

    now: float
    ledger: Ledger
    book: Runbook | None
    settings: Settings
    facts: Facts
    risks: dict[str, Risk]
    world: World | None = None
    proof: ProofLook | None = None
    rule: Answer | None = None
    last_round: float | None = None


# -- steps --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing now; due again at `until` (UNIX seconds)."""

    until: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing until `until`, seconds away, and what was seen is kept: the last look is made in good time."""

    until: float


@dataclass(frozen=True, slots=True)
class Look:
    """See everything that can forbid this rung, then ask again."""

    rung: Rung


@dataclass(frozen=True, slots=True)
class LookAtProof:
    """Ask one round of proof, then ask again."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class LookAtRule:
    """Ask every Prometheus whether the alert's rule is true, then ask again."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Write down why not (once per reason and rung), and decide again at `until`."""

    refusal: Refusal
    rung: str | None
    until: float


@dataclass(frozen=True, slots=True)
class Diagnose:
    """Capture evidence before a restart destroys it."""

    rung: Rung


@dataclass(frozen=True, slots=True)
class WouldAct:
    """Shadow: write what would be done."""

    rung: Rung
    world: World


@dataclass(frozen=True, slots=True)
class AskApproval:
    """Ask people for exactly this; it waits for them until `good_until`.

    digest   of what would be done (`digest_of`): an approval is good for nothing else
    persons  how many different people must say yes
    attempt  which try of this rung it would be: an approval pays for one
    """

    rung: Rung
    world: World
    digest: str
    good_until: float
    persons: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Allowed:
    """Write down that what forbade it is over: it waits for a person again, or as a shadow (`waits` None)."""

    rung: Rung
    waits: Reason | None


@dataclass(frozen=True, slots=True)
class Intend:
    """Write the intent, under the lock and with the limits judged again, then act. It consumes the approval, if any."""

    rung: Rung
    world: World
    case: Case
    approval: str | None = None


@dataclass(frozen=True, slots=True)
class SettleDoubt:
    """Ask the target whether an attempt with an unknown end took effect."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class RecordProof:
    """Write what this round of proof showed, when it changed something; due again at `until`."""

    attempt: Attempt
    judged: Judged
    look: ProofLook
    until: float


@dataclass(frozen=True, slots=True)
class HandOver:
    """To people: a standing state, told again each minute until the rule is not true any more."""

    reason: str
    sentence: str
    alertname: str


@dataclass(frozen=True, slots=True)
class Close:
    """The episode is over. `changed`: the container is another one than the shadow would have acted on."""

    reason: str
    sentence: str
    changed: bool = False


Step = (
    Wait
    | Hold
    | Look
    | LookAtProof
    | LookAtRule
    | Refuse
    | Diagnose
    | WouldAct
    | AskApproval
    | Allowed
    | Intend
    | SettleDoubt
    | RecordProof
    | HandOver
    | Close
)


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
        return _by_hand(view, view.book, view.ledger.command)
    if view.ledger.handed_over or (last is not None and last.verdict is Verdict.FIXED):
        return _standing(view, view.book)
    rung = _rung(view.book, view.ledger)
    if isinstance(rung, HandOver):
        return rung
    return _decide(view, view.book, rung)


# -- what was begun -------------------------------------------------------------------------------------


def _doubt(view: View, attempt: Attempt) -> Step:
    """Nothing is concluded before the attempt's whole duration has passed; then the target is asked."""
    over = max(attempt.at, view.ledger.taken_over_at) + attempt.deadline
    if view.now < over:
        return Wait(over)
    told = view.ledger.handed_over == "in_doubt"
    if attempt.settlement is None and (told or view.now < over + PATIENCE):
        return SettleDoubt(attempt)
    if not told:
        why = attempt.detail or "The target could not be asked."
        return HandOver("in_doubt", f"Not known whether it took effect: {attempt.summary} {why}", "RemediationInDoubt")
    return Wait(view.now + STANDING)


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


def _decide(view: View, book: Runbook, rung: Rung) -> Step:
    case = Case(
        now=view.now,
        ledger=view.ledger,
        book=book,
        rung=rung,
        settings=view.settings,
        facts=view.facts,
        world=view.world,
        must_ask=rung.approval or view.risks[rung.action] in ALWAYS_ASKED or _target_asks(view.world),
        approved=_approval(view, rung) is not None,
    )
    refusal = first(BEFORE_LOOK, case)
    if refusal is not None and refusal.reason is Reason.STALE_ALERT:
        return _give_up(view, refusal)
    if refusal is not None:
        return _refuse(view, refusal, rung)
    evidence = not (rung.diagnose_first and book.diagnosis) or rung.name in view.ledger.diagnosed
    if view.world is None and (storming := storm(case)) is not None:
        return _sit_out(view, storming, rung)
    early = settling(case)
    ends = early.earliest or view.now if early else view.now
    if evidence and early is not None and view.now < ends - LEAD:
        return _refuse(view, replace(early, earliest=ends - LEAD), rung)
    if view.world is None:
        return Look(rung)
    if rung.same_target and not _same(view.ledger.last, view.world):
        said = f"The rung before acted on something else than {rung.name} would: the cause is another one."
        return HandOver("another_cause", said, "RemediationNeedsPeople")
    refusal = first(AFTER_LOOK, case) or first(bounds(case), case)
    if refusal is None and not evidence:
        return Diagnose(rung)
    if refusal is None:
        return Hold(ends) if early else _allowed(view, case, view.world)
    if refusal.reason is Reason.RULE_CLEARED:
        return Close("cleared", refusal.sentence, _restarted(view.ledger, rung, view.world))
    if refusal.reason is Reason.RECURRENCE:
        return HandOver("recurrence", refusal.sentence, "RemediationRecurs")
    return _refuse(view, _not_after(refusal, early), rung)


# -- what a person wants done ---------------------------------------------------------------------------------


def _by_hand(view: View, book: Runbook, command: Command) -> Step:
    """Once, now, or not at all: a refusal is its end, since nobody waits at a terminal until it may be done."""
    ledger, rung = view.ledger, book.ladder[0]
    if (last := ledger.last) is not None:
        return Close(last.verdict or "did_not_begin", f"{last.summary} {last.detail}")
    if ledger.refused:
        return Close("refused", f"Not done ({ledger.refused}). {command.who} may ask again when that is over.")
    case = Case(view.now, ledger, book, rung, view.settings, view.facts, view.world, command=command)
    refusal = stale(case)
    if refusal is None and view.world is None:
        return Look(rung)
    if refusal is None and view.world is not None:
        refusal = first(BY_HAND, case) or _confirmed(rung, view.world, command) or first(bounds(case), case)
    if refusal is not None:
        return Refuse(refusal, rung.name, view.now)
    if rung.diagnose_first and book.diagnosis and rung.name not in ledger.diagnosed:
        return Diagnose(rung)
    return Intend(rung, case.look(), case)


def _confirmed(rung: Rung, world: World, command: Command) -> Refusal | None:
    """Only what was shown is done."""
    if command.digest == digest_of(rung, world):
        return None
    return Refusal(Reason.NEEDS_APPROVAL, "What would be done has changed since it was confirmed: look at it again.")


def _same(last: Attempt | None, world: World) -> bool:
    """Does the preview touch nothing but what the attempt before was about? An empty one touches nothing."""
    if world.preview is None:
        return True
    before = [_identity(item) for item in last.items] if last else []
    return all(_identity(item) in before for item in world.preview.items)


IDENTITY = ("id", "started_at", "pid", "backend_start", "query_start", "failed_at")
"""Of an item: what tells one life of a container, one query of a session, one failure of a payment from every other."""


def _identity(item: Item) -> tuple[object, ...]:
    """What does not change while it is the same container or session, also after it was acted on."""
    return tuple(item.get(name) for name in ("id", "pid", "backend_start"))


def _not_after(refusal: Refusal, early: Refusal | None) -> Refusal:
    """While it settles, decide again at its end at the latest: no answer now must not delay a later yes."""
    if early is None or early.earliest is None:
        return refusal
    return replace(refusal, earliest=min(refusal.earliest or early.earliest, early.earliest))


def _allowed(view: View, case: Case, world: World) -> Step:
    """Nothing forbids it. The mode says whether it is done, asked for, or only written down."""
    ledger, rung = view.ledger, case.rung
    mode = mode_of(view.facts, case.book, view.settings.guards)
    if mode == "shadow":
        return _waits(view, rung, None) if _told(ledger, rung, world) else WouldAct(rung, world)
    if mode == "approve" or case.must_ask or _declined(view, rung):
        return _asked(view, case, world)
    return Intend(rung, world, case)


def _told(ledger: Ledger, rung: Rung, world: World) -> bool:
    """Has the shadow said so? Of another container or query it says it anew, as a person would be asked anew."""
    same = ledger.would_act_digest in ("", digest_of(rung, world))
    return rung.name in ledger.would_act and same


def _restarted(ledger: Ledger, rung: Rung, world: World) -> bool:
    """Is a container another one than the shadow would have acted on, so that it was not over all by itself?"""
    items = world.preview.items if world.preview is not None else ()
    return bool(ledger.would_act) and any("started_at" in item for item in items) and not _told(ledger, rung, world)


def _asked(view: View, case: Case, world: World) -> Step:
    """A person decides, on exactly what the preview shows now; another preview is another question."""
    rung, ledger = case.rung, view.ledger
    approved = _approval(view, rung)
    if approved is not None:
        return Intend(rung, world, case, approved.id)
    attempt, digest = ledger.tries(rung.name) + 1, digest_of(rung, world)
    asked = ledger.approval
    if asked is not None and _declined(view, rung):
        said = f"{asked.declined_by} declined it: {asked.reason}"
        return _refuse(view, Refusal(Reason.DECLINED, said, view.now + STANDING), rung)
    if asked is None or (asked.rung, asked.attempt, asked.digest) != (rung.name, attempt, digest) or asked.used:
        persons = 2 if view.risks[rung.action] is Risk.DESTRUCTIVE else 1
        return AskApproval(rung, world, digest, view.now + case.book.approve_within, persons, attempt)
    if view.now >= asked.good_until:
        waited = human(asked.good_until - asked.asked_at)
        what = "Approved but not done" if asked.given else "No answer"
        return HandOver("approval_expired", f"{what} within {waited}: {asked.summary}", "RemediationNeedsPeople")
    return _waits(view, rung, Reason.NEEDS_APPROVAL, asked.good_until)


def _waits(view: View, rung: Rung, why: Reason | None, until: float = math.inf) -> Step:
    """It waits on; if something had forbidden it meanwhile, that is over, and must not look as if it were not."""
    return Allowed(rung, why) if view.ledger.refused else Wait(min(view.now + STANDING, until))


def _declined(view: View, rung: Rung) -> bool:
    """A person said no to this rung: that holds for the episode, also when it might go without asking by now."""
    asked = view.ledger.approval
    return asked is not None and asked.rung == rung.name and asked.declined_by is not None


def _target_asks(world: World | None) -> bool:
    """Does the target itself say that a person must agree, to what it would lose for instance?"""
    return world is not None and world.preview is not None and bool(world.preview.asks)


def _approval(view: View, rung: Rung) -> Approval | None:
    """The approval that lets this rung's next try go now: given, unused, in time, and for what the look shows."""
    asked = view.ledger.approval
    if asked is None or not asked.given or asked.declined_by or asked.used or view.now >= asked.good_until:
        return None
    if (asked.rung, asked.attempt) != (rung.name, view.ledger.tries(rung.name) + 1):
        return None
    return asked if view.world is not None and asked.digest == digest_of(rung, view.world) else None


def digest_of(rung: Rung, world: World) -> str:
    """What an approval is bound to: action, target and every item's identity; sha256 in hex. "" without a preview.

    Not the measures of an item, which change from look to look while it is the same container or session.
    """
    return "" if world.preview is None else digest_of_preview(rung, world.preview)


def digest_of_preview(rung: Rung, preview: Preview) -> str:
    """The same, where there is only a preview."""
    items = sorted(json.dumps([(name, item[name]) for name in IDENTITY if name in item]) for item in preview.items)
    # A yes to what loses nothing is none to what has come to lose something; how much changes from look to look.
    what = json.dumps([rung.name, rung.action, preview.resource, items, *(["loses"] if preview.asks else [])])
    return hashlib.sha256(what.encode()).hexdigest()


def _give_up(view: View, refusal: Refusal) -> Step:
    if view.rule is None:
        return LookAtRule()
    if view.rule is Answer.NO:
        return Close("cleared", "The rule is not true any more.")
    said = f" Before that: {view.ledger.refused}." if view.ledger.refused else ""
    return HandOver(Reason.STALE_ALERT, f"{refusal.sentence}{said}", "RemediationNeedsPeople")


def _sit_out(view: View, refusal: Refusal, rung: Rung) -> Step:
    """In a storm hundreds wait: no look at each target, only at the rule, so that the storm can come to its end."""
    if view.rule is None:
        return LookAtRule()
    if view.rule is Answer.NO:
        return Close("cleared", "The rule is not true any more.")
    return _refuse(view, refusal, rung)


def _refuse(view: View, refusal: Refusal, rung: Rung) -> Step:
    """Decided again at `earliest`; without one after a short while, as a question may get an answer."""
    latest = view.now + STANDING
    until = min(max(refusal.earliest, view.now), latest) if refusal.earliest is not None else view.now + RETRY
    return Refuse(refusal, rung.name, until)
