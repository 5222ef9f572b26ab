"""Outages of the demo platform, each made for real, and the alerts that must reach people for it.

An outage is a context: entering puts the fault in, leaving takes it out. Nothing is told to misbehave: containers are
stopped or frozen, links cut, tables locked, disks filled. Times are the shipped ones.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from demo.stack import PROJECT, Stack, wait_for

LIMITS = {"P0": 90.0, "P1": 180.0, "P2": 600.0}
"""Seconds from fault to page, by level."""
BACKUPS = "/var/lib/prep-exporter/backups"
BACKUP_TOO_OLD = 180_000
"""Seconds: BackupTooOld's own limit, so that the moment at which a backup becomes too old can be chosen."""
SMALL_DISK = "/tmp"


@dataclass(frozen=True, slots=True)
class Page:
    """An alert that people must get: its name, its level, and labels that tell it from others of that name."""

    alert: str
    level: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outage:
    """A fault, how it is put in, and who must hear of it."""

    what: str
    make: Callable[[Stack], AbstractContextManager[None]]
    pages: tuple[Page, ...]
    after: float = 0.0
    """Seconds after its making at which it begins to be a fault."""


def container(stack: Stack, service: str) -> object:
    return stack.docker.containers.get(f"{PROJECT}-{service}-1")


@contextmanager
def stopped(stack: Stack, *services: str) -> Iterator[None]:
    """The containers are gone as `docker stop` has them gone; started again afterwards."""
    for service in services:
        stack.docker.api.stop(f"{PROJECT}-{service}-1", timeout=1)
    yield
    for service in services:
        stack.docker.api.start(f"{PROJECT}-{service}-1")


@contextmanager
def frozen(stack: Stack, service: str) -> Iterator[None]:
    """SIGSTOP to its first process: it is there and answers nobody."""
    stack.docker.api.kill(f"{PROJECT}-{service}-1", "SIGSTOP")
    yield
    stack.docker.api.kill(f"{PROJECT}-{service}-1", "SIGCONT")


def psql(stack: Stack, service: str, statement: str) -> str:
    done = stack.compose("exec", "-T", service, "psql", "-U", "postgres", "-d", "prepchef", "-AtXqc", statement)
    return done.stdout.strip()


@contextmanager
def wal_link_cut(stack: Stack) -> Iterator[None]:
    """The replica looks for its primary where nobody is: both servers are well, the link is not."""
    conninfo = psql(stack, "postgres-replica", "show primary_conninfo").replace("'", "''")
    change = "alter system set primary_conninfo = '{}'"
    psql(stack, "postgres-replica", change.format("host=127.0.0.1 port=1 connect_timeout=2"))
    psql(stack, "postgres-replica", "select pg_reload_conf()")
    yield
    psql(stack, "postgres-replica", change.format(conninfo))
    psql(stack, "postgres-replica", "select pg_reload_conf()")


@contextmanager
def disk_filled(stack: Stack) -> Iterator[None]:
    """To its last byte."""
    stack.compose("exec", "-T", "exporter", "bash", "-c", f"head -c 64M /dev/zero > {SMALL_DISK}/full || true")
    yield
    stack.compose("exec", "-T", "exporter", "rm", f"{SMALL_DISK}/full")


@contextmanager
def backup_of(stack: Stack, age: int) -> Iterator[None]:
    """The newest backup is so many seconds old."""
    stack.compose(
        "exec",
        "-T",
        "exporter",
        "bash",
        "-c",
        f"echo x > {BACKUPS}/a.dump; touch -d '{age} seconds ago' {BACKUPS}/a.dump",
    )
    yield
    stack.compose("exec", "-T", "exporter", "bash", "-c", f"touch {BACKUPS}/a.dump")


@contextmanager
def logins_refused(stack: Stack) -> Iterator[None]:
    """Sixty wrong passwords within a moment."""
    stack.sql(
        "insert into audit_log (event, outcome, reason, user_ref)"
        " select 'login', 'failure', 'wrong_password', 'kitchen-' || n from generate_series(1, 60) as n"
    )
    yield


@contextmanager
def sessions(stack: Stack, *statements: str) -> Iterator[None]:
    """Superusers' sessions that say these statements and stay."""
    with ExitStack() as opened:
        for statement in statements:
            argv = stack.command("exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "prepchef", "-Xq")
            client = opened.enter_context(
                subprocess.Popen(
                    argv,
                    env=stack.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            opened.callback(client.terminate)
            assert client.stdin is not None
            client.stdin.write(f"set application_name = 'outage';\n{statement};\n".encode())
            client.stdin.flush()
        yield
        stack.sql("select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'outage'")


def blocked_sessions(stack: Stack) -> AbstractContextManager[None]:
    """One holds a table, eight want it."""
    holder = "begin; lock table analyst_reports in access exclusive mode; select pg_sleep(900)"
    return sessions(stack, holder, *["select pg_sleep(2); select count(*) from analyst_reports"] * 8)


def idle_transaction(stack: Stack) -> AbstractContextManager[None]:
    """A transaction that somebody opened and forgot."""
    return sessions(stack, "begin; select count(*) from regulations")


_CROWD = """
import asyncio, asyncpg
async def main():
    kept, secret = [], open('/run/secrets/postgres_analyst_password').read().strip()
    try:
        while len(kept) < 200:
            kept.append(await asyncpg.connect(host='postgres', user='prep_analyst', password=secret, database='prepchef'))
    except asyncpg.PostgresError as error:
        print(len(kept), error, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@contextmanager
def connections_taken(stack: Stack) -> Iterator[None]:
    """An analyst's tool opens connections until there are no more; nobody has limited what it may have."""
    limit = stack.sql("select rolconnlimit from pg_roles where rolname = 'prep_analyst'")
    stack.sql("alter role prep_analyst connection limit -1")
    argv = stack.command("exec", "-T", "load", "python", "-c", _CROWD)
    with subprocess.Popen(argv, env=stack.environment, stdout=subprocess.PIPE, text=True) as crowd:
        assert crowd.stdout is not None
        assert crowd.stdout.readline(), "no connection was refused"
        yield
        crowd.terminate()
    stack.sql(f"alter role prep_analyst connection limit {limit}")
    stack.sql("select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'prep_analyst'")


TOGETHER = (
    Outage(
        "Redis is stopped",
        lambda stack: stopped(stack, "redis"),
        (Page("RedisDown", "P1"), Page("ContainerDown", "P1", {"service": "redis"})),
    ),
    Outage(
        "the WAL link is cut",
        wal_link_cut,
        (Page("ReplicaNotStreaming", "P2"), Page("ReplicationLag", "P2")),
    ),
    Outage("a disk is filled", disk_filled, (Page("DiskFull", "P1"),)),
    Outage(
        "the newest backup becomes too old",
        lambda stack: backup_of(stack, BACKUP_TOO_OLD - 60),
        (Page("BackupTooOld", "P1"),),
        after=60,
    ),
    Outage("logins are refused", logins_refused, (Page("LoginFailuresHigh", "P2"),)),
    Outage(
        "the payment provider is away",
        lambda stack: stopped(stack, "stripe"),
        (Page("PaymentSuccessRateCritical", "P1"),),
    ),
    Outage(
        "compliance checks hang",
        lambda stack: frozen(stack, "python-compliance"),
        (
            Page("ComplianceStalled", "P1"),
            Page("ServiceDown", "P1", {"service": "python-compliance"}),
            Page("ContainerUnhealthy", "P2", {"service": "python-compliance"}),
            Page("TargetDown", "P2"),
        ),
    ),
    Outage("sessions wait for a lock", blocked_sessions, (Page("DatabaseBlockedSessions", "P1"),)),
    Outage("a transaction is forgotten", idle_transaction, (Page("DatabaseIdleInTransaction", "P2"),)),
    Outage("the remediator is dead", lambda stack: stopped(stack, "remediator"), (Page("RemediatorDown", "P2"),)),
)
"""At once: none of them hides another."""

ONE_BY_ONE = (
    Outage("all connections are taken", connections_taken, (Page("DatabaseConnectionsExhausted", "P0"),)),
    Outage("PostgreSQL is stopped", lambda stack: stopped(stack, "postgres"), (Page("PostgresDown", "P0"),)),
    Outage(
        "all that customers see is gone",
        lambda stack: stopped(stack, "payments", "python-compliance"),
        (Page("PlatformDown", "P0"),),
    ),
    Outage("the exporter is dead", lambda stack: stopped(stack, "exporter"), (Page("ExporterDown", "P1"),)),
)


def received(stack: Stack, page: Page, since: float) -> float | None:
    """When the inbox got this alert, firing, at its level's own receiver, after `since` (UNIX seconds)."""
    for message in stack.get("inbox", f"/api/messages?receiver=people-{page.level.lower()}"):
        for alert in message["alerts"]:
            labels = {"alertname": page.alert, "severity": page.level, **page.labels}
            fits = all(alert["labels"].get(name) == value for name, value in labels.items())
            if message["received"] >= since and alert["status"] == "firing" and fits:
                return float(message["received"])
    return None


def quiet(stack: Stack, wanted: Iterable[Outage], seconds: float) -> None:
    """Wait until none of these outages' alerts is pending or firing; budgets that were burnt may go on telling so."""
    names = {page.alert for outage in wanted for page in outage.pages}

    def active() -> set[str]:
        alerts = stack.get("prometheus", "/api/v1/alerts")["data"]["alerts"]
        return names & {alert["labels"]["alertname"] for alert in alerts}

    wait_for(f"an end of {', '.join(sorted(names))}", lambda: not active(), seconds, pause=2.0)


def now() -> float:
    return time.time()
