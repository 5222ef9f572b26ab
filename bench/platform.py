"""What is scraped in a bench: PostgreSQL with a replica and two databases that differ in size only, Redis, an engine
with eight containers; and ours.

The tables are filled with the past, so that a scrape finds nothing new to count but must find that out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import yaml

from bench import cpu
from exporter.collectors import payments
from exporter.cursor_settings import PaymentsCollector
from tests.integration.exporter_parts import ROLE, ROLE_PASSWORD, platform
from tests.support.servers import (
    Database,
    DockerEngine,
    PostgresServer,
    RedisServer,
    Run,
    Service,
    free_port,
    wait_until,
)

SMALL_ROWS = 100_000
# Large enough that both tables' indexes stay in memory, as on the machine of a live platform.
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB", "autovacuum": "off", "max_parallel_workers_per_gather": "0"}

SERVICES = tuple(f"service-{number}" for number in range(1, 9))
"""Containers that run."""

CHUNK = 500_000
"""Rows in one statement: a test's SQL has half a minute."""

_PAYMENTS = """
insert into payments
    (order_ref, amount_minor, currency, provider, method, status, failure_reason, created_at, finalized_at)
select 'order-' || n, 1000 + n % 9000, 'usd', 'stripe', 'card',
    case when n % 50 = 0 then 'failed' else 'succeeded' end, case when n % 50 = 0 then 'card_declined' end,
    at - interval '1 s', at
from (
    select n, now() - interval '1 hour' - n * interval '400 days' / {rows} as at
    from generate_series({first}, {last}) as n
) as made;
"""

_CHECKS = """
insert into compliance_checks (order_ref, rule_set, created_at, finished_at, result)
select 'order-' || n, 'kitchen', at - interval '300 ms', at, 'pass'
from (select n, now() - interval '1 hour' - n * interval '1 minute' as at from generate_series(1, 100000) as n) as made;
"""


@dataclass
class Platform:
    """The servers and the two databases."""

    postgres: PostgresServer
    replica: PostgresServer
    redis: RedisServer
    engine: DockerEngine
    project: str
    large: Database
    small: Database

    @classmethod
    @contextmanager
    def made(cls, run: Run, rows: int) -> Iterator[Self]:
        """Started and filled; ended afterwards."""
        postgres = PostgresServer(run, SETTINGS, name="primary").start()
        redis = RedisServer(run).start()
        redis.command("CONFIG", "SET", "maxmemory", "256mb")
        databases = []
        for number in (rows, SMALL_ROWS):
            database = platform(postgres)
            _fill(database, number)
            databases.append(database)
        postgres.sql("checkpoint")
        replica = postgres.replica(name="replica")
        engine = DockerEngine.connect(run)
        project = engine.project()
        for service in SERVICES:
            engine.service_container(project, service, nano_cpus=500_000_000, mem_limit="64m")
        yield cls(postgres, replica, redis, engine, project, *databases)
        for server in (replica, postgres, redis):
            server.stop()

    def servers_cpu(self) -> float:
        """CPU seconds that PostgreSQL (both servers, all their processes) and Redis have used so far."""
        return sum(cpu.of_tree(server.pid) for server in (self.postgres, self.replica)) + cpu.of_process(self.redis.pid)

    @contextmanager
    def statements_logged(self) -> Iterator[Callable[[], int]]:
        """Inside, PostgreSQL logs every statement; gives how many of our role both servers' logs have from then on."""
        servers = (self.postgres, self.replica)
        for server in servers:
            server.configure(log_statement="all")
            wait_until(partial(_logs_statements, server), "the setting to be read", 10)
        since = {server: len(server.log_text()) for server in servers}

        def count() -> int:
            logs = (server.log_text()[since[server] :] for server in servers)
            return sum(len(_STATEMENT.findall(log)) for log in logs)

        yield count
        for server in servers:
            server.configure(log_statement="none")


def buffers(database: Database) -> int:
    """Buffers that PostgreSQL touches to find that no payment has become final or was refunded, by EXPLAIN."""
    query = payments.reading(PaymentsCollector()).rows_query
    for parameter, value in (("$1", "(now() - interval '10 s')"), ("$2", "'{1,2,3}'"), ("$3", "20000")):
        query = query.replace(parameter, value)
    plan = "\n".join(row[0] for row in database.sql(f"explain (analyze, buffers, timing off, costs off) {query}"))
    if "Seq Scan" in plan:
        raise RuntimeError(f"the whole table is read:\n{plan}")
    hit, read = _BUFFERS.search(plan).groups(default="0")  # type: ignore[union-attr] # EXPLAIN says it always
    return int(hit) + int(read)


def pay(database: Database) -> None:
    """One payment that is final now, committed."""
    database.sql(
        "insert into payments (order_ref, amount_minor, currency, provider, method, status, created_at, finalized_at)"
        " values ('order-' || gen_random_uuid(), 1000, 'usd', 'stripe', 'card', 'succeeded',"
        " clock_timestamp(), clock_timestamp())"
    )


_BUFFERS = re.compile(r"Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?")

_STATEMENT = re.compile(rf" {ROLE}@\S+ .*LOG:  (?:statement|execute [^:]*): ")


def _logs_statements(server: PostgresServer) -> bool:
    return server.value("show log_statement") == "all"


@dataclass(frozen=True)
class Ours:
    """Our exporter's process and port."""

    pid: int
    port: int


@contextmanager
def exporter_of_ours(run: Run, made: Platform, database: Database) -> Iterator[Ours]:
    """`prep-exporter` with every collector that works at scrape time, as a process."""
    folder, port = run.folder("ours"), free_port()
    path = folder / "exporter.yml"
    path.write_text(yaml.safe_dump(_config(folder, made, database, port)))
    service = Service(
        run, ["prep-exporter", f"--config.file={path}"], ready_url=f"http://127.0.0.1:{port}/-/healthy", name="ours"
    )
    service.start()
    yield Ours(service.pid, port)
    service.kill()


def _config(folder: Path, made: Platform, database: Database, port: int) -> dict[str, object]:
    secret = folder / "password"
    secret.write_text(f"{ROLE_PASSWORD}\n")
    server = {
        "host": "127.0.0.1",
        "database": database.name,
        "user": ROLE,
        "password_file": str(secret),
        "sslmode": "disable",
    }
    servers = {
        "postgres": {**server, "port": made.postgres.port},
        "postgres-replica": {**server, "port": made.replica.port},
    }
    return {
        "web": {"listen_address": f"127.0.0.1:{port}"},
        "collectors": {
            "postgres": {"servers": servers},
            "replication": {"replicas": {made.replica.folder.name: {"server": "postgres-replica"}}},
            "redis": {"servers": {"redis": {"host": "127.0.0.1", "port": made.redis.port}}},
            "payments": {"state_file": str(folder / "payments.json")},
            "compliance": {"state_file": str(folder / "compliance.json")},
            "security": {"state_file": str(folder / "security.json")},
            "disk": {"paths": {"/": "/"}},
            "docker": {
                "base_url": made.engine.host,
                "project": made.project,
                "expected_services": list(SERVICES),
                "disk_usage": False,
            },
            "containers": {"cgroup_roots": ["/sys/fs/cgroup"]},
            "slo": {"objectives": {"payments-success": {"ratio": 0.995, "window": "30d"}}},
        },
    }


def _fill(database: Database, rows: int) -> None:
    for first in range(1, rows + 1, CHUNK):
        database.sql(_PAYMENTS.format(rows=rows, first=first, last=min(rows, first + CHUNK - 1)))
    database.sql(_CHECKS)
    for table in ("payments", "compliance_checks"):
        database.sql(f"vacuum analyze {table}")
