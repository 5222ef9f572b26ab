"""Logs and the page at `/`: no secret and no DSN gets into them, whoever says it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
import structlog

from exporter import logs
from exporter.landing import Health, page
from exporter.redaction import clean, remember

CANARY = "c4nary-of-redaction"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where a freshly set up log goes; what was set up before is put back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    root.handlers.clear()
    logs.set_up("debug", "json", stream)
    yield stream
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://prep:{CANARY}@db:5432/prepchef",
        f"cannot reach redis://:{CANARY}@redis:6379/0: refused",
        f"tcp://user:{CANARY}@docker-gate:2375",
        f"password={CANARY} host=db",
        f"'password': '{CANARY}'",
        f'{{"secret_access_key": "{CANARY}"}}',
        f"Authorization: Basic {CANARY}=",
        f"authorization: bearer {CANARY}.x",
        f"token: {CANARY}",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    """By its form alone; the rest of the text stays."""
    assert CANARY not in clean(text)
    assert "***" in clean(text)


@pytest.mark.parametrize(
    "text",
    [
        "cannot log in to postgres main (db:5432): no answer (TimeoutError)",
        "http://docker-gate:2375/v1.41/containers/json: 403",
        "GRANT SELECT (id, created_at) ON payments TO prep_exporter",
        'password authentication failed for user "prep_exporter"',
        "mail to oncall@prep.example",
        "",
    ],
)
def test_what_people_must_read_stays(text: str) -> None:
    """A mask in a harmless text would hide the fault."""
    assert clean(text) == text


def test_known_secret_is_masked_in_every_form() -> None:
    """As it is, in a URL, in a repr; one that is too short to be one is no reason to mask words."""
    remember("p@ss word/'ö")
    remember("abc")
    for text in ("p@ss word/'ö", "p%40ss%20word%2F%27%C3%B6", "p%40ss+word%2F%27%C3%B6"):
        assert clean(f"<{text}>") == "<***>"
    assert clean("abc") == "abc"


def test_events_of_ours_and_of_libraries_are_one_kind_of_line(stream: io.StringIO) -> None:
    """asyncio's and aiohttp's words are JSON with a level and a time as well; below warning they are left out."""
    structlog.get_logger("exporter").info("listening", addresses=["a"])
    logging.getLogger("asyncio").error("task failed: %s", "x")
    logging.getLogger("aiohttp.access").info("chatter")
    ours, theirs = lines(stream)
    assert (ours["event"], ours["level"], ours["addresses"]) == ("listening", "info", ["a"])
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("task failed: x", "error", "asyncio")
    assert ours["timestamp"]
    assert theirs["timestamp"]


def test_no_place_of_an_event_shows_a_secret(stream: io.StringIO) -> None:
    """Not the words, not a list in them, not an object's repr, not a traceback, not a library's line."""
    remember(CANARY)
    log = structlog.get_logger("exporter")
    log.warning(f"said {CANARY}", fault=CANARY, faults=[{"what": CANARY}], error=ValueError(CANARY))
    try:
        raise ConnectionError(f"postgresql://u:{CANARY}@h/d")
    except ConnectionError:
        log.exception("unforeseen")
        logging.getLogger("asyncio").exception("never retrieved")
    assert CANARY not in stream.getvalue()
    assert len(lines(stream)) == 3
    assert "ConnectionError" in stream.getvalue()


HEALTHY = Health("disk", True, None, 0.0012)


def test_page_shows_how_each_collector_does() -> None:
    """In words, not by colour alone; with the table's heads told to a screen reader."""
    text = page("1.2", "/m", [HEALTHY, Health("postgres", True, "no answer", 2.0), Health("docker", False, None, 0.0)])
    assert "3 collectors, 1 of them ill" in text
    for word in (
        "well",
        "ill: no answer",
        "has not run yet",
        "1.2 ms",
        "at scrape time",
        'href="/m"',
        "/docs/metrics.md",
    ):
        assert word in text
    assert text.count('scope="col"') == 4
    assert text.count('scope="row"') == 3
    assert '<html lang="en">' in text
    assert "<caption" in text


class _Tags(HTMLParser):
    """Whether each tag that is opened is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_html() -> None:
    """Every tag is closed in its turn, and what a label points at is there."""
    text, tags = page("1", "/metrics", [HEALTHY, Health("x", True, "a < b & c > d \"'", 0.1)]), _Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    assert tags.ids == re.findall(r'aria-labelledby="([^"]*)"', text)


def test_page_escapes_and_masks_every_word() -> None:
    """A backend's words are no markup and no secret there."""
    remember(CANARY)
    text = page("<b>", '/"x', [Health("<i>", True, f"<script>alert(1)</script> {CANARY}", 0.0)])
    assert "<script>" not in text
    assert "<b>" not in text
    assert "<i>" not in text
    assert '/"x' not in text
    assert CANARY not in text
