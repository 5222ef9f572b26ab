"""The demo's customers and its inbox: traffic that never stops, and messages that are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.demo_platform import Platform
from tests.support.servers import PostgresServer, RedisServer, Run, fetch, post_json, wait_until

MESSAGE = {
    "version": "4",
    "status": "firing",
    "receiver": "whoever-alertmanager-says",
    "alerts": [
        {
            "labels": {"alertname": "ComplianceStalled", "severity": "P1", "service": "python-compliance"},
            "annotations": {"summary": "Checks wait <script>alert(1)</script>"},
        }
    ],
}


@pytest.fixture(scope="module")
def platform(run: Run, redis_server: RedisServer) -> Iterator[Platform]:
    platform = Platform(run, PostgresServer(run).start(), redis_server)
    yield platform
    platform.postgres.stop()


def test_traffic_survives_its_services(platform: Platform) -> None:
    """One service away, restarted, frozen: the other's traffic goes on, and its own comes back by itself."""
    stripe, payments = platform.stripe().start(), platform.service("payments").start()
    load = platform.service("load").start()  # python-compliance is not there yet

    def ended(stream: str, *outcomes: str) -> float:
        """Requests that have ended since the start."""
        names = outcomes or ("ok", "declined", "refused", "failed", "timeout", "unreachable")
        return sum(
            platform.metric("load", "prep_load_requests_total", stream=stream, outcome=outcome) for outcome in names
        )

    def more(stream: str, outcome: str, by: int, deadline: float = 20.0) -> None:
        target = ended(stream, outcome) + by
        wait_until(
            lambda: ended(stream, outcome) >= target, f"{by} more {outcome} of {stream}", deadline, seen=load.tail
        )

    more("checks", "unreachable", 5)
    more("payments", "ok", 5)
    compliance = platform.service("compliance").start()
    more("checks", "ok", 20)
    assert ended("checks", "refused", "failed") == 0
    assert ended("payments", "refused", "failed", "timeout", "unreachable") == 0
    with compliance.frozen():
        more("payments", "ok", 10)
        wait_until(
            lambda: platform.metric("load", "prep_load_skipped_total", stream="checks") > 0, "the stream to be full", 30
        )
        more("payments", "ok", 5)
    more("checks", "ok", 10)
    more("payments", "ok", 2)
    for service in (load, compliance, payments, stripe):
        assert service.terminate(deadline=5) in (0, -15)


def test_the_inbox_keeps_and_shows(platform: Platform, tmp_path: Path) -> None:
    """By receiver, in memory and in the file; what comes from outside is text, never markup."""
    file = tmp_path / "inbox.jsonl"
    inbox = platform.service("inbox", PREP_INBOX_FILE=str(file), PREP_INBOX_KEEP="3").start()
    url = platform.url("inbox")
    for receiver in ("people-p1", "people-p1", "people-p2", "people-p2"):
        assert post_json(f"{url}/{receiver}", MESSAGE).status == 200
    everything = fetch(f"{url}/api/messages").json()
    assert [message["receiver"] for message in everything] == ["people-p1", "people-p2", "people-p2"]
    assert len(fetch(f"{url}/api/messages?receiver=people-p1").json()) == 1
    assert everything[0]["alerts"] == MESSAGE["alerts"]
    assert [json.loads(line)["receiver"] for line in file.read_text().splitlines()] == ["people-p1"] * 2 + [
        "people-p2"
    ] * 2
    page = fetch(f"{url}/").text
    assert "P1 ComplianceStalled" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    for body, status in (
        ("not json", 400),
        ("[1]", 400),
        ('"' + "x" * 2_000_000 + '"', 413),
        ('{"alerts": [1, {}]}', 200),
    ):
        assert fetch(f"{url}/people-p1", "POST", body).status == status
    assert fetch(f"{url}/").status == 200
    assert fetch(f"{url}/no/such", "POST", "{}").status == 404
    assert platform.metric("inbox", "prep_http_requests_total", handler="/{receiver}", code_class="2xx") == 5
    assert inbox.terminate(deadline=5) == 0
