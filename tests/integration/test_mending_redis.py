"""The mild actions on a real Redis: exactly what the preview said or less, once, in time by Redis' own clock."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from remediator import redis_spare
from remediator.actions.base import Action, Call, Preview, Result, Settlement
from remediator.actions.close_redis_clients import CloseRedisClients
from remediator.actions.purge_redis_memory import PurgeRedisMemory
from remediator.actions.redis_guard import mark
from remediator.errors import Permanent, Transient
from remediator.probing import probe
from remediator.reasons import Reason
from remediator.redis_link import SPARE, connected
from remediator.settings import Settings
from remediator.world import Health
from tests.integration.adapting import CLOCK, call_of
from tests.integration.redis_parts import (
    RIGHTS,
    SERVICE,
    USER,
    Client,
    clients,
    give_rights,
    grow_idle,
    ids,
    preview,
    reasons,
    redis_settings,
)
from tests.support.servers import RedisServer, Run, free_port, wait_until
from tests.support.tcp_proxy import TcpProxy

MIB = 1024 * 1024
IDLE = {"min_idle": 1.0, "keep": 0}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shared(run: Run) -> Iterator[RedisServer]:
    server = RedisServer(run, name="mended").start()
    give_rights(server)
    yield server
    server.stop()


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """The module's server, as every test begins: empty, without a limit, nobody connected."""
    shared.flush()
    shared.command("CONFIG", "SET", "maxmemory", "0")
    shared.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    wait_until(lambda: not ids(shared), "the clients of the test before to be gone", 5)
    return shared


@pytest.fixture
def config(server: RedisServer, tmp_path: Path) -> Settings:
    return redis_settings(tmp_path, server.port)


def call(action: Action, found: Preview, changes: dict[str, Any] | None = None, **params: Any) -> Call:
    made = call_of(action, found, {"service": SERVICE, **params}, attempt=uuid4().hex)
    return replace(made, **(changes or {}))


# -- closing clients ------------------------------------------------------------------------------------------------


async def test_idle_clients_are_closed_and_nobody_else(server: RedisServer, config: Settings) -> None:
    """A leak's connections go; who works, subscribes, waits, has a transaction or a protected name stays."""
    action = CloseRedisClients(config, CLOCK)
    with clients() as held:
        leaked = [Client(server.port, "leaky") for _ in range(5)]
        exporter = Client(server.port, "prep_exporter")
        subscriber, blocked, transaction = (Client(server.port, "leaky") for _ in range(3))
        subscriber.say("SUBSCRIBE", "news")
        blocked.say("BLPOP", "queue", "0", answered=False)
        transaction.say("MULTI")
        monitor = Client(server.port)
        monitor.say("MONITOR")
        held += [*leaked, exporter, subscriber, blocked, transaction, monitor]
        grow_idle(1.1)
        busy = Client(server.port, "leaky")
        held.append(busy)
        found = await preview(action, **IDLE)
        assert found.refusals == ()
        assert {item["id"] for item in found.items} == {client.id for client in leaked}
        assert {item["id"] for item in found.left_out} >= {exporter.id, subscriber.id, blocked.id, transaction.id}
        outcome = await action.execute(call(action, found, **IDLE))
        assert (outcome.result, len(outcome.touched)) == (Result.DONE, 5), outcome.detail
        assert all(client.closed() for client in leaked)
        assert ids(server) == {client.id for client in (exporter, subscriber, blocked, transaction, monitor, busy)}


async def test_a_pool_keeps_its_most_lately_used(server: RedisServer, config: Settings) -> None:
    """A pool's idle connections are no leak: of each source so many stay, those that were used last."""
    action = CloseRedisClients(config, CLOCK)
    with clients() as held:
        held += [Client(server.port, "pool") for _ in range(4)]
        grow_idle(1.1)
        lately = held[1]
        lately.say("PING")
        found = await preview(action, min_idle=1.0, keep=2)
        assert len(found.items) == 2
        assert lately.id not in {item["id"] for item in found.items}
        assert reasons(await preview(action, min_idle=1.0, keep=4)) == [Reason.NOTHING_TO_DO]


async def test_a_client_that_works_again_is_left_alone(server: RedisServer, config: Settings) -> None:
    """Between look and effect one of three has asked something: two are closed, and the outcome says so."""
    action = CloseRedisClients(config, CLOCK)
    with clients() as held:
        held += [Client(server.port) for _ in range(3)]
        grow_idle(1.1)
        found = await preview(action, **IDLE)
        held[0].say("PING")
        outcome = await action.execute(call(action, found, **IDLE))
        assert {item["id"] for item in outcome.touched} == {held[1].id, held[2].id}
        assert not held[0].closed()


async def test_another_client_of_the_same_id_is_not_touched(server: RedisServer, config: Settings) -> None:
    """Redis compares address and user with the id, in the command itself; after a restart ids begin anew."""
    action = CloseRedisClients(config, CLOCK)
    with clients() as held:
        held.append(Client(server.port))
        grow_idle(1.1)
        found = await preview(action, **IDLE)
        for change in ({"address": "127.0.0.1:1"}, {"user": "somebody"}, {"run_id": "0" * 40}):
            other = ({**found.items[0], **change},)
            outcome = await action.execute(call(action, found, {"items": other}, **IDLE))
            assert (outcome.result, outcome.touched) == (Result.FAILED, ())
        assert ids(server) == {held[0].id}


@given(
    kinds=st.lists(
        st.sampled_from(["idle", "named", "protected", "subscriber", "blocked", "transaction", "other"]), max_size=12
    ),
    keep=st.integers(0, 3),
    most=st.integers(1, 5),
    meanwhile=st.sampled_from(["nothing", "work", "leave", "join"]),
    seed=st.integers(0, 2**16),
)
@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_closed_clients_are_a_subset_of_the_preview(
    server: RedisServer, config: Settings, kinds: list[str], keep: int, most: int, meanwhile: str, seed: int
) -> None:
    """Whoever is connected, and whatever they do between look and effect: by Redis' own list, only previewed ids go."""
    chance = random.Random(seed)
    params = {"min_idle": 1.0, "keep": keep, "max_clients": most}
    action = CloseRedisClients(config, CLOCK)
    with clients() as held:
        for kind in kinds:
            name = {"protected": "prep_exporter", "named": "leaky"}.get(kind, "")
            client = Client(server.port, name)
            if kind == "subscriber":
                client.say("SUBSCRIBE", "x")
            elif kind == "blocked":
                client.say("BLPOP", "q", "0", answered=False)
            elif kind == "transaction":
                client.say("MULTI")
            held.append(client)
        grow_idle(1.05)
        found = asyncio.run(preview(action, **params))
        idle = [client for client, kind in zip(held, kinds, strict=True) if kind in ("idle", "named", "other")]
        left: set[int] = set()
        if meanwhile == "work" and idle:
            chance.choice(idle).say("PING")
        elif meanwhile == "leave" and idle:
            gone = chance.choice(idle)
            gone.close()
            wait_until(lambda: gone.id not in ids(server), "it to be gone", 5)
            left.add(gone.id)
        elif meanwhile == "join":
            held.append(Client(server.port, "leaky"))
        before = ids(server)
        if not found.items:
            return
        outcome = asyncio.run(action.execute(call(action, found, **params)))
        previewed, touched = ({item["id"] for item in items} for items in (found.items, outcome.touched))
        closed = before - ids(server)
        assert closed == touched <= previewed - left
        assert len(closed) <= most


# -- the guard ------------------------------------------------------------------------------------------------------


async def test_redis_itself_refuses_what_is_late(server: RedisServer, config: Settings) -> None:
    """`start_by` is over by the server's clock: nothing is begun, and the doubt is settled as not done."""
    action = CloseRedisClients(config, CLOCK)
    with clients() as held:
        held.append(Client(server.port))
        grow_idle(1.1)
        found = await preview(action, **IDLE)
        late = call(action, found, {"start_by": found.target_now - 0.1}, **IDLE)
        outcome = await action.execute(late)
        assert (outcome.result, "late" in outcome.detail) == (Result.FAILED, True)
        assert not held[0].closed()
        assert (await action.settle(late)).settlement is Settlement.NOT_DONE


async def test_bytes_that_are_held_up_do_nothing(server: RedisServer, tmp_path: Path) -> None:
    """The whole call hangs in the network until its time is over, then arrives: Redis refuses it."""
    proxy = TcpProxy(server.port).start()
    proxy.lasting = True
    action = CloseRedisClients(redis_settings(tmp_path, proxy.port), CLOCK)
    try:
        with clients() as held:
            held.append(Client(server.port))
            grow_idle(1.1)
            found = await preview(action, **IDLE)
            made = call(action, found, {"start_by": found.target_now + 1.0}, **IDLE)
            hold = proxy.hold_on(b"EVALSHA")
            executing = asyncio.ensure_future(action.execute(made))
            await asyncio.to_thread(hold.wait)
            await asyncio.sleep(max(0.0, made.start_by - time.time()) + 0.1)
            hold.release()
            outcome = await executing
            assert (outcome.result, "late" in outcome.detail) == (Result.FAILED, True), outcome.detail
            assert not held[0].closed()
    finally:
        proxy.close()


async def test_an_attempt_is_let_through_once(server: RedisServer, config: Settings) -> None:
    """The same attempt a second time closes nothing, though there is something to close, and is done by its mark."""
    action = CloseRedisClients(config, CLOCK)
    with clients() as held:
        held += [Client(server.port) for _ in range(2)]
        grow_idle(1.1)
        found = await preview(action, **IDLE)
        first = call(action, found, {"items": found.items[:1]}, **IDLE)
        assert (await action.execute(first)).result is Result.DONE
        for start_by in (first.start_by, time.time() - 1):
            again = await action.execute(replace(first, items=found.items[1:], start_by=start_by))
            assert (again.result, "repeated" in again.detail) == (Result.IN_DOUBT, True)
        assert len(ids(server)) == 1
        assert (await action.settle(first)).settlement is Settlement.DONE
        assert server.command("PTTL", mark(first.attempt)) > 80_000_000  # type: ignore[operator] # a number


async def test_two_at_once_of_one_attempt(server: RedisServer, config: Settings) -> None:
    """Two processes with one attempt, a crash and a take-over: one of them acts."""
    action = PurgeRedisMemory(config, CLOCK)
    found = await preview(action, at_least=0)
    made = call(action, found, at_least=0)
    outcomes = await asyncio.gather(*(action.execute(made) for _ in range(5)))
    assert sorted(outcome.result for outcome in outcomes) == sorted([Result.DONE, *[Result.IN_DOUBT] * 4])


async def test_a_broken_connection_after_the_check_is_a_doubt(server: RedisServer, tmp_path: Path) -> None:
    """The answer is lost: in doubt, and Redis' mark settles it as done."""
    proxy = TcpProxy(server.port).start()
    action = CloseRedisClients(redis_settings(tmp_path, proxy.port), CLOCK)
    try:
        with clients() as held:
            held.append(Client(server.port))
            grow_idle(1.1)
            found = await preview(action, **IDLE)
            made = call(action, found, **IDLE)
            hold = proxy.hold_answer_on(b"$2\r\nok\r\n")
            executing = asyncio.ensure_future(action.execute(made))
            await asyncio.to_thread(hold.wait)
            hold.drop()
            outcome = await executing
            assert outcome.result is Result.IN_DOUBT, outcome.detail
            assert held[0].closed()
            assert (await action.settle(made)).settlement is Settlement.DONE
    finally:
        proxy.close()


async def test_after_a_restart_nothing_is_known(run: Run, tmp_path: Path) -> None:
    """Another life of Redis remembers no attempt: not touched, and in doubt it is for people."""
    server = RedisServer(run, name="reborn").start()
    give_rights(server)
    action = PurgeRedisMemory(redis_settings(tmp_path, server.port), CLOCK)
    found = await preview(action, at_least=0)
    made = call(action, found, at_least=0)
    server.stop()
    server.start()
    give_rights(server)
    try:
        outcome = await action.execute(made)
        assert (outcome.result, "anew" in outcome.detail) == (Result.FAILED, True)
        assert (await action.settle(made)).settlement is Settlement.UNKNOWN
    finally:
        server.stop()


async def test_a_mark_that_came_back_with_the_file_proves_no_effect(run: Run, tmp_path: Path) -> None:
    """It was let through and saved, mark and all; what a new life has of the effect the mark does not say."""
    server = RedisServer(run, name="saved").start()
    give_rights(server)
    action = PurgeRedisMemory(redis_settings(tmp_path, server.port), CLOCK)
    made = call(action, await preview(action, at_least=0), at_least=0)
    assert (await action.execute(made)).result is Result.DONE
    assert (await action.settle(made)).settlement is Settlement.DONE
    server.command("SAVE")
    server.stop()
    server.start()
    give_rights(server)
    try:
        assert server.command("EXISTS", mark(made.attempt)) == 1, "the mark is gone: this test shows nothing"
        assert (await action.settle(made)).settlement is Settlement.UNKNOWN
    finally:
        server.stop()


async def test_a_doubt_is_not_settled_before_its_time(server: RedisServer, config: Settings) -> None:
    """Until `start_by` it may still be on its way; where keys may be evicted, no mark is no proof either."""
    action = PurgeRedisMemory(config, CLOCK)
    made = call(action, await preview(action, at_least=0), at_least=0)
    assert (await action.settle(made)).settlement is Settlement.UNKNOWN
    over = replace(made, start_by=made.start_by - 60.0)
    assert (await action.settle(over)).settlement is Settlement.NOT_DONE
    server.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    assert (await action.settle(over)).settlement is Settlement.UNKNOWN


async def test_a_mark_that_may_be_gone_proves_nothing(server: RedisServer, config: Settings) -> None:
    """It lies there for a day: asked for the first time after half of it, that there is none says nothing."""
    action = CloseRedisClients(config, CLOCK)
    with clients() as held:
        held.append(Client(server.port, "leaky"))
        grow_idle(1.1)
        made = call(action, await preview(action, **IDLE), **IDLE)
    wait_until(lambda: not ids(server), "the client to be gone by itself", 5)
    for hours, settlement in ((11, Settlement.NOT_DONE), (13, Settlement.UNKNOWN)):
        asked = replace(made, start_by=made.start_by - hours * 3600.0)
        assert (await action.settle(asked)).settlement is settlement


@pytest.mark.parametrize("right", ["+xread", "+evalsha", "+xadd", "+set", "+script|load", "+client|kill"])
async def test_without_a_right_nothing_is_begun(server: RedisServer, config: Settings, right: str) -> None:
    """Whichever right is missing, the waiting command's too: nothing is closed, and it is no doubt."""
    action = CloseRedisClients(config, CLOCK)
    with clients() as held:
        held.append(Client(server.port))
        grow_idle(1.1)
        found = await preview(action, **IDLE)
        server.command("ACL", "SETUSER", USER, f"-{right[1:]}")
        try:
            made = call(action, found, **IDLE)
            outcome = await action.execute(made)
        finally:
            give_rights(server)
        assert outcome.result is Result.FAILED
        assert any(word in outcome.detail for word in ("NOPERM", "permission", "ACL", "can't run")), outcome.detail
        over = replace(made, start_by=found.target_now)
        settled = await action.settle(over)
        # The waiting command is refused after the mark was laid: that all is as before is then no proof of either.
        assert settled.settlement is (Settlement.UNKNOWN if right == "+client|kill" else Settlement.NOT_DONE)
        assert not held[0].closed()


# -- Redis' own reasons ---------------------------------------------------------------------------------------------


async def test_redis_own_reasons(run: Run, tmp_path: Path) -> None:
    """A replica, one that cannot save and one that writes its snapshot are left alone, each by its name."""
    server = RedisServer(run, options=["--rdb-key-save-delay", "20000"], name="moody").start()
    give_rights(server)
    action = PurgeRedisMemory(redis_settings(tmp_path, server.port), CLOCK)
    made = call(action, await preview(action, at_least=0), at_least=0)
    try:
        server.command("REPLICAOF", "127.0.0.1", str(free_port()))
        assert reasons(await preview(action)) == [Reason.REDIS_ROLE]
        assert (await action.execute(made)).result is Result.FAILED
        server.command("REPLICAOF", "NO", "ONE")
        for number in range(200):
            server.command("SET", f"key:{number}", "value")
        server.command("BGSAVE")
        assert reasons(await preview(action)) == [Reason.REDIS_LOADING]
        wait_until(lambda: _info(server, "rdb_bgsave_in_progress") == 0, "the snapshot to be written", 20)
        (server.folder / "dump.rdb").unlink()
        (server.folder / "dump.rdb").mkdir()  # a rename onto a folder fails, for root too: as a full disk does
        server.command("CONFIG", "SET", "save", "3600 1")
        server.command("CONFIG", "SET", "rdb-key-save-delay", "0")
        server.command("BGSAVE")
        wait_until(lambda: _info(server, "rdb_last_bgsave_status") == "err", "the snapshot to fail", 20)
        assert reasons(await preview(action)) == [Reason.REDIS_CANNOT_SAVE]
        outcome = await action.execute(made)
        assert (outcome.result, "disk" in outcome.detail) == (Result.FAILED, True)
        health = await probe(redis_settings(tmp_path, server.port), None, SERVICE)  # type: ignore[arg-type] # not asked
        assert (health.health, "MISCONF" in health.detail) == (Health.SICK, True)
    finally:
        server.stop()


async def test_a_server_that_loads_is_left_alone(run: Run, tmp_path: Path) -> None:
    """LOADING is not down: it comes by itself, and the probe says sick."""
    options = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"]
    options += ["--aclfile", str(tmp_path / "users.acl"), "--dbfilename", "big.rdb"]
    (tmp_path / "users.acl").write_text("")
    server = RedisServer(run, options=options, name="loading").start()
    give_rights(server)
    server.command("ACL", "SAVE")
    for number in range(1000):
        server.command("SET", f"key:{number}", "x" * 100)
    server.command("SAVE")
    server.stop()
    config = redis_settings(tmp_path, server.port)
    starting = asyncio.ensure_future(asyncio.to_thread(server.start))
    try:
        await _answered(server)
        assert reasons(await preview(PurgeRedisMemory(config, CLOCK))) == [Reason.REDIS_LOADING]
        health = await probe(config, None, SERVICE)  # type: ignore[arg-type] # not asked
        assert (health.health, "LOADING" in health.detail) == (Health.SICK, True)
    finally:
        await starting
        server.stop()


async def test_a_full_server_is_asked_until_a_place_is_free(server: RedisServer, config: Settings) -> None:
    """maxclients reached: the look waits for a place, and says so when there is none; the probe says sick."""
    action = CloseRedisClients(config, CLOCK)
    with clients() as held:
        admin = Client(server.port, "prep_exporter")
        held += [admin, Client(server.port), Client(server.port)]
        admin.say("CONFIG", "SET", "maxclients", "3")
        try:
            with pytest.raises(Transient, match="did not let us in"):
                await preview(action, **IDLE)
            health = await probe(config, None, SERVICE)  # type: ignore[arg-type] # not asked
            assert health.health is Health.SICK
            asking = asyncio.ensure_future(preview(action, **IDLE))
            await asyncio.sleep(0.5)
            held[2].close()
            assert [item["id"] for item in (await asking).items] == [held[1].id]
        finally:
            admin.say("CONFIG", "SET", "maxclients", "1000")


async def test_a_full_server_is_mended_by_the_kept_connection(server: RedisServer, config: Settings) -> None:
    """maxclients reached by a leak: looked at and closed by the one connection that was opened before, which stays the
    same and is nobody's to close; the probe says sick meanwhile, since a client is not let in.
    """
    action = CloseRedisClients(config, CLOCK)
    keeping = asyncio.ensure_future(redis_spare.keep(lambda: config, every=0.2))
    try:
        with clients() as held:
            held += [Client(server.port, "prep_exporter"), Client(server.port, "leaky"), Client(server.port, "leaky")]
            admin = held[0]
            mine = await _kept(admin)
            admin.say("CONFIG", "SET", "maxclients", "4")
            try:
                await asyncio.sleep(1.2)
                found = await preview(action, **IDLE)
                assert {item["id"] for item in found.items} == {held[1].id, held[2].id}
                health = await probe(config, None, SERVICE)  # type: ignore[arg-type] # not asked
                assert health.health is Health.SICK
                outcome = await action.execute(call(action, found, **IDLE))
                assert (outcome.result, len(outcome.touched)) == (Result.DONE, 2)
                assert held[1].closed()
                assert held[2].closed()
                assert await _kept(admin) == mine
            finally:
                admin.say("CONFIG", "SET", "maxclients", "1000")
            healthy = await probe(config, None, SERVICE)  # type: ignore[arg-type] # not asked
            assert healthy.health is Health.HEALTHY
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    wait_until(lambda: b"name=prep-remediator" not in _listed(server), "the kept connection to be closed", 5)


async def test_the_kept_connection_is_not_used_again_after_a_refusal(server: RedisServer, config: Settings) -> None:
    """What the guard refused waits at the server on that connection: it is cut, the effect never happens, and a new one
    is kept as soon as there is room.
    """
    action = CloseRedisClients(config, CLOCK)
    keeping = asyncio.ensure_future(redis_spare.keep(lambda: config, every=0.2))
    try:
        with clients() as held:
            held += [Client(server.port, "prep_exporter"), Client(server.port, "leaky")]
            admin = held[0]
            mine = await _kept(admin)
            admin.say("CONFIG", "SET", "maxclients", "3")
            try:
                await asyncio.sleep(1.2)
                found = await preview(action, **IDLE)
                late = call(action, found, {"start_by": found.target_now - 5}, **IDLE)
                outcome = await action.execute(late)
                assert (outcome.result, "late" in outcome.detail) == (Result.FAILED, True)
                assert not held[1].closed()
            finally:
                admin.say("CONFIG", "SET", "maxclients", "1000")
            again = await _kept(admin)
            assert again != mine
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _kept(admin: Client) -> int:
    """Id of the one connection with our name, once there is one."""
    for _ in range(100):
        lines = [line for line in admin.say("CLIENT", "LIST").splitlines() if b" name=prep-remediator " in line]
        if len(lines) == 1:
            return int(lines[0].split(b" ")[0].removeprefix(b"id="))
        await asyncio.sleep(0.05)
    raise AssertionError("no connection is kept")


def _listed(server: RedisServer) -> bytes:
    listed: Any = server.command("CLIENT", "LIST")
    return bytes(listed)


async def test_who_may_not_ask_is_told(server: RedisServer, tmp_path: Path) -> None:
    """A wrong password, and nobody there: reasons to look at the settings, never to act."""
    config = redis_settings(tmp_path, server.port)
    (tmp_path / "redis").write_text("wrong")
    with pytest.raises(Permanent, match="WRONGPASS"):
        await preview(PurgeRedisMemory(config, CLOCK))
    with pytest.raises(Transient, match="takes no connection"):
        await preview(PurgeRedisMemory(redis_settings(tmp_path, free_port()), CLOCK))
    assert reasons(await PurgeRedisMemory(config, CLOCK).preview(PurgeRedisMemory.params_model(service="other"))) == [
        Reason.TARGET_NOT_ALLOWED
    ]


async def test_purge_gives_memory_back(server: RedisServer, config: Settings) -> None:
    """What the allocator held unused is less afterwards, by Redis' own numbers; where there is little, nothing to do."""
    action = PurgeRedisMemory(config, CLOCK)
    assert reasons(await preview(action, at_least=10**12)) == [Reason.NOTHING_TO_DO]
    server.command("CONFIG", "SET", "activedefrag", "no")
    for number in range(300):
        server.command("SET", f"key:{number}", "x" * 100_000)
    server.flush()
    found = await preview(action, at_least=0)
    outcome = await action.execute(call(action, found, at_least=0))
    assert (outcome.result, outcome.touched) == (Result.DONE, found.items)
    after = await preview(action, at_least=0)
    assert after.items[0]["unused_bytes"] <= found.items[0]["unused_bytes"]


def test_the_page_names_these_rights() -> None:
    """Whoever copies the user from the documentation or the compose file gets exactly what these tests run with."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    compose = (ROOT / "docker-compose.yml").read_text()
    for right in RIGHTS:
        assert right in page.split("## Rights of the remediator in Redis")[1], right
        assert right in compose, right


def _info(server: RedisServer, field: str) -> Any:
    found: Any = server.command("INFO")
    return found[field]


async def _answered(server: RedisServer) -> None:
    """Wait until the server says that it loads."""
    for _ in range(200):
        try:
            client = Client(server.port)
        except (OSError, ValueError):
            await asyncio.sleep(0.02)
            continue
        said = client.say("PING")
        client.close()
        if said.startswith(b"-LOADING"):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never said that it loads")


async def test_what_cannot_be_kept_ends_nothing(config: Settings, tmp_path: Path) -> None:
    """A host that is no name, a password that is no text: told by who needs a connection, while the keeping goes on."""
    (one,) = config.redis.values()
    binary = tmp_path / "password"
    binary.write_bytes(b"\xff\xfe")
    for changes in ({"host": "redis..local"}, {"password_file": binary}):
        ill = config.model_copy(update={"redis": {SERVICE: one.model_copy(update=changes)}})
        keeping = asyncio.ensure_future(redis_spare.keep(lambda ill=ill: ill, every=0.05))
        await asyncio.sleep(0.3)
        assert not keeping.done(), changes
        assert not SPARE
        keeping.cancel()
        with pytest.raises((Permanent, Transient)):
            async with connected(ill.redis[SERVICE]):
                pass
