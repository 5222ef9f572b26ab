"""`runbook:check` and `runbook:test`: the remediator's own loading and deciding, without a remediator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prepctl import rehearsal
from prepctl.errors import Exit, Failure
from prepctl.show import many
from remediator.actions.registry import PARAMS as ACTIONS
from remediator.diagnosis import NAMES as DIAGNOSES
from remediator.durations import human
from remediator.errors import ConfigError
from remediator.runbooks import load


def check(folder: Path, scrape_interval: float) -> Iterator[str]:
    """A line for each runbook of the folder. Raises Failure with every fault of every file.

    `scrape_interval` in seconds: a hold time must outlast the longest range of its queries plus two scrapes.
    """
    if not folder.is_dir():
        raise Failure(Exit.USAGE, f"{folder} is not a folder.", "Give the folder that holds the *.yml runbooks.")
    try:
        books = load(folder, ACTIONS, DIAGNOSES, scrape_interval)
    except ConfigError as error:
        said = many(len(error.faults), "fault")
        raise Failure(
            Exit.USAGE,
            f"{said} in {folder}; the remediator would not start with these runbooks:\n"
            + "\n".join(f"  {fault}" for fault in error.faults),
        ) from error
    for book in books:
        ladder = " -> ".join(rung.name for rung in book.ladder)
        alerts = ", ".join(book.match.alertnames)
        yield f"{book.name}: {alerts}; {ladder}; proof holds {human(book.proof.hold)}; at most {book.mode}"
    yield f"Well formed: {many(len(books), 'runbook')}."


def test(files: Sequence[Path]) -> Iterator[str]:
    """A line for each test file. Raises Failure: NO with every step that came otherwise, USAGE for a wrong file."""
    failures: list[str] = []
    for file in files:
        try:
            played = rehearsal.read(file)
        except ConfigError as error:
            told = "\n".join(f"  {fault}" for fault in error.faults)
            raise Failure(
                Exit.USAGE, f"The test file cannot be used:\n{told}", "See docs/runbook-format.md."
            ) from error
        found = list(played.failures())
        failures += found
        steps = sum(len(each.step_test) for each in played.found.tests)
        tests = many(len(played.found.tests), "test")
        yield f"{file.name}: {tests}, {many(steps, 'step')}, {many(len(found), 'failure')}"
    if failures:
        said = "\n".join(f"  {each}" for each in failures)
        raise Failure(Exit.NO, f"{many(len(failures), 'step')} came otherwise than expected:\n{said}")
