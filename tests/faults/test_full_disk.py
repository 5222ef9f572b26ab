"""The platform's disk is full: the disk runbook still looks, asks, deletes and proves, from a volume of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from remediator import gate
from tests.support.docker_engine import DockerEngine
from tests.support.images import build, labels_of
from tests.support.mounts import small
from tests.support.prometheus import AlertmanagerServer, PrometheusServer
from tests.support.remediation import ENVIRONMENT, QUERIES_JOB, LiveMetrics, Remediator
from tests.support.servers import Haproxy, Run, wait_until
from tests.support.waiting import post_json

ROOT = Path(__file__).parents[2]
PATH, MB = "/", 1_000_000
SIZE, IMAGE = 160, 8 * MB  # MiB of the platform's disk; bytes of each image


class Platform:
    """An engine whose data lies on a small disk of its own, and what watches it: shipped rules on the real numbers."""

    def __init__(self, run: Run, disk: Path) -> None:
        self.run, self.disk = run, disk
        self._stack = ExitStack()
        enter = self._stack.enter_context
        self.engine = DockerEngine.own(run, disk)
        self._stack.callback(self.engine.close)
        self.project = self.engine.project()
        metrics = enter(LiveMetrics())
        metrics.watch("prep_filesystem_free_bytes", lambda: float(self.free()), path=PATH)
        metrics.watch("prep_filesystem_size_bytes", lambda: float(os.statvfs(disk).f_blocks * self.block), path=PATH)
        quiet = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
        self.alertmanager = enter(AlertmanagerServer(run, quiet))
        self.prometheus = enter(PrometheusServer(run, _scrapes(metrics.port), {"disk.rules.yml": _rules()}))
        made = gate.Gate((), bind="127.0.0.1:{port}", socket=str(self.engine.socket), prune=True)
        started = {"GATE_STARTED": str(int(time.time()) - 60)}
        self.gate = enter(Haproxy(run, gate.render(made), started, name="disk-gate"))

    @property
    def block(self) -> int:
        return os.statvfs(self.disk).f_frsize

    def free(self) -> int:
        """Bytes that can still be written there."""
        return os.statvfs(self.disk).f_bavail * self.block

    def images(self, count: int) -> list[str]:
        """So many builds of one service, the last one in use; the oldest first."""
        name, labels = f"{self.project}/web:1", labels_of(self.project, "web")
        made = [build(self.engine, name, labels, size=IMAGE) for _ in range(count)]
        self.engine.service_container(self.project, "web", image=made[-1], start=False)
        return made

    def there(self) -> set[str]:
        return {one["Id"] for one in self.engine.client.api.images()}

    def fill(self) -> None:
        """Write until nothing more can be written."""
        with (self.disk / "runaway.log").open("wb", buffering=0) as file:
            for size in (MB, 4096):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue
        assert self.free() < 4096

    def close(self) -> None:
        self._stack.close()


def _scrapes(port: int) -> dict[str, Any]:
    return {
        "global": {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
            "external_labels": {"environment": ENVIRONMENT},
        },
        "scrape_configs": [{"job_name": QUERIES_JOB, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }


def _rules() -> dict[str, Any]:
    """The shipped rules of disks, without their waiting times."""
    rules: dict[str, Any] = yaml.safe_load((ROOT / "alert-rules" / "disk.rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    return rules


def _book() -> dict[str, Any]:
    """The shipped runbook with short times; its cause is another file's rule."""
    book: dict[str, Any] = yaml.safe_load((ROOT / "runbooks" / "disk-space-full.yml").read_text())
    book["proof"] |= {"hold": "3s", "timeout": "30s", "every": "1s"}
    return {**book, "settle": "1s", "blocked_by": []}


@pytest.fixture
def platform(run: Run) -> Iterator[Platform]:
    with small(run.folder("disk"), SIZE) as disk:
        made = Platform(run, disk)
        try:
            yield made
        finally:
            made.close()


def alert() -> dict[str, Any]:
    labels = {"alertname": "DiskFull", "job": QUERIES_JOB, "component": "disk", "service": "host", "path": PATH}
    told = {**labels, "environment": ENVIRONMENT, "severity": "P1"}
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    one = {"status": "firing", "labels": told, "annotations": {}, "startsAt": stamp, "endsAt": "0001-01-01T00:00:00Z"}
    return {"version": "4", "receiver": "remediator", "groupKey": "{}", "truncatedAlerts": 0, "alerts": [one]}


def people(folder: Path) -> dict[str, Any]:
    """Two of them with tokens of their own."""
    for name in ("ann", "bob"):
        (folder / name).write_text(f"the token of {name}\n")
    return {name: {"token_files": [str(folder / name)]} for name in ("ann", "bob")}


def approve(remediator: Remediator, question: dict[str, Any], who: str) -> None:
    url = f"{remediator.url}/api/v1/approvals/{question['id']}/approve"
    said = {"digest": question["digest"], "reason": "seen", "who": who}
    answer = post_json(url, said, {"Authorization": f"Bearer the token of {who}"})
    assert answer.status == 202, answer


def test_the_disk_runbook_works_on_a_full_disk(platform: Platform, run: Run) -> None:
    """Not a byte can be written on the platform's disk. Evidence is read, two persons are asked, exactly the previewed
    images go, the room is back, and the episode closes as fixed.
    """
    images = platform.images(8)
    platform.fill()
    filled = platform.free()
    prune = {"min_age": "1s", "disk": str(platform.disk)}
    folder = run.folder("people")
    docker = {"prune": prune, "timeout": "10s"}
    with Remediator(platform, [_book()], docker=docker, operators=people(folder)) as remediator:
        platform.prometheus.wait_for('ALERTS{alertname="DiskFull",alertstate="firing"}', deadline=30)
        assert remediator.send(alert()).status == 200

        def asked() -> list[dict[str, Any]]:
            return list(remediator.ask("approvals")["approvals"])

        (question,) = wait_until(asked, "the question to people", 40, 0.3, remediator.story)
        assert question["persons"] == 2
        listed = [item["id"] for item in question["items"]]
        assert listed == images[:5]
        approve(remediator, question, "ann")
        time.sleep(1.5)
        assert platform.there() >= set(images), "one of two persons is not enough"
        approve(remediator, question, "bob")
        verdict = remediator.wait_event("verdict", deadline=60)
        assert verdict["data"]["verdict"] == "fixed", remediator.story()
        remediator.wait_rest(deadline=60)
        (episode,) = remediator.episodes()
        kinds = remediator.kinds(episode["id"])
    assert (kinds.count("diagnosed"), kinds.count("intent"), kinds.count("outcome")) == (1, 1, 1)
    assert set(images) - platform.there() == set(listed)
    assert platform.free() - filled > 0.9 * len(listed) * IMAGE
    evidence = (remediator.folder / "evidence").rglob("disk_use.txt")
    assert str(platform.disk) in next(iter(evidence)).read_text()


def test_a_full_volume_is_left_to_people(platform: Platform, run: Run) -> None:
    """The disk that the alert names is another one than the engine's: refused by name, and nothing is deleted."""
    images = platform.images(8)
    platform.fill()
    with small(run.folder("engines-own"), 4) as engines_own:  # where the engine's data would be, with all its room
        prune = {"min_age": "1s", "disk": str(engines_own)}
        with Remediator(platform, [_book()], docker={"prune": prune, "timeout": "10s"}) as remediator:
            platform.prometheus.wait_for('ALERTS{alertname="DiskFull",alertstate="firing"}', deadline=30)
            assert remediator.send(alert()).status == 200
            remediator.wait_reason("target_not_full", deadline=40)
            assert remediator.ask("approvals")["approvals"] == []
    assert platform.there() >= set(images)
