"""The demo's Redis as docker-compose.yml starts it: the exporter's and the remediator's user, and nothing that they do not
need.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as client
import yaml

from exporter.collector_settings import RedisServer as RedisSettings
from exporter.collectors.redis import RedisCollector
from exporter.settings import load
from tests.integration.exporter_parts import in_seconds, shown
from tests.support.servers import RedisServer, Run

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "it's \\ secret"
OTHER = 'another "one" $HOME'
SECRETS = "/run/secrets/"
EXPORTERS, REMEDIATORS = "redis_exporter_password", "redis_remediator_password"


class ComposeRedis(RedisServer):
    """The command of the compose file, with secrets and data where this test has them, on a port of its own."""

    def argv(self) -> list[str]:
        service: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]
        *shell, script = service["entrypoint"]
        script = script.replace("$$", "$").replace(SECRETS, f"{self.folder}/")
        script = script.replace("--dir /data", f"--dir {self.folder} --bind 127.0.0.1 --port {self.port}")
        return [*shell, script]


@pytest.fixture(scope="module")
def demo_redis(run: Run) -> Iterator[ComposeRedis]:
    server = ComposeRedis(run, name="demo-redis")
    (server.folder / EXPORTERS).write_text(PASSWORD)
    (server.folder / REMEDIATORS).write_text(OTHER)
    yield server.start()
    server.stop()


async def test_shipped_collector_is_well_with_its_user(demo_redis: ComposeRedis) -> None:
    """With the settings of config/exporter.yml but for address and folder: all numbers, and nothing refused."""
    collectors = load(ROOT / "config" / "exporter.yml").collectors
    assert collectors.redis is not None
    shipped = collectors.redis.servers["redis"]
    assert str(shipped.password_file) == SECRETS + EXPORTERS
    changes = {"host": "127.0.0.1", "port": demo_redis.port, "password_file": demo_redis.folder / EXPORTERS}
    collector = RedisCollector({"redis": RedisSettings.model_copy(shipped, update=changes)})
    found = shown(await collector.collect(in_seconds(5)))
    await collector.close()
    assert found["redis_up", "redis"] == 1
    assert found["redis_memory_max_bytes", "redis"] == 48 * 1024**2
    assert demo_redis.command("ACL", "LOG") == []


def test_exporters_user_sees_no_key(demo_redis: ComposeRedis) -> None:
    """It may not read, write, list or configure; the services' user may still do its work."""
    demo_redis.command("SET", "x", 1)
    login = client.Redis(
        port=demo_redis.port, username="prep_exporter", password=PASSWORD, protocol=2, driver_info=None
    )
    for words in ("GET x", "SET x 2", "KEYS *", "SCAN 0", "CONFIG GET *", "ACL LIST", "CLIENT LIST", "FLUSHALL"):
        with pytest.raises(client.exceptions.NoPermissionError):
            login.execute_command(words)
    login.close()


def test_remediators_user_logs_in_and_sees_no_value(demo_redis: ComposeRedis) -> None:
    """It may look at clients and sizes, and read, change or list nothing of anybody's."""
    demo_redis.command("SET", "x", 1)
    login = client.Redis(port=demo_redis.port, username="prep_remediator", password=OTHER, protocol=2, driver_info=None)
    assert login.ping()
    assert login.execute_command("MEMORY USAGE x") > 0
    for words in ("GET x", "SET x 2", "DEL x", "KEYS *", "CONFIG GET *", "ACL LIST", "FLUSHALL", "SHUTDOWN"):
        with pytest.raises(client.exceptions.NoPermissionError):
            login.execute_command(words)
    login.close()


def test_passwords_are_in_no_process_list(demo_redis: ComposeRedis) -> None:
    """Only their hashes are; and without one of them there is no server with an empty password."""
    assert demo_redis.identity is not None
    line = Path(f"/proc/{demo_redis.identity.pid}/cmdline").read_bytes()
    assert line.startswith(b"redis-server")
    assert PASSWORD.encode() not in line
    assert OTHER.encode() not in line
    for name in (EXPORTERS, REMEDIATORS):
        argv = [word.replace(name, "nowhere") for word in demo_redis.argv()]
        assert subprocess.run(argv, check=False, timeout=10, capture_output=True).returncode != 0
