"""One exporter with all its collectors, and each backend ill in each way, as Prometheus sees it on /metrics.

The promise is the same each time: status 200 inside of Prometheus' own time; success 0 for the ill one, none of its
samples but those that say so, and no old value; every sample of all the others; one connection held at most; well again
by itself. docs/exporter-illness.md has the table, which names these tests.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from exporter.server import TIMEOUT_HEADER
from tests.integration.exporter_parts import ROLE, ROLE_PASSWORD, platform
from tests.integration.test_exporter_process import Found, connections, key, read
from tests.support.mounts import hanging
from tests.support.s3 import KEY_ID, SECRET_KEY
from tests.support.servers import (
    Answer,
    Database,
    PostgresServer,
    RedisServer,
    Request,
    Run,
    S3Server,
    Service,
    StubServer,
    TcpProxy,
    fetch,
    free_port,
    wait_until,
)

SCRAPE_TIMEOUT, OFFSET = 1.3, 0.7
"""Seconds that Prometheus would wait, and how long before that the exporter's deadline is."""
GARBAGE = b"\x00\xff\xfeHTTP/9.9 what\r\n" * 40
SLOW = 2.5
"""Seconds for each piece in each direction: longer than any deadline here."""
AT_SCRAPE = ("postgres", "replication", "redis", "compliance", "disk")
PROXIED = ("postgres", "standby", "redis", "docker", "s3", "vendor", "probe")


class Platform(StubServer):
    """An engine's API with no container on it, a vendor's status page, and a service: whatever is asked for."""

    def answer(self, request: Request) -> Answer:
        path = request.path.split("?")[0]
        known: dict[str, Any] = {
            "version": {"ApiVersion": "1.44"},
            "info": {"NCPU": 2, "MemTotal": 1 << 30},
            "containers/json": [],
            "images/json": [],
            "system/df": {"LayersSize": 0, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []},
            "status.json": {"status": {"indicator": "none"}},
        }
        found = next((value for end, value in known.items() if path.endswith(end)), {"ok": True})
        return Answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})


@dataclass
class Site:
    """All backends, a proxy before each, and the exporter. `before` is its page when all is well."""

    primary: PostgresServer
    replica: PostgresServer
    redis: RedisServer
    s3: S3Server
    database: Database
    folder: Path
    proxies: dict[str, TcpProxy]
    service: Service
    url: str
    before: Found = field(default_factory=dict)

    def page(self) -> Found:
        """A scrape; it must have been answered in time, whatever is ill."""
        began = time.monotonic()
        reply = fetch(self.url, headers={TIMEOUT_HEADER: str(SCRAPE_TIMEOUT)}, timeout=15)
        took = time.monotonic() - began
        assert (reply.status, took < SCRAPE_TIMEOUT) == (200, True), f"{reply.status} after {took:.2f} s"
        return read(reply.text)

    def well(self) -> bool:
        """Whether every collector succeeds and nothing of what was there is missing."""
        found = self.page()
        return all(found[each] == 1 for each in successes(found)) and set(self.before) <= set(found) and ups(found)

    def held(self, backend: str) -> int:
        """Connections that the exporter holds to this backend."""
        return connections(psutil.Process(self.service.pid), self.proxies[backend].port)

    def mend(self) -> None:
        """Whatever was broken at a proxy is whole again."""
        for proxy in self.proxies.values():
            proxy.delay, proxy.garbage = 0.0, None
            proxy.thaw()
            proxy.accept()


def successes(found: Found) -> list[tuple[str, frozenset[tuple[str, str]]]]:
    return [each for each in found if each[0] == "prep_scrape_collector_success"]


def ups(found: Found) -> bool:
    names = ("prep_postgres_up", "prep_redis_up", "prep_probe_up", "prep_vendor_page_up", "prep_backup_listed")
    return all(value == 1 for each, value in found.items() if each[0] in names)


def configuration(site: Site, port: int) -> dict[str, Any]:
    folder, proxies = site.folder, site.proxies
    login = {"host": "127.0.0.1", "database": site.database.name, "user": ROLE, "password_file": str(folder / "secret")}
    keys = {"access_key_id_file": str(folder / "id"), "secret_access_key_file": str(folder / "key")}
    quick = {"timeout": "900ms"}
    return {
        "web": {"listen_address": f"127.0.0.1:{port}"},
        "scrape": {"timeout_offset": f"{OFFSET}s"},
        "collectors": {
            "postgres": {
                "servers": {name: {**login, "port": proxies[name].port} for name in ("postgres", "standby")},
            },
            "replication": {"replicas": {site.replica.folder.name: {"server": "standby"}}, "heartbeat": {}},
            "redis": {"servers": {"redis": {"host": "127.0.0.1", "port": proxies["redis"].port}}},
            "compliance": {"state_file": str(folder / "compliance.json"), "margin": "200ms"},
            "disk": {"paths": {"/": "/", "data": str(folder / "data")}, "timeout": "500ms"},
            "docker": {
                "base_url": f"tcp://127.0.0.1:{proxies['docker'].port}",
                "expected_services": ["redis"],
                "interval": "600ms",
                "timeout": "500ms",
                "disk_usage_interval": "600ms",
                "disk_usage_timeout": "500ms",
            },
            "containers": {},
            "probes": {
                "interval": "1s",
                "targets": {"service": {"url": f"http://127.0.0.1:{proxies['probe'].port}/health", **quick}},
            },
            "vendors": {
                "interval": "1s",
                "pages": {"stripe": {"url": f"http://127.0.0.1:{proxies['vendor'].port}", **quick}},
            },
            "backups": {
                "interval": "1s",
                "directories": {"local": {"path": str(folder / "backups"), "files": "*.dump", **quick}},
                "buckets": {
                    "s3": {"bucket": "backups", "endpoint": proxies["s3"].url, "files": "*.dump", **keys, **quick}
                },
            },
            "slo": {"objectives": {"payments": {"ratio": 0.995}}},
        },
    }


@pytest.fixture(scope="module")
def whole_site(run: Run) -> Iterator[Site]:
    """Started once; each test leaves it well."""
    few = {"max_connections": "12", "superuser_reserved_connections": "3", "wal_retrieve_retry_interval": "100ms"}
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(1) as pool:
        store = S3Server(run, name="ill-s3")
        stack.callback(store.stop)
        starting = pool.submit(store.start)  # takes as long as PostgreSQL's two
        primary = stack.enter_context(PostgresServer(run, few, name="ill-primary"))
        database = platform(primary)
        primary.role("crowd", "x")
        database.sql("insert into replication_heartbeat values (true, clock_timestamp())")
        replica = primary.replica(few, name="ill-replica")
        stack.callback(replica.stop)
        cache = stack.enter_context(RedisServer(run, name="ill-redis"))
        starting.result()
        stub = stack.enter_context(Platform())
        behind = {"postgres": primary.port, "standby": replica.port, "redis": cache.port, "s3": store.port}
        proxies = {name: stack.enter_context(TcpProxy(behind.get(name, stub.port))) for name in PROXIED}
        port = free_port()
        folder = run.folder(f"ill-exporter-{port}")
        service = Service(
            run,
            ["prep-exporter", f"--config.file={folder / 'exporter.yml'}"],
            ready_url=f"http://127.0.0.1:{port}/-/ready",
            name=f"ill-exporter-{port}",
        )
        site = Site(
            primary, replica, cache, store, database, folder, proxies, service, f"http://127.0.0.1:{port}/metrics"
        )
        for name, text in (("secret", ROLE_PASSWORD), ("id", KEY_ID), ("key", SECRET_KEY)):
            (folder / name).write_text(text)
        for name in ("data", "backups"):
            (folder / name).mkdir()
        (folder / "backups" / "1.dump").write_bytes(b"x")
        os.utime(folder / "backups" / "1.dump", (time.time() - 3600,) * 2)
        assert fetch(f"{store.url}/backups", "PUT").status == 200
        store.put("backups", "1.dump", 10)
        (folder / "exporter.yml").write_text(yaml.safe_dump(configuration(site, port)))
        service.start()
        stack.callback(service.kill)
        replica.wait_caught_up()
        wait_until(site.well, "all to be well", 30, seen=service.tail)
        yield site


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    whole_site.before = {}
    wait_until(whole_site.well, "all to be well before", 30, seen=whole_site.service.tail)
    whole_site.before = whole_site.page()
    yield whole_site
    whole_site.mend()


# What is whose

OF_REPLICA = (
    "prep_replication_last_message_timestamp_seconds",
    "prep_replication_last_replayed_transaction_timestamp_seconds",
    "prep_replication_replay_paused",
)
Key = tuple[str, frozenset[tuple[str, str]]]


def labelled(each: Key, **labels: str) -> bool:
    return labels.items() <= dict(each[1]).items()


def of_primary(each: Key) -> bool:
    """All that only the primary can say, or that cannot be said without its position."""
    name = each[0]
    if (
        name.startswith(("prep_postgres_", "prep_compliance_"))
        or name == "prep_replication_heartbeat_timestamp_seconds"
    ):
        return not labelled(each, server="standby")
    if name == "prep_replication_streaming":
        return labelled(each, side="primary")
    return name.startswith("prep_replication_") and name not in (*OF_REPLICA, "prep_replication_replicas_expected")


def of_replica(each: Key) -> bool:
    return labelled(each, server="standby") or labelled(each, side="replica") or each[0] in OF_REPLICA


def of_redis(each: Key) -> bool:
    return each[0].startswith("prep_redis_")


def of_locked_tables(each: Key) -> bool:
    return each[0].startswith("prep_compliance_") or each[0] == "prep_replication_heartbeat_timestamp_seconds"


def of_mounts(each: Key) -> bool:
    if each[0].startswith("prep_filesystem_"):
        return labelled(each, path="data")
    return each[0].startswith("prep_backup_") and labelled(each, backup="local")


@dataclass(frozen=True)
class Ill:
    """What an illness takes: which collectors have success 0, whose samples are gone, what stays of them and says so."""

    collectors: tuple[str, ...]
    gone: Callable[[Key], bool]
    stays: dict[Key, float] = field(default_factory=dict)


def check(site: Site, ill: Ill, scrapes: int = 2) -> Found:
    """The promise, on so many pages; the last one. Values differ from page to page; which series there are may not.

    What is ill has nothing but what says so, on every page. What is well is whole, and what is ill says so: a page on
    which a machine that is busy with other things was late with something is scraped again, and an illness that takes
    something away takes it each time.
    """
    found, told = site.page(), ""
    for _ in range(scrapes + 6):
        failing = {dict(each[1])["collector"] for each in successes(found) if found[each] == 0}
        assert failing >= set(ill.collectors), site.service.tail(5)
        shown = {each: value for each, value in found.items() if ill.gone(each)}
        assert shown.items() <= ill.stays.items()
        missing = ({each for each in site.before if not ill.gone(each)} | set(ill.stays)) - set(found)
        if failing == set(ill.collectors) and not missing:
            scrapes -= 1
            if scrapes == 0:
                return found
        else:
            told = f"failing: {failing}, missing: {missing}"
        found = site.page()
    raise AssertionError(f"what is well is not whole, {told}\n{site.service.tail(5)}")


PRIMARY = Ill(("postgres", "replication", "compliance"), of_primary, {key("prep_postgres_up", server="postgres"): 0})
REPLICA = Ill(("postgres", "replication"), of_replica, {key("prep_postgres_up", server="standby"): 0})
REDIS = Ill(("redis",), of_redis, {key("prep_redis_up", server="redis"): 0})
ANSWERS = {"postgres": PRIMARY, "standby": REPLICA, "redis": REDIS}


def recovers(site: Site) -> None:
    wait_until(site.well, "it to be well by itself", 30, seen=site.service.tail)


@contextlib.contextmanager
def illness(site: Site, backend: str, kind: str) -> Iterator[None]:
    """The backend's process is frozen where it has one; all else is done to the way there."""
    server = {"postgres": site.primary, "standby": site.replica, "redis": site.redis, "s3": site.s3}.get(backend)
    proxy = site.proxies[backend]
    with contextlib.ExitStack() as stack:
        if kind == "frozen" and server is not None:
            stack.enter_context(server.frozen())
        elif kind == "frozen":
            proxy.freeze()
        elif kind == "refusing":
            proxy.refuse()
            proxy.reset()
        elif kind == "slow":
            proxy.delay = SLOW
        else:
            proxy.garbage = GARBAGE
        yield
        site.mend()


@pytest.mark.parametrize("kind", ["frozen", "refusing", "slow", "garbage"])
@pytest.mark.parametrize("backend", ["postgres", "standby", "redis"])
def test_store(site: Site, backend: str, kind: str) -> None:
    """PostgreSQL's primary and replica, and Redis: all of the promise over two scrapes, the first on the kept connection, the
    second on none."""
    with illness(site, backend, kind):
        check(site, ANSWERS[backend])
        assert site.held(backend) <= 1
    recovers(site)
    assert site.held(backend) == 1


@contextlib.contextmanager
def crowd(server: PostgresServer, number: int) -> Iterator[None]:
    """So many clients; they hold their places for the block."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(server.session("select 1", user="crowd", password="x"))
        yield


@pytest.mark.parametrize("backend", ["postgres", "standby"])
def test_postgres_out_of_connections(site: Site, backend: str) -> None:
    """The kept session has its numbers, which say that all places are taken; `up` is 0, since nobody could log in."""
    server = site.primary if backend == "postgres" else site.replica
    up = key("prep_postgres_up", server=backend)
    with crowd(server, 12 - 3 - 1):
        time.sleep(1.1)  # a login within the last second still says `up`
        found = check(site, Ill(("postgres",), lambda each: each == up, {up: 0}))
        assert found[key("prep_postgres_connections", server=backend)] == 9
        assert found[key("prep_postgres_connections_max", server=backend)] == 9
        assert len(server.backends("application_name = 'prep_exporter'")) == 1
    recovers(site)


@pytest.mark.parametrize("backend", ["postgres", "standby"])
def test_postgres_out_of_connections_without_a_kept_session(site: Site, backend: str) -> None:
    """As after a start or a cut link: nothing but `up` 0, and a connection is not held, nor a place taken from others."""
    server = site.primary if backend == "postgres" else site.replica
    with crowd(server, 12 - 3 - 1):
        site.proxies[backend].reset()
        wait_until(lambda: not server.backends("application_name = 'prep_exporter'"), "our session to be gone", 5)
        with crowd(server, 1):
            check(site, ANSWERS[backend])
            assert site.held(backend) == 0
    recovers(site)


def test_redis_out_of_connections_without_a_kept_one(site: Site) -> None:
    """Refused by the server itself: `up` 0 and nothing else; back with the first place."""
    site.redis.command("CONFIG", "SET", "maxclients", 8)
    site.proxies["redis"].reset()
    # The server drops it a moment later; its place must be free before the crowd takes all of them.
    wait_until(lambda: len(site.redis.clients()) == 1, "our client to be gone", 5)
    with contextlib.ExitStack() as crowd:
        for _ in range(10):
            crowd.enter_context(socket.create_connection(("127.0.0.1", site.redis.port), 1.0))
        check(site, REDIS)
        assert site.held("redis") == 0
    wait_until(lambda: site.redis.command("CONFIG", "SET", "maxclients", 10_000), "a place to be free", 5)
    recovers(site)


def test_locked_tables(site: Site) -> None:
    """ACCESS EXCLUSIVE on a cursor's table and on the heartbeat, which the replica holds too: these parts only."""
    tables = "compliance_checks, replication_heartbeat"
    held = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted and relation is not null"
    with site.primary.session(f"begin; lock table {tables} in access exclusive mode", site.database.name):
        wait_until(lambda: int(site.database.value(held)) >= 2, "the lock", 10)
        site.primary.sql("create table if not exists flushed (a int); insert into flushed values (1)")
        wait_until(lambda: int(site.replica.value(held)) >= 2, "the lock on the replica", 10)
        check(site, Ill(("replication", "compliance"), of_locked_tables))
        for server in (site.primary, site.replica):
            assert len(server.backends("application_name = 'prep_exporter'")) == 1
    recovers(site)


@pytest.mark.parametrize("kind", ["frozen", "gone"])
def test_mounts(site: Site, kind: str) -> None:
    """A disk's path and a directory of backups, on mounts on which every call hangs or that are not there: their own
    samples only; the other path's and the bucket's are all there."""
    data, backups = site.folder / "data", site.folder / "backups"
    ill = Ill(("disk", "backups"), of_mounts, {key("prep_backup_listed", backup="local"): 0.0})
    with contextlib.ExitStack() as stack:
        for folder in (data, backups):
            stack.enter_context(hanging(folder) if kind == "frozen" else away(folder))
        wait_until(lambda: settled(site, ill), "the old values to be gone", 20)
        check(site, ill)
    recovers(site)


@contextlib.contextmanager
def away(folder: Path) -> Iterator[None]:
    """Not where it was for the block."""
    elsewhere = folder.rename(folder.with_name(f"{folder.name}-elsewhere"))
    yield
    elsewhere.rename(folder)


# In the background

ELSEWHERE = ("docker", "s3", "vendor", "probe")


def of_elsewhere(each: Key) -> bool:
    if each[0].startswith(("prep_container_", "prep_engine_disk_", "prep_vendor_")):
        return True
    if each[0].startswith("prep_backup_"):
        return labelled(each, backup="s3")
    return each[0] == "prep_probe_up"


TOLD = {
    key("prep_vendor_page_up", vendor="stripe"): 0.0,
    key("prep_backup_listed", backup="s3"): 0.0,
    key("prep_probe_up", target="service"): 0.0,
}


@pytest.mark.parametrize("kind", ["frozen", "refusing", "slow", "garbage"])
def test_elsewhere(site: Site, kind: str) -> None:
    """Docker's API, S3, a vendor's page and a probed service, all at once: after three intervals nothing of theirs but
    that they are ill, and every scrape before and after is as quick and as whole as ever."""
    ill = Ill(("docker", "containers", "engine_disk", "backups", "vendors"), of_elsewhere, TOLD)
    with contextlib.ExitStack() as stack:
        for backend in ELSEWHERE:
            stack.enter_context(illness(site, backend, kind))
        wait_until(lambda: settled(site, ill), "the old values to be gone", 20)
        check(site, ill)
        for backend in ELSEWHERE:
            # Docker's is asked by two collectors, each with a connection of its own.
            assert site.held(backend) <= (2 if backend == "docker" else 1), backend
    recovers(site)


def settled(site: Site, ill: Ill) -> bool:
    """Whether the old values of background collectors are gone, and what else is at scrape time whole and well."""
    found = site.page()
    at_scrape = set(AT_SCRAPE) - set(ill.collectors)
    whole = all(found[key("prep_scrape_collector_success", collector=each)] == 1 for each in at_scrape)
    return whole and {each: value for each, value in found.items() if ill.gone(each)} == ill.stays
