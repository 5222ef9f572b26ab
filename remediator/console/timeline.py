"""An episode as people read it: one entry an event, with a sign, a title, a sentence, and what lies behind it.

In: the events of an episode. Out: values for the templates; everything in them is still to be escaped. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from remediator.actions.base import Result
from remediator.console.checks import Check, checks
from remediator.events import Event, Kind, Verdict
from remediator.ledger import Command
from remediator.narrative import line
from remediator.reason_words import words

MOST_ITEMS, MOST_COLUMNS = 50, 12


@dataclass(frozen=True, slots=True)
class Sheet:
    """A small table. `more` rows were left out, and the columns `without`."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: int = 0
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One event. `tone` is a class of the style sheet (good, bad, wait, act, note); `sign` says it in a character."""

    seq: int
    at: float
    after: float
    kind: str
    title: str
    tone: str
    sign: str
    sentence: str
    facts: tuple[tuple[str, Any], ...] = ()
    sheets: tuple[Sheet, ...] = ()
    checks: tuple[Check, ...] = ()


_TITLES: Mapping[Kind, tuple[str, str, str]] = {
    Kind.OPENED: ("Alert", "note", "●"),
    Kind.OBSERVED: ("Alert again", "note", "●"),
    Kind.CLAIMED: ("Taken over", "note", "↷"),
    Kind.MATCHED: ("Runbook found", "note", "●"),
    Kind.REFUSED: ("Not acting", "wait", "■"),
    Kind.DIAGNOSED: ("Evidence kept", "note", "▤"),
    Kind.WOULD_ACT: ("Would act (shadow)", "wait", "◇"),
    Kind.NEEDS_APPROVAL: ("Asks a person", "wait", "?"),
    Kind.ALLOWED: ("Nothing forbids it any more", "note", "●"),
    Kind.APPROVED: ("Approved", "act", "✓"),
    Kind.DECLINED: ("Declined", "bad", "✗"),
    Kind.INTENT: ("Acts", "act", "▶"),
    Kind.OUTCOME: ("Outcome", "act", "▶"),
    Kind.SETTLED: ("Doubt settled", "note", "●"),
    Kind.PROVING: ("Proof", "note", "…"),
    Kind.VERDICT: ("Verdict", "note", "●"),
    Kind.HANDED_OVER: ("Handed to people", "bad", "!"),
    Kind.CLOSED: ("Closed", "note", "—"),
    Kind.NOT_TAKEN: ("Click not taken", "bad", "✗"),
}
_OUTCOMES = {Result.DONE: ("good", "✓"), Result.FAILED: ("bad", "✗"), Result.IN_DOUBT: ("bad", "?")}
_VERDICTS = {
    Verdict.FIXED: ("good", "✓"),
    Verdict.NOT_FIXED: ("bad", "✗"),
    Verdict.WORSE: ("bad", "✗"),
    Verdict.UNKNOWN: ("bad", "?"),
}


def entries(events: Sequence[Event]) -> list[Entry]:
    """In order; `after` is seconds since the first event."""
    if not events:
        return []
    command = events[0].data.get("command")
    wanted = Command(**command) if command else None
    return [_entry(event, events[0].at, wanted) for event in events]


def entry(event: Event) -> Entry:
    """One event of the journal by itself."""
    return _entry(event, event.at, None)


def _entry(event: Event, began: float, command: Command | None) -> Entry:
    title, tone, sign = _TITLES.get(event.kind, (event.kind.value.replace("_", " ").capitalize(), "note", "●"))
    if event.kind is Kind.OUTCOME:
        tone, sign = _OUTCOMES[Result(event.data["result"])]
    if event.kind is Kind.VERDICT:
        tone, sign = _VERDICTS[Verdict(event.data["verdict"])]
    if event.kind is Kind.OPENED and command is not None:
        title = "A person's command"
    return Entry(
        seq=event.seq,
        at=event.at,
        after=event.at - began,
        kind=event.kind.value,
        title=title,
        tone=tone,
        sign=sign,
        sentence=line(event),
        facts=tuple(_facts(event)),
        sheets=tuple(_sheets(event)),
        checks=checks(event, command),
    )


_SHOWN: Mapping[Kind, tuple[str, ...]] = {
    Kind.CLAIMED: ("owner", "epoch"),
    Kind.REFUSED: ("reason", "rung"),
    Kind.DIAGNOSED: ("rung", "complete", "path", "digest"),
    Kind.WOULD_ACT: ("rung", "action", "resource"),
    Kind.NEEDS_APPROVAL: ("rung", "action", "resource", "persons", "digest"),
    Kind.ALLOWED: ("rung",),
    Kind.APPROVED: ("who", "reason"),
    Kind.DECLINED: ("who", "reason"),
    Kind.INTENT: ("rung", "action", "resource", "attempt", "params", "deadline", "probe"),
    Kind.OUTCOME: ("attempt", "result", "detail"),
    Kind.SETTLED: ("attempt", "settlement", "by", "evidence"),
    Kind.PROVING: ("attempt", "probe"),
    Kind.VERDICT: ("attempt", "verdict", "probe"),
    Kind.HANDED_OVER: ("reason", "alertname", "severity"),
    Kind.CLOSED: ("reason",),
    Kind.PAUSED: ("scope", "who", "reason"),
    Kind.RESUMED: ("who",),
    Kind.STORM_ENDED: ("by", "reason"),
    Kind.RESTORED: ("runbook", "who", "reason"),
}


def _facts(event: Event) -> Iterable[tuple[str, Any]]:
    data = event.data
    for name in _SHOWN.get(event.kind, ()):
        if data.get(name) not in (None, "", {}, []):
            yield name, data[name]
    if event.kind is Kind.REFUSED:
        yield "that is", words(data["reason"])


def _sheets(event: Event) -> Iterable[Sheet]:
    data = event.data
    if event.kind in (Kind.OPENED, Kind.OBSERVED):
        alert = data["alert"]
        for title, part in (("Labels", alert["labels"]), ("Annotations", alert["annotations"])):
            if part:
                yield Sheet(title, ("name", "value"), tuple(sorted(part.items())))
    if event.kind is Kind.DIAGNOSED and data["summary"]:
        yield Sheet("Evidence", ("diagnosis", "found"), tuple(data["summary"].items()))
    if data.get("items"):
        yield things("What would be touched" if event.kind is not Kind.INTENT else "What is touched", data["items"])
    if data.get("touched"):
        yield things("What was touched", data["touched"])
    if data.get("checks"):
        rows = tuple((one["name"], one["value"], _good(one["good"]), one["detail"]) for one in data["checks"])
        yield Sheet("Checks of the proof", ("check", "value", "good", "detail"), rows)


def things(title: str, items: Sequence[Mapping[str, Any]]) -> Sheet:
    """What a preview lists, one row each; columns are the names that any of them has."""
    names = tuple(dict.fromkeys(name for item in items for name in item))
    columns, without = names[:MOST_COLUMNS], names[MOST_COLUMNS:]
    rows = tuple(tuple(item.get(name) for name in columns) for item in items[:MOST_ITEMS])
    return Sheet(title, columns, rows, max(0, len(items) - MOST_ITEMS), without)


def _good(of: bool | None) -> str:
    return "not known" if of is None else "yes ✓" if of else "no ✗"


@dataclass(frozen=True, slots=True)
class Folded:
    """A long episode: what is shown, and how many entries before it are not."""

    entries: list[Entry] = field(default_factory=list)
    hidden: int = 0


def folded(events: Sequence[Event], most: int, *, whole: bool = False) -> Folded:
    """The first entry and the latest ones; all of them, up to ten times `most`, when `whole`."""
    most = most * 10 if whole else most
    if len(events) <= most:
        return Folded(entries(events))
    return Folded(entries([events[0], *events[-(most - 1) :]]), len(events) - most)
