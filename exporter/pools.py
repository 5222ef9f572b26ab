"""Use of a service's connection pools, published by the service itself: nobody outside can see it.

In: functions that say how many connections a pool has now. Out: two gauges of the catalog (collector `services`) in the
service's registry, asked for at each scrape. It must never touch a connection.

    pools = PoolMetrics(registry)
    pools.watch("postgres", in_use=lambda: pool.get_size() - pool.get_idle_size(), idle=pool.get_idle_size, most=5)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Gauge

from exporter.catalog.services import POOL_CONNECTIONS, POOL_CONNECTIONS_MAX


class PoolMetrics:
    """The two families in one registry. Raises ValueError (prometheus_client's) when it already holds them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        now, most = POOL_CONNECTIONS, POOL_CONNECTIONS_MAX
        self._connections = Gauge(now.name, now.help, now.label_names, registry=registry)
        self._most = Gauge(most.name, most.help, most.label_names, registry=registry)

    def watch(
        self, backend: Literal["postgres", "redis"], in_use: Callable[[], int], idle: Callable[[], int], most: int
    ) -> None:
        """Publish a pool; `in_use` and `idle` are called at each scrape and must not wait.

        A second pool of the same backend takes the first one's place.
        """
        self._connections.labels(backend, "in_use").set_function(in_use)
        self._connections.labels(backend, "idle").set_function(idle)
        self._most.labels(backend).set(most)
