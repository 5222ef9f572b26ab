"""The pinned lists of other people's exporters are what those programs really give here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scripts import third_party_metrics as pins
from tests.support.servers import PostgresServer, RedisServer, Run, program
from tests.unit.rule_contract import given, named, promql, selectors
from tests.unit.rule_files import rules


def read_by_rules(source: str) -> set[str]:
    """Names of that program's metrics that a rule reads."""
    names = {named(each) for rule in rules() for each in selectors(promql.parse(rule["expr"]))}
    return {name for name in names if name in given() and given()[name].source == source}


def pinned(source: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((pins.OUT / f"{source}.json").read_text(encoding="utf-8"))
    return found


def missing(source: str, page: str) -> set[str]:
    """What rules read of the program and what its page does not have with the labels that are pinned."""
    shown = pins.families(page)
    metrics = pinned(source)["metrics"]
    return {
        name
        for name in read_by_rules(source)
        if name not in shown or shown[name]["labels"] != set(metrics[name]["labels"])
    }


def test_redis_exporter_gives_what_rules_read(run: Run) -> None:
    """Every redis_* name in a rule, of a Redis with a limit of memory."""
    source = "prometheus-redis-exporter"
    with RedisServer(run, options=["--maxmemory", "64mb"]) as redis:
        address = f"--redis.addr=redis://127.0.0.1:{redis.port}"
        with pins.Exporter(run, source, [address], "--web.listen-address") as exporter:
            assert read_by_rules(source)
            assert missing(source, pins.page(exporter.port)) == set()


def test_postgres_exporter_gives_what_rules_read(run: Run) -> None:
    """Every pg_* name in a rule, of a primary with a replica and a slot."""
    source = "prometheus-postgres-exporter"
    with PostgresServer(run) as primary:
        primary.sql("select pg_create_physical_replication_slot('pinned', true)")
        replica = primary.replica()
        dsn = f"{primary.dsn('postgres')}?sslmode=disable"
        with pins.Exporter(run, source, [], "--web.listen-address", {"DATA_SOURCE_NAME": dsn}) as exporter:
            assert read_by_rules(source)
            assert missing(source, pins.page(exporter.port)) == set()
        replica.stop()


def test_node_exporter_gives_what_rules_read(run: Run) -> None:
    """Every node_* name in a rule."""
    source = "prometheus-node-exporter"
    with pins.Exporter(run, source, [], "--web.listen-address") as exporter:
        assert read_by_rules(source)
        assert missing(source, pins.page(exporter.port)) == set()


@pytest.mark.parametrize(
    "source", ["prometheus-postgres-exporter", "prometheus-redis-exporter", "prometheus-node-exporter"]
)
def test_the_pinned_version_is_the_installed_one(source: str) -> None:
    """A new version is pinned anew, on purpose: `python -m scripts.third_party_metrics`."""
    assert pinned(source)["version"] == pins.version(program(source))
