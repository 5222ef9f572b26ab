"""A report as one static page with a picture of the whole time. No script, nothing loaded from elsewhere.

In: `Report`. Out: HTML. The facts are those of the JSON; the template escapes every text, as labels come from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jinja2 import Environment, PackageLoader, StrictUndefined

from backtest.outcome import State
from backtest.report import Episode, Played, Report
from remediator.durations import human
from remediator.narrative import clock

LEFT, WIDTH, ROW, TOP = 260, 1200, 20, 26  # of the picture, in its own units: names, all, a lane, the days
NARROW = 3.0  # the least width of a bar, so that a short alert is seen
COLOURS = {
    State.ACT: "act",
    State.ASK: "ask",
    State.REFUSED: "refused",
    State.BLOCKED: "blocked",
    State.OVER: "over",
    State.NO_RUNBOOK: "none",
    State.UNKNOWN: "unknown",
}
"""A word for the style sheet."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One episode in its lane; `mark` is where it would have acted or asked."""

    x: float
    width: float
    colour: str
    title: str
    mark: float | None
    link: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One alert on one target."""

    y: int
    name: str
    bars: tuple[Bar, ...]


def page(report: Report) -> str:
    """The whole page."""
    env = Environment(
        loader=PackageLoader("backtest"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"clock": clock, "human": lambda value: human(max(0.0, value)), "colour": COLOURS.__getitem__}
    passes = [("shipped", "With the shipped numbers", report.shipped)]
    if report.changed is not None:
        passes.append(("changed", f"With {', '.join(report.changed.changes)}", report.changed))
    return env.get_template("report.html.j2").render(
        report=report,
        passes=[(name, title, played, _lanes(report, played, name)) for name, title, played in passes],
        days=_days(report),
        gaps=[(_x(report, gap.start), _x(report, gap.end) - _x(report, gap.start), gap) for gap in report.gaps],
        states=list(State),
        differences=report.differences(),
        left=LEFT,
        width=WIDTH,
        row=ROW,
        top=TOP,
    )


def _x(report: Report, at: float) -> float:
    part = (at - report.since) / max(1.0, report.until - report.since)
    return round(LEFT + (WIDTH - LEFT - 10) * min(1.0, max(0.0, part)), 1)


def _lanes(report: Report, played: Played, name: str) -> list[Lane]:
    """One for each alert and target, those of a runbook together."""
    found: dict[tuple[str, str, str], list[tuple[int, Episode]]] = {}
    for number, episode in enumerate(played.episodes):
        key = (episode.runbook or "~", episode.alertname, episode.target)
        found.setdefault(key, []).append((number, episode))
    return [
        Lane(TOP + index * ROW, f"{key[1]} {key[2]}".strip(), _bars(report, mine, name))
        for index, (key, mine) in enumerate(sorted(found.items(), key=lambda each: each[0]))
    ]


def _bars(report: Report, mine: Sequence[tuple[int, Episode]], name: str) -> tuple[Bar, ...]:
    bars = []
    for number, episode in mine:
        begin = _x(report, episode.fired_at)
        end = _x(report, report.until if episode.ended_at is None else episode.ended_at)
        acted = episode.state in (State.ACT, State.ASK) and episode.at is not None
        mark = _x(report, episode.at) if acted and episode.at is not None else None
        title = f"{clock(episode.fired_at)} {episode.alertname} {episode.target}: {episode.sentence}"
        width = round(max(NARROW, end - begin), 1)
        bars.append(Bar(begin, width, COLOURS[episode.state], title, mark, f"#{name}-{number}"))
    return tuple(bars)


def _days(report: Report) -> list[tuple[float, str]]:
    """Midnights, at most a dozen of them, with their dates."""
    begin = datetime.fromtimestamp(report.since, UTC)
    first = begin.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    length = max(1, round((report.until - report.since) / 86400.0))
    apart = max(1, -(-length // 12))
    found = []
    while first.timestamp() < report.until:
        found.append((_x(report, first.timestamp()), first.strftime("%d %b")))
        first += timedelta(days=apart)
    return found
