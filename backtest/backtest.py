"""One backtest from beginning to end: read the past, replay it once or twice, and make a report of it.

In: what was asked for. Out: `Report`. It asks one Prometheus over one HTTP client, and writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp

from backtest import report
from backtest.deliveries import Firing, firings
from backtest.outcome import is_echo
from backtest.past import Past
from backtest.replay import Replay
from backtest.report import Episode, Played, Report
from backtest.what_if import changed
from remediator.matching import Matched, match
from remediator.runbooks import Runbook
from remediator.settings import Settings

TIMEOUT = 30.0  # seconds for one question: a range over hours costs a busy server some
Progress = Callable[[str, float], None]
"""Hears of each part of the work by name, and how much of it is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for.

    since, until  UNIX seconds
    step          seconds between two looks; 0: the shortest evaluation interval of a group with alerts
    wishes        `NAME=VALUE` each, see `what_if`
    within        an alert that ended so soon after we would have acted needed nothing, seconds
    known         the settings are the remediator's own, and say what it may act on
    """

    prometheus: str
    since: float
    until: float
    books: tuple[Runbook, ...]
    settings: Settings
    known: bool
    wishes: tuple[str, ...] = ()
    step: float = 0.0
    within: float = 120.0


@dataclass
class _Sorted:
    """Alerts by what becomes of them."""

    driven: list[Firing] = field(default_factory=list)
    told: list[Episode] = field(default_factory=list)


async def run(asked: Asked, progress: Progress) -> Report:
    """Raises Unusable where there is nothing to report, with the reason and the way out."""
    other = changed(asked.wishes, asked.settings, asked.books) if asked.wishes else None
    async with aiohttp.ClientSession(trust_env=False) as session:
        past = Past(asked.prometheus, session, TIMEOUT, asked.since, asked.until, asked.step)
        await past.read(lambda done: progress("Reading alerts", done))
        shipped = await _play(past, asked, asked.settings, asked.books, (), lambda done: progress("Replaying", done))
        again = None
        if other is not None:
            told = "Replaying with the changed numbers"
            again = await _play(past, asked, *other, asked.wishes, lambda done: progress(told, done))
    return Report(
        prometheus=asked.prometheus,
        environment=asked.settings.environment,
        since=past.since,
        until=past.until,
        step=past.step,
        unneeded_within=asked.within,
        gaps=tuple(past.gaps),
        shipped=shipped,
        changed=again,
        made_at=time.time(),
    )


async def _play(
    past: Past,
    asked: Asked,
    settings: Settings,
    books: Sequence[Runbook],
    wishes: tuple[str, ...],
    progress: Callable[[float], None],
) -> Played:
    fired = firings(past.alerts.values(), past.external, past.since, past.until)
    ours = _sorted(past, fired, settings, books)
    replay = Replay(past, ours.driven, books, settings, asked.known)
    told = await replay.run(progress)
    by_name = {book.name: book for book in books}
    found = list(ours.told)
    names = {episode: report.name_of(events[0]) for episode, events in told.events.items()}
    for episode, events in told.events.items():
        if is_echo(events):
            continue
        book = by_name[events[0].data["runbook"]]
        spans = replay.spans(told.keys[episode])
        readable = report.named(events, names)
        found.append(report.of_replayed(readable, spans, book, past.gaps, past.until, asked.within))
    return Played(wishes, tuple(sorted(found, key=lambda each: (each.fired_at, each.alertname, each.target))))


def _sorted(past: Past, fired: Sequence[Firing], settings: Settings, books: Sequence[Runbook]) -> _Sorted:
    """By the real matching; what fired before the history began is not driven, as its age is not known."""
    found = _Sorted()
    for firing in fired:
        matched = match(firing.alert(), books, settings.environment)
        if not isinstance(matched, Matched):
            found.told.append(report.of_refused(firing, matched, past.gaps))
        elif firing.cut:
            found.told.append(report.of_cut(firing, matched.runbook, past.gaps))
        else:
            found.driven.append(firing)
    return found
