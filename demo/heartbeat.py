"""The replication's heartbeat: the time, written on the primary every few seconds and read on the replicas.

In: a pool on the primary. Out: one row that is never older than a few seconds there; how old it is on a replica is how
far the replica is behind. The exporter reads it (collector `replication`) and never writes.
"""

from __future__ import annotations

import asyncio

import structlog

from demo.service import DATABASE_ERRORS, Log, Pool

_BEAT = (
    "INSERT INTO replication_heartbeat (beat_at) VALUES (clock_timestamp())"
    " ON CONFLICT (only_row) DO UPDATE SET beat_at = excluded.beat_at"
)


async def beat_forever(pool: Pool, every: float) -> None:
    """Write it each `every` seconds. A database that is away is told once, and is no reason to end the service."""
    log: Log = structlog.get_logger("demo")
    beating = True
    while True:
        try:
            await pool.execute(_BEAT)
            beating = True
        except DATABASE_ERRORS as error:
            if beating:
                log.warning("cannot write the heartbeat", reason=str(error) or type(error).__name__)
            beating = False
        await asyncio.sleep(every)
