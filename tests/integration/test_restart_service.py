"""Restarting a service on a real Docker Engine through the real gate: the right one, once, or a named refusal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from remediator import gate
from remediator.actions.base import Call, Outcome, Preview, Result, Settlement
from remediator.actions.restart_service import RestartService
from remediator.errors import Transient
from remediator.reasons import Reason
from remediator.settings import Settings
from tests.integration.adapting import CLOCK, call_of, settings
from tests.support.docker_engine import OBEDIENT, STUBBORN, DockerEngine, ServiceContainer
from tests.support.servers import Haproxy, Run, free_port, wait_until
from tests.support.tcp_proxy import TcpProxy

SERVICE = "python-compliance"
OPTED_IN = {"prep-ops.remediate": "true"}
PARAMS = {"service": SERVICE}


class Platform:
    """A compose project of this test's own on the engine, its gate, and a remediator's settings for both."""

    def __init__(self, run: Run, engine: DockerEngine, folder: Path) -> None:
        self.engine = engine
        self.project = engine.project()
        self.folder = folder
        made = gate.Gate(
            tuple(f"{self.project}-{SERVICE}-{number}" for number in (1, 2)),
            bind="127.0.0.1:{port}",
            socket=str(engine.socket),
        )
        # Begun some seconds ago, as far as anybody asks: a gate is older than the attempts it witnesses.
        self.gate = Haproxy(run, gate.render(made), {"GATE_STARTED": str(int(time.time()) - 60)}, name="gate")

    def container(self, service: str = SERVICE, **options: Any) -> ServiceContainer:
        return self.engine.service_container(
            self.project, service, **{"labels": OPTED_IN, "stop_timeout": 1, **options}
        )

    def settings(self, url: str = "", *, young: str = "0s", **service: Any) -> Settings:
        docker = {"gate_url": url or self.gate.url, "project": self.project, "young": young, "timeout": "3s"}
        return settings(self.folder, docker=docker, services={SERVICE: {"singleton": True, **service}})


@pytest.fixture
def platform(run: Run, docker_engine: DockerEngine, tmp_path: Path) -> Iterator[Platform]:
    made = Platform(run, docker_engine, tmp_path)
    with made.gate:
        yield made
    docker_engine.remove_all(made.project)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def action(platform: Platform, session: aiohttp.ClientSession) -> RestartService:
    return RestartService(platform.settings(), session, CLOCK)


async def preview(action: RestartService, service: str = SERVICE) -> Preview:
    return await action.preview(action.params_model.model_validate({"service": service}))


def call(action: RestartService, found: Preview, **changes: Any) -> Call:
    return call_of(action, found, PARAMS, **{"attempt": uuid4().hex, **changes})


def reasons(found: Preview) -> list[Reason]:
    return [refusal.reason for refusal in found.refusals]


async def test_restart_is_done_once_and_seen_at_the_target(platform: Platform, action: RestartService) -> None:
    """The engine counts one restart, StartedAt moves, the neighbour's does not."""
    container, neighbour = platform.container(), platform.container("payments")
    began, before, other = time.time(), container.started_at, neighbour.started_at
    await asyncio.sleep(0.05)
    asked = time.monotonic()
    found = await preview(action)
    assert time.monotonic() - asked < 1.0  # some 50 ms on an idle machine
    assert found.refusals == ()
    assert found.resource == f"docker:{platform.project}/{SERVICE}"
    assert found.items[0]["container"] == container.name
    assert abs(found.target_now - time.time()) < 2
    outcome = await action.execute(call(action, found))
    assert outcome == Outcome(Result.DONE, outcome.detail, found.items)
    assert container.started_at > before
    assert container.restarts(began) == 1
    assert neighbour.started_at == other


async def test_settled_done_by_started_at(platform: Platform, action: RestartService) -> None:
    """The answer was lost, the restart was not: StartedAt later than the intent is done."""
    platform.container()
    found = await preview(action)
    made = call(action, found)
    await action.execute(made)
    settled = await action.settle(made)
    assert settled.settlement is Settlement.DONE
    assert settled.evidence["attempt_seen_by_gate"] is True


async def test_settled_not_done_by_the_gates_witness(platform: Platform, action: RestartService) -> None:
    """The gate was up all the while and never saw the attempt; before start_by it does not say so."""
    platform.container()
    found = await preview(action)
    never_sent = call(action, found)
    assert (await action.settle(never_sent)).settlement is Settlement.UNKNOWN
    late = replace(never_sent, start_by=found.target_now - 1.0)
    assert (await action.settle(late)).settlement is Settlement.NOT_DONE


async def test_a_gate_that_may_have_forgotten_is_no_witness(platform: Platform, session: aiohttp.ClientSession) -> None:
    """It remembers an attempt for a day; asked for the first time after half of it, absence proves nothing."""
    platform.container()
    action = RestartService(platform.settings(), session, CLOCK)
    found = await preview(action)
    platform.gate.stop()
    platform.gate._env["GATE_STARTED"] = str(int(time.time()) - 20 * 3600)
    platform.gate.start()
    lately = call(action, found, start_by=found.target_now - 11 * 3600)
    assert (await action.settle(lately)).settlement is Settlement.NOT_DONE
    long_ago = replace(lately, start_by=found.target_now - 13 * 3600)
    settled = await action.settle(long_ago)
    assert settled.settlement is Settlement.UNKNOWN
    assert "may have forgotten" in settled.detail


async def test_a_gate_that_was_restarted_is_no_witness(platform: Platform, session: aiohttp.ClientSession) -> None:
    """Its memory begins with it: absence is not "not done"."""
    platform.container()
    action = RestartService(platform.settings(), session, CLOCK)
    found = await preview(action)
    platform.gate.stop()
    platform.gate._env["GATE_STARTED"] = str(int(time.time()) + 1)
    platform.gate.start()
    settled = await action.settle(call(action, found, start_by=found.target_now - 1.0))
    assert settled.settlement is Settlement.UNKNOWN
    assert "restarted meanwhile" in settled.detail


async def test_no_gate_is_transient_and_nothing_is_sent(platform: Platform, session: aiohttp.ClientSession) -> None:
    """Connection refused: the look and the settling come again later, the effect failed."""
    container = platform.container()
    found = await preview(RestartService(platform.settings(), session, CLOCK))
    dead = RestartService(platform.settings(f"http://127.0.0.1:{free_port()}"), session, CLOCK)
    with pytest.raises(Transient):
        await preview(dead)
    outcome = await dead.execute(call(dead, found))
    assert outcome.result is Result.FAILED
    with pytest.raises(Transient):
        await dead.settle(call(dead, found))
    assert container.status == "running"


async def test_refusals_of_the_gate_are_failed(platform: Platform, action: RestartService) -> None:
    """Late and too soon never reach the engine; repeated: it did before, by a copy of the call, and is settled as done."""
    container = platform.container()
    began = time.time()
    found = await preview(action)
    outcome = await action.execute(call(action, found, start_by=found.target_now - 1.0))
    assert (outcome.result, "late" in outcome.detail) == (Result.FAILED, True)
    first = call(action, found)
    assert (await action.execute(first)).result is Result.DONE
    again = await preview(action)
    outcome = await action.execute(replace(first, items=again.items))
    assert (outcome.result, "repeated" in outcome.detail) == (Result.IN_DOUBT, True)
    assert (await action.settle(first)).settlement is Settlement.DONE
    outcome = await action.execute(call(action, again))
    assert (outcome.result, "too-soon" in outcome.detail) == (Result.FAILED, True)
    assert container.restarts(began) == 1


async def test_another_life_of_the_container_is_not_touched(platform: Platform, action: RestartService) -> None:
    """Somebody restarted it between look and call: nothing is sent."""
    container = platform.container()
    found = await preview(action)
    container.container.restart(timeout=1)
    began = time.time()
    outcome = await action.execute(call(action, found))
    assert outcome.result is Result.FAILED
    assert "started_at" in outcome.detail
    assert container.restarts(began) == 0


async def test_a_container_of_the_same_name_is_another_one(platform: Platform, action: RestartService) -> None:
    """Recreated between look and call: the id decides, not the name."""
    container = platform.container()
    found = await preview(action)
    container.remove()
    fresh = platform.container()
    began = time.time()
    assert (await action.execute(call(action, found))).result is Result.FAILED
    assert fresh.restarts(began) == 0
    settled = await action.settle(call(action, found, start_by=found.target_now + 30.0))
    assert settled.settlement is Settlement.UNKNOWN


async def test_a_lost_answer_is_in_doubt(platform: Platform, session: aiohttp.ClientSession) -> None:
    """The call got through, its answer did not: in doubt, sent once, settled as done by the target."""
    container = platform.container()
    began = time.time()
    with TcpProxy(platform.gate.port) as proxy:
        action = RestartService(platform.settings(proxy.url), session, CLOCK)
        found = await preview(action)
        hold = proxy.hold_answer_on(b"HTTP/1.1 204")
        running = asyncio.ensure_future(action.execute(call(action, found)))
        await asyncio.to_thread(hold.wait)
        hold.drop()
        outcome = await running
        assert outcome.result is Result.IN_DOUBT
    assert container.restarts(began) == 1
    assert (
        await RestartService(platform.settings(), session, CLOCK).settle(call(action, found))
    ).settlement is Settlement.DONE


async def test_a_call_cut_off_on_its_way_is_in_doubt_and_witnessed(
    platform: Platform, session: aiohttp.ClientSession
) -> None:
    """Reset before the gate got it: in doubt at first, not done by the gate's word, and never sent again."""
    container = platform.container()
    began = time.time()
    with TcpProxy(platform.gate.port) as proxy:
        action = RestartService(platform.settings(proxy.url), session, CLOCK)
        found = await preview(action)
        hold = proxy.hold_on(b"POST ")
        made = call(action, found)
        running = asyncio.ensure_future(action.execute(made))
        await asyncio.to_thread(hold.wait)
        hold.drop()
        assert (await running).result is Result.IN_DOUBT
    assert container.restarts(began) == 0
    witness = RestartService(platform.settings(), session, CLOCK)
    late = replace(made, start_by=found.target_now - 1.0)
    assert (await witness.settle(late)).settlement is Settlement.NOT_DONE


async def test_a_restart_that_outlasts_the_deadline_is_in_doubt(platform: Platform, action: RestartService) -> None:
    """The engine waits out the grace period; we stop waiting, the restart goes on, and is not sent again."""
    container = platform.container(command=STUBBORN, stop_timeout=3)
    began = time.time()
    found = await preview(action)
    made = call(action, found, deadline=1.0)
    outcome = await action.execute(made)
    assert outcome.result is Result.IN_DOUBT
    early = await action.settle(made)
    assert early.settlement is Settlement.UNKNOWN  # StartedAt does not move during the grace period
    wait_until(lambda: container.started_at > began, "the restart to end", 10)
    assert (await action.settle(made)).settlement is Settlement.DONE
    assert container.restarts(began) == 1


async def test_an_engine_that_is_gone_behind_the_gate_is_in_doubt(
    run: Run, platform: Platform, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """502 and 503 of the gate are no refusals: whether the engine had begun cannot be told."""
    platform.container()
    with TcpProxy(platform.engine.socket) as broken:
        upstream = f"server engine 127.0.0.1:{broken.port}"
        text = platform.gate.config_file.read_text().replace(f"server engine unix@{platform.engine.socket}", upstream)
        env = {"GATE_STARTED": str(int(time.time()) - 60)}
        with Haproxy(run, text.replace(f":{platform.gate.port}", ":{port}"), env, name="broken-gate") as other:
            action = RestartService(platform.settings(other.url), session, CLOCK)
            found = await preview(action)
            hold = broken.hold_on(b"POST ")
            made = call(action, found)
            running = asyncio.ensure_future(action.execute(made))
            await asyncio.to_thread(hold.wait)
            hold.drop()
            outcome = await running
            assert outcome.result is Result.IN_DOUBT
            assert "Status 50" in outcome.detail
            settled = await action.settle(replace(made, start_by=found.target_now - 1.0))
            assert settled.settlement is Settlement.UNKNOWN  # the gate let it through


async def test_refused_without_the_label(platform: Platform, action: RestartService) -> None:
    """A container must ask for it."""
    platform.container(labels={})
    assert reasons(await preview(action)) == [Reason.TARGET_NOT_LABELLED]


async def test_refused_beside_a_running_one_off(platform: Platform, action: RestartService) -> None:
    """A one-off container of the same service runs: somebody is at work; a finished one does not matter."""
    container, one_off = platform.container(), platform.container(oneoff=True)
    found = await preview(action)
    assert reasons(found) == [Reason.TARGET_ONE_OFF]
    assert [item["container"] for item in found.items] == [container.name]
    assert [item["container"] for item in found.left_out] == [one_off.name]
    one_off.container.kill()
    one_off.wait_status("exited")
    found = await preview(action)
    assert (found.refusals, len(found.left_out)) == ((), 1)


async def test_refused_when_only_a_one_off_is_there(platform: Platform, action: RestartService) -> None:
    """A one-off never takes the place of the service's container."""
    platform.container(oneoff=True)
    found = await preview(action)
    assert set(reasons(found)) == {Reason.TARGET_COUNT, Reason.TARGET_ONE_OFF}
    assert found.items == ()


async def test_refused_while_an_exec_runs(platform: Platform, action: RestartService) -> None:
    """Somebody's shell or migration runs inside."""
    container = platform.container()
    container.exec_in_background("sleep", "60")
    assert reasons(await preview(action)) == [Reason.TARGET_EXEC_RUNNING]


async def test_who_goes_in_after_the_look_is_left_alone(platform: Platform, action: RestartService) -> None:
    """Called by the same alert: the shell of a person is there between the look and the effect."""
    container = platform.container()
    found, before = await preview(action), container.started_at
    container.exec_in_background("sleep", "60")
    outcome = await action.execute(call(action, found))
    assert (outcome.result, container.started_at) == (Result.FAILED, before)
    assert "Somebody runs a command inside" in outcome.detail


@pytest.mark.parametrize("test", [["CMD-SHELL", "sleep 5"], ["CMD", "sleep", "5"]])
async def test_its_own_health_check_is_nobodys_work(
    platform: Platform, action: RestartService, test: list[str]
) -> None:
    """The engine runs health checks as execs: they do not count."""
    second = 1_000_000_000
    container = platform.container(healthcheck={"test": test, "interval": second // 2, "timeout": 10 * second})
    wait_until(
        lambda: container.engine.client.api.inspect_container(container.id)["ExecIDs"], "a health check to run", 10
    )
    found = await preview(action)
    assert found.refusals == ()
    container.exec_in_background("sleep", "7")
    assert reasons(await preview(action)) == [Reason.TARGET_EXEC_RUNNING]


async def test_refused_while_young(platform: Platform, session: aiohttp.ClientSession) -> None:
    """Just started by somebody: left alone, with the time from which on it may be asked again."""
    platform.container()
    found = await preview(RestartService(platform.settings(young="1m"), session, CLOCK))
    assert reasons(found) == [Reason.TARGET_YOUNG]
    earliest = found.refusals[0].earliest
    assert earliest is not None
    assert 50 < earliest - time.time() < 70


async def test_refused_while_the_restart_policy_is_at_work(platform: Platform, session: aiohttp.ClientSession) -> None:
    """A second healer: Docker itself starts it again and again."""
    action = RestartService(platform.settings(young="1m"), session, CLOCK)
    container = platform.container(command=("sh", "-c", "sleep 0.2; exit 1"), restart_policy={"Name": "always"})
    wait_until(
        lambda: container.engine.client.api.inspect_container(container.id)["RestartCount"] > 1, "two restarts", 15
    )
    assert set(reasons(await preview(action))) <= {Reason.TARGET_RESTARTING, Reason.TARGET_NOT_RUNNING}
    assert Reason.TARGET_RESTARTING in reasons(await preview(action))


@pytest.mark.parametrize("how", ["exited", "paused", "created"])
async def test_refused_unless_it_runs(platform: Platform, action: RestartService, how: str) -> None:
    """Somebody stopped it; starting it is another action."""
    container = platform.container(command=OBEDIENT, start=how != "created")
    if how == "exited":
        container.container.stop(timeout=1)
    if how == "paused":
        container.container.pause()
    found = await preview(action)
    assert reasons(found) == [Reason.TARGET_NOT_RUNNING]
    assert how in found.refusals[0].sentence


async def test_refused_on_another_count(platform: Platform, session: aiohttp.ClientSession) -> None:
    """Scaled up by somebody, or gone: not the platform that the settings describe."""
    action = RestartService(platform.settings(), session, CLOCK)
    assert reasons(await preview(action)) == [Reason.TARGET_COUNT]
    platform.container(), platform.container(number=2)
    assert reasons(await preview(action)) == [Reason.TARGET_COUNT]


async def test_one_of_two_the_sick_one_first(platform: Platform, session: aiohttp.ClientSession) -> None:
    """One container a call; the other is listed as left out."""
    first = platform.container()
    second = platform.container(number=2, healthcheck={"test": ["CMD", "false"], "interval": 100_000_000, "retries": 1})
    wait_until(lambda: second.state()["Health"]["Status"] == "unhealthy", "the second to be unhealthy", 10)
    found = await preview(RestartService(platform.settings(containers=2, singleton=False), session, CLOCK))
    assert found.refusals == ()
    assert [item["container"] for item in found.items] == [second.name]
    assert [item["container"] for item in found.left_out] == [first.name]


async def test_enough_others_must_stay_healthy(platform: Platform, session: aiohttp.ClientSession) -> None:
    """Two of three are ill: while one restarts, one is left, and two must be; a smaller number lets it."""
    platform.container()
    for number in (2, 3):
        ill = platform.container(
            number=number, healthcheck={"test": ["CMD", "false"], "interval": 100_000_000, "retries": 1}
        )
        wait_until(lambda ill=ill: ill.state()["Health"]["Status"] == "unhealthy", "it to be unhealthy", 10)  # type: ignore[misc]
    strict = platform.settings(containers=3, singleton=False, min_healthy=2)
    assert reasons(await preview(RestartService(strict, session, CLOCK))) == [Reason.TARGET_GROUP]
    lenient = platform.settings(containers=3, singleton=False)
    assert reasons(await preview(RestartService(lenient, session, CLOCK))) == []


async def test_a_singleton_must_be_said_aloud(platform: Platform, session: aiohttp.ClientSession) -> None:
    """Restarting the only container takes the service down: the settings must say so."""
    platform.container()
    found = await preview(RestartService(platform.settings(singleton=False), session, CLOCK))
    assert reasons(found) == [Reason.TARGET_NOT_ALLOWED]


async def test_what_is_not_listed_or_on_the_never_list_is_refused(platform: Platform, action: RestartService) -> None:
    """Without asking the engine; the never list holds the remediator's own footing too."""
    assert reasons(await preview(action, "payments")) == [Reason.TARGET_NOT_ALLOWED]
    assert reasons(await preview(action, "postgres")) == [Reason.NEVER_LIST]
    assert reasons(await preview(action, "127.0.0.1")) == [Reason.NEVER_LIST]


async def test_the_gate_knows_only_the_exact_name(platform: Platform, action: RestartService) -> None:
    """A container that the gate's list does not name is refused there, whatever the settings say."""
    container = platform.container()
    found = await preview(action)
    container.container.rename(f"{platform.project}-renamed")
    renamed = await preview(action)
    outcome = await action.execute(call(action, renamed))
    assert (outcome.result, "not-allowed" in outcome.detail) == (Result.FAILED, True)
    assert found.items != renamed.items
