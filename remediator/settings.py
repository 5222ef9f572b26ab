"""The remediator's configuration file: shapes, ranges and units. Unknown keys are refused.

In: one YAML file. Out: one frozen `Settings`, or ConfigError with every fault. Secrets come by file only and
are read when they are used, so a rotated one needs no restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator

from remediator.durations import WRITTEN, Duration
from remediator.errors import ConfigError, Fault
from remediator.runbooks import Mode, Strict, faults, text_of
from remediator.yaml_file import mapping

Role = Literal["viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")  # each may do what those before it may
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+(/.*)?$")]


class Tls(Strict):
    """Certificates by file; a file that changes counts within a second."""

    cert_file: Path
    """Certificate with its chain, PEM."""
    key_file: Path
    """Its private key, PEM, not encrypted."""
    client_ca_file: Path | None = None
    """Authorities of clients' certificates, PEM. With it the webhook takes deliveries only from clients with such a
    certificate; health, metrics and API ask for none."""
    client_allowed_sans: tuple[str, ...] = ()
    """Subject alternative names (DNS, e-mail, address, URI), one of which the certificate must have; none: any."""


class Listen(Strict):
    """Where the webhook, API and metrics are served."""

    host: str = "0.0.0.0"  # noqa: S104 - in a container; the compose file publishes it on 127.0.0.1 only
    """Address to listen on; the default is every interface."""
    port: int = Field(default=11471, ge=0, le=65535)
    """TCP port; 0 is a free one."""
    tls: Tls | None = None
    """Without it HTTP is served in plain: for one machine, or behind a proxy."""


class BasicAuth(Strict):
    """User and password, for an Alertmanager whose `http_config` has `basic_auth`."""

    user: str = Field(pattern=r"^[^:\x00-\x1f\x7f]+$")
    """Its `username`; no colon."""
    password_files: tuple[Path, ...] = Field(min_length=1)
    """Its `password`, one a file; two while rotating."""


class Webhook(Strict):
    """Intake of Alertmanager's notifications. Token, password or `listen.tls.client_ca_file`: one there must be."""

    path: str = "/alertmanager"
    """The one exact path that takes deliveries; Alertmanager's `webhook_configs.url` ends with it."""
    token_files: tuple[Path, ...] = ()
    """Bearer tokens, one a file; two while rotating."""
    basic_auth: BasicAuth | None = None
    """A user with a password, instead of a token or beside it."""
    max_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Of one delivery, decompressed. A larger one is answered 413, recorded, and its alerts are read from
    Alertmanager."""
    dead_letters: int = Field(default=1000, ge=1)
    """How many bodies that cannot be read are kept; more are only counted and told."""


class Journal(Strict):
    """The durable truth. SQLite for one process; PostgreSQL for several replicas."""

    url: str = "sqlite:////var/lib/prep-remediator/journal.db"
    """`sqlite:////absolute/path` or `postgresql+asyncpg://user@host/database`, without a password."""
    password_file: Path | None = None
    """Password of the journal's PostgreSQL role; null where none is asked for."""
    evidence_dir: Path = Path("/var/lib/prep-remediator/evidence")
    """Folder of the captured evidence, 0700. Beside it lie `journal.seal` and, on PostgreSQL, `journal.witness`."""
    evidence_days: int = Field(default=30, ge=1)
    """After so many days evidence is removed."""
    lease: Duration = 6.0
    """For so long an episode is its owner's without a renewal; in its last third nothing is started."""
    renew: Duration = 2.0
    """From one renewal, heartbeat and look at the clocks to the next; well under `lease`."""
    poll: Duration = 1.0
    """The longest sleep before due work is looked for."""
    async_standby: Literal["tell", "refuse"] = "tell"
    """When the journal's PostgreSQL has a standby for which no COMMIT waits: a failover to it would lose events. `tell`
    warns in the log; `refuse` does not start, and begins nothing while there is one that was added later. Looked for at
    start and each minute. Either way a loss that is noticed stops everything."""


class Prometheus(Strict):
    """All Prometheus servers that evaluate the rules: an answer counts only when all of them give it."""

    urls: tuple[Url, ...] = Field(min_length=1)
    """All of them. One that is silent makes the rule unknown, and nothing is done."""
    timeout: Duration = 3.0
    """For one question."""
    scrape_interval: Duration = 15.0
    """As in prometheus.yml. Proof samples older than two of it count as stale, and it is in the floor of
    `proof.hold`."""
    max_skew: Duration = 5.0
    """How far Prometheus' clock may be off from this machine's."""


class Alertmanager(Strict):
    """Every Alertmanager of the cluster: read for silences, told what people must know."""

    urls: tuple[Url, ...] = Field(min_length=1)
    """All of them. Silences must be readable at every one; own alerts are posted to every one."""
    timeout: Duration = 3.0
    """For one question or post."""
    receiver: str = "remediator"
    """Active alerts routed to this receiver are read each minute, so that no lost delivery stays lost."""
    keep: Duration = 1800.0
    """`endsAt` of a posted alert: at least 30 minutes ahead, so that it does not resolve by itself."""


class Prune(Strict):
    """Deleting this project's old images and ended one-off containers, by a runbook and with two persons' approval."""

    keep: int = Field(default=2, ge=2)
    """So many images before the one that runs stay for each service: to roll back to."""
    min_age: Duration = Field(default=7 * 86400.0, gt=0)
    """Whatever came to the engine, or ended, less than this ago stays."""
    disk: Path = Path("/")
    """A folder on the file system that holds the engine's data: what is free is measured there. The root of a container
    lies on it."""


class Docker(Strict):
    """The engine, reached only through the gate."""

    gate_url: Url = "http://docker-gate:2375"
    """The gate; never the socket itself."""
    project: str = "prep"
    """The Compose project; containers of others are not seen."""
    timeout: Duration = 5.0
    """For one read; a restart has its rung's deadline."""
    label: str = "prep-ops.remediate"
    """A container must carry this label with the value `true` to be restarted."""
    young: Duration = 120.0
    """A container started less than this ago is being worked on by somebody."""
    prune: Prune | None = None
    """Without it nothing is ever deleted, and the gate's configuration has no rule that would let it. `null` says so
    aloud, and `prepctl runbook:check` then asks no more."""


class Probe(Strict):
    """A direct request to a service: healthy = expected status within `slower_than`."""

    url: Url
    """Asked with GET; redirects are not followed."""
    slower_than: Duration = 5.0
    """A right answer that takes longer is a sick one; a look waits no longer than this."""
    timeout: Duration = 8.0
    """How long the evidence waits, to see what the answer would have been."""
    status: int = 200
    """The HTTP status of a healthy service."""


class Service(Strict):
    """One service that may be restarted. What is not listed here cannot be acted on."""

    containers: int = Field(default=1, ge=1)
    """How many containers the service has when all is well; another count is refused."""
    singleton: bool = False
    """Said aloud: the only instance of its group may be restarted, the service is down meanwhile."""
    min_healthy: int = Field(default=1, ge=0)
    """So many other containers of the service must be running and not unhealthy while one is restarted; of a singleton
    there are none."""
    probe: Probe | None = None
    """Without it a runbook with `vantage: {kind: probe}` never acts on this service."""


class Database(Strict):
    """One PostgreSQL server: its reading queries may be ended, and if it is a replica, it may be restarted."""

    host: str
    """Name or address."""
    port: int = 5432
    """TCP port."""
    database: str
    """Any database of the server that the role may log in to: sessions are seen over all of them."""
    user: str
    """A role with `pg_read_all_stats` and `pg_signal_backend`, and no table."""
    password_file: Path
    """The role's password."""
    timeout: Duration = 5.0
    """For the login and for each statement, at the server too."""
    protected_roles: tuple[str, ...] = ("postgres", "prep_exporter", "prep_remediator", "replicator")
    """Their queries are never ended; superusers and replication roles are not either."""
    protected_applications: tuple[str, ...] = ("pg_dump", "pg_basebackup", "pg_restore", "psql-migration", "alembic")
    """Prefixes of application_name, compared in lower case."""
    pooler_applications: tuple[str, ...] = ("pgbouncer",)
    """As above, for connections that many clients share."""
    replica_of: str | None = None
    """The entry of `databases` that is its primary. With it, and listed under `services` too, its container may be
    restarted by `restart_replica`; no other action restarts a database."""


class PaymentsOwner(Strict):
    """One payments service whose failed payments may be retried, through itself: docs/payments-contract.md."""

    url: Url
    """Where the service offers the contract."""
    token_file: Path
    """The bearer token that it asks for."""
    timeout: Duration = 3.0
    """For one question; a retry has its rung's deadline."""
    status_page: Url | None = None
    """The provider's own page, for the evidence: `https://status.stripe.com/api/v2/status.json`. null where there is no
    way out: the evidence then says that it was not asked."""


class RedisSessions(Strict):
    """Where the sessions live: one count of constant cost, never a walk over the keys."""

    count: Literal["dbsize", "hlen", "scard", "zcard"] = "dbsize"
    """The command that counts: all keys of the database, or the members of one key."""
    database: int = Field(default=0, ge=0)
    """Number of the database."""
    key: str | None = None
    """The one key that holds them; not with `dbsize`."""

    @model_validator(mode="after")
    def _key_where_it_is_needed(self) -> RedisSessions:
        if (self.count == "dbsize") != (self.key is None):
            raise ValueError("`key` goes with hlen, scard and zcard, and with those only")
        return self


class Redis(Strict):
    """One Redis server that may be mended. Its rights: docs/architecture.md, "Rights of the remediator in Redis"."""

    host: str
    """Name or address."""
    port: int = 6379
    """TCP port."""
    user: str | None = None
    """A user of its own, see there for its rights; null is Redis' `default`."""
    password_file: Path | None = None
    """The user's password; null where none is asked for."""
    tls: bool = False
    """Speak TLS, and check the server's certificate."""
    ca_file: Path | None = None
    """Authorities for that, PEM; null: the system's."""
    timeout: Duration = Field(default=2.0, gt=0)
    """For the login and for each question."""
    cache_only: bool = False
    """Said aloud: nothing in it is worth keeping. Without it a restart that would lose keys waits for a person."""
    sessions: RedisSessions | None = None
    """Where the sessions live, if they live here: a restart that would lose some waits for a person."""
    maxmemory_cap: int = Field(default=0, ge=0)
    """Bytes up to which `maxmemory` may be raised; 0: never. 60 % of the container's limit bounds it too."""
    protected_clients: tuple[str, ...] = ("prep_exporter", "prep-remediator")
    """Prefixes of client names, compared in lower case: these are never closed."""
    protected_users: tuple[str, ...] = ()
    """Users of Redis whose clients are never closed."""


class Operator(Strict):
    """One person, or one program, that may use the API."""

    token_files: tuple[Path, ...] = Field(min_length=1)
    """Bearer tokens, one a file; two while rotating. Another person must not have any of them."""
    role: Role = "operator"
    """`viewer` reads; `operator` also pauses, approves, declines and settles doubts; `admin` may do everything."""


class ConsoleProxy(Strict):
    """A proxy before the console, believed by its address only. Without this section no such header counts."""

    addresses: tuple[str, ...] = Field(min_length=1)
    """Addresses or networks (`10.0.0.5`, `10.1.0.0/16`) that it asks from. Believed from these: `X-Forwarded-Proto`,
    and of `X-Forwarded-For` the last address."""
    user_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = None
    """Header in which it names the person that it has logged in: one of `operators`, whose role counts. It must strip
    the header from what comes in. `null`: people log in with their tokens."""

    @model_validator(mode="after")
    def _networks(self) -> ConsoleProxy:
        for each in self.addresses:
            ip_network(each)
        return self


class Console(Strict):
    """Pages for people under `/console`, with the same tokens and roles as the API: docs/console.md."""

    enabled: bool = True
    """`false`: there are no such pages."""
    session: Duration = Field(default=12 * 3600.0, ge=60.0, le=7 * 86400.0)
    """After so long one logs in again. A token that is taken away, and a restart, end a session at once."""
    proxy: ConsoleProxy | None = None
    """Without it everybody is who his token says, and where his connection comes from."""


class Guards(Strict):
    """Bounds over all runbooks. The floors are the table in docs/runbook-format.md."""

    all_per_hour: int = Field(default=10, ge=1)
    """Attempts of all runbooks in any 3,600 seconds."""
    all_per_day: int = Field(default=30, ge=1)
    """Attempts of all runbooks in any 86,400 seconds."""
    storm_episodes: int = Field(default=10, ge=2)
    """This many open firing episodes are a storm: nothing more is started until it is over."""
    storm_calm: Duration = Field(default=600.0, gt=0)
    """A storm is over when there have been fewer such episodes for so long, or when a person says so. Then one after
    the other is released, the most severe first, each proven before the next; so it is after a pause of all."""
    budget_episodes: int = Field(default=10, ge=3, le=20)
    """The automation's own budget: of a runbook's so many latest episodes in which it acted ..."""
    budget_failures: int = Field(default=3, ge=1)
    """... this many whose last attempt is not proven fixed demote it: it only asks until a person restores it."""
    look_max_age: Duration = Field(default=5.0, gt=0, le=5.0)
    """An intent rests on a look that is at most this old; also the limit for the preview in it."""
    start_within: Duration = Field(default=10.0, gt=0, le=10.0)
    """`start_by` is at most this long after the look began."""
    clock_step: Duration = Field(default=5.0, gt=0, le=5.0)
    """A step of the wall clock, or a journal ahead of it, by more than this stops new intents."""


class Promotion(Strict):
    """When a runbook is ready for more: what `prepctl shadow:report` and `runbook:promote` go by.

    docs/trust-by-steps.md says what each counts, and why its floor is there.
    """

    window: Duration = Field(default=30 * 86400.0, ge=7 * 86400.0, le=90 * 86400.0)
    """Only episodes of the last so long are evidence."""
    watch: Duration = Field(default=600.0, ge=300.0, le=3600.0)
    """For so long after the moment to act, what speaks against it is looked for; before that nothing is judged."""
    heals_within: Duration = Field(default=120.0, ge=30.0, le=3600.0)
    """What heals by itself so soon after the moment to act would have been acted on for nothing."""
    returns_within: Duration = Field(default=3600.0, ge=300.0, le=86400.0)
    """The same alert for the same target so soon after its end has come back."""
    approve_episodes: int = Field(default=5, ge=3)
    """Ready for approve: at least so many judged episodes in which it would have acted ..."""
    approve_days: int = Field(default=3, ge=2)
    """... on so many different days ..."""
    approve_wrong: float = Field(default=0.2, ge=0.0, le=0.2)
    """... and at most this share of them would have been wrong."""
    auto_episodes: int = Field(default=20, ge=10)
    """Ready for auto: at least so many judged episodes in which it would have acted, or has ..."""
    auto_days: int = Field(default=7, ge=5)
    """... on so many different days ..."""
    auto_wrong: float = Field(default=0.05, ge=0.0, le=0.05)
    """... at most this share of them wrong ..."""
    auto_fixed: int = Field(default=5, ge=3)
    """... so many really done, after a person's yes, and proven fixed: a shadow cannot show that an action helps ..."""
    auto_recurrence: int = Field(default=4, ge=1, le=10)
    """... and at most so many of them on one target within 7 days: what returns so often has a cause."""


class Settings(Strict):
    """Everything the remediator is told at start."""

    environment: str = Field(min_length=1)
    """Alerts with another value of the label `environment` are foreign and never acted on."""
    mode: Mode = "shadow"
    """`shadow` writes down what it would do, `approve` asks, `auto` acts. The stricter of this, the runbook's and
    every live replica's holds."""
    runbooks: Path = Path("/etc/prep/runbooks")
    """Folder of the runbooks: all of its `*.yml` load, or none."""
    alert_pages: Path = Path("/etc/prep/alerts")
    """Folder with a Markdown page per alert, served under `/alerts/<name>`: where `runbook_url` leads."""
    pause_file: Path = Path("/var/lib/prep-remediator/pause")
    """While this file is there nothing is begun; it works without the journal and without the API."""
    listen: Listen = Listen()
    webhook: Webhook
    api_token_files: tuple[Path, ...] = ()
    """Bearer tokens that people share, one a file, with the role operator; who acts is what they say. Without these and
    without `operators` the API answers 403 to everybody."""
    operators: Mapping[Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")], Operator] = {}
    """People by name, each with tokens of their own. Approving what needs two persons needs two of these."""
    console: Console = Console()
    journal: Journal = Journal()
    prometheus: Prometheus
    alertmanager: Alertmanager
    docker: Docker = Docker()
    services: Mapping[str, Service] = {}
    """By the name of the Compose service, which is the value of the alert's `service` label."""
    databases: Mapping[str, Database] = {}
    """By the value of the alert's `service` label."""
    payments: Mapping[str, PaymentsOwner] = {}
    """By the value of the alert's `service` label."""
    redis: Mapping[str, Redis] = {}
    """By the value of the alert's `service` label; to be restarted it stands under `services` too."""
    guards: Guards = Guards()
    promotion: Promotion = Promotion()
    never: tuple[str, ...] = ("docker-gate", "prometheus", "alertmanager", "remediator", "exporter", "postgres")
    """Services that are never acted on: what the remediator stands on, and primary databases."""
    log_format: Literal["console", "json"] = "json"
    """One JSON object a line, or lines for a terminal."""


def parse(text: str, where: str) -> Settings:
    """YAML text to settings. Raises ConfigError listing every fault with `where` and its path."""
    data = mapping(text, where, "the configuration")
    try:
        settings = Settings.model_validate(data, context=WRITTEN)
    except ValidationError as error:
        raise ConfigError(faults(error, where)) from error
    if found := list(_contradictions(settings, where)):
        raise ConfigError(found)
    return settings


def _contradictions(settings: Settings, where: str) -> Iterator[Fault]:
    """What each key may say by itself, and all together may not."""
    for name in sorted(set(settings.services) & set(settings.never)):
        yield Fault(f"{where}: services.{name}", "is on the never list", "remove it here")
    for name in sorted(set(settings.services) & footing(settings) - set(settings.never)):
        said = "is what the remediator itself stands on: a URL of these settings leads to it"
        yield Fault(f"{where}: services.{name}", said, "remove it here")
    yield from _replicas(settings, where)
    hook, tls = settings.webhook, settings.listen.tls
    if not hook.token_files and hook.basic_auth is None and (tls is None or tls.client_ca_file is None):
        remedy = "name token_files or basic_auth here, or client_ca_file under listen.tls"
        yield Fault(f"{where}: webhook", "would take alerts from anybody", remedy)
    if tls is not None and tls.client_allowed_sans and tls.client_ca_file is None:
        remedy = "name the authority in client_ca_file"
        yield Fault(f"{where}: listen.tls.client_allowed_sans", "is nothing without certificates of clients", remedy)


def footing(settings: Settings) -> frozenset[str]:
    """Host names of what the remediator itself stands on: restarting one would blind or behead it."""
    urls = (settings.docker.gate_url, *settings.prometheus.urls, *settings.alertmanager.urls, settings.journal.url)
    hosts = {urlsplit(url).hostname for url in urls}
    return frozenset(host for host in hosts if host)


def _replicas(settings: Settings, where: str) -> Iterator[Fault]:
    """Who is whose replica, and that only replicas may be restarted."""
    for name, database in sorted(settings.databases.items()):
        primary = settings.databases.get(database.replica_of or "")
        if database.replica_of is not None and (primary is None or primary.replica_of is not None):
            said = f"{database.replica_of} is no primary of `databases`"
            yield Fault(f"{where}: databases.{name}.replica_of", said, "name an entry that is no replica itself")
    for name in sorted(set(settings.services) & set(settings.databases)):
        if settings.databases[name].replica_of is None:
            said = "is a database that is no replica: a primary is never restarted"
            yield Fault(f"{where}: services.{name}", said, "remove it here, or say whose replica_of it is")
        elif settings.services[name].containers != 1:
            said = "one address is one server: a replica is one container"
            yield Fault(f"{where}: services.{name}.containers", said, "list each replica by itself")


def load(path: Path) -> Settings:
    """Read the file. Raises ConfigError, also when it cannot be read."""
    return parse(text_of(path, str(path)), str(path))


def secret(path: Path) -> str:
    """A secret's value now: re-read at each use, trailing newline dropped. Raises ConfigError."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError([Fault(str(path), f"secret cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(str(path), "secret is no text", "write it as UTF-8")]) from error
