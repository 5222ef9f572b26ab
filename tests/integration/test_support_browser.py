"""The browser that tests look through: it shows, clicks, complains and audits as a real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import PHONE, Chromium, audit
from tests.support.http_stubs import Answer, Request, StubServer
from tests.support.run import Run

PAGE = """<!doctype html><html lang="en"><head><title>A page</title><link rel="icon" href="data:,"></head>
<body><main><h1>Hello</h1>{body}</main></body></html>"""


@pytest.fixture(scope="module")
def chromium(run: Run) -> Iterator[Chromium]:
    with Chromium(run) as chromium:
        yield chromium


class _Pages(StubServer):
    """/good is a sound page, /bad one without names for its parts, /strict one whose policy forbids its script."""

    def answer(self, request: Request) -> Answer:
        headers = {"Content-Type": "text/html"}
        if request.path == "/strict":
            headers["Content-Security-Policy"] = "script-src 'self'"
            return Answer(200, PAGE.format(body="<script>document.title = 'run'</script>").encode(), headers)
        bad = '<img src="data:,"><input><p style="color:#ccc;background:#fff">pale</p>'
        return Answer(200, PAGE.format(body=bad if request.path == "/bad" else "<p>all is well</p>").encode(), headers)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with _Pages() as server:
        yield server.url


def test_a_sound_page_is_seen_and_has_no_faults(chromium: Chromium, url: str, tmp_path: Path) -> None:
    with chromium.person(phone=True) as person:
        person.page.goto(f"{url}/good")
        assert person.page.get_by_role("heading", name="Hello").is_visible()
        assert audit(person.page) == []
        assert person.faults == []
        assert person.shot(tmp_path / "page.png").read_bytes()[16:20] == PHONE["width"].to_bytes(4, "big")


def test_what_is_wrong_with_a_page_is_told(chromium: Chromium, url: str) -> None:
    """An audit that finds nothing anywhere would be no audit; a broken policy is a fault."""
    with chromium.person() as person:
        person.page.goto(f"{url}/bad")
        found = {line.split(" ", 1)[0] for line in audit(person.page)}
        assert {"image-alt", "label", "color-contrast"} <= found
        person.page.goto(f"{url}/strict")
        assert person.page.title() == "A page"
        assert any("Content Security Policy" in fault for fault in person.faults)
