"""Pruning on a Docker Engine of the test's own through the real gate: what is gone was in the preview, and was ours."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from remediator import gate
from remediator.actions.base import Call, Preview, Result, Settlement
from remediator.actions.prune_docker import PruneDocker
from remediator.errors import Transient
from remediator.reasons import Reason
from remediator.settings import Settings
from tests.integration.adapting import CLOCK, call_of, settings
from tests.support.docker_engine import DockerEngine
from tests.support.images import build, labels_of
from tests.support.servers import Haproxy, Run, wait_until
from tests.support.tcp_proxy import TcpProxy

PARAMS = {"free_below": 1.0}  # whatever is free: a test's disk is not full
OLD = 2.0  # seconds after which something is old
MB = 1_000_000


class Platform:
    """A compose project of this test's own, its gate, and a remediator's settings for both."""

    def __init__(self, run: Run, engine: DockerEngine, folder: Path) -> None:
        self.engine, self.project, self.folder = engine, engine.project(), folder
        made = gate.Gate((), bind="127.0.0.1:{port}", socket=str(engine.socket), prune=True)
        self.gate = Haproxy(run, gate.render(made), {"GATE_STARTED": str(int(time.time()) - 60)}, name="prune-gate")

    def image(self, service: str, tag: str = "1", *, project: str = "", **options: Any) -> str:
        """One image more of a service; of the same tag the one before is left dangling. Its id."""
        whose = project or self.project
        return build(self.engine, f"{whose}/{service}:{tag}", labels_of(whose, service), **options)

    def images(self, service: str, count: int, **options: Any) -> list[str]:
        """So many of a service, each rebuilt under the same tag, the oldest first."""
        return [self.image(service, **options) for _ in range(count)]

    def uses(self, image: str, service: str = "web", *, project: str = "", **options: Any) -> str:
        """A container of this image, made and never started; its id."""
        made = self.engine.service_container(project or self.project, service, image=image, start=False, **options)
        return made.id

    def one_off(self, **options: Any) -> str:
        """A one-off container that has ended; its id."""
        made = self.engine.service_container(
            options.pop("project", self.project), "web", oneoff=True, command=("true",), **options
        )
        made.wait_status("exited")
        return made.id

    def settings(self, url: str = "", *, min_age: str = f"{OLD:g}s", **prune: Any) -> Settings:
        disk = self.engine.daemon.data if self.engine.daemon else "/"
        told = {"min_age": min_age, "disk": str(disk), **prune}
        docker = {"gate_url": url or self.gate.url, "project": self.project, "timeout": "5s", "prune": told}
        return settings(self.folder, docker=docker)

    def there(self) -> set[str]:
        """Ids of every image and container of the engine, whoever's."""
        api = self.engine.client.api
        return {one["Id"] for one in (*api.images(), *api.containers(all=True))}

    def volumes(self) -> set[str]:
        return {one["Name"] for one in self.engine.client.api.volumes()["Volumes"] or ()}


@pytest.fixture(scope="module")
def own_engine(run: Run) -> Iterator[DockerEngine]:
    """Never a shared one: a mistake in what is tested here would delete what is somebody else's."""
    engine = DockerEngine.own(run)
    yield engine
    engine.close()


@pytest.fixture
def platform(run: Run, own_engine: DockerEngine, tmp_path: Path) -> Iterator[Platform]:
    made = Platform(run, own_engine, tmp_path)
    own_engine.base_image()
    with made.gate:
        yield made
    own_engine.remove_all()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def action(platform: Platform, session: aiohttp.ClientSession) -> PruneDocker:
    return PruneDocker(platform.settings(), session, CLOCK)


async def preview(action: PruneDocker, **params: float) -> Preview:
    return await action.preview(action.params_model.model_validate({**PARAMS, **params}))


def call(action: PruneDocker, found: Preview, **changes: Any) -> Call:
    return call_of(action, found, PARAMS, **{"attempt": uuid4().hex, **changes})


def ids(found: Preview) -> list[str]:
    return [item["id"] for item in found.items]


def why(found: Preview, id: str) -> str:
    return next(item["why"] for item in found.left_out if item["id"] == id)


async def grown_old() -> None:
    """Wait until all there is counts as old; the gate's clock counts whole seconds."""
    await asyncio.sleep(OLD + 1.1)


async def test_the_way_to_roll_back_stays(platform: Platform, action: PruneDocker) -> None:
    """Of six builds under one tag the last runs: it and the two before stay, the three oldest go; a neighbour's stay."""
    mine = platform.images("web", 6, size=MB)
    theirs = [platform.image("web", project="neighbour") for _ in range(5)]
    platform.uses(mine[-1])
    await grown_old()
    before = platform.there()
    found = await preview(action)
    assert (found.refusals, found.resource) == ((), f"docker:{platform.project}")
    assert ids(found) == mine[:3]
    assert "to roll back to" in why(found, mine[3])
    assert "to roll back to" in why(found, mine[4])
    outcome = await action.execute(call(action, found))
    assert outcome.result is Result.DONE, outcome.detail
    assert [item["id"] for item in outcome.touched] == mine[:3]
    assert before - platform.there() == set(mine[:3])
    assert platform.there() >= set(theirs)


async def test_freed_bytes_are_measured(platform: Platform, action: PruneDocker) -> None:
    """On an idle engine: what the file system has more than before, in the outcome's sentence."""
    platform.images("web", 2, size=20 * MB)
    platform.uses(platform.images("web", 3)[-1])
    await grown_old()
    found = await preview(action)
    assert len(found.items) == 2
    assert platform.engine.daemon is not None
    os.sync()
    before = os.statvfs(platform.engine.daemon.data)
    outcome = await action.execute(call(action, found))
    after = os.statvfs(platform.engine.daemon.data)
    freed = (after.f_bavail - before.f_bavail) * after.f_frsize
    told = float(outcome.detail.split("; ")[1].split(" MB")[0]) * MB
    assert 30 * MB < told < 60 * MB, outcome.detail
    assert abs(told - freed) < 10 * MB


async def test_the_young_stay(platform: Platform, session: aiohttp.ClientSession) -> None:
    """Everything that came less than the age ago, also when it was built long before: it is when it came that counts."""
    old = platform.images("web", 3)
    await grown_old()
    again = platform.images("web", 4)
    platform.uses(again[-1])
    action = PruneDocker(platform.settings(min_age="1h"), session, CLOCK)
    found = await preview(action)
    assert found.items == ()
    assert "ago" in why(found, old[0])


async def test_tagged_used_and_shared_images(platform: Platform, action: PruneDocker) -> None:
    """A tagged one goes as a dangling one does; one of a container of anybody, or with two names, does not."""
    tagged = [platform.image("web", tag) for tag in ("1", "2", "3")]
    platform.engine.client.api.tag(tagged[2], "another/name", "1")
    tagged += [platform.image("web", tag) for tag in ("4", "5", "6", "7")]
    platform.uses(tagged[6])
    used = platform.uses(tagged[1], "elsewhere", project="neighbour")
    await grown_old()
    found = await preview(action)
    # The neighbour's container makes the second the oldest in use: what is older than the two before it is nothing.
    assert found.items == ()
    platform.engine.client.api.remove_container(used)
    found = await preview(action)
    assert ids(found) == [tagged[0], tagged[1], tagged[3]]
    assert "2 names" in why(found, tagged[2])
    assert (await action.execute(call(action, found))).result is Result.DONE
    assert platform.there() & set(tagged) == {tagged[2], *tagged[4:]}


async def test_not_ours_without_both_labels(platform: Platform, action: PruneDocker) -> None:
    """A name like ours is not enough, nor the project's label alone."""
    bare = [build(platform.engine, f"{platform.project}/web:1", {}) for _ in range(4)]
    half = {"com.docker.compose.project": platform.project}
    halves = [build(platform.engine, f"{platform.project}/web:1", half) for _ in range(4)]
    await grown_old()
    found = await preview(action)
    assert (found.items, found.left_out) == ((), ())
    assert platform.there() >= {*bare, *halves}


async def test_containers_and_volumes(platform: Platform, action: PruneDocker) -> None:
    """Ended one-offs of ours go, with their volumes left; service containers, running ones and a neighbour's stay."""
    with_volume = platform.image("tool", changes=["VOLUME /data"])
    assert with_volume
    named = {"keep-me": {"bind": "/named", "mode": "rw"}}
    gone = platform.one_off(binds=named)
    restarting = platform.one_off(restart_policy={"Name": "on-failure", "MaximumRetryCount": 3})
    theirs = platform.one_off(project="neighbour")
    stopped = platform.engine.service_container(platform.project, "web", command=("true",))
    running = platform.engine.service_container(platform.project, "web", oneoff=True)
    anonymous = platform.uses(with_volume, "tool", oneoff=True)
    platform.engine.client.api.remove_container(anonymous)
    await grown_old()
    volumes = platform.volumes()
    assert len(volumes) >= 2  # a named one, and one without a name that its container has left
    found = await preview(action)
    assert ids(found) == [gone]
    outcome = await action.execute(call(action, found))
    assert outcome.result is Result.DONE, outcome.detail
    there = platform.there()
    assert gone not in there
    assert there >= {restarting, theirs, stopped.id, running.id}
    assert platform.volumes() == volumes


async def test_what_changed_since_the_preview_stays(platform: Platform, action: PruneDocker) -> None:
    """One is in use by now, one was deleted by somebody: neither is sent, and the outcome says so by name."""
    mine = platform.images("web", 7)
    platform.uses(mine[-1])
    await grown_old()
    found = await preview(action)
    assert ids(found) == mine[:4]
    platform.uses(mine[3], "neighbours", project="neighbour")
    platform.engine.client.api.remove_image(mine[0])
    outcome = await action.execute(call(action, found))
    # In use, it is what runs: the two before it are to roll back to.
    assert (outcome.result, outcome.touched) == (Result.FAILED, ())
    assert outcome.detail.count("Not deleted") == 4
    assert platform.there() >= set(mine[1:])


async def test_at_most_so_many_and_only_once(platform: Platform, action: PruneDocker) -> None:
    """Twenty a time, the others told; the same attempt again deletes nothing, also not what would be next."""
    mine = platform.images("web", 26)
    platform.uses(mine[-1])
    await grown_old()
    found = await preview(action)
    assert ids(found) == mine[: gate.PRUNE_ITEMS]
    assert "20 a time" in why(found, mine[gate.PRUNE_ITEMS])
    made = call(action, found)
    assert (await action.execute(made)).result is Result.DONE
    again = await preview(action)
    assert ids(again) == mine[20:23]
    outcome = await action.execute(replace(made, items=again.items))
    assert (outcome.result, "too-many" in outcome.detail) == (Result.FAILED, True)
    assert platform.there() >= set(mine[20:])


async def test_late_is_refused_and_settled(platform: Platform, action: PruneDocker) -> None:
    """After `start_by` the gate lets nothing through: not done by its word; what was done is settled as done."""
    mine = platform.images("web", 5)
    platform.uses(mine[-1])
    await grown_old()
    found = await preview(action)
    late = call(action, found, start_by=found.target_now - 1.0)
    outcome = await action.execute(late)
    assert (outcome.result, "late" in outcome.detail) == (Result.FAILED, True)
    assert platform.there() >= set(mine)
    assert (await action.settle(late)).settlement is Settlement.NOT_DONE
    never_sent = call(action, found)
    assert (await action.settle(never_sent)).settlement is Settlement.UNKNOWN
    made = call(action, found)
    assert (await action.execute(made)).result is Result.DONE
    settled = await action.settle(made)
    assert (settled.settlement, settled.evidence["gone"]) == (Settlement.DONE, mine[:2])


async def test_a_lost_answer_is_in_doubt(platform: Platform, session: aiohttp.ClientSession) -> None:
    """The call got through, its answer did not."""
    mine = platform.images("web", 4)
    platform.uses(mine[-1])
    await grown_old()
    witness = PruneDocker(platform.settings(), session, CLOCK)
    with TcpProxy(platform.gate.port) as proxy:
        action = PruneDocker(platform.settings(proxy.url), session, CLOCK)
        found = await preview(action)
        assert ids(found) == mine[:1]
        hold = proxy.hold_answer_on(b"Deleted")
        made = call(action, found)
        running = asyncio.ensure_future(action.execute(made))
        await asyncio.to_thread(hold.wait)
        hold.drop()
        outcome = await running
    assert (outcome.result, outcome.touched) == (Result.IN_DOUBT, found.items)
    assert (await witness.settle(made)).settlement is Settlement.DONE


async def test_refused_while_the_engines_disk_has_room(platform: Platform, action: PruneDocker) -> None:
    """The full disk is a volume's, or the exporter's fault: deleting images there frees nothing where it is needed."""
    platform.images("web", 5)
    await grown_old()
    found = await preview(action, free_below=0.001)
    assert [refusal.reason for refusal in found.refusals] == [Reason.TARGET_NOT_FULL]
    assert found.items


async def test_without_the_setting_nothing_is_ever_deleted(
    run: Run, platform: Platform, session: aiohttp.ClientSession
) -> None:
    """Refused by the action, and by a gate that was made of the same settings."""
    mine = platform.images("web", 5)
    await grown_old()
    found = await preview(PruneDocker(platform.settings(), session, CLOCK))
    told = settings(platform.folder, docker={"gate_url": platform.gate.url, "project": platform.project})
    off = PruneDocker(told, session, CLOCK)
    assert [refusal.reason for refusal in (await preview(off)).refusals] == [Reason.TARGET_NOT_ALLOWED]
    assert (await off.execute(call(off, found))).result is Result.FAILED
    shut = replace(gate.from_settings(told), bind="127.0.0.1:{port}", socket=str(platform.engine.socket))
    with Haproxy(run, gate.render(shut), {"GATE_STARTED": "1"}, name="shut-gate") as door:
        action = PruneDocker(platform.settings(door.url), session, CLOCK)
        outcome = await action.execute(call(action, found))
    assert outcome.result is Result.FAILED
    assert platform.there() >= set(mine)


async def test_a_disk_that_cannot_be_measured(platform: Platform, session: aiohttp.ClientSession) -> None:
    """No answer is no permission."""
    action = PruneDocker(platform.settings(disk="/no/such"), session, CLOCK)
    with pytest.raises(Transient):
        await preview(action)


# ---- any world ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Build:
    """One image of a random world: of which service, ours or a neighbour's, under which tag, used by whom, young?"""

    service: str
    ours: bool
    tag: str
    used: bool
    young: bool


builds = st.builds(
    Build,
    service=st.sampled_from(["web", "api"]),
    ours=st.sampled_from([True, True, True, False]),
    tag=st.sampled_from(["1", "1", "2"]),
    used=st.sampled_from([True, False, False, False, False]),
    young=st.sampled_from([True, False, False, False]),
)


@dataclass
class Made:
    """What a random world is made of by now: ids by kind, the oldest first."""

    of: dict[str, list[str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    young: set[str] = field(default_factory=set)
    neighbours: set[str] = field(default_factory=set)

    def may_go(self) -> set[str]:
        """By the rule in other words: per service, cut the list at its oldest used image, and two more before that."""
        found: set[str] = set()
        for images in self.of.values():
            first = next((at for at, image in enumerate(images) if image in self.used), len(images) - 1)
            found |= {image for image in images[: max(0, first - 2)] if image not in self.young}
        return found - self.used


def make(platform: Platform, world: list[Build], made: Made, young: bool) -> None:
    for one in world:
        if one.young is not young:
            continue
        image = platform.image(one.service, one.tag, project="" if one.ours else "neighbour")
        if one.ours:
            made.of.setdefault(one.service, []).append(image)
        else:
            made.neighbours.add(image)
        if young:
            made.young.add(image)
        if one.used:
            platform.uses(image, one.service, project=uuid4().hex[:8])
            made.used.add(image)


@hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=st.lists(builds, min_size=6, max_size=14))
def test_any_world(run: Run, own_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory, world: Any) -> None:
    """Gone is a subset of the preview, exactly what the rule allows, and nothing else of the engine; volumes stay."""
    platform = Platform(run, own_engine, tmp_path_factory.mktemp("world"))
    with platform.gate:
        made = Made()
        make(platform, world, made, young=False)
        ready = time.time() + 6.1
        wait_until(lambda: time.time() > ready, "it to grow old", 10)
        make(platform, world, made, young=True)
        before, volumes = platform.there(), platform.volumes()
        found, outcome = asyncio.run(_prune(platform, min_age="5s"))
        gone = before - platform.there()
    assert gone <= set(ids(found))
    assert gone == {item["id"] for item in outcome.touched}
    assert gone == made.may_go(), outcome.detail
    assert not gone & (made.used | made.young | made.neighbours)
    assert platform.volumes() == volumes
    own_engine.remove_all()


async def _prune(platform: Platform, **told: Any) -> tuple[Preview, Any]:
    async with aiohttp.ClientSession() as session:
        action = PruneDocker(platform.settings(**told), session, CLOCK)
        found = await preview(action)
        return found, await action.execute(call(action, found))
