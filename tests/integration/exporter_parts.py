"""What the exporter's tests share: a platform database with the exporter's role, and samples by name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from exporter.collector_settings import PostgresServer as PostgresSettings
from exporter.samples import AnySample, Collected, HistogramSample
from tests.support.servers import Database, PostgresServer

ROLE, ROLE_PASSWORD = "prep_exporter", "secret-of-the-exporter"

SCHEMA = (Path(__file__).resolve().parents[2] / "demo" / "platform" / "schema.sql").read_text()

GRANTS = f"""
grant select (id, created_at, finished_at, result) on compliance_checks to {ROLE};
grant select (id, created_at, finalized_at, refunded_at, status, failure_reason, provider, method)
    on payments to {ROLE};
grant select (id, at, event, outcome, reason) on audit_log to {ROLE};
grant select (locked_at) on users to {ROLE};
grant select (beat_at) on replication_heartbeat to {ROLE};
"""


def platform(server: PostgresServer) -> Database:
    """A fresh copy of the platform's database on this server, with the exporter's role as it is shipped."""
    server.role(ROLE, ROLE_PASSWORD, "pg_monitor")
    server.template("platform_for_exporter", SCHEMA + GRANTS)
    return server.fresh_database("platform_for_exporter")


def postgres_settings(database: Database, secret: Path, **changes: object) -> PostgresSettings:
    """Settings of the exporter for this database; durations in `changes` as in YAML."""
    secret.write_text(f"{ROLE_PASSWORD}\n")
    values = {
        "host": "127.0.0.1",
        "port": database.server.port,
        "database": database.name,
        "user": ROLE,
        "password_file": str(secret),
        **changes,
    }
    return PostgresSettings.model_validate(values)


def values(samples: Iterable[AnySample]) -> dict[tuple[str, ...], float]:
    """Value by name without `prep_`, and label values; a histogram by its number of observations."""
    return {
        (one.metric.name.removeprefix("prep_"), *one.labels): float(sum(one.counts))
        if isinstance(one, HistogramSample)
        else one.value
        for one in samples
    }


def shown(collected: Collected) -> Mapping[tuple[str, ...], float]:
    """`values` of a collector's run that must have gone well."""
    assert collected.fault is None, collected.fault
    return values(collected.samples)


def in_seconds(seconds: float) -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + seconds
