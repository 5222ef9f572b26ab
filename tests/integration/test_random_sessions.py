"""300 random sessions on a real PostgreSQL: only readers are ended, each as it was looked at, by the server's own log.

What may be ended is known here by how a session was made, never by asking the code that is tested. Seeded: the seed
stands in every message, and PREP_SESSIONS_SEED replays a run.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from remediator.actions.base import Preview, Result
from remediator.actions.cancel_query import CancelQuery
from remediator.actions.ending_query import EndingQuery
from remediator.actions.terminate_query import TerminateQuery
from remediator.settings import Settings
from tests.integration.adapting import CLOCK, call_of
from tests.integration.test_end_query import READER, ROLES, database_settings
from tests.support.postgres import PASSWORD, SUPERUSER, Session, server_program
from tests.support.servers import PostgresServer, Run, wait_until

SESSIONS = 300
SEED = int(os.environ.get("PREP_SESSIONS_SEED", "0")) or 20261128
MIN_AGE = 0.2
_ENDED = re.compile(
    r"\[(\d+)\] .*(canceling statement due to user request|terminating connection due to administrator command)"
)
# `until(k)` reads until a flag is raised, and then: ends, so that the session goes on with what comes next, or writes.
_FUNCTIONS = """
create table t (n int); insert into t values (1);
create table flags (k int); create index on flags (k);
create or replace function until(k int, pause float8, then_write bool) returns int language plpgsql as $$ begin
  while not exists (select from flags f where f.k = until.k) loop
    if pause > 0 then perform pg_sleep(pause); else perform sum(g) from generate_series(1, 20000) g; end if;
  end loop;
  if then_write then
    insert into t values (7);
    loop if pause > 0 then perform pg_sleep(pause); else perform sum(g) from generate_series(1, 20000) g; end if; end loop;
  end if;
  return 1;
end $$;
grant all on t to prep_app; grant select on flags to public;
create table dead (n int) with (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1,
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1);
insert into dead select generate_series(1, 200000); delete from dead;
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a session is made. `may`: a reading query of an ordinary client; `later`: what it does when its flag is raised."""

    name: str
    text: str
    user: str = "prep_app"
    application: str = "load"
    may: bool = False
    later: str = ""


READS = "{reads}"
SLOW_VACUUM = """create table slow_{k} (n int) with (autovacuum_enabled = off);
insert into slow_{k} select generate_series(1, 20000); delete from slow_{k};
set vacuum_cost_delay = 100; set vacuum_cost_limit = 1; vacuum slow_{k}"""
KINDS = (
    Kind("reader", READS, may=True),
    Kind("reader in a transaction", "begin; select count(*) from t; {reads}", may=True),
    Kind("another query follows", "select until({k}, {pause}, false);\n{reads}", may=True, later="changes"),
    Kind("leaves", "select until({k}, {pause}, false);\n\\q", may=True, later="leaves"),
    Kind("writes later", "begin; select until({k}, {pause}, true)", may=True, later="writes"),
    Kind("has written", "begin; update t set n = n where n = -1; insert into t values (2); {reads}"),
    Kind("idle in transaction", "begin; select 1"),
    Kind("idle in transaction, has written", "begin; insert into t values (3)"),
    Kind("idle", "select 1"),
    Kind("waits", "select pg_sleep(60)"),
    Kind("backup", READS, application="pg_dump"),
    Kind("base backup's client", READS, application="PG_BASEBACKUP by cron"),
    Kind("migration", READS, application="alembic"),
    Kind("migration by psql", READS, application="psql-migration 42"),
    Kind("pooler", READS, application="PgBouncer"),
    Kind("replication role", READS, user="replicator", application="walreceiver"),
    Kind("exporter", READS, user="prep_exporter", application="prep-exporter"),
    Kind("superuser", READS, user=SUPERUSER),
    Kind("copy", "copy ({reads}) to stdout"),
    Kind("vacuum", SLOW_VACUUM, user=SUPERUSER),
)


@dataclass(slots=True)
class Made:
    """One session of a round. `reads`: it may be ended as long as nothing has changed."""

    kind: Kind
    session: Session
    flag: int
    reads: bool


@pytest.fixture
def server(run: Run) -> Iterator[PostgresServer]:
    options = {
        "max_parallel_workers_per_gather": "0",
        "client_connection_check_interval": "50ms",
        "autovacuum_naptime": "1s",
        "max_connections": "100",
    }
    server = PostgresServer(run, options, name="crowd").start()
    for role, grants in ROLES.items():
        server.role(role, role, *grants)
    server.role("replicator", "replicator")
    server.sql(f"alter role replicator replication; {_FUNCTIONS}")
    yield server
    server.stop()


class Round:
    """Some sessions side by side, one look, changes, one effect, and what the server's log says of it."""

    def __init__(self, server: PostgresServer, config: Settings, dice: random.Random, number: int) -> None:
        self.server, self.config, self.dice, self.number = server, config, dice, number
        self.on_cpu = number % 6 == 0
        self.made: list[Made] = []

    def begin(self, stack: ExitStack, count: int) -> None:
        """Make the sessions, and wait until each that reads has done so for longer than asked."""
        for index in range(count):
            kind = self.dice.choice(KINDS if index % 2 else KINDS[:5])
            flag = self.number * 1000 + index
            reads = READER if self.on_cpu else "select pg_sleep(60)"
            text = kind.text.format(reads=reads, k=flag, pause=0 if self.on_cpu else 0.02)
            password = PASSWORD if kind.user == SUPERUSER else kind.user
            session = stack.enter_context(
                self.server.session(
                    f"\\set ON_ERROR_STOP 0\n{text}", user=kind.user, password=password, application=kind.application
                )
            )
            self.made.append(Made(kind, session, flag, kind.may or (kind.name == "waits" and not self.on_cpu)))
        pids = ",".join(str(each.session.pid) for each in self.made if "idle" not in each.kind.name)
        old = f"clock_timestamp() - query_start > interval '{MIN_AGE + 0.1} s' and state = 'active'"
        wait_until(
            lambda: len(self.server.backends(f"pid in ({pids or '0'}) and {old}")) == len(pids.split(",")) or not pids,
            f"round {self.number}: the sessions to be at work",
            20,
            0.05,
            seen=lambda: self.story(str(self.server.sql("select pid, state, query from pg_stat_activity"))),
        )

    async def act(self, kind: type[EndingQuery]) -> tuple[set[int], set[int]]:
        """(pids that were to be ended, pids that the server's log says were ended)."""
        action, since = kind(self.config, CLOCK), len(self.server.log_text())
        params = {"service": "postgres", "min_age": MIN_AGE, "max_queries": self.dice.randint(1, 8)}
        params["on_cpu"] = self.on_cpu
        found = await action.preview(action.params_model.model_validate(params))
        chosen = [item["pid"] for item in found.items]
        able = {each.session.pid for each in self.made if each.reads}
        assert set(chosen) <= able, self.story(f"chosen {chosen}")
        if not self.on_cpu:  # on a busy machine a reader may truly wait for something in one of the samples
            assert len(chosen) == min(len(able), int(params["max_queries"])), self.story(f"chosen {chosen} of {able}")
        changed = self.change(chosen)
        found, reused = self.reuse(found)
        outcome = await action.execute(call_of(action, found, params, attempt=uuid4().hex))
        wanted = set(chosen) - changed - reused
        assert {item["pid"] for item in outcome.touched} == wanted, self.story(outcome.detail)
        told = {int(pid) for pid in re.findall(r"\d+", outcome.detail.partition("since the look: pid")[2])}
        assert told == set(chosen) - wanted, self.story(f"the difference is not said: {outcome.detail}")
        assert outcome.result is (Result.DONE if wanted else Result.FAILED), self.story(outcome.detail)
        logged = lambda: {int(pid) for pid, _ in _ENDED.findall(self.server.log_text()[since:])}  # noqa: E731
        wait_until(lambda: wanted <= logged(), self.story("the server to log them"), 10, 0.02)
        time.sleep(0.05)  # what would come too much comes now
        return wanted, logged()

    def change(self, chosen: list[int]) -> set[int]:
        """Some of the chosen go on to something else between look and action; the pids of those."""
        going = [
            each for each in self.made if each.session.pid in chosen and each.kind.later and self.dice.random() < 0.6
        ]
        if not going:
            return set()
        before = self.starts(going)
        self.server.sql("insert into flags values " + ",".join(f"({each.flag})" for each in going))
        wait_until(lambda: all(self.went(each, before) for each in going), self.story("them to go on"), 20, 0.03)
        return {each.session.pid for each in going}

    def went(self, each: Made, before: dict[int, tuple[str, str]]) -> bool:
        now, pid = self.starts([each]), each.session.pid
        if each.kind.later == "leaves":
            return pid not in now
        return pid in now and (now[pid][0] != before[pid][0] if each.kind.later == "changes" else now[pid][1] == "t")

    def starts(self, of: list[Made]) -> dict[int, tuple[str, str]]:
        """pid -> (query_start, has it written)."""
        pids = ",".join(str(each.session.pid) for each in of)
        query = (
            "select pid, query_start, backend_xid is not null from pg_stat_activity where state = 'active' and pid in"
        )
        return {int(row[0]): (row[1], row[2]) for row in self.server.sql(f"{query} ({pids})")}

    def reuse(self, found: Preview) -> tuple[Preview, set[int]]:
        """Now and then a pid is another session's by now: its item tells of a former life."""
        items, reused = list(found.items), set()
        for place, item in enumerate(items):
            if self.dice.random() < 0.15:
                items[place] = {**item, "backend_start": "2026-01-01T00:00:00.000000Z"}
                reused.add(int(item["pid"]))
        return replace(found, items=tuple(items)), reused

    def story(self, what: str) -> str:
        sessions = ", ".join(f"{each.session.pid} {each.kind.name}" for each in self.made)
        return f"seed {SEED}, round {self.number}, on_cpu {self.on_cpu}: {what}; {sessions}"


@pytest.mark.timeout(300)
async def test_only_the_right_ones_of_300_random_sessions_are_ended(
    run: Run, server: PostgresServer, tmp_path: Path
) -> None:
    """The log names exactly the readers that were chosen and had not changed; replication and autovacuum run on."""
    config, dice, number, seen = database_settings(tmp_path, server.port), random.Random(SEED), 0, Counter[str]()
    stream = [server_program("pg_receivewal"), "-D", str(run.folder("wal")), "-d", server.dsn(None), "--no-loop"]
    receiver = subprocess.Popen(stream, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        standing = (
            "select pid from pg_stat_activity where backend_type in ('walsender', 'autovacuum worker') order by 1"
        )
        wait_until(lambda: len(server.sql(standing)) == 2, "a stream and an autovacuum", 20, 0.1)
        before = server.sql(standing)
        while sum(seen[kind.name] for kind in KINDS) < SESSIONS:
            with ExitStack() as stack:
                each = Round(server, config, dice, number)
                each.begin(stack, 6 if each.on_cpu else 16)
                wanted, ended = await each.act(dice.choice((CancelQuery, TerminateQuery)))
                assert ended == wanted, each.story(f"to be ended {wanted}, by the log {ended}")
                seen.update(made.kind.name for made in each.made)
                seen["ended"] += len(ended)
            wait_until(lambda: not server.backends("pid <> pg_backend_pid()"), each.story("them to go"), 15, 0.05)
            number += 1
        assert server.sql(standing) == before, "replication and autovacuum were touched"
        everything = {int(pid) for pid, _ in _ENDED.findall(server.log_text())}
        assert not everything & {int(row[0]) for row in before}
    finally:
        receiver.kill()
        receiver.wait()
    print(f"seed {SEED}: {sum(seen[kind.name] for kind in KINDS)} sessions, {seen['ended']} ended, {number} rounds")
    assert set(seen) == {kind.name for kind in KINDS} | {"ended"}
    assert seen["ended"] > 30
