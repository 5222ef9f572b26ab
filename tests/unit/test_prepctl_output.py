"""Where prepctl's words go: nobody reads any more, nothing can be written, there is no output at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prepctl import raw
from remediator.actions.registry import NAMES

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("severity:fragment",)  # by typer
TABLE = ("drill",)  # by rich, of another package
CHECKED = ("runbook:check", "runbooks")


def prepctl(words: tuple[str, ...], **where: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prepctl", *words]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60, check=False, **where)


@pytest.mark.parametrize("words", [SHOWN, TABLE, CHECKED])
def test_a_reader_that_has_gone(words: tuple[str, ...]) -> None:
    """As of a program that SIGPIPE ended, never a "no" (1), and not a word."""
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait(10)
        done = prepctl(words, stdout=reader.stdin)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("words", [SHOWN, TABLE])
def test_a_disk_that_is_full(words: tuple[str, ...]) -> None:
    """Wrong, and said in one line: a half-written export must not look whole."""
    with Path("/dev/full").open("w") as full:
        done = prepctl(words, stdout=full)
    assert (done.returncode, done.stderr) == (2, "The output cannot be written: No space left on device.\n")


def test_no_output_at_all() -> None:
    """Closed by whoever called it: done all the same."""
    command = [sys.executable, "-m", "prepctl", *CHECKED]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_failure_keeps_its_code() -> None:
    """A "no" stays one while somebody reads."""
    done = prepctl(("runbook:check", "nosuch"), stdout=subprocess.PIPE)
    assert done.returncode == 2
    assert "nosuch is not a folder" in done.stderr


def test_the_commands_of_other_packages_say_what_they_do() -> None:
    """In the list of all commands, without being loaded."""
    said = prepctl(("--help",), stdout=subprocess.PIPE).stdout
    for word in ("What the remediator would", "One drill on", "Years of incidents"):
        assert word in said, said


@pytest.mark.parametrize("action", sorted(NAMES))
def test_every_action_has_words_for_a_persons_own_hand(action: str) -> None:
    """Also where no command is safe: that the remediator is away must not look like a wrong name."""
    assert raw.command(action, "redis").startswith("By hand")
