"""No secret leaves an exporter whose backends are ill: not in its log, not on a page, not in what a check prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from exporter.server import TIMEOUT_HEADER
from tests.integration.exporter_parts import ROLE
from tests.support.http_stubs import Request
from tests.support.servers import Answer, PostgresServer, Run, Service, StubServer, fetch, free_port

CANARY = "c4nary"
FILE_PASSWORD, URL_PASSWORD, ANSWERED = f"{CANARY}-in-a-file", f"{CANARY}-in-a-url", f"{CANARY}-in-an-answer"


class Leaky(StubServer):
    """A Docker Engine that is broken and tells its own secrets."""

    def answer(self, request: Request) -> Answer:
        return Answer(500, json.dumps({"message": f"cannot open postgresql://u:{ANSWERED}@db/x"}).encode())


@pytest.fixture
def engine() -> Iterator[Leaky]:
    server = Leaky().start()
    yield server
    server.stop()


@pytest.fixture
def exporter(run: Run, postgres_server: PostgresServer, engine: Leaky) -> Iterator[tuple[Service, int, Path]]:
    """One server that refuses the password, one where nobody listens, an engine that answers nonsense."""
    postgres_server.role(ROLE, "another-password", "pg_monitor")
    port = free_port()
    folder = run.folder(f"secrets-{port}")
    (folder / "secret").write_text(FILE_PASSWORD)
    login = {"host": "127.0.0.1", "database": "postgres", "user": ROLE, "password_file": str(folder / "secret")}
    servers = {"refusing": {**login, "port": postgres_server.port}, "gone": {**login, "port": free_port()}}
    config = {
        "web": {"listen_address": f"127.0.0.1:{port}", "enable_reload": True},
        "collectors": {
            "postgres": {"servers": servers},
            "compliance": {"server": "refusing", "state_file": str(folder / "compliance.json")},
            "docker": {
                "base_url": f"http://user:{URL_PASSWORD}@127.0.0.1:{engine.port}",
                "expected_services": ["payments"],
                "interval": "200ms",
                "timeout": "150ms",
            },
            "containers": {},
        },
    }
    (folder / "exporter.yml").write_text(yaml.safe_dump(config))
    service = Service(
        run,
        ["prep-exporter", f"--config.file={folder}/exporter.yml", "--log.level=debug"],
        ready_url=f"http://127.0.0.1:{port}/-/ready",
        name=f"secrets-exporter-{port}",
    )
    service.start()
    yield service, port, folder
    service.kill()


def test_no_canary_leaves_an_ill_exporter(exporter: tuple[Service, int, Path], engine: Leaky) -> None:
    """Wrong password, no answer and a leaky engine, at level debug: faults are told, secrets are not; all is JSON."""
    service, port, folder = exporter
    url = f"http://127.0.0.1:{port}"
    told = [fetch(f"{url}/metrics", headers={TIMEOUT_HEADER: "3"}, timeout=10).text for _ in range(2)]
    service.wait_log('"docker"')
    told += [fetch(f"{url}/").text, fetch(f"{url}/docs/metrics.md").text]
    config = yaml.safe_load((folder / "exporter.yml").read_text())
    config["collectors"]["docker"]["base_url"] = engine.url
    (folder / "exporter.yml").write_text(yaml.safe_dump(config))
    assert fetch(f"{url}/-/reload", "POST", timeout=15).text == "taken over\n"
    engine.wait_requests()
    service.wait_log("the API answered 500")
    config["collectors"]["docker"]["base_url"] = URL_PASSWORD
    config["collectors"]["postgres"]["servers"]["gone"] |= {"sslmode": URL_PASSWORD, "password": URL_PASSWORD}
    (folder / "exporter.yml").write_text(yaml.safe_dump(config))
    told += [fetch(f"{url}/-/reload", "POST", timeout=15).text]
    check = [sys.executable, "-m", "exporter", f"--config.file={folder}/exporter.yml", "--config.check"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert service.terminate() == 0
    log = service.log_text()
    for collector in ("postgres", "compliance", "docker"):
        assert any(json.loads(line).get("collector") == collector for line in log.splitlines()), log
    assert "password authentication failed" in log
    assert "ill: " in told[2]
    for text in (*told, done.stdout, done.stderr, log):
        assert CANARY not in text
