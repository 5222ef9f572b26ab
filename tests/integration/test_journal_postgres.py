"""Several replicas on one PostgreSQL: races, lost answers, frozen owners, forgetful servers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from remediator.errors import Conflict, JournalError
from remediator.events import Kind
from remediator.journal import Claim, EpisodeIndex, Journal
from remediator.journal.lifetime import STANDBY_HOLD
from remediator.journal.migrate import migrate
from remediator.journal.postgres import SESSION
from remediator.journal.transaction import INTENT_LOCK, Tx
from tests.support.journals import (
    BOOK,
    RESOURCE,
    Place,
    ShiftedClock,
    acted,
    alert,
    allow,
    delivery,
    event,
    intent,
    next_version,
    once,
    opened,
    split,
)
from tests.support.postgres import PASSWORD, SUPERUSER, Session
from tests.support.servers import Database, PostgresServer, Run
from tests.support.tcp_proxy import Hold, TcpProxy

COMMIT, COMMITTED = b"COMMIT;", b"COMMIT\x00"  # what asyncpg sends; the tag that PostgreSQL answers


@pytest.fixture
async def place(database: Database, tmp_path: Path) -> AsyncIterator[Place]:
    """An empty database for one journal."""
    place = Place(database.dsn(), tmp_path)
    yield place
    await place.close()


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[TcpProxy]:
    """A way to the server that can be cut."""
    with TcpProxy(postgres_server.port) as proxy:
        yield proxy


@pytest.fixture
async def cut(place: Place, proxy: TcpProxy, postgres_server: PostgresServer) -> Journal:
    """A journal behind the proxy."""
    return await place.open("cut", url=place.url.replace(f":{postgres_server.port}/", f":{proxy.port}/"))


async def held(hold: Hold) -> None:
    """Wait, without holding up the loop, until something is held there."""
    await asyncio.to_thread(hold.wait)


async def held_off(journal: Journal) -> bool:
    """May it begin nothing for a while?"""
    return (await journal.facts("e", BOOK, RESOURCE)).hold_off_until is not None


async def until(call: Callable[[], Awaitable[bool]], what: str, deadline: float = 10.0) -> None:
    """Poll until it is so."""
    end = time.monotonic() + deadline
    while not await call():
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}"
        await asyncio.sleep(0.02)


async def inside(database: Database, session: Session) -> None:
    """Wait until a session's statements are done and its transaction is open."""
    idle = f"pid = {session.pid} and state = 'idle in transaction'"
    await until(lambda: asyncio.to_thread(lambda: bool(database.server.backends(idle))), "an open transaction")


async def claimed(journal: Journal) -> list[Claim]:
    """Poll for the first claims."""
    found: list[Claim] = []

    async def some() -> bool:
        found.extend(await journal.claim(10))
        return bool(found)

    await until(some, "something to claim")
    return found


class TestUnknownCommit:
    """A COMMIT whose answer is lost is neither done again nor forgotten."""

    @pytest.fixture(params=["answer lost", "request lost"])
    def lose(self, request: pytest.FixtureRequest, proxy: TcpProxy) -> Callable[[], Hold]:
        """Hold the next COMMIT, either before the server sees it or after it has answered."""
        if request.param == "answer lost":
            return lambda: proxy.hold_answer_on(COMMITTED)
        return lambda: proxy.hold_on(COMMIT)

    async def losing(self, lose: Callable[[], Hold], call: Awaitable[object]) -> object:
        """Make a call, and reset the connection at its COMMIT."""
        hold = lose()
        task = asyncio.ensure_future(call)
        await held(hold)
        hold.drop()
        return await task

    async def test_an_append_is_written_once(self, cut: Journal, lose: Callable[[], Hold]) -> None:
        """The writer hears of success, in both cases."""
        episode = await opened(cut)
        new = event(episode, 2, Kind.REFUSED)
        await self.losing(lose, cut.append([new]))
        assert [one.id for one in await cut.events(episode)][1:] == [new.id]
        await cut.append([event(episode, 3, Kind.REFUSED)])

    async def test_an_intent_is_written_and_charged_once(self, cut: Journal, lose: Callable[[], Hold]) -> None:
        """Neither refused for its own charge, nor charged twice."""
        episode = await opened(cut)
        new = intent(episode, 2, await cut.now())
        refusal = await self.losing(lose, cut.intend(new, runbook=BOOK, resource=RESOURCE, decide=once))
        assert refusal is None
        assert (await cut.facts("x", BOOK, RESOURCE)).all_day == 1
        assert [one.id for one in await cut.events(episode)][1:] == [new.id]
        assert await cut.verify() == []

    async def test_an_outcome_is_written_once(self, cut: Journal, lose: Callable[[], Hold]) -> None:
        """At one place."""
        episode, attempt = await acted(cut, "k")
        await self.losing(lose, cut.outcome(event(episode, 3, Kind.OUTCOME, attempt=attempt, result="done")))
        assert [one.kind for one in await cut.events(episode)] == [Kind.OPENED, Kind.INTENT, Kind.OUTCOME]

    async def test_a_close_is_done_once(self, cut: Journal, lose: Callable[[], Hold]) -> None:
        """The second try finds its own event and is content, though the episode is closed."""
        episode = await opened(cut)
        await self.losing(lose, cut.append([event(episode, 2, Kind.CLOSED)], close=True))
        assert await cut.open_episodes() == []

    async def test_a_claim_is_ours(self, cut: Journal, lose: Callable[[], Hold]) -> None:
        """Not lost until its lease runs out."""
        episode = await opened(cut)
        await cut.release(episode, 0.0)
        claims = await self.losing(lose, cut.claim(1))
        assert isinstance(claims, list)
        assert [claim.episode for claim in claims] == [episode]

    async def test_a_pause_is_one(self, cut: Journal, lose: Callable[[], Hold]) -> None:
        """Ended by the number that was answered."""
        number = await self.losing(lose, cut.pause("all", "ann", "why", None))
        assert [pause.id for pause in await cut.pauses()] == [number]
        assert isinstance(number, int)
        assert await self.losing(lose, cut.resume(number, "ann")) is True
        assert await cut.pauses() == []

    async def test_a_delivery_is_never_lost(self, cut: Journal, lose: Callable[[], Hold]) -> None:
        """It may be there twice: that is one episode."""
        await self.losing(lose, cut.store([("delivery", delivery("k"))]))
        assert await cut.route(split) in (1, 2)
        assert len(await cut.open_episodes()) == 1


class TestInFlight:
    """The same row in another session whose COMMIT is still under way."""

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    async def test_the_second_try_waits_for_the_first(self, place: Place, database: Database, end: str) -> None:
        """Whichever way the first one ends, the event is there once and is its writer's."""
        journal = await place.open()
        episode = await opened(journal)
        new = event(episode, 2, Kind.REFUSED)
        columns = "episode, seq, id, kind, version, at, data"
        row = f"'{episode}', 2, '{new.id}', 'refused', 1, 0, '{{}}'"
        sql = f"begin; insert into events ({columns}) values ({row})"
        with database.server.session(sql, database.name) as session:
            await inside(database, session)
            task = asyncio.create_task(journal.append([new]))
            waiting = "wait_event_type = 'Lock' and application_name like 'prep-remediator%'"
            await until(lambda: asyncio.to_thread(lambda: bool(database.server.backends(waiting))), "a waiting insert")
            session.run(f"{end};")
            await task
        assert [one.id for one in await journal.events(episode)][1:] == [new.id]

    async def test_another_id_is_a_conflict(self, place: Place, database: Database) -> None:
        """Another owner was first."""
        journal = await place.open()
        episode = await opened(journal)
        columns = "episode, seq, id, kind, version, at, data"
        sql = f"begin; insert into events ({columns}) values ('{episode}', 2, 'other', 'refused', 1, 0, '{{}}')"
        with database.server.session(sql, database.name) as session:
            await inside(database, session)
            task = asyncio.create_task(journal.append([event(episode, 2, Kind.REFUSED)]))
            await asyncio.sleep(0.1)
            session.run("commit;")
            with pytest.raises(Conflict):
                await task


class TestSeveralReplicas:
    async def test_replicas_start_at_once_on_an_empty_database(self, place: Place) -> None:
        """One migrates, the others wait for it."""
        journals = await asyncio.gather(*(place.open(f"r{number}") for number in range(4)))
        episode = await opened(journals[0])
        assert [row.episode for row in await journals[3].open_episodes()] == [episode]

    async def test_one_of_many_intents_passes(self, place: Place) -> None:
        """Replicas that intend at the same moment under a limit of one: exactly one does, each time."""
        journals = [await place.open(f"r{number}") for number in range(4)]
        for turn in range(8):
            episodes = [await opened(journal, f"{turn}-{number}") for number, journal in enumerate(journals)]
            intents = [intent(episode, 2, await journals[0].now()) for episode in episodes]
            answers = await asyncio.gather(
                *(
                    journal.intend(new, runbook=BOOK, resource=RESOURCE, decide=once)
                    for journal, new in zip(journals, intents, strict=True)
                )
            )
            assert sum(answer is None for answer in answers) == 1
            assert (await journals[0].facts("x", BOOK, RESOURCE)).all_hour == 1

            def forget(tx: Tx) -> None:
                tx.run(text("DELETE FROM charges"))

            await journals[0]._store.write(forget)

    async def test_one_of_two_writes_the_intent_of_a_step(self, place: Place) -> None:
        """The same episode and step from two replicas: one intent, one Conflict, nothing half."""
        a, b = await place.open("a"), await place.open("b")
        for turn in range(8):
            episode = await opened(a, f"k{turn}")
            await a.release(episode, 0.0)
            intents = [intent(episode, 2, await a.now()) for _ in "ab"]
            answers = await asyncio.gather(
                *(
                    journal.intend(new, runbook=BOOK, resource=RESOURCE, decide=allow)
                    for journal, new in zip((a, b), intents, strict=True)
                ),
                return_exceptions=True,
            )
            assert [type(answer) for answer in answers if answer is not None] == [Conflict]
            assert len(await a.events(episode)) == 2
        assert await a.verify() == []

    async def test_a_lapsed_lease_is_taken_over(self, place: Place) -> None:
        """The old owner can append and intend no more; how its attempt ended is accepted all the same."""
        a, b = await place.open("a", lease=0.3), await place.open("b", lease=60.0)
        episode, attempt = await acted(a, "k")
        [claim] = await claimed(b)
        assert (claim.episode, claim.epoch, claim.taken_over) == (episode, 2, True)
        with pytest.raises(Conflict):
            await a.append([event(episode, 3, Kind.REFUSED)])
        with pytest.raises(Conflict):
            await a.intend(intent(episode, 3, await a.now()), runbook=BOOK, resource=RESOURCE, decide=allow)
        await a.renew()
        await b.append([event(episode, 3, Kind.CLAIMED, owner=b.owner, epoch=claim.epoch)])
        placed = await a.outcome(event(episode, 3, Kind.OUTCOME, attempt=attempt, result="done"))
        assert placed.seq == 4
        await a.release(episode, 0.0)
        row = await b.episode(episode)
        assert row is not None
        assert row.owner == b.owner

    async def test_a_renewed_lease_is_not_taken_over(self, place: Place) -> None:
        """For as long as the owner lives."""
        a, b = await place.open("a", lease=0.5), await place.open("b")
        await opened(a)
        for _ in range(10):
            await a.renew()
            assert await b.claim(10) == []
            await asyncio.sleep(0.1)

    async def test_the_strictest_mode_among_the_living_holds(self, place: Place) -> None:
        """A replica in shadow binds all; one that is gone, or silent for three leases, binds nobody."""
        a, b = await place.open("a"), await place.open("b", mode="shadow", lease=0.2)
        assert (await a.facts("e", BOOK, None)).strictest_mode == "shadow"
        await b.heartbeat("approve")
        assert (await a.facts("e", BOOK, None)).strictest_mode == "approve"
        await b.close()
        place.opened.remove(b)
        assert (await a.facts("e", BOOK, None)).strictest_mode == "auto"
        c = await place.open("c", mode="shadow")
        await c.close(clean=False)
        place.opened.remove(c)
        assert (await a.facts("e", BOOK, None)).strictest_mode == "shadow"

        def silent(tx: Tx) -> None:
            tx.run(text("UPDATE replicas SET seen_at = seen_at - 19 WHERE owner LIKE 'c%'"))

        await a._store.write(silent)
        assert (await a.facts("e", BOOK, None)).strictest_mode == "auto"

    async def test_a_pause_waits_for_the_intent_before_it(self, place: Place, cut: Journal, proxy: TcpProxy) -> None:
        """Once a pause is answered, every intent that passed before it is in `running`."""
        other = await place.open("other")
        episode = await opened(cut)
        new = intent(episode, 2, await cut.now())
        hold = proxy.hold_on(COMMIT)
        acting = asyncio.create_task(cut.intend(new, runbook=BOOK, resource=RESOURCE, decide=allow))
        await held(hold)
        pausing = asyncio.create_task(other.pause("all", "ann", "stop", None))
        await asyncio.sleep(0.3)
        assert not pausing.done()
        hold.release()
        await pausing
        assert [one.attempt for one in await other.running()] == [new.data["attempt"]]
        assert await acting is None

    async def test_a_frozen_owner_holds_nobody_up(self, place: Place, cut: Journal, proxy: TcpProxy) -> None:
        """Stopped inside the transaction that holds the lock: the server ends it, the other goes on, one acts."""
        other = await place.open("other")
        mine, theirs = await opened(cut, "mine"), await opened(other, "theirs")
        hold = proxy.hold_on(COMMIT)
        frozen = asyncio.create_task(
            cut.intend(intent(mine, 2, await cut.now()), runbook=BOOK, resource=RESOURCE, decide=once)
        )
        await held(hold)
        start = time.monotonic()
        new = intent(theirs, 2, await other.now())
        assert await other.intend(new, runbook=BOOK, resource=RESOURCE, decide=once) is None
        assert time.monotonic() - start < 6.0
        hold.release()
        assert await frozen is not None
        assert len(await other.running()) == 1

    async def test_one_frozen_inside_a_statement_holds_nobody_up(self, place: Place, database: Database) -> None:
        """Between preparing a statement and running it, PostgreSQL does not call its session idle: the others end it."""
        journal = await place.open()
        episode = await opened(journal)
        name = {"application_name": "prep-remediator frozen"}
        frozen = await asyncpg.connect(database.dsn(), server_settings={**SESSION, **name})
        try:
            await frozen.execute("begin")
            await frozen.execute(f"select pg_advisory_xact_lock({INTENT_LOCK})")
            await frozen.prepare("select 1")
            with pytest.raises(JournalError):
                await journal.intend(
                    intent(episode, 2, await journal.now()), runbook=BOOK, resource=RESOURCE, decide=allow
                )
            assert not frozen.is_closed(), "nobody else would end it"
            await journal.relieve()
            new = intent(episode, 2, await journal.now())
            assert await journal.intend(new, runbook=BOOK, resource=RESOURCE, decide=allow) is None
            assert frozen.is_closed()
        finally:
            frozen.terminate()

    async def test_intake_waits_for_no_lock(self, place: Place, cut: Journal, proxy: TcpProxy) -> None:
        """Deliveries are stored while somebody holds the intent's lock."""
        other = await place.open("other")
        episode = await opened(cut)
        hold = proxy.hold_on(COMMIT)
        acting = asyncio.create_task(
            cut.intend(intent(episode, 2, await cut.now()), runbook=BOOK, resource=RESOURCE, decide=allow)
        )
        await held(hold)
        async with asyncio.timeout(1.0):
            await other.store([("delivery", delivery("k"))])
        hold.release()
        await acting


class TestWakeUps:
    """Nothing that came is forgotten, in whatever order the replicas' transactions end."""

    async def test_a_release_and_an_alert_at_the_same_moment(self, place: Place) -> None:
        """Whichever is first, the episode is due now."""
        a, b = await place.open("a"), await place.open("b")
        episode = await opened(a)
        for turn in range(40):
            await b.store([("delivery", delivery("k"))])
            await asyncio.gather(b.route(split), self.later(a.release(episode, await a.now() + 3000), turn))
            row = await a.episode(episode)
            assert row is not None
            assert row.due_at is not None
            assert row.due_at <= await a.now()
            assert [claim.episode for claim in await a.claim(1)] == [episode]
            await a.append([], takes=[one.id for one in await a.inbox(episode)])

    async def test_a_close_and_an_alert_at_the_same_moment(self, place: Place) -> None:
        """Either the close is refused, or the alert opens a new episode: no alert is left in a closed one."""
        a, b = await place.open("a"), await place.open("b")
        outcomes = set()
        for turn in range(40):
            episode = await opened(a, f"k{turn}")
            await b.store([("delivery", delivery(f"k{turn}"))])
            closing = a.append([event(episode, 2, Kind.CLOSED)], close=True)
            answers = await asyncio.gather(b.route(split), self.later(closing, turn), return_exceptions=True)
            outcomes.add(type(answers[1]))
            [now_open] = [row for row in await a.open_episodes() if row.key == f"k{turn}"]
            assert len(await a.inbox(now_open.episode)) == 1
            assert now_open.due_at is not None
            assert (now_open.episode == episode) == (answers[1] is not None)
        assert outcomes <= {type(None), Conflict}

    async def later(self, call: Awaitable[object], turn: int) -> object:
        """Begin a little later, another little in each turn."""
        await asyncio.sleep(0.0002 * turn)
        return await call

    async def test_three_replicas_under_load(self, place: Place) -> None:
        """Intake, routing, claims, renewals, sweeps and closes at random: no error, each alert taken once."""
        journals = [await place.open(f"r{number}", lease=1.0) for number in range(3)]
        stored = 240
        taken: list[int] = []

        async def bring(journal: Journal, seed: int) -> None:
            draw = random.Random(seed)
            for turn in range(stored // 3 // 4):
                first = (1 + seed) * stored + 4 * turn  # no two say the same: the same word twice in a row is told once
                bodies = [delivery(f"k{draw.randrange(6)}", number=first + each) for each in range(4)]
                await journal.store([("delivery", body) for body in bodies])
                await journal.route(split)

        async def work(journal: Journal, seed: int) -> None:
            draw = random.Random(seed)
            while len(taken) < stored:
                await journal.route(split)
                for claim in await journal.claim(2):
                    await self.drive(journal, claim, draw, taken)
                await journal.renew()
                if draw.random() < 0.1:
                    await journal.sweep()
                await asyncio.sleep(0.001)

        async with asyncio.timeout(60):
            await asyncio.gather(
                *(bring(journal, seed) for seed, journal in enumerate(journals)),
                *(work(journal, 10 + seed) for seed, journal in enumerate(journals)),
            )
        assert len(taken) == len(set(taken)) == stored
        for row in await journals[0].open_episodes():
            assert await journals[0].inbox(row.episode) == []

    async def drive(self, journal: Journal, claim: Claim, draw: random.Random, taken: list[int]) -> None:
        """One claim as an engine does it; a Conflict gives the plan up."""
        rows = [row.id for row in await journal.inbox(claim.episode)]
        seq = len(await journal.events(claim.episode)) + 1
        kind = Kind.OPENED if seq == 1 else Kind.OBSERVED
        if rows:
            await journal.append([event(claim.episode, seq, kind)], takes=rows, index=EpisodeIndex(BOOK, "P2"))
            taken += rows
            seq += 1
        try:
            if seq > 1 and draw.random() < 0.4:
                await journal.append([event(claim.episode, seq, Kind.CLOSED)], close=True)
                return
        except Conflict:
            pass
        await journal.release(claim.episode, await journal.now() + 1000)


class TestServer:
    """A server of the test's own, which may be stopped, promoted and configured."""

    @pytest.fixture
    def server(self, run: Run) -> Iterator[PostgresServer]:
        server = PostgresServer(run).start()
        try:
            yield server
        finally:
            server.stop()

    @pytest.fixture
    async def place(self, server: PostgresServer, tmp_path: Path) -> AsyncIterator[Place]:
        place = Place(server.fresh_database().dsn(), tmp_path)
        yield place
        for journal in place.opened:
            await journal.close(clean=False)

    async def test_sessions_are_bounded_but_commit_is_not(self, place: Place) -> None:
        """What the design asks of every journal session, as the server itself shows it."""
        journal = await place.open()

        def shown(tx: Tx) -> dict[str, str]:
            names = ["synchronous_commit", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
            names.append("transaction_isolation")
            return {name: tx.run(text(f"SHOW {name}")).scalar_one() for name in names}

        assert await journal._store.read(shown) == {
            "synchronous_commit": "on",
            "statement_timeout": "0",
            "lock_timeout": "2s",
            "idle_in_transaction_session_timeout": "2s",
            "transaction_isolation": "read committed",
        }

    async def test_a_restart_of_the_server_is_survived(self, place: Place, server: PostgresServer) -> None:
        """While it is away calls fail and nothing is half written; then they work again by themselves."""
        journal = await place.open()
        episode = await opened(journal)
        await asyncio.gather(*(journal.facts("e", BOOK, None) for _ in range(4)))
        await asyncio.to_thread(server.stop)
        with pytest.raises(JournalError):
            await journal.append([event(episode, 2, Kind.REFUSED)])
        with pytest.raises(JournalError):
            await journal.now()
        await asyncio.to_thread(server.start)
        await journal.append([event(episode, 2, Kind.REFUSED)])
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await asyncio.gather(*(journal.facts("e", BOOK, None) for _ in range(8)))
        assert len(await journal.events(episode)) == 2

    async def test_a_commit_that_only_the_primary_has_is_not_acknowledged(
        self, place: Place, server: PostgresServer
    ) -> None:
        """Cancelled while it waits for its standby, PostgreSQL says COMMIT with a WARNING: that is unknown."""
        journal = await place.open()
        episode = await opened(journal)
        server.configure(synchronous_standby_names="nobody")
        waiting = "wait_event = 'SyncRep'"

        async def commit_waits() -> bool:
            return bool(await asyncio.to_thread(server.backends, waiting))

        await asyncio.sleep(0.2)
        new = event(episode, 2, Kind.REFUSED)
        task = asyncio.create_task(journal.append([new]))
        await until(commit_waits, "COMMIT to wait for a standby")
        [first] = server.backends(waiting)
        server.sql(f"select pg_cancel_backend({first})")

        async def tried_again() -> bool:
            found = await asyncio.to_thread(server.backends, waiting)
            return bool(found) and first not in found

        await until(tried_again, "the second try to wait for the standby as well")
        assert not task.done()
        server.configure(synchronous_standby_names="")
        await task
        assert [one.id for one in await journal.events(episode)][1:] == [new.id]

    async def test_a_standby_that_no_commit_waits_for_is_refused_or_told(
        self, place: Place, server: PostgresServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """At start, also to a role that sees little; one for which COMMIT waits is what a journal should have."""
        await (await place.open("alone", async_standby="refuse")).close()
        server.role("journal", "journal")
        server.sql(
            f"grant all on schema public to journal; alter database {place.url.rsplit('/', 1)[1]} owner to journal"
        )
        replica = await asyncio.to_thread(server.replica)
        try:
            for url in (place.url, place.url.replace(f"{SUPERUSER}:{PASSWORD}", "journal:journal")):
                with pytest.raises(JournalError, match=rf"standby \({replica.folder.name}\).*async_standby"):
                    await place.open("refused", url=url, async_standby="refuse")
            capsys.readouterr()
            await (await place.open("told")).close()
            assert f"standby ({replica.folder.name})" in capsys.readouterr().out
            server.configure(synchronous_standby_names=f'"{replica.folder.name}"')
            await asyncio.sleep(0.3)
            await (await place.open("waits", async_standby="refuse")).close()
            place.opened.clear()
        finally:
            server.configure(synchronous_standby_names="")
            await asyncio.to_thread(replica.stop)

    async def test_a_standby_that_is_added_later_is_told_and_stops_what_refuses_it(
        self, place: Place, server: PostgresServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nobody restarts anything for it: told once, nothing is begun where it is refused, and all goes on without it."""
        teller, refuser = await place.open("teller"), await place.open("refuser", async_standby="refuse")
        for journal in (teller, refuser):
            await journal.look_for_standbys()
        assert "standby" not in capsys.readouterr().out
        assert await held_off(teller) is False
        replica = await asyncio.to_thread(server.replica)
        try:
            for journal in (teller, refuser, teller):
                await journal.look_for_standbys()
            assert capsys.readouterr().out.count(f"standby ({replica.folder.name})") == 2
            assert await held_off(teller) is False
            assert await held_off(refuser) is True
            assert replica.folder.name in refuser.hold_off_why
            server.configure(synchronous_standby_names=f'"{replica.folder.name}"')
            await asyncio.sleep(0.3)
            clock = refuser._clock
            assert isinstance(clock, ShiftedClock)
            clock.boot += STANDBY_HOLD + 1
            await refuser.look_for_standbys()
            assert await held_off(refuser) is False
        finally:
            server.configure(synchronous_standby_names="")
            await asyncio.to_thread(replica.stop)

    async def test_a_promoted_standby_stops_everything(self, place: Place, server: PostgresServer) -> None:
        """Another timeline answers: nothing begins until people have resumed it, also after a restart."""
        journal = await place.open("a")
        episode = await opened(journal)
        replica = await asyncio.to_thread(server.replica)
        try:
            await asyncio.to_thread(replica.wait_caught_up)
            await journal.close()
            place.opened.clear()
            await asyncio.to_thread(replica.promote)
            moved = place.url.replace(f":{server.port}/", f":{replica.port}/")
            promoted = await place.open("a", url=moved)
            assert "timeline" in (await promoted.facts(episode, BOOK, RESOURCE)).paused[0]
            await promoted.heartbeat("auto")
            facts = await promoted.facts(episode, BOOK, RESOURCE)
            assert "lost events" in facts.paused[0]
            assert facts.hold_off_until is not None
            [pause] = await promoted.pauses()
            assert (pause.scope, pause.who, pause.until) == ("all", "journal", None)
            await promoted.close()
            again = await place.open("a", url=moved)
            assert len((await again.facts(episode, BOOK, RESOURCE)).paused) == 1
            await again.heartbeat("auto")
            assert await again.resume(pause.id, "ann") is True
            assert (await again.facts(episode, BOOK, RESOURCE)).paused == ()
            await again.close()
            place.opened.clear()
        finally:
            await asyncio.to_thread(replica.stop)

    async def test_a_forgotten_event_stops_everything(self, place: Place, server: PostgresServer) -> None:
        """A restored backup lacks the last acknowledged event."""
        journal = await place.open("a")
        episode = await opened(journal)
        await journal.close()
        place.opened.clear()
        name = place.url.rsplit("/", 1)[1]
        server.sql(f'create database restored template "{name}"')
        journal = await place.open("a")
        last = event(episode, 2, Kind.REFUSED)
        await journal.claim(1)
        await journal.append([last])
        await journal.close()
        place.opened.clear()
        restored = await place.open("a", url=place.url.replace(f"/{name}", "/restored"))
        facts = await restored.facts(episode, BOOK, RESOURCE)
        [phrase] = facts.paused
        assert last.id in phrase
        assert last.id in facts.regressed
        await restored.heartbeat("auto")  # the pause is in the tables now, for every replica
        [number] = [pause.id for pause in await restored.pauses()]
        assert last.id in (await restored.facts(episode, BOOK, RESOURCE)).regressed
        await restored.resume(number, "a person")
        assert (await restored.facts(episode, BOOK, RESOURCE)).regressed == ""


async def test_a_taken_over_episode_is_the_new_owners(place: Place) -> None:
    """A stale owner's close and release change nothing."""
    a, b = await place.open("a", lease=0.2), await place.open("b")
    episode = await alert(a)
    await claimed(b)
    new = event(episode, 1, Kind.OPENED)
    with pytest.raises(Conflict):
        await a.append([new, replace(event(episode, 2, Kind.CLOSED))], close=True)
    await a.release(episode, 0.0)
    assert await b.events(episode) == []
    await b.append([event(episode, 1, Kind.OPENED)], takes=[row.id for row in await b.inbox(episode)])


class TestSeals:
    """Over all replicas there is one chain."""

    async def test_replicas_seal_in_turns(self, place: Place) -> None:
        """One chain over all of them, also when they seal at the same moment."""
        replicas = [await place.open(f"r{n}") for n in range(3)]
        for n in range(6):
            await opened(replicas[n % 3], f"k{n}")
            await asyncio.gather(*(each.seal() for each in replicas))
        assert await replicas[0].verify() == []
        assert await replicas[0].unsealed() == 0
        heads = {each.sealed.number for each in replicas if each.sealed is not None}
        assert await replicas[0].seal_of(max(heads)) is not None
        assert await replicas[0].seal_of(max(heads) + 1) is None


class TestRollingUpgrade:
    """Replicas of two versions at once. The newer one is its migration; the program is the same."""

    async def test_a_running_replica_of_the_version_before_goes_on(self, place: Place, tmp_path: Path) -> None:
        """Its claims, intents, outcomes and intake hold while the tables grow under it, and a second of it starts."""
        old = await place.open("old", lease=60.0)
        episode, attempt = await acted(old, "k")
        other = await opened(old, "other")
        newer = await place.open("newer")
        await newer._store.write(lambda tx: migrate(tx, next_version(tmp_path, "0005", oldest="0005")))
        await old.outcome(event(episode, 3, Kind.OUTCOME, await old.now(), attempt=attempt, result="done"))
        new = intent(other, 2, await old.now(), resource="docker:shop/other")
        assert await old.intend(new, runbook=BOOK, resource="docker:shop/other", decide=allow) is None
        again = await place.open("old again")
        await again.store([("delivery", delivery("later"))])
        assert len(await old.take_in(split, 1)) == 1
        await old.renew()
        assert not await again.claim(10), "leases hold over versions"
        assert (await again.verify()) == []
