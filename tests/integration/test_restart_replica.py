"""Restarting a replica: real servers in containers behind the real gate. The sick one, once, or a named refusal."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from remediator import gate
from remediator.actions.base import Call, Preview, Result, Settlement
from remediator.actions.restart_replica import RestartReplica
from remediator.actions.restart_service import RestartService
from remediator.errors import Transient
from remediator.reasons import Reason
from remediator.settings import Settings
from tests.integration.adapting import CLOCK, call_of, settings
from tests.support.postgres import server_program
from tests.support.replica_container import PORT, ReplicaContainer, network, primary_of_containers
from tests.support.servers import DockerEngine, Haproxy, PostgresServer, Run, free_port, wait_until

SERVICE = "postgres-replica"
PARAMS = {"service": SERVICE}
ROLE = "prep_remediator"


@pytest.fixture(scope="module")
def primary(run: Run) -> Iterator[PostgresServer]:
    server = primary_of_containers(run, "primary")
    server.role(ROLE, ROLE, "pg_read_all_stats")
    server.role("blind", "blind")
    yield server
    server.stop()


class Platform:
    """A primary on this machine, one replica of it in a container, and the gate before the engine."""

    def __init__(self, run: Run, engine: DockerEngine, primary: PostgresServer, gateway: str, folder: Path) -> None:
        self.run, self.engine, self.primary, self.gateway, self.folder = run, engine, primary, gateway, folder
        self.project = folder.name
        made = gate.Gate((f"{self.project}-{SERVICE}-1",), bind="127.0.0.1:{port}", socket=str(engine.socket))
        self.gate = Haproxy(run, gate.render(made), {"GATE_STARTED": str(int(time.time()) - 60)}, name="gate")

    def replica(self, **options: Any) -> ReplicaContainer:
        return ReplicaContainer(self.run, self.engine, self.project, self.primary, self.gateway, **options)

    def settings(
        self,
        replica: ReplicaContainer | None,
        *,
        role: str = ROLE,
        host: str = "",
        port: int = PORT,
        primary_port: int = 0,
        **service: Any,
    ) -> Settings:
        password = self.folder / "password"
        password.write_text(f"{role}\n")
        entry = {"database": "postgres", "user": role, "password_file": password, "timeout": "3s"}
        databases = {
            "postgres": {**entry, "host": "127.0.0.1", "port": primary_port or self.primary.port},
            SERVICE: {
                **entry,
                "host": host or (replica.address if replica else "127.0.0.1"),
                "port": port,
                "replica_of": "postgres",
            },
        }
        docker = {"gate_url": self.gate.url, "project": self.project, "young": "0s", "timeout": "3s"}
        services = {SERVICE: {"singleton": True, **service}}
        return settings(self.folder, docker=docker, services=services, databases=databases)


@pytest.fixture
def platform(run: Run, docker_engine: DockerEngine, primary: PostgresServer, tmp_path: Path) -> Iterator[Platform]:
    folder = tmp_path / docker_engine.project()
    folder.mkdir()
    with network(docker_engine, folder.name) as gateway:
        made = Platform(run, docker_engine, primary, gateway, folder)
        with made.gate:
            yield made


@pytest.fixture
def replica(platform: Platform) -> ReplicaContainer:
    made = platform.replica()
    made.wait_streaming()
    return made


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def preview(action: RestartService, service: str = SERVICE) -> Preview:
    return await action.preview(action.params_model.model_validate({"service": service}))


def call(action: RestartService, found: Preview, **changes: Any) -> Call:
    return call_of(action, found, PARAMS, **{"attempt": uuid4().hex, **changes})


def reasons(found: Preview) -> list[Reason]:
    return [refusal.reason for refusal in found.refusals]


async def test_a_hung_receiver_is_healed_by_one_restart(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession
) -> None:
    """Docker counts one restart, the postmaster is a new one, and what the primary writes arrives again."""
    replica.hang_receiver()
    action, began, before = RestartReplica(platform.settings(replica), session, CLOCK), time.time(), replica.started
    leading = platform.primary.value("select pg_postmaster_start_time()")
    found = await preview(action)
    assert found.refusals == ()
    assert found.items[0]["container"] == replica.container.name
    assert found.items[0]["address"] == replica.address
    assert found.items[0]["system"] == platform.primary.system_identifier
    assert "has heard nothing for" in found.summary
    made = call(action, found)
    outcome = await action.execute(made)
    assert (outcome.result, outcome.touched) == (Result.DONE, found.items), outcome.detail
    assert (await action.settle(made)).settlement is Settlement.DONE
    assert replica.container.restarts(began) == 1
    replica.wait_ready()
    replica.wait_streaming()
    assert replica.started > before
    assert platform.primary.value("select pg_postmaster_start_time()") == leading
    platform.primary.sql("drop table if exists healed; create table healed as select 1 as n")
    wait_until(lambda: replica.value("select to_regclass('healed') is not null") == "t", "the table to arrive", 10, 0.1)
    again = await preview(action)
    assert (again.items, Reason.NOTHING_TO_DO in reasons(again)) == ((), True)


async def test_a_replica_that_streams_is_left_alone(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession
) -> None:
    """To "offload traffic" its reads would go to the primary; and it is the last one that streams."""
    found = await preview(RestartReplica(platform.settings(replica), session, CLOCK))
    assert found.items == ()
    assert set(reasons(found)) == {Reason.NOTHING_TO_DO, Reason.REPLICA_LAST}


async def test_a_promoted_one_is_refused(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession
) -> None:
    """Before the look: it takes writes, whatever the alert says of it."""
    replica.promote()
    found = await preview(RestartReplica(platform.settings(replica), session, CLOCK))
    assert reasons(found)[0] is Reason.REPLICA_PROMOTED


async def test_promoted_between_decision_and_action_it_is_not_touched(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession
) -> None:
    """The look found a sick replica; by the time of the call it is the primary. Nothing reaches the engine."""
    replica.hang_receiver()
    action = RestartReplica(platform.settings(replica), session, CLOCK)
    found = await preview(action)
    assert found.refusals == ()
    replica.container.exec("kill", "-CONT", replica.value("select pid from pg_stat_wal_receiver"))
    replica.promote()
    began, started = time.time(), replica.container.started_at
    outcome = await action.execute(call(action, found))
    assert (outcome.result, outcome.touched) == (Result.FAILED, ())
    assert "is not in recovery" in outcome.detail
    assert replica.container.restarts(began) == 0
    assert replica.container.started_at == started


async def test_healed_between_decision_and_action_it_is_not_touched(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession
) -> None:
    """It streams again by itself: what there was to mend is gone."""
    replica.hang_receiver()
    action = RestartReplica(platform.settings(replica), session, CLOCK)
    found = await preview(action)
    replica.container.exec("kill", "-CONT", replica.value("select pid from pg_stat_wal_receiver"))
    wait_until(lambda: replica.value("select count(*) from pg_stat_wal_receiver") == "1", "a receiver", 15, 0.1)
    replica.wait_streaming()
    began = time.time()
    outcome = await action.execute(call(action, found))
    assert (outcome.result, "streams from its primary" in outcome.detail) == (Result.FAILED, True)
    assert replica.container.restarts(began) == 0


@pytest.mark.parametrize("names", ["FIRST 1 ({})", "ANY 1 ({})", "*"])
async def test_a_synchronous_standby_is_refused(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession, names: str
) -> None:
    """Commits wait for it; once it is away, whether they wait for it cannot be told, which is no better."""
    primary, action = platform.primary, RestartReplica(platform.settings(replica), session, CLOCK)
    primary.configure(synchronous_standby_names=names.format(f'"{SERVICE}"'))
    try:
        query = "select sync_state from pg_stat_replication"
        wait_until(lambda: primary.sql(query) in ([["sync"]], [["quorum"]]), "it to be synchronous", 10, 0.1)
        assert Reason.REPLICA_SYNCHRONOUS in reasons(await preview(action))
        replica.hang_receiver()
        wait_until(lambda: primary.sql(query) == [], "the primary to give it up", 15, 0.1)
        found = await preview(action)
        assert reasons(found) == [Reason.REPLICA_SYNCHRONOUS]
        began = time.time()
        assert (await action.execute(call(action, found))).result is Result.FAILED
        assert replica.container.restarts(began) == 0
    finally:
        primary.configure(synchronous_standby_names="")
        wait_until(
            lambda: primary.value("select current_setting('synchronous_standby_names') = ''") == "t", "the setting", 5
        )


async def test_the_last_replica_is_refused(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession
) -> None:
    """Sick or not: unless the settings say aloud that it is the only one, or another one streams."""
    action = RestartReplica(platform.settings(replica, singleton=False), session, CLOCK)
    replica.hang_receiver()
    found = await preview(action)
    assert reasons(found) == [Reason.REPLICA_LAST]
    assert (await action.execute(call(action, found))).result is Result.FAILED
    other = platform.primary.replica(name="other")
    try:
        query = "select 1 from pg_stat_replication where application_name like 'other%' and replay_lsn > '0/0'"
        wait_until(lambda: platform.primary.sql(query), "the other one to stream", 15)
        assert reasons(await preview(action)) == []
        strict = RestartReplica(platform.settings(replica, singleton=False, min_healthy=2), session, CLOCK)
        assert reasons(await preview(strict)) == [Reason.REPLICA_LAST]
    finally:
        other.stop()


async def test_what_works_at_it_is_not_broken_off(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession
) -> None:
    """A base backup from it, a dump, replay that somebody has paused."""
    action = RestartReplica(platform.settings(replica), session, CLOCK)
    replica.hang_receiver()
    replica.sql("select pg_wal_replay_pause()")
    found = await preview(action)
    assert (reasons(found), "paused" in found.refusals[0].sentence) == ([Reason.REPLICA_BUSY], True)
    replica.sql("select pg_wal_replay_resume()")
    assert reasons(await preview(action)) == []
    sleep = [server_program("psql"), "-Xc", "select pg_sleep(20)", replica.dsn(application="pg_dump")]
    slowly = ["--max-rate=32k", "--wal-method=none", "--checkpoint=fast"]
    copy = [server_program("pg_basebackup"), "-D", str(platform.folder / "copy"), "-d", replica.dsn(), *slowly]
    for argv, word in ((sleep, "pg_dump"), (copy, "1 base backups run")):
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert Reason.REPLICA_BUSY in reasons(await in_time(action, word))
        finally:
            process.kill()
            process.wait()


async def in_time(action: RestartReplica, word: str) -> Preview:
    """Previews until one says the word; the last one."""
    deadline = time.monotonic() + 10
    while True:
        found = await preview(action)
        if word in str(found.refusals) or time.monotonic() > deadline:
            assert word in str(found.refusals), found.refusals
            return found
        await asyncio.sleep(0.05)


async def test_a_slot_that_is_not_there_is_a_persons(platform: Platform, session: aiohttp.ClientSession) -> None:
    """A restart does not make it, and without it WAL is lost: the replica must be made anew."""
    replica = platform.replica(settings={"primary_slot_name": "gone"})
    wait_until(lambda: "gone" in replica.container.logs(), "the primary to say so", 10)
    found = await preview(RestartReplica(platform.settings(replica), session, CLOCK))
    assert reasons(found) == [Reason.REPLICA_SLOT]


async def test_another_server_than_the_containers_is_refused(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession
) -> None:
    """The name leads to a server that the container is not: restarting the container would hit somebody else."""
    replica.hang_receiver()
    elsewhere = platform.settings(replica, host="127.0.0.1", port=platform.primary.port)
    found = await preview(RestartReplica(elsewhere, session, CLOCK))
    assert reasons(found) == [Reason.REPLICA_UNPROVEN]
    action = RestartReplica(platform.settings(replica), session, CLOCK)
    found = await preview(action)
    replica.container.container.restart(timeout=1)
    replica.wait_ready()
    began = time.time()
    assert (await action.execute(call(action, found))).result is Result.FAILED
    assert replica.container.restarts(began) == 0


async def test_who_cannot_see_or_ask_does_nothing(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession
) -> None:
    """Without the grant, or without the primary's word, nothing is known of what would break."""
    replica.hang_receiver()
    found = await preview(RestartReplica(platform.settings(replica, role="blind"), session, CLOCK))
    assert reasons(found) == [Reason.TARGET_NOT_ALLOWED]
    assert "GRANT pg_read_all_stats TO blind;" in found.refusals[0].sentence
    action = RestartReplica(platform.settings(replica), session, CLOCK)
    found = await preview(action)
    dead = RestartReplica(platform.settings(replica, primary_port=free_port()), session, CLOCK)
    with pytest.raises(Transient):
        await preview(dead)
    began = time.time()
    outcome = await dead.execute(call(dead, found))
    assert (outcome.result, "takes no connection" in outcome.detail) == (Result.FAILED, True)
    assert replica.container.restarts(began) == 0


async def test_no_other_action_restarts_a_database(
    platform: Platform, replica: ReplicaContainer, session: aiohttp.ClientSession
) -> None:
    """`restart_service` refuses it, and `restart_replica` refuses what is no replica."""
    known = platform.settings(replica)
    assert reasons(await preview(RestartService(known, session, CLOCK))) == [Reason.TARGET_NOT_ALLOWED]
    assert reasons(await preview(RestartReplica(known, session, CLOCK), "postgres")) == [Reason.NEVER_LIST]
    assert (RestartService.listed(known), RestartReplica.listed(known)) == ([], [SERVICE])
    assert RestartService.obstacles(known, SERVICE)[0].where == f"databases.{SERVICE}"
    assert RestartReplica.obstacles(known, SERVICE) == ()
    assert RestartReplica.obstacles(known, "payments")[0].where == "databases.payments.replica_of"
