"""The schemas in docs/: what the models say, and what an editor makes of them is what the programs do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from remediator.actions.registry import PARAMS
from remediator.diagnosis import NAMES
from remediator.errors import ConfigError
from remediator.runbooks import load
from tests.unit.cases import RUNBOOK

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "runbooks").glob("*.yml"))
STORIES = sorted((ROOT / "runbooks" / "tests").glob("*.yml"))
SCHEMA = json.loads((ROOT / "docs" / "runbook.schema.json").read_text())
TESTS = json.loads((ROOT / "docs" / "runbook-test.schema.json").read_text())
EDITOR = jsonschema_rs.validator_for(SCHEMA)
LINE = "# yaml-language-server: $schema=../docs/runbook.schema.json"


def test_they_are_what_the_models_say() -> None:
    """A field that was added, a number that was changed: the schemas are made anew."""
    script = [sys.executable, str(ROOT / "scripts" / "runbook_schema.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_they_are_schemas() -> None:
    """By their own meta-schema."""
    jsonschema_rs.meta.validate(SCHEMA)
    jsonschema_rs.meta.validate(TESTS)


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_tests_of_shipped_runbooks_are_good_to_an_editor(path: Path) -> None:
    """And name their schema; a typing mistake in one is seen."""
    told = yaml.safe_load(path.read_text())
    editor = jsonschema_rs.validator_for(TESTS)
    assert [error.message for error in editor.iter_errors(told)] == []
    assert path.read_text().splitlines()[0] == LINE.replace("../docs/runbook", "../../docs/runbook-test")
    for wrong in ({"facts": {"open_fire": 1}}, {"world": {"rule": "maybe"}}, {"starts_at": "soon"}, {"step_test": []}):
        assert not editor.is_valid({**told, "tests": [{**told["tests"][0], **wrong}]})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_runbooks_are_good_to_an_editor(path: Path) -> None:
    """And they name the schema, so that an editor finds it."""
    assert [error.message for error in EDITOR.iter_errors(yaml.safe_load(path.read_text()))] == []
    assert path.read_text().splitlines()[0] == LINE


def changed(path: str, value: Any) -> dict[str, Any]:
    """The healthy runbook with one value replaced; None takes it away."""
    book: Any = yaml.safe_load(RUNBOOK)
    place, keys = book, [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return dict(book)


def taken(book: dict[str, Any], folder: Path) -> bool:
    """Does the remediator load it?"""
    (folder / "book.yml").write_text(yaml.safe_dump(book))
    try:
        load(folder, PARAMS, NAMES, 15.0)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("settle", "30s"),
        ("settle", "1h30m"),
        ("mode", "approve"),
        ("blocked_by", []),
        ("limits.cooldown", "90s"),
        ("proof.checks.0.below", 0.5),
        ("ladder.0.deadline", "1m"),
        ("ladder.0.params.service", "engine"),
        ("ladder.0", {"name": "c", "action": "cancel_query", "params": {"service": "db", "min_age": "5m"}}),
        ("diagnosis", ["container_facts", "long_queries"]),
    ],
)
def test_both_take_it(tmp_path: Path, path: str, value: Any) -> None:
    """What the remediator loads is no mistake in the editor."""
    book = changed(path, value)
    assert taken(book, tmp_path)
    assert EDITOR.is_valid(book)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 2),
        ("name", "Not A Name"),
        ("title", None),
        ("setle", "30s"),
        ("settle", "soon"),
        ("settle", 30),
        ("limits.cooldown", 0),
        ("ladder.0", {"name": "c", "action": "cancel_query", "params": {"service": "db", "min_age": 300}}),
        ("mode", "sometimes"),
        ("match.alertnames", []),
        ("target_labels", "service"),
        ("vantage.kind", "guess"),
        ("diagnosis", ["tea_leaves"]),
        ("ladder", []),
        ("ladder.0.action", "rm_rf"),
        ("ladder.0.attempts", 4),
        ("ladder.0.params", {}),
        ("ladder.0.params.force", True),
        ("ladder.0", {"name": "c", "action": "cancel_query", "params": {"service": "db", "min_age": "long"}}),
        ("ladder.0", {"name": "c", "action": "cancel_query", "params": {"service": "db"}}),
        ("proof.checks.0.below", None),
        ("proof.checks.0.at_least", 5),
        ("proof.hold", None),
        ("limits.per_hour", 0),
        ("hand_over", {"severity": "P9"}),
    ],
)
def test_both_refuse_it(tmp_path: Path, path: str, value: Any) -> None:
    """A mistake of shape shows while it is written, not at 3 am."""
    book = changed(path, value)
    assert not taken(book, tmp_path)
    assert not EDITOR.is_valid(book)
