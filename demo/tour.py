"""`make demo`: start everything, break it twice, watch it heal, tell it live, and prove it.

`DRILL=NAME` runs one drill instead, `DRILL=all` every one, each on a stack of its own. Exit code 0 only if every drill
ended as it must and everything asked at the target holds. Ctrl-C and failure leave nothing running; KEEP=1 leaves all
up.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo import profile
from demo.drills import table as drill_table
from demo.drills.base import STEPS, Drill, Story, run
from demo.drills.registry import ALL, TOUR
from demo.stack import BUILD, ROOT, Stack, StackError, wait_for
from remediator import gate, settings
from remediator.durations import seconds

WORDS = {
    "fault": "fault put in",
    "firing": "alert fires (Prometheus)",
    "webhook": "webhook stored (journal)",
    "evidence": "evidence captured",
    "intent": "intent written",
    "effect": "effect",
    "proving": "proof begins",
    "verdict": "verdict",
    "closed": "closed, rule not true",
}


def board(stories: Sequence[Story]) -> Group:
    """What the terminal shows: a table per drill, steps with seconds from the fault on."""
    tables = []
    for story in stories:
        table = Table(title=ALL[story.drill].title, title_justify="left", expand=False, min_width=78)
        table.add_column("step", no_wrap=True)
        table.add_column("after", justify="right", no_wrap=True)
        table.add_column("what", overflow="fold")
        for step in STEPS:
            after = story.since_fault(step)
            table.add_row(WORDS[step], "" if after is None else f"{after:.1f} s", story.notes.get(step, ""))
        if "refused" in story.notes and "intent" not in story.times:
            table.add_row("waiting", "", story.notes["refused"])
        if "handed_over" in story.notes:
            table.add_row(Text("handed to people", style="yellow"), "", story.notes["handed_over"])
        tables.append(table)
    return Group(*tables)


def verdicts(stories: Sequence[Story]) -> Table:
    """What the target says: one line per finding."""
    table = Table(title="Read at the target", title_justify="left", min_width=78)
    table.add_column("")
    table.add_column("what had to be so")
    table.add_column("seen", overflow="fold")
    for story in stories:
        for found in story.findings:
            mark = Text("ok", style="green") if found.holds else Text("NOT SO", style="bold red")
            table.add_row(mark, f"{story.drill}: {found.what}", found.seen)
        if story.error:
            table.add_row(Text("NOT SO", style="bold red"), f"{story.drill}: it ran", story.error)
    return table


def tell(console: Console, drills: Sequence[Drill], stack: Stack) -> list[Story]:
    """Run the drills one after the other, the board redrawn at every change."""
    stories: list[Story] = []
    with Live(console=console, refresh_per_second=4, auto_refresh=console.is_terminal) as live:
        for drill in drills:

            def told(story: Story) -> None:
                if not stories or stories[-1] is not story:
                    stories.append(story)
                if console.is_terminal:
                    live.update(board(stories), refresh=True)

            run(drill, stack, told)
            _quiet(drill, stack)
    console.print(board(stories))
    return stories


def _quiet(drill: Drill, stack: Stack) -> None:
    """The next drill begins on a platform in which nothing fires."""

    def calm() -> bool:
        alerts = stack.get("prometheus", "/api/v1/alerts")["data"]["alerts"]
        return not any(alert["labels"]["alertname"] in drill.alertnames for alert in alerts)

    try:
        wait_for("the alerts to end", calm, 60)
    except StackError:
        return  # the story tells; the next drill starts all the same


def settle_of(config: Path, runbook: str) -> float:
    """The runbook's settle time in the rendered configuration, seconds."""
    book = yaml.safe_load((config / "runbooks" / f"{runbook}.yml").read_text())
    return seconds(book["settle"])


def picture(stories: Sequence[Story]) -> Path:
    """build/demo/terminal.svg: what the terminal showed at the end, for whoever was not there."""
    path = BUILD / "terminal.svg"
    canvas = Console(record=True, width=110, file=io.StringIO())
    canvas.print(board(stories), verdicts(stories))
    canvas.save_svg(str(path), title="make demo")
    return path


def write_report(stories: Sequence[Story], stack: Stack, started: float, up: float) -> Path:
    """build/demo/report.json: times, findings, and whether all of it holds."""
    path = BUILD / "report.json"
    report = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "ok": healed(stories),
        "seconds_to_healthy": round(up - started, 1),
        "seconds_in_all": round(time.time() - started, 1),
        "drills": [story.report(settle_of(stack.config, ALL[story.drill].runbook)) for story in stories],
    }
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path


def healed(stories: Sequence[Story]) -> bool:
    """Every drill ended as it must, every finding holds."""
    return bool(stories) and all(not story.error and all(found.holds for found in story.findings) for story in stories)


def links(stack: Stack) -> Table:
    """Where to look now."""
    table = Table(title="Look around (KEEP=1 leaves it up)", title_justify="left", show_header=False)
    for service in ("prometheus", "alertmanager", "exporter", "remediator", "inbox"):
        table.add_row(service, stack.url(service, {"prometheus": "/alerts", "exporter": "/"}.get(service, "")))
    table.add_row("its console", stack.url("remediator", "/console"))
    table.add_row("token for it", str(Path("build/demo/secrets/remediator_api_token")))
    if (BUILD.parent / "engine" / "env").is_file():
        table.add_row("its Docker", ". build/engine/env (then `docker ps`)")
    return table


def prepare(
    stack: Stack, mode: str = "auto", *, durations: bool = True, adapt: Callable[[Path], None] | None = None
) -> list[profile.Change]:
    """Render the demo's configuration and the gate's from it; the changes against what is shipped.

    Without `durations` the shipped ones hold, and only the switches are set. `adapt` is a drill's own change.
    """
    table = profile.load_table(ROOT / "demo" / "profile.yml")
    changes = profile.render(ROOT, stack.config, table if durations else table.switched())
    path = stack.config / "remediator.yml"
    path.write_text(path.read_text().replace("mode: auto", f"mode: {mode}"))
    if adapt:
        adapt(stack.config)
    rendered = stack.config / "haproxy" / "haproxy.cfg"
    rendered.parent.mkdir(parents=True, exist_ok=True)
    rendered.write_text(gate.render(gate.from_settings(settings.load(path))))
    return changes


def _interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def show_all(console: Console, stack: Stack) -> int:
    """Every drill on a stack of its own; the table; 0 when each ended as it must."""
    rows = []
    for number, drill in enumerate(ALL.values(), 1):
        console.print(f"[bold]{number} of {len(ALL)}[/] {drill.name}: {drill.title} (mode {drill.mode})")
        try:
            prepare(stack, drill.mode, durations=not drill.shipped, adapt=drill.adapt)
            stack.up()
            stories = tell(console, [drill], stack)
            console.print(verdicts(stories))
            rows.append(drill_table.Row.of(drill, stories[-1], stack))
        finally:
            stack.down()
    console.print(drill_table.table(rows))
    drill_table.write(rows, BUILD / "drills.json")
    console.print(f"Table: {(BUILD / 'drills.json').relative_to(ROOT)}")
    return 0 if all(row.held for row in rows) else 1


def show(console: Console, stack: Stack, drills: Sequence[Drill], mode: str) -> int:
    """Some drills on one stack, with picture, report and links; 0 when each ended as it must."""
    started = time.time()
    only = drills[0] if len(drills) == 1 else None
    durations, adapt = (not only.shipped, only.adapt) if only else (True, None)
    console.print(profile.as_table(prepare(stack, mode, durations=durations, adapt=adapt)))
    console.print(f"Mode: {mode}. Starting everything, waiting until healthy …")
    stack.up()
    up = time.time()
    console.print(f"Healthy after {up - started:.0f} s.")
    stories = tell(console, drills, stack)
    console.print(verdicts(stories), links(stack))
    console.print(f"Picture: {picture(stories).relative_to(ROOT)}")
    console.print(f"Report: {write_report(stories, stack, started, up).relative_to(ROOT)}")
    return 0 if healed(stories) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """0 all healed, 1 not, 2 it could not be started, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="demo", description="Start a small Prep, break it, watch it heal.")
    names = ", ".join(ALL)
    parser.add_argument(
        "--drill", default=os.environ.get("DRILL", ""), help=f"one of {names}, or all; default: the tour"
    )
    parser.add_argument("--mode", choices=("shadow", "approve", "auto"), help="default: the drill's own; auto")
    options = parser.parse_args(argv)
    if options.drill not in ("", "all", *ALL):
        parser.error(f"no drill {options.drill!r}; one of {names}, or all")
    if options.drill == "all" and options.mode:
        parser.error("every drill has a mode of its own: --mode goes with one drill, or with the tour")
    signal.signal(signal.SIGTERM, _interrupted)
    console, stack = Console(), Stack()
    keep = os.environ.get("KEEP") == "1" and options.drill != "all"
    try:
        if options.drill == "all":
            return show_all(console, stack)
        drills = [ALL[options.drill]] if options.drill else TOUR
        return show(console, stack, drills, options.mode or drills[0].mode)
    except StackError as error:
        console.print(f"[bold red]The demo could not run:[/] {error}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("Interrupted: taking everything down.")
        return 130
    finally:
        if not keep:
            stack.down()


if __name__ == "__main__":
    sys.exit(main())
