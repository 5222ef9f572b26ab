"""Planted bugs: each is put into the program, and stories are played until one breaks a promise.

    .venv/bin/python -m simulation.mutants [NAME ...]
    .venv/bin/python -m simulation.mutants --report docs/trust.md     # into the page that `prepctl simulate` has made

A bug that no story shows is one that the simulation cannot see, and is said. Each is planted in a process of its
own, so that nothing of it is left behind. Never imported by what ships beside this.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulation import campaign, report
from simulation.bugs import MUTANTS
from simulation.invariants import violations
from simulation.run import play
from simulation.story import draw

STORIES = 40
INCIDENTS, SECONDS = 20, 8 * 86400.0


def hunt(name: str, stories: int = STORIES) -> dict[str, Any]:
    """Plant one bug here and play stories until one shows it. The process is of no other use afterwards."""
    campaign.quiet()
    mutant = next(each for each in MUTANTS if each.name == name)
    mutant.plant()
    began = time.process_time()
    caught: list[str] = []
    seed = played = 0
    for seed in range(1, stories + 1):
        played += 1
        try:
            found = violations(play(draw(seed, INCIDENTS, SECONDS, mutant.often)))
        except Exception as error:  # noqa: BLE001 - a bug that stops the program is seen as well
            found = [f"stops with {type(error).__name__}: {error}"]
        caught = sorted({said.partition(":")[0] for said in found})
        if caught:
            break
    took = time.process_time() - began
    return {"name": name, "what": mutant.what, "caught": caught, "seed": seed, "stories": played, "cpu": round(took, 1)}


def hunt_alone(name: str, stories: int = STORIES) -> dict[str, Any]:
    """`hunt` in a process that ends with it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(hunt, (name, stories))


def main(argv: Sequence[str] | None = None) -> int:
    """Hunt them all, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m simulation.mutants", description="Plant bugs, and catch them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--stories", type=int, default=STORIES, help="give up after so many")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", type=Path, metavar="FILE.md", help="write the table of all into this page")
    options = parser.parse_args(argv)
    known = [mutant.name for mutant in MUTANTS]
    if wrong := [name for name in options.names if name not in known]:
        parser.error(f"no mutant {wrong[0]!r}; one of {', '.join(known)}")
    if options.names and options.report is not None:
        parser.error("--report: the page's table is of all planted bugs; leave the names out, or --report")
    try:
        figures = report.with_mutants(options.report) if options.report is not None else {}
    except ValueError as error:
        parser.error(str(error))
    names = options.names or known
    context = multiprocessing.get_context("spawn")
    rows = []
    with context.Pool(options.processes, maxtasksperchild=1) as pool:
        work = [pool.apply_async(hunt, (name, options.stories)) for name in names]
        for each in work:
            row = each.get()
            rows.append(row)
            sys.stdout.write(f"{row['name']}: {', '.join(row['caught']) or 'NOT CAUGHT'} ({row['cpu']} s)\n")
            sys.stdout.flush()
    if options.report is not None:
        report.save(options.report, {**figures, "mutants": rows})
    return 0 if all(row["caught"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
