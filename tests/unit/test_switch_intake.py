"""What the switch makes of a delivery and of its configuration file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import ConfigError
from switch.intake import Worth, authorized, evaluated_at, read
from switch.settings import Settings, Watchdog, load, parse
from tests.unit.rule_files import ROOT

WALL = 1_764_091_534.0
WATCHDOG = Watchdog(token_files=(Path("/t"),), environment="production")


def body(*alerts: dict[str, Any]) -> bytes:
    return json.dumps({"version": "4", "alerts": alerts}).encode()


def alert(name: str = "Watchdog", status: str = "firing", evaluated: str = "", **labels: str) -> dict[str, Any]:
    labels = {"alertname": name, "environment": "production", **labels}
    return {"status": status, "labels": labels, "annotations": {"evaluated_at": evaluated} if evaluated else {}}


@pytest.mark.parametrize(
    ("text", "worth", "age"),
    [
        (body(alert()), Worth.HEARD, 0.0),
        (body(alert(evaluated=f"{WALL - 70}")), Worth.HEARD, 70.0),
        (body(alert(evaluated="2025-11-25 17:24:24 +0000 UTC")), Worth.HEARD, 70.0),
        (body(alert(evaluated=f"{WALL + 500}")), Worth.HEARD, 0.0),
        (body(alert(evaluated=f"{WALL - 180}")), Worth.STALE, 180.0),
        (body(alert(evaluated=f"{WALL - 500}"), alert(evaluated=f"{WALL - 5}")), Worth.HEARD, 5.0),
        (body(alert(status="resolved")), Worth.RESOLVED, 0.0),
        (body(alert("Other")), Worth.FOREIGN, 0.0),
        (body(alert(environment="staging")), Worth.FOREIGN, 0.0),
        (body(), Worth.FOREIGN, 0.0),
        (body(alert(evaluated="soon")), Worth.UNREADABLE, 0.0),
        (body(alert(evaluated="nan")), Worth.UNREADABLE, 0.0),
        (b"{}", Worth.UNREADABLE, 0.0),
        (b"[]", Worth.UNREADABLE, 0.0),
        (b"\xff", Worth.UNREADABLE, 0.0),
        (b'{"alerts": [1]}', Worth.UNREADABLE, 0.0),
        (b"[" * 100_000, Worth.UNREADABLE, 0.0),
    ],
)
def test_only_a_fresh_watchdog_counts(text: bytes, worth: Worth, age: float) -> None:
    """Ours, firing, and evaluated lately; a clock that is ahead is not the future; strange bodies harm nothing."""
    assert read(text, WATCHDOG, WALL) == (worth, pytest.approx(age))


def test_go_writes_fractions() -> None:
    """`humanizeTimestamp` of 2.42 gives up to nine digits."""
    assert evaluated_at("2025-11-25 17:25:34.123456789 +0000 UTC") == pytest.approx(WALL + 0.123456)
    assert evaluated_at("1.764091534e+09") == WALL


def test_tokens(tmp_path: Path) -> None:
    """Two while rotating; a file that is empty or gone lets nobody in."""
    one, two, empty = (tmp_path / name for name in ("one", "two", "empty"))
    one.write_text("first\n")
    two.write_text("second")
    empty.write_text("")
    files = (one, tmp_path / "gone", two, empty)
    assert authorized("Bearer first", files)
    assert authorized("bearer second", files)
    for header in (None, "", "Bearer", "Bearer ", "Bearer third", "Basic first", "first", "Bearer \udcff"):
        assert not authorized(header, files)
    assert not authorized("Bearer ", (empty,))


# -- configuration ------------------------------------------------------------------------------------

GOOD = """\
watchdog:
  token_files: [/t]
pages:
  webhooks:
    inbox: {url: "http://inbox/x"}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse(text, "switch.yml")
    return [str(fault) for fault in refused.value.faults]


def test_the_shipped_file_is_good() -> None:
    """As it lies in the repository; secrets apart."""
    settings = load(ROOT / "config" / "switch.yml")
    assert (settings.watchdog.accept, settings.pages.repeat) == (180.0, 900.0)
    assert settings.probe is not None
    assert isinstance(parse(GOOD, "f"), Settings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.replace("token_files: [/t]", "token_files: []"), "switch.yml:2: watchdog.token_files: is empty"),
        (
            GOOD.replace("[/t]", "[/t]\n  acept: 3m"),
            "switch.yml:3: watchdog.acept: is not a setting (did you mean accept?)",
        ),
        (GOOD.replace("[/t]", "[/t]\n  accept: 3"), "switch.yml:3: watchdog.accept: 3 does not say its unit"),
        (GOOD.replace("[/t]", "[t]"), "switch.yml:2: watchdog.token_files.0: is not an absolute path"),
        (GOOD.replace("[/t]", "[/t]\n  accept: 1m"), "switch.yml:1: watchdog.grace: is longer than accept"),
        (GOOD.replace('{url: "http://inbox/x"}', "{}"), "switch.yml:5: pages.webhooks.inbox: needs url or url_file"),
        (GOOD.replace('    inbox: {url: "http://inbox/x"}', "    {}"), "switch.yml:3: pages: nobody is paged"),
        (GOOD + "  slack:\n    inbox: {url_file: /s}\n", "'inbox' is there twice"),
        (GOOD + "probe: {url: ftp://x}\n", "probe.url: does not have the form it must have"),
        (GOOD + "probe: {url: http://x, timeout: 20s}\n", "probe.timeout: is longer than the interval"),
        (GOOD + "watched: a\nwatched: b\n", "switch.yml:7: watched: is there twice"),
        ("watchdog: [", "is not YAML"),
    ],
)
def test_a_mistake_is_told_at_its_line(text: str, told: str) -> None:
    """What is wrong, where, and what to write instead."""
    assert any(told in fault for fault in faults(text)), faults(text)


def test_secrets_that_cannot_be_read_are_told_before_the_start(tmp_path: Path) -> None:
    """At the line that names them."""
    with pytest.raises(ConfigError, match=r"switch\.yml:2: watchdog\.token_files\.0: /t: secret cannot be read"):
        parse(GOOD, "switch.yml", files=True)
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(ConfigError, match="secret is empty"):
        parse(GOOD.replace("/t", str(empty)), "switch.yml", files=True)
