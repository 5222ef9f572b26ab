"""What each collector is told: a class a collector, and `Collectors`, which holds them.

Shapes, ranges and units; what must fit together between them is `exporter.settings`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from exporter.background_settings import BackupsCollector, ProbesCollector, SloCollector, VendorsCollector
from exporter.durations import Duration
from exporter.setting_types import AbsolutePath, Name, Strict


class PostgresServer(Strict):
    """One PostgreSQL server, read over one kept session."""

    host: str = Field(min_length=1)
    """Name, address, or the directory of a Unix socket."""
    port: int = Field(default=5432, ge=1, le=65535)
    """TCP port, or the number in the socket's name."""
    database: str = Field(min_length=1)
    """Of the cursors' tables; the core's numbers are the whole server's."""
    user: str = Field(min_length=1)
    """A role with `pg_monitor`."""
    password_file: AbsolutePath | None = None
    """None where the server asks for no password (peer, certificate)."""
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """As libpq has it; `verify-*` read the certificates that libpq reads."""
    connect_timeout: Duration = 2.0
    """For one login."""
    query_timeout: Duration = 5.0
    """The longest that one scrape's reading may take, when the scrape itself has longer."""
    session_age: Duration = 600.0
    """The kept session is replaced when it is older: a name that moved to another server is followed."""


class PostgresCollector(Strict):
    """Collector `postgres`. Its servers are also those that the cursors read."""

    enabled: bool = True
    """Whether it runs."""
    long_query_seconds: float = Field(default=300.0, gt=0)
    """From how many seconds on a query is a long one."""
    servers: Mapping[Name, PostgresServer] = Field(min_length=1)
    """By the value of the label `server`."""


class DockerCollector(Strict):
    """Background collector `docker`."""

    enabled: bool = True
    """Whether it runs."""
    base_url: str = Field(default="tcp://docker-gate:2375", pattern=r"^(tcp|http|https|unix)://.+")
    """The gate in front of Docker's socket, or the socket itself (`unix:///var/run/docker.sock`)."""
    project: Name = "prep"
    """The Compose project; containers of others are not seen."""
    expected_services: tuple[Name, ...] = Field(min_length=1)
    """Services that must be there, and the only ones that are shown: one without a container is `missing`."""
    interval: Duration = 15.0
    """From one look to the next. Samples older than three intervals are not shown."""
    timeout: Duration = 10.0
    """For one whole look at all containers."""
    disk_usage: bool = True
    """Whether the collector `engine_disk` runs too: what the engine holds on its disk."""
    disk_usage_interval: Duration = 600.0
    """From one reckoning to the next: it makes the engine walk through all its layers and volumes."""
    disk_usage_timeout: Duration = 25.0
    """For one reckoning. The gate gives up a read after 30 s of silence."""


class ContainersCollector(Strict):
    """Collector `containers`: CPU and memory of the containers that `docker` found."""

    enabled: bool = True
    """Whether it runs."""
    cgroup_roots: tuple[AbsolutePath, ...] = (Path("/host/cgroup"), Path("/sys/fs/cgroup"))
    """Where the host's cgroup tree may be, version 1 or 2; the first that holds a container's files is read."""
    stats_fallback: bool = True
    """Ask Docker's stats call, in the background, for containers whose files cannot be read."""


class ComplianceCollector(Strict):
    """Collector `compliance`: a cursor over the platform's table."""

    enabled: bool = True
    """Whether it runs."""
    server: Name = "postgres"
    """A key of `collectors.postgres.servers`; it must be the primary."""
    state_file: AbsolutePath = Path("/var/lib/prep-exporter/compliance.json")
    """Where the cursor's position and totals are kept; a file of this exporter's own, on a volume that stays."""
    overlap: Duration = 600.0
    """How far back the cursor looks at most for rows that were committed late. A transaction that stays open for
    longer may be missed, which is shown."""
    margin: Duration = 10.0
    """How far back it looks always, for clocks that differ."""
    batch_rows: int = Field(default=20_000, ge=1, le=1_000_000)
    """New rows counted in one scrape at most; the rest follows in the next ones."""
    remembered_rows: int = Field(default=100_000, ge=1)
    """Ids remembered at most; some 100 bytes of memory each."""
    catching_up_after: Duration = 120.0
    """After this long without counting, what is then counted is flagged as catching up."""


class DiskCollector(Strict):
    """Collector `disk`."""

    enabled: bool = True
    """Whether it runs."""
    paths: Mapping[Name, AbsolutePath] = Field(min_length=1)
    """The label's value, and the path in this container where that filesystem is seen."""
    timeout: Duration = 2.0
    """For each path."""


class Collectors(Strict):
    """The collectors. One that is not named, or has `enabled: false`, does not run."""

    postgres: PostgresCollector | None = None
    """PostgreSQL's core."""
    docker: DockerCollector | None = None
    """State of the containers."""
    containers: ContainersCollector | None = None
    """CPU and memory of the containers."""
    compliance: ComplianceCollector | None = None
    """Compliance checks out of the platform's table."""
    disk: DiskCollector | None = None
    """Room on named paths."""
    probes: ProbesCollector | None = None
    """Addresses that are called."""
    vendors: VendorsCollector | None = None
    """Status pages of vendors."""
    backups: BackupsCollector | None = None
    """Evidence of backups."""
    slo: SloCollector | None = None
    """Objectives."""
