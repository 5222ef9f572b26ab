"""`prepctl drill NAME`: one drill on the demo's stack that runs here (`make demo KEEP=1`).

Puts the fault in, follows the chain, tells, takes the fault out again. Exit code 0 only when it ended as it must; 1
when not; 2 when there is no such drill or no stack to run it on. The stack stays up.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence

import yaml
from docker.errors import DockerException
from rich.console import Console
from rich.table import Table

from demo import tour
from demo.drills import table as drill_table
from demo.drills.base import Drill
from demo.drills.registry import ALL
from demo.stack import Stack, StackError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one drill, or list them."""
    parser = argparse.ArgumentParser(
        prog="prepctl drill", description="Put a fault into the demo on purpose, and watch what becomes of it."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="without it the drills are listed")
    options = parser.parse_args(argv)
    console = Console()
    if options.name is None:
        console.print(listed())
        return 0
    if options.name not in ALL:
        parser.error(f"no drill {options.name!r}; one of {', '.join(ALL)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(console, ALL[options.name], Stack())
    except (StackError, DockerException, OSError) as error:
        console.print(f"[bold red]The drill could not run:[/] {error}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("Interrupted; the fault is taken out again.")
        return 130


def listed() -> Table:
    """Every drill: what is tried, and whether something is to be healed or left alone."""
    found = Table(min_width=78)
    for name in ("drill", "mode", "", "what"):
        found.add_column(name, overflow="fold", no_wrap=name == "drill")
    for drill in ALL.values():
        found.add_row(drill.name, drill.mode, "untouched" if drill.untouched else "", drill.title)
    return found


def _run(console: Console, drill: Drill, stack: Stack) -> int:
    if not stack.services():
        told = f"`make demo KEEP=1` starts one, `make demo DRILL={drill.name}` starts one for this drill"
        raise StackError(f"no stack of the demo runs here. {told}")
    mode = yaml.safe_load((stack.config / "remediator.yml").read_text())["mode"]
    if mode != drill.mode:
        raise StackError(
            f"{drill.name} wants mode {drill.mode}, and this stack runs in {mode}. `make demo DRILL={drill.name}`"
        )
    if drill.adapt or drill.shipped:
        raise StackError(f"{drill.name} wants a configuration of its own. `make demo DRILL={drill.name}`")
    stories = tour.tell(console, [drill], stack)
    row = drill_table.Row.of(drill, stories[-1], stack)
    console.print(tour.verdicts(stories), drill_table.table([row]))
    return 0 if row.held else 1
