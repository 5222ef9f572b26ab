"""The platform's database, made by the script that the PostgreSQL image runs: who may do what."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.demo_platform import DATABASE, Platform
from tests.support.servers import PASSWORD, PostgresServer, RedisServer, Run, SqlFailed


@pytest.fixture(scope="module")
def platform(run: Run, redis_server: RedisServer) -> Iterator[Platform]:
    platform = Platform(run, PostgresServer(run).start(), redis_server)
    yield platform
    platform.postgres.stop()


def test_the_script_can_run_again(platform: Platform) -> None:
    """A second run changes nothing: not the rules, not the owners, not pg_hba.conf."""

    def state() -> tuple[list[list[str]], str]:
        tables = platform.sql("select tablename, tableowner from pg_tables where schemaname = 'public' order by 1")
        rules = platform.sql("select count(*), max(id) from compliance_rules")
        return tables + rules, (platform.postgres.data / "pg_hba.conf").read_text()

    before = state()
    platform.initialize()
    assert state() == before
    assert {owner for _, owner in before[0][:-1]} == {"prep_app"}
    assert before[1].count("host replication prep_replication all scram-sha-256") == 1


def test_a_missing_secret_ends_the_script(platform: Platform) -> None:
    """No role is made with an empty password: the image's first start fails and says which file."""
    secret = platform.secrets / "postgres_exporter_password"
    value = secret.read_text()
    secret.write_text("")
    try:
        with pytest.raises(AssertionError, match="postgres_exporter_password is missing or empty"):
            platform.initialize()
    finally:
        secret.write_text(value)


@pytest.mark.parametrize("user", ["app", "exporter", "remediator", "analyst"])
def test_every_role_logs_in_with_its_password_only(platform: Platform, user: str) -> None:
    """Passwords with quotes, spaces and backslashes come through as they are."""
    assert platform.sql("select current_user", user) == [[f"prep_{user}"]]
    with pytest.raises(SqlFailed, match="password authentication failed"):
        platform.postgres.sql("select 1", DATABASE, f"prep_{user}", "another")


def test_the_exporter_reads_what_it_counts_and_no_more(platform: Platform) -> None:
    """Times and states, all sessions' statistics; no references, no writes, no rules."""
    platform.sql("select id, created_at, finished_at, result from compliance_checks", "exporter")
    platform.sql("select status, provider, method, finalized_at, refunded_at from payments", "exporter")
    platform.sql("select id, at, event, outcome, reason from audit_log", "exporter")
    platform.sql("select count(*) from users where locked_at is not null", "exporter")
    platform.sql("select beat_at from replication_heartbeat", "exporter")
    assert platform.sql("select pg_has_role('prep_exporter', 'pg_monitor', 'usage')", "exporter") == [["t"]]
    for refused in (
        "select order_ref from compliance_checks",
        "select stripe_payment_intent from payments",
        "select user_ref from audit_log",
        "select user_ref from users",
        "select * from compliance_rules",
        "update payments set status = 'failed'",
        "update replication_heartbeat set beat_at = now()",
        "create table here (id int)",
    ):
        with pytest.raises(SqlFailed, match="permission denied"):
            platform.sql(refused, "exporter")


def test_the_remediator_sees_and_ends_sessions_and_no_data(platform: Platform) -> None:
    """pg_signal_backend and pg_read_all_stats, no table, nothing of a superuser's."""
    with platform.postgres.session("select 1", DATABASE, "prep_app", platform.password("app")) as victim:
        found = platform.sql(f"select usename, query from pg_stat_activity where pid = {victim.pid}", "remediator")
        assert found[0][0] == "prep_app"
        assert "insufficient privilege" not in found[0][1]
        assert platform.sql(f"select pg_cancel_backend({victim.pid})", "remediator") == [["t"]]
    refusal = pytest.raises(SqlFailed, match=r"must be a superuser|permission denied")
    with platform.postgres.session("select 1", DATABASE, "postgres", PASSWORD) as root, refusal:
        platform.sql(f"select pg_terminate_backend({root.pid})", "remediator")
    for refused in ("select 1 from payments", "select 1 from compliance_checks", "create table here (id int)"):
        with pytest.raises(SqlFailed, match="permission denied"):
            platform.sql(refused, "remediator")
    memberships = platform.sql(
        "select r.rolname from pg_auth_members m join pg_roles r on r.oid = m.roleid"
        " where m.member = 'prep_remediator'::regrole order by 1"
    )
    assert memberships == [["pg_read_all_stats"], ["pg_signal_backend"]]


def test_the_replication_role_copies_the_server(platform: Platform, run: Run) -> None:
    """What the replica of the demo does: pg_basebackup over the network, with the role's own password."""
    platform.postgres.configure()  # pg_hba.conf is read again
    folder = run.folder("copy")
    done = subprocess.run(
        ["pg_basebackup", "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(platform.postgres.port),
         "-U", "prep_replication", "--checkpoint=fast", "--no-sync"],
        env={"PATH": "/usr/bin:/bin:/usr/lib/postgresql/15/bin", "PGPASSWORD": platform.password("replication")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_order_has_one_open_or_paid_payment(platform: Platform) -> None:
    """Refused by the database itself; a failed payment is in nobody's way."""
    insert = (
        "insert into payments (order_ref, amount_minor, currency, provider, method, status)"
        " values ('twice', 100, 'usd', 'stripe', 'card', '{}')"
    )
    for status in ("failed", "failed", "pending"):
        platform.sql(insert.format(status), "app")
    for status in ("pending", "succeeded"):
        with pytest.raises(SqlFailed, match="payments_one_per_order"):
            platform.sql(insert.format(status), "app")
