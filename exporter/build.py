"""Settings to a scrape engine: which collectors there are, what they share, and in which order they are asked.

In: settings. Out: a `ScrapeEngine` that has not started. Nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporter.collector_settings import Collectors
from exporter.collectors import compliance, payments, security
from exporter.collectors.backups import BackupsCollector
from exporter.collectors.base import Collector
from exporter.collectors.containers import ContainersCollector, cgroup_reader
from exporter.collectors.disk import DiskCollector
from exporter.collectors.docker import DockerCollector
from exporter.collectors.engine_disk import EngineDiskCollector
from exporter.collectors.inventory import Inventory
from exporter.collectors.postgres import PostgresCollector
from exporter.collectors.probes import ProbesCollector
from exporter.collectors.redis import RedisCollector
from exporter.collectors.replication import ReplicationCollector
from exporter.collectors.slo import SloCollector
from exporter.collectors.vendors import VendorsCollector
from exporter.cursor_settings import CursorSettings
from exporter.scrape import STALE_AFTER_INTERVALS, Background, ScrapeEngine
from exporter.series_limit import SeriesLimit
from exporter.sessions import PostgresSession
from exporter.settings import Settings
from exporter.statefile import StateFile
from exporter.table_cursor import CursorCollector
from exporter.table_reading import Reading

_TO_FINISH = 1.0
"""Seconds that a round has beyond the timeouts of its parts, which end by themselves and are told one by one."""


def build(settings: Settings, limit: SeriesLimit | None = None) -> ScrapeEngine:
    """The engine. `limit` counts what the cap on series keeps back, over all engines of a process.
    Collectors that share a server's session come in the order in which they take turns on it.
    """
    collectors = settings.collectors
    at_scrape = [*_on_postgres(collectors)]
    if collectors.redis and collectors.redis.enabled:
        at_scrape.append(RedisCollector(collectors.redis.servers))
    if collectors.disk and collectors.disk.enabled:
        at_scrape.append(DiskCollector(collectors.disk.paths, collectors.disk.timeout))
    background: list[Background] = []
    if collectors.docker and collectors.docker.enabled:
        containers = collectors.containers if collectors.containers and collectors.containers.enabled else None
        inventory = Inventory(STALE_AFTER_INTERVALS * collectors.docker.interval)
        read = cgroup_reader(containers.cgroup_roots if containers else ())
        fallback = containers is not None and containers.stats_fallback
        docker = DockerCollector(collectors.docker, inventory, read, fallback)
        background.append(Background(docker, collectors.docker.interval, collectors.docker.timeout))
        if collectors.docker.disk_usage:
            disk = EngineDiskCollector(collectors.docker)
            background.append(
                Background(disk, collectors.docker.disk_usage_interval, collectors.docker.disk_usage_timeout)
            )
        if containers:
            at_scrape.append(ContainersCollector(inventory, read))
    if collectors.slo and collectors.slo.enabled:
        at_scrape.append(SloCollector(collectors.slo.objectives))
    background += _elsewhere(collectors)
    limit = limit or SeriesLimit()
    limit.most = settings.scrape.max_series
    return ScrapeEngine(at_scrape, background, limit)


def _elsewhere(collectors: Collectors) -> Iterator[Background]:
    """Those that look at other machines over the network or at mounts, each on its own interval."""
    probes, vendors, backups = collectors.probes, collectors.vendors, collectors.backups
    if probes and probes.enabled:
        yield Background(ProbesCollector(probes), probes.interval, probes.round_timeout + _TO_FINISH)
    if vendors and vendors.enabled:
        yield Background(VendorsCollector(vendors), vendors.interval, vendors.timeout + _TO_FINISH)
    if backups and backups.enabled:
        yield Background(BackupsCollector(backups), backups.interval, backups.timeout + _TO_FINISH)


def _on_postgres(collectors: Collectors) -> list[Collector]:
    """One session a server, shared by all that read it: never more than one connection held."""
    postgres, replication, found = collectors.postgres, collectors.replication, list[Collector]()
    if postgres is None:
        return found
    sessions = {name: PostgresSession(name, server) for name, server in postgres.servers.items()}
    if postgres.enabled:
        found.append(PostgresCollector(sessions, postgres.long_query_seconds))
    if replication and replication.enabled:
        found.append(ReplicationCollector(sessions, replication))
    for settings, reading in cursors(collectors):
        found.append(CursorCollector(sessions[settings.server], reading, settings, StateFile(settings.state_file)))
    return found


def cursors(collectors: Collectors) -> list[tuple[CursorSettings, Reading[Any]]]:
    """The cursors that run, in the order in which they are asked."""
    found: list[tuple[CursorSettings, Reading[Any]]] = []
    if collectors.payments and collectors.payments.enabled:
        found.append((collectors.payments, payments.reading(collectors.payments)))
    if collectors.compliance and collectors.compliance.enabled:
        found.append((collectors.compliance, compliance.reading(collectors.compliance)))
    if collectors.security and collectors.security.enabled:
        found.append((collectors.security, security.reading(collectors.security)))
    return found
