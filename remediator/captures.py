"""What each named diagnosis reads: the state that a disruptive action would destroy. Reads only, bounded.

In: the target service. Out: text, redacted by the one who writes it (`diagnosis.py`), and one sentence for
people. SQL is shown without its literals. Raises RemediatorError when it cannot be read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncpg

from remediator import redis_diagnoses, root_causes
from remediator.actions.queries import read_server
from remediator.captured import Captured, Source
from remediator.captures_compliance import cache_hits
from remediator.captures_docker import container_events, disk_use, docker_disk
from remediator.captures_payments import recent_failures, stripe_status
from remediator.containers import Container
from remediator.durations import human
from remediator.errors import Permanent, Transient
from remediator.fetch import describe
from remediator.postgres import LOST, connected
from remediator.probing import probe
from remediator.redaction import sql_shape
from remediator.settings import Database, Redis

LINES = 100
LOG_BYTES = 256 * 1024
SAMPLES, GAP = 10, 0.05  # where the backends spend their time: half a second


async def container_logs(source: Source) -> Captured:
    """The last 100 lines of each container of the service, with Docker's time stamps."""
    containers = await source.containers()
    logs = await asyncio.gather(*(source.engine.logs(item, LINES, LOG_BYTES) for item in containers))
    parts = [f"== {item.name}\n{log.decode('utf-8', 'replace')}" for item, log in zip(containers, logs, strict=True)]
    lines = sum(log.count(b"\n") for log in logs)
    return Captured("\n".join(parts), f"{lines} lines of {', '.join(item.name for item in containers)}")


async def container_facts(source: Source) -> Captured:
    """State, health, limits, exit code and running commands of each container; never its environment."""
    containers = await source.containers()
    execs = await asyncio.gather(*(source.engine.running_execs(item) for item in containers))
    facts = [_facts(item, running) for item, running in zip(containers, execs, strict=True)]
    said = "; ".join(f"{item.name} {item.status}, {item.health}, {item.restarts} restarts" for item in containers)
    return Captured(json.dumps(facts, indent=2, ensure_ascii=False), said)


async def service_probe(source: Source) -> Captured:
    """One direct request to the service, waiting for the whole timeout of its probe."""
    found = await probe(source.settings, source.session, source.service, patient=True)
    return Captured(f"{found.health}: {found.detail}\n\n{found.body.decode('utf-8', 'replace')}", found.detail)


async def long_queries(source: Source) -> Captured:
    """The 30 oldest queries and transactions, with what they wait for; texts without literals."""
    rows = await _rows(source, LONG)
    oldest = human(rows[0]["seconds"]) if rows else ""
    return Captured(_lines(rows), f"{len(rows)} sessions, the oldest since {oldest}" if rows else "no session at work")


async def blocking_tree(source: Source) -> Captured:
    """Who waits for whose lock, the root of each chain first."""
    rows = await _rows(source, BLOCKING)
    roots = [row for row in rows if not row["blocked_by"]]
    return Captured(
        _lines(rows), f"{len(rows) - len(roots)} sessions blocked by {len(roots)}" if rows else "none blocked"
    )


async def cpu_by_backend(source: Source) -> Captured:
    """How often each active backend was on the CPU (no wait event) in ten samples of half a second.

    PostgreSQL has no CPU counter by backend; this is the share of samples without a wait event.
    """
    seen: dict[int, list[Mapping[str, Any]]] = {}
    async with _asking(source) as connection:
        for sample in range(SAMPLES):
            if sample:
                await asyncio.sleep(GAP)
            for row in await connection.fetch(ACTIVE):
                seen.setdefault(row["pid"], []).append(dict(row))
    shares = [
        {
            "pid": pid,
            "on_cpu": round(sum(row["wait"] == "" for row in rows) / SAMPLES, 2),
            "waits": sorted({row["wait"] for row in rows} - {""}),
            **{name: rows[-1][name] for name in ("user", "application", "backend_type", "query")},
        }
        for pid, rows in seen.items()
    ]
    shares.sort(key=lambda item: -item["on_cpu"])
    busy = [item for item in shares if item["on_cpu"] >= 0.5]
    return Captured(_lines(shares), f"{len(busy)} backends on the CPU in half of the samples or more")


def _of_cause(tell: root_causes.Telling) -> Capture:
    """Evidence for people's permanent fix, of the service's database."""

    async def capture(source: Source) -> Captured:
        return Captured(*await tell(source.settings.databases, source.service))

    return capture


async def redis_info(source: Source) -> Captured:
    """What Redis says of itself, and whether it loads, cannot save, or is full."""
    return Captured(*await redis_diagnoses.info(_redis(source)))


async def redis_clients(source: Source) -> Captured:
    """Who holds how many connections, and for how long idle."""
    return Captured(*await redis_diagnoses.clients(_redis(source)))


async def redis_keys(source: Source) -> Captured:
    """A bounded sample of the keys by size and prefix; no key's own name."""
    return Captured(*await redis_diagnoses.keys(_redis(source)))


Capture = Callable[[Source], Awaitable[Captured]]
CAPTURES: Mapping[str, Capture] = {
    "container_logs": container_logs,
    "container_facts": container_facts,
    "service_probe": service_probe,
    "long_queries": long_queries,
    "blocking_tree": blocking_tree,
    "cpu_by_backend": cpu_by_backend,
    "connections": _of_cause(root_causes.connections),
    "sequential_scans": _of_cause(root_causes.sequential_scans),
    "top_statements": _of_cause(root_causes.top_statements),
    "replication_state": _of_cause(root_causes.replication_state),
    "container_events": container_events,
    "cache_hits": cache_hits,
    "disk_use": disk_use,
    "docker_disk": docker_disk,
    "recent_failures": recent_failures,
    "stripe_status": stripe_status,
    "redis_info": redis_info,
    "redis_clients": redis_clients,
    "redis_keys": redis_keys,
}
OF_DATABASES = frozenset(
    {
        "long_queries",
        "blocking_tree",
        "cpu_by_backend",
        "connections",
        "sequential_scans",
        "top_statements",
        "replication_state",
    }
)
"""Those that ask an entry of `settings.databases`."""
OF_PAYMENTS = frozenset({"recent_failures", "stripe_status"})
"""Those that ask an entry of `settings.payments`."""

OF_REDIS = frozenset({"redis_info", "redis_clients", "redis_keys"})
"""Those that ask an entry of `settings.redis`."""

_COLUMNS = """a.pid, coalesce(a.usename, '')::text AS "user", a.application_name AS application,
 coalesce(a.datname, '')::text AS database, a.backend_type, coalesce(a.state, '') AS state,
 coalesce(a.wait_event_type || '/' || a.wait_event, '') AS wait, left(coalesce(a.query, ''), 4000) AS query"""

LONG = f"""
SELECT {_COLUMNS}, extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.query_start))::float8 AS seconds,
       a.backend_xid IS NOT NULL AS has_written
FROM pg_stat_activity a
WHERE a.pid <> pg_backend_pid() AND a.state <> 'idle' AND coalesce(a.xact_start, a.query_start) IS NOT NULL
ORDER BY seconds DESC LIMIT 30
"""  # noqa: S608

BLOCKING = f"""
WITH waiting AS (SELECT pid, pg_blocking_pids(pid) AS blocked_by FROM pg_stat_activity WHERE wait_event_type = 'Lock')
SELECT {_COLUMNS}, coalesce(w.blocked_by, '{{}}') AS blocked_by,
       extract(epoch FROM clock_timestamp() - a.state_change)::float8 AS seconds
FROM pg_stat_activity a LEFT JOIN waiting w USING (pid)
WHERE w.pid IS NOT NULL OR a.pid IN (SELECT unnest(blocked_by) FROM waiting)
ORDER BY coalesce(cardinality(w.blocked_by), 0), seconds DESC LIMIT 100
"""  # noqa: S608

ACTIVE = f"SELECT {_COLUMNS} FROM pg_stat_activity a WHERE a.state = 'active' AND a.pid <> pg_backend_pid() LIMIT 100"  # noqa: S608


def _facts(item: Container, execs: Sequence[str]) -> dict[str, Any]:
    state, host = item.raw["State"], item.raw.get("HostConfig") or {}
    health = (state.get("Health") or {}).get("Log") or []
    return {
        "name": item.name,
        "id": item.id,
        "image": item.image,
        "labels": {
            name: value for name, value in item.labels.items() if name.startswith(("com.docker.compose.", "prep-ops."))
        },
        "state": {name: value for name, value in state.items() if name != "Health"},
        "health": item.health,
        "health_log": [
            {"exit": entry.get("ExitCode"), "said": str(entry.get("Output"))[:500]} for entry in health[-3:]
        ],
        "restarts": item.restarts,
        "restart_policy": host.get("RestartPolicy"),
        "memory_limit_bytes": host.get("Memory"),
        "cpu_limit_cores": (host.get("NanoCpus") or 0) / 1e9,
        "commands_running_inside": list(execs),
    }


def _asking(source: Source) -> Any:
    database: Database | None = source.settings.databases.get(source.service)
    if database is None:
        raise Permanent(f"{source.service} is not in the settings' list of databases")
    return connected(database)


def _redis(source: Source) -> Redis:
    redis = source.settings.redis.get(source.service)
    if redis is None:
        raise Permanent(f"{source.service} is not in the settings' list of Redis servers")
    return redis


async def _rows(source: Source, statement: str) -> list[dict[str, Any]]:
    """Rows of a statement, and a refusal to show half of the truth: a role without the grants sees NULLs."""
    try:
        async with _asking(source) as connection:
            server = await read_server(connection)
            if server.missing_grants:
                raise Permanent(f"the role cannot see other sessions: {' '.join(server.missing_grants)}")
            return [dict(row) for row in await connection.fetch(statement)]
    except (*LOST, asyncpg.PostgresError) as error:
        raise Transient(f"PostgreSQL {source.service}: {describe(error)}") from error


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """One JSON object a line, the statement without its literals."""
    shown = [{**row, "query": sql_shape(row["query"])} for row in rows]
    return "\n".join(json.dumps(row, ensure_ascii=False, default=str) for row in shown)
