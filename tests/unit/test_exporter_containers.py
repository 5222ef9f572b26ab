"""Containers: what Docker's inspection and the cgroup files of either version become."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.collector_settings import DockerCollector as DockerSettings
from exporter.collectors import engine_disk
from exporter.collectors.base import Heir
from exporter.collectors.containers import ContainersCollector, cgroup_reader
from exporter.collectors.docker import (
    Container,
    DockerCollector,
    Machine,
    cores,
    parse,
    parse_stats,
    samples,
    timestamp,
)
from exporter.collectors.engine_disk import Held
from exporter.collectors.images import tag_of, tagged
from exporter.collectors.inventory import Inventory, Reading, Running
from exporter.errors import Transient
from exporter.samples import Sample

MACHINE = Machine(cores=4, memory=8_000_000_000)
ID = "a" * 64
RUNS, OTHER = f"sha256:{'b' * 64}", f"sha256:{'c' * 64}"
NOW = {"redis:7.2": RUNS}


def inspection(**state: Any) -> dict[str, Any]:
    """A container as Docker's API inspects it, shortened to what is read."""
    return {
        "Id": ID,
        "RestartCount": 2,
        "Image": RUNS,
        "Config": {"Image": "docker.io/library/redis:7.2", "Labels": {"com.docker.compose.service": "redis"}},
        "HostConfig": {"NanoCpus": 500_000_000, "Memory": 134_217_728, "CgroupParent": ""},
        "State": {
            "Status": "running",
            "ExitCode": 0,
            "OOMKilled": False,
            "StartedAt": "2026-03-01T10:00:00.123456789Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            "Health": {"Status": "healthy"},
            **state,
        },
    }


def shown(
    *containers: Container, expected: tuple[str, ...] = ("redis",), ids: Mapping[str, str] = NOW
) -> dict[tuple[str, ...], float]:
    found: list[Sample] = list(samples(containers, expected, ids))
    return {(one.metric.name.removeprefix("prep_container_"), *one.labels): one.value for one in found}


def test_running_container() -> None:
    """State, health, limits and start of a container that is well."""
    found = shown(parse(inspection(), MACHINE))
    assert found["state", "redis", "running"] == 1
    assert found["state", "redis", "missing"] == 0
    assert found["health", "redis", "healthy"] == 1
    assert found["cpu_limit_cores", "redis"] == 0.5
    assert found["memory_limit_bytes", "redis"] == 134_217_728
    assert found["restarts_total", "redis"] == 2
    assert found["start_timestamp_seconds", "redis"] == pytest.approx(1772359200.123456)


def test_exited_container_is_shown_with_its_exit_code() -> None:
    """A container that ended is there with state, code and OOM; its last health says nothing any more."""
    raw = inspection(Status="exited", ExitCode=137, OOMKilled=True, FinishedAt="2026-03-01T11:00:00Z")
    found = shown(parse(raw, MACHINE))
    assert found["state", "redis", "exited"] == 1
    assert found["state", "redis", "running"] == 0
    assert found["last_exit_code", "redis"] == 137
    assert found["oom_killed", "redis"] == 1
    assert found["health", "redis", "none"] == 1
    assert ("cpu_limit_cores", "redis") not in found


def test_missing_service_is_shown_as_missing() -> None:
    """An expected service without a container has its state-set, and nothing else."""
    found = shown()
    assert found["state", "redis", "missing"] == 1
    assert {key[0] for key in found} == {"state"}


def test_several_containers_of_one_service_are_one() -> None:
    """Limits add up, each state that occurs is 1, and the exit code is that of the container that ended last."""
    ended = parse(inspection(Status="exited", ExitCode=3, FinishedAt="2026-03-01T12:00:00Z"), MACHINE)
    before = parse(inspection(Status="exited", ExitCode=9, FinishedAt="2026-03-01T11:00:00Z"), MACHINE)
    found = shown(parse(inspection(), MACHINE), parse(inspection(), MACHINE), ended, before)
    assert found["cpu_limit_cores", "redis"] == 1.0
    assert (found["state", "redis", "running"], found["state", "redis", "exited"]) == (1, 1)
    assert found["last_exit_code", "redis"] == 3
    assert found["restarts_total", "redis"] == 8


def test_container_that_is_being_removed_counts_as_dead() -> None:
    """Docker's `removing` is no state of the closed set."""
    assert shown(parse(inspection(Status="removing"), MACHINE))["state", "redis", "dead"] == 1


def test_never_started_container_has_no_start() -> None:
    """Docker's year 1 is no time."""
    raw = inspection(Status="created", StartedAt="0001-01-01T00:00:00Z", Health=None)
    found = shown(parse(raw, MACHINE))
    assert ("start_timestamp_seconds", "redis") not in found
    assert found["health", "redis", "none"] == 1
    assert timestamp("0001-01-01T00:00:00Z") is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"NanoCpus": 1_500_000_000}, 1.5),
        ({"NanoCpus": 0, "CpuQuota": 50_000, "CpuPeriod": 100_000}, 0.5),
        ({"CpuQuota": 30_000}, 0.3),
        ({"CpuQuota": -1}, 4.0),
        ({}, 4.0),
        ({"NanoCpus": 64_000_000_000}, 4.0),
    ],
)
def test_cpu_limit(host: dict[str, int], expected: float) -> None:
    """--cpus, else quota over period, else the machine; never more than the machine has."""
    assert cores(host, MACHINE) == expected


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("redis", "redis:latest"),
        ("redis:7.2", "redis:7.2"),
        ("docker.io/library/redis", "redis:latest"),
        ("docker.io/grafana/grafana:11.6.1", "grafana/grafana:11.6.1"),
        ("registry.example:5000/team/app", "registry.example:5000/team/app:latest"),
        ("registry.example:5000/team/app:v1", "registry.example:5000/team/app:v1"),
        (f"redis:7.2@{RUNS}", None),
        (f"redis@{RUNS}", None),
        (RUNS, None),
        ("b" * 12, None),
    ],
)
def test_image_name_is_read_as_docker_lists_it(name: str, tag: str | None) -> None:
    """Whatever way Compose writes it; a digest or an id names no tag."""
    assert tag_of(name) == tag


@pytest.mark.parametrize(
    ("ids", "outdated"), [({"redis:7.2": RUNS}, 0), ({"redis:7.2": OTHER}, 1), ({}, 1), ({"redis:latest": RUNS}, 1)]
)
def test_image_drift(ids: dict[str, str], outdated: float) -> None:
    """1 as soon as the tag names another image, or none; 0 while it names the one that runs."""
    assert shown(parse(inspection(), MACHINE), ids=ids)["image_outdated", "redis"] == outdated


def test_image_by_digest_does_not_drift() -> None:
    """There is no tag that could name another one."""
    raw = inspection()
    raw["Config"]["Image"] = f"redis@{RUNS}"
    assert shown(parse(raw, MACHINE), ids={})["image_outdated", "redis"] == 0


def test_images_are_listed_by_tag() -> None:
    """Each tag of each image; an image without tags (`null` on old engines) adds none."""
    assert tagged([{"Id": RUNS, "RepoTags": ["a:1", "b:1"]}, {"Id": OTHER, "RepoTags": None}]) == {
        "a:1": RUNS,
        "b:1": RUNS,
    }


LISTED = {
    "LayersSize": 1000,
    "Images": [
        {"Size": 700, "SharedSize": 300, "Containers": 1},
        {"Size": 500, "SharedSize": 300, "Containers": 0},
        {"Size": 50, "SharedSize": -1, "Containers": 0},
    ],
    "Containers": [
        {"SizeRw": 10, "State": "running"},
        {"SizeRw": 20, "State": "exited"},
        {"State": "created"},
        {"SizeRw": 40, "State": "paused"},
    ],
    "Volumes": [
        {"UsageData": {"Size": 100, "RefCount": 1}},
        {"UsageData": {"Size": 200, "RefCount": 0}},
        {"UsageData": {"Size": -1, "RefCount": 0}},
        {"UsageData": {"Size": 400, "RefCount": -1}},
        {},
    ],
    "BuildCache": [
        {"Size": 5, "InUse": True, "Shared": False},
        {"Size": 6, "InUse": False, "Shared": False},
        {"Size": 7, "InUse": False, "Shared": True},
    ],
}


def test_engine_disk_out_of_the_lists() -> None:
    """Before API 1.52: only what is sure to go counts as reclaimable, and what is unknown counts as nothing."""
    assert engine_disk.parse(LISTED) == {
        "images": Held(1000, 250),
        "containers": Held(70, 20),
        "volumes": Held(700, 200),
        "build_cache": Held(11, 6),
    }


@pytest.mark.parametrize("nothing", [None, []])
def test_engine_that_holds_nothing(nothing: Any) -> None:
    """Every kind is there, with 0."""
    raw = {"LayersSize": 0, "Images": nothing, "Containers": nothing, "Volumes": nothing, "BuildCache": nothing}
    assert set(engine_disk.parse(raw).values()) == {Held(0, 0)}
    assert {one.labels for one in engine_disk.samples(engine_disk.parse(raw))} == {
        ("images",),
        ("containers",),
        ("volumes",),
        ("build_cache",),
    }


def test_engine_disk_as_new_engines_reckon_it() -> None:
    """From API 1.52 on the engine's own sums are taken; a kind without any is left out by it, and is 0 here."""
    raw = {
        "ImageUsage": {"TotalSize": 9, "Reclaimable": 4},
        "ContainerUsage": {"TotalSize": 3},
        "VolumeUsage": {"TotalSize": 8, "Reclaimable": 8},
    }
    assert engine_disk.parse(raw) == {
        "images": Held(9, 4),
        "containers": Held(3, 0),
        "volumes": Held(8, 8),
        "build_cache": Held(0, 0),
    }


def cgroup_v1(root: Path, relative: str) -> None:
    (root / "cpuacct" / relative).mkdir(parents=True)
    (root / "cpuacct" / relative / "cpuacct.usage").write_text("2500000000\n")
    (root / "memory" / relative).mkdir(parents=True)
    (root / "memory" / relative / "memory.usage_in_bytes").write_text("1000\n")
    (root / "memory" / relative / "memory.stat").write_text("cache 500\ninactive_file 1\ntotal_inactive_file 300\n")


def cgroup_v2(root: Path, relative: str) -> None:
    (root / relative).mkdir(parents=True)
    (root / relative / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (root / relative / "memory.current").write_text("1000\n")
    (root / relative / "memory.stat").write_text("anon 500\ninactive_file 300\n")


@pytest.mark.parametrize("layout", [cgroup_v1, cgroup_v2], ids=["v1", "v2"])
@pytest.mark.parametrize(
    ("parent", "relative"),
    [
        ("", f"docker/{ID}"),
        ("", f"system.slice/docker-{ID}.scope"),
        ("/prep", f"prep/{ID}"),
        ("prep-db.slice", f"prep.slice/prep-db.slice/docker-{ID}.scope"),
    ],
)
def test_cgroup_files_are_read(tmp_path: Path, layout: Any, parent: str, relative: str) -> None:
    """Either version, either cgroup driver, with or without a parent of its own; working set is less inactive cache."""
    layout(tmp_path / "cgroup", relative)
    read = cgroup_reader([tmp_path / "none", tmp_path / "cgroup"])
    assert read(Running("redis", ID, parent)) == Reading(2.5, 700)


def test_container_without_files_is_not_read(tmp_path: Path) -> None:
    """Gone, or not visible here: None, so that Docker's own word may be taken."""
    assert cgroup_reader([tmp_path])(Running("redis", ID, "")) is None


def test_memory_controller_that_is_off_leaves_cpu(tmp_path: Path) -> None:
    """Without the memory controller there is CPU only, not 0 bytes."""
    cgroup_v2(tmp_path, f"docker/{ID}")
    (tmp_path / "docker" / ID / "memory.current").unlink()
    assert cgroup_reader([tmp_path])(Running("redis", ID, "")) == Reading(2.5, None)


async def test_files_come_before_stats_and_what_neither_knows_is_told() -> None:
    """Per service: the files, else Docker's stats, else no sample and a fault that names the service."""
    inventory = Inventory(max_age=30)
    loop = asyncio.get_running_loop()
    inventory.put(
        (
            Running("redis", "1", "", Reading(9.0, 9)),
            Running("payments", "2", "", Reading(4.0, 40)),
            Running("load", "3", ""),
            Running("web", "4", ""),
            Running("web", "5", ""),
        ),
        loop.time(),
    )
    files = {"1": Reading(1.0, 10), "4": Reading(2.0, 20)}
    collector = ContainersCollector(inventory, lambda one: files.get(one.id))
    collected = await collector.collect(loop.time() + 5)
    cpu = {
        one.labels[0]: one.value for one in collected.samples if isinstance(one, Sample) and "cpu" in one.metric.name
    }
    assert cpu == {"redis": 1.0, "payments": 4.0}
    assert collected.fault is not None
    assert "load, web" in collected.fault
    await collector.close()


def test_inventory_that_is_too_old_is_not_handed_out() -> None:
    """After three intervals nobody knows which containers run."""
    inventory = Inventory(max_age=30)
    with pytest.raises(Transient, match="has not seen any yet"):
        inventory.running(100)
    inventory.put((Running("redis", "1", ""),), 100)
    assert len(inventory.running(130)) == 1
    with pytest.raises(Transient, match="31 s ago"):
        inventory.running(131)


def docker_on(inventory: Inventory, **changes: Any) -> DockerCollector:
    settings = DockerSettings.model_validate({"expected_services": ["redis", "web"], **changes})
    return DockerCollector(settings, inventory, lambda _: None, False)


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({}, {"redis", "web"}),
        ({"expected_services": ["web", "new"], "interval": "5s"}, {"web"}),
        ({"project": "other"}, None),
        ({"base_url": "tcp://elsewhere:2375"}, None),
    ],
)
def test_reload_leaves_no_gap_in_what_runs(changes: dict[str, Any], seen: set[str] | None) -> None:
    """What the former collector saw of the same project is known at once, as old as it is; of another one nothing."""
    before, after = Inventory(max_age=30), Inventory(max_age=30)
    before.put((Running("redis", "1", ""), Running("web", "2", "")), 100)
    collector = docker_on(after, **changes)
    assert isinstance(collector, Heir)
    collector.inherit(docker_on(before))
    if seen is None:
        with pytest.raises(Transient, match="has not seen any yet"):
            after.running(110)
        return
    assert {one.service for one in after.running(110)} == seen
    with pytest.raises(Transient, match="31 s ago"):
        after.running(131)


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        (
            {
                "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
                "memory_stats": {"usage": 1000, "stats": {"total_inactive_file": 300, "inactive_file": 1}},
            },
            Reading(2.5, 700),
        ),
        (
            {
                "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
                "memory_stats": {"usage": 1000, "stats": {"inactive_file": 300}},
            },
            Reading(2.5, 700),
        ),
        ({"cpu_stats": {"cpu_usage": {"total_usage": 1_000_000_000}}, "memory_stats": {}}, Reading(1.0, None)),
        ({"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}, None),
    ],
)
def test_dockers_stats(stats: dict[str, Any], expected: Reading | None) -> None:
    """Docker's stats of either cgroup version; a container that has just ended has none."""
    assert parse_stats(stats) == expected
