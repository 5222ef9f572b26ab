"""The collectors `docker` and `containers` on a real engine: every state, real limits, real CPU, an API that hangs."""

from __future__ import annotations

import asyncio
import io
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.collector_settings import DockerCollector as DockerSettings
from exporter.collectors.containers import ContainersCollector, cgroup_reader
from exporter.collectors.docker import DockerCollector
from exporter.collectors.engine_disk import EngineDiskCollector
from exporter.collectors.inventory import Inventory
from exporter.errors import Transient, Unreachable
from tests.integration.exporter_parts import in_seconds, shown, values
from tests.support.docker_engine import ServiceContainer
from tests.support.servers import DockerEngine, wait_until

CGROUPS = (Path("/sys/fs/cgroup"),)
BURN = ("sh", "-c", "while :; do :; done")


def parts(
    host: str, project: str, *services: str, roots: tuple[Path, ...] = CGROUPS
) -> tuple[DockerCollector, ContainersCollector]:
    """Both collectors, as the exporter joins them."""
    settings = DockerSettings.model_validate(
        {"base_url": host, "project": project, "expected_services": list(services), "timeout": "20s"}
    )
    inventory, read = Inventory(max_age=30), cgroup_reader(roots)
    return DockerCollector(settings, inventory, read, True), ContainersCollector(inventory, read)


async def close(*collectors: DockerCollector | ContainersCollector) -> None:
    for collector in collectors:
        await collector.close()


async def test_every_state_of_expected_services(docker_engine: DockerEngine, project: str) -> None:
    """Running, exited with its code, paused, created, missing; one-offs and foreign projects are not the service."""
    start = docker_engine.service_container
    running = start(project, "redis", nano_cpus=500_000_000, mem_limit="64m")
    ended = start(project, "payments", command=("sh", "-c", "exit 3"))
    start(project, "load", start=False)
    start(project, "stripe").container.pause()
    start(project, "ghost", oneoff=True)
    start(docker_engine.project(), "ghost")
    ended.wait_status("exited")
    docker, containers = parts(docker_engine.host, project, "redis", "payments", "load", "stripe", "ghost")
    found = shown(await docker.collect(in_seconds(20)))
    states = {
        service: [key[2] for key, value in found.items() if key[:2] == ("container_state", service) and value == 1]
        for service in ("redis", "payments", "load", "stripe", "ghost")
    }
    assert states == {
        "redis": ["running"],
        "payments": ["exited"],
        "load": ["created"],
        "stripe": ["paused"],
        "ghost": ["missing"],
    }
    assert found["container_last_exit_code", "payments"] == 3
    assert found["container_cpu_limit_cores", "redis"] == 0.5
    assert found["container_memory_limit_bytes", "redis"] == 64 * 1024 * 1024
    assert found["container_start_timestamp_seconds", "redis"] == pytest.approx(running.started_at, abs=0.001)
    await close(docker, containers)


@pytest.fixture
def moving_tag(docker_engine: DockerEngine, project: str) -> Iterator[Callable[[], str]]:
    """Makes a new image under one and the same tag each time it is called; the tag."""
    repository, made = f"prep-test/{project}", []

    def make() -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo(f"version-{len(made)}")
            entry.size = 100_000
            tar.addfile(entry, io.BytesIO(bytes(100_000)))
        docker_engine.client.api.import_image_from_data(buffer.getvalue(), repository=repository, tag="1")
        made.append(docker_engine.client.api.inspect_image(f"{repository}:1")["Id"])
        return f"{repository}:1"

    yield make
    docker_engine.remove_all(project)
    for image in made:
        docker_engine.client.images.remove(image, force=True)


async def test_image_drift_follows_the_tag(
    docker_engine: DockerEngine, project: str, moving_tag: Callable[[], str]
) -> None:
    """0 while the tag names the container's image, 1 once it was built anew, also for a container that does not run."""
    tag = moving_tag()
    docker_engine.service_container(project, "payments", image=tag, command=("/none",), start=False)
    docker_engine.service_container(project, "redis")
    docker, containers = parts(docker_engine.host, project, "payments", "redis", "ghost")
    before = shown(await docker.collect(in_seconds(20)))
    assert (before["container_image_outdated", "payments"], before["container_image_outdated", "redis"]) == (0, 0)
    moving_tag()
    after = shown(await docker.collect(in_seconds(20)))
    assert (after["container_image_outdated", "payments"], after["container_image_outdated", "redis"]) == (1, 0)
    assert ("container_image_outdated", "ghost") not in after
    await close(docker, containers)


async def test_engine_disk_grows_with_what_nobody_uses(
    docker_engine: DockerEngine, project: str, moving_tag: Callable[[], str]
) -> None:
    """An image without a container is reclaimable, one with a container is not; a stopped container's layer is."""
    collector = EngineDiskCollector(
        DockerSettings.model_validate({"base_url": docker_engine.host, "expected_services": ["x"]})
    )
    kinds = ("images", "containers", "volumes", "build_cache")
    tag = moving_tag()
    found = shown(await collector.collect(in_seconds(25)))
    assert set(found) == {(f"engine_disk_{what}_bytes", kind) for what in ("used", "reclaimable") for kind in kinds}
    assert found["engine_disk_used_bytes", "images"] >= 100_000
    unused = found["engine_disk_reclaimable_bytes", "images"]
    docker_engine.service_container(project, "payments", image=tag, command=("/none",), start=False)
    written = docker_engine.service_container(project, "load", command=("sh", "-c", "head -c 70000 /dev/zero >/tmp/x"))
    written.wait_status("exited")
    end = time.monotonic() + 10  # other runs may use the same engine
    while True:
        later = shown(await collector.collect(in_seconds(25)))
        if later["engine_disk_reclaimable_bytes", "images"] <= unused - 100_000:
            break
        assert time.monotonic() < end
        await asyncio.sleep(0.5)
    assert later["engine_disk_reclaimable_bytes", "containers"] >= 70_000
    await collector.close()


def restart_count(container: ServiceContainer) -> int:
    container.container.reload()
    return int(container.container.attrs["RestartCount"])


async def test_restart_is_a_new_start_and_a_kept_container(docker_engine: DockerEngine, project: str) -> None:
    """After a restart the start is later; the restart policy's restarts are counted, a person's are not."""
    docker, containers = parts(docker_engine.host, project, "redis", "crash")
    container = docker_engine.service_container(project, "redis")
    crashing = docker_engine.service_container(
        project, "crash", command=("sh", "-c", "sleep 0.2; exit 7"), restart_policy={"Name": "always"}
    )
    before = shown(await docker.collect(in_seconds(20)))
    container.container.restart(timeout=5)
    wait_until(lambda: restart_count(crashing) >= 2, "crashes", 20)
    after = shown(await docker.collect(in_seconds(20)))
    start = "container_start_timestamp_seconds", "redis"
    assert after[start] > before[start]
    assert after["container_restarts_total", "redis"] == 0
    assert after["container_restarts_total", "crash"] >= 2
    await close(docker, containers)


async def test_health_is_that_of_the_health_check(docker_engine: DockerEngine, project: str) -> None:
    """A failing health check is `unhealthy`; a container without one is `none`."""
    second = 1_000_000_000
    check = {"test": ["CMD", "false"], "interval": second // 5, "timeout": second, "retries": 1}
    docker_engine.service_container(project, "redis", healthcheck=check)
    docker_engine.service_container(project, "load")
    docker, containers = parts(docker_engine.host, project, "redis", "load")
    end = time.monotonic() + 20
    while (found := shown(await docker.collect(in_seconds(20))))["container_health", "redis", "unhealthy"] != 1:
        assert time.monotonic() < end
        await asyncio.sleep(0.2)
    assert found["container_health", "redis", "healthy"] == 0
    assert found["container_health", "load", "none"] == 1
    await close(docker, containers)


async def cpu_and_memory(docker: DockerCollector, containers: ContainersCollector) -> tuple[float, float]:
    await docker.collect(in_seconds(20))
    found = shown(await containers.collect(in_seconds(20)))
    return found["container_cpu_seconds_total", "burn"], found["container_memory_working_set_bytes", "burn"]


@pytest.mark.parametrize("files", [True, False], ids=["cgroup files", "docker stats"])
async def test_burning_container_uses_what_it_may(
    docker_engine: DockerEngine, project: str, tmp_path: Path, files: bool
) -> None:
    """CPU seconds grow at the limit's pace, by the cgroup files and, where there are none, by Docker's stats."""
    docker_engine.service_container(project, "burn", command=BURN, nano_cpus=200_000_000, mem_limit="32m")
    docker, containers = parts(docker_engine.host, project, "burn", roots=CGROUPS if files else (tmp_path,))
    first, memory = await cpu_and_memory(docker, containers)
    began = time.monotonic()
    await asyncio.sleep(2)
    second, _ = await cpu_and_memory(docker, containers)
    cores = (second - first) / (time.monotonic() - began)
    assert 0.08 < cores < 0.3
    assert 0 < memory < 32 * 1024 * 1024
    await close(docker, containers)


async def test_container_that_ended_since_the_last_look_is_told(docker_engine: DockerEngine, project: str) -> None:
    """Its files are gone: no sample, success 0 for this scrape, and the others' numbers."""
    gone = docker_engine.service_container(project, "burn", command=BURN, nano_cpus=200_000_000)
    docker_engine.service_container(project, "redis")
    docker, containers = parts(docker_engine.host, project, "burn", "redis")
    await docker.collect(in_seconds(20))
    gone.container.kill()
    gone.wait_status("exited")
    collected = await containers.collect(in_seconds(20))
    assert collected.fault is not None
    assert "burn" in collected.fault
    assert {key[1] for key in values(collected.samples)} == {"redis"}
    await close(docker, containers)


@pytest.fixture
def silent_api() -> Iterator[str]:
    """A Docker API that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    taken.append(server.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for each in taken:
            each.close()


async def test_hung_api_costs_one_thread_and_the_deadline(silent_api: str) -> None:
    """Look after look there is an error in time, and never a second thread."""
    docker, containers = parts(silent_api, "prep", "redis")
    threads = []
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(Transient):
            await docker.collect(in_seconds(0.2))
        assert time.monotonic() - began < 0.5
        threads.append([thread.name for thread in threading.enumerate()].count("docker"))
    assert threads == [1] * 3
    await close(docker, containers)


async def test_engine_that_is_down_is_unreachable_and_no_service_is_missing() -> None:
    """Nobody answered is not "there are none": no state is shown at all."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    docker, containers = parts(f"tcp://127.0.0.1:{port}", "prep", "redis")
    with pytest.raises(Unreachable):
        await docker.collect(in_seconds(5))
    with pytest.raises(Transient, match="has not seen any yet"):
        await containers.collect(in_seconds(5))
    disk = EngineDiskCollector(
        DockerSettings.model_validate({"base_url": f"tcp://127.0.0.1:{port}", "expected_services": ["x"]})
    )
    with pytest.raises(Unreachable):
        await disk.collect(in_seconds(5))
    await disk.close()
    await close(docker, containers)
