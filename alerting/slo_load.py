"""From files to objectives: every mistake with its line.

In: paths. Out: frozen values. It must never guess: a severity that the table does not know is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from alerting.slo_errors import Fault, SloError
from alerting.slo_model import SloFile
from alerting.slo_yaml import Document


def parse(text: str, file: str) -> tuple[SloFile, Document]:
    """Objectives of one text. Raises SloError with every fault, `file` as the file's name."""
    document = Document.read(text, file)
    try:
        return SloFile.model_validate(document.data), document
    except ValidationError as error:
        raise SloError([_fault(item["loc"], item["msg"], document) for item in error.errors()]) from error


def _fault(path: tuple[int | str, ...], message: str, document: Document) -> Fault:
    # pydantic marks the key of a mapping by a step of its own.
    return Fault(document.where([step for step in path if step != "[key]"]), message.removeprefix("Value error, "))


def load(path: Path, severity: Path | None) -> tuple[SloFile, Mapping[str, str]]:
    """The objectives of a file, and by level within which time somebody must answer ({} without a severity table).

    Raises SloError when one of the files cannot be read or is wrong, or names a level that the table lacks.
    """
    objectives, document = parse(_text(path), str(path))
    if severity is None:
        return objectives, {}
    times = response_times(_text(severity), str(severity))
    faults = [
        Fault(document.where(place), f"{level} is no level of {severity}", f"one of {', '.join(times)}")
        for place, level in _levels(objectives)
        if level not in times
    ]
    if faults:
        raise SloError(faults)
    return objectives, times


def _levels(objectives: SloFile) -> list[tuple[list[str], str]]:
    found = [
        (["objectives", name, "alerts", kind, "severity"], alert.severity)
        for name, one in objectives.objectives.items()
        for kind, alert in one.alerts
        if alert is not None
    ]
    if objectives.retention:
        found.append((["retention", "alert", "severity"], objectives.retention.alert.severity))
    return found


def response_times(text: str, file: str) -> Mapping[str, str]:
    """`respond` of each level of a severity table. Raises SloError when it has none."""
    document = Document.read(text, file)
    try:
        return {str(level): str(row["respond"]) for level, row in document.data["levels"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise SloError([Fault(document.where(["levels"]), "has no levels, each with `respond`")]) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SloError([Fault(str(path), f"cannot be read: {error}")]) from error
