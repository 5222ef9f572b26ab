"""The remediator's own direct probe of a target, past every exporter. Reads only.

A service answers the URL of its settings with the expected status and in time; a database takes a connection and
answers `SELECT 1`; a Redis answers PING with PONG (one that loads, cannot save or is full is sick, not down). A service
is down only when nobody takes the connection (refused, no such host, or neither name nor address answers, as with a
container between two crashes): one that takes it and does not answer is sick.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

import aiohttp
import asyncpg

from remediator.durations import human
from remediator.errors import ConfigError, RemediatorError
from remediator.fetch import describe, read_bounded
from remediator.postgres import LOST, connected
from remediator.redis_link import connected as connected_redis
from remediator.settings import Database, Probe, Redis, Settings
from remediator.world import Health

BODY = 2048  # bytes of an answer that are worth reading
CONNECT = 0.8  # part of the probe's time in which the connection, the name's address included, must be taken


@dataclass(frozen=True, slots=True)
class Probed:
    """What the probe found; `body` is the start of the answer, for the evidence only."""

    health: Health
    detail: str
    body: bytes = b""


async def probe(settings: Settings, session: aiohttp.ClientSession, service: str, *, patient: bool = False) -> Probed:
    """Probe the service or database of that name.

    Sick is known as soon as `slower_than` has passed, so it does not wait longer; `patient` waits for the
    probe's whole timeout, to see what the answer would have been.
    """
    if (entry := settings.services.get(service)) is not None and entry.probe is not None:
        return await _http(entry.probe, session, patient)
    if (database := settings.databases.get(service)) is not None:
        return await _database(database)
    if (redis := settings.redis.get(service)) is not None:
        return await _redis(redis)
    return Probed(Health.UNKNOWN, f"no probe in the settings for {service or 'a target without a service label'}")


async def _http(wanted: Probe, session: aiohttp.ClientSession, patient: bool) -> Probed:
    limit = wanted.timeout if patient else min(wanted.slower_than, wanted.timeout)
    began = time.monotonic()
    # A pooled connection that the target closed on its restart would look like a fault of the new one.
    headers = {"Connection": "close", "User-Agent": "prep-remediator"}
    timeout = aiohttp.ClientTimeout(total=limit, connect=limit * CONNECT)
    try:
        async with session.get(wanted.url, headers=headers, timeout=timeout, allow_redirects=False) as response:
            body = await read_bounded(response, BODY)
            status = response.status
    except (aiohttp.ClientConnectorError, aiohttp.ClientConnectorDNSError, aiohttp.ConnectionTimeoutError) as error:
        return Probed(Health.DOWN, f"{wanted.url}: {describe(error)}")
    except TimeoutError:
        return Probed(Health.SICK, f"{wanted.url}: no answer within {human(limit)}")
    except (aiohttp.ClientError, OSError) as error:
        return Probed(Health.SICK, f"{wanted.url}: {describe(error)}")
    took = time.monotonic() - began
    said = f"{wanted.url}: status {status} after {human(took)}"
    if status != wanted.status:
        return Probed(Health.SICK, f"{said}, {wanted.status} is expected", body)
    if took > wanted.slower_than:
        return Probed(Health.SICK, f"{said}, slower than {human(wanted.slower_than)}", body)
    return Probed(Health.HEALTHY, said, body)


async def _database(database: Database) -> Probed:
    where = f"PostgreSQL {database.host}:{database.port}"
    began = time.monotonic()
    try:
        async with connected(database) as connection:
            await connection.fetchval("SELECT 1")
    except (RemediatorError, *LOST, asyncpg.PostgresError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, ConfigError):
            return Probed(Health.UNKNOWN, f"{where}: {describe(error)}")
        # Refused at connect is a fact about the server; a timeout or a starting server is not.
        health = Health.DOWN if isinstance(cause, ConnectionRefusedError) else Health.SICK
        return Probed(health, f"{where}: {describe(error)}")
    return Probed(Health.HEALTHY, f"{where}: answered after {human(time.monotonic() - began)}")


async def _redis(redis: Redis) -> Probed:
    where = f"Redis {redis.host}:{redis.port}"
    began = time.monotonic()
    try:
        # What counts is whether it lets a new client in, so never by the kept connection.
        async with connected_redis(redis, spare=False) as link:
            (answer,) = await link.ask(("PING",))
    except RemediatorError as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            return Probed(Health.UNKNOWN, str(error))
        return Probed(
            Health.DOWN if isinstance(cause, ConnectionRefusedError | socket.gaierror) else Health.SICK, str(error)
        )
    if answer != b"PONG":
        return Probed(Health.SICK, f"{where}: {str(answer)[:200]}")
    return Probed(Health.HEALTHY, f"{where}: answered after {human(time.monotonic() - began)}")
