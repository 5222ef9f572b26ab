"""docs/exporter-illness.md: every backend, every illness, and tests that exist."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "exporter-illness.md").read_text()
BACKENDS = (
    "PostgreSQL primary", "PostgreSQL replica", "Redis", "Docker Engine", "S3", "Directory of backups", "Probes",
    "Vendor page", "Disk mount",
)  # fmt: skip
ILLNESSES = ("frozen", "refusing", "slow", "answering garbage", "out of connections", "locked table")
NAMED = re.compile(r"`(test_\w+)\.py::(test_\w+)(?:\[([^\]`]+)\])?`")


def rows() -> list[list[str]]:
    """The cells of each row of the table, without its head."""
    table = [line for line in TEXT.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


def ids(test: Any) -> Iterator[str]:
    """Ids of a test that is parametrized with plain words, as pytest makes them: the lowest decorator comes first."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    for words in itertools.product(*(mark.args[1] for mark in marks)):
        yield "-".join(str(word) for word in words)


@pytest.mark.parametrize(("file", "name", "chosen"), sorted(set(NAMED.findall(TEXT))))
def test_every_test_that_is_named_exists(file: str, name: str, chosen: str) -> None:
    """A proof that was renamed or removed is missed here, with its parameters."""
    test = getattr(importlib.import_module(f"tests.integration.{file}"), name, None)
    assert test is not None, f"{file}.py has no {name}"
    assert not chosen or chosen in ids(test), f"{name} has no parameters {chosen}: {list(ids(test))}"


def test_every_backend_and_every_illness_has_its_row() -> None:
    """No combination is left out, and none is there twice."""
    found = [(row[0], illness) for row in rows() for illness in row[1].split(", ")]
    assert sorted(found) == sorted(itertools.product(BACKENDS, ILLNESSES))


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}: {row[1]}")
def test_every_row_is_whole_or_says_why_it_does_not_apply(row: list[str]) -> None:
    """What is shown, absent, held, how it recovers, and at least one test; nothing of the kind where it cannot be."""
    backend, _, shows, absent, held, recovers, tests = row
    if shows.startswith("does not apply: "):
        assert not any((absent, held, recovers))
        return
    assert all((shows, absent, held, recovers)), backend
    assert NAMED.search(tests), f"{backend}: no test"


def test_every_case_of_the_page_is_in_the_table() -> None:
    """A new case of the exporter as a whole gets its row."""
    module = importlib.import_module("tests.integration.test_exporter_illness")
    named = {(name, chosen) for file, name, chosen in NAMED.findall(TEXT) if file == "test_exporter_illness"}
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    assert named == {(name, one) for name, test in tests.items() for one in ids(test)}
