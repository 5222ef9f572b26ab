"""Pools: what is published is what the pool has now, under the catalog's names."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from exporter.catalog import METRICS
from exporter.pools import PoolMetrics


def test_pool_is_asked_at_each_scrape() -> None:
    """In use, idle and the most that there may be; nothing is remembered from one scrape to the next."""
    registry, used = CollectorRegistry(), [1]
    PoolMetrics(registry).watch("postgres", in_use=lambda: used[0], idle=lambda: 4 - used[0], most=5)

    def connections(state: str) -> float | None:
        return registry.get_sample_value("prep_pool_connections", {"backend": "postgres", "state": state})

    assert (connections("in_use"), connections("idle")) == (1, 3)
    used[0] = 4
    assert (connections("in_use"), connections("idle")) == (4, 0)
    assert registry.get_sample_value("prep_pool_connections_max", {"backend": "postgres"}) == 5
    assert {family.name for family in registry.collect()} <= set(METRICS)


def test_families_are_made_once() -> None:
    """A second set in one registry is a mistake that is told at the start."""
    registry = CollectorRegistry()
    PoolMetrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        PoolMetrics(registry)
