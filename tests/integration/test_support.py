"""The servers that the tests start do what their names say, and break when they are told to."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest
import redis as redis_library

from tests.support import processes
from tests.support.servers import (
    STUBBORN,
    AlertmanagerServer,
    Database,
    DockerEngine,
    Haproxy,
    NotInTime,
    PostgresServer,
    PrometheusServer,
    RedisServer,
    Run,
    ServerFailed,
    Service,
    SqlFailed,
    StubMetrics,
    StubServer,
    TcpProxy,
    WebhookRecorder,
    fetch,
    listens,
    scrape_config,
    wait_until,
)

NO_ALERTMANAGER_WAIT = {"group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}


# PostgreSQL


def test_each_test_gets_its_own_copy_of_a_template(postgres_server: PostgresServer) -> None:
    """What one test writes, another never sees; the template is built once."""
    built: list[str] = []
    for _ in range(2):
        postgres_server.template("copies", built.append)
    postgres_server.template("orders", "create table orders(id int); insert into orders values (1)")
    one, two = postgres_server.fresh_database("orders"), postgres_server.fresh_database("orders")
    one.sql("insert into orders values (2)")
    assert one.value("select count(*) from orders") == "2"
    assert two.value("select count(*) from orders") == "1"
    assert len(built) == 1
    one.drop()
    two.drop()
    with pytest.raises(SqlFailed, match="does not exist"):
        one.sql("select 1")


def test_passwords_count(database: Database) -> None:
    """A wrong password is refused: a role that a test uses has been given its rights for real."""
    database.server.role("watcher", "it's a secret", "pg_monitor")
    assert database.sql("select current_user", "watcher", "it's a secret") == [["watcher"]]
    with pytest.raises(SqlFailed, match="password authentication failed"):
        database.sql("select 1", "watcher", "wrong")


def test_a_background_session_is_seen_and_cancelled_by_postgresql_itself(database: Database) -> None:
    """The server, not the client, says what runs, and its log says what was cancelled."""
    server = database.server
    with server.session("select pg_sleep(60)", database.name, application="runaway") as session:
        session.wait_active()
        assert server.backends("application_name = 'runaway'") == [session.pid]
        server.value(f"select pg_cancel_backend({session.pid})")
        assert f"[{session.pid}]" in server.wait_log("canceling statement due to user request")
    wait_until(lambda: not session.connected, "the session to end", 5)


def test_postgresql_keeps_what_was_committed_over_a_crash(run: Run) -> None:
    """kill -9 and a start on the same port: the row is there."""
    with PostgresServer(run) as server:
        server.sql("create table kept(id int); insert into kept values (7)")
        port, identifier = server.port, server.system_identifier
        server.kill()
        assert not server.alive
        assert not listens(port)
        server.start()
        assert (server.port, server.system_identifier) == (port, identifier)
        assert server.value("select id from kept") == "7"


def test_a_frozen_postgresql_accepts_and_does_not_answer(run: Run) -> None:
    """SIGSTOP stops every process of the server, and SIGCONT lets the waiting answer through."""
    with PostgresServer(run) as server, server.session("select pg_sleep(0.1)") as session:
        with server.frozen():
            assert all(process.frozen for process in processes.tree(server.identity or pytest.fail("it is gone")))
            assert not server.ready()
            with pytest.raises(subprocess.TimeoutExpired):
                server.sql("select 1", timeout=0.5)
        assert server.value("select 1") == "1"
        assert session.connected


def test_a_replica_follows_and_can_take_over(run: Run) -> None:
    """A streaming standby: same system, reads only, and writes once it is promoted."""
    with PostgresServer(run) as primary, primary.replica() as standby:
        primary.sql("create table copied(id int); insert into copied values (1)")
        standby.wait_caught_up()
        assert standby.is_standby
        assert standby.system_identifier == primary.system_identifier
        assert primary.value("select application_name from pg_stat_replication") == standby.folder.name
        with pytest.raises(SqlFailed, match="read-only"):
            standby.sql("insert into copied values (2)")
        primary.kill()
        standby.promote()
        standby.sql("insert into copied values (2)")
        assert standby.value("select count(*) from copied") == "2"


def test_settings_are_read_again(run: Run) -> None:
    """A setting changes in a running server."""
    with PostgresServer(run, {"log_min_duration_statement": "0"}) as server:
        assert server.value("show log_min_duration_statement") == "0"
        server.configure(log_min_duration_statement="250ms")
        wait_until(lambda: server.value("show log_min_duration_statement") == "250ms", "the new setting", 5)


# Redis


def test_redis_starts_empty_freezes_and_dies(run: Run, redis: RedisServer) -> None:
    """Its contents are one test's own; frozen it does not answer; after kill -9 nothing listens."""
    assert redis.command("DBSIZE") == 0
    redis.command("SET", "rules:1", "cached")
    with RedisServer(run, password="secret") as own:
        assert own.command("GET", "rules:1") is None
        with own.frozen(), pytest.raises(redis_library.TimeoutError):
            own.command("PING")
        own.kill()
        assert not listens(own.port)
        own.start()
        client = redis_library.Redis.from_url(own.url)
        assert client.ping()
        client.close()


# Prometheus, Alertmanager, the target and the inbox


def test_an_alert_goes_from_the_target_to_the_inbox_and_back(
    run: Run, metrics: StubMetrics, inbox: WebhookRecorder
) -> None:
    """Real Prometheus, real Alertmanager: the metric turns, people hear of it, it turns back, they hear of that."""
    metrics.set("prep_postgres_up", 0, server='the "first"')
    rule = {"alert": "PostgresDown", "expr": "prep_postgres_up == 0", "labels": {"severity": "P0"}}
    route = {"receiver": "people", **NO_ALERTMANAGER_WAIT}
    receiver = {"name": "people", "webhook_configs": [{"url": f"{inbox.url}/people"}]}
    with AlertmanagerServer(run, {"route": route, "receivers": [receiver]}) as alertmanager:
        config = scrape_config({"prep-exporter": metrics.port}, [alertmanager.port], environment="test")
        rules = {"postgres.rules.yml": {"groups": [{"name": "postgres", "rules": [rule]}]}}
        with PrometheusServer(run, config, rules) as prometheus:
            sample = prometheus.wait_for('ALERTS{alertstate="firing"}')[0]
            assert sample.labels["server"] == 'the "first"'
            alert = inbox.wait_alert("/people", alertname="PostgresDown")
            assert alert["labels"]["environment"] == "test"
            assert alert["status"] == "firing"
            metrics.set("prep_postgres_up", 1, server='the "first"')
            inbox.wait_alert("/people", alertname="PostgresDown")
            inbox.wait_requests(1, lambda request: request.json()["status"] == "resolved")


def test_prometheus_reloads_rules_and_says_what_it_refuses(run: Run, metrics: StubMetrics) -> None:
    """New rules count at once; a broken configuration is an error with Prometheus' own words."""
    metrics.set("prep_build_info", 1, version="1")
    config = scrape_config({"prep-exporter": metrics.port})
    with PrometheusServer(run, config) as prometheus:
        prometheus.wait_for("prep_build_info")
        assert prometheus.value("up") == 1
        assert prometheus.value("absent_series") is None
        rule = {"record": "recorded", "expr": "prep_build_info * 2"}
        prometheus.reload(rules={"new.yml": {"groups": [{"name": "g", "rules": [rule]}]}})
        assert prometheus.wait_for("recorded")[0].value == 2
        with pytest.raises(AssertionError, match="refused its configuration"):
            prometheus.reload("scrape_configs: 1")
        prometheus.reload(config)
        metrics.stop()
        prometheus.wait_for("up", lambda samples: samples[0].value == 0)
        with prometheus.frozen(), pytest.raises(TimeoutError):
            fetch(f"{prometheus.url}/-/ready", timeout=0.5)
        prometheus.kill()
        prometheus.start()
        assert prometheus.wait_for("up")


def test_alertmanagers_share_silences(run: Run) -> None:
    """Two that gossip: a silence made at one mutes at the other."""
    config = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    with AlertmanagerServer(run, config, cluster=True) as one, AlertmanagerServer(run, config, [one]) as two:
        one.wait_peers(2)
        silence = one.silence(60, alertname="Noise")
        two.post({"alertname": "Noise", "severity": "P4"})
        wait_until(lambda: two.wait_alert(alertname="Noise")["status"]["state"] == "suppressed", "the silence", 10)
        one.expire(silence)
        wait_until(lambda: two.wait_alert(alertname="Noise")["status"]["state"] == "active", "the silence's end", 10)


def test_the_inbox_refuses_and_dawdles_when_told(inbox: WebhookRecorder) -> None:
    """Answers are given in turn, each request is kept, and a stopped inbox refuses connections."""
    inbox.answers = [503]
    assert [fetch(inbox.url, "POST", '{"n": 1}').status for _ in range(2)] == [503, 200]
    assert inbox.bodies() == [{"n": 1}, {"n": 1}]
    inbox.delay = 5
    with pytest.raises(TimeoutError):
        fetch(inbox.url, "POST", "{}", timeout=0.2)
    inbox.stop()
    with pytest.raises(ConnectionRefusedError):
        fetch(inbox.url)
    inbox.delay = 0
    assert fetch(inbox.start().url).status == 200


# HAProxy

GATE = """
defaults
    mode http
    timeout client 5s
    timeout server 5s
    timeout connect 1s
frontend gate
    bind 127.0.0.1:{port}
    http-request return status 403 if !{ path /_ping }
    http-request return status 200 hdr X-From "${GATE_NAME}"
"""


def test_haproxy_runs_a_configuration(run: Run) -> None:
    """It reads its variables, freezes, and is refused when it is wrong."""
    with Haproxy(run, GATE, {"GATE_NAME": "the-gate"}) as gate:
        gate.check()
        assert fetch(f"{gate.url}/_ping").headers["x-from"] == "the-gate"
        assert fetch(f"{gate.url}/containers/json").status == 403
        with gate.frozen(), pytest.raises(TimeoutError):
            fetch(f"{gate.url}/_ping", timeout=0.3)
        gate.kill()
        with pytest.raises(ConnectionRefusedError):
            fetch(gate.url)
        gate.configure("frontend nonsense\n    bind nowhere\n")
        with pytest.raises(AssertionError, match="haproxy refuses"):
            gate.check()
        with pytest.raises(ServerFailed, match="nowhere"):
            gate.start()


# Docker


def test_a_container_looks_like_composes_and_its_restarts_are_counted(
    docker_engine: DockerEngine, project: str
) -> None:
    """Names and labels are Compose's; the effect of a restart is read from the engine, not from the caller."""
    begun = time.time()
    container = docker_engine.service_container(project, "python-compliance", labels={"prep-ops.remediate": "true"})
    oneoff = docker_engine.service_container(project, "python-compliance", oneoff=True, start=False)
    assert time.time() - begun < 10
    assert container.name == f"{project}-python-compliance-1"
    labels = container.container.labels
    assert labels["com.docker.compose.service"] == "python-compliance"
    assert labels["prep-ops.remediate"] == "true"
    assert oneoff.container.labels["com.docker.compose.oneoff"] == "True"
    first = container.started_at
    assert container.restarts(begun) == 0
    container.container.restart()
    assert container.restarts(begun) == 1
    assert container.started_at > first >= begun - 1
    assert oneoff.started_at == 0.0
    assert oneoff.count("start", begun) == 0


def test_commands_run_in_a_container(docker_engine: DockerEngine, project: str) -> None:
    """One that ends and one that stays, as a person's shell does."""
    container = docker_engine.service_container(project, "redis")
    assert "busybox" in container.exec("ls", "/bin")
    with pytest.raises(AssertionError, match="no-such-file"):
        container.exec("cat", "/no-such-file")
    running = container.exec_in_background("sleep", "60")
    container.container.reload()
    assert running in container.container.attrs["ExecIDs"]


def test_a_stubborn_container_uses_up_its_grace(docker_engine: DockerEngine, project: str) -> None:
    """A restart takes as long as stop_timeout says: time to be killed in the middle of it."""
    container = docker_engine.service_container(project, "payments", command=STUBBORN, stop_timeout=1)
    begun = time.monotonic()
    # The client's own default (10 s) would be used else, not the container's.
    assert docker_engine.client.api.inspect_container(container.id)["Config"]["StopTimeout"] == 1
    fetch_restart(docker_engine, container.name)
    assert 0.9 <= time.monotonic() - begun < 8
    assert container.status == "running"


def fetch_restart(engine: DockerEngine, name: str) -> None:
    """Restart as the gate lets it through: no `t` in the query, so the container's own grace counts."""
    with TcpProxy(engine.socket) as way:
        assert fetch(f"{way.url}/v1.41/containers/{name}/restart", "POST", timeout=20).status == 204


@pytest.mark.docker
def test_an_engine_of_our_own_can_be_frozen_killed_and_started(run: Run) -> None:
    """The run's own engine lets the machine's network be, and is one more thing that may break."""
    engine = DockerEngine.own(run)
    try:
        daemon = engine.daemon or pytest.fail("not our own")
        container = engine.service_container(engine.project(), "redis")
        assert {network.name for network in engine.client.networks.list()} == {"none", "host"}
        with daemon.frozen(), TcpProxy(engine.socket) as way, pytest.raises(TimeoutError):
            fetch(f"{way.url}/_ping", timeout=0.5)
        daemon.kill()
        daemon.start()
        container.wait_status("exited")
        container.container.start()
        assert container.status == "running"
    finally:
        engine.close()
    assert not daemon.alive
    assert not engine.socket.exists()


# The proxy


@pytest.fixture
def upstream() -> Iterator[StubServer]:
    with StubServer() as stub:
        yield stub


@pytest.fixture
def proxy(upstream: StubServer) -> Iterator[TcpProxy]:
    with TcpProxy(upstream.port) as proxy:
        yield proxy


def test_the_proxy_carries_and_counts(proxy: TcpProxy) -> None:
    """Without a fault it is not noticed."""
    assert fetch(f"{proxy.url}/a").status == 200
    assert proxy.connections == 1
    assert proxy.sent > 0 and proxy.received > 0
    proxy.delay = 0.2
    begun = time.monotonic()
    assert fetch(f"{proxy.url}/b").status == 200
    assert time.monotonic() - begun >= 0.4


def test_the_proxy_holds_a_request_until_it_is_released(proxy: TcpProxy, upstream: StubServer) -> None:
    """The server has not seen a byte while a test does what it likes: kill the client, stop the clock."""
    hold = proxy.hold_on(b"POST /v1.41")
    assert fetch(f"{proxy.url}/v1.41/_ping").status == 200

    def ask() -> int:
        return fetch(f"{proxy.url}/v1.41/containers/a/restart", "POST", timeout=10).status

    with background(ask) as answer:
        hold.wait()
        assert [request.method for request in upstream.snapshot()] == ["GET"]
        hold.release()
        assert answer() == 200
    assert fetch(f"{proxy.url}/v1.41/again", "POST").status == 200


def test_the_proxy_drops_what_it_holds(proxy: TcpProxy, upstream: StubServer) -> None:
    """A held request is reset for the client and never reaches the server; one that was skipped does."""
    hold = proxy.hold_on(b"POST", skip=1)
    assert fetch(proxy.url, "POST").status == 200

    def ask() -> int:
        with pytest.raises(ConnectionError):
            fetch(proxy.url, "POST", timeout=10)
        return 0

    with background(ask) as answer:
        hold.wait().drop()
        assert answer() == 0
    assert len(upstream.snapshot()) == 1


def test_the_proxy_holds_an_answer(proxy: TcpProxy, upstream: StubServer) -> None:
    """The effect is done at the server, and the client does not know."""
    hold = proxy.hold_answer_on(b" 200 ")

    def ask() -> int:
        with pytest.raises(ConnectionError):
            fetch(proxy.url, "POST", timeout=10)
        return 0

    with background(ask) as answer:
        hold.wait()
        assert len(upstream.snapshot()) == 1
        hold.drop()
        assert answer() == 0


def test_the_proxy_refuses_freezes_and_resets(proxy: TcpProxy, upstream: StubServer) -> None:
    """Each fault looks to the client as the real one does, and goes away when it is told to."""
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        fetch(proxy.url)
    proxy.accept()
    proxy.freeze()
    with pytest.raises(TimeoutError):
        fetch(proxy.url, timeout=0.3)
    proxy.thaw()
    assert fetch(proxy.url).status == 200
    proxy.reset_after_answer(10)
    with pytest.raises(ConnectionResetError):
        fetch(proxy.url)
    proxy.reset_after_answer(0)
    seen = len(upstream.snapshot())
    proxy.reset_after_request(5)
    with pytest.raises(ConnectionResetError):
        fetch(proxy.url)
    assert len(upstream.snapshot()) == seen
    proxy.reset_after_request(0)
    upstream.stop()
    with pytest.raises(ConnectionError):
        fetch(proxy.url)


async def test_the_proxy_serves_a_test_with_a_loop(proxy: TcpProxy) -> None:
    """It has a loop of its own, so its methods do not wait for the test's."""
    hold = proxy.hold_on(b"GET /held")
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(session.get(f"{proxy.url}/held"))
        await asyncio.to_thread(hold.wait)
        hold.release()
        answer = await asking
        assert answer.status == 200
        answer.release()


def test_the_proxy_stands_before_a_unix_socket(docker_engine: DockerEngine) -> None:
    """Docker's socket behind a TCP port, so that its calls can be held."""
    with TcpProxy(docker_engine.socket) as proxy:
        assert fetch(f"{proxy.url}/_ping").text == "OK"


class background:
    """Run a call in a thread; in the block, `answer()` waits for what it returned."""

    def __init__(self, call: Callable[[], int]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(call)

    def __enter__(self) -> Callable[[], int]:
        return lambda: self._future.result(15)

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown()


# Programs


def test_a_program_is_ready_by_its_log_and_ends_by_its_own_will(run: Run) -> None:
    """SIGTERM gives it time; the exit code is its own."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('listening on 1', flush=True)\n"
        "time.sleep(60)"
    )
    service = Service(run, ["python", "-c", code], ready_log=r"listening on \d+", env={"PATH": None})
    service.start()
    assert service.terminate() == 7
    service.start()
    service.kill()
    assert service.exit_code == -signal.SIGKILL
    assert service.log_text().count("listening") == 2
    assert service.words.count("listening") == 1


def test_a_program_that_fails_shows_its_words(run: Run) -> None:
    """A configuration error is seen in the test's message, at once, not after a deadline."""
    service = Service(run, ["python", "-c", "raise SystemExit('config.yml: line 3: unknown key')"], ready_log="never")
    begun = time.monotonic()
    with pytest.raises(ServerFailed, match="unknown key"):
        service.start()
    assert time.monotonic() - begun < 5
    assert service.run_to_end() == 1


def test_a_program_that_never_gets_ready_is_killed(run: Run) -> None:
    """A deadline passes: the test fails, the process is gone."""
    code = "import time; time.sleep(60)"
    service = Service(run, ["python", "-c", code], ready_url="http://127.0.0.1:1", start_seconds=0.5)
    with pytest.raises(NotInTime, match="to answer"):
        service.start()
    assert not service.alive


def test_a_console_script_is_taken_from_the_tests_own_environment(run: Run) -> None:
    """Not from whatever PATH holds."""
    assert Service(run, ["prepctl"]).argv()[0] == str(Path(sys.executable).parent / "prepctl")
