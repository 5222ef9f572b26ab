"""A Redis in a container of a compose project, with its gate: what a restart and a raised limit are tried on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from remediator import gate
from remediator.settings import Settings
from tests.integration.redis_parts import SERVICE, give_rights, redis_settings
from tests.support.docker_engine import DockerEngine, ServiceContainer
from tests.support.servers import Haproxy, RedisServer, Run, free_port, wait_until

OPTED_IN = {"prep-ops.remediate": "true"}


class ContainedRedis(RedisServer):
    """Only the address of a Redis that runs elsewhere; never started here."""

    def __init__(self, run: Run, port: int) -> None:
        super().__init__(run, name="contained")
        self.port = port


class RedisPlatform:
    """A project of this test's own; `start` makes its Redis."""

    def __init__(self, run: Run, engine: DockerEngine, image: str, folder: Path) -> None:
        self.engine, self.image, self.folder = engine, image, folder
        self.project = engine.project()
        self.server = ContainedRedis(run, free_port())
        made = gate.Gate((f"{self.project}-{SERVICE}-1",), bind="127.0.0.1:{port}", socket=str(engine.socket))
        self.gate = Haproxy(run, gate.render(made), {"GATE_STARTED": str(int(time.time()) - 60)}, name="gate")

    def start(self, *options: str, memory: str = "128m") -> ServiceContainer:
        """The container, when its Redis answers and knows the remediator's user."""
        container = self.engine.service_container(
            self.project,
            SERVICE,
            labels=OPTED_IN,
            image=self.image,
            command=(
                "redis-server",
                *("--bind", "127.0.0.1", "--port", str(self.server.port), "--dir", "/data", "--save", ""),
                *options,
            ),
            network="host",
            mem_limit=memory,
        )
        self.wait()
        give_rights(self.server)
        return container

    def wait(self) -> None:
        """Until it answers and has loaded its data."""
        wait_until(self._ready, "the contained Redis to answer", 20)

    def _ready(self) -> bool:
        try:
            return self.server.command("PING") in (b"PONG", True)
        except redis.RedisError:
            return False

    def settings(self, *, young: str = "0s", **entry: Any) -> Settings:
        docker = {"gate_url": self.gate.url, "project": self.project, "young": young, "timeout": "3s"}
        parts = {"docker": docker, "services": {SERVICE: {"singleton": True}}}
        return redis_settings(self.folder, self.server.port, parts=parts, **entry)


@contextmanager
def redis_platform(run: Run, engine: DockerEngine, image: str, folder: Path) -> Iterator[RedisPlatform]:
    """A platform whose gate runs; its containers are removed at the end."""
    made = RedisPlatform(run, engine, image, folder)
    try:
        with made.gate:
            yield made
    finally:
        engine.remove_all(made.project)
