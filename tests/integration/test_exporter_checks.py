"""`--config.check` on real servers: what is missing there is named by the statement that mends it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from exporter.checks import check
from exporter.errors import Fault
from exporter.settings import parse
from exporter.yaml_file import Document
from tests.integration.exporter_parts import ROLE, ROLE_PASSWORD, platform
from tests.support.servers import Database, PostgresServer, RedisServer, Run, free_port

CURSORS = ("compliance", "payments", "security")


@dataclass
class Checked:
    """A platform's database, and a configuration for it."""

    database: Database
    folder: Path

    def text(self, **collectors: object) -> str:
        """The configuration; what is in `collectors` is laid over it."""
        secret = self.folder / "secret"
        secret.write_text(ROLE_PASSWORD)
        server = {"host": "127.0.0.1", "port": self.database.server.port, "database": self.database.name}
        server |= {"user": ROLE, "password_file": str(secret)}
        cursors = {name: {"state_file": str(self.folder / f"{name}.json")} for name in CURSORS}
        return yaml.safe_dump({"collectors": {"postgres": {"servers": {"postgres": server}}, **cursors, **collectors}})

    async def faults(self, **collectors: object) -> list[Fault]:
        text = self.text(**collectors)
        return await check(parse(text, "exporter.yml"), Document.read(text, "exporter.yml").where)

    def mend(self, faults: list[Fault]) -> None:
        """Run what the remedies say, to the letter."""
        for fault in faults:
            assert fault.remedy.startswith("run: "), fault
            self.database.sql(fault.remedy.removeprefix("run: "))


@pytest.fixture
async def checked(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Checked]:
    checked = Checked(platform(postgres_server), tmp_path)
    yield checked
    checked.database.drop()


async def test_the_demos_platform_is_good(checked: Checked) -> None:
    """Schema and grants as shipped: no fault, on empty tables and on full ones."""
    assert await checked.faults() == []
    checked.database.sql(
        "insert into payments (order_ref, amount_minor, currency, provider, method, status, created_at, finalized_at)"
        " select n, 1, 'usd', 'stripe', 'card', 'failed', now() - '1 d'::interval, now() - n * '1 s'::interval"
        " from generate_series(1, 60000) as n; analyze"
    )
    assert await checked.faults() == []


async def test_every_missing_index_is_told_with_its_statement(checked: Checked) -> None:
    """Without an index a query reads the whole table: refused, and the statement that is printed mends it."""
    dropped = (
        "compliance_checks_finished",
        "compliance_checks_pending",
        "payments_finalized",
        "payments_refunded",
        "payments_pending",
        "audit_log_logins",
        "users_locked",
    )
    checked.database.sql(f"drop index {', '.join(dropped)}")
    found = await checked.faults()
    statements = [
        re.findall(r"CREATE INDEX CONCURRENTLY IF NOT EXISTS (\w+) ON", each.remedy, re.IGNORECASE) for each in found
    ]
    assert sorted(name for names in statements for name in names) == sorted(dropped)
    assert all("would read the whole of" in each.what for each in found)
    assert {each.where.split(": ")[1] for each in found} == {f"collectors.{name}" for name in CURSORS}
    checked.mend(found)
    assert await checked.faults() == []


async def test_index_with_the_column_in_another_place_is_no_index(checked: Checked) -> None:
    """Such an index is read from end to end, which the planner's node does not tell."""
    checked.database.sql(
        "drop index payments_finalized;"
        "create index wrong on payments (status, finalized_at, id, created_at, failure_reason, provider, method)"
    )
    (fault,) = await checked.faults()
    assert "payments_finalized" in fault.remedy


async def test_planner_that_prefers_the_whole_table_is_told(checked: Checked) -> None:
    """An index that is there and not used costs what none costs."""
    checked.database.sql(
        "insert into payments (order_ref, amount_minor, currency, provider, method, status, created_at, finalized_at)"
        " select n, 1, 'usd', 'stripe', 'card', 'failed', now() - '1 d'::interval, now() - n * '1 s'::interval"
        f' from generate_series(1, 60000) as n; analyze; alter role {ROLE} in database "{checked.database.name}"'
        " set enable_indexscan = off"
    )
    checked.database.sql(f'alter role {ROLE} in database "{checked.database.name}" set enable_bitmapscan = off')
    found = await checked.faults()
    assert any("would rather read the whole of payments" in each.what for each in found), found


async def test_every_missing_grant_is_told_with_its_statement(checked: Checked) -> None:
    """pg_monitor and each column: the statements that are printed mend it, and give no more than is needed."""
    checked.database.sql(
        f"revoke all on compliance_checks, payments, users from {ROLE};"
        f"revoke select (reason) on audit_log from {ROLE}; revoke pg_monitor from {ROLE}"
    )
    found = await checked.faults()
    remedies = [each.remedy for each in found]
    assert f'run: GRANT pg_monitor TO "{ROLE}";' in remedies
    assert f'run: GRANT SELECT (reason) ON audit_log TO "{ROLE}";' in remedies
    assert f'run: GRANT SELECT (locked_at) ON users TO "{ROLE}";' in remedies
    assert len(found) == 5
    checked.mend(found)
    assert await checked.faults() == []


async def test_missing_table_column_and_schema_are_told(checked: Checked) -> None:
    """Names that the database does not have are the configuration's fault; a closed schema has its own grant."""
    checked.database.sql(
        'create schema ledger; alter table payments set schema ledger; create table "Weird" (a int);'
        "alter table audit_log rename reason to why"
    )
    found = await checked.faults(
        compliance={"table": {"name": "nothing_like_it"}},
        payments={"state_file": str(checked.folder / "p.json"), "table": {"name": "ledger.payments"}},
    )
    told = "\n".join(str(each) for each in found)
    assert "there is no table nothing_like_it" in told
    assert "table audit_log has no column reason" in told
    assert f'GRANT USAGE ON SCHEMA "ledger" TO "{ROLE}"' in told
    assert len(found) == 3


async def test_replica_is_told(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """A cursor cannot read a replica, which is known before the first scrape."""
    database = platform(postgres_server)
    replica = postgres_server.replica()
    replica.wait_caught_up()
    (fault,) = await Checked(Database(replica, database.name), tmp_path).faults()
    assert "replica" in fault.what
    replica.stop()
    database.drop()


async def test_missing_grants_of_the_heartbeat_are_named_once_for_both_sides(run: Run, tmp_path: Path) -> None:
    """Replication reads one column on primary and replica: a grant that is missing on both is one fault, mended on the
    primary; one that only the replica's own role lacks says where to run it. Missing table and column are told too."""
    primary = PostgresServer(run, name="of-checks").start()
    database = platform(primary)
    primary.role("of_replica", ROLE_PASSWORD)
    replica = primary.replica(name="of-checks-replica")
    checked = Checked(database, tmp_path)
    server = yaml.safe_load(checked.text())["collectors"]["postgres"]["servers"]["postgres"]
    servers = {"standby": {**server, "port": replica.port}, "postgres": server}
    expected = {"replicas": {"standby": {"server": "standby"}}}
    others = {name: {"state_file": str(tmp_path / name), "enabled": False} for name in CURSORS}

    async def faults(postgres: dict[str, object] | None = None, **heartbeat: str) -> list[Fault]:
        replica.wait_caught_up()
        given = {"enabled": False, "servers": servers, **(postgres or {})}
        return await checked.faults(postgres=given, replication={**expected, "heartbeat": heartbeat}, **others)

    assert await faults() == []
    database.sql(f"revoke all on replication_heartbeat from {ROLE}; revoke pg_monitor from {ROLE}")
    database.sql(f"revoke select (beat_at) on replication_heartbeat from {ROLE}")
    found = await faults()
    assert sorted((each.where.split(": ")[1], each.remedy) for each in found) == [
        ("collectors.postgres.servers.postgres", f'run: GRANT pg_monitor TO "{ROLE}";'),
        ("collectors.replication.heartbeat", f'run: GRANT SELECT (beat_at) ON replication_heartbeat TO "{ROLE}";'),
    ]
    checked.mend(found)
    assert await faults() == []

    found = await faults({"servers": {**servers, "standby": {**servers["standby"], "user": "of_replica"}}})
    assert [each.remedy for each in found] == [
        'run on its primary: GRANT pg_monitor TO "of_replica";',
        'run on its primary: GRANT SELECT (beat_at) ON replication_heartbeat TO "of_replica";',
    ]
    assert {each.where.split(": ")[1] for each in found} == {"collectors.postgres.servers.standby"}
    for told, heartbeat in (
        ("there is no table nowhere.beats", {"table": "nowhere.beats"}),
        ("table replication_heartbeat has no column at", {"column": "at"}),
    ):
        assert told in {each.what for each in await faults(None, **heartbeat)}
    replica.stop()
    primary.stop()


async def test_login_that_is_refused_is_told_with_what_to_do(run: Run, tmp_path: Path) -> None:
    """Each kind of refusal has its own statement, and the statement mends it; the password is in none of them."""
    own = PostgresServer(run, name="of-logins").start()
    checked = Checked(platform(own), tmp_path)
    for broken, told in (
        (f"alter role {ROLE} nologin", "ALTER ROLE"),
        (f'revoke connect on database "{checked.database.name}" from public', "GRANT CONNECT ON DATABASE"),
    ):
        own.sql(broken)
        found = await checked.faults()
        assert [told in each.remedy for each in found] == [True]
        own.sql(found[0].remedy.removeprefix("run: "))
        assert await checked.faults() == []
    own.sql(f"alter role {ROLE} password 'another'")
    (fault,) = await checked.faults()
    assert f"write the role's password to {tmp_path / 'secret'}" in fault.remedy
    assert ROLE_PASSWORD not in str(fault)
    own.stop()


# Redis


def redis_settings(
    server: RedisServer, folder: Path, password: str | None = None, **changes: object
) -> dict[str, object]:
    """The collector `redis` alone; with a password its file."""
    if password is not None:
        (folder / "redis").write_text(password)
        changes["password_file"] = str(folder / "redis")
    return {"servers": {"redis": {"host": "127.0.0.1", "port": server.port, **changes}}}


async def redis_faults(settings: dict[str, object]) -> list[Fault]:
    text = yaml.safe_dump({"collectors": {"redis": settings}})
    return await check(parse(text, "exporter.yml"), Document.read(text, "exporter.yml").where)


def redis_mend(server: RedisServer, fault: Fault, **words: str) -> None:
    """Run the command of the remedy as redis-cli would read it, with real words for those in capitals."""
    line = fault.remedy[fault.remedy.index("ACL SETUSER") :]
    for name, text in words.items():
        line = line.replace(name, text)
    server.command(*shlex.split(line))


@pytest.mark.parametrize(
    ("sessions", "keys"),
    [
        (None, ""),
        ({"count": "dbsize"}, ""),
        ({"count": "scard", "key": "live *sessions", "database": 2}, "~live?\\*sessions"),
        ({"count": "zcard", "key": "live"}, "~live"),
    ],
)
async def test_every_right_that_redis_withholds_is_named_at_once(
    redis: RedisServer, tmp_path: Path, sessions: dict[str, object] | None, keys: str
) -> None:
    """One fault with one command for all that a scrape will ask; the command mends it and gives no more than is needed."""
    redis.command("ACL", "SETUSER", ROLE, "reset", "on", f">{ROLE_PASSWORD}")
    settings = redis_settings(redis, tmp_path, ROLE_PASSWORD, user=ROLE, sessions=sessions)
    (fault,) = await redis_faults(settings)
    assert fault.where.endswith(": collectors.redis.servers.redis")
    assert fault.what.startswith(f"user {ROLE} may not ask PING, INFO, CLIENT")
    assert fault.remedy.startswith(f"run: ACL SETUSER {ROLE} +ping +info +client|setname")
    redis_mend(redis, fault)
    assert await redis_faults(settings) == []
    about = redis.command("ACL", "GETUSER", ROLE)
    assert isinstance(about, dict)
    rules = {"+ping", "+info", "+client|setname"}
    rules |= {f"+{sessions['count']}"} if sessions else set()
    rules |= {"+select"} if sessions and "database" in sessions else set()
    assert set(about[b"commands"].decode().split()) == {"-@all", *rules}
    assert about[b"keys"].decode() == keys
    redis.command("ACL", "SETUSER", ROLE, "-info")
    (fault,) = await redis_faults(settings)
    assert (fault.what, fault.remedy) == (f"user {ROLE} may not ask INFO", f"run: ACL SETUSER {ROLE} +info")
    redis.command("ACL", "DELUSER", ROLE)


async def test_login_that_redis_refuses_is_told_with_what_to_do(run: Run, redis: RedisServer, tmp_path: Path) -> None:
    """No password where one is asked for, a wrong one, a user that is not there, one where none is set, nobody there."""
    locked = RedisServer(run, password="the-servers-own", name="of-checks").start()
    (fault,) = await redis_faults(redis_settings(locked, tmp_path))
    assert "NOAUTH" in fault.what or "Authentication required" in fault.what
    assert "`password_file`" in fault.remedy
    (fault,) = await redis_faults(redis_settings(locked, tmp_path, "wrong-word"))
    assert f"write the server's password (`requirepass`) to {tmp_path / 'redis'}" in fault.remedy
    assert "wrong-word" not in str(fault)
    assert await redis_faults(redis_settings(locked, tmp_path, "the-servers-own")) == []

    settings = redis_settings(locked, tmp_path, ROLE_PASSWORD, user=ROLE, sessions={"count": "hlen", "key": "live"})
    (fault,) = await redis_faults(settings)
    assert ROLE_PASSWORD not in str(fault)
    redis_mend(locked, fault, PASSWORD=ROLE_PASSWORD)
    assert await redis_faults(settings) == []
    locked.stop()

    (fault,) = await redis_faults(redis_settings(redis, tmp_path, "any"))
    assert "take `password_file` away" in fault.remedy
    (fault,) = await redis_faults(redis_settings(locked, tmp_path))
    assert "no answer" in fault.what


async def test_what_redis_answers_instead_of_a_number_is_told(redis: RedisServer, tmp_path: Path) -> None:
    """A key of another type and a database that is not there are the configuration's fault."""
    redis.command("SET", "live", "text")
    (fault,) = await redis_faults(redis_settings(redis, tmp_path, sessions={"count": "scard", "key": "live"}))
    assert "SCARD" in fault.what
    assert "wrong kind of value" in fault.what
    (fault,) = await redis_faults(redis_settings(redis, tmp_path, sessions={"database": 99}))
    assert "SELECT" in fault.what


async def test_server_without_an_answer_is_told_and_hides_no_other(checked: Checked) -> None:
    """A server that is not there and one that refuses the password are faults, each at its own place."""
    settings = yaml.safe_load(checked.text())
    good = settings["collectors"]["postgres"]["servers"]["postgres"]
    wrong = checked.folder / "wrong"
    wrong.write_text("not it")
    servers = {
        "postgres": good,
        "gone": {**good, "port": free_port()},
        "refusing": {**good, "password_file": str(wrong)},
    }
    checked.database.sql("drop index payments_refunded")
    found = await checked.faults(postgres={"servers": servers})
    told = {each.where.split(": ")[1].rpartition(".")[2]: each.what for each in found}
    assert "no answer" in told["gone"]
    assert "password authentication failed" in told["refusing"]
    assert "whole of payments" in told["payments"]
    assert len(found) == 3


def test_all_of_it_is_exit_code_2(checked: Checked, redis: RedisServer, tmp_path: Path) -> None:
    """The script prints the files' and the servers' faults together, each with its line, and shows no password."""
    checked.database.sql(
        f"drop index payments_finalized; revoke select on users from {ROLE}; revoke select (locked_at) on users from {ROLE}"
    )
    config = tmp_path / "exporter.yml"
    redis.command("ACL", "SETUSER", ROLE, "reset", "on", f">{ROLE_PASSWORD}", "+ping", "+client|setname")
    of_redis = redis_settings(redis, tmp_path, ROLE_PASSWORD, user=ROLE)
    config.write_text(checked.text(disk={"paths": {"/x": str(tmp_path / "none")}}, redis=of_redis))
    done = subprocess.run(
        [sys.executable, "-m", "exporter", f"--config.file={config}", "--config.check"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    redis.command("ACL", "DELUSER", ROLE)
    assert "4 mistakes" in done.stderr
    assert re.search(r"exporter\.yml:\d+: collectors\.redis.*run: ACL SETUSER prep_exporter \+info\)", done.stderr)
    assert "create index concurrently if not exists payments_finalized on payments (finalized_at)" in done.stderr
    assert "GRANT SELECT (locked_at) ON users" in done.stderr
    assert re.search(r"exporter\.yml:\d+: collectors\.payments", done.stderr)
    assert ROLE_PASSWORD not in done.stderr
