"""Settings to a scrape engine: which collectors there are, what they share, and in which order they are asked.

In: settings. Out: a `ScrapeEngine` that has not started. Nothing is opened here.
"""

from __future__ import annotations

from exporter.collector_settings import Collectors
from exporter.collectors.base import Collector
from exporter.collectors.compliance import ComplianceCollector
from exporter.collectors.containers import ContainersCollector, cgroup_reader
from exporter.collectors.disk import DiskCollector
from exporter.collectors.docker import DockerCollector
from exporter.collectors.inventory import Inventory
from exporter.collectors.postgres import PostgresCollector
from exporter.scrape import STALE_AFTER_INTERVALS, Background, ScrapeEngine
from exporter.series_limit import SeriesLimit
from exporter.sessions import PostgresSession
from exporter.settings import Settings
from exporter.statefile import StateFile


def build(settings: Settings, limit: SeriesLimit | None = None) -> ScrapeEngine:
    """The engine. `limit` counts what the cap on series keeps back, over all engines of a process.
    Collectors that share a server's session come in the order in which they take turns on it.
    """
    collectors = settings.collectors
    at_scrape = [*_on_postgres(collectors)]
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
        if containers:
            at_scrape.append(ContainersCollector(inventory, read))
    limit = limit or SeriesLimit()
    limit.most = settings.scrape.max_series
    return ScrapeEngine(at_scrape, background, limit)


def _on_postgres(collectors: Collectors) -> list[Collector]:
    """One session a server, shared by all that read it: never more than one connection held."""
    postgres, compliance, found = collectors.postgres, collectors.compliance, list[Collector]()
    if postgres is None:
        return found
    sessions = {name: PostgresSession(name, server) for name, server in postgres.servers.items()}
    if postgres.enabled:
        found.append(PostgresCollector(sessions, postgres.long_query_seconds))
    if compliance and compliance.enabled:
        found.append(ComplianceCollector(sessions[compliance.server], compliance, StateFile(compliance.state_file)))
    return found
