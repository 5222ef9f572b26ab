"""Every line of the handbook's "Common Issues & Solutions" became something, or was left out with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from remediator import runbooks
from tests.unit.rule_files import rules

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = (ROOT / "tests" / "data" / "handbook-common-issues.md").read_text()
"""The chapter, copied from the handbook of 2025-11-13."""
MAP = yaml.safe_load((ROOT / "docs" / "handbook-map.yml").read_text())
BOOKS = {path.stem: runbooks.parse(path.read_text(), path.name) for path in sorted((ROOT / "runbooks").glob("*.yml"))}
BECOMES = {"alerts", "diagnosis", "rung", "advice", "left_out"}


def chapter() -> Iterator[tuple[str, str]]:
    """(issue's heading, line): all that says something; headings, rules, fences and the words "Quick Fix" do not."""
    issue = ""
    for line in CHAPTER.splitlines():
        if line.startswith("### "):
            issue = line
        elif line and not line.startswith(("## ", "```", "---")) and line != "**Quick Fix**:":
            yield issue, line


def mapped() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(issue's heading, line, entry), a triple for each line."""
    for issue in MAP["issues"]:
        for entry in issue["lines"]:
            lines = entry["line"] if isinstance(entry["line"], list) else [entry["line"]]
            for line in lines:
                yield issue["title"], line, entry


ENTRIES = [(issue, entry) for issue in MAP["issues"] for entry in issue["lines"]]
NAMES = [str(entry["line"])[:60] for _, entry in ENTRIES]


def test_every_line_of_the_chapter_is_mapped_once() -> None:
    """Nothing of the handbook is forgotten, and nothing is said of lines that it does not have."""
    assert [(issue, line) for issue, line, _ in mapped()] == list(chapter())


@pytest.mark.parametrize(("issue", "entry"), ENTRIES, ids=NAMES)
def test_what_a_line_became_is_there(issue: dict[str, Any], entry: dict[str, Any]) -> None:
    """Alerts, diagnoses, rungs and words are in the rules and runbooks that ship."""
    became = entry.keys() - {"line"}
    assert became
    assert became <= BECOMES
    book = BOOKS[issue["runbook"]]
    assert set(entry.get("alerts", ())) <= {rule.get("alert") for rule in rules()}
    assert set(entry.get("alerts", ())) & set(book.match.alertnames) or "alerts" not in entry
    assert set(entry.get("diagnosis", ())) <= set(book.diagnosis)
    for name, rung in entry.get("rung", {}).items():
        assert rung in [each.name for each in BOOKS[name].ladder]
    advice = " ".join((book.hand_over.first_steps, *book.not_automated))
    assert _plain(entry.get("advice", "")) in _plain(advice)
    assert _plain(entry.get("left_out", "")) in _plain(" ".join(book.not_automated))


def test_a_rung_of_every_quick_fix_is_no_harsher_than_the_handbook() -> None:
    """The handbook's restart of the replica and its prune of volumes are in no runbook as they stand."""
    actions = {rung.action for rung in BOOKS["high-database-cpu"].ladder}
    assert actions == {"cancel_query", "terminate_query"}
    assert all(rung.approval for rung in BOOKS["disk-space-full"].ladder)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()
