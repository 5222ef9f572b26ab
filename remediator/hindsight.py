"""Looking back: episodes read as a person reads them afterwards.

    seen = look_back(histories, own, books, numbers, now)

In: the events of many episodes, those of the journal's own stream, the runbooks they were decided on. Out: one `Seen`
an episode. Pure. It counts only what the journal says: what is not written there did not speak against anything, and
docs/trust-by-steps.md says so. A proposal is judged no earlier than `numbers.watch` after it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nextafter

from remediator.events import Event, Kind, Verdict
from remediator.ledger import Ledger, fold
from remediator.narrative import VERDICTS
from remediator.reasons import Reason
from remediator.runbooks import Runbook
from remediator.settings import Promotion
from remediator.shadow import AFTERWARDS, PROPOSALS, Against, Answer, Came, Proposal, Seen, Wrong

HOUR, DAY = 3600.0, 86400.0
OVER = ("resolved", "cleared", "fixed", "expired")
"""Reasons of a close that say: what was wrong is not wrong any more, or nobody hears of it."""


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What went on around an episode: persons' commands, alerts by name, storms."""

    commands: Sequence[Ledger]
    alerts: Mapping[tuple[str, str], Sequence[Ledger]]
    storms: Sequence[Event]
    numbers: Promotion
    now: float


def look_back(
    histories: Mapping[str, Sequence[Event]],
    own: Sequence[Event],
    books: Mapping[str, Runbook],
    numbers: Promotion,
    now: float,
) -> tuple[Seen, ...]:
    """Every episode that has a runbook and no command, the oldest first.

    histories  events of each episode, from `opened` on
    own        the journal's own stream (`events.OWN`)
    books      by digest, and by name for episodes that do not tell theirs
    """
    ledgers = {name: fold(events) for name, events in histories.items()}
    alerts: dict[tuple[str, str], list[Ledger]] = {}
    for ledger in ledgers.values():
        alerts.setdefault(_named(ledger.alert.name, ledger), []).append(ledger)
    commands = [ledger for ledger in ledgers.values() if ledger.command is not None]
    storms = [event for event in own if event.kind is Kind.STORM_BEGAN]
    around = Backdrop(commands, alerts, storms, numbers, now)
    found = []
    for name, ledger in ledgers.items():
        if ledger.runbook is not None and ledger.command is None:
            book = books.get(ledger.digest or ledger.runbook)
            found.append(_seen(histories[name], ledger, book, around))
    found.sort(key=lambda one: (one.opened_at, one.episode))
    return tuple(_within_limits(list(_returning(found, numbers.returns_within))))


def _seen(events: Sequence[Event], ledger: Ledger, book: Runbook | None, around: Backdrop) -> Seen:
    proposal, ended = _proposal(events, book), _ended(events, ledger)
    since = proposal.at if proposal else ledger.first_seen
    person = _person(ledger, since, ended or around.now, around)
    against = _against(events, ledger, proposal, book, person, around) if proposal else ()
    mended = ended if events[-1].data.get("changed") else None
    came, at = _came(ledger, ended, mended, person, against)
    if proposal is not None and came is Came.HEALED and at is not None and at - since <= around.numbers.heals_within:
        against = (Against(Wrong.HEALED_SOON, at, ""), *against)
    elif proposal is not None and came is Came.NOT_HELPED and at is not None:
        against = (Against(Wrong.NOT_HELPED, at, _end_of_attempt(ledger)), *against)
    asked = ledger.approval
    return Seen(
        episode=ledger.episode,
        alert=ledger.alert.name,
        runbook=ledger.runbook or "",
        target=ledger.target,
        opened_at=ledger.first_seen,
        ended_at=ended,
        answers=tuple(_answer(event) for event in events if event.kind is Kind.REFUSED),
        proposal=proposal,
        came=came,
        came_after=None if at is None else max(0.0, at - since),
        book=book,
        person=person[1] if person else "",
        verdict=ledger.last.verdict if ledger.last else None,
        approved_by=asked.approved_by if asked else (),
        against=against,
        judged=proposal is not None and came is not Came.OPEN and around.now >= since + around.numbers.watch,
    )


def _answer(event: Event) -> Answer:
    return Answer(event.at, event.data["reason"], event.data["sentence"])


def _proposal(events: Sequence[Event], book: Runbook | None) -> Proposal | None:
    first = next((event for event in events if event.kind in PROPOSALS), None)
    if first is None:
        return None
    data = first.data
    names = [rung.name for rung in book.ladder] if book else []
    step = names.index(data["rung"]) + 1 if data["rung"] in names else 0
    resource, summary = data.get("resource", ""), data.get("summary", "")
    mode = PROPOSALS[first.kind]
    return Proposal(first.at, mode, data["rung"], step, len(names), data["action"], resource, summary)


def _ended(events: Sequence[Event], ledger: Ledger) -> float | None:
    """When it was over: closed, or told to be resolved before that and never firing again."""
    if ledger.closed not in OVER:
        return events[-1].at if ledger.closed is not None else None
    ended = events[-1].at
    for event in reversed(events):
        if event.kind is Kind.OBSERVED:
            return event.at if event.data["alert"]["status"] == "resolved" else ended
    return ended


def _person(ledger: Ledger, since: float, until: float, around: Backdrop) -> tuple[float, str] | None:
    """Who acted on the target by the remediator's own way meanwhile, and when."""
    for other in around.commands:
        if other.command is None or other.target.get("service") != ledger.target.get("service"):
            continue
        for attempt in other.attempts:
            if not attempt.did_not_begin and since <= attempt.at <= until:
                return attempt.at, f"{other.command.who} did {attempt.action}"
    return None


def _came(
    ledger: Ledger,
    ended: float | None,
    mended: float | None,
    person: tuple[float, str] | None,
    against: Iterable[Against],
) -> tuple[Came, float | None]:
    """What came, and when that was; `mended` when somebody changed the target and it was over with that."""
    last = ledger.last
    if last is not None and not last.did_not_begin:
        if last.verdict is None and not last.in_doubt:
            return Came.OPEN, None
        helped = last.verdict is Verdict.FIXED
        return (Came.HELPED if helped else Came.NOT_HELPED), last.verdict_at or last.effect_at
    if person is not None:
        return Came.PERSON, person[0]
    if mended is not None:
        return Came.PERSON, mended
    changed = next((one for one in against if one.kind is Wrong.TARGET_CHANGED), None)
    if changed is not None:
        return Came.PERSON, changed.at
    if ledger.handed_over is not None:
        return Came.LASTED, ledger.handed_over_at
    return (Came.HEALED, ended) if ended is not None else (Came.OPEN, None)


def _end_of_attempt(ledger: Ledger) -> str:
    last = ledger.last
    return "" if last is None else VERDICTS[last.verdict or Verdict.UNKNOWN]


def _against(
    events: Sequence[Event],
    ledger: Ledger,
    proposal: Proposal,
    book: Runbook | None,
    person: tuple[float, str] | None,
    around: Backdrop,
) -> tuple[Against, ...]:
    """What was found within the watch after the proposal, each kind once, the earliest of it."""
    until = proposal.at + around.numbers.watch
    found = [one for one in _in_episode(events, proposal) if one.at <= until]
    found += _declined(events)
    found += [one for one in _elsewhere(ledger, book, around) if proposal.at < one.at <= until]
    if person is not None:  # that the target changed is explained by who did it through us
        found = [one for one in found if one.kind is not Wrong.TARGET_CHANGED]
    found.sort(key=lambda one: one.at)
    return tuple({one.kind: one for one in reversed(found)}.values())[::-1]


def _in_episode(events: Sequence[Event], proposal: Proposal) -> Iterable[Against]:
    """What the guardrails and people said afterwards, and another target in the place of the first."""
    acted = False
    for event in events:
        if event.at < proposal.at or event.data.get("rung", proposal.rung) != proposal.rung:
            continue
        acted = acted or event.kind is Kind.INTENT
        if event.kind is Kind.REFUSED and not acted and event.data["reason"] in AFTERWARDS:
            yield Against(AFTERWARDS[event.data["reason"]], event.at, event.data["sentence"])
        elif event.kind is Kind.WOULD_ACT and event.at > proposal.at:  # a question is bound to what it is about
            yield Against(Wrong.ANOTHER_TARGET, event.at, f"it would have been this by then: {event.data['summary']}")


def _declined(events: Sequence[Event]) -> Iterable[Against]:
    """A person's no to the question counts whenever it comes: to be woken takes its time."""
    for event in events:
        if event.kind is Kind.DECLINED:
            yield Against(Wrong.PERSON_SAID_NO, event.at, f"{event.data['who']} declined it: {event.data['reason']}")


def _elsewhere(ledger: Ledger, book: Runbook | None, around: Backdrop) -> Iterable[Against]:
    """A cause's own alert, or a storm: the fault was another one."""
    causes = book.blocked_by if book else ()
    for cause in causes:
        for other in around.alerts.get(_named(cause, ledger), ()):
            yield Against(Wrong.CAUSE_ELSEWHERE, other.first_seen, f"{cause} came")
    for event in around.storms:
        yield Against(Wrong.CAUSE_ELSEWHERE, event.at, f"{event.data['open']} episodes were open at once")


def _named(alertname: str, ledger: Ledger) -> tuple[str, str]:
    """An alert in the environment of this episode: staging's database is no cause of production's symptom."""
    return alertname, ledger.alert.labels.get("environment", "")


def _returning(found: Sequence[Seen], within: float) -> Iterable[Seen]:
    """Each with the time after which the same came back. What came before its end is not its return."""
    times: dict[tuple[str, ...], list[float]] = {}
    for one in found:
        times.setdefault(_fault(one), []).append(one.opened_at)
    for one in found:
        if one.ended_at is None:
            yield one
            continue
        opened = times[_fault(one)]
        later = opened[bisect_left(opened, max(one.ended_at, nextafter(one.opened_at, inf))) :]
        again = later[0] - one.ended_at if later else inf
        yield replace(one, back_after=again) if again <= within else one


def _fault(one: Seen) -> tuple[str, ...]:
    """What makes two episodes the same: the runbook and its target, whichever of its alerts told of it."""
    return one.runbook, *sorted(one.target.values())


def _within_limits(found: Sequence[Seen]) -> Iterable[Seen]:
    """A shadow charges nothing, so its limits never say no: judged here by what it would have done before.

    What a limit would have held back is no evidence. The bounds over all runbooks (`guards`) are not asked.
    """
    done: list[tuple[float, str, str]] = []
    limits: dict[str, Reason] = {}
    proposed = [(one.proposal.at, one.episode, one.proposal, one) for one in found if one.proposal is not None]
    for at, episode, proposal, one in sorted(proposed, key=lambda each: each[:2]):
        limit = _limit(proposal, one, done) if proposal.mode == "shadow" else None
        if limit is not None:
            limits[episode] = limit
        elif proposal.mode == "shadow" or one.verdict is not None:
            done.append((at, proposal.resource, one.runbook))
    for one in found:
        limit = limits.get(one.episode)
        yield one if limit is None else replace(one, limit=limit, judged=False)


def _limit(proposal: Proposal, one: Seen, done: Sequence[tuple[float, str, str]]) -> Reason | None:
    """The limit that these deeds before have used up."""
    if one.book is None:
        return None
    limits = one.book.limits
    here = [at for at, resource, _ in done if resource == proposal.resource]
    mine = [at for at, _, runbook in done if runbook == one.runbook]
    if here and proposal.at < max(here) + limits.cooldown:
        return Reason.COOLDOWN
    for window, most in ((HOUR, limits.per_hour), (DAY, limits.per_day)):
        if any(sum(at > proposal.at - window for at in times) >= most for times in (here, mine)):
            return Reason.RATE_LIMIT
    return None
