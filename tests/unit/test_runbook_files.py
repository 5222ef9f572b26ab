"""Files that cannot be used as they are: each is a fault with its name, never a traceback, never half a runbook."""

from __future__ import annotations

from pathlib import Path

import pytest

from remediator import settings
from remediator.actions.registry import PARAMS
from remediator.diagnosis import NAMES
from remediator.errors import ConfigError
from remediator.runbooks import Runbook, load
from tests.unit.cases import RUNBOOK


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
