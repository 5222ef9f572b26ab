"""Starting a stopped service on a real Docker Engine through the real gate: once, and never what somebody stopped."""

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
from docker.errors import APIError

from remediator import gate
from remediator.actions.base import Call, Preview, Result, Settlement
from remediator.actions.start_service import StartService
from remediator.reasons import Reason
from remediator.settings import Database, Settings
from tests.integration.adapting import CLOCK, call_of, settings
from tests.support.docker_engine import OBEDIENT, DockerEngine, ServiceContainer
from tests.support.servers import Haproxy, Run, wait_until
from tests.support.tcp_proxy import TcpProxy

SERVICE = "python-compliance"
PARAMS = {"service": SERVICE}
# Ends with an error until the file is there, and runs from then on: what was wrong has been mended meanwhile.
CRASHES = ("sh", "-c", "[ -e /tmp/mended ] || { touch /tmp/mended; exit 3; }; " + OBEDIENT[2])


class Platform:
    """A compose project of this test's own, its gate, and a remediator's settings for both."""

    def __init__(self, run: Run, engine: DockerEngine, folder: Path) -> None:
        self.engine, self.project, self.folder = engine, engine.project(), folder
        names = tuple(f"{self.project}-{SERVICE}-{number}" for number in (1, 2))
        made = gate.Gate(names, bind="127.0.0.1:{port}", socket=str(engine.socket))
        self.gate = Haproxy(run, gate.render(made), {"GATE_STARTED": str(int(time.time()) - 60)}, name="gate")

    def container(self, status: str = "exited", **options: Any) -> ServiceContainer:
        """A container of the service in this status; an exited one has crashed, and would not again."""
        labels = {"prep-ops.remediate": "true"}
        given = {"labels": labels, "stop_timeout": 1, "command": CRASHES, **options}
        made = self.engine.service_container(self.project, SERVICE, **given)
        made.wait_status(status)
        return made

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
def action(platform: Platform, session: aiohttp.ClientSession) -> StartService:
    return StartService(platform.settings(), session, CLOCK)


async def preview(action: StartService, service: str = SERVICE) -> Preview:
    return await action.preview(action.params_model.model_validate({"service": service}))


def call(action: StartService, found: Preview, **changes: Any) -> Call:
    return call_of(action, found, PARAMS, **{"attempt": uuid4().hex, **changes})


def reasons(found: Preview) -> list[Reason]:
    return [refusal.reason for refusal in found.refusals]


async def test_what_crashed_is_started_once(platform: Platform, action: StartService) -> None:
    """The engine counts one start; the same attempt and another one are refused, and a running one is nothing to do."""
    container = platform.container()
    began = time.time()
    found = await preview(action)
    assert (found.refusals, found.resource) == ((), f"docker:{platform.project}/{SERVICE}")
    assert "ended with 3" in found.summary
    made = call(action, found)
    outcome = await action.execute(made)
    assert (outcome.result, outcome.touched) == (Result.DONE, found.items)
    container.wait_status("running")
    assert (await action.settle(made)).settlement is Settlement.DONE
    assert (await action.execute(made)).result is Result.FAILED
    again = await preview(action)
    assert (again.items, again.refusals) == ((), ())
    assert container.count("start", began) == 1


async def test_never_twice_in_the_cooldown(platform: Platform, action: StartService) -> None:
    """It ends again at once: the second start is the gate's to refuse, whoever asks."""
    container = platform.container(command=("sh", "-c", "exit 3"))
    began = time.time()
    assert (await action.execute(call(action, await preview(action)))).result is Result.DONE
    container.wait_status("exited")
    found = await preview(action)
    assert found.refusals == ()
    outcome = await action.execute(call(action, found))
    assert (outcome.result, "too-soon" in outcome.detail) == (Result.FAILED, True)
    assert container.count("start", began) == 1


@pytest.mark.parametrize("policy", ["no", "on-failure", "always", "unless-stopped"])
@pytest.mark.parametrize("how", ["stop", "kill", "pause"])
async def test_what_somebody_stopped_stays_so(platform: Platform, action: StartService, policy: str, how: str) -> None:
    """With every restart policy, by stop, kill or pause: refused by name, and nothing is started."""
    container = platform.container("running", command=OBEDIENT, restart_policy={"Name": policy})
    {"stop": container.container.stop, "kill": container.container.kill, "pause": container.container.pause}[how]()
    began = time.time()
    assert Reason.TARGET_STOPPED in reasons(await preview(action))
    assert container.count("start", began) == 0
    if how == "pause":
        container.container.unpause()


async def test_stopped_by_somebody_with_an_error_of_its_own(platform: Platform, action: StartService) -> None:
    """A service that answers a stop with an error looks like a crash: its restart policy tells that it was none."""
    stubborn = ("sh", "-c", "trap 'exit 3' TERM; sleep 1000 & wait")
    container = platform.container("running", command=stubborn, restart_policy={"Name": "unless-stopped"})
    container.container.stop()
    assert container.state()["ExitCode"] == 3
    found = await preview(action)
    assert reasons(found) == [Reason.TARGET_STOPPED]
    assert "did not bring it back" in found.refusals[0].sentence


async def test_stopped_by_somebody_after_the_kernel_ended_a_worker(platform: Platform, action: StartService) -> None:
    """The engine's word of a lack of memory is of any process in its whole life, and excuses no stop of days later."""
    greedy = ("sh", "-c", "tail /dev/zero; touch /tmp/ended; trap 'exit 0' TERM; sleep 1000 & wait")
    container = platform.container("running", command=greedy, mem_limit="16m", memswap_limit="16m")
    wait_until(
        lambda: container.container.exec_run(["test", "-e", "/tmp/ended"]).exit_code == 0, "the worker's end", 20
    )
    container.container.stop()
    state = container.state()
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 0), "the engine does not say so: this test shows nothing"
    assert reasons(await preview(action)) == [Reason.TARGET_STOPPED]


async def test_killed_after_the_kernel_ended_a_worker(platform: Platform, action: StartService) -> None:
    """It ends with the kernel's number and the engine's old word: nobody can tell them apart, so a person is asked."""
    greedy = ("sh", "-c", "tail /dev/zero; touch /tmp/ended; sleep 1000 & wait")
    container = platform.container("running", command=greedy, mem_limit="16m", memswap_limit="16m")
    wait_until(
        lambda: container.container.exec_run(["test", "-e", "/tmp/ended"]).exit_code == 0, "the worker's end", 20
    )
    container.container.kill()
    container.wait_status("exited")
    state = container.state()
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137), "the engine does not say so: this test shows nothing"
    found = await preview(action)
    assert (found.refusals, "cannot tell" in found.asks) == ((), True)


async def test_what_was_never_started_is_somebodys(platform: Platform, action: StartService) -> None:
    """Made by a deployment that is about to start it."""
    platform.container("created", start=False)
    assert reasons(await preview(action)) == [Reason.TARGET_STOPPED]


async def test_a_start_that_failed_may_be_tried_once_more(platform: Platform, action: StartService) -> None:
    """Left stopped by a start that the engine could not carry through: no person leaves that, whatever the policy is."""
    container = platform.container("created", start=False, command=("/no/such",), restart_policy={"Name": "always"})
    with pytest.raises(APIError):
        container.container.start()
    found = await preview(action)
    assert found.refusals == ()
    assert "start failed" in found.summary
    outcome = await action.execute(call(action, found))
    assert outcome.result is not Result.DONE  # and it fails again: then it is a person's
    assert container.status != "running"


async def test_what_its_restart_policy_gave_up_is_a_persons(platform: Platform, action: StartService) -> None:
    """Docker has tried it as often as it may."""
    policy = {"Name": "on-failure", "MaximumRetryCount": 1}
    container = platform.container("exited", command=("sh", "-c", "exit 3"), restart_policy=policy)
    wait_until(
        lambda: (
            container.status == "exited"
            and platform.engine.client.api.inspect_container(container.id)["RestartCount"] == 1
        ),
        "the policy to give up",
        15,
    )
    found = await preview(action)
    assert reasons(found) == [Reason.TARGET_STOPPED]
    assert "given up" in found.refusals[0].sentence


async def test_a_deployment_is_left_alone(platform: Platform, session: aiohttp.ClientSession) -> None:
    """A container made a moment ago, and two where one belongs: somebody is at work."""
    platform.container()
    assert reasons(await preview(StartService(platform.settings(young="1m"), session, CLOCK))) == [Reason.TARGET_YOUNG]
    platform.container(number=2)
    assert reasons(await preview(StartService(platform.settings(), session, CLOCK))) == [Reason.TARGET_COUNT]


async def test_one_of_two(platform: Platform, session: aiohttp.ClientSession) -> None:
    """One container a call, the other is told."""
    first, second = platform.container(), platform.container(number=2)
    found = await preview(StartService(platform.settings(containers=2), session, CLOCK))
    assert found.refusals == ()
    assert [item["container"] for item in found.items] == [first.name]
    assert [item["container"] for item in found.left_out] == [second.name]


async def test_refused_without_label_beside_a_one_off_or_not_listed(platform: Platform, action: StartService) -> None:
    """As for a restart."""
    platform.container(labels={})
    platform.container("running", labels={}, oneoff=True, command=OBEDIENT)
    assert set(reasons(await preview(action))) == {Reason.TARGET_NOT_LABELLED, Reason.TARGET_ONE_OFF}
    assert reasons(await preview(action, "payments")) == [Reason.TARGET_NOT_ALLOWED]
    assert reasons(await preview(action, "postgres")) == [Reason.NEVER_LIST]


async def test_a_database_is_never_started(platform: Platform, session: aiohttp.ClientSession) -> None:
    """What it was when it ended, nobody can ask: a promoted replica would come back as a second primary."""
    container = platform.container()
    database = {"host": SERVICE, "database": "x", "user": "x", "password_file": "/x"}
    config = platform.settings().model_copy(update={"databases": {SERVICE: Database.model_validate(database)}})
    action = StartService(config, session, CLOCK)
    found = await preview(action)
    assert (reasons(found), found.items) == ([Reason.TARGET_NOT_ALLOWED], ())
    assert SERVICE not in StartService.listed(config)
    assert [fault.where for fault in StartService.obstacles(config, SERVICE)] == [f"databases.{SERVICE}"]
    container.wait_status("exited")


@pytest.mark.parametrize("meanwhile", ["started", "started and stopped", "recreated"])
async def test_what_changed_since_the_look_is_not_touched(
    platform: Platform, action: StartService, meanwhile: str
) -> None:
    """Somebody was quicker: nothing is sent."""
    container = platform.container()
    found = await preview(action)
    if meanwhile == "recreated":
        container.remove()
        container = platform.container()
    else:
        container.container.start()
        container.wait_status("running")
    if meanwhile == "started and stopped":
        container.container.stop()
    began = time.time()
    outcome = await action.execute(call(action, found))
    assert (outcome.result, "nothing was sent" in outcome.detail.lower()) == (Result.FAILED, True)
    assert container.count("start", began) == 0


async def test_a_lost_answer_is_in_doubt_and_settled_by_the_target(
    platform: Platform, session: aiohttp.ClientSession
) -> None:
    """Sent once, its answer lost: StartedAt tells that it was done; a call that never went is not done by the gate."""
    container = platform.container()
    began = time.time()
    witness = StartService(platform.settings(), session, CLOCK)
    with TcpProxy(platform.gate.port) as proxy:
        action = StartService(platform.settings(proxy.url), session, CLOCK)
        found = await preview(action)
        never_sent = call(action, found, start_by=found.target_now - 1.0)
        assert (await witness.settle(never_sent)).settlement is Settlement.NOT_DONE
        hold = proxy.hold_answer_on(b"HTTP/1.1 204")
        made = call(action, found)
        running = asyncio.ensure_future(action.execute(made))
        await asyncio.to_thread(hold.wait)
        hold.drop()
        assert (await running).result is Result.IN_DOUBT
    assert (await witness.settle(made)).settlement is Settlement.DONE
    assert (await witness.execute(replace(made, items=found.items))).result is Result.FAILED
    assert container.count("start", began) == 1
