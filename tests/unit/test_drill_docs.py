"""The demo's page of drills is what there is; the handbook's response time is read right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from demo.drills import disk_space_full
from demo.drills.registry import ALL
from demo.drills.table import limit

PAGE = (Path(__file__).resolve().parents[2] / "demo" / "README.md").read_text().split("## Drills")[1].split("\n## ")[0]


def test_every_drill_has_its_line() -> None:
    """By name and runbook, and no line is about one that is not there."""
    told = dict(re.findall(r"^\| `([a-z-]+)` \| `([a-z-]+)` \|", PAGE, re.MULTILINE))
    drills = [*ALL.values(), disk_space_full.HEALS]
    assert told == {drill.name: drill.runbook for drill in drills}


def test_every_runbook_of_a_drill_has_one_that_must_be_left_alone() -> None:
    """A negative drill for each runbook: it looks alike."""
    tried = {drill.runbook for drill in ALL.values()}
    left = {drill.runbook for drill in ALL.values() if drill.untouched or drill.mode == "shadow"}
    shadowed_by_another = {"redis-connection-failures"}  # its sessions are kept by the drills of redis-down
    assert tried - left <= shadowed_by_another


@pytest.mark.parametrize(
    ("words", "seconds"), [("P1 < 15 min", 900.0), ("P2 < 1 hour", 3600.0), ("P0 Immediate", None), ("", None)]
)
def test_a_response_time_is_read_in_seconds(words: str, seconds: float | None) -> None:
    """The handbook's own words; one without a number has none."""
    assert limit(words) == seconds
