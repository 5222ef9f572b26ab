"""The journal in a file: one process, killed at any moment, on a full or failing disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from remediator.clock import SystemClock
from remediator.errors import Conflict, JournalError
from remediator.journal import InboxRow, Journal, lane
from remediator.journal.lifetime import BOOT, HOLD_OFF
from remediator.journal.sqlite import SQLiteStore, _file_system
from remediator.journal.store import Unstorable
from remediator.journal.transaction import Tx
from tests.support.journals import BOOK, Place, ShiftedClock, acted, alert, opened, split

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A file that is not there yet."""
    place = Place(f"sqlite:///{tmp_path}/journal.db", tmp_path)
    yield place
    await place.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """An open file with one table, and no journal in it."""
    store = SQLiteStore(tmp_path / "journal.db", time.time)
    await store.open()
    await store.write(lambda tx: tx.run(text("CREATE TABLE said (what TEXT PRIMARY KEY)")))
    yield store
    await store.close()


def child(what: str, file: Path, *before: str) -> list[str]:
    """The command of a process with a journal of its own."""
    return [*before, sys.executable, "-m", "tests.support.journal_child", what, str(file)]


def ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


async def left_off(place: Place, journal: Journal, *, clean: bool) -> None:
    """End a run."""
    await journal.close(clean=clean)
    place.opened.remove(journal)


class TestReload:
    async def test_a_stricter_mode_that_cannot_be_written_holds_and_is_told_later(self, place: Place) -> None:
        """The file is locked by somebody else: our own intents obey at once, and the next heartbeat writes it down."""
        journal = await place.open()
        with contextlib.closing(sqlite3.connect(place.folder / "journal.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalError):
                await journal.reconfigured("shadow", "1" * 64, 10.0)
            assert (await journal.facts("e", BOOK, None)).strictest_mode == "shadow"
        await journal.heartbeat("shadow")
        row = await journal._store.read(lambda tx: tx.row(text("SELECT mode, config_digest FROM replicas")))
        assert tuple(row) == ("shadow", "1" * 64)

    async def test_a_freer_mode_that_cannot_be_written_does_not_hold(self, place: Place) -> None:
        """Other replicas may not know of it: the stricter one counts until they do."""
        journal = await place.open(mode="shadow")
        with contextlib.closing(sqlite3.connect(place.folder / "journal.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalError):
                await journal.reconfigured("auto", "1" * 64, 10.0)
            assert (await journal.facts("e", BOOK, None)).strictest_mode == "shadow"
        await journal.heartbeat("auto")
        assert (await journal.facts("e", BOOK, None)).strictest_mode == "auto"


class TestOneProcess:
    async def test_a_second_process_is_refused(self, place: Place) -> None:
        """Two processes on one file would each own every episode; the first one is named."""
        await place.open()
        done = ran(child("hold", place.folder / "journal.db"))
        assert done.returncode != 0
        assert f"in use by process {os.getpid()}" in done.stderr
        with pytest.raises(JournalError, match="in use"):
            await place.open()

    async def test_a_killed_process_leaves_no_lock(self, place: Place) -> None:
        """The lock ends with its process."""
        with subprocess.Popen(
            child("hold", place.folder / "journal.db"), cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            with pytest.raises(JournalError, match=f"in use by process {process.pid}"):
                await place.open()
            process.kill()
        await place.open()

    async def test_the_file_is_its_owners_alone(self, place: Place) -> None:
        """Alerts carry what is nobody else's business."""
        journal = await place.open()
        await opened(journal)
        for file in place.folder.glob("journal.db*"):
            assert file.stat().st_mode & 0o077 == 0, file

    async def test_every_commit_is_synced(self, place: Place) -> None:
        """As SQLite itself says, and as the kernel sees it: at least one sync for each acknowledged store."""
        journal = await place.open()

        def pragmas(tx: Tx) -> list[object]:
            return [tx.run(text(f"PRAGMA {name}")).scalar_one() for name in ("journal_mode", "synchronous")]

        assert await journal._store.write(pragmas) == ["wal", 2]
        await journal.close()
        place.opened.clear()
        trace = place.folder / "trace"
        strace = ("strace", "-f", "-e", "trace=fsync,fdatasync", "-o", str(trace))
        subprocess.run(child("store_some", place.folder / "traced.db", *strace), cwd=ROOT, timeout=60, check=True)
        syncs = len(re.findall(r"f(?:data)?sync\(\d+\) += 0", trace.read_text()))
        assert 100 < syncs < 160

    @pytest.mark.parametrize("content", [b"not a database at all, but long enough to be read as one" * 100, None])
    async def test_what_is_no_journal_is_refused(self, place: Place, content: bytes | None) -> None:
        """Garbage, or a folder where the file should be."""
        file = place.folder / "journal.db"
        if content is None:
            file.mkdir()
        else:
            file.write_bytes(content)
        with pytest.raises(JournalError):
            await place.open()

    def test_file_systems_are_told_apart(self) -> None:
        """Locks and syncs of network file systems cannot be relied on; so the kind must be known."""
        assert _file_system(Path("/proc")) == "proc"
        assert _file_system(Path("/dev/shm")) == "tmpfs"


class TestStart:
    async def test_after_a_clean_end_it_starts_at_once(self, place: Place) -> None:
        """Nothing was under way."""
        await left_off(place, await place.open(), clean=True)
        journal = await place.open()
        assert (await journal.facts("e", BOOK, None)).hold_off_until is None

    async def test_after_an_unclean_end_it_holds_off(self, place: Place) -> None:
        """An effect may still be under way; and again when that run ends uncleanly, too."""
        await left_off(place, await place.open(), clean=False)
        journal = await place.open(hold_off=60.0)
        facts = await journal.facts("e", BOOK, None)
        assert facts.hold_off_until == pytest.approx(facts.now + 60, abs=5)
        assert "cleanly" in journal.hold_off_why

    async def test_the_hold_off_outlives_a_clean_restart(self, place: Place) -> None:
        """Restarting must not be the way round it; it ends by time."""
        await left_off(place, await place.open(), clean=False)
        await left_off(place, await place.open(hold_off=60.0), clean=True)
        journal = await place.open()
        assert (await journal.facts("e", BOOK, None)).hold_off_until is not None
        await left_off(place, journal, clean=True)
        journal = await place.open(clock=ShiftedClock(boot=61.0))
        assert (await journal.facts("e", BOOK, None)).hold_off_until is None

    async def test_it_is_counted_by_boot_time(self, place: Place) -> None:
        """A wall clock that is put forward does not end it, one that is put back does not stretch it."""
        clock = ShiftedClock()
        journal = await place.open(clock=clock)
        await journal.hold_off(60.0, "clock stepped")
        clock.wall = 7200.0
        facts = await journal.facts("e", BOOK, None)
        assert facts.hold_off_until == pytest.approx(facts.now + 60, abs=5)
        clock.boot = 61.0
        assert (await journal.facts("e", BOOK, None)).hold_off_until is None

    async def test_after_an_unclean_end_proofs_begin_anew(self, place: Place) -> None:
        """For how long nobody looked, a clock that stood still with the machine cannot tell. A clean end is no gap."""
        journal = await place.open()
        await journal.release(await opened(journal), 0.0, proof_at=70.5)
        for clean, told in ((True, 70.5), (False, None)):
            await left_off(place, journal, clean=clean)
            journal = await place.open()
            (claim,) = await journal.claim(1)
            assert claim.proof_at == told
            await journal.release(claim.episode, 0.0)

    async def test_a_new_boot_holds_off(self, place: Place) -> None:
        """The machine may have lost power after the effect and before the intent was on the disk."""
        journal = await place.open()

        def another_boot(tx: Tx) -> None:
            tx.run(text(f"UPDATE meta SET value = 'before' WHERE key = '{BOOT}'"))

        await journal._store.write(another_boot)
        await left_off(place, journal, clean=True)
        journal = await place.open()
        assert (await journal.facts("e", BOOK, None)).hold_off_until is not None
        assert "machine" in journal.hold_off_why

    async def test_a_kept_hold_off_from_a_wrong_clock_is_bounded(self, place: Place) -> None:
        """A day at most, whatever the clock said then."""
        journal = await place.open()

        def years(tx: Tx) -> None:
            tx.run(text(f"INSERT INTO meta (key, value) VALUES ('{HOLD_OFF}', '1e12')"))

        await journal._store.write(years)
        await left_off(place, journal, clean=True)
        journal = await place.open()
        facts = await journal.facts("e", BOOK, None)
        assert facts.hold_off_until is not None
        assert facts.hold_off_until <= facts.now + 86400

    async def test_the_last_runs_work_is_taken_over_at_once(self, place: Place) -> None:
        """No lease is waited for; and the planner hears that it was somebody else's."""
        journal = await place.open()
        episode = await opened(journal)
        await left_off(place, journal, clean=False)
        [claim] = await (await place.open()).claim(10)
        assert (claim.episode, claim.taken_over, claim.claims) == (episode, True, 1)

    async def test_work_given_up_is_not_taken_over(self, place: Place) -> None:
        """After a clean end nobody was in the middle of anything."""
        journal = await place.open()
        episode = await opened(journal)
        await left_off(place, journal, clean=True)
        [claim] = await (await place.open()).claim(10)
        assert (claim.episode, claim.taken_over) == (episode, False)


class TestKilled:
    @pytest.mark.parametrize("seed", range(3))
    async def test_no_acknowledged_delivery_is_lost(self, place: Place, seed: int) -> None:
        """kill -9 in the middle of writing: whatever was acknowledged is there."""
        lines = self.run_and_kill("store", place.folder / "journal.db", 0.2 + random.Random(seed).random() * 0.3)
        journal = await place.open()
        seen: set[int] = set()

        def see(row: InboxRow) -> tuple[()]:
            seen.add(json.loads(row.body)[0])
            return ()

        await journal.route(see, 1_000_000)
        assert lines
        assert seen >= {int(line) for line in lines}
        assert len(seen) <= len(lines) + 1

    @pytest.mark.parametrize("seed", range(3))
    async def test_no_append_is_half_there(self, place: Place, seed: int) -> None:
        """Both events of an append, or none; in unbroken order."""
        lines = self.run_and_kill("append", place.folder / "journal.db", 0.2 + random.Random(seed).random() * 0.3)
        journal = await place.open()
        found = [one.seq for one in await journal.events(lines[0])]
        assert found == list(range(1, len(found) + 1))
        assert len(found) % 2 == 1
        assert int(lines[-1]) <= len(found) <= int(lines[-1]) + 2
        assert (await journal.facts("e", BOOK, None)).hold_off_until is not None

    def run_and_kill(self, what: str, file: Path, seconds: float) -> list[str]:
        """Run the child, kill it that long after its first line; the lines that it has written whole."""
        output = file.with_name("output")
        with output.open("wb") as stdout, subprocess.Popen(child(what, file), cwd=ROOT, stdout=stdout) as process:
            end = time.monotonic() + 20
            while output.stat().st_size == 0:
                assert time.monotonic() < end, "the child says nothing"
                time.sleep(0.01)
            time.sleep(seconds)
            process.kill()
        return output.read_text().rpartition("\n")[0].splitlines()


class TestDisk:
    def test_a_full_disk_takes_outcomes_only(self, tmp_path: Path) -> None:
        """Intake and intents fail and nothing is broken by it; the ballast makes room for the outcome."""
        unshare = shutil.which("unshare")
        assert unshare is not None
        own_mounts = [unshare, "--mount"] if os.geteuid() == 0 else [unshare, "--user", "--map-root-user", "--mount"]
        script = f'mount -t tmpfs -o size=48m none "{tmp_path}" && exec "$@"'
        command = [*own_mounts, "sh", "-c", script, "-", *child("starve", tmp_path / "journal.db")]
        done = ran(command)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said.pop("stores before it was full") < 1999
        assert said == {"store": "NoSpace", "intent": "NoSpace", "outcome": 3, "broken": None, "ballast is back": True}

    def test_after_an_io_error_nothing_is_written(self, tmp_path: Path) -> None:
        """Pages may be lost that a later success would hide: only a new start recovers."""
        done = ran(child("io_error", tmp_path / "journal.db"))
        assert done.returncode == 0, done.stderr
        first, second = json.loads(done.stdout)
        assert "IOERR" in first
        assert "broken" in second

    def test_what_waits_behind_an_io_error_is_not_written(self, tmp_path: Path) -> None:
        """Of many stores at once, exactly those are in the file that were acknowledged."""
        done = ran(child("io_error_under_load", tmp_path / "journal.db"))
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["refused"] > 0
        assert said["stored"] == said["acknowledged"]


class TestTogether:
    """What waits while a transaction is under way shares the next one."""

    async def behind(self, store: SQLiteStore, bodies: Sequence[Callable[[Tx], Any]]) -> list[Any]:
        """Results and errors of bodies that all came while another one was under way."""
        go_on = threading.Event()
        first = asyncio.create_task(store.write(lambda tx: go_on.wait(10)))
        waiting = [asyncio.create_task(store.write(body)) for body in bodies]
        await asyncio.sleep(0.05)
        go_on.set()
        found = await asyncio.gather(first, *waiting, return_exceptions=True)
        return found[1:]

    async def test_a_sync_is_shared(self, store: SQLiteStore) -> None:
        """Ten that wait are one transaction, each with its own result."""

        def say(what: str) -> Callable[[Tx], tuple[str, int]]:
            def body(tx: Tx) -> tuple[str, int]:
                tx.run(text("INSERT INTO said VALUES (:what)"), {"what": what})
                return what, id(tx)

            return body

        found = await self.behind(store, [say(str(number)) for number in range(10)])
        assert [what for what, _ in found] == [str(number) for number in range(10)]
        assert len({transaction for _, transaction in found}) == 1
        assert len(await store.read(lambda tx: tx.rows(text("SELECT * FROM said")))) == 10

    async def test_who_fails_takes_nothing_from_the_others(self, store: SQLiteStore) -> None:
        """A refusal of its own, values that cannot be stored: each is told its own fault, all else is written."""

        def say(what: str) -> Callable[[Tx], Any]:
            return lambda tx: tx.run(text("INSERT INTO said VALUES (:what)"), {"what": what}).rowcount

        def refuse(tx: Tx) -> None:
            tx.run(text("INSERT INTO said VALUES ('half')"))
            raise Conflict("somebody else's")

        found = await self.behind(store, [say("a"), say("a"), refuse, say("b")])
        assert (found[0], found[3]) == (1, 1)
        assert (type(found[1]), type(found[2])) == (Unstorable, Conflict)
        said = await store.read(lambda tx: tx.rows(text("SELECT what FROM said ORDER BY what")))
        assert [row.what for row in said] == ["a", "b"]


ENDLESS = text("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n")


class TestLooks:
    async def test_one_that_does_not_end_is_ended_alone(self, store: SQLiteStore, monkeypatch: Any) -> None:
        """The others that wait for the same thread have their answers, and the next one has its own."""
        monkeypatch.setattr(lane, "LOOK_SECONDS", 0.5)
        go_on = threading.Event()
        first = asyncio.create_task(store.read(lambda tx: go_on.wait(10)))
        await asyncio.sleep(0.05)
        others = [store.read(lambda tx: tx.rows(text("SELECT 1"))[0][0]) for _ in range(5)]
        asyncio.get_running_loop().call_later(0.1, go_on.set)
        began = time.monotonic()
        found = await asyncio.gather(store.read(lambda tx: tx.rows(ENDLESS)), *others, return_exceptions=True)
        assert time.monotonic() - began < 10
        assert await first
        assert isinstance(found[0], JournalError)
        assert "a look was ended" in str(found[0])
        assert found[1:] == [1] * 5
        assert await store.read(lambda tx: tx.rows(text("SELECT 2"))[0][0]) == 2
        assert store.broken is None

    async def test_a_fault_of_the_disk_ends_all_that_look_together(self, store: SQLiteStore) -> None:
        """Tried again alone it might succeed, on pages that are lost: after it nothing is written."""
        faults = iter([sqlite3.OperationalError("disk I/O error")])
        go_on = threading.Event()

        def look(tx: Tx) -> int:
            for fault in faults:
                fault.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
                raise OperationalError("SELECT 1", {}, fault)
            return int(tx.rows(text("SELECT 1"))[0][0])

        first = asyncio.create_task(store.read(lambda tx: go_on.wait(10)))
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_later(0.1, go_on.set)
        found = await asyncio.gather(*(store.read(look) for _ in range(3)), return_exceptions=True)
        await first
        assert all(isinstance(each, JournalError) for each in found)
        assert store.broken is not None


class TestInMemory:
    async def test_replicas_of_a_simulation_share_one(self) -> None:
        """The same code, deterministic: nothing ever waits."""
        clock = ShiftedClock()
        store = SQLiteStore(None, clock.now, shared=True)
        await store.open()
        options: dict[str, Any] = {"clock": clock, "config_digest": "", "hold_off": 60.0, "lease": 6.0}
        a = await Journal.over(store, owner="a", mode="auto", **options)
        b = await Journal.over(store, owner="b", mode="shadow", **options)
        episode = await alert(a)
        assert await b.claim(10) == []
        clock.boot = 7.0
        assert [claim.taken_over for claim in await b.claim(10)] == [True]
        assert (await a.facts(episode, BOOK, None)).strictest_mode == "shadow"
        await b.close()

    async def test_the_next_run_over_the_same_store_recovers(self) -> None:
        """A simulated crash is an unclean end."""
        clock = ShiftedClock()
        store = SQLiteStore(None, clock.now)
        await store.open()
        options: dict[str, Any] = {"clock": clock, "mode": "auto", "config_digest": "", "hold_off": 60.0, "lease": 6.0}
        journal = await Journal.over(store, owner="a", **options)
        episode, _ = await acted(journal, "k")
        journal = await Journal.over(store, owner="a", **options)
        assert (await journal.facts(episode, BOOK, None)).hold_off_until is not None
        assert [claim.taken_over for claim in await journal.claim(10)] == [True]
        await journal.close()

    async def test_nothing_is_kept(self, tmp_path: Path) -> None:
        """`sqlite://` needs no folder."""
        place = Place("sqlite://", tmp_path)
        journal = await place.open(clock=SystemClock())
        await journal.store([("delivery", b"[]")])
        assert await journal.route(split) == 1
        assert list(tmp_path.iterdir()) == []
        await journal.close()
