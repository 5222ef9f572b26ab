"""Docs and code say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from remediator.actions.registry import NAMES
from remediator.reasons import Reason
from remediator.runbooks import Runbook

ROOT = Path(__file__).resolve().parents[2]
FORMAT = (ROOT / "docs" / "runbook-format.md").read_text()


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_its_line(reason: Reason) -> None:
    """Whoever reads a reason in the journal finds it on the page."""
    assert re.search(rf"^\| `{reason.value}` \|", FORMAT, re.MULTILINE), f"{reason.value} is not documented"


def test_no_line_is_about_a_reason_that_does_not_exist() -> None:
    """The table of reasons is the enum, no more."""
    table = FORMAT.split("## Why it did not act")[1]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == {reason.value for reason in Reason}


@pytest.mark.parametrize("field", sorted(Runbook.model_fields))
def test_every_runbook_field_is_documented(field: str) -> None:
    """Shape of a runbook and the page about it."""
    assert f"`{field}" in FORMAT.split("## Numbers")[0], f"{field} is not documented"


def test_links_of_the_readme_lead_somewhere() -> None:
    """A README that points into nothing is a broken promise."""
    for link in re.findall(r"\]\(((?!https?://)[^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), f"README links to {link}, which is not there"


def test_the_page_of_actions_is_what_the_actions_say() -> None:
    """Made anew it is the same, and it has every action that can run."""
    page = ROOT / "docs" / "actions.md"
    subprocess.run([sys.executable, ROOT / "scripts" / "actions_docs.py", "--check"], cwd=ROOT, check=True)
    assert set(re.findall(r"^## ([a-z_]+)$", page.read_text(), re.MULTILINE)) == NAMES


def test_the_page_of_the_remediators_metrics_is_what_it_serves() -> None:
    """Made anew it is the same, and it has every metric of a rule that is the remediator's."""
    page = (ROOT / "docs" / "remediator-metrics.md").read_text()
    subprocess.run([sys.executable, ROOT / "scripts" / "remediator_metrics_docs.py", "--check"], cwd=ROOT, check=True)
    rules = "".join(path.read_text() for path in (ROOT / "alert-rules").glob("*.rules.yml"))
    asked = set(re.findall(r"(?<![:\w])prep_remediator_\w+(?=[{\s)\[])", rules))
    assert len(asked) > 10
    assert asked <= set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
