"""The command line: each flag counts instead of its setting, and a mistake in one is told by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter import flags
from exporter.errors import ConfigError
from exporter.settings import parse, unchangeable

FILE = """\
web: {listen_address: "127.0.0.1:1", max_requests: 3}
collectors:
  postgres:
    servers:
      postgres: {host: db, database: prepchef, user: reader}
  disk: {paths: {/: /}, enabled: false}
"""


def given(*words: str) -> flags.Options:
    return flags.read(words, "1.0")


def told(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(FILE, "exporter.yml", given(*words).flags)
    return str(caught.value)


def test_flags_count_instead_of_the_file() -> None:
    """Those that are given do, the others leave the file's word."""
    words = [
        "--web.listen-address=[::1]:9",
        "--web.telemetry-path=/m",
        "--web.enable-reload",
        "--web.config.file=web.yml",
    ]
    web = parse(FILE, "exporter.yml", given(*words).flags).web
    assert (web.listen_address, web.telemetry_path, web.enable_reload, web.max_requests) == ("[::1]:9", "/m", True, 3)
    assert web.config_file == Path("web.yml").absolute()
    assert not parse(FILE, "exporter.yml").web.enable_reload


def test_collectors_are_switched_by_flags() -> None:
    """On and off, without touching the file; off for one that is not in the file is nothing."""
    options = given("--collector.disk", "--no-collector.postgres", "--no-collector.docker")
    collectors = parse(FILE, "exporter.yml", options.flags).collectors
    assert collectors.disk is not None
    assert collectors.disk.enabled
    assert collectors.postgres is not None
    assert not collectors.postgres.enabled
    assert collectors.docker is None


def test_mistake_in_a_flag_is_told_by_its_name() -> None:
    """Not at a line of the file, where it is not."""
    assert told("--web.max-requests=0").startswith("--web.max-requests: is out of its range (write at least 1)")
    assert told("--web.listen-address=9").startswith("--web.listen-address: does not have the form")


def test_collector_that_the_file_says_nothing_of_needs_its_settings() -> None:
    """Switching it on is not enough, and what is missing is named."""
    assert "collectors.docker.expected_services: is missing" in told("--collector.docker")


@pytest.mark.parametrize("path", ["/", "metrics", "/-/metrics", "/docs/x", "/a b", "/{x}"])
def test_telemetry_path_keeps_clear_of_the_exporters_own(path: str) -> None:
    """It is a plain path, and never hides another page."""
    assert "telemetry" in told(f"--web.telemetry-path={path}")


@pytest.mark.parametrize(
    "words", [["--web.port=1"], ["--log.level=loud"], ["--collector.nothing"], ["--web.max"], ["x"]]
)
def test_unknown_flag_is_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that is shortened: it could mean another thing in the next release."""
    with pytest.raises(SystemExit) as caught:
        given(*words)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_address_and_path_cannot_change_by_a_reload() -> None:
    """What is fixed at the start is told as a mistake, not silently kept."""
    old = parse(FILE, "exporter.yml")
    new = parse(FILE.replace("127.0.0.1:1", "127.0.0.1:2"), "exporter.yml", given("--web.telemetry-path=/m").flags)
    assert [fault.where for fault in unchangeable(old, new)] == ["web.listen_address", "web.telemetry_path"]
    assert all("restart" in fault.remedy for fault in unchangeable(old, new))
    assert unchangeable(old, old) == []


def test_every_flag_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/web.md names each flag of --help, the collectors' by their pattern."""
    with pytest.raises(SystemExit):
        given("--help")
    named = set(re.findall(r"--[a-z][a-z.-]*[a-z]", capsys.readouterr().out)) - {"--help", "--version"}
    page = (Path(__file__).resolve().parents[2] / "docs" / "web.md").read_text()
    assert len(named) > 10
    for flag in named:
        assert f"`{re.sub('collector[.].*', 'collector.NAME', flag)}`" in page, flag
