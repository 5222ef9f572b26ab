"""The shadow report in sentences, for somebody who has never read a runbook; the same in the API and in prepctl.

In: `shadow.Seen` and `promotion.Record`. Out: text. Pure. A resource, a summary and names come from outside: whoever
prints them takes care of control characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from remediator.durations import human
from remediator.narrative import clock
from remediator.promotion import Record
from remediator.reason_words import words
from remediator.runbooks import Check, Mode, Proof
from remediator.settings import Promotion
from remediator.shadow import Against, Came, Proposal, Seen, Wrong

AGAINST: Mapping[Wrong, str] = {
    Wrong.HEALED_SOON: "it healed by itself right afterwards, so that nothing was needed",
    Wrong.FOUND_HEALTHY: "right afterwards there was nothing wrong with the target, or nothing to act on",
    Wrong.CAUSE_ELSEWHERE: "right afterwards another fault showed itself as the cause",
    Wrong.TARGET_CHANGED: "somebody else was at the target right afterwards, and it was not over with that",
    Wrong.ANOTHER_TARGET: "what it was about was gone right afterwards, and another one was in its place",
    Wrong.PERSON_SAID_NO: "a person said no: silenced it, paused the automation or declined",
    Wrong.NOT_HELPED: "it was done, and it is not shown that it helped",
}
READY: Mapping[Mode, str] = {
    "auto": "ready for auto: it may act by itself",
    "approve": "ready for approve: it may ask a person each time",
    "shadow": "not ready: the evidence supports no more than watching",
}
WOULD: Mapping[Mode, str] = {
    "shadow": "it would have done this",
    "approve": "it asked a person to let it do this",
    "auto": "it did this",
}


def story(seen: Seen) -> tuple[str, ...]:
    """One episode, sentence by sentence: the alert, what stood in the way, the moment to act, the proof, what came."""
    on = ", ".join(f"{name} {value}" for name, value in seen.target.items())
    lines = [f"{clock(seen.opened_at)}: the alert {seen.alert} came for {on}; runbook {seen.runbook} is for it."]
    proposal = seen.proposal
    before = [one for one in seen.answers if proposal is None or one.at < proposal.at]
    lines += [_no(seen, one.at, one.reason, one.sentence) for one in before]
    if proposal is not None:
        lines += [_moment(seen, proposal), proof(seen.book.proof if seen.book else None)]
        lines += [_no(seen, one.at, one.reason, one.sentence) for one in seen.answers if one.at >= proposal.at]
    lines.append(what_came(seen))
    lines += [wrong(one) for one in seen.against if seen.judged]
    if seen.limit is not None:
        lines.append(f"By its limits it would not have acted then, since {words(seen.limit)}: this is no evidence.")
    elif proposal is not None and not seen.against:
        lines.append("Nothing spoke against it." if seen.judged else "It is too early to judge it.")
    return tuple(lines)


def _no(seen: Seen, at: float, reason: str, sentence: str) -> str:
    return f"{_since(seen, at)} it held back, since {words(reason)} ({sentence.strip().rstrip('.')})."


def _since(seen: Seen, at: float) -> str:
    passed = at - seen.opened_at
    return f"{human(passed)} after the alert" if passed >= 1 else "At once"


def _moment(seen: Seen, proposal: Proposal) -> str:
    step = f"step {proposal.step} of {proposal.steps}, {proposal.rung}" if proposal.step else f"step {proposal.rung}"
    what = proposal.summary.strip().rstrip(".")
    return (
        f"{_since(seen, proposal.at)} none of its safety rules said no, and {WOULD[proposal.mode]} ({step}): "
        f"{what} ({proposal.action} on {proposal.resource})."
    )


def proof(known: Proof | None) -> str:
    """What would have had to be shown afterwards."""
    if known is None:
        return "What it would have had to prove is not known here: the runbook is not at hand."
    checks = "; ".join(f"{check.name} ({_bound(check)})" for check in known.checks)
    probe = ", and its own request to the target answered well" if known.probe else ""
    return (
        f"Afterwards it counts as mended only when all of this holds for {human(known.hold)} without a break, within "
        f"{human(known.timeout)}: {checks}{probe}. Otherwise the next step follows, or people are called."
    )


def _bound(check: Check) -> str:
    return f"below {check.below:g}" if check.below is not None else f"at least {check.at_least:g}"


def what_came(seen: Seen) -> str:
    """What really came, and whether it came back."""
    after = human(seen.came_after) if seen.came_after is not None else ""
    since = "after the moment to act" if seen.proposal else "after the alert"
    yes = f" after the yes of {', '.join(seen.approved_by)}" if seen.approved_by else ""
    match seen.came:
        case Came.OPEN:
            said = "It is not over yet."
        case Came.HEALED:
            said = f"What really came: it was over {after} {since}, and nothing shows that anybody acted."
        case Came.PERSON:
            who = seen.person or "somebody changed the target by another way"
            said = f"What really came: a person acted {after} {since} ({who})."
        case Came.LASTED:
            said = f"What really came: it lasted, and people were called {after} {since}."
        case Came.HELPED:
            said = f"What really came: it was done{yes}, and {after} {since} it was proven to have helped."
        case Came.NOT_HELPED:
            said = f"What really came: it was done{yes}, and {after} {since} it was not proven to have helped."
    back = f" It came back {human(seen.back_after)} after its end." if seen.back_after is not None else ""
    return said + back


def wrong(one: Against) -> str:
    """Why it counts as wrong."""
    detail = f" ({one.detail.strip().rstrip('.')})" if one.detail else ""
    return f"It counts as wrong: {AGAINST[one.kind]}{detail}."


def verdict(found: Record, failures: int) -> tuple[str, ...]:
    """The recommendation with its evidence, sentence by sentence; `failures` demote it."""
    lines = [f"{found.runbook} is {READY[found.ready]}.", *_evidence(found), *_way_down(found, failures)]
    for mode in ("approve", "auto"):
        lines += [f"Missing for {mode}: {one}" for one in found.missing[mode]]
    lines += [f"{clock(turn.at)}: {turn.sentence}" for turn in found.turns]
    return tuple(lines)


def _evidence(found: Record) -> Iterable[str]:
    if found.mode is not None:
        yield f"At present its mode is {found.mode}."
    if found.first_at is None or found.last_at is None:
        yield "No episode was seen."
        return
    yield (
        f"Seen: {_many(found.episodes, 'episode')} from {clock(found.first_at)} to {clock(found.last_at)}; in "
        f"{found.proposals} it would have acted or did, and {found.judged} of these can be judged, on "
        f"{_many(found.days, 'day')}."
    )
    if found.limited:
        yield f"At {found.limited} of these moments its own limits would have held it back: they are no evidence."
    if found.judged:
        yield (
            f"Wrong would have been {found.wrong} of {found.judged}; with so few seen, the true share may be up to "
            f"{found.may_be:.0%}."
        )
    for kind, count in sorted(found.wrong_by.items()):
        yield f"Wrong {_times(count)}: {AGAINST[kind]}."
    yield (
        f"Really done and proven to have helped: {_times(found.fixed)}, {_times(found.approved)} after a person's yes. "
        f"Came back soon: {_times(found.came_back)}. Most that one target needed it within 7 days: "
        f"{_times(found.recurrence)}."
    )
    for reason, count in sorted(found.refused.items(), key=lambda pair: (-pair[1], pair[0])):
        yield f"Held back in {_many(count, 'episode')}, since {words(reason)}."
    if found.others:
        yield f"{_many(found.others, 'more episode')} of another version of the runbook: no evidence for this one."


def _way_down(found: Record, failures: int) -> Iterable[str]:
    if found.demoted is not None:
        why = found.demoted.strip().rstrip(".")
        yield f"It has lost the right to act by itself ({why}); a person gives it back (prepctl runbook:restore)."
    elif found.acted:
        yield (
            f"Of its last {_many(found.acted, 'episode')} with a deed {found.failed} did not prove to help; {failures} "
            "take the right to act by itself away."
        )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def meaning(numbers: Promotion) -> tuple[str, ...]:
    """What the words of the report count, with its numbers, and what it cannot see."""
    watch, soon = human(numbers.watch), human(numbers.heals_within)
    found = [AGAINST[kind] for kind in Wrong if kind not in (Wrong.HEALED_SOON, Wrong.NOT_HELPED)]
    approve = (
        f"Ready for approve: {numbers.approve_episodes} judged, on {numbers.approve_days} days, at most "
        f"{numbers.approve_wrong:.0%} of them wrong."
    )
    auto = (
        f"Ready for auto: {numbers.auto_episodes} judged, on {numbers.auto_days} days, {numbers.auto_wrong:.0%} "
        f"of them wrong at most; {numbers.auto_fixed} really done after a person's yes and proven; at most "
        f"{numbers.auto_recurrence} on one target within 7 days."
    )
    unseen = "It knows only what was written down: not a cause without an alert, nor what a person did elsewhere."
    return (
        "An episode is one alert on one target, from its beginning to its end. A runbook says what to do about alerts.",
        "In mode shadow it only watches, in approve it asks a person each time, in auto it acts by itself.",
        f"It is judged once it is over or with people, and no earlier than {watch} after the moment to act.",
        f"It counts as wrong when it was over by itself within {soon} of that moment, or when within {watch}:",
        *(f"- {one};" for one in found),
        f"or when {AGAINST[Wrong.NOT_HELPED]}.",
        f"What comes again within {human(numbers.returns_within)} of its end has come back.",
        approve,
        auto,
        unseen,
    )
