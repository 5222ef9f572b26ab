"""The Docker gate on a real HAProxy: before an engine that writes down every byte, and before a real one."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from exporter.collector_settings import DockerCollector as DockerSettings
from exporter.collectors.containers import cgroup_reader
from exporter.collectors.docker import DockerCollector
from exporter.collectors.engine_disk import EngineDiskCollector
from exporter.collectors.inventory import Inventory
from exporter.errors import Permanent, Transient, Unreachable
from remediator import gate, settings
from remediator.errors import ConfigError
from remediator.gate import Gate
from tests.integration.exporter_parts import in_seconds, shown
from tests.integration.recording_engine import RecordingEngine
from tests.support.servers import DockerEngine, Haproxy, Reply, Run, fetch, wait_until

ROOT = Path(__file__).parents[2]
ONE, TWO = "prep-python-compliance-1", "prep-redis-1"
COOLDOWN = 2
EXEC = "e" * 64


@pytest.fixture
def engine(run: Run) -> Iterator[RecordingEngine]:
    with RecordingEngine(run.folder("engine") / "s") as engine:
        yield engine


def proxy(run: Run, socket_path: Path | str, *names: str, cooldown: int = COOLDOWN, prune: bool = False) -> Haproxy:
    made = Gate(names, cooldown=cooldown, bind="127.0.0.1:{port}", socket=str(socket_path), prune=prune)
    return Haproxy(run, gate.render(made), {"GATE_STARTED": str(int(time.time()) + 1)}, name="gate")


@pytest.fixture
def door(run: Run, engine: RecordingEngine) -> Iterator[Haproxy]:
    with proxy(run, engine.path, ONE, TWO) as door:
        yield door


def attempt() -> str:
    return uuid4().hex


@pytest.fixture
def pruning(run: Run, engine: RecordingEngine) -> Iterator[Haproxy]:
    """A gate whose settings have switched deleting on."""
    with proxy(run, engine.path, ONE, prune=True) as door:
        yield door


def effect(door: Haproxy, method: str, path: str, attempt_id: str | None = None, ahead: float = 8) -> Reply:
    headers = {"X-Attempt-Id": attempt_id or attempt(), "X-Start-By": str(int(time.time() + ahead))}
    return fetch(f"{door.url}/v1.41{path}", method, headers=headers, timeout=20)


def restart(door: Haproxy, name: str = ONE, attempt_id: str | None = None, ahead: float = 8) -> Reply:
    return effect(door, "POST", f"/containers/{name}/restart", attempt_id, ahead)


def start(door: Haproxy, name: str = ONE, attempt_id: str | None = None, ahead: float = 8) -> Reply:
    return effect(door, "POST", f"/containers/{name}/start", attempt_id, ahead)


def image(number: int) -> str:
    """The path of an image by its full id."""
    return f"/images/sha256:{number:064x}"


def refusal(reply: Reply) -> tuple[int, str | None]:
    return reply.status, reply.headers.get("x-gate-refused")


def raw(door: Haproxy, request: str) -> Reply:
    """The bytes as they are; the first answer on the connection. `status` is 0 when it was closed without one."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as client:
        client.sendall(request.encode("latin-1"))
        answer = b""
        while part := client.recv(65536):
            answer += part
    if not answer:
        return Reply(0, {}, b"")
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return Reply(int(first.split()[1]), {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in lines)}, body)


def ask(door: Haproxy, method: str, target: str, *headers: str) -> Reply:
    lines = [f"{method} {target} HTTP/1.1", "Host: gate", "Connection: close", *headers]
    return raw(door, "\r\n".join(lines) + "\r\n\r\n")


def good_headers() -> tuple[str, str]:
    return f"X-Attempt-Id: {attempt()}", f"X-Start-By: {int(time.time()) + 8}"


# ---- the configuration ----------------------------------------------------------------------------------------------


def test_haproxy_takes_it_without_a_warning(run: Run, engine: RecordingEngine) -> None:
    """Also with an empty list, which then allows no restart at all."""
    for names in ((ONE, TWO), ()):
        for prune in (False, True):
            said = proxy(run, engine.path, *names, prune=prune).check()
            assert "WARNING" not in said
    with proxy(run, engine.path) as door:
        assert refusal(restart(door)) == (403, "not-allowed")
    assert engine.requests == []


def test_it_does_not_start_without_knowing_its_start(run: Run, engine: RecordingEngine) -> None:
    """Without GATE_STARTED nobody could tell what the gate cannot remember: it refuses to run."""
    door = Haproxy(run, gate.render(Gate((ONE,), bind="127.0.0.1:{port}", socket=str(engine.path))))
    with pytest.raises(AssertionError, match="GATE_STARTED is not set"):
        door.check()


@pytest.mark.parametrize(
    "wrong",
    [
        {"containers": ("a b",)},
        {"containers": ("x\n    acl restarts always_true",)},
        {"containers": ("../postgres",)},
        {"containers": ("prep%2dpostgres-1",)},
        {"containers": (".hidden",)},
        {"containers": ("",)},
        {"cooldown": 0},
        {"bind": "here"},
        {"bind": "*:2375 ssl"},
        {"socket": "docker.sock"},
        {"socket": "/run/a b"},
    ],
)
def test_a_value_that_would_be_configuration_is_refused(wrong: dict[str, object]) -> None:
    """Names, addresses and paths cannot bring rules of their own."""
    with pytest.raises(ConfigError):
        Gate(**{"containers": (ONE,), **wrong})  # type: ignore[arg-type]


def test_the_list_is_the_remediators_own() -> None:
    """The shipped gate is what the shipped settings make: python-compliance, and never a primary database."""
    loaded = settings.load(ROOT / "config" / "remediator.yml")
    made = gate.from_settings(loaded)
    assert ONE in made.containers
    assert not any("postgres-1" in name for name in made.containers)
    assert (ROOT / "haproxy" / "haproxy.cfg").read_text() == gate.render(made)


def test_what_stands_on_the_never_list_is_left_out() -> None:
    """A service that is both listed and never acted on is not let through, and counts give the numbers."""
    loaded = settings.load(ROOT / "config" / "remediator.yml")
    service = loaded.services["python-compliance"]
    services = {"postgres": service, "web": service.model_copy(update={"containers": 3, "singleton": False})}
    made = gate.from_settings(loaded.model_copy(update={"services": services}))
    assert made.containers == ("prep-web-1", "prep-web-2", "prep-web-3")


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["", "/v1.41", "/v1.24", "/v1.144"])
@pytest.mark.parametrize(
    "path",
    [
        "/_ping", "/version", "/info", "/events?since=1&until=2", "/images/json", "/system/df",
        "/containers/json", "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D",
        f"/containers/{ONE}/json", f"/containers/{'a' * 64}/json", f"/containers/{ONE}/logs?stdout=1&tail=5",
        f"/containers/{ONE}/stats?stream=false", f"/exec/{EXEC}/json",
    ],
)  # fmt: skip
def test_the_listed_reads_pass_unchanged(door: Haproxy, engine: RecordingEngine, version: str, path: str) -> None:
    """With and without the API's version, query string and all."""
    engine.answer = lambda head: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    reply = fetch(f"{door.url}{version}{path}")
    assert (reply.status, reply.body, reply.headers.get("x-gate-refused")) == (200, b"{}", None)
    assert engine.lines == [f"GET {version}{path} HTTP/1.1"]


@pytest.mark.parametrize(
    ("method", "target"),
    [
        # other effects, and this one on others
        ("POST", "/v1.41/containers/prep-postgres-1/restart"),
        ("POST", f"/v1.41/containers/{ONE}/stop"),
        ("POST", "/v1.41/containers/prep-postgres-1/start"),
        ("POST", f"/v1.41/containers/{ONE}/start?detachKeys=a"),
        ("POST", f"/v1.41/containers/{'a' * 64}/start"),
        ("POST", f"/v1.41/containers/{ONE}/startx"),
        ("DELETE", f"/v1.41/containers/{'a' * 64}"),
        ("DELETE", f"/v1.41/images/sha256:{'a' * 64}"),
        ("POST", f"/v1.41/containers/{ONE}/kill"),
        ("POST", f"/v1.41/containers/{ONE}/exec"),
        ("POST", "/v1.41/containers/create"),
        ("POST", "/v1.41/containers/prune"),
        ("POST", f"/v1.41/exec/{EXEC}/start"),
        ("POST", "/v1.41/images/create?fromImage=x"),
        ("POST", "/grpc"),
        ("POST", "/session"),
        ("DELETE", f"/v1.41/containers/{ONE}"),
        ("PUT", f"/v1.41/containers/{ONE}/archive"),
        # the right effect by another name
        ("POST", f"/containers/{ONE}/restart"),
        ("POST", f"/v1.40/containers/{ONE}/restart"),
        ("POST", f"/v1.41/containers/{ONE}/restart?t=0"),
        ("POST", f"/v1.41/containers/{ONE}/restart?"),
        ("POST", f"/v1.41/containers/{ONE}/restart/"),
        ("POST", f"/v1.41/containers/{ONE}/restart#x"),
        ("POST", f"/v1.41/containers//{ONE}/restart"),
        ("POST", f"//v1.41/containers/{ONE}/restart"),
        ("POST", f"/v1.41/./containers/{ONE}/restart"),
        ("POST", f"/v1.41/containers/x/../{ONE}/restart"),
        ("POST", "/v1.41/containers/prep-python%2Dcompliance-1/restart"),
        ("POST", f"/v1.41/containers/{ONE}%2Frestart"),
        ("POST", f"/v1.41/containers/{ONE.upper()}/restart"),
        ("POST", f"/v1.41/containers/{'a' * 64}/restart"),
        ("POST", "/v1.41/containers/aaaaaaaaaaaa/restart"),
        ("POST", f"http://gate/v1.41/containers/{ONE}/restart"),
        ("GET", f"/v1.41/containers/{ONE}/restart"),
        ("post", f"/v1.41/containers/{ONE}/restart"),
        # reads that are not on the list, or not reads
        ("HEAD", "/_ping"),
        ("OPTIONS", "/_ping"),
        ("POST", "/containers/json"),
        ("GET", "/"),
        ("GET", f"/containers/{ONE}/export"),
        ("GET", f"/containers/{ONE}/archive?path=/run/secrets"),
        ("GET", f"/containers/{ONE}/attach/ws"),
        ("GET", f"/containers/{ONE}/top"),
        ("GET", f"/containers/{ONE}/json/"),
        ("GET", f"/containers/{ONE}/../../images/json"),
        ("GET", "/containers/../secrets/json"),
        ("GET", "/containers/x%2F..%2F..%2Fsecrets/json"),
        ("GET", "/v1.41/../containers/json"),
        ("GET", "/v2/containers/json"),
        ("GET", "/v1.41/v1.41/containers/json"),
        ("GET", "/containers/json/../../secrets"),
        ("GET", "/secrets"),
        ("GET", "/configs"),
        ("GET", "/volumes"),
        ("GET", "/images/x/get"),
        ("GET", "/images/x/json"),
        ("GET", f"/images/sha256:{'a' * 64}/json"),
        ("GET", "/images/prep-local/ops:0.1.0/json"),
        ("GET", "/images/json/x"),
        ("GET", "/images/search?term=x"),
        ("POST", "/images/json"),
        ("POST", "/images/prune"),
        ("GET", "/system/df/x"),
        ("GET", "/system/df/"),
        ("GET", "/system"),
        ("POST", "/system/df"),
        ("GET", f"/exec/{EXEC}/json/x"),
        ("GET", "/exec/short/json"),
        ("GET", "http://gate/containers/json"),
        ("GET", "*"),
        # the gate's own words
        ("POST", "/_gate"),
        ("GET", "/_gate?x"),
        ("GET", "/_attempt/"),
        ("GET", "/_attempt/short"),
        ("GET", f"/_attempt/{'A' * 32}"),
        ("GET", f"/_attempt/{'a' * 32}/x"),
    ],
)
def test_everything_else_is_refused(door: Haproxy, engine: RecordingEngine, method: str, target: str) -> None:
    """403 by the gate's own word, and not a byte reaches the engine. What is not HTTP at all is 400."""
    reply = ask(door, method, target, *good_headers())
    if method in ("HEAD", "post") or target == "*" or "#" in target:
        assert reply.status in (400, 403)
    else:
        assert refusal(reply) == (403, "not-allowed")
        assert b"Docker gate" in reply.body
    assert engine.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 2", "", "{}"),
        ("Transfer-Encoding: chunked", "", "2", "{}", "0", ""),
        ("Content-Length: 0", "Transfer-Encoding: chunked", "", "0", ""),
        ("Content-Length: 1", "Content-Length: 2", "", "{}"),
        ("Content-Length: -1",),
        ("Transfer-Encoding : chunked", "", "0", ""),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_is_never_let_through(
    door: Haproxy, engine: RecordingEngine, method: str, headers: tuple[str, ...]
) -> None:
    """Neither call has one; and what two servers could read differently never gets to the second one."""
    target = "/containers/json" if method == "GET" else f"/v1.41/containers/{ONE}/restart"
    hidden = f"\r\n\r\nPOST /v1.41/containers/{TWO}/stop HTTP/1.1\r\nHost: gate\r\n"
    reply = ask(door, method, target, *good_headers(), *headers, hidden)
    assert reply.status in (400, 403)
    assert engine.requests == []


def test_an_upgrade_is_not_offered_to_the_engine(door: Haproxy, engine: RecordingEngine) -> None:
    """A read cannot be turned into a raw connection to the engine."""
    ask(door, "GET", "/_ping", "Upgrade: tcp")
    assert engine.lines == ["GET /_ping HTTP/1.1"]
    assert b"upgrade" not in engine.requests[0].lower()


# ---- the one effect -------------------------------------------------------------------------------------------------


def test_a_restart_is_said_anew(door: Haproxy, engine: RecordingEngine) -> None:
    """The engine gets the list's own words, without a version; nothing that the caller wrote."""
    reply = restart(door)
    assert refusal(reply) == (204, None)
    assert reply.headers["api-version"] == "1.41"
    assert engine.lines == [f"POST /containers/{ONE}/restart HTTP/1.1"]
    assert b"x-attempt-id" not in engine.requests[0].lower()
    assert b"x-start-by" not in engine.requests[0].lower()


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("X-Attempt-Id: {id}",),
        ("X-Start-By: {by}",),
        ("X-Attempt-Id: ", "X-Start-By: {by}"),
        ("X-Attempt-Id: {id}0", "X-Start-By: {by}"),
        ("X-Attempt-Id: {ID}", "X-Start-By: {by}"),
        ("X-Attempt-Id: 6f9619ff-8b86-d011-b42d-00c04fc964ff", "X-Start-By: {by}"),
        ("X-Attempt-Id: {id}, {id}", "X-Start-By: {by}"),
        ("X-Attempt-Id: {id}", "X-Attempt-Id: {id}", "X-Start-By: {by}"),
        ("X-Attempt-Id: {id}", "X-Attempt-Id: {other}", "X-Start-By: {by}"),
        ("X-Attempt-Id: {id}", "X-Start-By: {by}", "X-Start-By: {by}"),
        ("X-Attempt-Id: {id}", "X-Start-By: {by}, 9999999999"),
        ("X-Attempt-Id: {id}", "X-Start-By: {by}.5"),
        ("X-Attempt-Id: {id}", "X-Start-By: +{by}"),
        ("X-Attempt-Id: {id}", "X-Start-By: 0{by}"),
        ("X-Attempt-Id: {id}", "X-Start-By: {by}e0"),
        ("X-Attempt-Id: {id}", "X-Start-By: 0x6a000000"),
        ("X-Attempt-Id: {id}", "X-Start-By: soon"),
        ("X-Attempt-Id: {id}", "X-Start-By: -{by}"),
        ("X-Attempt-Id: {id}", "X-Start-By: 99999999999"),
        ("X-Attempt-Id: {id}", "X-Start-By: 18446744073709551617"),
        ("X-Attempt-Id: {id}", "X-Start-By: {by} {by}"),
    ],
)
def test_both_headers_are_needed_once_and_whole(
    door: Haproxy, engine: RecordingEngine, headers: tuple[str, ...]
) -> None:
    """428 for a header that is missing, twice there, or not exactly of its form."""
    key = attempt()
    values = {"id": key, "ID": "ABCDEF" + key[6:].upper(), "other": attempt(), "by": int(time.time()) + 8}
    reply = ask(door, "POST", f"/v1.41/containers/{ONE}/restart", *(header.format(**values) for header in headers))
    assert refusal(reply) == (428, "no-attempt")
    assert engine.requests == []


@pytest.mark.parametrize("ahead", [-3600, -1, 0, 62, 3600])
def test_too_late_and_too_early_are_refused(door: Haproxy, engine: RecordingEngine, ahead: float) -> None:
    """412 from the very second of `start_by` on, and when it is more than 60 s ahead; then the attempt was not seen."""
    key = attempt()
    assert refusal(restart(door, attempt_id=key, ahead=ahead)) == (412, "late")
    assert engine.requests == []
    assert fetch(f"{door.url}/_attempt/{key}").status == 404
    assert restart(door, attempt_id=key, ahead=59).status == 204


def test_an_attempt_passes_once(door: Haproxy, engine: RecordingEngine) -> None:
    """The same attempt again is 409: at once, on another container, when its time is over, and after the cooldown."""
    key = attempt()
    assert restart(door, attempt_id=key).status == 204
    for ahead in (-1, 0, 62):
        assert refusal(restart(door, attempt_id=key, ahead=ahead)) == (409, "repeated")
    assert refusal(restart(door, attempt_id=key)) == (409, "repeated")
    assert refusal(restart(door, TWO, attempt_id=key)) == (409, "repeated")
    wait_until(lambda: restart(door, ONE).status == 204, "the cooldown to end", 3 * COOLDOWN)
    assert refusal(restart(door, attempt_id=key)) == (409, "repeated")
    assert len(engine.requests) == 2


def test_a_container_is_not_restarted_twice_within_the_cooldown(door: Haproxy, engine: RecordingEngine) -> None:
    """429 whoever asks; another container may; being refused neither prolongs it nor uses the attempt up."""
    key = attempt()
    begun = time.monotonic()
    assert restart(door).status == 204
    assert refusal(restart(door, attempt_id=key)) == (429, "too-soon")
    assert fetch(f"{door.url}/_attempt/{key}").status == 404
    assert restart(door, TWO).status == 204
    wait_until(lambda: restart(door, attempt_id=key).status == 204, "the cooldown to end", 3 * COOLDOWN)
    # Asked twenty times a second all the while: a refusal that counted would have held it back for ever.
    assert COOLDOWN * 0.9 <= time.monotonic() - begun < 2.5 * COOLDOWN
    assert len(engine.requests) == 3


def test_at_once_only_one_gets_through(door: Haproxy, engine: RecordingEngine) -> None:
    """Thirty calls at the same moment: one effect by container, and one by attempt."""
    with ThreadPoolExecutor(30) as pool:
        answers = [reply.status for reply in pool.map(lambda _: restart(door), range(30))]
    assert sorted(answers) == [204] + [429] * 29
    wait_until(lambda: restart(door).status == 204, "the cooldown to end", 3 * COOLDOWN)
    time_out = time.monotonic() + COOLDOWN + 0.5
    wait_until(lambda: time.monotonic() > time_out, "both to be free again", 2 * COOLDOWN + 2)
    before, key = len(engine.requests), attempt()
    with ThreadPoolExecutor(30) as pool:
        names = [ONE, TWO] * 15
        answers = [reply.status for reply in pool.map(lambda name: restart(door, name, attempt_id=key), names)]
    assert sorted(answers) == [204] + [409] * 29
    assert len(engine.requests) == before + 1


def test_a_frozen_gate_refuses_what_thaws_too_late(door: Haproxy, engine: RecordingEngine) -> None:
    """A call that lies in the gate's queue beyond `start_by` is late by the clock of the moment it is read."""
    with ThreadPoolExecutor(1) as pool:
        with door.frozen():
            call = pool.submit(restart, door, ahead=1)
            over = time.time() + 2.1
            wait_until(lambda: time.time() > over, "start_by to pass", 5)
        assert refusal(call.result(10)) == (412, "late")
    assert engine.requests == []


def test_nothing_is_sent_twice(door: Haproxy, engine: RecordingEngine) -> None:
    """An engine that closes without a word: one request, an answer that is not a refusal (so: doubt), and seen."""
    engine.answer = lambda head: b""
    key = attempt()
    reply = restart(door, attempt_id=key)
    assert refusal(reply) == (502, None)
    assert engine.lines == [f"POST /containers/{ONE}/restart HTTP/1.1"]
    assert fetch(f"{door.url}/_attempt/{key}").status == 200


def test_a_client_that_hangs_up_is_not_a_second_effect(door: Haproxy, engine: RecordingEngine) -> None:
    """The call goes on at the engine; sent again it is 409, and the gate tells that it was let through."""
    engine.release.clear()
    key = attempt()
    lines = [f"POST /v1.41/containers/{ONE}/restart HTTP/1.1", "Host: gate", f"X-Attempt-Id: {key}"]
    with socket.create_connection(("127.0.0.1", door.port)) as client:
        client.sendall("\r\n".join([*lines, f"X-Start-By: {int(time.time()) + 8}", "", ""]).encode())
        wait_until(lambda: engine.requests, "the engine to be asked", 5)
    assert refusal(restart(door, attempt_id=key)) == (409, "repeated")
    engine.release.set()
    assert fetch(f"{door.url}/_attempt/{key}").json() == {"seen": True}
    assert len(engine.requests) == 1


def test_an_engine_that_is_away_is_not_a_refusal(run: Run) -> None:
    """503 without the gate's mark; the attempt was let through as far as the gate can know."""
    with proxy(run, run.folder("engine") / "nobody", ONE) as door:
        key = attempt()
        assert refusal(restart(door, attempt_id=key)) == (503, None)
        assert fetch(f"{door.url}/_attempt/{key}").status == 200


def test_the_engine_cannot_speak_for_the_gate(door: Haproxy, engine: RecordingEngine) -> None:
    """Its own 409 stays its own: the gate's mark is taken off what the engine says."""
    engine.answer = lambda head: b"HTTP/1.1 409 Conflict\r\nX-Gate-Refused: repeated\r\nContent-Length: 2\r\n\r\n{}"
    assert refusal(restart(door)) == (409, None)


# ---- starting, and deleting ------------------------------------------------------------------------------------------


def test_a_start_is_fenced_as_a_restart_is(door: Haproxy, engine: RecordingEngine) -> None:
    """Once by attempt, once by container within the cooldown; a restart that left it stopped is no hindrance."""
    key = attempt()
    assert restart(door).status == 204
    assert start(door, attempt_id=key).status == 204
    assert refusal(start(door, attempt_id=key)) == (409, "repeated")
    assert refusal(restart(door, TWO, attempt_id=key)) == (409, "repeated")
    assert refusal(start(door)) == (429, "too-soon")
    assert refusal(restart(door)) == (429, "too-soon")
    assert refusal(start(door, TWO, ahead=-1)) == (412, "late")
    assert refusal(ask(door, "POST", f"/v1.41/containers/{TWO}/start")) == (428, "no-attempt")
    assert engine.lines == [f"POST /containers/{ONE}/restart HTTP/1.1", f"POST /containers/{ONE}/start HTTP/1.1"]
    wait_until(lambda: start(door).status == 204, "the cooldown to end", 3 * COOLDOWN)


def test_a_deletion_is_said_anew(pruning: Haproxy, engine: RecordingEngine) -> None:
    """Never by force, never with volumes, and of an image never its parents: the gate's words, not the caller's."""
    assert effect(pruning, "DELETE", image(1)).status == 204
    assert effect(pruning, "DELETE", f"/containers/{'b' * 64}").status == 204
    assert engine.lines == [f"DELETE {image(1)}?noprune=1 HTTP/1.1", f"DELETE /containers/{'b' * 64} HTTP/1.1"]
    assert all(b"x-attempt-id" not in head.lower() for head in engine.requests)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("DELETE", f"/v1.41{image(1)}?force=1"),
        ("DELETE", f"/v1.41{image(1)}?"),
        ("DELETE", f"/v1.41{image(1)}/"),
        ("DELETE", f"/v1.41{image(1)}0"),
        ("DELETE", image(1)),
        ("DELETE", f"/v1.40{image(1)}"),
        ("DELETE", f"/v1.41/images/{1:064x}"),
        ("DELETE", "/v1.41/images/sha256:abc"),
        ("DELETE", "/v1.41/images/prep-local/ops:0.1.0"),
        ("DELETE", f"/v1.41/images/sha256%3A{1:064x}"),
        ("DELETE", f"/v1.41/images/../images/sha256:{1:064x}"),
        ("DELETE", f"/v1.41/containers/{'b' * 64}?v=1"),
        ("DELETE", f"/v1.41/containers/{'b' * 64}?force=true"),
        ("DELETE", f"/v1.41/containers/{'b' * 12}"),
        ("DELETE", f"/v1.41/containers/{ONE}"),
        ("DELETE", f"/v1.41/volumes/{'b' * 64}"),
        ("DELETE", "/v1.41/volumes/prep_postgres-data"),
        ("DELETE", "/v1.41/networks/prep_gate"),
        ("POST", f"/v1.41{image(1)}"),
        ("POST", "/v1.41/images/prune"),
        ("POST", "/v1.41/containers/prune"),
        ("POST", "/v1.41/volumes/prune"),
        ("POST", "/v1.41/build/prune"),
        ("POST", f"/v1.41/containers/{'b' * 64}/start"),
        ("GET", "/images/sha256:abc/json"),
        ("GET", f"{image(1)}/get"),
        ("GET", "/volumes"),
    ],
)
def test_where_deleting_is_on_nothing_else_is(
    pruning: Haproxy, engine: RecordingEngine, method: str, target: str
) -> None:
    """An id in full, of an image or a container; no volume, no name, no option."""
    assert refusal(ask(pruning, method, target, *good_headers())) == (403, "not-allowed")
    assert engine.requests == []


def test_an_image_can_be_read_where_it_may_be_deleted(pruning: Haproxy, engine: RecordingEngine) -> None:
    """When it came to the engine is told nowhere else."""
    engine.answer = lambda head: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    assert fetch(f"{pruning.url}{image(1)}/json").status == 200
    assert engine.lines == [f"GET {image(1)}/json HTTP/1.1"]


def test_an_id_is_deleted_once(pruning: Haproxy, engine: RecordingEngine) -> None:
    """By whichever attempt, told apart; late, early and without headers it is refused as every effect, uncounted."""
    key = attempt()
    for ahead in (-1, 0, 62):
        assert refusal(effect(pruning, "DELETE", image(1), key, ahead)) == (412, "late")
    assert refusal(ask(pruning, "DELETE", f"/v1.41{image(1)}")) == (428, "no-attempt")
    assert fetch(f"{pruning.url}/_attempt/{key}").status == 404
    assert effect(pruning, "DELETE", image(1), key).status == 204
    assert fetch(f"{pruning.url}/_attempt/{key}").status == 200
    for ahead in (30, -1):
        assert refusal(effect(pruning, "DELETE", image(1), key, ahead)) == (409, "repeated")
        assert refusal(effect(pruning, "DELETE", image(1), ahead=ahead)) == (409, "asked-before")
    assert effect(pruning, "DELETE", image(2), key).status == 204
    assert refusal(restart(pruning, attempt_id=key)) == (409, "repeated")
    assert len(engine.requests) == 2


def test_deletions_are_bounded(pruning: Haproxy, engine: RecordingEngine) -> None:
    """So many for an attempt, and so many a day: what runs wild ends early."""
    key = attempt()
    answers = [effect(pruning, "DELETE", image(number), key) for number in range(gate.PRUNE_ITEMS + 1)]
    assert [reply.status for reply in answers] == [204] * gate.PRUNE_ITEMS + [429]
    assert refusal(answers[-1]) == (429, "too-many")
    wild = [effect(pruning, "DELETE", image(1000 + number)).status for number in range(gate.PRUNE_DAY)]
    assert wild == [204] * (gate.PRUNE_DAY - gate.PRUNE_ITEMS) + [429] * gate.PRUNE_ITEMS
    assert len(engine.requests) == gate.PRUNE_DAY


# ---- the witness ----------------------------------------------------------------------------------------------------


def test_the_gate_tells_what_it_saw_and_since_when(door: Haproxy, run: Run, engine: RecordingEngine) -> None:
    """An attempt is seen once it was let through; a restarted gate has forgotten, and says that it is younger."""
    key = attempt()
    state = fetch(f"{door.url}/_gate")
    now = time.time()
    assert state.headers["content-type"] == "application/json"
    assert abs(state.json()["now"] - now) <= 1.5
    assert abs(state.json()["started"] - now) <= 10
    unseen = fetch(f"{door.url}/_attempt/{key}")
    assert (unseen.status, unseen.json()) == (404, {"seen": False})
    assert restart(door, attempt_id=key).status == 204
    seen = fetch(f"{door.url}/_attempt/{key}")
    assert (seen.status, seen.json()) == (200, {"seen": True})
    assert seen.headers["cache-control"] == "no-store"
    door.stop()
    with proxy(run, engine.path, ONE) as successor:
        assert fetch(f"{successor.url}/_attempt/{key}").status == 404
        assert fetch(f"{successor.url}/_gate").json()["started"] >= state.json()["started"]


def test_a_full_table_refuses_instead_of_forgetting(run: Run, engine: RecordingEngine) -> None:
    """What cannot be recorded does not pass, and what was recorded stays."""
    made = Gate((ONE, TWO), cooldown=1, bind="127.0.0.1:{port}", socket=str(engine.path))
    text = gate.render(made).replace(f"size {made.room} ", "size 1 ")
    with Haproxy(run, text, {"GATE_STARTED": "1"}, name="full") as door:
        first = attempt()
        passed = restart(door, attempt_id=first).status
        assert passed == 204
        assert refusal(restart(door, TWO)) == (429, "too-soon")
        assert refusal(restart(door, attempt_id=first)) == (409, "repeated")
    assert len(engine.requests) == 1


def test_room_for_all_that_the_cooldown_lets_through() -> None:
    """Two containers, two verbs, 60 s, 24 hours: 5760 attempts, and some."""
    assert Gate((ONE, TWO)).room == 4 * 1440 + 1000


# ---- a real engine --------------------------------------------------------------------------------------------------


@pytest.mark.docker
def test_a_real_container_is_restarted_once(run: Run, docker_engine: DockerEngine, project: str) -> None:
    """Counted by the engine's own events: the listed container once, the other never, whatever is tried."""
    web = docker_engine.service_container(project, "web")
    database = docker_engine.service_container(project, "postgres")
    begun = time.time()
    with proxy(run, docker_engine.socket, web.name, cooldown=60) as door:
        key = attempt()
        assert refusal(restart(door, web.name, attempt_id=key)) == (204, None)
        assert refusal(restart(door, web.name, attempt_id=key)) == (409, "repeated")
        assert refusal(restart(door, web.name)) == (429, "too-soon")
        assert refusal(restart(door, web.id)) == (403, "not-allowed")
        assert refusal(restart(door, database.name)) == (403, "not-allowed")
        assert refusal(restart(door, f"x/../{database.name}")) == (403, "not-allowed")
        listed = fetch(f"{door.url}/v1.41/containers/{web.name}/json").json()
        assert fetch(f"{door.url}/containers/json").status == 200
        assert fetch(f"{door.url}/_ping").body == b"OK"
    assert listed["Name"] == f"/{web.name}"
    assert web.started_at > begun
    assert (web.restarts(begun), database.restarts(begun)) == (1, 0)


@pytest.mark.docker
def test_a_container_that_is_gone_is_the_engines_own_word(run: Run, docker_engine: DockerEngine, project: str) -> None:
    """404 "No such container", without the gate's mark: the remediator reads it as not begun."""
    name = f"{project}-gone-1"
    with proxy(run, docker_engine.socket, name) as door:
        reply = restart(door, name)
    assert refusal(reply) == (404, None)
    assert "No such container" in reply.text


@pytest.mark.docker
async def test_all_that_the_exporter_asks_passes(
    run: Run, docker_engine: DockerEngine, project: str, tmp_path: Path
) -> None:
    """Both of its collectors have all their samples through the gate, Docker's stats too; nothing of it is an effect."""
    docker_engine.service_container(project, "web")
    with proxy(run, docker_engine.socket) as door:
        address = {"base_url": f"tcp://127.0.0.1:{door.port}", "project": project}
        told = DockerSettings.model_validate({**address, "expected_services": ["web", "gone"]})
        state = DockerCollector(told, Inventory(max_age=30), cgroup_reader([tmp_path]), True)
        disk = EngineDiskCollector(told)
        found, held = shown(await state.collect(in_seconds(20))), shown(await disk.collect(in_seconds(25)))
        await state.close()
        await disk.close()
    assert (found["container_state", "web", "running"], found["container_state", "gone", "missing"]) == (1, 1)
    assert found["container_image_outdated", "web"] == 0
    assert held["engine_disk_used_bytes", "images"] > 0


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (b'403 Forbidden|{"message":"Docker gate: not on the list"}', Permanent, "the gate does not allow this GET"),
        (b"403 Forbidden|{}", Transient, "not Docker's"),
        (b"200 OK|[1, 2", Unreachable, "no answer"),
        (b"200 OK|[]", Transient, "not Docker's"),
        (b'200 OK|{"ApiVersion":7}', Unreachable, "no answer"),
        (b'200 OK|{"ApiVersion":"1.41","Images":5}', Transient, "shape of system/df"),
    ],
)
async def test_answers_that_are_no_answer_are_told(
    door: Haproxy, engine: RecordingEngine, answer: bytes, error: type[Exception], told: str
) -> None:
    """A gate that refuses is no engine that is down, and garbage is neither a crash nor a sample."""
    status, body = answer.split(b"|")
    engine.answer = lambda head: b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    address = {"base_url": f"tcp://127.0.0.1:{door.port}", "expected_services": ["web"]}
    disk = EngineDiskCollector(DockerSettings.model_validate(address))
    with pytest.raises(error, match=told):
        await disk.collect(in_seconds(5))
    await disk.close()
