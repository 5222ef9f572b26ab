"""The remediator's configuration file: shapes, ranges and units. Unknown keys are refused.

In: one YAML file. Out: one frozen `Settings`, or ConfigError with every fault. Secrets come by file only and
are read when they are used, so a rotated one needs no restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError

from remediator.durations import Duration
from remediator.errors import ConfigError, Fault
from remediator.runbooks import Mode, Strict, faults

Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+(/.*)?$")]


class Listen(Strict):
    """Where the webhook, API and metrics are served."""

    host: str = "0.0.0.0"  # noqa: S104 - in a container; the compose file publishes it on 127.0.0.1 only
    port: int = Field(default=11471, ge=0, le=65535)


class Webhook(Strict):
    """Intake of Alertmanager's notifications."""

    path: str = "/alertmanager"
    token_files: tuple[Path, ...] = Field(min_length=1)
    """Bearer tokens, one a file; two while rotating."""
    max_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    dead_letters: int = Field(default=1000, ge=1)
    """How many bodies that cannot be read are kept; more are only counted and told."""


class Journal(Strict):
    """The durable truth. SQLite for one process; PostgreSQL for several replicas."""

    url: str = "sqlite+aiosqlite:////var/lib/prep-remediator/journal.db"
    password_file: Path | None = None
    evidence_dir: Path = Path("/var/lib/prep-remediator/evidence")
    evidence_days: int = Field(default=30, ge=1)
    lease: Duration = 6.0
    renew: Duration = 2.0
    poll: Duration = 1.0


class Prometheus(Strict):
    """All Prometheus servers that evaluate the rules: an answer counts only when all of them give it."""

    urls: tuple[Url, ...] = Field(min_length=1)
    timeout: Duration = 3.0
    scrape_interval: Duration = 15.0
    max_skew: Duration = 5.0


class Alertmanager(Strict):
    """Every Alertmanager of the cluster: read for silences, told what people must know."""

    urls: tuple[Url, ...] = Field(min_length=1)
    timeout: Duration = 3.0
    receiver: str = "remediator"
    """Active alerts routed to this receiver are read each minute, so that no lost delivery stays lost."""
    repost: Duration = 60.0
    keep: Duration = 1800.0
    """`endsAt` of a posted alert: at least 30 minutes ahead, so that it does not resolve by itself."""


class Docker(Strict):
    """The engine, reached only through the gate."""

    gate_url: Url = "http://docker-gate:2375"
    project: str = "prep"
    timeout: Duration = 5.0
    label: str = "prep-ops.remediate"
    young: Duration = 120.0
    """A container started less than this ago is being worked on by somebody."""


class Probe(Strict):
    """A direct request to a service: healthy = expected status within `slower_than`."""

    url: Url
    slower_than: Duration = 5.0
    timeout: Duration = 8.0
    status: int = 200


class Service(Strict):
    """One service that may be restarted. What is not listed here cannot be acted on."""

    containers: int = Field(default=1, ge=1)
    """How many containers the service has when all is well; another count is refused."""
    singleton: bool = False
    """Said aloud: the only instance of its group may be restarted, the service is down meanwhile."""
    probe: Probe | None = None
    start_period: Duration = 30.0


class Database(Strict):
    """One PostgreSQL server whose reading queries may be ended."""

    host: str
    port: int = 5432
    database: str
    user: str
    password_file: Path
    timeout: Duration = 5.0
    protected_roles: tuple[str, ...] = ("postgres", "prep_exporter", "prep_remediator", "replicator")
    protected_applications: tuple[str, ...] = ("pg_dump", "pg_basebackup", "pg_restore", "psql-migration", "alembic")
    """Prefixes of application_name, compared in lower case."""
    pooler_applications: tuple[str, ...] = ("pgbouncer",)


class Guards(Strict):
    """Bounds over all runbooks. The floors are the table in docs/runbook-format.md."""

    all_per_hour: int = Field(default=10, ge=1)
    all_per_day: int = Field(default=30, ge=1)
    storm_episodes: int = Field(default=10, ge=2)
    """This many open firing episodes are a storm: nothing more is started, one page."""
    storm_calm: Duration = Field(default=600.0, ge=1.0)
    look_max_age: Duration = Field(default=5.0, gt=0, le=5.0)
    start_within: Duration = Field(default=10.0, gt=0, le=10.0)
    """`start_by` is at most this long after the look began."""
    clock_step: Duration = Field(default=5.0, gt=0, le=5.0)


class Settings(Strict):
    """Everything the remediator is told at start."""

    environment: str = Field(min_length=1)
    mode: Mode = "shadow"
    runbooks: Path = Path("/etc/prep/runbooks")
    alert_pages: Path = Path("/etc/prep/alerts")
    """Folder with a Markdown page per alert, served under /alerts/<name>: where `runbook_url` leads."""
    pause_file: Path = Path("/var/lib/prep-remediator/pause")
    listen: Listen = Listen()
    webhook: Webhook
    api_token_files: tuple[Path, ...] = ()
    journal: Journal = Journal()
    prometheus: Prometheus
    alertmanager: Alertmanager
    docker: Docker = Docker()
    services: Mapping[str, Service] = {}
    databases: Mapping[str, Database] = {}
    """By the value of the alert's `service` label."""
    guards: Guards = Guards()
    never: tuple[str, ...] = ("docker-gate", "prometheus", "alertmanager", "remediator", "exporter", "postgres")
    """Services that are never acted on: what the remediator stands on, and primary databases."""
    log_format: Literal["console", "json"] = "json"


def parse(text: str, where: str) -> Settings:
    """YAML text to settings. Raises ConfigError listing every fault with `where` and its path."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError([Fault(where, f"not YAML: {' '.join(str(error).split())}")]) from error
    if not isinstance(data, dict):
        raise ConfigError([Fault(where, "the configuration is a mapping")])
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(faults(error, where)) from error
    if overlap := sorted(set(settings.services) & set(settings.never)):
        raise ConfigError(
            [Fault(f"{where}: services.{name}", "is on the never list", "remove it here") for name in overlap]
        )
    return settings


def load(path: Path) -> Settings:
    """Read the file. Raises ConfigError, also when it cannot be read."""
    try:
        return parse(path.read_text(), str(path))
    except OSError as error:
        raise ConfigError([Fault(str(path), f"cannot be read: {error.strerror}")]) from error


def secret(path: Path) -> str:
    """A secret's value now: re-read at each use, trailing newline dropped. Raises ConfigError."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError([Fault(str(path), f"secret cannot be read: {error.strerror}")]) from error
