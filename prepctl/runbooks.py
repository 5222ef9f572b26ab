"""`runbook:check` and `runbook:test`: the remediator's own loading and deciding, without a remediator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prepctl import alert_rules, live, obstacles, rehearsal
from prepctl.errors import Exit, Failure
from prepctl.show import many
from remediator.actions.registry import PARAMS as ACTIONS
from remediator.diagnosis import NAMES as DIAGNOSES
from remediator.durations import human
from remediator.errors import ConfigError, Fault
from remediator.runbooks import load
from remediator.settings import load as load_settings


@dataclass(frozen=True, slots=True)
class Beside:
    """What else runbooks are held against; None where it is not at hand.

    scrape_interval  seconds; a hold time must outlast the longest range of its queries plus two scrapes
    live             look at the targets too, which needs the settings
    """

    scrape_interval: float
    rules: Path | None = None
    config: Path | None = None
    live: bool = False


def check(folder: Path, beside: Beside) -> Iterator[str]:
    """A line for each runbook of the folder.

    Raises Failure with every fault: USAGE for what is wrong in files, NO for what only the look at the targets shows.
    """
    if not folder.is_dir():
        raise Failure(Exit.USAGE, f"{folder} is not a folder.", "Give the folder that holds the *.yml runbooks.")
    if beside.live and beside.config is None:
        raise Failure(Exit.USAGE, "--live needs to know what to look at.", "Give --config FILE, the remediator's own.")
    with _blaming(f"--config {beside.config}; the remediator would not start with it"):
        settings = load_settings(beside.config) if beside.config else None
    interval = settings.prometheus.scrape_interval if settings else beside.scrape_interval
    with _blaming(f"{folder}; the remediator would not start with these"):
        books = load(folder, ACTIONS, DIAGNOSES, interval)
    with _blaming(f"--rules {beside.rules}"):
        rules = alert_rules.read(beside.rules) if beside.rules else None
    faults = [Fault(str(path), "is not loaded", "name it *.yml") for path in sorted(folder.glob("*.yaml"))]
    for book in books:
        faults += obstacles.of_rules(book, rules) if rules else ()
        faults += obstacles.of_settings(book, settings, rules) if settings else ()
    _demand(Exit.USAGE, faults, "These runbooks load, and would not do what they say")
    if settings and beside.live:
        _demand(Exit.NO, live.look(books, settings, rules), "These runbooks load, and something is in their way")
    for book in books:
        ladder = " -> ".join(rung.name for rung in book.ladder)
        alerts = ", ".join(book.match.alertnames)
        yield f"{book.name}: {alerts}; {ladder}; proof holds {human(book.proof.hold)}; at most {book.mode}"
    yield f"Well formed: {many(len(books), 'runbook')}."


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Faults are those of this file or folder, and of no other that was given."""
    try:
        yield
    except ConfigError as error:
        raise _failure(Exit.USAGE, f"{many(len(error.faults), 'fault')} in {what}", error) from error


def _demand(code: Exit, faults: Sequence[Fault], said: str) -> None:
    if faults:
        raise _failure(code, f"{said}: {many(len(faults), 'fault')}", ConfigError(faults))


def _failure(code: Exit, said: str, error: ConfigError) -> Failure:
    return Failure(code, "\n".join((f"{said}:", *(f"  {fault}" for fault in error.faults))))


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
