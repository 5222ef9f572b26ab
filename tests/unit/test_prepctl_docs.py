"""The page of the reading commands and the commands say the same, and no command of the handbook is forgotten."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from prepctl.diagnoses.app import app
from remediator.captures import CAPTURES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "prepctl.md").read_text()
READING = PAGE.split("## The handbook's other commands")[0]
ROWS = re.findall(r"^\| `([a-z]+:[a-z-]+)[^|]*\|[^|]*\| (?:`(\w+)` )?\|$", READING, re.MULTILINE)
HANDBOOK = (
    "payments:recent", "payments:retry", "compliance:stats", "redis:pool-stats", "db:migrate", "health:check",
    "alerts:silence", "audit:logins", "audit:suspicious", "users:lock", "logs:errors", "db:connections", "redis:info",
    "audit:export",
)  # fmt: skip
"""Every `prepctl` command that the handbook of 2025-11-13 has anybody type."""


def test_every_reading_command_has_its_line() -> None:
    """And no line is about one that is not there; `health:check` is older, and is told for its `--all`."""
    assert {name for name, _ in ROWS} == {command.name for command in app.registered_commands} | {"health:check"}


@pytest.mark.parametrize(("name", "diagnosis"), [row for row in ROWS if row[1]])
def test_a_command_asks_the_diagnosis_that_the_page_says(name: str, diagnosis: str) -> None:
    """The same function as the evidence: there is such a diagnosis, and the command names it."""
    (command,) = [each for each in app.registered_commands if each.name == name]
    assert diagnosis in CAPTURES
    assert command.callback is not None
    assert f'"{diagnosis}"' in inspect.getsource(command.callback)


def test_every_diagnosis_can_be_asked_for() -> None:
    """Whatever is captured as evidence, a person can read without an episode."""
    assert {diagnosis for _, diagnosis in ROWS if diagnosis} == set(CAPTURES)


@pytest.mark.parametrize("command", HANDBOOK)
def test_a_command_of_the_handbook_is_told_of(command: str) -> None:
    """Provided, or why not and what to do instead."""
    assert f"`{command}" in PAGE
