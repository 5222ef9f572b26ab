"""What each collector is told: a class a collector, and `Collectors`, which holds them.

Shapes, ranges and units; what must fit together between them is `exporter.settings`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from exporter.background_settings import BackupsCollector, ProbesCollector, SloCollector, VendorsCollector
from exporter.cursor_settings import ComplianceCollector, PaymentsCollector, SecurityCollector
from exporter.durations import Duration
from exporter.setting_types import AbsolutePath, Name, Strict

_IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_$]{0,62}$"
_IDENTIFIERS = r"^[A-Za-z_][A-Za-z0-9_$]{0,62}(\.[A-Za-z_][A-Za-z0-9_$]{0,62})?$"
"""A name of SQL, alone or after its schema's; it is quoted when it is used."""


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


class Heartbeat(Strict):
    """A row on the primary that the platform itself writes every few seconds; the exporter only reads it."""

    table: str = Field(default="replication_heartbeat", pattern=_IDENTIFIERS)
    """Table, with its schema where that is not in the search path; of few rows, or with an index on the column."""
    column: str = Field(default="beat_at", pattern=_IDENTIFIER)
    """Column of type `timestamptz`; the newest is read."""


class Replica(Strict):
    """One expected replica."""

    server: Name | None = None
    """A key of `collectors.postgres.servers`: the replica itself, read for its own side of the link. None where it
    cannot be read; then it is only seen from the primary."""


class ReplicationCollector(Strict):
    """Collector `replication`, over the sessions of `collectors.postgres.servers`."""

    enabled: bool = True
    """Whether it runs."""
    primary: Name = "postgres"
    """The server that the replicas follow: a key of `collectors.postgres.servers`."""
    replicas: Mapping[Name, Replica] = Field(min_length=1)
    """Expected replicas by their `application_name`, which becomes the label `replica`."""
    slots: tuple[Name, ...] = ()
    """Expected replication slots; each is shown, also when it does not exist."""
    heartbeat: Heartbeat | None = None
    """None where the platform writes none."""


class RedisSessions(Strict):
    """Where the session store's size stands: one command of constant cost."""

    count: Literal["dbsize", "scard", "zcard", "hlen"] = "dbsize"
    """`dbsize` counts a database of its own; the others the members of one set, sorted set or hash."""
    key: str | None = Field(default=None, min_length=1)
    """That set, sorted set or hash; not with `dbsize`."""
    database: int = Field(default=0, ge=0)
    """Number of the database."""

    @model_validator(mode="after")
    def _key_where_it_is_needed(self) -> Self:
        if (self.key is None) != (self.count == "dbsize"):
            raise ValueError("`key` is needed with scard, zcard and hlen, and with those only")
        return self


class RedisServer(Strict):
    """One Redis server, read over one kept connection."""

    host: str = Field(min_length=1)
    """Name or address."""
    port: int = Field(default=6379, ge=1, le=65535)
    """TCP port."""
    user: str | None = None
    """An ACL user; None is Redis' user `default`."""
    password_file: AbsolutePath | None = None
    """None where the server asks for no password."""
    tls: bool = False
    """Whether to speak TLS; the server's certificate and name are then verified."""
    ca_file: AbsolutePath | None = None
    """Certificates to verify with; None takes the system's."""
    connect_timeout: Duration = 2.0
    """For connecting and logging in."""
    query_timeout: Duration = 5.0
    """The longest that one scrape's reading may take, when the scrape itself has longer."""
    session_age: Duration = 600.0
    """The kept connection is replaced when it is older: a name that moved to another server is followed."""
    sessions: RedisSessions | None = None
    """The platform's session store, if it is here."""


class RedisCollector(Strict):
    """Collector `redis`."""

    enabled: bool = True
    """Whether it runs."""
    servers: Mapping[Name, RedisServer] = Field(min_length=1)
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
    replication: ReplicationCollector | None = None
    """Replication as both sides see it."""
    redis: RedisCollector | None = None
    """Redis' core."""
    docker: DockerCollector | None = None
    """State of the containers."""
    containers: ContainersCollector | None = None
    """CPU and memory of the containers."""
    compliance: ComplianceCollector | None = None
    """Compliance checks out of the platform's table."""
    payments: PaymentsCollector | None = None
    """Payments out of the platform's table."""
    security: SecurityCollector | None = None
    """Logins and locks out of the platform's audit log."""
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
