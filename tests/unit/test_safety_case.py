"""The safety case and the glossary name only what is there: each test, each piece of code, each hazard and order."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "safety-case.md").read_text()
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
HAZARDS, ORDERS = range(1, 33), range(1, 37)
WORDS_OF_A_REASON = 5
FOLDERS = "remediator|exporter|backtest|prepctl|demo|alertmanager|alert-rules|runbooks|config|simulation"
CODE = re.compile(rf"`((?:{FOLDERS})/[\w./-]+?\.\w+|docker-compose\.yml)(?:::([\w.]+))?`")
TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


def rows(part: str) -> dict[int, list[str]]:
    """The rows of one half of the page, `Hazards` or `Orders of events`: number -> the other cells.

    Raises ValueError for a number that is there twice, or a row that has not four cells.
    """
    found: dict[int, list[str]] = {}
    for line in PAGE.split(f"\n## {part}\n")[1].split("\n## ")[0].splitlines():
        if not re.match(r"\| \d", line):
            continue
        number, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if int(number) in found or len(cells) != 3:
            raise ValueError(f"{part} {number}: there twice, or not four cells")
        found[int(number)] = cells
    return found


ROWS = [(f"{part} {number}", cells) for part in ("Hazards", "Orders of events") for number, cells in rows(part).items()]


@cache
def names_in(file: str) -> frozenset[str]:
    """What a Python file defines: functions, classes, assigned names, and `Class.method`."""
    found: set[str] = set()
    for item in ast.parse((ROOT / file).read_text()).body:
        for name in _names_of(item):
            found.add(name)
            found |= {f"{name}.{inner}" for each in getattr(item, "body", ()) for inner in _names_of(each)}
    return frozenset(found)


def _names_of(item: ast.stmt) -> list[str]:
    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [item.name]
    targets = item.targets if isinstance(item, ast.Assign) else [item.target] if isinstance(item, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def missing_tests(text: str) -> list[str]:
    """The tests that a text names and that do not exist, as pytest names them."""
    return [
        f"{file}::{name}"
        for file, name in TEST.findall(text)
        if not (ROOT / file).is_file()
        or name.replace("::", ".") not in names_in(file)
        or not name.split("::")[-1].startswith("test_")
    ]


def missing_code(text: str) -> list[str]:
    """The files and names of the code that a text names and that do not exist."""
    return [
        f"{file}::{name}" if name else file
        for file, name in CODE.findall(text)
        if not (ROOT / file).is_file() or (name and name not in names_in(file))
    ]


def reason(shown: str) -> str:
    """What stands after `not yet:` in the last cell, "" when nothing does."""
    return shown.partition("not yet:")[2].strip()


def test_every_hazard_and_every_order_has_its_row() -> None:
    """None is forgotten, none is there twice, and they stand in order."""
    assert list(rows("Hazards")) == list(HAZARDS)
    assert list(rows("Orders of events")) == list(ORDERS)


@pytest.mark.parametrize(("row", "cells"), ROWS, ids=[row for row, _ in ROWS])
def test_every_row_has_a_test_or_says_why_not(row: str, cells: list[str]) -> None:
    """A hazard without a test is one that somebody knows of and can name."""
    what, control, shown = cells
    assert what.endswith("."), "a hazard is a sentence"
    assert CODE.search(control), "where in the code is it?"
    assert TEST.search(shown) or reason(shown), "neither a test nor a reason"
    if "not yet" in shown:
        assert len(reason(shown).split()) >= WORDS_OF_A_REASON, "`not yet:` and no reason"
        assert reason(shown).endswith(".")


@pytest.mark.parametrize(("row", "cells"), ROWS, ids=[row for row, _ in ROWS])
def test_every_named_test_exists(row: str, cells: list[str]) -> None:
    """Every name can be given to pytest, and everything that looks like a test's name is one."""
    shown = cells[2]
    assert missing_tests(shown) == []
    assert len(TEST.findall(shown)) == shown.count("::test_"), "a test that is not written as `tests/…::name`"


def test_every_named_piece_of_code_exists() -> None:
    """Where the page says that a control is, there it is."""
    for page in (PAGE, GLOSSARY):
        assert missing_code(page) == []


def test_no_test_is_named_twice_in_a_row() -> None:
    """A longer list is not a better one."""
    for row, cells in ROWS:
        named = TEST.findall(cells[2])
        assert len(set(named)) == len(named), row


def test_a_word_has_one_meaning() -> None:
    """Each word is explained once."""
    words = re.findall(r"^\| \*\*([^*]+)\*\* \|", GLOSSARY, re.MULTILINE)
    assert len(words) > 40
    assert sorted({word for word in words if words.count(word) > 1}) == []


def test_what_is_not_there_is_found() -> None:
    """The checks themselves can fail: a file, a function, a method, a helper that is no test."""
    here = "tests/unit/test_safety_case.py"
    assert missing_tests(f"`{here}::test_what_is_not_there_is_found`") == []
    assert missing_tests(f"`{here}::test_gone` `tests/unit/test_gone.py::test_x` `{here}::reason`") == [
        f"{here}::test_gone",
        "tests/unit/test_gone.py::test_x",
        f"{here}::reason",
    ]
    assert missing_code("`remediator/planner.py::next_step` `remediator/engine.py::Engine.drive`") == []
    assert missing_code("`remediator/planner.py::gone` `remediator/gone.py` `remediator/engine.py::Engine.gone`") == [
        "remediator/planner.py::gone",
        "remediator/gone.py",
        "remediator/engine.py::Engine.gone",
    ]
