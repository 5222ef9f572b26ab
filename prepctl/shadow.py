"""`shadow:report`: what would have been done and what really came, from the API or from an exported journal.

An export has the events and nothing else: the numbers come from a configuration when one is given, the runbooks from
their folder, and which mode holds is not known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat, TypeAdapter, ValidationError
from rich.text import Text

from prepctl.errors import Exit, Failure
from prepctl.show import many, text
from remediator.actions.registry import PARAMS as ACTIONS
from remediator.diagnosis import NAMES as DIAGNOSES
from remediator.errors import ConfigError
from remediator.events import VERSION, Event, Unknown, read
from remediator.narrative import clock
from remediator.runbooks import load as load_books
from remediator.settings import Guards, Promotion
from remediator.settings import load as load_settings
from remediator.shadow_report import as_json, from_lines, report

Json = Any


@dataclass(frozen=True, slots=True)
class _Line:
    """One event as `journal:export` writes it; `id` is missing in an export of an older version."""

    episode: str
    seq: int
    kind: str
    at: FiniteFloat
    data: dict[str, Any]
    id: str = ""


_LINE = TypeAdapter(_Line)
STYLES = {"auto": "bold green", "approve": "bold green", "shadow": "bold yellow"}


def of_file(
    file: Path, since: float | None, runbook: str, config: Path | None, folder: Path | None, now: float
) -> Json:
    """The report of `prepctl journal:export`'s lines, as the API answers it. Raises Failure for what cannot be read."""
    try:
        settings = load_settings(config) if config else None
        numbers = settings.promotion if settings else Promotion()
        interval = settings.prometheus.scrape_interval if settings else 15.0
        books = load_books(folder, ACTIONS, DIAGNOSES, interval) if folder else ()
    except ConfigError as error:
        raise Failure(Exit.USAGE, "\n".join(str(fault) for fault in error.faults)) from error
    guards = settings.guards if settings else Guards()
    past = from_lines(_events(file), now, now - (since or numbers.window), {book.name: book for book in books})
    past = replace(past, budget=(guards.budget_episodes, guards.budget_failures))
    found = report(past, numbers, [runbook] if runbook else ())
    if runbook and not found.records:
        raise Failure(Exit.NO, f"{file} has no episode of a runbook {runbook!r}.", "Leave --runbook out to see all.")
    return as_json(found)


def _events(file: Path) -> Iterator[Event]:
    """Events of a newer program are left out: their episodes are then not whole, and counted."""
    do = "Give what `prepctl journal:export` wrote."
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    said = _LINE.validate_json(line)
                    data = json.dumps(said.data)
                    yield read(said.id, said.episode, said.seq, said.kind, VERSION, said.at, data)
                except Unknown:
                    continue
                except ValidationError as error:
                    first = error.errors()[0]
                    why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
                    raise Failure(Exit.USAGE, f"{file}, line {number} is no event: {why}.", do) from error
    except OSError as error:
        raise Failure(Exit.USAGE, f"--journal: {file} cannot be read: {error.strerror}.", do) from error
    except UnicodeDecodeError as error:
        raise Failure(Exit.USAGE, f"--journal: {file} is not UTF-8.", do) from error


def lines(found: Mapping[str, Json]) -> Iterable[Text]:
    """The whole report for a terminal: first what each runbook is ready for, then each episode, then what it counts."""
    yield text(
        f"What would have been done, and what really came: {clock(found['since'])} to {clock(found['now'])}", "bold"
    )
    yield from _left_out(found)
    for record in found["runbooks"]:
        first, *rest = record["said"]
        yield Text()
        yield text(first, STYLES[record["ready"]])
        yield from (text(f"  {line}") for line in rest)
    for seen in found["episodes"]:
        yield Text()
        yield text(f"Episode {seen['id']}", "bold")
        yield from (text(f"  {line}") for line in seen["said"])
    yield Text()
    yield text("What these words count", "bold")
    yield from (text(f"  {line}") for line in found["meaning"])


def _left_out(found: Mapping[str, Json]) -> Iterable[Text]:
    if found["cut"]:
        yield text(
            "There were more episodes than are looked at: these are the newest. To see all: prepctl journal:export, "
            "and its file as --journal.",
            "yellow",
        )
    if found["unreadable"]:
        yield text(f"{many(found['unreadable'], 'episode')} cannot be read whole and are left out.", "yellow")
