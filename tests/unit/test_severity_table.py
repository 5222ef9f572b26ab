"""alert-rules/severity.yml says what the handbook says, and a table that cannot hold is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerting.severity import NEVER_WAIT, TableError, load, parse, seconds
from tests.unit.rule_files import ROOT

HANDBOOK = ROOT / "tests" / "data" / "handbook-severity.md"
FILE = ROOT / "alert-rules" / "severity.yml"
TABLE = load(FILE)
ROW = re.compile(r"^\| \*\*(P\d)\*\* \((\w+)\) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def changed(*path: str, value: Any) -> str:
    """The file's text with another value at `path`."""
    data = yaml.safe_load(FILE.read_text())
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return yaml.safe_dump(data)


def test_the_table_is_the_handbooks() -> None:
    """Names, times to answer and examples, level by level and in its order, out of the handbook's own table."""
    rows = ROW.findall(HANDBOOK.read_text())
    assert len(rows) == 5
    assert rows == [(level, row.name.title(), row.respond, row.example) for level, row in TABLE.levels.items()]


@pytest.mark.parametrize("level", NEVER_WAIT)
def test_no_table_lets_the_worst_wait(level: str) -> None:
    """A `hold` for P0 or P1 is refused when the table is read, whoever wrote it."""
    with pytest.raises(TableError, match=f"{level}: may not wait"):
        parse(changed("levels", level, "hold", value="3m"), "table")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("levels", "P1", "pagerduty"), "nobody", "receivers.pagerduty"),
        (("levels", "P1", "slack"), "nowhere", "receivers.slack"),
        (("levels", "P3", "slack"), None, "nobody is told"),
        (("levels", "P4", "hours"), "never", "is not in hours"),
        (("levels", "P1", "receiver"), "people-p0", "there twice"),
        (("levels", "P1", "group_wait"), "10", "group_wait"),
        (("levels", "P1", "typo"), 1, "typo"),
    ],
)
def test_a_table_with_a_loose_end_is_refused(path: tuple[str, ...], value: Any, told: str) -> None:
    """The fault names its place; nothing is generated from such a table."""
    with pytest.raises(TableError, match=re.escape(told)):
        parse(changed(*path, value=value), "table")


def test_a_file_that_is_not_there_or_no_yaml_is_said(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(TableError, match="cannot be read"):
        load(tmp_path / "none.yml")
    with pytest.raises(TableError, match="is not YAML"):
        parse("levels: [", "table")


@pytest.mark.parametrize(("text", "value"), [("0s", 0), ("1m30s", 90), ("24h", 86_400), ("500ms", 0.5), ("1d", 86_400)])
def test_durations(text: str, value: float) -> None:
    """As Alertmanager reads them."""
    assert seconds(text) == value
    with pytest.raises(ValueError, match="not a duration"):
        seconds(f"{text} ")


def test_what_waits_for_its_hours_leaves_within_six_minutes() -> None:
    """Alertmanager asks again each group_interval; with a minute's slack that is the promise."""
    waiting = [row for row in TABLE.levels.values() if row.hours]
    assert waiting
    assert all(seconds(row.group_interval) + 60 <= 360 for row in waiting)
    assert all(seconds(row.group_interval) <= seconds(row.repeat_interval) for row in TABLE.levels.values())


def test_the_watchdog_is_asked_for_more_often_than_it_is_repeated() -> None:
    """As often, and every second message is left out: the switch would hear it each two minutes."""
    row = TABLE.watchdog
    assert seconds(row.group_interval) * 2 <= seconds(row.repeat_interval)
