"""A report as words and tables in a terminal. Labels come from outside: control characters are made visible."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backtest.report import Episode, Played, Report, words
from remediator.durations import human
from remediator.narrative import clock
from remediator.terminal import printable

PIPED_WIDTH = 200  # columns when the output is no terminal: Rich would cut tables at 80


def _console() -> Console:
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def say(line: str) -> None:
    """One line."""
    _console().print(_text(line), soft_wrap=True)


def show(report: Report, *, every: bool) -> None:
    """Summary, a row a runbook, what differs; `every`: all episodes with their sentences."""
    out = _console()
    length = human(report.until - report.since)
    out.print(_text(f"{clock(report.since)} to {clock(report.until)} ({length}), {report.prometheus}"), soft_wrap=True)
    for gap in report.gaps:
        out.print(_text(f"Nothing was recorded from {clock(gap.start)} to {clock(gap.end)}."), soft_wrap=True)
    out.print(_text(f"{report.shipped.summary()}.", "bold"), soft_wrap=True)
    if report.changed is not None:
        out.print(
            _text(f"With {', '.join(report.changed.changes)}: {report.changed.summary()}.", "bold"), soft_wrap=True
        )
    out.print()
    out.print(_by_runbook(report))
    if report.changed is not None:
        _differing(out, report)
    if every:
        _episodes(out, report.shipped)
    out.print()
    out.print(_text("Assumed, since no history of series holds it:"))
    for said in report.assumed.values():
        out.print(_text(f"  - {said}"), soft_wrap=True)


def _by_runbook(report: Report) -> Table:
    shipped = report.shipped.by_runbook()
    changed = report.changed.by_runbook() if report.changed else {}
    titles = ["runbook", "with the shipped numbers", *(["with the changed numbers"] if report.changed else [])]
    rows: list[Sequence[str]] = []
    for name in dict.fromkeys((*shipped, *changed)):
        row = [name or "(none)", words(shipped.get(name, []))]
        rows.append([*row, *([words(changed.get(name, []))] if report.changed else [])])
    return _table(titles, rows)


def _differing(out: Console, report: Report) -> None:
    pairs = report.differences()
    out.print()
    out.print(_text(f"{len(pairs)} episodes come to another end.", "bold"))
    if pairs:
        rows = [[*_name(one or other), _end(one), _end(other)] for one, other in pairs]
        out.print(_table(["fired", "alert", "shipped", "changed"], rows))


def _name(episode: Episode | None) -> tuple[str, str]:
    return (clock(episode.fired_at), f"{episode.alertname} {episode.target}") if episode else ("", "")


def _end(episode: Episode | None) -> str:
    if episode is None:
        return "no such episode"
    return f"{episode.state.value}{f' ({episode.reason})' if episode.reason else ''}"


def _episodes(out: Console, played: Played) -> None:
    out.print()
    for episode in played.episodes:
        fired, name = _name(episode)
        out.print(_text(f"{fired}  {name}: {_end(episode)}", "bold"), soft_wrap=True)
        out.print(_text(f"    {episode.sentence}"), soft_wrap=True)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        made.add_column(title, overflow="fold")
    for row in rows:
        made.add_row(*(_text(cell) for cell in row))
    return made


def _text(value: str, style: str = "") -> Text:
    return Text(printable(value), style=style, overflow="fold")
