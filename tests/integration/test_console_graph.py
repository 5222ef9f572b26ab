"""The line of an episode over a Prometheus that has much to tell: asked once for all, bounded, and never on the loop."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from remediator.prometheus import MOST_RANGE
from tests.integration.test_console import Person, browser
from tests.support.episodes import write
from tests.support.http_side import Side, serve
from tests.support.http_stubs import Answer, Request, StubServer
from tests.unit.cases import NOW, History

VIEWERS = 20


class Much(StubServer):
    """A Prometheus with one rule of series of 200 points each; the target's is the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.fill(1)

    def fill(self, series: int) -> None:
        """Made before it is asked for: this server shares the test's interpreter."""
        now = time.time()
        values = [[now - 200 + each, "7.25"] for each in range(200)]
        names = [f"other{each}" for each in range(series - 1)] + ["engine"]
        found = [{"metric": {"service": name}, "values": values} for name in names]
        self.matrix = _json({"resultType": "matrix", "result": found})

    def answer(self, request: Request) -> Answer:
        path = urlsplit(request.path).path
        self.asked.append(path)
        if path.endswith("/rules"):
            rule = {"name": "EngineSlow", "query": "engine_seconds > 5", "labels": {}, "alerts": []}
            return _json({"groups": [{"rules": [rule]}]})
        return self.matrix

    def count(self, end: str) -> int:
        return sum(path.endswith(end) for path in self.asked)


def _json(data: object) -> Answer:
    return Answer(200, json.dumps({"status": "success", "data": data}).encode())


@pytest.fixture
def much() -> Iterator[Much]:
    with Much() as much:
        yield much


@pytest.fixture
async def side(tmp_path: Path, much: Much) -> AsyncIterator[Side]:
    async with serve(tmp_path, prometheus=much.url) as side:
        yield side


@pytest.fixture
async def ada(side: Side) -> AsyncIterator[Person]:
    async with browser() as client:
        person = Person(side, client)
        await person.log_in("ada-token")
        yield person


async def test_many_who_look_are_one_question(side: Side, ada: Person, much: Much) -> None:
    """All get the line; Prometheus was asked once for the rule and once for its values."""
    episode = await write(side.journal, History(NOW - 60))
    much.delay = 0.3
    answers = await asyncio.gather(*(ada.get(f"/console/episodes/{episode}/graph") for _ in range(VIEWERS)))
    assert all(status == 200 and 'class="curve"' in text for status, text, _ in answers), answers[0][1]
    assert (much.count("/rules"), much.count("/query_range")) == (1, 1)


async def test_who_goes_takes_the_line_from_nobody(side: Side, ada: Person, much: Much) -> None:
    """The first one who asked has closed the page; the second one has the line of that very question."""
    episode = await write(side.journal, History(NOW - 60))
    much.delay = 0.5
    first = asyncio.create_task(ada.get(f"/console/episodes/{episode}/graph"))
    await asyncio.sleep(0.2)
    second = asyncio.create_task(ada.get(f"/console/episodes/{episode}/graph"))
    await asyncio.sleep(0.1)
    first.cancel()
    status, text, _ = await second
    assert (status, 'class="curve"' in text) == (200, True)
    assert much.count("/query_range") == 1


@pytest.mark.parametrize(("series", "drawn"), [(250, True), (2000, False)])
async def test_a_large_answer_holds_nobody_up(side: Side, ada: Person, much: Much, series: int, drawn: bool) -> None:
    """One of nearly the bound is drawn, a longer one is not read to its end; either way others have their answers.

    In seconds of this process's processor, which a machine with much else to do does not stretch; and without what the
    tests before have left in memory, which a collection would walk through.
    """
    much.fill(series)
    episode = await write(side.journal, History(NOW - 60))
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            began = time.process_time()
            await asyncio.sleep(0.005)
            gaps.append(time.process_time() - began)

    gc.collect()
    gc.freeze()
    ticking = asyncio.create_task(tick())
    try:
        await asyncio.sleep(0.05)
        status, text, _ = await ada.get(f"/console/episodes/{episode}/graph")
        await asyncio.sleep(0.05)  # what held the tick up ends within it, however short the answer was
    finally:
        ticking.cancel()
        gc.unfreeze()
    assert (status, 'class="curve"' in text) == (200, drawn), text
    assert drawn or f"longer than {MOST_RANGE} bytes" in text
    print(f"{len(much.matrix.body)} bytes: longest wait of others {max(gaps) * 1000:.0f} ms")
    assert max(gaps) < 0.25, "the loop was held up"


async def test_a_question_under_way_ends_with_the_server(tmp_path: Path, much: Much) -> None:
    """At shutdown nobody waits for Prometheus, and no task is left behind."""
    much.delay = 5.0
    async with browser() as client:
        async with serve(tmp_path, prometheus=much.url) as side:
            person = Person(side, client)
            await person.log_in("ada-token")
            episode = await write(side.journal, History(NOW - 60))
            asking = asyncio.create_task(person.get(f"/console/episodes/{episode}/graph"))
            await asyncio.sleep(0.3)
            began = time.monotonic()
        assert time.monotonic() - began < 3.0
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
