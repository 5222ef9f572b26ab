"""`prepctl simulate`: years of incidents through the real remediator, and what must never be.

Exit code 0 when no promise was broken, 1 when one was, 2 for wrong usage or a page that cannot be
written. The seed of a failing story is printed, and the smallest story that still fails; the same seed replays it
exactly.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from simulation import campaign, report
from simulation.campaign import Task
from simulation.measures import Result, time_of, together, whole_minutes, wilson
from simulation.shrink import shrink
from simulation.story import A_YEAR, YEAR, Fault, Incident, Sort, Story

SHOWN = 10


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="prepctl simulate",
        description="Let years of incidents happen to the real remediator in a simulated world, and judge it. "
        "Nothing is touched: no server, no journal of yours.",
        epilog="A year is a seed; the same seed gives the same year. Exit code 1: a promise was broken.",
    )
    found.add_argument(
        "--years", type=_number, metavar="N", help="how many years, whole ones (default 1); a part of one is shorter"
    )
    found.add_argument("--seed", type=int, default=1, metavar="S", help="of the first year; each further one adds 1")
    found.add_argument("--incidents", type=int, metavar="N", help=f"at least, {A_YEAR} a year, instead of --years")
    found.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="side by side")
    found.add_argument("--json", action="store_true", help="print figures of each year and of all as JSON")
    found.add_argument("--no-shrink", action="store_true", help="do not look for the smallest story that fails")
    found.add_argument(
        "--report", type=Path, metavar="FILE.md", help="write the page, and its figures as JSON beside it"
    )
    return found


def _number(said: str) -> float:
    try:
        return float(said)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{said!r} is no number; write 1 or 0.5") from error


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """The years that are asked for. Raises ValueError with what is wrong."""
    if options.years is not None and options.incidents is not None:
        raise ValueError("--years and --incidents say the same: give one of them")
    if options.processes < 1:
        raise ValueError("--processes must be at least 1")
    if options.incidents is not None:
        if options.incidents < 1:
            raise ValueError("--incidents must be at least 1")
        whole, rest = divmod(options.incidents, A_YEAR)
        years = whole + (1 if rest else 0)
        return [Task(options.seed + number, A_YEAR, YEAR) for number in range(years)]
    years = 1.0 if options.years is None else options.years
    if not 0.02 <= years <= 10_000:
        raise ValueError("--years must be between 0.02 (a week) and 10000")
    if years < 1:
        return [Task(options.seed, max(1, round(A_YEAR * years)), YEAR * years)]
    if years != int(years):
        raise ValueError(f"--years: above 1 only whole years, not {years:g}")
    return [Task(options.seed + number, A_YEAR, YEAR) for number in range(int(years))]


def main(argv: Sequence[str] | None = None) -> int:
    """Run it."""
    arguments = parser()
    options = arguments.parse_args(argv)
    try:
        tasks = tasks_of(options)
        if options.report is not None:
            report.writable(options.report)
    except ValueError as error:
        arguments.error(str(error))
    out, errors = Console(), Console(stderr=True)
    try:
        results = _results(tasks, options.processes, errors)
    except KeyboardInterrupt:
        errors.print("Interrupted; nothing was written.")
        return 130
    whole = together(results)
    if options.json:
        figures = {"years": [result.as_json() for result in results], "total": whole.as_json()}
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    else:
        out.print(table(whole), summary(whole, results))
    written = options.report is None or _written(options.report, results, errors)
    failing = [result for result in results if result.violations]
    for result in failing[:SHOWN]:
        _tell(errors, result, next(task for task in tasks if task.seed == result.seed), options.no_shrink)
    if not written:
        return 2
    return 1 if failing else 0


def _written(page: Path, results: Sequence[Result], errors: Console) -> bool:
    """The page, or a word why there is none: the folder may have gone, or the disk be full, while the years passed."""
    try:
        report.write(page, results)
    except (OSError, ValueError) as error:
        said = f"{error.filename or page} cannot be written: {error.strerror}" if isinstance(error, OSError) else error
        errors.print(f"{said}.", style="bold red", soft_wrap=True, markup=False)
        return False
    errors.print(f"Written: {page} and {report.figures_of(page)}. For README:", soft_wrap=True, markup=False)
    errors.print(report.headline(report.read(page)), soft_wrap=True, markup=False)
    return True


def _results(tasks: Sequence[Task], processes: int, errors: Console) -> list[Result]:
    """Play them all, with a bar on stderr."""
    campaign.quiet()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results = []
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("years", total=len(tasks))
        for result in campaign.run(tasks, processes):
            results.append(result)
            progress.advance(bar)
    return sorted(results, key=lambda result: result.seed)


def table(whole: Result) -> Table:
    """Each class of incidents."""
    found = Table(min_width=78)
    found.add_column("incident", overflow="fold")
    for name in ("number", "acted", "effects", "false", "minutes saved"):
        found.add_column(name, justify="right")
    for sort in Sort:
        row = whole.rows[sort.name]
        saved = whole_minutes(row.alone_minutes - row.minutes)
        found.add_row(sort.value, str(row.incidents), str(row.acted), str(row.effects), str(row.false), saved)
    return found


def summary(whole: Result, results: Sequence[Result]) -> str:
    """The figures that matter, in words."""
    total = whole.total
    lasted, heard = " ".join(time_of(whole.days)), whole.held + whole.pages
    lines = [
        f"{lasted}, {total.incidents:,} incidents: {total.effects} effects, {whole.doubled} twice",
        f"Outage: {total.minutes:,.0f} minutes; with people alone {total.alone_minutes:,.0f}.",
        f"People called: {heard:,} times ({whole.held:,} alerts, {whole.pages:,} of its own); alone {whole.alerts:,}.",
        f"Broken promises: {len(whole.violations)}.",
    ]
    if total.effects:
        low, high = wilson(total.false, total.effects)
        lines.insert(
            1,
            f"False actions: {total.false} of {total.effects} ({low:.2%} to {high:.2%}, 95 %); "
            f"harmful: {total.harmful}.",
        )
    return "\n".join(lines)


def _tell(errors: Console, result: Result, task: Task, as_it_is: bool) -> None:
    """A failing year: its seed, what it broke, and the smallest story that still breaks it."""
    errors.print(f"[bold red]Seed {task.seed} breaks a promise:[/]", soft_wrap=True)
    for said in result.violations[:SHOWN]:
        errors.print(f"  {said}", soft_wrap=True, markup=False)
    if as_it_is:
        return
    smallest = shrink(task.story(), campaign.broken)
    errors.print("Smallest story that still does:", *told(smallest), sep="\n  ", soft_wrap=True, markup=False)


def told(story: Story) -> list[str]:
    """A story as Python, to be kept as a test."""
    return [
        f"Story({story.seed}, {story.replicas}, {story.seconds!r}, (",
        *(f"    {_code(incident)}," for incident in story.incidents),
        "), (",
        *(f"    {_code(fault)}," for fault in story.faults),
        "))",
    ]


def _code(item: Incident | Fault) -> str:
    """As it is written: the representation of an enum's member is no Python."""
    return re.sub(r"<(\w+\.\w+): (?:'[^']*'|\"[^\"]*\")>", r"\1", repr(item))
