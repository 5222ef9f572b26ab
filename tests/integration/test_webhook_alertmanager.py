"""A real Alertmanager delivers to the webhook: what it makes of each answer decides whether an alert is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from remediator.alerts import parse
from remediator.errors import JournalError
from tests.integration.test_webhook import stored
from tests.support.http_side import TOKEN, serve
from tests.support.servers import AlertmanagerServer, Run
from tests.support.waiting import free_port

LABELS = {"alertname": "ComplianceChecksSlow", "service": "python-compliance", "runbook": "compliance-engine-slow"}
WITHIN = 30.0  # seconds for what Alertmanager does by itself: group_interval is 1 s, its retries begin at 0.5 s


@contextlib.asynccontextmanager
async def alertmanager(run: Run, port: int, *, token: str = TOKEN, most: int = 0) -> AsyncIterator[AlertmanagerServer]:
    """An Alertmanager with one route to the webhook at `port`, as shipped but for its intervals."""
    hook = {
        "url": f"http://127.0.0.1:{port}/alertmanager",
        "send_resolved": True,
        "max_alerts": most,
        "http_config": {"authorization": {"type": "Bearer", "credentials": token}},
    }
    route = {
        "receiver": "remediator",
        "group_by": ["alertname"] if most else ["..."],
        "group_wait": "0s",
        "group_interval": "1s",
        "repeat_interval": "1h",
    }
    server = AlertmanagerServer(run, {"route": route, "receivers": [{"name": "remediator", "webhook_configs": [hook]}]})
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


async def until(condition: Callable[[], bool]) -> None:
    """Wait at most WITHIN seconds."""
    async with asyncio.timeout(WITHIN):
        while not condition():
            await asyncio.sleep(0.05)


async def test_an_alert_is_delivered_once_and_resolved(tmp_path: Path, run: Run) -> None:
    """Answered 200, it does not come again before it is resolved; then its end comes with the same identity."""
    async with serve(tmp_path) as side, alertmanager(run, port_of(side.url)) as server:
        await asyncio.to_thread(server.post, LABELS)
        await until(lambda: side.count("prep_remediator_alerts_total", status="firing") == 1)
        await asyncio.sleep(2.5)  # two more group intervals
        assert len(stored(tmp_path)) == 1
        await asyncio.to_thread(server.post, LABELS, endsAt=datetime.now(UTC))
        await until(lambda: side.count("prep_remediator_alerts_total", status="resolved") == 1)
    firing, resolved = (parse(body).alerts[0] for body in stored(tmp_path))
    assert dict(firing.labels) == LABELS
    assert (firing.status, resolved.status) == ("firing", "resolved")
    assert firing.fingerprint == resolved.fingerprint


async def test_503_is_tried_again_until_it_is_stored(tmp_path: Path, run: Run) -> None:
    """The journal cannot be written for three tries: Alertmanager keeps the alert, and nothing is lost."""
    tries = 0

    async def store(bodies: Sequence[tuple[str, bytes]]) -> None:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise JournalError("database or disk is full")
        await side.journal.store(bodies)

    async with serve(tmp_path, store=store) as side, alertmanager(run, port_of(side.url)) as server:
        await asyncio.to_thread(server.post, LABELS)
        await until(lambda: side.count("prep_remediator_deliveries_total", result="stored") == 1)
        assert side.count("prep_remediator_deliveries_total", result="journal_failed") == 3
    assert [dict(one.labels) for one in parse(stored(tmp_path)[0]).alerts] == [LABELS]


async def test_a_remediator_that_was_away_gets_it_when_it_is_back(tmp_path: Path, run: Run) -> None:
    """Connection refused is tried again like 503."""
    port = free_port()
    async with alertmanager(run, port) as server:
        await asyncio.to_thread(server.post, LABELS)
        await asyncio.sleep(2.0)
        async with serve(tmp_path, port=port) as side:
            await until(lambda: side.count("prep_remediator_deliveries_total", result="stored") == 1)
    assert len(stored(tmp_path)) == 1


async def test_a_wrong_token_is_seen_and_mended_without_a_restart(tmp_path: Path, run: Run) -> None:
    """401 comes again at each flush, counted each time; with the token in a file it is stored at once."""
    async with serve(tmp_path) as side, alertmanager(run, port_of(side.url), token="next") as server:
        await asyncio.to_thread(server.post, LABELS)
        await until(lambda: side.count("prep_remediator_deliveries_total", result="unauthorized") >= 2)
        assert stored(tmp_path) == []
        (tmp_path / "token.next").write_text("next\n")
        await until(lambda: side.count("prep_remediator_deliveries_total", result="stored") == 1)


async def test_what_max_alerts_cuts_off_is_noticed(tmp_path: Path, run: Run) -> None:
    """Of five alerts two come: the other three are never delivered, so they must be read."""
    async with serve(tmp_path) as side, alertmanager(run, port_of(side.url), most=2) as server:
        await asyncio.to_thread(server.post, *({**LABELS, "instance": str(n)} for n in range(5)))
        await until(side.blind.is_set)
        assert side.count("prep_remediator_truncated_alerts_total") == 3
        assert side.count("prep_remediator_alerts_total", status="firing") == 2


async def test_a_body_that_is_too_large_comes_again_and_is_told_each_time(tmp_path: Path, run: Run) -> None:
    """413 is not tried again in its flush, but at the next one: recorded each time, and the alerts are read."""
    async with serve(tmp_path, max_bytes=1024) as side, alertmanager(run, port_of(side.url)) as server:
        await asyncio.to_thread(server.post, {**LABELS, "long": "x" * 2000})
        await until(lambda: side.count("prep_remediator_deliveries_total", result="too_large") >= 2)
        assert side.blind.is_set()
        assert (await side.journal.dead_letters())["too_large"] >= 2


def port_of(url: str) -> int:
    """The port of a base URL."""
    return int(url.rsplit(":", 1)[1])
