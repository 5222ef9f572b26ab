"""RegEngine documents, kept in Redis for a while.

In: codes of regulations. Out: their documents, from Redis where they are there, else from PostgreSQL, and then
written back for `ttl` seconds. Redis is a cache and nothing more: when it is away every look-up is a miss and the check
goes on, slower. A document that PostgreSQL does not have either raises UnknownRegulation.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from demo.service import Log, Pool
from exporter.catalog.services import CACHE_REQUESTS
from exporter.pools import PoolMetrics

_PREFIX = "regengine:regulation:"
_QUIET_SECONDS = 10.0
"""An absent Redis is told at most this often."""

_REDIS_ERRORS = (RedisError, OSError, TimeoutError)

Document = Mapping[str, Any]


class UnknownRegulation(Exception):
    """A rule refers to a regulation that no table has."""


class RegulationCache:
    """Documents by code. `timeout` seconds for each call to Redis, `ttl` seconds that a document is kept at least."""

    def __init__(self, pool: Pool, redis: Redis, registry: CollectorRegistry, ttl: float) -> None:
        self._pool = pool
        self._redis = redis
        self._ttl = ttl
        self._log: Log = structlog.get_logger("demo")
        self._told = -_QUIET_SECONDS
        name = CACHE_REQUESTS.name.removesuffix("_total")
        requests = Counter(name, CACHE_REQUESTS.help, CACHE_REQUESTS.label_names, registry=registry)
        self._hits, self._misses = requests.labels("hit"), requests.labels("miss")

    async def documents(self, codes: frozenset[str]) -> dict[str, Document]:
        """The documents with these codes. Raises UnknownRegulation, or what PostgreSQL raises when it is away."""
        wanted = sorted(codes)
        cached = await self._read(wanted)
        found = {code: json.loads(text) for code, text in zip(wanted, cached, strict=True) if text is not None}
        missing = [code for code in wanted if code not in found]
        self._hits.inc(len(found))
        self._misses.inc(len(missing))
        if missing:
            found.update(await self._load(missing))
        return found

    async def _load(self, codes: list[str]) -> dict[str, Document]:
        rows = await self._pool.fetch("SELECT code, document FROM regulations WHERE code = ANY($1)", codes)
        texts = {row["code"]: row["document"] for row in rows}
        if unknown := sorted(set(codes) - texts.keys()):
            raise UnknownRegulation(f"RegEngine has no regulation {', '.join(unknown)}")
        await self._write(texts)
        return {code: json.loads(text) for code, text in texts.items()}

    async def _read(self, codes: list[str]) -> list[str | bytes | None]:
        try:
            return list(await self._redis.mget([_PREFIX + code for code in codes])) if codes else []
        except _REDIS_ERRORS as error:
            self._tell(error)
            return [None] * len(codes)

    async def _write(self, texts: Mapping[str, str]) -> None:
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for code, text in texts.items():
                    # Up to a fifth longer, so that the documents do not all expire at once.
                    pipeline.set(_PREFIX + code, text, px=int(self._ttl * random.uniform(1.0, 1.2) * 1000))
                await pipeline.execute()
        except _REDIS_ERRORS as error:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        if time.monotonic() - self._told >= _QUIET_SECONDS:
            self._told = time.monotonic()
            reason = str(error) or type(error).__name__
            self._log.warning("RegEngine cache is away, reading from PostgreSQL", reason=reason)


def publish_connections(metrics: PoolMetrics, redis: Redis) -> None:
    """Publish how many of the connections to Redis are in use."""
    pool = redis.connection_pool

    def idle() -> int:
        return int(pool.get_connection_count()[0][0])

    def in_use() -> int:
        return int(pool.get_connection_count()[1][0])

    metrics.watch("redis", in_use=in_use, idle=idle, most=int(pool.max_connections))
