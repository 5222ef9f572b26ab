"""The journal keeps its promises on SQLite and on PostgreSQL alike, on real files and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from remediator.errors import Conflict, JournalError
from remediator.events import OWN, Kind, Torn, Unknown
from remediator.facts import Facts
from remediator.journal import EpisodeIndex, Journal, Promoted
from remediator.journal.migrate import FOLDER, OLDEST, migrate
from remediator.journal.tables import metadata
from remediator.journal.transaction import Tx
from remediator.reasons import Reason, Refusal
from tests.support.journals import (
    BOOK,
    NEXT,
    RESOURCE,
    Place,
    ShiftedClock,
    acted,
    alert,
    allow,
    deliveries,
    delivery,
    event,
    intent,
    next_version,
    opened,
    split,
    sql,
)

NEWEST = "0005"  # the newest revision of the journal's tables


def test_room_is_told_of_a_file_only(journal: Journal, tmp_path: Path) -> None:
    """What `df` says of its file system; the disk of a PostgreSQL is that server's."""
    if journal._store.shared:
        assert journal.room() is None
        return
    found, told = shutil.disk_usage(tmp_path), journal.room()
    assert told is not None
    assert abs(told - found.free / found.total) < 0.02


class TestTables:
    async def test_migrations_make_the_tables_that_the_code_uses(self, journal: Journal) -> None:
        """The migrated schema and `tables.metadata` differ in nothing."""

        def differences(tx: Tx) -> object:
            return compare_metadata(MigrationContext.configure(tx.connection), metadata)

        assert await journal._store.read(differences) == []

    async def test_a_journal_of_a_newer_version_is_refused(self, place: Place, tmp_path: Path) -> None:
        """An older program never writes into tables that have changed under it."""
        journal = await place.open()
        newer = next_version(tmp_path, NEWEST, oldest=NEXT)
        await journal._store.write(lambda tx: migrate(tx, newer))
        await journal.close()
        place.opened.clear()
        with pytest.raises(JournalError, match=f"newer version.*{NEXT} on, and this one has {NEWEST}"):
            await place.open()

    async def test_a_journal_of_an_unknown_past_is_refused(self, place: Place) -> None:
        """Nobody has said what may go on with it."""
        journal = await place.open()
        await sql(journal, "UPDATE alembic_version SET version_num = '9999'")
        await sql(journal, f"DELETE FROM meta WHERE key = '{OLDEST}'")
        await journal.close()
        place.opened.clear()
        with pytest.raises(JournalError, match="newer version"):
            await place.open()

    async def test_the_version_before_goes_on_with_what_was_only_added_to(self, place: Place, tmp_path: Path) -> None:
        """Upgraded and then back: the older program opens the journal, works on, and leaves its revision alone."""
        journal = await place.open()
        episode, attempt = await acted(journal, "k")
        newer = next_version(tmp_path, NEWEST, oldest=NEWEST)
        await journal._store.write(lambda tx: migrate(tx, newer))
        await journal.close()
        place.opened.clear()
        back = await place.open()
        assert [one.kind for one in await back.events(episode)] == [Kind.OPENED, Kind.INTENT]
        placed = await back.outcome(event(episode, 3, Kind.OUTCOME, await back.now(), attempt=attempt, result="done"))
        assert placed.seq == 3
        await back._store.write(lambda tx: migrate(tx, newer))  # the newer one is started again: nothing to do
        found = await back._store.read(lambda tx: tx.run(text("SELECT version_num FROM alembic_version")).scalar())
        assert found == NEXT

    def test_no_revision_takes_back_what_another_has_closed(self) -> None:
        """`oldest` is the revision itself or one before it, and never goes down."""
        config = Config()
        config.set_main_option("script_location", str(FOLDER))
        scripts = reversed(list(ScriptDirectory.from_config(config).walk_revisions()))
        oldest = [(each.revision, each.module.oldest) for each in scripts]
        assert oldest[-1][0] == NEWEST
        assert all(by <= revision for revision, by in oldest)
        assert [by for _, by in oldest] == sorted(by for _, by in oldest)

    async def test_opening_again_changes_nothing(self, place: Place) -> None:
        """What was stored is there after a restart."""
        journal = await place.open()
        episode = await opened(journal)
        await journal.close()
        place.opened.clear()
        assert [one.kind for one in await (await place.open()).events(episode)] == [Kind.OPENED]


class TestIntake:
    async def test_an_alert_becomes_an_episode_that_is_due(self, journal: Journal) -> None:
        """Stored, routed, due at once, and its body comes out as it went in."""
        await journal.store([("delivery", delivery("a"))])
        assert journal.wake.is_set()
        assert await journal.route(split) == 1
        [claim] = await journal.claim(10)
        [row] = await journal.inbox(claim.episode)
        assert (row.kind, row.episode) == ("alert", claim.episode)
        assert row.body == b'{"key": "a", "fingerprint": "fp-a"}'

    async def test_duplicates_are_one_episode(self, journal: Journal) -> None:
        """The same alert from two Alertmanagers, twice in one body, and in a later batch: one episode."""
        await journal.store([("delivery", deliveries(("a", "x"), ("a", "x"))), ("delivery", delivery("a", "x"))])
        await journal.route(split)
        await journal.store([("delivery", delivery("a", "y"))])
        await journal.route(split)
        [row] = await journal.open_episodes()
        assert len(await journal.inbox(row.episode)) == 2, "the same word three times is one"

    async def test_what_is_routed_is_claimed_in_the_same_transaction(self, journal: Journal) -> None:
        """As many as asked for, ours at once; with nothing to route what is due is claimed all the same."""
        await journal.store([("delivery", delivery(key)) for key in "abc"])
        claims = await journal.take_in(split, 2)
        assert len(claims) == 2
        assert all(journal.lease_left(claim.episode) > 0 for claim in claims)
        assert len(await journal.take_in(split, 2)) == 1
        assert await journal.take_in(split, 2) == []

    async def test_while_all_hands_are_full_it_only_routes(self, journal: Journal) -> None:
        """Nothing is claimed that nobody could work on."""
        await journal.store([("delivery", delivery("a"))])
        assert await journal.take_in(split, 0) == []
        assert [row.owner for row in await journal.open_episodes()] == [None]

    async def test_the_same_word_again_is_told_once(self, journal: Journal) -> None:
        """A hundred deliveries that say the same leave one row; between them another word keeps its place."""
        again, other = delivery("k", "f"), deliveries(("k", "g"), ("k", "f"))
        await journal.store([("delivery", again)] * 50 + [("delivery", other)] + [("delivery", again)] * 50)
        assert await journal.route(split, limit=200) == 101
        (episode,) = [row.episode for row in await journal.open_episodes()]
        rows = await journal.inbox(episode)
        assert [json.loads(row.body)["fingerprint"] for row in rows] == ["f", "g", "f"]

    async def test_the_fingerprint_finds_the_episode_before_the_key(self, journal: Journal) -> None:
        """A newer version that hashes another key still finds the episode it belongs to, `resolved` included."""
        episode = await alert(journal, "old-key", "f")
        await journal.store([("delivery", delivery("new-key", "f"))])
        await journal.route(split)
        assert [row.episode for row in await journal.open_episodes()] == [episode]
        assert len(await journal.inbox(episode)) == 2

    async def test_indexed_fingerprints_find_it_too(self, journal: Journal) -> None:
        """The other Prometheus of a pair has another fingerprint; the engine may know it first."""
        episode = await alert(journal, "a", "f1")
        index = EpisodeIndex(BOOK, "P1", fingerprints=("f2", "f\x003"))
        await journal.append([event(episode, 1, Kind.OPENED)], index=index)
        await journal.store([("delivery", deliveries(("b", "f2"), ("c", "f\x003")))])
        await journal.route(split)
        assert [row.episode for row in await journal.open_episodes()] == [episode]

    async def test_after_closing_the_same_alert_is_a_new_episode(self, journal: Journal) -> None:
        """A closed episode takes nothing more: the alert that comes after it opens another."""
        first = await opened(journal)
        await journal.append([event(first, 2, Kind.CLOSED)], close=True)
        second = await opened(journal)
        assert second != first
        assert [(row.episode, row.closed_at is None) for row in await journal.episodes()] == [
            (first, False),
            (second, True),
        ]

    async def test_a_delivery_that_cannot_be_split_stops_no_other(self, journal: Journal) -> None:
        """It is counted as a dead letter, and the rest of the batch is routed."""
        await journal.store([("delivery", b"\xff"), ("delivery", delivery("a")), ("delivery", b"[1]")])
        assert await journal.route(split) == 3
        assert await journal.route(split) == 0
        assert len(await journal.open_episodes()) == 1
        assert await journal.dead_letters() == {"UnicodeDecodeError": 1, "TypeError": 1}

    @pytest.mark.parametrize("poison", ["\x00", "\ud800", "x\x00y\udfff"])
    async def test_text_that_a_database_refuses_does_not_stop_the_intake(self, journal: Journal, poison: str) -> None:
        """A sender chooses its fingerprints and labels; NUL and lone surrogates are stored as replacements."""
        await journal.store([("delivery", delivery(f"key-{poison}", f"fp-{poison}")), ("delivery", delivery("good"))])
        assert await journal.route(split) == 2
        assert len(await journal.open_episodes()) == 2
        await journal.store([("delivery", delivery("other", f"fp-{poison}"))])
        await journal.route(split)
        assert len(await journal.open_episodes()) == 2

    async def test_a_row_that_cannot_be_stored_stops_no_other(self, journal: Journal) -> None:
        """A batch that fails for its data is written row by row; what fails alone is a dead letter."""
        await journal.store([("delivery", delivery("a")), ("\ud800", b"bad"), ("delivery", delivery("b"))])
        assert await journal.route(split) == 2
        assert await journal.dead_letters() == {"unstorable": 1}

    async def test_dead_letters_are_counted_past_their_quota(self, journal: Journal) -> None:
        """The disk does not fill with rubbish, and nothing is dropped unseen."""
        for number in range(5):
            await journal.dead_letter("not_json", b"x" * 10_000 + bytes([number]), quota=2)
        assert await journal.dead_letters() == {"not_json": 5}

        def kept(tx: Tx) -> list[int]:
            return [len(row.prefix) for row in tx.rows(text("SELECT prefix FROM dead_letters"))]

        assert await journal._store.read(kept) == [4096, 4096]

    async def test_a_click_makes_its_episode_due(self, journal: Journal) -> None:
        """What a person says waits for no timer; a closed episode takes no more."""
        episode = await opened(journal)
        await journal.release(episode, await journal.now() + 60)
        await journal.click(episode, b"{}")
        [claim] = await journal.claim(1)
        assert claim.episode == episode
        [row] = await journal.inbox(episode)
        await journal.append([event(episode, 2, Kind.CLOSED)], takes=[row.id], close=True)
        with pytest.raises(Conflict):
            await journal.click(episode, b"{}")

    async def test_taken_bodies_are_forgotten_after_a_week(self, journal: Journal) -> None:
        """The journal does not grow with the alerts; what nobody has taken stays, however old."""
        episode = await opened(journal)
        await journal.store([("delivery", delivery("k"))])
        await journal.route(split)
        await journal.store([("delivery", delivery("k"))])
        week = 7 * 86400 + 60
        await sql(journal, f"UPDATE inbox SET received_at = received_at - {week}, processed_at = processed_at - {week}")
        await journal.sweep()

        def left(tx: Tx) -> int:
            return int(tx.run(text("SELECT count(*) FROM inbox")).scalar_one())

        assert await journal._store.read(left) == 2
        assert len(await journal.inbox(episode)) == 1
        assert await journal.route(split) == 1

    async def test_large_batches_and_bodies(self, journal: Journal) -> None:
        """64 deliveries of 100 alerts each are routed at once, each alert to its own episode."""
        bodies = [deliveries(*((f"k{number}", f"f{each}-{number}") for number in range(100))) for each in range(64)]
        await journal.store([*[("delivery", body) for body in bodies], ("delivery", b"[]" + b" " * 5_000_000)])
        assert await journal.route(split, 100) == 65
        rows = await journal.open_episodes()
        assert len(rows) == 100
        assert len(await journal.inbox(rows[0].episode)) == 64


class TestWork:
    async def test_severe_work_comes_first(self, journal: Journal) -> None:
        """By severity, then by due time; and no more than asked for."""
        found = {}
        for key, severity in (("a", "P3"), ("b", "P0"), ("c", "P1")):
            found[key] = await opened(journal, key)
            index = EpisodeIndex(BOOK, severity)
            await journal.append([event(found[key], 2, Kind.REFUSED)], index=index)
        for episode in found.values():
            await journal.release(episode, 0.0)
        assert [claim.episode for claim in await journal.claim(2)] == [found["b"], found["c"]]
        assert [claim.episode for claim in await journal.claim(2)] == [found["a"]]

    async def test_a_round_of_proof_is_told_to_whoever_claims_next(self, journal: Journal) -> None:
        """Until there is a later one; giving the episode back for another reason does not forget it."""
        episode = await opened(journal)
        told: list[float | None] = []
        for proof_at in (None, 70.5, None, 80.25, None):
            await journal.release(episode, 0.0, proof_at=proof_at)
            told += [claim.proof_at for claim in await journal.claim(1)]
        assert told == [None, 70.5, 70.5, 80.25, 80.25]

    async def test_nobody_waits_for_ever(self, journal: Journal) -> None:
        """The most severe first, but for what has waited a minute longer for each level between them."""
        found = {}
        for key, severity in (("a", "P3"), ("b", "P1"), ("c", "P1")):
            found[key] = await opened(journal, key)
            index = EpisodeIndex(BOOK, severity)
            await journal.append([event(found[key], 2, Kind.REFUSED)], index=index)
        now = await journal.now()
        for key, waited in (("a", 2 * 60 + 20), ("b", 10), ("c", 30)):
            await journal.release(found[key], now - waited)
        assert [claim.episode for claim in await journal.claim(1)] == [found["c"]]
        assert [claim.episode for claim in await journal.claim(1)] == [found["a"]]
        assert [claim.episode for claim in await journal.claim(1)] == [found["b"]]

    async def test_taking_over_alone_is_no_progress(self, journal: Journal) -> None:
        """Whatever ended each owner is counted on; anything else that is written is progress."""
        episode = await opened(journal)
        await journal.release(episode, 0.0)
        assert [claim.claims for claim in await journal.claim(1)] == [1]
        await journal.append([event(episode, 2, Kind.CLAIMED)])
        await journal.release(episode, 0.0, failed=True)
        [claim] = await journal.claim(1)
        assert claim.claims == 2
        await journal.append([event(episode, 3, Kind.REFUSED)])
        await journal.release(episode, 0.0, failed=True)
        [claim] = await journal.claim(1)
        assert claim.claims == 1

    async def test_a_persons_word_that_waits_comes_before_the_intent(self, journal: Journal) -> None:
        """A no that was acknowledged during the look: nothing is charged, and the episode is to be read again."""
        episode = await opened(journal)
        await journal.click(episode, b'{"kind": "decline"}')
        new = intent(episode, 2, await journal.now())
        with pytest.raises(Conflict, match="read first"):
            await journal.intend(new, runbook=BOOK, resource=RESOURCE, decide=allow)
        assert (await journal.facts(episode, BOOK, RESOURCE)).all_day == 0
        rows = await journal.inbox(episode)
        await journal.append([event(episode, 2, Kind.DECLINED)], takes=[row.id for row in rows])
        new = intent(episode, 3, await journal.now())
        assert await journal.intend(new, runbook=BOOK, resource=RESOURCE, decide=allow) is None

    async def test_what_is_claimed_is_not_claimed_again(self, journal: Journal) -> None:
        """Neither by another nor by the same; released, it is due at its time and its epoch has grown."""
        episode = await opened(journal)
        assert await journal.claim(10) == []
        await journal.release(episode, await journal.now() + 60)
        assert await journal.claim(10) == []
        await journal.nudge()
        [claim] = await journal.claim(10)
        assert (claim.episode, claim.epoch, claim.taken_over, claim.claims) == (episode, 2, False, 1)

    async def test_something_that_came_meanwhile_makes_it_due_now(self, journal: Journal) -> None:
        """A release for later does not bury an alert that arrived while the episode was worked on."""
        episode = await opened(journal)
        await journal.store([("delivery", delivery("k"))])
        await journal.route(split)
        journal.wake.clear()
        await journal.release(episode, await journal.now() + 3600)
        assert journal.wake.is_set()
        [claim] = await journal.claim(10)
        assert claim.episode == episode

    async def test_an_append_for_later_does_not_bury_it_either(self, journal: Journal) -> None:
        """The owner that dies after its append must not leave the new alert until `due_at`."""
        episode = await opened(journal)
        await journal.store([("delivery", delivery("k"))])
        await journal.route(split)
        await journal.append([event(episode, 2, Kind.REFUSED)], due_at=await journal.now() + 3600)
        row = await journal.episode(episode)
        assert row is not None
        assert row.due_at is not None
        assert row.due_at <= await journal.now()

    @pytest.mark.parametrize("due", [float("nan"), float("inf"), 1e12])
    async def test_no_wait_is_endless(self, journal: Journal, due: float) -> None:
        """A time from a clock that was wrong moves nothing out of reach."""
        episode = await opened(journal)
        await journal.release(episode, due)
        row = await journal.episode(episode)
        assert row is not None
        assert row.due_at is not None
        assert row.due_at <= await journal.now() + 3600

    async def test_the_sweep_finds_what_nobody_would_wake(self, journal: Journal) -> None:
        """An open episode without work, and one whose due time is out of reach, become due."""
        lost, far = await opened(journal, "lost"), await opened(journal, "far")
        for episode in (lost, far):
            await journal.release(episode, 0.0)
        await sql(journal, f"DELETE FROM work WHERE episode = '{lost}'")
        await sql(journal, f"UPDATE work SET due_at = 1e12 WHERE episode = '{far}'")
        assert await journal.claim(10) == []
        assert await journal.sweep() == 2
        assert {claim.episode for claim in await journal.claim(10)} == {lost, far}
        assert await journal.sweep() == 0

    async def test_failing_claims_count_until_something_is_written(self, journal: Journal) -> None:
        """Three in a row are a poison episode; a planned wait or an event begins the count anew."""
        episode = await opened(journal)
        counts = []
        for _ in range(3):
            await journal.release(episode, 0.0, failed=True)
            counts += [claim.claims for claim in await journal.claim(1)]
        assert counts == [1, 2, 3]
        await journal.append([event(episode, 2, Kind.REFUSED)])
        await journal.release(episode, 0.0, failed=True)
        assert [claim.claims for claim in await journal.claim(1)] == [1]
        await journal.release(episode, 0.0, failed=True)
        await journal.claim(1)
        await journal.release(episode, 0.0)
        assert [claim.claims for claim in await journal.claim(1)] == [1]

    async def test_a_reload_makes_everything_due_also_what_is_worked_on(self, journal: Journal) -> None:
        """The owner's later release must not undo the wake-up."""
        held, free = await opened(journal, "held"), await opened(journal, "free")
        await journal.release(free, await journal.now() + 60)
        assert await journal.nudge() == 2
        assert [claim.episode for claim in await journal.claim(10)] == [free]
        await journal.release(held, await journal.now() + 60)
        assert [claim.episode for claim in await journal.claim(10)] == [held]

    async def test_what_is_forgotten_lapses(self, place: Place) -> None:
        """Work that ended without a release is not renewed for ever."""
        clock = ShiftedClock()
        journal = await place.open(clock=clock, lease=0.3)
        episode = await opened(journal)
        journal.forget(episode)
        assert journal.lease_left(episode) == 0.0
        async with asyncio.timeout(10):
            while not (claims := await journal.claim(1)):
                await journal.renew()
                await asyncio.sleep(0.02)
        assert [(claim.taken_over, claim.claims) for claim in claims] == [(False, 1)]

    async def test_leases_are_counted_from_before_the_claim(self, journal: Journal) -> None:
        """The owner never believes in more of a lease than the journal gives it."""
        episode = await opened(journal)
        assert 0.0 < journal.lease_left(episode) <= 6.0
        await journal.release(episode, 0.0)
        assert journal.lease_left(episode) == 0.0


class TestEvents:
    async def test_events_come_back_as_they_were_written(self, journal: Journal) -> None:
        """Every kind of value, in order."""
        episode = await opened(journal)
        said = event(episode, 2, Kind.REFUSED, 1.5, text='NUL \x00 ü "', number=1.25, list=[1, None, {"a": True}])
        await journal.append([said, replace(said, id=uuid.uuid4().hex, seq=3)])
        assert (await journal.events(episode))[1] == said

    async def test_a_taken_place_is_a_conflict(self, journal: Journal) -> None:
        """Two owners can never both write the same step; nothing of the second append is kept."""
        episode = await opened(journal)
        await journal.append([event(episode, 2, Kind.REFUSED)])
        with pytest.raises(Conflict):
            await journal.append([event(episode, 2, Kind.REFUSED), event(episode, 3, Kind.REFUSED)])
        with pytest.raises(Conflict):
            await journal.append([event(episode, 1, Kind.REFUSED), event(episode, 2, Kind.REFUSED)])
        assert [one.seq for one in await journal.events(episode)] == [1, 2]

    async def test_the_same_append_again_is_no_conflict(self, journal: Journal) -> None:
        """The writer's own id settles a COMMIT whose answer was lost; it is written once."""
        episode = await opened(journal)
        both = [event(episode, 2, Kind.REFUSED), event(episode, 3, Kind.REFUSED)]
        await journal.append(both)
        await journal.append(both)
        assert [one.id for one in (await journal.events(episode))[1:]] == [one.id for one in both]

    async def test_a_closed_episode_takes_no_event(self, journal: Journal) -> None:
        """Nothing happens in it any more."""
        episode = await opened(journal)
        await journal.append([event(episode, 2, Kind.CLOSED)], close=True)
        with pytest.raises(Conflict):
            await journal.append([event(episode, 3, Kind.REFUSED)])
        assert await journal.claim(10) == []
        assert await journal.sweep() == 0

    async def test_it_cannot_close_over_an_alert(self, journal: Journal) -> None:
        """What came before the close is looked at first; nothing of the close is kept."""
        episode = await opened(journal)
        await journal.store([("delivery", delivery("k"))])
        await journal.route(split)
        closing = event(episode, 2, Kind.CLOSED)
        with pytest.raises(Conflict):
            await journal.append([closing], close=True)
        [row] = await journal.inbox(episode)
        assert len(await journal.events(episode)) == 1
        await journal.append([closing], takes=[row.id], close=True)
        row_now = await journal.episode(episode)
        assert row_now is not None
        assert row_now.closed_at is not None

    async def test_rows_are_taken_with_their_event_or_not_at_all(self, journal: Journal) -> None:
        """An append that fails leaves the inbox as it was."""
        episode = await alert(journal)
        [row] = await journal.inbox(episode)
        with pytest.raises(Conflict):
            await journal.append([event("0" * 32, 1, Kind.OPENED)], takes=[row.id])
        assert len(await journal.inbox(episode)) == 1
        await journal.append([], takes=[row.id])
        assert await journal.inbox(episode) == []

    async def test_an_event_of_a_newer_version_is_told(self, journal: Journal) -> None:
        """A replica that does not know a kind must not act on the episode; people still see the rest."""
        episode = await opened(journal)
        await journal.append([event(episode, 2, Kind.REFUSED)])
        await sql(journal, f"UPDATE events SET kind = 'teleported' WHERE episode = '{episode}' AND seq = 2")
        with pytest.raises(Unknown):
            await journal.events(episode)
        found, _ = await journal.tail(None, 10)
        assert [one.kind for one in found] == [Kind.OPENED]

    async def test_many_episodes_are_read_at_once(self, journal: Journal) -> None:
        """Each whole and in order; of one that a newer program wrote to it is said that it cannot be read."""
        known, newer = await opened(journal, "a"), await opened(journal, "b")
        for episode in (known, newer):
            await journal.append([event(episode, 2, Kind.REFUSED), event(episode, 3, Kind.REFUSED)])
        await sql(journal, f"UPDATE events SET kind = 'teleported' WHERE episode = '{newer}' AND seq = 2")
        found = await journal.histories([known, newer, "f" * 32])
        assert found == {known: await journal.events(known), newer: None}
        assert await journal.histories([]) == {}

    async def test_an_episode_with_a_missing_event_is_not_read(self, journal: Journal) -> None:
        """What is gone may have been an effect: nothing is decided on the rest, and a verification tells of it."""
        episode, whole = await opened(journal, "a"), await opened(journal, "b")
        await journal.append([event(episode, 2, Kind.REFUSED), event(episode, 3, Kind.REFUSED)])
        assert await journal.verify() == []
        for seq, left in ((2, "seq 2"), (1, "seq 1")):
            await sql(journal, f"DELETE FROM events WHERE episode = '{episode}' AND seq = {seq}")
            with pytest.raises(Torn, match=f"{episode}: {left} is missing"):
                await journal.events(episode)
        assert (await journal.histories([episode, whole])) == {episode: None, whole: await journal.events(whole)}
        assert f"episode {episode}: 2 events before seq 3 are missing" in await journal.verify()

    @pytest.mark.parametrize("kept", ["kind = 'outcome'", "seq = 1", "kind = 'none'"])
    async def test_nobody_goes_on_with_what_charges_or_index_know_more_of(self, journal: Journal, kept: str) -> None:
        """A standby that was behind, or a hand: the intent is gone, and its outcome may have come to its place."""
        episode, attempt = await acted(journal, "a")
        await journal.outcome(event(episode, 3, Kind.OUTCOME, attempt=attempt, result="done"))
        assert len((await journal.load(episode))[0]) == 3
        await sql(journal, f"DELETE FROM events WHERE episode = '{episode}' AND NOT ({kept})")
        await sql(journal, f"UPDATE events SET seq = 1 WHERE episode = '{episode}'")
        with pytest.raises(Torn):
            await journal.load(episode)
        if kept == "kind = 'none'":
            await sql(journal, f"DELETE FROM charges WHERE attempt = '{attempt}'")
            await sql(journal, f"UPDATE episodes SET severity = 'P1' WHERE episode = '{episode}'")
            with pytest.raises(Torn, match="it was opened"):
                await journal.load(episode)
        if kept == "kind = 'outcome'":
            assert await journal.histories([episode]) == {episode: None}

    async def test_an_outcome_in_the_place_of_its_intent_is_not_read(self, journal: Journal) -> None:
        """The promoted standby had neither the intent nor its charge; its outcome has come since."""
        episode, attempt = await acted(journal, "a")
        await journal.outcome(event(episode, 3, Kind.OUTCOME, attempt=attempt, result="done"))
        await sql(journal, f"DELETE FROM events WHERE episode = '{episode}' AND kind = 'intent'")
        await sql(journal, f"UPDATE events SET seq = seq - 1 WHERE episode = '{episode}' AND kind = 'outcome'")
        await sql(journal, f"DELETE FROM charges WHERE attempt = '{attempt}'")
        with pytest.raises(Torn, match="whose intent is missing"):
            await journal.events(episode)

    async def test_a_promotion_is_in_the_journals_own_stream(self, journal: Journal) -> None:
        """In its place after what was there; it changes no mode and no limit."""
        await journal.demote(BOOK, "it failed")
        await journal.promoted(Promoted(BOOK, "shadow", "approve", "ada\x00", "seen enough", ""))
        demoted, promoted = await journal.events(OWN)
        assert (demoted.kind, promoted.kind, promoted.seq) == (Kind.DEMOTED, Kind.PROMOTED, 2)
        assert promoted.data == {
            "runbook": BOOK,
            "from": "shadow",
            "to": "approve",
            "who": "ada\ufffd",
            "reason": "seen enough",
            "despite": "",
        }
        assert [one.runbook for one in await journal.demoted()] == [BOOK]

    async def test_intents_are_written_under_the_lock_only(self, journal: Journal) -> None:
        """`append` refuses them, and gaps."""
        episode = await opened(journal)
        with pytest.raises(ValueError, match="intend"):
            await journal.append([intent(episode, 2, 0.0)])
        with pytest.raises(ValueError, match="follow"):
            await journal.append([event(episode, 2, Kind.REFUSED), event(episode, 4, Kind.REFUSED)])

    async def test_documents_are_kept_under_their_digest(self, journal: Journal) -> None:
        """An episode keeps the runbook it was decided on."""
        await journal.put_document("d1", "body")
        await journal.put_document("d1", "body")
        assert await journal.get_document("d1") == "body"
        assert await journal.get_document("d2") is None

    async def test_the_tail_misses_nothing(self, journal: Journal) -> None:
        """Events of the last seconds come again rather than never; old ones come once."""
        episode = await opened(journal)
        old = await journal.now() - 100
        await journal.append([event(episode, seq, Kind.REFUSED, old + seq) for seq in range(2, 8)])
        newest, cursor = await journal.tail(None, 3)
        assert [one.seq for one in newest] == [6, 7, 1]
        assert [one.seq for one in (await journal.tail(cursor, 10))[0]] == [1]
        assert [one.seq for one in (await journal.tail("not a cursor", 1))[0]] == [1]
        found, cursor = await journal.tail("0", 4)
        assert [one.seq for one in found] == [2, 3, 4, 5]
        assert [one.seq for one in (await journal.tail(cursor, 10))[0]] == [6, 7, 1]

    async def test_a_page_that_ends_among_events_of_one_time_loses_none(self, journal: Journal) -> None:
        """They come again with the next page: a cursor is a time, and stays before what it has not told whole."""
        episode = await opened(journal)
        old = await journal.now() - 100
        times = [1, 2, 3, 3, 3, 4]
        await journal.append([event(episode, seq, Kind.REFUSED, old + at) for seq, at in enumerate(times, 2)])
        found, cursor = await journal.tail("0", 4)
        assert [one.seq for one in found] == [2, 3, 4, 5]
        assert [one.seq for one in (await journal.tail(cursor, 10))[0]] == [4, 5, 6, 7, 1]
        _, cursor = await journal.tail("0", 5)
        assert [one.seq for one in (await journal.tail(cursor, 10))[0]] == [7, 1]


class TestOutcomes:
    async def test_an_outcome_takes_the_next_place_and_only_once(self, journal: Journal) -> None:
        """Whatever was appended meanwhile; a second outcome of the attempt changes nothing."""
        episode, attempt = await acted(journal, "k")
        await journal.append([event(episode, 3, Kind.PROVING, attempt=attempt)])
        first = await journal.outcome(event(episode, 3, Kind.OUTCOME, attempt=attempt, result="done"))
        second = await journal.outcome(event(episode, 3, Kind.OUTCOME, attempt=attempt, result="failed"))
        assert (first.seq, second.seq) == (4, 4)
        assert [one.data.get("result") for one in await journal.events(episode)] == [None, None, None, "done"]
        assert await journal.running() == []

    async def test_outcomes_of_many_attempts_at_once(self, journal: Journal) -> None:
        """They never take each other's place."""
        episode = await opened(journal)
        attempts = []
        for seq in range(2, 7):
            new = intent(episode, seq, await journal.now())
            assert await journal.intend(new, runbook=BOOK, resource=RESOURCE, decide=allow) is None
            attempts.append(new.data["attempt"])
        outcomes = [event(episode, 7, Kind.OUTCOME, attempt=attempt, result="done") for attempt in attempts]
        placed = await asyncio.gather(*(journal.outcome(one) for one in outcomes))
        assert sorted(one.seq for one in placed) == [7, 8, 9, 10, 11]


class TestLimits:
    async def test_an_intent_is_charged_with_it(self, journal: Journal) -> None:
        """Seen by every other episode at once, by resource, runbook and all."""
        before = await journal.facts("other", BOOK, RESOURCE)
        episode, _ = await acted(journal, "k")
        after = await journal.facts("other", BOOK, RESOURCE)
        assert (before.last_effect_at, before.resource_hour, before.holds, before.doubts) == (None, 0, (), ())
        assert after.last_effect_at is not None
        counts = (after.resource_hour, after.resource_day, after.runbook_hour, after.runbook_day, after.all_hour)
        assert counts == (1, 1, 1, 1, 1)
        assert (after.holds, after.doubts) == ((episode,), (episode,))
        elsewhere = await journal.facts("other", "another-book", "docker:shop/other")
        assert (elsewhere.resource_hour, elsewhere.runbook_hour, elsewhere.all_hour) == (0, 0, 1)
        assert (elsewhere.last_effect_at, elsewhere.holds) == (None, ())

    async def test_an_episode_is_not_held_up_by_itself(self, journal: Journal) -> None:
        """Rungs of one episode are one remediation; but its charges count."""
        episode, _ = await acted(journal, "k")
        own = await journal.facts(episode, BOOK, RESOURCE)
        assert (own.last_effect_at, own.holds, own.doubts, own.resource_hour) == (None, (), (), 1)

    async def test_a_refusal_writes_nothing(self, journal: Journal) -> None:
        """Neither intent nor charge; a declined attempt costs nothing."""
        episode = await opened(journal)
        no = Refusal(Reason.STORM, "no")
        new = intent(episode, 2, await journal.now())
        assert await journal.intend(new, runbook=BOOK, resource=RESOURCE, decide=lambda _: no) is no
        assert len(await journal.events(episode)) == 1
        assert (await journal.facts(episode, BOOK, RESOURCE)).all_day == 0

    async def test_a_judgement_that_raises_writes_nothing(self, journal: Journal) -> None:
        """The lock is free again, too."""

        def broken(facts: Facts) -> None:
            raise ZeroDivisionError

        episode = await opened(journal)
        new = intent(episode, 2, await journal.now())
        with pytest.raises(ZeroDivisionError):
            await journal.intend(new, runbook=BOOK, resource=RESOURCE, decide=broken)
        assert await journal.intend(new, runbook=BOOK, resource=RESOURCE, decide=allow) is None

    async def test_counts_roll(self, journal: Journal) -> None:
        """By the hour and the day before now, not by the clock face; the last effect has no end."""
        episode, _ = await acted(journal, "k")
        await sql(journal, "UPDATE charges SET at = at - 3601")
        assert (await journal.facts("x", BOOK, RESOURCE)).resource_hour == 0
        assert (await journal.facts("x", BOOK, RESOURCE)).resource_day == 1
        await sql(journal, "UPDATE charges SET at = at - 86400")
        facts = await journal.facts("x", BOOK, RESOURCE)
        assert (facts.resource_day, facts.all_day) == (0, 0)
        assert facts.last_effect_at is not None
        assert facts.holds == (episode,)

    @pytest.mark.parametrize(
        ("steps", "doubt", "hold"),
        [
            ([], True, True),
            ([("outcome", "done")], False, True),
            ([("outcome", "failed")], False, False),
            ([("outcome", "in_doubt")], True, True),
            ([("outcome", "in_doubt"), ("settled", "unknown")], True, True),
            ([("outcome", "in_doubt"), ("settled", "done")], False, True),
            ([("outcome", "in_doubt"), ("settled", "not_done")], False, False),
            ([("settled", "unknown"), ("outcome", "done")], False, True),
            ([("outcome", "done"), ("verdict", "fixed")], False, False),
            ([("outcome", "done"), ("verdict", "unknown")], False, True),
            ([("outcome", "done"), ("verdict", "not_fixed")], False, True),
            ([("outcome", "done"), ("verdict", "not_fixed"), ("closed", "over")], False, False),
        ],
    )
    async def test_doubts_and_holds(
        self, journal: Journal, steps: list[tuple[str, str]], doubt: bool, hold: bool
    ) -> None:
        """A doubt lasts until it is settled; a hold until it is proved fixed, never began, or its episode is over."""
        episode, attempt = await acted(journal, "k")
        field = {"outcome": "result", "settled": "settlement", "verdict": "verdict", "closed": "reason"}
        for seq, (kind, value) in enumerate(steps, 3):
            one = event(episode, seq, Kind(kind), attempt=attempt, **{field[kind]: value})
            if kind == "outcome":
                await journal.outcome(one)
            else:
                await journal.append([one], close=kind == "closed")
        facts = await journal.facts("other", BOOK, RESOURCE)
        assert (bool(facts.doubts), bool(facts.holds)) == (doubt, hold)
        assert await journal.open_ends() == (doubt and bool(steps))
        await journal.release(episode, 0.0)
        assert await journal.open_ends() == doubt
        assert await journal.verify() == []

    async def test_a_pause_is_seen_under_the_lock(self, journal: Journal) -> None:
        """Scopes hold for what they name, an ended or over pause for nothing; the reason is in the phrase."""
        now = await journal.now()
        everything = await journal.pause("all", "ann", "deploying\x00", None)
        book = await journal.pause(f"runbook:{BOOK}", "ben", "broken", now + 60)
        await journal.pause(f"resource:{RESOURCE}", "cat", "mine", now + 60)
        await journal.pause("all", "dan", "over", now - 1)
        paused = (await journal.facts("e", BOOK, RESOURCE)).paused
        assert [phrase.split(":")[0] for phrase in paused] == ["all by ann", "runbook", "resource"]
        assert await journal.resume(everything, "ann") is True
        assert await journal.resume(everything, "ann") is False
        assert len((await journal.facts("e", BOOK, None)).paused) == 1
        assert (await journal.facts("e", "another", None)).paused == ()
        assert (await journal.pauses())[0].id == book
        with pytest.raises(ValueError, match="scope"):
            await journal.pause("web", "ann", "", None)

    async def test_one_pause_for_one_file(self, journal: Journal) -> None:
        """Several who find it at once write one row; a later one, after it was ended, is another."""
        said = ("all", "file /pause on here", "the pause file is there", None)
        numbers = await asyncio.gather(*(journal.pause(*said, once=True) for _ in range(8)))
        (pause,) = await journal.pauses()
        assert set(numbers) == {pause.id}
        assert await journal.resume(pause.id, "ann")
        assert await journal.pause(*said, once=True) != pause.id
        await journal.pause("all", "ben", "another's", None, once=True)
        assert len(await journal.pauses()) == 2

    async def test_the_storm_counts_open_firing_episodes_with_a_runbook(self, journal: Journal) -> None:
        """Not those that nothing would be done for, nor those that have ceased."""
        for key, index in (
            ("a", EpisodeIndex(BOOK, "P1")),
            ("b", EpisodeIndex(None, "P1")),
            ("c", EpisodeIndex(BOOK, "P1", firing=False)),
            ("d", EpisodeIndex(BOOK, "P1")),
        ):
            episode = await opened(journal, key)
            await journal.append([event(episode, 2, Kind.REFUSED)], index=index)
        await journal.append([event(episode, 3, Kind.CLOSED)], close=True)
        assert (await journal.facts("e", BOOK, None)).open_firing == 1

    async def test_the_head_tells_a_clock_that_is_behind(self, journal: Journal) -> None:
        """A little ahead counts as now; one event from the future does not make time stand still."""
        episode = await opened(journal)
        now = await journal.now()
        await journal.append([event(episode, 2, Kind.REFUSED, now + 3)])
        near = await journal.facts(episode, BOOK, None)
        assert near.now == near.head_at == now + 3
        await journal.append([event(episode, 3, Kind.REFUSED, now + 1e6)])
        far = await journal.facts(episode, BOOK, None)
        assert far.now < now + 60
        assert far.head_at == now + 1e6

    async def test_a_clock_step_holds_off(self, journal: Journal) -> None:
        """Nothing begins until so much boot time has passed, however the wall clock goes."""
        assert (await journal.facts("e", BOOK, None)).hold_off_until is None
        await journal.hold_off(300.0, "clock stepped")
        facts = await journal.facts("e", BOOK, None)
        assert facts.hold_off_until is not None
        assert facts.hold_off_until == pytest.approx(facts.now + 300, abs=5)

    async def test_the_own_mode_is_judged_at_once(self, journal: Journal) -> None:
        """A heartbeat with another mode binds the next facts."""
        assert (await journal.facts("e", BOOK, None)).strictest_mode == "auto"
        await journal.heartbeat("approve")
        assert (await journal.facts("e", BOOK, None)).strictest_mode == "approve"
        await sql(journal, "DELETE FROM replicas")
        await journal.heartbeat("approve")
        await journal.heartbeat("auto")
        assert (await journal.facts("e", BOOK, None)).strictest_mode == "auto"

    async def test_another_configuration_is_told_to_all(self, journal: Journal) -> None:
        """Mode and digest are in the replica's row when it returns, and a heartbeat does not take them back."""
        await journal.reconfigured("shadow", "1" * 64, 10.0)
        await journal.heartbeat("shadow")
        assert (await journal.facts("e", BOOK, None)).strictest_mode == "shadow"
        row = await journal._store.read(lambda tx: tx.row(text("SELECT mode, config_digest FROM replicas")))
        assert tuple(row) == ("shadow", "1" * 64)
        await journal.reconfigured("auto", "2" * 64, 10.0)
        assert (await journal.facts("e", BOOK, None)).strictest_mode == "auto"

    async def test_verify_finds_what_was_tampered_with(self, journal: Journal) -> None:
        """Charges are an index of the events; each difference is told."""
        _, first = await acted(journal, "a")
        _, second = await acted(journal, "b")
        assert await journal.verify() == []
        await sql(journal, f"UPDATE charges SET result = 'failed' WHERE attempt = '{first}'")
        await sql(journal, f"DELETE FROM charges WHERE attempt = '{second}'")
        columns = "attempt, episode, resource, runbook, at"
        await sql(journal, f"INSERT INTO charges ({columns}) VALUES ('z', 'e', 'r', 'b', 1)")
        problems = await journal.verify()
        assert len(problems) == 3
        assert all(name in "\n".join(problems) for name in (first, second, "attempt z"))

    async def test_verify_leaves_out_what_a_newer_version_wrote(self, journal: Journal) -> None:
        """It cannot be compared, which is said; the others are."""
        episode, attempt = await acted(journal, "a")
        _, other = await acted(journal, "b")
        await sql(journal, f"UPDATE events SET kind = 'teleported' WHERE episode = '{episode}' AND seq = 1")
        await sql(journal, f"UPDATE charges SET result = 'failed' WHERE attempt IN ('{attempt}', '{other}')")
        problems = sorted(await journal.verify())
        assert [problem[: problem.index(":")] for problem in problems] == [f"attempt {other}", f"episode {episode}"]
        assert "not compared, a newer version" in problems[1]

    async def test_attempts_are_found_by_their_id(self, journal: Journal) -> None:
        """For a person who settles a doubt."""
        episode, attempt = await acted(journal, "k")
        assert await journal.episode_of(attempt) == episode
        assert await journal.episode_of("0" * 32) is None
        assert [running.attempt for running in await journal.running()] == [attempt]


class TestCancellation:
    async def test_a_cancelled_caller_cuts_nothing_in_half(self, journal: Journal) -> None:
        """Wherever cancellation strikes: all of it is there or nothing, and the journal goes on."""
        episode = await opened(journal)
        seq = 2
        for step in range(60):
            both = [event(episode, seq, Kind.REFUSED), event(episode, seq + 1, Kind.REFUSED)]
            task = asyncio.create_task(journal.append(both))
            for _ in range(step % 20):
                await asyncio.sleep(0)
            await asyncio.sleep(0.0002 * (step // 20))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            there = {one.id for one in await journal.events(episode)}
            assert len(there & {one.id for one in both}) in (0, 2)
            if there & {one.id for one in both}:
                seq += 2
        await journal.append([event(episode, seq, Kind.REFUSED)])

    async def test_many_at_once(self, journal: Journal) -> None:
        """Intake, planning and appends of twenty episodes side by side."""

        async def live(key: str) -> None:
            episode = await opened(journal, key)
            for seq in range(2, 6):
                await journal.facts(episode, BOOK, RESOURCE)
                await journal.append([event(episode, seq, Kind.REFUSED)])

        await asyncio.gather(*(live(f"k{number}") for number in range(20)))
        assert len(await journal.open_episodes()) == 20


class TestEngines:
    async def test_urls_that_are_not_a_journal(self, place: Place) -> None:
        """Said at start, not at the first alert."""
        for url, said in (("mysql://h/d", "not supported"), ("nonsense", "not a database URL")):
            with pytest.raises(JournalError, match=said):
                await place.open(url=url)

    async def test_a_closed_journal_says_so(self, journal: Journal, place: Place) -> None:
        """Nothing hangs after the end."""
        await journal.close()
        place.opened.clear()
        if place.url.startswith("sqlite"):
            with pytest.raises(JournalError):
                await journal.store([("delivery", b"")])

    async def test_time_is_the_journals(self, place: Place) -> None:
        """PostgreSQL: the database's, whatever this machine's clock says. SQLite: this machine's."""
        journal = await place.open(clock=ShiftedClock(wall=86400.0))
        ahead = await journal.now() - ShiftedClock().now()
        assert ahead == pytest.approx(86400.0 if place.url.startswith("sqlite") else 0.0, abs=5)
