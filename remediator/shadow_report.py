"""The shadow report whole: every episode's facts and sentences, and what each runbook is ready for. Pure.

In: what the journal holds, read by `shadow_api.py` or from an exported file by prepctl. Out: values that become JSON as
they are, described by `api_models.ShadowReport`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from remediator import shadow_words
from remediator.events import OWN, Event, Kind
from remediator.hindsight import look_back
from remediator.ledger import fold
from remediator.promotion import About, Record, record, turns
from remediator.runbooks import Mode, Runbook
from remediator.settings import Promotion
from remediator.shadow import Seen


@dataclass(frozen=True, slots=True)
class Past:
    """What is looked back at.

    histories    events of each episode from its `opened` on, and those of the journal's own stream under OWN
    documents    runbooks by the digest under which episodes were decided
    books        runbooks that are loaded now, by name; empty where that is not known
    modes        what each may do now, by name
    budget       so many episodes the automation's budget looks at, and how many failures demote
    demoted      those that may only ask now, with the reason
    unreadable   episodes that a newer program wrote, or that begin before what is at hand
    cut          were there more episodes than are looked at?
    """

    now: float
    since: float
    histories: Mapping[str, Sequence[Event]]
    documents: Mapping[str, Runbook] = field(default_factory=dict)
    books: Mapping[str, Runbook] = field(default_factory=dict)
    modes: Mapping[str, Mode] = field(default_factory=dict)
    demoted: Mapping[str, str] = field(default_factory=dict)
    budget: tuple[int, int] = (10, 3)
    unreadable: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; `records` by runbook, in the order of names."""

    past: Past
    numbers: Promotion
    seen: tuple[Seen, ...]
    records: tuple[Record, ...]


def report(past: Past, numbers: Promotion, only: Collection[str] = ()) -> Report:
    """Look back at everything; `only` keeps these runbooks, empty: all."""
    own = past.histories.get(OWN, ())
    episodes = {name: events for name, events in past.histories.items() if name != OWN}
    loaded = {key: book for name, book in past.books.items() for key in (name, book.digest())}
    seen = look_back(episodes, own, {**loaded, **past.documents}, numbers, past.now)
    names = sorted({*past.books, *(one.runbook for one in seen)})
    if only:
        names = [name for name in names if name in only]
    records = []
    for name in names:
        down, way = past.demoted.get(name), turns(own, name)
        about = About(past.books.get(name), past.modes.get(name), down, way, past.budget[0])
        records.append(record(name, [one for one in seen if one.runbook == name], about, numbers))
    kept = tuple(one for one in seen if one.runbook in names)
    return Report(past, numbers, kept, tuple(records))


def from_lines(lines: Iterable[Event], now: float, since: float, books: Mapping[str, Runbook]) -> Past:
    """Events of an exported journal in any order, some of them twice. Episodes that begin before it are left out."""
    told: dict[str, dict[int, Event]] = {}
    for event in lines:
        told.setdefault(event.episode, {})[event.seq] = event
    histories: dict[str, tuple[Event, ...]] = {}
    broken = 0
    for name, events in told.items():
        ordered = tuple(events[seq] for seq in sorted(events))
        whole = [one.seq for one in ordered] == [*range(1, len(ordered) + 1)] and _readable(ordered)
        if name == OWN or (whole and ordered[0].at >= since):
            histories[name] = ordered
        elif not whole:
            broken += 1
    down = demoted(histories.get(OWN, ()))
    return Past(now=now, since=since, histories=histories, books=books, demoted=down, unreadable=broken)


def _readable(events: Sequence[Event]) -> bool:
    """Does it begin at its beginning, and is each event what a program of ours writes?"""
    try:
        fold(events)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return True


def demoted(own: Sequence[Event]) -> dict[str, str]:
    """Who may only ask by now, by the journal's own stream alone."""
    found: dict[str, str] = {}
    for event in own:
        if event.kind is Kind.DEMOTED:
            found[event.data["runbook"]] = event.data["why"]
        elif event.kind is Kind.RESTORED:
            found.pop(event.data["runbook"], None)
    return found


def as_json(found: Report) -> dict[str, Any]:
    """As the API answers it."""
    past = found.past
    return {
        "now": past.now,
        "since": past.since,
        "unreadable": past.unreadable,
        "cut": past.cut,
        "numbers": found.numbers.model_dump(mode="json"),
        "meaning": list(shadow_words.meaning(found.numbers)),
        "runbooks": [_record(one, past) for one in found.records],
        "episodes": [_seen(one) for one in found.seen],
    }


def _record(one: Record, past: Past) -> dict[str, Any]:
    said = asdict(one)
    for name in ("wrong_by", "came", "refused"):
        said[name] = {str(key): count for key, count in sorted(said[name].items())}
    return said | {"said": list(shadow_words.verdict(one, past.budget[1]))}


def _seen(one: Seen) -> dict[str, Any]:
    return {
        "id": one.episode,
        "alert": one.alert,
        "runbook": one.runbook,
        "target": dict(one.target),
        "opened_at": one.opened_at,
        "ended_at": one.ended_at,
        "answers": [asdict(answer) for answer in one.answers],
        "proposal": asdict(one.proposal) if one.proposal else None,
        "came": one.came.value,
        "came_after": one.came_after,
        "back_after": one.back_after,
        "person": one.person,
        "verdict": one.verdict.value if one.verdict else None,
        "approved_by": list(one.approved_by),
        "limit": one.limit.value if one.limit else None,
        "judged": one.judged,
        "against": [asdict(each) for each in one.against],
        "said": list(shadow_words.story(one)),
    }
