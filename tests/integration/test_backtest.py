"""`prepctl backtest` on a real Prometheus with a past that the test has written."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from backtest import command
from tests.support.past import History, prometheus
from tests.support.prometheus import PrometheusServer
from tests.support.run import Run

MINUTE, HOUR, DAY = 60, 3600, 86400
LENGTH = DAY


def book(name: str, alerts: Sequence[str], **changes: Any) -> dict[str, Any]:
    """A runbook that restarts the service of these alerts."""
    made = {
        "format": 1,
        "name": name,
        "title": f"{name} of a test",
        "match": {"alertnames": list(alerts), "jobs": ["prep-exporter"]},
        "target_labels": ["service"],
        "blocked_by": ["CauseDown"],
        "settle": "30s",
        "stale_after": "1h",
        "vantage": {"kind": "probe"},
        "diagnosis": ["container_logs"],
        "ladder": [{"name": "restart", "action": "restart_service", "params": {"service": {"label": "service"}}}],
        "proof": {"hold": "5m", "timeout": "10m", "checks": [{"name": "calm", "query": "max(up)", "at_least": 1}]},
        "limits": {"cooldown": "30m", "per_hour": 10, "per_day": 20},
    }
    return {**made, **changes}


def backtest(server: PrometheusServer, folder: Path, *more: str, since: str) -> int:
    return command.main(
        ["--prometheus", server.url, "--runbooks", str(folder), "--since", since, "--json", *more]
    )


@pytest.fixture(scope="module")
def past(run: Run) -> Iterator[tuple[PrometheusServer, History]]:
    """A day with one alert of each kind, well apart from each other."""
    end = math.floor(time.time() / HOUR) * HOUR - HOUR
    history = History(end - LENGTH, end)
    alert = history.alert
    alert("Slow", "early", (-600, 10 * MINUTE))
    alert("Slow", "long", (1 * HOUR, 1 * HOUR + 20 * MINUTE))
    alert("Slow", "short", (2 * HOUR, 2 * HOUR + 90))
    alert("Slow", "blip", (3 * HOUR, 3 * HOUR + 15))
    # The same target twice: the second time within the cooldown of 30 minutes, and over before its end.
    alert("Slow", "twice", (4 * HOUR, 4 * HOUR + 2 * MINUTE), (4 * HOUR + 15 * MINUTE, 4 * HOUR + 25 * MINUTE))
    # Symptom and cause.
    alert("CauseDown", "database", (5 * HOUR, 5 * HOUR + 30 * MINUTE))
    alert("Slow", "victim", (5 * HOUR + 2 * MINUTE, 5 * HOUR + 20 * MINUTE))
    alert("Asking", "careful", (6 * HOUR, 6 * HOUR + 20 * MINUTE))
    alert("Foreign", "elsewhere", (7 * HOUR, 7 * HOUR + 20 * MINUTE))
    alert("Slow", "staging", (7 * HOUR, 7 * HOUR + 20 * MINUTE), environment="staging")
    alert("Slow", "", (8 * HOUR, 8 * HOUR + 10 * MINUTE))
    alert("Renamed", "old", (9 * HOUR, 9 * HOUR + 20 * MINUTE))
    history.forgot.add("Renamed")
    # Kept firing while its rule was not true any more.
    alert("Slow", "kept", (10 * HOUR, 10 * HOUR + 30 * MINUTE), true=[(10 * HOUR, 10 * HOUR + 15)])
    # The exporter could not be scraped: an empty answer of the rule means nothing.
    alert("Slow", "unseen", (11 * HOUR, 11 * HOUR + 20 * MINUTE), true=[])
    history.down.append((end - LENGTH + 11 * HOUR - 300, end - LENGTH + 11 * HOUR + 25 * MINUTE))
    # Twelve at once.
    for number in range(12):
        alert("Slow", f"storm-{number}", (13 * HOUR, 13 * HOUR + 20 * MINUTE))
    # Nothing was recorded from its middle on.
    alert("Slow", "gap", (17 * HOUR, 17 * HOUR + 10 * MINUTE))
    history.away.append((end - LENGTH + 17 * HOUR + 10 * MINUTE, end - LENGTH + 18 * HOUR))
    alert("Slow", "last", (LENGTH - 10, LENGTH))
    server = prometheus(run, history)
    with server:
        yield server, history


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runbooks")
    books = (book("slow", ["Slow", "Renamed"]), book("asking", ["Asking"], mode="approve"))
    for each in books:
        (made / f"{each['name']}.yml").write_text(yaml.safe_dump(each))
    return made


@pytest.fixture(scope="module")
def found(past: tuple[PrometheusServer, History], folder: Path) -> dict[str, Any]:
    server, history = past
    import io, contextlib
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = backtest(server, folder, "--until", iso(history.end), since=iso(history.begin))
    assert code == 0
    return json.loads(out.getvalue())


def iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def test_print(found: dict[str, Any]) -> None:
    print(found["shipped"]["summary"], found["gaps"], found["step"])
    for each in found["shipped"]["episodes"]:
        print(each["fired_at"]-found["since"], each["alertname"], each["target"], "|", each["state"], each["reason"], "|", each["sentence"])
        if each["target"] in ("service=twice","service=kept","service=storm-1","service=long"):
            for s in each["story"]: print("      ", s["at"]-found["since"], s["sentence"])
