"""Vendors' status pages on a real HTTP server: what they say, and what is left when they do not."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from exporter.background_settings import VendorsCollector as VendorsSettings
from exporter.collectors.vendors import VendorsCollector
from tests.integration.exporter_parts import in_seconds, shown, values
from tests.support.servers import Answer, Request, StubServer, free_port

# As https://status.stripe.com/api/v2/status.json answers, and the same page's summary.
STATUS = {
    "page": {"id": "t", "name": "Stripe", "url": "https://status.stripe.com", "updated_at": "2026-03-01T10:00:00Z"},
    "status": {"indicator": "minor", "description": "Partially Degraded Service"},
}
SUMMARY = {**STATUS, "components": [{"id": "a1", "name": "API", "status": "degraded_performance"}], "incidents": []}


class StatusPage(StubServer):
    """Answers with what a test sets, below any path."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Answer] = {}

    def says(self, file: str, what: Any) -> None:
        self.answers[file] = what if isinstance(what, Answer) else Answer(200, json.dumps(what).encode())

    def answer(self, request: Request) -> Answer:
        return self.answers.get(request.path.rsplit("/", 1)[-1], Answer(404))


def collector(pages: Mapping[str, Mapping[str, Any]]) -> VendorsCollector:
    return VendorsCollector(VendorsSettings.model_validate({"pages": pages}))


async def test_page_is_read_where_statuspage_has_it() -> None:
    """status.json without components, summary.json with; one request a page."""
    with StatusPage() as page:
        page.says("status.json", STATUS)
        page.says("summary.json", SUMMARY)
        vendors = collector(
            {"stripe": {"url": f"{page.url}/"}, "other": {"url": f"{page.url}/below", "components": {"api": "API"}}}
        )
        found = shown(await vendors.collect(in_seconds(10)))
        await vendors.close()
        assert sorted(request.path for request in page.snapshot()) == [
            "/api/v2/status.json",
            "/below/api/v2/summary.json",
        ]
    assert {key for key, value in found.items() if value == 1} == {
        ("vendor_page_up", "stripe"),
        ("vendor_page_up", "other"),
        ("vendor_status", "stripe", "minor"),
        ("vendor_status", "other", "minor"),
        ("vendor_component_status", "other", "api", "degraded_performance"),
    }


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(500, b"{}"), "it answered 500"),
        (Answer(302, b"", {"Location": "/elsewhere"}), "it answered 302"),
        (Answer(200, b"<html>maintenance</html>"), "not JSON"),
        (Answer(200, b""), "not JSON"),
        (Answer(200, b"\xff\xfe\x00"), "not JSON"),
        (Answer(200, b"[" * 200_000), "not JSON"),
        (Answer(200, gzip.compress(json.dumps(STATUS).encode()), {"Content-Encoding": "gzip"}), "not JSON"),
        (Answer(200, b'{"status": {}}'), "not the JSON of a status page"),
        (Answer(200, b" " * 5_000_000), "longer than"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_page_that_cannot_be_read_has_no_status_and_harms_no_other(answer: Answer, told: str) -> None:
    """`page_up` 0 and nothing else of it; the other vendor has everything; the fault says what is wrong."""
    with StatusPage() as good, StatusPage() as ill:
        good.says("status.json", STATUS)
        ill.says("status.json", answer)
        vendors = collector({"good": {"url": good.url}, "ill": {"url": ill.url}})
        collected = await vendors.collect(in_seconds(10))
        await vendors.close()
    found = values(collected.samples)
    assert collected.fault is not None
    assert f"page of ill: {told}" in collected.fault
    assert {key: value for key, value in found.items() if key[1] == "ill"} == {("vendor_page_up", "ill"): 0}
    assert found["vendor_status", "good", "minor"] == 1


async def test_page_that_hangs_or_is_away_costs_its_own_timeout_and_comes_back() -> None:
    """Both are told, the healthy one is there in time, and the next reading has all of them."""
    with StatusPage() as good, StatusPage() as hung:
        good.says("status.json", STATUS)
        hung.says("status.json", STATUS)
        hung.delay = 30
        away = StatusPage()
        away.says("status.json", STATUS)
        quick = {"timeout": "500ms"}
        vendors = collector(
            {"good": {"url": good.url}, "hung": {"url": hung.url, **quick}, "away": {"url": away.url, **quick}}
        )
        began = time.monotonic()
        collected = await vendors.collect(in_seconds(10))
        assert time.monotonic() - began < 1.5
        assert collected.fault is not None
        assert "page of hung: no answer in time" in collected.fault
        assert "page of away: no answer" in collected.fault
        assert {key[1] for key in values(collected.samples) if key[0] == "vendor_status"} == {"good"}
        hung.delay = 0
        with away:
            assert {key[1] for key in shown(await vendors.collect(in_seconds(10))) if key[0] == "vendor_status"} == {
                "good", "hung", "away",
            }  # fmt: skip
        await vendors.close()


async def test_deadline_before_the_timeout_is_kept() -> None:
    """A reading that must end sooner does."""
    with StatusPage() as hung:
        hung.delay = 30
        vendors = collector(
            {"hung": {"url": hung.url, "timeout": "20s"}, "none": {"url": f"http://127.0.0.1:{free_port()}"}}
        )
        began = time.monotonic()
        collected = await vendors.collect(in_seconds(0.3))
        assert time.monotonic() - began < 1
        assert set(values(collected.samples).values()) == {0}
        await vendors.close()
