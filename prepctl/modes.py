"""The `mode` of a runbook or of the settings in its YAML file: changed in place, every other byte left as it was.

In: a file's text. Out: the same text with another value at `mode`, and comment lines above it. The value is found by
the parser's own marks and nothing is written out anew, since a dump would lay lines and comments out in its own way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from prepctl.errors import Exit, Failure
from remediator.runbooks import Mode


@dataclass(frozen=True, slots=True)
class Edit:
    """One file's change. `before` and `after` are its whole bytes; `said` tells it to people."""

    path: Path
    before: bytes
    after: bytes
    said: str


def with_mode(text: str, mode: Mode, beside: str, notes: list[str]) -> str:
    """The text with `mode` set and `notes` as comments above it; without one it is added below the key `beside`.

    Raises ValueError where the file is not written as a block, one key a line.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise ValueError("is not written one key a line")
    pairs = {key.value: (key, value) for key, value in root.value}
    end_of_line = "\r\n" if "\r\n" in text else "\n"
    comments = "".join(f"# {note}{end_of_line}" for note in notes)
    if "mode" in pairs:
        key, value = pairs["mode"]
        line = text.rfind("\n", 0, key.start_mark.index) + 1
        start, end = value.start_mark.index, value.end_mark.index
        return text[:line] + comments + text[line:start] + mode + text[end:]
    _, value = pairs[beside]
    end = text.find("\n", value.end_mark.index)
    head, tail = (text[: end + 1], text[end + 1 :]) if end >= 0 else (text + end_of_line, "")
    return f"{head}{comments}mode: {mode}{end_of_line}{tail}"


def replace(edit: Edit) -> None:
    """Put the new file in the place of the old one, whole or not at all; its rights stay. Raises Failure."""
    path = edit.path.resolve()
    made = ""
    try:
        if path.read_bytes() != edit.before:
            raise Failure(Exit.NO, f"{edit.path} was changed by somebody meanwhile.", "Look at it, and run this again.")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".new", delete=False) as new:
            made = new.name
            new.write(edit.after)
            new.flush()
            os.fsync(new.fileno())
        shutil.copystat(path, made)
        with contextlib.suppress(PermissionError):
            os.chown(made, path.stat().st_uid, path.stat().st_gid)
        Path(made).replace(path)
        made = ""
        _sync(path.parent)
    except OSError as error:
        do = "Is the file mounted by itself, or the folder read-only? Change it where it comes from."
        raise Failure(Exit.NO, f"{edit.path} cannot be replaced: {error.strerror}.", do) from error
    finally:
        if made:
            Path(made).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
