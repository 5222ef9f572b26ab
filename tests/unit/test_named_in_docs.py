"""What the pages and the rules have somebody type or look for is there, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer

from prepctl import plugins
from prepctl.cli import app
from tests.unit.rule_contract import given
from tests.unit.rule_files import ROOT, alerts

PAGES = sorted({ROOT / "README.md", ROOT / "demo" / "README.md", *(ROOT / "docs").rglob("*.md")})
TYPED = re.compile(r"(?:`|^ {0,4}|exec [a-z-]+ |remediator )prepctl ([a-z][a-z-]*(?::[a-z-]+)?)", re.MULTILINE)
METRIC = re.compile(r"(?<![\w.*/~-])prep_[a-z_]*[a-z]\b(?![*.])")
NO_METRICS = {
    "prep_analyst": "a role of the demo's database",
    "prep_app": "a role of the demo's database",
    "prep_exporter": "a role of PostgreSQL, a user of Redis",
    "prep_remediator": "a role of PostgreSQL, a user of Redis",
    "prep_replication": "a role of PostgreSQL",
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands() -> set[str]:
    """Every command of prepctl, those of the other packages of a checkout among them."""
    found = {each.name for each in (*app.registered_commands, *entry_points(group=plugins.GROUP))}
    for group in app.registered_groups:
        assert isinstance(group.typer_instance, typer.Typer)
        found |= {each.name for each in group.typer_instance.registered_commands}
    return {name for name in found if name}


def texts() -> Iterator[tuple[str, str]]:
    """Where it stands, and the text: pages, and what the alerts tell people."""
    for path in PAGES:
        yield named(path), path.read_text()
    for name, rule in alerts().items():
        yield f"alert {name}", " ".join(str(text) for text in rule["annotations"].values())


TEXTS = list(texts())


@pytest.mark.parametrize(("where", "text"), TEXTS, ids=[where for where, _ in TEXTS])
def test_a_command_that_somebody_is_told_to_type_is_there(where: str, text: str) -> None:
    """At 3 am a command that does not exist costs minutes, and trust."""
    assert set(TYPED.findall(text)) <= commands(), where


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_metric_that_a_page_names_is_there(path: Path) -> None:
    """By the catalog, the services, the switch or the remediator; the beginning of one's name is what `grep` takes."""
    names = {name for name in METRIC.findall(path.read_text()) if name not in NO_METRICS}
    assert {name for name in names if not any(known.startswith(name) for known in given())} == set()


@pytest.mark.parametrize("name", [name for name, rule in alerts().items() if "runbook" in rule["labels"]])
def test_a_page_says_which_runbook_its_alert_has(name: str) -> None:
    """In its third line, where the answer's time stands too: who reads "nothing is done by itself" acts twice."""
    third = (ROOT / "docs" / "alerts" / f"{name}.md").read_text().splitlines()[2]
    assert f"Runbook: `{alerts()[name]['labels']['runbook']}`." in third


@pytest.mark.parametrize("name", [name for name, rule in alerts().items() if "runbook" not in rule["labels"]])
def test_a_page_promises_no_runbook_that_its_alert_does_not_have(name: str) -> None:
    """Nobody waits for what will not come."""
    assert "Runbook: `" not in (ROOT / "docs" / "alerts" / f"{name}.md").read_text()
