"""What prepctl says of a file or an address that is wrong: which one, why in words, what to do; exit code 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backtest import command
from prepctl.cli import EXITS, app
from prepctl.diagnoses import health
from prepctl.errors import Failure
from remediator.settings import parse
from tests.unit.rule_files import ROOT


def refused(*words: str | Path) -> str:
    """What the command says when it is called wrongly, in one line."""
    ended = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(ended.exception, Failure), ended.output
    assert ended.exception.code == 2
    said = " ".join(f"{ended.exception.message} {ended.exception.do}".split())
    assert "Errno" not in said
    return said


@pytest.mark.parametrize("option", ["--config", "--rules"])
def test_the_file_that_is_wrong_is_blamed(option: str) -> None:
    """And not the runbooks, which are sound."""
    said = refused("runbook:check", ROOT / "runbooks", option, "/nonexistent")
    assert f"in {option} /nonexistent" in said
    assert str(ROOT / "runbooks") not in said


def test_runbooks_are_still_blamed_for_themselves(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text("format: 1\n")
    assert f"in {tmp_path}; the remediator would not start with these" in refused("runbook:check", tmp_path)


def test_a_runbook_is_no_file_of_tests() -> None:
    """One sentence and where tests are, instead of every key of the runbook."""
    said = refused("runbook:test", ROOT / "runbooks" / "redis-down.yml")
    assert "is a runbook and no file of tests (its tests are files of their own: runbooks/tests/*.test.yml)" in said
    assert "Extra inputs" not in said


def test_a_file_that_cannot_be_read_is_told_in_words(tmp_path: Path) -> None:
    """The system's words without its number; a binary file without the codec's."""
    binary = tmp_path / "x.yml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "/nonexistent cannot be read: No such file or directory." in refused("slo:generate", "/nonexistent")
    assert f"{binary} is not UTF-8." in refused("slo:generate", binary)
    missing = refused("shadow:report", "--journal", "/nonexistent")
    assert "--journal: /nonexistent cannot be read: No such file or directory. Give what" in missing
    assert f"--journal: {binary} is not UTF-8." in refused("shadow:report", "--journal", binary)


@pytest.mark.parametrize("file", ["", "[]", "services: {}"])
def test_what_is_no_configuration_of_alertmanager_is_a_wrong_file(file: str, tmp_path: Path) -> None:
    """No answer that alerts would not arrive."""
    merged = tmp_path / "merged.yml"
    merged.write_text(file)
    said = refused("severity:check-merge", merged, "--root", ROOT)
    assert f"{merged} is no configuration of Alertmanager" in said


def test_help_tells_every_exit_code() -> None:
    """Those of docs/prepctl.md."""
    page = (ROOT / "docs" / "prepctl.md").read_text().split("## Exit codes")[1].split("##")[0]
    assert re.findall(r"(?:^Exit codes: |; )(\d+) ", " ".join(EXITS.split())) == re.findall(
        r"^\| (\d+) ", page, re.MULTILINE
    )
    assert "promise that did not hold" in " ".join(EXITS.split())


def test_a_missing_secret_is_told_as_such(tmp_path: Path) -> None:
    """A file's name that ends with `password` stands before our own words: they are no password."""
    file = tmp_path / "postgres_password"
    (entry,) = health.probed(
        parse(
            "environment: test\nwebhook: {token_files: [/dev/null]}\n"
            "prometheus: {urls: ['http://127.0.0.1:9']}\nalertmanager: {urls: ['http://127.0.0.1:9']}\n"
            f"databases: {{main: {{host: 127.0.0.1, port: 9, user: u, database: d, password_file: {file}}}}}\n",
            "test",
        )
    )
    assert "secret cannot be read: No such file or directory" in entry["detail"]
    assert "[redacted:secret]" not in entry["detail"]


@pytest.mark.parametrize("url", ["foo", "localhost:9090", "ftp://x", "http://", "http://[x"])
def test_an_address_that_is_none_is_said_once(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--since", "1d", "--runbooks", str(ROOT / "runbooks"), "--prometheus", url]) == 2
    assert capsys.readouterr().err == f"--prometheus: {url!r} is no URL; write http://host:9090.\n"


def test_a_page_that_cannot_be_is_refused_before_the_reading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing answers at that address, and it is not asked: the page comes first."""
    words = ["--since", "1d", "--runbooks", str(ROOT / "runbooks"), "--prometheus", "http://127.0.0.1:9", "--html"]
    for page, said in (
        ("/nonexistent/x.html", "there is no folder /nonexistent. Make it"),
        (str(tmp_path), "is a folder. Name a file in it."),
        ("/proc/x.html", "cannot be written: No such file or directory."),
    ):
        assert command.main([*words, page]) == 2
        assert f"--html {page}: {said}" in " ".join(capsys.readouterr().err.split())
