"""What people read of the journal, on both engines: pages in order, filters, the pulse, what runbooks did."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, text
from sqlalchemy.event import listen, remove

from remediator.events import Event, Kind
from remediator.journal import Journal, Place, Wanted, readings
from remediator.journal.transaction import Tx
from tests.support.episodes import deliver, write
from tests.support.http_side import open_journal
from tests.unit.cases import NOW, History


@pytest.fixture(params=["sqlite", "postgresql"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("database").dsn())
    opened = await open_journal(tmp_path, url)
    yield opened
    await opened.close(clean=False)


async def whole(journal: Journal, wanted: Wanted, most: int) -> list[Event]:
    """Page by page to the beginning."""
    found: list[Event] = []
    place: Place | None = None
    while True:
        part = await journal.page(wanted, place, most)
        found += part.events
        if part.older is None:
            return found
        place = part.older


async def test_pages_hold_every_event_once_in_order(journal: Journal) -> None:
    """Also where many have the same time, on the border of two pages."""
    for number in range(5):
        await write(
            journal,
            History(NOW).add(Kind.REFUSED, NOW, reason="muted", sentence="s", earliest=None, rung="mild"),
            f"s{number}",
        )
    every = await whole(journal, Wanted(), 100)
    assert len(every) == 10
    assert every == sorted(every, key=lambda event: (event.at, event.episode, event.seq), reverse=True)
    for most in (1, 3, 10):
        assert await whole(journal, Wanted(), most) == every


async def test_what_a_newer_program_wrote_ends_no_page(journal: Journal) -> None:
    """It is left out, and what is older follows all the same."""
    episodes = [await write(journal, History(), f"s{number}") for number in range(4)]

    def newer(tx: Tx) -> None:
        tx.run(text(f"UPDATE events SET kind = 'teleported' WHERE episode <> '{min(episodes)}'"))

    await journal._store.write(newer)
    for most in (1, 2, 3, 4):
        assert [event.episode for event in await whole(journal, Wanted(), most)] == [min(episodes)]


async def test_filters_hold_together(journal: Journal) -> None:
    first = await write(journal, History().diagnosed(NOW), "first")
    await write(journal, History().diagnosed(NOW), "second")
    await journal.pause("all", "ada", "because", None)
    kinds = [event.kind for event in await whole(journal, Wanted(kinds=("paused", "diagnosed")), 1)]
    assert sorted(kinds) == [Kind.DIAGNOSED, Kind.DIAGNOSED, Kind.PAUSED]
    assert {event.episode for event in await whole(journal, Wanted(episode=first), 1)} == {first}
    assert len(await whole(journal, Wanted(runbook="engine-slow"), 1)) == 4
    assert await whole(journal, Wanted(runbook="another"), 1) == []
    assert len(await whole(journal, Wanted(kinds=("opened",), runbook="engine-slow", episode=first), 1)) == 1
    assert [event.kind for event in await whole(journal, Wanted(since=time.time() + 60), 1)] == []


@pytest.mark.parametrize("books", [None, "engine-slow"])
async def test_several_kinds_are_one_order(journal: Journal, books: str | None) -> None:
    """Each kind has its own piece of the index; what is shown is one list, without a gap on any border of two pages."""
    for number in range(6):
        history = History(NOW - number).diagnosed(NOW).add(Kind.OBSERVED, NOW, alert={})
        await write(journal, history.add(Kind.CLOSED, NOW + number, reason="x", sentence="s"), f"s{number}")
    every = await whole(journal, Wanted(), 100)
    kinds = ("closed", "diagnosed", "opened", "promoted")
    expected = [event for event in every if event.kind.value in kinds]
    assert len(expected) == 18
    for most in (1, 4, 18, 100):
        assert await whole(journal, Wanted(kinds=kinds, runbook=books), most) == expected
    later = Wanted(kinds=kinds, runbook=books, since=expected[8].at)
    assert await whole(journal, later, 5) == [event for event in expected if event.at >= expected[8].at]


def explained(tx: Tx, statement: Executable, values: dict[str, object]) -> str:
    """How SQLite answers a statement: each step of its plan."""
    sent: list[tuple[str, Any]] = []
    note = lambda *call: sent.append((call[2], call[3]))  # noqa: E731 - short
    listen(tx.connection, "before_cursor_execute", note)
    tx.rows(statement, values)
    remove(tx.connection, "before_cursor_execute", note)
    (sql, parameters) = sent[-1]
    return "; ".join(row[-1] for row in tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters))


async def test_a_rare_kind_is_found_by_its_index_and_a_few_episodes_by_theirs(tmp_path: Path) -> None:
    """On SQLite, which keeps no statistics: how it would look for each, whatever the tables hold."""
    journal = await open_journal(tmp_path)
    plans = {}
    for name, wanted, few in (
        ("kind", Wanted(kinds=("promoted",)), None),
        ("kinds", Wanted(kinds=("promoted", "paused")), None),
        ("kind of many", Wanted(kinds=("promoted",), runbook="b"), None),
        ("kind of few", Wanted(kinds=("refused",), runbook="b"), ["e", "f"]),
        ("few", Wanted(runbook="b"), ["e", "f"]),
        ("kind of one", Wanted(kinds=("refused",), episode="e"), ["e"]),
        ("all", Wanted(), None),
    ):
        asked = readings._asked(wanted, (1.0, "e", 1), 100, few)
        plans[name] = await journal._store.read(lambda tx, asked=asked: explained(tx, *asked))
    await journal.close(clean=False)
    assert all("events_kind" in plans[name] for name in ("kind", "kinds", "kind of many")), plans
    assert all("(episode=?" in plans[name] for name in ("kind of few", "few", "kind of one")), plans
    assert "events_at" in plans["all"], plans
    assert all("SCAN events" not in plan for plan in plans.values()), plans


async def test_the_pulse_is_another_one_after_whatever_changes(journal: Journal) -> None:
    """And the same while nothing does."""
    pulses = [await journal.pulse(), await journal.pulse()]
    assert pulses[0] == pulses[1]
    await deliver(journal, "waiting")  # an episode without an event
    pulses.append(await journal.pulse())
    await write(journal, History(), "written")
    pulses.append(await journal.pulse())
    number = await journal.pause("all", "ada", "because", time.time() + 1.0)
    pulses.append(await journal.pulse())
    assert await journal.resume(number, "ada")
    pulses.append(await journal.pulse())
    assert len(set(pulses)) == len(pulses) - 1


async def test_what_runbooks_did_is_counted_by_its_end(journal: Journal) -> None:
    marks = {"fixed": "a" * 32, "not_fixed": "b" * 32}
    for verdict, attempt in marks.items():
        history = History().intent(NOW - 30, attempt=attempt).outcome(NOW - 29, attempt=attempt)
        await write(journal, history.verdict(NOW - 5, verdict, attempt=attempt), verdict)
    await write(
        journal, History().intent(NOW - 30, attempt="c" * 32).outcome(NOW - 29, "failed", attempt="c" * 32), "failed"
    )
    doubt = await write(
        journal, History().intent(NOW - 30, attempt="d" * 32).outcome(NOW - 29, "in_doubt", attempt="d" * 32), "doubt"
    )
    found = (await journal.effects(0.0))["engine-slow"]
    assert (found.attempts, found.fixed, found.not_fixed, found.worse, found.unknown) == (4, 1, 1, 0, 0)
    assert (found.not_begun, found.open) == (1, 1)
    assert await journal.doubtful() == [doubt]
    assert await journal.effects(time.time() + 60) == {}
    assert await journal.open_by_runbook() == {"engine-slow": 4}
