"""`slo:generate`: a file of objectives to a file of Prometheus rules. Reads and writes files, asks no server."""

from __future__ import annotations

import os
from pathlib import Path

from alerting.slo_errors import SloError
from alerting.slo_load import load
from alerting.slo_rules import groups
from alerting.slo_text import rule_file
from prepctl.errors import Exit, Failure
from prepctl.show import many


def generate(file: Path, severity: Path | None) -> str:
    """The rule file's text. Without `severity` the table `severity.yml` beside the file is read where there is one.

    Raises Failure with every fault, each with its line.
    """
    if severity is None and (beside := file.parent / "severity.yml").is_file():
        severity = beside
    try:
        objectives, times = load(file, severity)
    except SloError as error:
        _demand_read(error)
        said = many(len(error.faults), "fault")
        raise Failure(Exit.USAGE, f"{said} in {file}:\n" + "\n".join(f"  {fault}" for fault in error.faults)) from error
    return rule_file(groups(objectives, times), file.name)


def _demand_read(error: SloError) -> None:
    """Raises Failure, in the system's words and not its numbers, when a file could not even be read."""
    where, cause = error.faults[0].where, error.__cause__
    if isinstance(cause, OSError):
        raise Failure(Exit.USAGE, f"{where} cannot be read: {cause.strerror}.") from error
    if isinstance(cause, UnicodeDecodeError):
        raise Failure(Exit.USAGE, f"{where} is not UTF-8.") from error


def place(file: Path) -> Path:
    """Where the rules of a file go when nobody says: `slo.yml` -> `slo.rules.yml` beside it."""
    return file.with_suffix(".rules.yml")


def write(text: str, out: Path) -> None:
    """Write whole or not at all: Prometheus may reload at any time. Raises Failure when the place cannot be written."""
    made = out.with_name(f".{out.name}.new")
    try:
        made.write_text(text, encoding="utf-8")
        os.replace(made, out)  # noqa: PTH105 - the documented atomic one
    except OSError as error:
        raise Failure(Exit.USAGE, f"{out} cannot be written: {error.strerror}.") from error


def check(text: str, out: Path) -> None:
    """Raises Failure (the answer is no) when `out` is not exactly this text."""
    try:
        found = out.read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(Exit.NO, f"{out} cannot be read: {error.strerror}.", "Run it without --check.") from error
    if found != text:
        raise Failure(Exit.NO, f"{out} is not what its objectives make.", "Run it without --check and commit the file.")
