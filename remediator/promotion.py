"""Is a runbook ready for more? The evidence of its episodes against the numbers of `settings.promotion`. Pure.

In: episodes as `hindsight.look_back` reads them. Out: one `Record` a runbook, with what is missing in words. It never
recommends more than the evidence shows: of another version of the runbook, of a target that people acted on, of an
episode that is not over, nothing is concluded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import exp, lgamma, log, log1p
from typing import Literal

from remediator.events import Event, Kind
from remediator.facts import RECURRENCE_WINDOW
from remediator.narrative import line
from remediator.runbooks import MODES, Mode, Runbook
from remediator.settings import Promotion
from remediator.shadow import Came, Seen, Wrong

NO_DEEDS = {"mode", "title", "hand_over", "not_automated"}
"""Fields of a runbook that change nothing of what it does, or when."""
CONFIDENCE = 0.95


Change = Literal["promoted", "demoted", "restored"]


@dataclass(frozen=True, slots=True)
class Turn:
    """A runbook's way up or down, from the journal's own stream."""

    at: float
    change: Change
    sentence: str


_CHANGES: Mapping[Kind, Change] = {Kind.PROMOTED: "promoted", Kind.DEMOTED: "demoted", Kind.RESTORED: "restored"}


def turns(own: Sequence[Event], runbook: str) -> tuple[Turn, ...]:
    """How it climbed and fell, the oldest first."""
    return tuple(
        Turn(event.at, _CHANGES[event.kind], line(event))
        for event in own
        if event.kind in _CHANGES and event.data["runbook"] == runbook
    )


@dataclass(frozen=True, slots=True)
class Record:
    """One runbook's evidence.

    mode         what it may do now, None where it is not known
    others       episodes of another version of the runbook: seen, and no evidence for this one
    limited      proposals at which its limits would have held it back: no evidence
    days         different days (UTC) with a judged proposal
    wrong_by     judged proposals by what spoke against them; one may have several
    may_be       the largest share of wrong ones that these numbers leave open, at 95 %
    fixed        proposals that were really done and proven fixed
    approved     of those, the ones that a person had said yes to
    refused      episodes by each reason for which nothing was done in them
    recurrence   the most proposals on one target within 7 days
    acted        its latest episodes in which it acted, as many as its budget looks at, since it was last restored
    failed       of those, the ones that are not proven fixed: what its budget counts
    ready        the freest mode that the evidence supports; `shadow` means: not yet
    missing      per mode, what is missing for it, a sentence each
    """

    runbook: str
    mode: Mode | None
    episodes: int
    others: int
    first_at: float | None
    last_at: float | None
    proposals: int
    limited: int
    judged: int
    days: int
    wrong: int
    wrong_by: Mapping[Wrong, int]
    may_be: float
    came: Mapping[Came, int]
    came_back: int
    fixed: int
    approved: int
    refused: Mapping[str, int]
    recurrence: int
    acted: int
    failed: int
    demoted: str | None
    turns: tuple[Turn, ...]
    ready: Mode
    missing: Mapping[Mode, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a runbook beside its episodes; `book` is what is loaded now, None where that is not known.

    budget  so many episodes the automation's budget looks at (`guards.budget_episodes`)
    """

    book: Runbook | None = None
    mode: Mode | None = None
    demoted: str | None = None
    turns: tuple[Turn, ...] = ()
    budget: int = 10


def record(runbook: str, seen: Sequence[Seen], about: About, numbers: Promotion) -> Record:
    """The evidence for one runbook and what it supports; `seen` are its own episodes."""
    mine = [one for one in seen if _same_deeds(one.book, about.book)]
    proposed = [one for one in mine if one.proposal is not None]
    judged = [one for one in proposed if one.judged]
    wrong = [one for one in judged if one.wrong]
    fixed = [one for one in proposed if one.came is Came.HELPED]
    approved = sum(bool(one.approved_by) for one in fixed)
    days = len({_day(one.proposal.at) for one in judged if one.proposal})
    recurrence = most_in_a_week(one for one in proposed if one.limit is None)
    acted = _acted(seen, about)
    missing: dict[Mode, tuple[str, ...]] = {
        "approve": tuple(_for_approve(len(judged), days, len(wrong), numbers)),
        "auto": tuple(_for_auto(len(judged), days, len(wrong), approved, recurrence, about.demoted, numbers)),
    }
    ready = next((mode for mode in reversed(MODES) if mode in missing and not missing[mode]), MODES[0])
    return Record(
        runbook=runbook,
        mode=about.mode,
        episodes=len(mine),
        others=len(seen) - len(mine),
        first_at=min((one.opened_at for one in mine), default=None),
        last_at=max((one.opened_at for one in mine), default=None),
        proposals=len(proposed),
        limited=sum(one.limit is not None for one in proposed),
        judged=len(judged),
        days=days,
        wrong=len(wrong),
        wrong_by=Counter(kind for one in wrong for kind in {each.kind for each in one.against}),
        may_be=upper_bound(len(wrong), len(judged)),
        came=Counter(one.came for one in proposed),
        came_back=sum(one.back_after is not None for one in proposed),
        fixed=len(fixed),
        approved=approved,
        refused=Counter(reason for one in mine for reason in {answer.reason for answer in one.answers}),
        recurrence=recurrence,
        acted=len(acted),
        failed=sum(one.came is Came.NOT_HELPED for one in acted),
        demoted=about.demoted,
        turns=about.turns,
        ready=ready,
        missing=missing,
    )


def _acted(seen: Sequence[Seen], about: About) -> Sequence[Seen]:
    """What the automation's own budget looks at: of all versions, since a person last restored it."""
    since = max((turn.at for turn in about.turns if turn.change == "restored"), default=0.0)
    done = [one for one in seen if one.came in (Came.HELPED, Came.NOT_HELPED) and one.opened_at > since]
    return done[-about.budget :]


def _same_deeds(one: Runbook | None, other: Runbook | None) -> bool:
    """Would both do the same at the same time? Nothing says otherwise where none is loaded now (`other`); of an episode
    whose own (`one`) is not at hand any more nothing is concluded.
    """
    if other is None:
        return True
    if one is None:
        return False
    return one.model_dump(exclude=NO_DEEDS) == other.model_dump(exclude=NO_DEEDS)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def most_in_a_week(proposed: Iterable[Seen]) -> int:
    """The most proposals on one resource within 7 days."""
    times: dict[str, list[float]] = {}
    for one in proposed:
        if one.proposal is not None:
            times.setdefault(one.proposal.resource, []).append(one.proposal.at)
    counts = (sum(at - RECURRENCE_WINDOW < each <= at for each in mine) for mine in times.values() for at in mine)
    return max(counts, default=0)


def _for_approve(judged: int, days: int, wrong: int, numbers: Promotion) -> Iterable[str]:
    return _enough(judged, days, wrong, (numbers.approve_episodes, numbers.approve_days, numbers.approve_wrong))


def _for_auto(
    judged: int, days: int, wrong: int, approved: int, recurrence: int, demoted: str | None, numbers: Promotion
) -> Iterable[str]:
    yield from _enough(judged, days, wrong, (numbers.auto_episodes, numbers.auto_days, numbers.auto_wrong))
    if approved < numbers.auto_fixed:
        yield (
            f"{numbers.auto_fixed} times it must have been done after a person's yes and proven to help; "
            f"so far {approved}. Only watching cannot show that an action helps."
        )
    if recurrence > numbers.auto_recurrence:
        yield (
            f"One target needed it {recurrence} times within 7 days; over {numbers.auto_recurrence} there is a cause "
            "that a person must find."
        )
    if demoted:
        yield f"It has lost the right to act by itself: {demoted} A person must restore it first."


def _enough(judged: int, days: int, wrong: int, needed: tuple[int, int, float]) -> Iterable[str]:
    """Episodes, days and the share of wrong ones, in this order."""
    episodes, on_days, share = needed
    if judged < episodes:
        yield f"{episodes} times to act must have been seen to their end; so far {judged}."
    if days < on_days:
        yield f"They must lie on {on_days} different days; so far {days}."
    if wrong > share * judged:
        yield f"{wrong} of {judged} would have been wrong; at most {share:.0%} may be."


def upper_bound(wrong: int, judged: int) -> float:
    """The largest true share of wrong ones that is still plausible: Clopper-Pearson, one-sided, at 95 %.

    That `wrong` or fewer of `judged` show has a chance of 5 % if the share is this. 0 of 20: 0.139; of none: 1.0.
    """
    if wrong >= judged:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        chance = sum(exp(_log_chance(k, judged, middle)) for k in range(wrong + 1))
        low, high = (middle, high) if chance > 1 - CONFIDENCE else (low, middle)
    return high


def _log_chance(k: int, of: int, share: float) -> float:
    """Of exactly `k`, by the binomial distribution; as a logarithm, since the coefficients outgrow a float."""
    ways = lgamma(of + 1) - lgamma(k + 1) - lgamma(of - k + 1)
    return ways + k * log(share) + (of - k) * log1p(-share)


def supports(found: Record, to: Mode) -> bool:
    """Does the evidence support this mode?"""
    return MODES.index(found.ready) >= MODES.index(to)
