"""`runbook:promote`: which files give a runbook more freedom, and that nothing else becomes freer with it.

The stricter of the settings' mode and the runbook's holds. Where the settings are stricter than what is wanted they
must rise, and then every other runbook that was held by them only is held by its own file first. The files are
replaced in this order: others held, the runbook, the settings. Whatever interrupts it, nothing is freer than meant.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prepctl.client import Client
from prepctl.errors import Exit, Failure
from prepctl.modes import Edit, with_mode
from remediator.actions.registry import PARAMS as ACTIONS
from remediator.api_models import SAID
from remediator.diagnosis import NAMES as DIAGNOSES
from remediator.errors import ConfigError
from remediator.runbooks import MODES, Mode, Runbook
from remediator.runbooks import load as load_books
from remediator.settings import Settings
from remediator.settings import parse as parse_settings

Json = Any


@dataclass(frozen=True, slots=True)
class Files:
    """The configuration as it stands in files; `books` by path."""

    config: Path
    settings: Settings
    books: Mapping[Path, Runbook]

    def of(self, name: str) -> Path:
        """Where this runbook stands. Raises Failure."""
        found = next((path for path, book in self.books.items() if book.name == name), None)
        if found is None:
            known = ", ".join(sorted(book.name for book in self.books.values()))
            raise Failure(Exit.NO, f"No file has a runbook {name!r}.", f"Give one of {known}.")
        return found


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted: who says so and why, `when` for people; `despite` why although the report says no, or ""."""

    runbook: str
    to: Mode
    who: str
    reason: str
    despite: str
    when: str

    def notes(self) -> list[str]:
        """As comments."""
        said = [f"{self.to} since {self.when}, by {self.who}: {self.reason}"]
        return said + ([f"although the shadow report did not support it: {self.despite}"] if self.despite else [])

    def held(self, mode: Mode) -> list[str]:
        """As a comment of a runbook that stays where it is."""
        return [f"held at {mode} since {self.when}, by {self.who}: the settings' mode rose for {self.runbook}"]


def read(config: Path, folder: Path | None) -> Files:
    """Settings and runbooks, loaded as the remediator does. Raises Failure with every fault."""
    try:
        settings = parse_settings(_text(config), str(config))
        where = folder or settings.runbooks
        if not where.is_dir():
            raise Failure(Exit.USAGE, f"{where} is not a folder.", "Give --runbooks, the folder of the *.yml runbooks.")
        loaded = load_books(where, ACTIONS, DIAGNOSES, settings.prometheus.scrape_interval)
        books = dict(zip(sorted(where.glob("*.yml")), loaded, strict=True))
    except ConfigError as error:
        raise _wrong("The remediator would not start with these files", error) from error
    return Files(config, settings, books)


def plan(files: Files, wish: Wish) -> list[Edit]:
    """What to replace, in this order, found good as a whole. Raises Failure when there is nothing to raise."""
    path, rank = files.of(wish.runbook), MODES.index
    book, ceiling = files.books[path], files.settings.mode
    was = min(book.mode, ceiling, key=rank)
    if rank(was) >= rank(wish.to):
        do = "If the remediator says otherwise: prepctl reload. To hold it lower, change `mode` in its file."
        raise Failure(Exit.NO, f"{wish.runbook} is in {was} already: that is no promotion to {wish.to}.", do)
    edits = []
    if rank(ceiling) < rank(wish.to):
        edits += [
            _edit(each, "name", ceiling, wish.held(ceiling), f"held at {ceiling}")
            for each, other in files.books.items()
            if each != path and rank(other.mode) > rank(ceiling)
        ]
    if book.mode != wish.to:
        edits.append(_edit(path, "name", wish.to, wish.notes(), f"{book.mode} -> {wish.to}"))
    if rank(ceiling) < rank(wish.to):
        edits.append(_edit(files.config, "environment", wish.to, wish.notes(), f"settings {ceiling} -> {wish.to}"))
    _prove(files, wish, edits)
    return edits


def _edit(path: Path, beside: str, mode: Mode, notes: list[str], said: str) -> Edit:
    before = path.read_bytes()
    try:
        after = with_mode(before.decode(), mode, beside, notes)
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{path} {error}.", f"Write `mode: {mode}` into it by hand.") from error
    return Edit(path, before, after.encode(), said)


def _prove(files: Files, wish: Wish, edits: Sequence[Edit]) -> None:
    """All new files together load, and differ from the old ones in these modes only."""
    new = {edit.path: edit.after for edit in edits}
    try:
        settings = parse_settings(new.get(files.config, _text(files.config).encode()).decode(), str(files.config))
        with tempfile.TemporaryDirectory() as folder:
            for path in files.books:
                (Path(folder) / path.name).write_bytes(new.get(path, path.read_bytes()))
            loaded = load_books(Path(folder), ACTIONS, DIAGNOSES, settings.prometheus.scrape_interval)
    except ConfigError as error:
        raise _wrong("Nothing was changed: the new files would not load", error) from error
    before = {book.name: min(book.mode, files.settings.mode, key=MODES.index) for book in files.books.values()}
    after = {book.name: min(book.mode, settings.mode, key=MODES.index) for book in loaded}
    same = all(_but_mode(old) == _but_mode(now) for old, now in zip(files.books.values(), loaded, strict=True))
    if after != before | {wish.runbook: wish.to} or not same or _but_mode(settings) != _but_mode(files.settings):
        raise Failure(Exit.USAGE, "Nothing was changed: more than this mode would change.", "Change the file by hand.")


def _but_mode(model: Runbook | Settings) -> object:
    return model.model_dump(exclude={"mode"})


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise Failure(Exit.USAGE, f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Failure(Exit.USAGE, f"{path} is not UTF-8.") from error


def _wrong(said: str, error: ConfigError) -> Failure:
    return Failure(Exit.USAGE, "\n".join((f"{said}:", *(f"  {fault}" for fault in error.faults))))


def demand_words(wish: Wish) -> None:
    """What goes into a comment and into the journal is one line without control characters. Raises Failure."""
    for option, said in (("--who", wish.who), ("--reason", wish.reason), ("--despite-report", wish.despite)):
        try:
            if said or option != "--despite-report":
                SAID.validate_python(said)
        except ValidationError as error:
            raise Failure(
                Exit.USAGE, f"{option} is one line of up to 500 characters, no control characters."
            ) from error


def evidence(client: Client, files: Files, wish: Wish) -> Json:
    """The runbook's record by the remediator. Raises Failure when it has loaded another version than the file's."""
    loaded = {each["name"]: each["digest"] for each in client.get("/api/v1/status")["runbooks"]}
    if loaded.get(wish.runbook) != files.books[files.of(wish.runbook)].digest():
        said = f"The remediator has loaded another version of {wish.runbook} than {files.of(wish.runbook)}."
        raise Failure(Exit.NO, said, "The evidence is about what is loaded: prepctl reload, or give its own files.")
    return client.get("/api/v1/shadow", runbook=wish.runbook)["runbooks"][0]


def demand_support(record: Json, wish: Wish) -> None:
    """Raises Failure when the report does not support it and nobody says why all the same."""
    if MODES.index(record["ready"]) < MODES.index(wish.to) and not wish.despite:
        do = "Go on watching, or give --despite-report with the reason."
        raise Failure(Exit.NO, f"Not promoted: the shadow report does not support {wish.to} for {wish.runbook}.", do)


def told(edits: Sequence[Edit]) -> Iterator[str]:
    """A line for each file that changes."""
    for edit in edits:
        yield f"  {edit.path}: {edit.said}"
