"""The exporter's configuration: what is read, and that every mistake is told at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.durations import seconds
from exporter.errors import ConfigError
from exporter.settings import check_files, load, parse, secret

ROOT = Path(__file__).resolve().parents[2]

GOOD = """\
collectors:
  postgres:
    long_query_seconds: 20
    servers:
      postgres: {host: db, database: prepchef, user: reader, password_file: /run/secrets/p, connect_timeout: 750ms}
  compliance: {}
"""

TEN_MISTAKES = """\
web:
  listen_adress: 0.0.0.0:11470
scrape:
  timeout: 10
collectors:
  postgres:
    long_query_seconds: 0
    servers:
      postgres:
        host: ""
        port: 70000
        user: reader
        password_file: secrets/p
        connect_timeout: 2 minutes
  docker:
    expected_services: []
    project: prep
    project: other
  disk:
    paths: {}
"""


def faults_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "exporter.yml")
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500ms", 0.5), ("15s", 15.0), ("2m", 120.0), ("1h30m", 5400.0), ("1d", 86400.0), ("1.5s", 1.5)],
)
def test_duration_is_read_with_its_unit(text: str, expected: float) -> None:
    """A duration is written as Prometheus writes it."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "15", "s", "1 m", "-5s", "5x", "1m30"])
def test_duration_without_sense_is_refused(text: str) -> None:
    """What is not a row of numbers with units is no duration."""
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


def test_good_file_is_read_with_defaults() -> None:
    """What is not said has the documented default; collectors that are not named do not run."""
    settings = parse(GOOD, "exporter.yml")
    assert settings.collectors.postgres is not None
    server = settings.collectors.postgres.servers["postgres"]
    assert (server.port, server.connect_timeout, server.query_timeout) == (5432, 0.75, 5.0)
    assert settings.collectors.postgres.long_query_seconds == 20
    assert settings.collectors.disk is None
    assert settings.web.listen_address == "0.0.0.0:11470"


def test_ten_mistakes_are_told_at_once_with_line_and_path() -> None:
    """Every mistake is told with file, line and path, not only the first."""
    told = faults_of(TEN_MISTAKES)
    places = {line.split(": ", 2)[0] + " " + line.split(": ", 2)[1] for line in told}
    assert places == {
        "exporter.yml:2 web.listen_adress",
        "exporter.yml:4 scrape.timeout",
        "exporter.yml:7 collectors.postgres.long_query_seconds",
        "exporter.yml:10 collectors.postgres.servers.postgres.host",
        "exporter.yml:11 collectors.postgres.servers.postgres.port",
        "exporter.yml:9 collectors.postgres.servers.postgres.database",
        "exporter.yml:13 collectors.postgres.servers.postgres.password_file",
        "exporter.yml:14 collectors.postgres.servers.postgres.connect_timeout",
        "exporter.yml:16 collectors.docker.expected_services",
        "exporter.yml:18 collectors.docker.project",
        "exporter.yml:20 collectors.disk.paths",
    }
    assert all("(" in line for line in told if "is not a setting" in line or "is missing" in line)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("compliance: {}", "compliance: {server: other}"), "'other' is no server of collectors.postgres.servers"),
        (("compliance: {}", "compliance: {margin: 20m}"), "is not below the overlap"),
        (("compliance: {}", "containers: {}"), "needs the collector docker"),
        (("collectors:\n", "scrape: {timeout: 1s, timeout_offset: 2s}\ncollectors:\n"), "leaves no time"),
        (("compliance: {}", "compliance: {state_file: state.json}"), "is not an absolute path"),
        (("compliance: {}", "replication: {replicas: {}}"), "is empty"),
        (("compliance: {}", "replication: {primary: db, replicas: {one: {}}}"), "'db' is no server of"),
        (("compliance: {}", "replication: {replicas: {one: {server: two}}}"), "replicas.one.server: 'two' is no"),
        (("compliance: {}", "replication: {replicas: {one: {server: postgres}}}"), "'postgres' is named twice"),
        (("compliance: {}", "replication: {replicas: {one: {}}, heartbeat: {table: 'x; y'}}"), "heartbeat.table"),
        (("compliance: {}", "redis: {servers: {redis: {host: r, sessions: {count: scard}}}}"), "`key` is needed"),
        (("compliance: {}", "redis: {servers: {redis: {host: r, sessions: {key: live}}}}"), "`key` is needed"),
    ],
)
def test_values_that_do_not_fit_together_are_told(change: tuple[str, str], told: str) -> None:
    """Names that must exist elsewhere and values that contradict each other are mistakes too."""
    assert any(told in line for line in faults_of(GOOD.replace(*change)))


@pytest.mark.parametrize("text", ["collectors: [", "- a", "", "collectors: {disk: {enabled: false, paths: {/: /}}}"])
def test_file_that_says_nothing_usable_is_refused(text: str) -> None:
    """Broken YAML, a list, an empty file and a file that enables nothing are told, never an exception of a library."""
    assert faults_of(text)


def test_no_object_is_made_from_yaml() -> None:
    """A tag that would build an object is refused."""
    assert faults_of("collectors: !!python/object/apply:os.system ['true']")


def test_shipped_configuration_is_good() -> None:
    """The file in config/ is what the exporter reads, and names the platform's primary."""
    settings = load(ROOT / "config" / "exporter.yml")
    assert settings.collectors.postgres is not None
    assert settings.collectors.postgres.servers["postgres"].host == "postgres"
    assert settings.collectors.postgres.long_query_seconds == 300


def test_missing_files_are_told_by_the_check(tmp_path: Path) -> None:
    """`--config.check` tells every secret and path that is not there."""
    absent = {name: str(tmp_path / name) for name in ("postgres", "redis", "ca", "path")}
    text = (
        GOOD.replace("/run/secrets/p", absent["postgres"])
        + f"  disk: {{paths: {{/x: {absent['path']}}}}}\n"
        + f"  redis: {{servers: {{redis: {{host: r, password_file: {absent['redis']}, ca_file: {absent['ca']}}}}}}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        check_files(parse(text, "exporter.yml"))
    assert sorted(fault.where for fault in caught.value.faults) == sorted(absent.values())


def test_secret_is_read_anew_and_without_its_newline(tmp_path: Path) -> None:
    """A rotated secret needs no restart."""
    path = tmp_path / "secret"
    path.write_text("first\n")
    assert secret(path) == "first"
    path.write_text(" second ")
    assert secret(path) == " second "
