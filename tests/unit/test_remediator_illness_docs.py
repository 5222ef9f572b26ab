"""docs/remediator-illness.md: everything that the remediator stands on, every illness, reasons and tests that exist."""

from __future__ import annotations

import importlib
import itertools
import re
from pathlib import Path

import pytest

from remediator.reasons import Reason
from tests.unit.test_illness_docs import NAMED, ids

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "remediator-illness.md").read_text()
BACKENDS = ("Prometheus", "Alertmanager", "Gate", "Target", "Journal")
ILLNESSES = ("down", "frozen", "slow", "lying")
CASES = "test_remediator_illness"


def rows() -> list[list[str]]:
    """The cells of each row of the table, without its head."""
    table = [line for line in TEXT.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


def test_everything_has_every_illness() -> None:
    """Down, frozen and slow once; lying in at least one way."""
    found = [(row[0], row[1].partition(":")[0]) for row in rows()]
    assert set(found) == set(itertools.product(BACKENDS, ILLNESSES))
    assert all(found.count(each) == 1 for each in found if each[1] != "lying")


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}: {row[1]}")
def test_every_row_is_whole_or_says_why_it_does_not_apply(row: list[str]) -> None:
    """A reason that the remediator knows, how people learn of it, and tests that exist."""
    _, _, does, reason, people, tests = row
    if does.startswith("does not apply: "):
        assert not any((reason, people, tests))
        return
    assert does
    assert people
    named = re.match(r"`(\w+)`", reason)
    assert named is not None
    assert named[1] in {*Reason, "journal_failed"}
    assert NAMED.search(tests)
    for file, name, chosen in NAMED.findall(tests):
        test = getattr(importlib.import_module(f"tests.faults.{file}"), name, None)
        assert test is not None, f"{file}.py has no {name}"
        assert not chosen or chosen in ids(test), f"{name} has no parameters {chosen}"


def test_every_case_is_in_the_table() -> None:
    """A new case gets its row."""
    module = importlib.import_module(f"tests.faults.{CASES}")
    named = {(name, chosen) for file, name, chosen in NAMED.findall(TEXT) if file == CASES}
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    assert named == {(name, one) for name, test in tests.items() for one in ids(test)}
