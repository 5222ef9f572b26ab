"""Faults of Redis, by an ordinary client: connections that are never given back, and sessions that could be lost."""

from __future__ import annotations

import argparse
import asyncio
import uuid

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from demo.environment import Environment, text
from demo.fault_report import FaultError, tell

LEAKY = "leaky-reports"
"""The name under which the leaked connections stand in CLIENT LIST."""
SESSION_SECONDS = 3600


async def leak_connections(options: argparse.Namespace, environment: Environment) -> None:
    """Open connections until Redis has `options.spare` left, hold them for `options.seconds`. Raises FaultError.

    With none to spare somebody new comes every second meanwhile, as customers would: Redis turns them away.
    """
    held: list[Redis] = []
    try:
        first = await _open(environment, held)
        info = await first.info("clients")
        most, used = int(info["maxclients"]), int(info["connected_clients"])
        if used >= most - options.spare:
            raise FaultError(f"{used} of {most} connections are used already")
        for _ in range(most - options.spare - used):
            await _open(environment, held)
        tell("leaked", fault="leak-redis", connections=len(held), most=most)
        if options.spare:
            await asyncio.sleep(options.seconds)
        else:
            await _come_and_go(environment, options.seconds)
    except (RedisError, OSError) as error:
        raise FaultError(f"Redis: {error}") from error
    finally:
        for client in held:
            await client.aclose()


async def _come_and_go(environment: Environment, seconds: float) -> None:
    """Each second a new connection that is given back at once; being turned away is what it is for."""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        newcomer: list[Redis] = []
        try:
            await _open(environment, newcomer)
        except (RedisError, OSError):
            pass  # Redis counts it (rejected_connections)
        finally:
            for client in newcomer:
                await client.aclose()
        await asyncio.sleep(1.0)


async def put_sessions(options: argparse.Namespace, environment: Environment) -> None:
    """Log `options.count` people in. Raises FaultError."""
    held: list[Redis] = []
    try:
        client = await _open(environment, held)
        async with client.pipeline(transaction=False) as pipeline:
            for _ in range(options.count):
                pipeline.set(f"session:{uuid.uuid4().hex}", "logged in", ex=SESSION_SECONDS)
            await pipeline.execute()
        tell("logged in", fault="put-sessions", sessions=options.count)
    except (RedisError, OSError) as error:
        raise FaultError(f"Redis: {error}") from error
    finally:
        for client in held:
            await client.aclose()


async def _open(environment: Environment, held: list[Redis]) -> Redis:
    """One more connection, with its name, kept in `held`."""
    url = text(environment, "PREP_REDIS_URL", "redis://redis:6379/0")
    # One connection, never opened anew: what Redis closes stays closed.
    client = Redis.from_url(
        url, client_name=LEAKY, single_connection_client=True, retry=Retry(NoBackoff(), 0), socket_timeout=5.0
    )
    held.append(client)
    await client.initialize()
    await client.ping()
    return client
