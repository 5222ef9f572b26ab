"""Collector `redis`: the core of each configured server.

In: the answers to PING, INFO and one counting command. Out: the catalog's `prep_redis_*` samples; `prep_redis_up` also
when there is no answer. It must never look at a key's name or value, nor ask anything whose cost grows with the data.

PING goes alone and is timed; INFO (all sections of one call) and the sessions' count follow in one write. Their errors
are told apart: a server that answers PING with LOADING, MISCONF, MASTERDOWN or BUSY is not down, and says why it does
not serve.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from hiredis import ReplyError

from exporter.catalog import redis as catalog
from exporter.catalog.entries import Metric
from exporter.collector_settings import RedisServer, RedisSessions
from exporter.errors import Permanent, Transient
from exporter.redis_session import RedisSession, code
from exporter.redis_wire import Answer, Command
from exporter.samples import Collected, Sample, state_set

# Fields: https://redis.io/docs/latest/commands/info/ (Redis 7). `maxclients` is there since Redis 7.0.
_FIELDS: tuple[tuple[Metric, tuple[str, ...], str], ...] = (
    (catalog.REDIS_MEMORY_USED, (), "used_memory"),
    (catalog.REDIS_CLIENTS, (), "connected_clients"),
    (catalog.REDIS_CLIENTS_MAX, (), "maxclients"),
    (catalog.REDIS_REJECTED, (), "rejected_connections"),
    (catalog.REDIS_EVICTED, (), "evicted_keys"),
    (catalog.REDIS_LOOKUPS, ("hit",), "keyspace_hits"),
    (catalog.REDIS_LOOKUPS, ("miss",), "keyspace_misses"),
    (catalog.REDIS_SAVED, (), "rdb_last_save_time"),
    (catalog.REDIS_CHANGES, (), "rdb_changes_since_last_save"),
    (catalog.REDIS_AOF_ENABLED, (), "aof_enabled"),
)
_STATUSES = ((catalog.REDIS_SAVE_OK, "rdb_last_bgsave_status"), (catalog.REDIS_AOF_OK, "aof_last_write_status"))
_STATES = {"LOADING": "loading", "MASTERDOWN": "stale", "MISCONF": "writes_refused", "BUSY": "busy"}
"""First word of an error that PING is answered with, to the state that it tells."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server that answered PING said next; an exception is an error that it answered.

    `seconds` is PING's time; `sessions` is None when none are configured.
    """

    state: str
    seconds: float
    info: Answer
    sessions: Answer | None = None


class RedisCollector:
    """All configured servers, side by side; one that is ill takes nothing from the others."""

    name = "redis"

    def __init__(self, servers: Mapping[str, RedisServer]) -> None:
        self._servers = servers
        self._sessions = {name: RedisSession(name, server) for name, server in servers.items()}

    async def collect(self, deadline: float) -> Collected:
        parts = await asyncio.gather(*(self._server(name, deadline) for name in self._servers))
        samples = tuple(sample for part in parts for sample in part.samples)
        return Collected(samples, "; ".join(part.fault for part in parts if part.fault) or None)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def _server(self, name: str, deadline: float) -> Collected:
        session, settings = self._sessions[name], self._servers[name]
        until = min(deadline, asyncio.get_running_loop().time() + settings.query_timeout)
        try:
            await session.open(until)
            began = time.perf_counter()
            (pong,) = await session.ask([("PING",)], until)
            seconds = time.perf_counter() - began
            state = state_of(pong)
            if state is None:
                raise session.refusal(pong, "PING")
        except (Transient, Permanent) as error:
            return Collected((Sample(catalog.REDIS_UP, (name,), 0.0),), str(error))
        try:
            info, *counted = await session.ask([("INFO",), *counting(settings.sessions)], until)
        except Transient as error:
            return Collected(_head(name, state, seconds), str(error))
        samples, refused = parse(name, Reading(state, seconds, info, counted[0] if counted else None))
        return Collected(samples, "; ".join(str(session.refusal(error, what)) for what, error in refused) or None)


def counting(sessions: RedisSessions | None) -> list[Command]:
    """The command, of constant cost, that counts the sessions; none when none are configured."""
    if sessions is None:
        return []
    return [(sessions.count.upper(),) if sessions.key is None else (sessions.count.upper(), sessions.key)]


def state_of(pong: Answer) -> str | None:
    """What PING's answer says of the server; None for an answer that says nothing (NOPERM, nonsense)."""
    if pong == b"PONG":
        return "ready"
    return _STATES.get(code(pong)) if isinstance(pong, ReplyError) else None


def parse(server: str, reading: Reading) -> tuple[tuple[Sample, ...], list[tuple[str, Answer]]]:
    """Samples, and each part that could not be had: its command and what the server said to it.

    Fields that this version of Redis does not have give no sample.
    """
    samples, refused = list(_head(server, reading.state, reading.seconds)), []
    fields = fields_of(reading.info) if isinstance(reading.info, bytes) else {}
    if "redis_version" in fields:
        samples += _from_info(server, fields)
    else:
        refused.append(("INFO", reading.info))
    if reading.state == "loading":
        # What has been read so far is neither the old number of keys nor the new one.
        refused.append(("count keys", ReplyError("LOADING it is loading its data set")))
    elif "redis_version" in fields:
        keys, expiring = _keys(fields)
        samples += [
            Sample(catalog.REDIS_KEYS, (server,), keys),
            Sample(catalog.REDIS_KEYS_EXPIRING, (server,), expiring),
        ]
    if isinstance(reading.sessions, int):
        samples.append(Sample(catalog.REDIS_SESSIONS, (server,), float(reading.sessions)))
    elif reading.sessions is not None:
        refused.append(("count sessions", reading.sessions))
    return tuple(samples), refused


def fields_of(info: bytes) -> dict[str, str]:
    """INFO's lines `name:value`."""
    lines = info.decode("utf-8", errors="replace").splitlines()
    return {name: value for name, found, value in (line.partition(":") for line in lines) if found}


def _head(server: str, state: str, seconds: float) -> tuple[Sample, ...]:
    """What PING alone says."""
    return (
        Sample(catalog.REDIS_UP, (server,), 1.0),
        Sample(catalog.REDIS_PING, (server,), seconds),
        *state_set(catalog.REDIS_STATE, (server,), (state,)),
    )


def _from_info(server: str, fields: Mapping[str, str]) -> list[Sample]:
    found = [
        Sample(metric, (server, *labels), value)
        for metric, labels, field in _FIELDS
        if (value := _number(fields.get(field))) is not None
    ]
    found += [Sample(metric, (server,), float(fields[field] == "ok")) for metric, field in _STATUSES if field in fields]
    limit = _number(fields.get("maxmemory"))
    if limit is not None:
        found.append(Sample(catalog.REDIS_MEMORY_LIMITED, (server,), float(limit > 0)))
    most = limit or _number(fields.get("total_system_memory"))
    if most is not None:
        found.append(Sample(catalog.REDIS_MEMORY_MAX, (server,), most))
    return found


def _keys(fields: Mapping[str, str]) -> tuple[float, float]:
    """Keys, and keys that expire, of all databases: `db0:keys=3,expires=1,avg_ttl=0`; an empty one has no line."""
    keys = expiring = 0.0
    for name, value in fields.items():
        if name.startswith("db") and name[2:].isdigit():
            parts = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
            keys += _number(parts.get("keys")) or 0.0
            expiring += _number(parts.get("expires")) or 0.0
    return keys, expiring


def _number(text: str | None) -> float | None:
    """None for what is not there and what is no finite number."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
