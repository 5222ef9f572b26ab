"""Files that cannot be used as they are: each is a fault with its name, never a traceback, never half a runbook."""

from __future__ import annotations

from pathlib import Path

import pytest

from remediator import settings
from remediator.actions.registry import PARAMS
from remediator.diagnosis import NAMES
from remediator.errors import ConfigError
from remediator.runbooks import Runbook, from_body, load
from tests.unit.cases import RUNBOOK, SETTINGS


def loaded(folder: Path) -> tuple[Runbook, ...]:
    return load(folder, PARAMS, NAMES, 15.0)


def refused(folder: Path) -> str:
    """The only fault."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder)
    (fault,) = caught.value.faults
    return str(fault)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Half a file, or somebody's archive: said with its name, of runbooks and of the settings."""
    (tmp_path / "book.yml").write_bytes(b"\xff\xfe\x00")
    assert refused(tmp_path) == "book.yml: is not UTF-8 (save it as UTF-8)"
    with pytest.raises(ConfigError, match=r"book\.yml: is not UTF-8"):
        settings.load(tmp_path / "book.yml")


def test_a_folder_in_the_place_of_a_runbook(tmp_path: Path) -> None:
    """Whatever the operating system says about it."""
    (tmp_path / "folder.yml").mkdir()
    assert refused(tmp_path) == "folder.yml: cannot be read: Is a directory"


def test_a_query_whose_range_cannot_be_read(tmp_path: Path) -> None:
    """Its floor is not known, so nobody can say that the hold time is long enough."""
    (tmp_path / "book.yml").write_text(RUNBOOK.replace("p95[1m]", "p95[1y]"))
    assert "book.yml: proof.checks.0.query: not a duration: '1y'" in refused(tmp_path)


@pytest.mark.parametrize("value", [".nan", ".inf", "-5.0", "-5"])
@pytest.mark.parametrize("field", ["settle", "stale_after"])
def test_a_duration_that_is_none(tmp_path: Path, field: str, value: str) -> None:
    """Nothing is later than NaN: a settle time of it would let everything pass at once."""
    text = RUNBOOK.replace("settle: 30s", "").replace("stale_after: 1h", "")
    (tmp_path / "book.yml").write_text(f"{text}{field}: {value}\n")
    assert f"book.yml: {field}: " in refused(tmp_path)
    (tmp_path / "book.yml").write_text(f"{text}{field}: 5s\n")
    assert getattr(loaded(tmp_path)[0], field) == 5.0


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    """A plain loader takes the last one: the cooldown that somebody reads would not be the one that holds."""
    (tmp_path / "book.yml").write_text(f"{RUNBOOK}limits: {{cooldown: 1s}}\n")
    lines = RUNBOOK.splitlines()
    first = next(number for number, line in enumerate(lines, 1) if line.startswith("limits:"))
    assert refused(tmp_path) == (
        f"book.yml:{len(lines) + 1}: limits: is there twice (keep one; the other one is in line {first})"
    )
    nested = RUNBOOK.replace("wait: 10s", "wait: 10s, attempts: 1, attempts: 3")
    (tmp_path / "book.yml").write_text(nested)
    line = next(number for number, text in enumerate(nested.splitlines(), 1) if "attempts" in text)
    assert refused(tmp_path).startswith(f"book.yml:{line}: ladder.1.attempts: is there twice (keep one; ")


@pytest.mark.parametrize("value", ["2024-13-45", "!!int x", "[" * 3000], ids=["date", "number", "depth"])
def test_what_yaml_itself_cannot_read(tmp_path: Path, value: str) -> None:
    """A fault of the file like any other, not of the program."""
    (tmp_path / "book.yml").write_text(f"{RUNBOOK}extra: {value}\n")
    assert "not YAML" in refused(tmp_path)


def test_a_key_of_the_settings_that_stands_twice(tmp_path: Path) -> None:
    """Two modes: nobody can say which one was meant."""
    with pytest.raises(ConfigError) as caught:
        settings.parse(f"{SETTINGS}mode: shadow\n", "remediator.yml")
    assert [str(fault) for fault in caught.value.faults] == [
        "remediator.yml:8: mode: is there twice (keep one; the other one is in line 3)"
    ]


def test_an_alias_that_leads_back_to_itself(tmp_path: Path) -> None:
    """YAML allows it; it is a fault of the file and no endless search."""
    (tmp_path / "book.yml").write_text(f"{RUNBOOK}not_automated: &loop [*loop]\n")
    assert refused(tmp_path).startswith("book.yml: not_automated.0: ")


@pytest.mark.parametrize("value", ["30", "0", "2.5", "1:30", "true"])
@pytest.mark.parametrize("key", ["settle", "approve_within"])
def test_a_duration_without_a_unit(tmp_path: Path, key: str, value: str) -> None:
    """The schema that editors use refuses it, so does the program: thirty seconds or thirty minutes? YAML reads 1:30 as 90."""
    (tmp_path / "book.yml").write_text(f"{RUNBOOK.replace('settle: 30s', '')}{key}: {value}\n")
    said = refused(tmp_path)
    assert said.startswith(f"book.yml: {key}: ")
    assert "has no unit; write for example 90s, 15m or 1h30m" in said


def test_a_duration_of_the_settings_or_of_an_action_without_a_unit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"remediator\.yml: guards\.storm_calm: .*has no unit"):
        settings.parse(f"{SETTINGS}guards: {{storm_calm: 600}}\n", "remediator.yml")
    text = RUNBOOK.replace("restart_service", "cancel_query").replace("params: {", "params: {min_age: 300, ")
    (tmp_path / "book.yml").write_text(text)
    with pytest.raises(ConfigError, match=r"book\.yml: ladder\.0\.params\.min_age: .*has no unit"):
        loaded(tmp_path)


def test_what_the_journal_keeps_are_seconds(tmp_path: Path) -> None:
    """The body of an episode's runbook is read back as it was, whatever wrote it."""
    (tmp_path / "book.yml").write_text(RUNBOOK)
    (book,) = loaded(tmp_path)
    assert from_body(book.body()) == book
