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
    assert all(line.endswith(")") for line in told), "each has its remedy"
    assert any("did you mean listen_address?" in line for line in told)


TEN_KINDS = """\
web:
  listen_adress: 0.0.0.0:11470
  max_requests: many
  telemetry_path: metrics
scrape:
  timeout: 1s
  timeout_offset: 2s
  max_series: 1
collectors:
  postgres:
    servers:
      postgres:
        host: db
        database: prepchef
        password_file: {folder}/none
        sslmode: always
        connect_timeout: 2
  compliance: {{server: other}}
  docker:
    expected_services: []
    project: prep
    project: other
  disk:
    enabled: perhaps
    paths: {{/x: {folder}/gone}}
"""
"""Fourteen mistakes, no two of one kind: shape, range, form, words, units, names elsewhere in the file, files."""


def test_ten_kinds_of_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """A mistake in the file's shape hides none in what it refers to, nor a file that is missing; each has line and remedy."""
    with pytest.raises(ConfigError) as caught:
        parse(TEN_KINDS.format(folder=tmp_path), "exporter.yml", files=True)
    expected = {
        "exporter.yml:2: web.listen_adress": "is not a setting (did you mean listen_address?)",
        "exporter.yml:3: web.max_requests": "is not a whole number (write digits only)",
        "exporter.yml:4: web.telemetry_path": "does not have the form it must have (",
        "exporter.yml:7: scrape.timeout_offset": "leaves no time for the scrape (make it smaller",
        "exporter.yml:8: scrape.max_series": "is out of its range (write at least 10)",
        "exporter.yml:12: collectors.postgres.servers.postgres.user": "is missing (add it",
        "exporter.yml:15: collectors.postgres.servers.postgres.password_file": "No such file or directory (put the file",
        "exporter.yml:16: collectors.postgres.servers.postgres.sslmode": "is none of the words that are known (write one of",
        "exporter.yml:17: collectors.postgres.servers.postgres.connect_timeout": "2 does not say its unit (write for example",
        "exporter.yml:18: collectors.compliance.server": "'other' is no server of collectors.postgres.servers (there: postgres)",
        "exporter.yml:20: collectors.docker.expected_services": "is empty (name at least one)",
        "exporter.yml:22: collectors.docker.project": "is there twice (keep one)",
        "exporter.yml:24: collectors.disk.enabled": "is neither true nor false (write true or false)",
        "exporter.yml:25: collectors.disk.paths./x": "does not exist (mount it",
    }
    told = [str(fault) for fault in caught.value.faults]
    for place, word in expected.items():
        assert [line for line in told if line.startswith(place) and word in line], (place, told)
    assert len(told) == len(expected)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("collectors: {disk: 5}", "is not a mapping of settings"),
        ("collectors: {disk: {paths: [/]}}", "is not a mapping"),
        ("collectors: {disk: {paths: {/: 5}}}", "is not a path"),
        ("collectors: {docker: {expected_services: payments}}", "is not a list"),
        ("collectors: {docker: {expected_services: [5]}}", "is not a text (put it in quotes)"),
        ("collectors: {docker: {expected_services: ['" + "x" * 200 + "']}}", "is too long (at most 128 characters)"),
        ("collectors: {postgres: {long_query_seconds: soon}}", "is not a number"),
        ("web: {max_requests: 1.5}\ncollectors: {disk: {paths: {/: /}}}", "is not a whole number"),
        ("web: 5\ncollectors: {disk: {paths: {/: /}}}", "is not a mapping of settings"),
    ],
)
def test_each_kind_of_wrong_value_has_a_remedy(text: str, told: str) -> None:
    """No word of a library without what to write instead."""
    (found,) = [line for line in faults_of(text) if told in line]
    assert found.endswith(")")


def test_stand_ins_for_what_is_wrong_make_no_mistakes_of_their_own() -> None:
    """A path that is wrong in the file's shape is told once, not as a file that is missing as well."""
    text = "collectors:\n  disk: {paths: {/: 5, /ok: /}}\n  postgres:\n    servers: {a: {port: 0, password_file: p}}\n"
    with pytest.raises(ConfigError) as caught:
        parse(text, "exporter.yml", files=True)
    assert sorted(fault.where.split(": ", 1)[1] for fault in caught.value.faults) == [
        "collectors.disk.paths./",
        "collectors.postgres.servers.a.database",
        "collectors.postgres.servers.a.host",
        "collectors.postgres.servers.a.password_file",
        "collectors.postgres.servers.a.port",
        "collectors.postgres.servers.a.user",
    ]


def test_no_mistake_repeats_the_value_that_was_found() -> None:
    """It may be a secret that stands in the wrong place."""
    canary = "c4nary"
    text = f"web: {{max_requests: {canary}}}\ncollectors:\n  docker: {{base_url: '{canary}', expected_services: {canary}}}\n"
    assert all(canary not in line for line in faults_of(text))


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
