"""Cancelling and terminating queries on a real PostgreSQL: the reader goes, everybody else stays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remediator.actions.base import Action, Preview, Result, Settlement
from remediator.actions.cancel_query import CancelQuery
from remediator.actions.ending_query import EndingQuery
from remediator.actions.terminate_query import TerminateQuery
from remediator.errors import Permanent, Transient
from remediator.reasons import Reason
from remediator.settings import Settings
from tests.integration.adapting import ATTEMPT, CLOCK, call_of, settings
from tests.support.postgres import Session
from tests.support.servers import PostgresServer, Run, free_port, wait_until
from tests.support.tcp_proxy import TcpProxy

# In the select list the numbers are streamed. In FROM they are stored first, and the session then waits for its disk:
# now and then it would, truly, not be on the CPU.
READER = "select count(*) from (select generate_series(1, 9000000000000000) as a) as numbers where a % 7 = 3"
PARAMS = {"service": "postgres", "min_age": 0.3}
ROLES = {
    "prep_app": (),
    "prep_exporter": ("pg_monitor",),
    "prep_remediator": ("pg_read_all_stats", "pg_signal_backend"),
}


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[PostgresServer]:
    """A server of this module's own with the platform's roles: tests crash it and read its log."""
    # A killed psql's query would run on: the server looks for its client only when asked to (manual, 20.3.2).
    options = {"max_parallel_workers_per_gather": "0", "client_connection_check_interval": "50ms"}
    server = PostgresServer(run, options, name="queries").start()
    for role, grants in ROLES.items():
        server.role(role, role, *grants)
    server.role("replicator", "replicator")
    server.sql(
        "alter role replicator replication; create table t(n int); insert into t values (1); grant all on t to prep_app"
    )
    yield server
    server.stop()


@pytest.fixture
def config(server: PostgresServer, tmp_path: Path) -> Settings:
    return database_settings(tmp_path, server.port)


def database_settings(folder: Path, port: int, user: str = "prep_remediator") -> Settings:
    (folder / "password").write_text(f"{user}\n")
    entry = {"host": "127.0.0.1", "port": port, "database": "postgres", "user": user, "timeout": "3s"}
    return settings(folder, databases={"postgres": {**entry, "password_file": folder / "password"}})


@pytest.fixture
def clients(server: PostgresServer) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(server, stack)
    wait_until(lambda: not server.backends("pid <> pg_backend_pid()"), "the test's sessions to end", 10)


class Clients:
    """Sessions of the test, ended with it."""

    def __init__(self, server: PostgresServer, stack: ExitStack) -> None:
        self._server = server
        self._stack = stack

    def run(self, text: str = READER, user: str = "prep_app", application: str = "load") -> Session:
        """A session that runs `text`, seen active by the server for longer than `min_age`; errors do not end it."""
        text = f"\\set ON_ERROR_STOP 0\n{text}"
        password = "superuser-of-the-tests" if user == "postgres" else user
        session = self._stack.enter_context(
            self._server.session(text, user=user, password=password, application=application)
        )
        old = f"pid = {session.pid} and state = 'active' and clock_timestamp() - query_start > interval '0.4s'"
        wait_until(lambda: self._server.backends(old), f"session {session.pid} to work", 10)
        return session


async def preview(action: Action, **params: Any) -> Preview:
    return await action.preview(action.params_model.model_validate({**PARAMS, **params}))


def reasons(found: Preview) -> list[Reason]:
    return [refusal.reason for refusal in found.refusals]


async def test_cancel_ends_the_reader_and_nothing_else(
    server: PostgresServer, config: Settings, clients: Clients
) -> None:
    """The reader's query is cancelled, its session stays, no other session is touched, and the log names us."""
    reader, writer = clients.run(), clients.run("begin; update t set n = n; select pg_sleep(60)")
    other = server.backends(f"application_name = 'load' and pid <> {reader.pid}")
    action = CancelQuery(config, CLOCK)
    began = time.monotonic()
    found = await preview(action)
    assert time.monotonic() - began < 1.0  # some 250 ms on an idle machine
    assert [item["pid"] for item in found.items] == [reader.pid]
    assert found.resource == f"pg:{server.system_identifier}"
    assert found.refusals == ()
    assert [(item["pid"], item["reason"]) for item in found.left_out] == [(writer.pid, Reason.QUERY_HAS_WRITTEN)]
    outcome = await action.execute(call_of(action, found, PARAMS))
    assert outcome.result is Result.DONE, outcome.detail
    assert outcome.touched == found.items
    assert reader.connected
    assert not server.backends(f"pid = {reader.pid} and state = 'active'")
    assert server.backends(f"application_name = 'load' and pid <> {reader.pid}") == other == [writer.pid]
    assert server.log_text().count("canceling statement due to user request") == 1


async def test_items_hold_no_literal_of_the_query(config: Settings, clients: Clients) -> None:
    """The journal gets an identity and a digest of the statement's shape, never its text."""
    canary = "anna@example.org"
    clients.run(f"select count(*) from (select generate_series(1, 9000000000000000) a) n where a::text = '{canary}'")
    found = await preview(CancelQuery(config, CLOCK))
    assert len(found.items) == 1
    assert canary not in repr(found)
    assert len(found.items[0]["statement"]) == 16


async def test_a_writer_is_refused_by_name(server: PostgresServer, config: Settings, clients: Clients) -> None:
    """A query whose transaction has written is left alone, also when it only reads now."""
    writer = clients.run(f"begin; update t set n = n; {READER}")
    found = await preview(CancelQuery(config, CLOCK))
    assert found.items == ()
    assert reasons(found) == [Reason.QUERY_HAS_WRITTEN]
    assert server.backends(f"pid = {writer.pid} and state = 'active'")


@pytest.mark.parametrize(
    ("user", "application"),
    [
        ("replicator", "walreceiver"),
        ("prep_exporter", "prep-exporter"),
        ("postgres", "psql"),
        ("prep_app", "pg_dump"),
        ("prep_app", "PG_Basebackup by cron"),
        ("prep_app", "alembic"),
        ("prep_app", "PgBouncer"),
    ],
)
async def test_protected_clients_are_refused_by_name(
    config: Settings, clients: Clients, user: str, application: str
) -> None:
    """Replication, backup, migration, exporter, superuser and pooler sessions are never ended."""
    clients.run(user=user, application=application)
    found = await preview(CancelQuery(config, CLOCK))
    assert found.items == ()
    assert reasons(found) == [Reason.QUERY_PROTECTED]


async def test_a_job_with_progress_is_refused_by_name(
    server: PostgresServer, config: Settings, clients: Clients
) -> None:
    """A COPY out of the database, as a backup does it, is in a pg_stat_progress view and stays."""
    copy = clients.run(f"copy ({READER}) to stdout")
    assert server.sql("select pid from pg_stat_progress_copy") == [[str(copy.pid)]]
    found = await preview(CancelQuery(config, CLOCK))
    assert found.items == ()
    assert reasons(found) == [Reason.QUERY_PROTECTED]


async def test_base_backup_is_refused_and_an_idle_stream_is_no_long_query(
    run: Run, server: PostgresServer, config: Settings
) -> None:
    """A standby's stream is always "active": it is neither ended nor taken for a long query."""
    replica = server.replica(name="standby")
    try:
        wait_until(lambda: server.sql("select 1 from pg_stat_replication where state = 'streaming'"), "a stream", 10)
        await asyncio.sleep(0.5)
        found = await preview(CancelQuery(config, CLOCK))
        assert found.items == ()
        assert reasons(found) == [Reason.NOTHING_TO_DO]
        assert "replication" in found.left_out[0]["why"]
    finally:
        replica.stop()


async def test_what_waits_burns_no_cpu(config: Settings, clients: Clients) -> None:
    """The longest query is not the CPU hog: one that sleeps is left alone unless age alone is asked for."""
    sleeper = clients.run("select pg_sleep(60)")
    found = await preview(CancelQuery(config, CLOCK))
    assert reasons(found) == [Reason.NOTHING_TO_DO]
    assert found.left_out[0]["why"] == "not on the CPU: waits for Timeout/PgSleep"
    found = await preview(CancelQuery(config, CLOCK), on_cpu=False)
    assert [item["pid"] for item in found.items] == [sleeper.pid]


async def test_parallel_leader_counts_by_its_workers(
    server: PostgresServer, config: Settings, clients: Clients
) -> None:
    """A leader that waits for its workers burns CPU through them; the leader is the one that is ended."""
    server.sql(
        "create table if not exists big as select g as n from generate_series(1, 200000) g;"
        "grant select on big to prep_app; analyze big"
    )
    forced = (
        "set parallel_setup_cost=0; set parallel_tuple_cost=0; set min_parallel_table_scan_size=0;"
        "set max_parallel_workers_per_gather=2; set parallel_leader_participation=off;"
    )
    leader = clients.run(f"{forced} select count(*) from big a, big b where (a.n + b.n) % 7 = 3")
    if not server.sql(f"select 1 from pg_stat_activity where leader_pid = {leader.pid} and pid <> leader_pid"):
        pytest.fail("the server started no parallel worker")
    found = await preview(CancelQuery(config, CLOCK))
    assert [item["pid"] for item in found.items] == [leader.pid]


async def test_nothing_old_enough(config: Settings) -> None:
    """An empty selection selects nothing, and says so."""
    found = await preview(CancelQuery(config, CLOCK), min_age=600.0)
    assert (found.items, reasons(found)) == ((), [Reason.NOTHING_TO_DO])


async def test_at_most_max_queries_the_oldest_first(config: Settings, clients: Clients) -> None:
    """One a call by default; the rest is listed with the reason."""
    first, second = clients.run(), clients.run()
    found = await preview(CancelQuery(config, CLOCK))
    assert [item["pid"] for item in found.items] == [first.pid]
    assert [(item["pid"], item["why"]) for item in found.left_out] == [(second.pid, "at most 1 a call")]
    found = await preview(CancelQuery(config, CLOCK), max_queries=2)
    assert [item["pid"] for item in found.items] == [first.pid, second.pid]


async def test_missing_grants_are_a_refusal_with_the_grant_to_run(
    server: PostgresServer, clients: Clients, tmp_path: Path
) -> None:
    """A role that sees NULLs would take every writer for a reader: it may do nothing."""
    server.role("blind", "blind", "pg_signal_backend")
    clients.run()
    found = await preview(CancelQuery(database_settings(tmp_path, server.port, "blind"), CLOCK))
    assert found.items == ()
    assert reasons(found) == [Reason.TARGET_NOT_ALLOWED]
    assert "GRANT pg_read_all_stats TO blind;" in found.refusals[0].sentence


async def test_unknown_database_is_refused(config: Settings) -> None:
    """What the settings do not list cannot be acted on."""
    found = await preview(CancelQuery(config, CLOCK), service="postgres-replica")
    assert reasons(found) == [Reason.TARGET_NOT_ALLOWED]


@pytest.mark.parametrize("kind", [CancelQuery, TerminateQuery])
async def test_another_query_of_the_same_session_is_not_touched(
    server: PostgresServer, config: Settings, clients: Clients, kind: type[EndingQuery]
) -> None:
    """The pid is the same, the query another: nothing happens."""
    action = kind(config, CLOCK)
    session = clients.run()
    found = await preview(action)
    server.sql(f"select pg_cancel_backend({session.pid})")
    wait_until(lambda: server.backends(f"pid = {session.pid} and state = 'idle'"), "the first query to end", 5)
    session.run(f"{READER};")
    session.wait_active()
    outcome = await action.execute(call_of(action, found, PARAMS))
    assert outcome.result is Result.FAILED
    assert "changed or ended meanwhile" in outcome.detail
    assert server.backends(f"pid = {session.pid} and state = 'active'")


async def test_a_reused_pid_is_not_touched(server: PostgresServer, config: Settings, clients: Clients) -> None:
    """Same pid and query_start, another backend_start: nothing happens."""
    action = TerminateQuery(config, CLOCK)
    session = clients.run()
    found = await preview(action)
    other = ({**found.items[0], "backend_start": "2020-01-01T00:00:00.000000Z"},)
    outcome = await action.execute(call_of(action, replace(found, items=other), PARAMS))
    assert outcome.result is Result.FAILED
    assert server.backends(f"pid = {session.pid} and state = 'active'")


async def test_a_query_that_wrote_after_the_look_is_not_touched(
    server: PostgresServer, config: Settings, clients: Clients
) -> None:
    """The statement asks again for what the look had found: here the transaction writes in between, same query."""
    server.sql(
        "create or replace function later() returns int language plpgsql as $$ begin "
        "while not exists (select from t where n = 42) loop perform sum(g) from generate_series(1, 20000) g; end loop; "
        "insert into t values (7); loop perform sum(g) from generate_series(1, 20000) g; end loop; end $$"
    )
    action = CancelQuery(config, CLOCK)
    session = clients.run("begin; select later()")
    found = await preview(action)
    assert [item["pid"] for item in found.items] == [session.pid]
    server.sql("update t set n = 42")
    try:
        wait_until(lambda: server.backends(f"pid = {session.pid} and backend_xid is not null"), "it to write", 10)
        outcome = await action.execute(call_of(action, found, PARAMS))
        assert outcome.result is Result.FAILED
        assert server.backends(f"pid = {session.pid} and state = 'active'")
    finally:
        server.sql("update t set n = 1")


async def test_a_late_statement_does_nothing(server: PostgresServer, config: Settings, clients: Clients) -> None:
    """`start_by` is counted by the server's clock, inside the statement."""
    action = CancelQuery(config, CLOCK)
    session = clients.run()
    found = await preview(action)
    outcome = await action.execute(call_of(action, found, PARAMS, start_by=found.target_now - 0.001))
    assert outcome.result is Result.FAILED
    assert "past start_by" in outcome.detail
    assert server.backends(f"pid = {session.pid} and state = 'active'")


async def test_another_server_at_the_address_is_not_touched(config: Settings, clients: Clients) -> None:
    """A failover to another system between look and call: nothing is sent."""
    action = CancelQuery(config, CLOCK)
    clients.run()
    found = await preview(action)
    outcome = await action.execute(call_of(action, replace(found, resource="pg:1"), PARAMS))
    assert (outcome.result, outcome.touched) == (Result.FAILED, ())


async def test_terminate_takes_the_session(server: PostgresServer, config: Settings, clients: Clients) -> None:
    """The pid is gone by PostgreSQL's own word, and its log says who ended it."""
    action = TerminateQuery(config, CLOCK)
    session = clients.run()
    before = len(server.log_text())
    found = await preview(action)
    outcome = await action.execute(call_of(action, found, PARAMS))
    assert outcome.result is Result.DONE, outcome.detail
    assert "gone after" in outcome.detail
    assert not session.connected
    server.wait_log("terminating connection due to administrator command", since=before)


async def test_the_servers_log_names_the_attempt(server: PostgresServer, config: Settings, clients: Clients) -> None:
    """The session of the effect is named after the attempt, so PostgreSQL's log can be joined to the journal."""
    server.configure(log_statement="all")
    try:
        wait_until(lambda: server.value("show log_statement") == "all", "the setting", 5)
        action = CancelQuery(config, CLOCK)
        clients.run()
        before = len(server.log_text())
        found = await preview(action)
        await action.execute(call_of(action, found, PARAMS))
        server.wait_log(f"prep-remediator/{ATTEMPT}", since=before)
        server.wait_log(f"/* prep-remediator attempt {ATTEMPT} */", since=before)
    finally:
        server.configure(log_statement="none")


async def test_settling_reads_the_target(server: PostgresServer, config: Settings, clients: Clients) -> None:
    """Gone is done; the same query past start_by is not done; before start_by nobody knows."""
    action = CancelQuery(config, CLOCK)
    session = clients.run()
    found = await preview(action)
    early = await action.settle(call_of(action, found, PARAMS))
    assert early.settlement is Settlement.UNKNOWN
    late = call_of(action, found, PARAMS, start_by=found.target_now - 1.0)
    assert (await action.settle(late)).settlement is Settlement.NOT_DONE
    server.sql(f"select pg_cancel_backend({session.pid})")
    wait_until(lambda: server.backends(f"pid = {session.pid} and state = 'idle'"), "the query to end", 5)
    settled = await action.settle(late)
    assert settled.settlement is Settlement.DONE
    assert settled.evidence["still_running"] == []
    assert (await action.settle(replace(late, resource="pg:1"))).settlement is Settlement.UNKNOWN
    # A replica that was promoted answers by the same name and identifier, and has run for another time.
    elsewhere = tuple({**item, "server_started": "2025-01-01T00:00:00"} for item in late.items)
    assert (await action.settle(replace(late, items=elsewhere))).settlement is Settlement.UNKNOWN


async def test_a_session_of_the_attempt_under_way_keeps_the_doubt_open(
    server: PostgresServer, config: Settings, clients: Clients
) -> None:
    """While our own statement may still run at the server, "not done" is not said."""
    action = CancelQuery(config, CLOCK)
    clients.run()
    found = await preview(action)
    with server.session(
        "select pg_sleep(30)",
        user="prep_remediator",
        password="prep_remediator",
        application=f"prep-remediator/{ATTEMPT}",
    ):
        settled = await action.settle(call_of(action, found, PARAMS, start_by=found.target_now - 1.0))
        assert settled.settlement is Settlement.UNKNOWN


async def test_unreachable_before_sending_is_failed(config: Settings, clients: Clients, tmp_path: Path) -> None:
    """Nobody listens: the look is transient, the effect failed (nothing was sent), settling comes again later."""
    action = CancelQuery(config, CLOCK)
    clients.run()
    found = await preview(action)
    dead = CancelQuery(database_settings(tmp_path, free_port()), CLOCK)
    with pytest.raises(Transient):
        await preview(dead)
    call = call_of(dead, found, PARAMS)
    outcome = await dead.execute(call)
    assert outcome.result is Result.FAILED
    assert "Nothing was sent" in outcome.detail
    with pytest.raises(Transient):
        await dead.settle(call)


async def test_wrong_password_is_permanent(config: Settings, tmp_path: Path) -> None:
    """The server says no: asking again gives the same, and the message names no password."""
    (tmp_path / "password").write_text("wrong-canary")
    with pytest.raises(Permanent) as raised:
        await preview(CancelQuery(config, CLOCK))
    assert "wrong-canary" not in str(raised.value)


async def test_a_frozen_server_is_bounded_and_never_failed(run: Run, tmp_path: Path) -> None:
    """Frozen after the look, before the call: no answer within the deadline, and nothing worse than no connection."""
    own = PostgresServer(run, name="frozen").start()
    for role, grants in ROLES.items():
        own.role(role, role, *grants)
    action = CancelQuery(database_settings(tmp_path, own.port), CLOCK)
    with own.session(READER, user="prep_app", password="prep_app") as session:
        wait_until(
            lambda: own.backends(f"pid = {session.pid} and clock_timestamp() - query_start > interval '0.4s'"),
            "work",
            10,
        )
        found = await preview(action)
        with own.frozen():
            began = time.monotonic()
            with pytest.raises(Transient):
                await preview(action)
            outcome = await action.execute(call_of(action, found, PARAMS, deadline=1.0))
            assert outcome.result is Result.FAILED  # no connection was given: nothing was sent
            assert time.monotonic() - began < 6.0
    own.stop()


@pytest.mark.parametrize("executed", [False, True])
async def test_a_connection_lost_on_the_way(
    server: PostgresServer, config: Settings, clients: Clients, tmp_path: Path, executed: bool
) -> None:
    """Lost while the statement is prepared: failed. Lost with its answer: in doubt, then done by the server's word."""
    session = clients.run()
    with TcpProxy(server.port) as proxy:
        far = CancelQuery(database_settings(tmp_path, proxy.port), CLOCK)
        found = await preview(far)
        # The names of the columns come when it is prepared, the values once it was executed.
        awaited = found.items[0]["query_start"] if executed else "signalled"
        hold = proxy.hold_answer_on(awaited.encode())
        made = call_of(far, found, PARAMS)
        running = asyncio.ensure_future(far.execute(made))
        await asyncio.to_thread(hold.wait)
        hold.drop()
        outcome = await running
    assert outcome.result is (Result.IN_DOUBT if executed else Result.FAILED), outcome.detail
    late = replace(made, start_by=found.target_now - 1.0)
    settled = await CancelQuery(config, CLOCK).settle(late)
    assert settled.settlement is (Settlement.DONE if executed else Settlement.NOT_DONE)
    assert bool(server.backends(f"pid = {session.pid} and state = 'active'")) is not executed
