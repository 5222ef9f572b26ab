"""Reading configuration and runbooks whole or not at all, and what differs between two of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from remediator.configuration import changes, longest_deadline, read
from remediator.errors import ConfigError
from tests.unit.cases import RUNBOOK, SETTINGS

BOOK = "engine-slow.yml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration with one runbook."""
    (tmp_path / "runbooks").mkdir()
    (tmp_path / "runbooks" / BOOK).write_text(RUNBOOK)
    (tmp_path / "remediator.yml").write_text(f"{SETTINGS}runbooks: {tmp_path}/runbooks\n")
    return tmp_path / "remediator.yml"


def add(file: Path, more: str) -> None:
    """Lines of the configuration, in the place of those that say something else."""
    keys = tuple(f"{line.split(':')[0]}:" for line in more.splitlines())
    kept = [line for line in file.read_text().splitlines() if not line.startswith(keys)]
    file.write_text("\n".join([*kept, more]))


def test_every_fault_of_every_file_is_told(file: Path) -> None:
    """Shape, references and what cannot change: one answer, so that one edit mends it."""
    held = read(file).settings
    add(file, "listen: {port: 1}\nenvironment: production\n")
    other = RUNBOOK.replace("restart_service", "rm_rf").replace("hold: 2m", "hold: 5s")
    (file.parent / "runbooks" / "second.yml").write_text(other)
    (file.parent / "runbooks" / "third.yml").write_text(RUNBOOK.replace("settle:", "setle:"))
    with pytest.raises(ConfigError) as caught:
        read(file, held)
    said = [fault.where for fault in caught.value.faults]
    assert said == [
        "environment",
        "listen.port",
        "third.yml: setle",
        "second.yml: name",
        "second.yml: match.alertnames",
        "second.yml: ladder.0.action",
        "second.yml: ladder.1.action",
        "second.yml: proof.hold",
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("journal: {url: 'sqlite:////elsewhere.db'}", "journal.url"),
        ("journal: {lease: 60s}", "journal.lease"),
        ("webhook: {token_files: [/dev/null], path: /other}", "webhook.path"),
        ("log_format: console", "log_format"),
        ("alert_pages: /elsewhere", "alert_pages"),
    ],
)
def test_what_needs_a_restart_is_a_fault_of_a_reload_only(file: Path, text: str, where: str) -> None:
    """At a start it is taken; a reload says where, and what to do."""
    held = read(file).settings
    add(file, text + "\n")
    assert read(file).settings != held
    with pytest.raises(ConfigError) as caught:
        read(file, held)
    (fault,) = caught.value.faults
    assert (fault.where, fault.remedy) == (where, "restart the remediator")


def test_what_changed_is_told_without_values(file: Path) -> None:
    """By runbook and by key; an address may hold a password."""
    before = read(file)
    add(file, "services: {engine: {singleton: false}}\ndocker: {gate_url: 'http://u:secret@gate:1'}\n")
    (file.parent / "runbooks" / BOOK).write_text(RUNBOOK.replace("settle: 30s", "settle: 40s"))
    new = RUNBOOK.replace("engine-slow", "engine-gone").replace("EngineSlow", "EngineGone")
    (file.parent / "runbooks" / "gone.yml").write_text(new)
    after = read(file)
    assert changes(before, before) == []
    assert changes(before, after) == [
        "runbook engine-gone added",
        "runbook engine-slow changed",
        "setting docker.gate_url changed",
        "setting services.engine.singleton changed",
    ]
    assert "runbook engine-gone removed" in changes(after, before)
    assert after.digest != before.digest


def test_an_unclean_start_waits_for_the_longest_deadline(file: Path) -> None:
    """20 s for a rung and 10 s for its start."""
    assert longest_deadline(read(file)) == 30.0
