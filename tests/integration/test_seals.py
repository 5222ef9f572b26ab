"""What is changed in a journal after it was sealed shows, on real files and on a real PostgreSQL."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from remediator.errors import JournalError
from remediator.events import Kind
from remediator.journal import Journal, seals
from remediator.journal.readings import START
from tests.support.journals import BOOK, RESOURCE, Place, acted, event, opened, sql


async def sealed(journal: Journal) -> tuple[str, str]:
    """Two seals: over an episode that acted, and over another one. Returns both episodes."""
    first, _ = await acted(journal, "a")
    await journal.seal()
    second = await opened(journal, "b")
    await journal.seal()
    assert journal.sealed is not None
    assert journal.sealed.number == 2
    assert await journal.verify() == []
    assert await journal.unsealed() == 0
    return first, second


async def test_nothing_is_sealed_twice_or_for_nothing(journal: Journal) -> None:
    """A round without events writes nothing, and each seal goes on from the one before, over a restart too."""
    await journal.seal()
    assert journal.sealed is None
    await sealed(journal)
    before = journal.sealed
    await journal.seal()
    assert journal.sealed == before


async def test_each_seal_is_told_outside_of_the_journal(place: Place) -> None:
    """A line of the log for each, and at a start for the newest that is there."""
    one = await place.open("one")
    with capture_logs() as told:
        await sealed(one)
    lines = [line for line in told if line["event"] == "journal sealed"]
    assert [line["seal"] for line in lines] == [1, 2]
    assert one.sealed is not None
    assert lines[-1]["digest"] == one.sealed.digest
    head = one.sealed
    await one.close()
    place.opened.clear()
    two = await place.open("two")
    with capture_logs() as told:
        await two.seal()
    assert [line["digest"] for line in told if line["event"] == "the journal's newest seal"] == [head.digest]


async def test_the_oldest_event_without_a_seal(journal: Journal) -> None:
    """None before the first event; then the first one's time, whatever comes after it, until it is in a seal."""
    assert await journal.oldest_unsealed() is None
    episode, _ = await acted(journal, "a")
    await opened(journal, "b")
    written = min(event.at for event in await journal.events(episode))
    assert await journal.oldest_unsealed() == written
    await journal.seal()
    assert await journal.oldest_unsealed() is None


async def test_what_the_file_says_is_told_after_a_look_only(place: Place) -> None:
    """After a power loss it may be older than the journal, and a number that falls wakes people."""
    one = await place.open("one")
    await sealed(one)
    assert one.told == one.sealed
    await one.close()
    place.opened.clear()
    again = await place.open("one")
    assert again.sealed is not None
    assert again.told is None
    await again.seal()
    assert again.told == again.sealed


CHANGES = {
    "a target is another one": (
        "UPDATE events SET data = replace(data, 'docker', 'podman') WHERE episode = '{first}'",
        ["seal 1: its events are not what was sealed, or the seal is not, of episode {first}"],
    ),
    "an event is cut out": (
        "DELETE FROM events WHERE episode = '{second}'",
        ["seal 2: 0 of its 1 events are there, of no episode"],
    ),
    "an event is put in": (
        "INSERT INTO events (episode, seq, id, kind, version, at, data, seal) VALUES {row}",
        ["seal 2: 2 of its 1 events are there, of episode {second}"],
    ),
    "its time is another one": (
        "UPDATE events SET at = at - 3600 WHERE episode = '{second}'",
        ["seal 2: its events are not what was sealed, or the seal is not, of episode {second}"],
    ),
    "a seal is another one": (
        "UPDATE seals SET digest = '{nothing}' WHERE number = 1",
        [
            "seal 1: its events are not what was sealed, or the seal is not, of episode {first}",
            "seal 2: its events are not what was sealed, or the seal is not, of episode {second}",
        ],
    ),
    "a seal is cut out": ("DELETE FROM seals WHERE number = 1", ["seal 1: not there; the next one is 2"]),
    "the last seal is cut off": (
        "DELETE FROM seals WHERE number = 2",
        ["seal 2: not there, and 1 events say that they are in it"],
    ),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_a_change_shows(journal: Journal, what: str) -> None:
    """Whatever of an event is edited, cut or added, and in the seals themselves."""
    first, second = await sealed(journal)
    words = {
        "first": first,
        "second": second,
        "nothing": "0" * 64,
        "row": f"('{second}', 9, 'x', 'observed', 1, 5.0, '{{}}', 2)",
    }
    statement, wanted = CHANGES[what]
    await sql(journal, statement.format(**words))
    problems = [each for each in await journal.verify() if each.startswith("seal")]
    assert problems[: len(wanted)] == [each.format(**words) for each in wanted]


async def test_a_journal_written_anew_is_not_what_was_told(journal: Journal) -> None:
    """Edited and sealed again it agrees with itself, and not with what the log or the metrics have told."""
    first, _ = await sealed(journal)
    told = journal.sealed
    assert told is not None
    await sql(journal, f"UPDATE events SET at = at - 3600, seal = NULL WHERE episode = '{first}'")
    await sql(journal, "UPDATE events SET seal = NULL")
    await sql(journal, "DELETE FROM seals")
    other = await journal._store.write(lambda tx: seals.close(tx, "somebody"))
    assert other is not None
    assert [each for each in await journal.verify() if each.startswith("seal")] == []
    found = await journal.seal_of(told.number)
    assert found is None
    assert not other.is_told(told.digest)
    assert not other.is_told(str(told.short))


@pytest.mark.parametrize(
    "how", ["DELETE FROM seals WHERE number = 2", "UPDATE seals SET digest = 'f' WHERE number = 2"]
)
async def test_a_seal_that_was_seen_and_is_gone_stops_everything(journal: Journal, how: str) -> None:
    """As lost events do: a pause of everything that a person ends, and no intent until what was begun is over."""
    await sealed(journal)
    await sql(journal, how)
    await journal.seal()
    (pause,) = await journal.pauses()
    assert pause.scope == "all"
    assert "seal 2" in pause.reason
    facts = await journal.facts("e", BOOK, RESOURCE)
    assert facts.hold_off_until is not None
    await journal.seal()
    assert len(await journal.pauses()) == 1, "told once"


async def test_a_journal_that_was_replaced_while_nothing_ran(place: Place) -> None:
    """By an older one, or an empty one: what this replica had seen is kept beside it, and stops everything at the start."""
    one = await place.open()
    await sealed(one)
    await one.close()
    place.opened.clear()
    two = await place.open()
    assert two.sealed == one.sealed
    await sql(two, "DELETE FROM seals WHERE number = 2")
    await two.close(clean=False)
    place.opened.clear()
    three = await place.open()
    await three.seal()
    (pause,) = await three.pauses()
    assert (pause.scope, "seal 2" in pause.reason) == ("all", True)
    assert (await three.facts("e", BOOK, RESOURCE)).hold_off_until is not None


async def test_a_clean_end_leaves_nothing_unsealed(place: Place) -> None:
    """So that a stopped remediator's journal is closed for as long as it is down."""
    one = await place.open()
    await acted(one, "a")
    await one.close()
    place.opened.clear()
    assert await (await place.open()).unsealed() == 0


async def test_what_a_replica_has_seen_cannot_be_read(place: Place) -> None:
    """It is not begun without it: the file says which journal is the right one."""
    one = await place.open()
    await sealed(one)
    await one.close()
    place.opened.clear()
    file = place.folder / "here" / "journal.seal"
    file.write_text("{")
    with pytest.raises(JournalError, match=r"journal\.seal cannot be read.*then remove it"):
        await place.open()


async def test_more_than_a_seal_holds(journal: Journal) -> None:
    """A journal of the version before gets its seals at once; verified in parts it is the same."""
    (episode,) = [await opened(journal, "k")]
    rows = [event(episode, seq, Kind.OBSERVED) for seq in range(2, 2 * seals.MOST + 3)]
    for begin in range(0, len(rows), 500):
        await journal.append(rows[begin : begin + 500])
    await journal.seal()
    assert journal.sealed is not None
    assert journal.sealed.number == 3
    assert await journal.unsealed() == 0
    assert await journal.verify() == []
    part, parts = await journal.verify_part(START, 0.001), 1
    while part.after is not None:
        part, parts = await journal.verify_part(part.after, 0.001), parts + 1
        assert part.problems == ()
    assert part.seal == journal.sealed
    assert parts > 1


def test_the_metric_tells_the_digest_exactly() -> None:
    """A float holds 53 bits."""
    seal = seals.Seal(7, "f" * 64, 1.0, 3, "a")
    assert json.loads(json.dumps(float(seal.short))) == int("f" * 12, 16)
    assert seal.is_told(f"{float(seal.short):.0f}")
