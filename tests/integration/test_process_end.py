"""The whole process on a disk that fails: it ends by itself, says why, and the next start goes on."""

from __future__ import annotations

import json
import resource
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.adapting import written
from tests.support.deliveries import alert, delivery
from tests.support.http_side import API_TOKEN, BEARER, TOKEN
from tests.support.servers import Run, Service, fetch, free_port, wait_until
from tests.unit.cases import RUNBOOK

ENDS_WITHIN = 20.0  # seconds: the journal is looked at each five


@pytest.fixture
def remediator(run: Run, tmp_path: Path) -> Iterator[Service]:
    """The program as it ships, its journal in a file."""
    (tmp_path / "runbooks").mkdir()
    (tmp_path / "runbooks" / "engine.yml").write_text(RUNBOOK)
    for name, secret in (("token", TOKEN), ("api-token", API_TOKEN)):
        (tmp_path / name).write_text(secret)
    port = free_port()
    made = written(
        tmp_path,
        runbooks=tmp_path / "runbooks",
        listen={"host": "127.0.0.1", "port": port},
        api_token_files=[tmp_path / "api-token"],
        journal={"url": f"sqlite:///{tmp_path}/journal.db", "evidence_dir": tmp_path / "evidence"},
    )
    (tmp_path / "remediator.yml").write_text(json.dumps(made, default=str))
    argv = ["prep-remediator", f"--config.file={tmp_path}/remediator.yml"]
    ready = f"http://127.0.0.1:{port}/-/healthy"
    with Service(run, argv, ready_url=ready, name="remediator", start_seconds=60) as service:
        yield service


def post(remediator: Service) -> int:
    """Deliver an alert that nobody knows yet; the answer's status, 0 for none."""
    hook = str(remediator.ready_url).replace("/-/healthy", "/alertmanager")
    body = delivery([alert(labels={"service": uuid.uuid4().hex}, fingerprint=uuid.uuid4().hex[:16])])
    try:
        return fetch(hook, "POST", body, BEARER, timeout=10).status
    except OSError:
        return 0


def test_after_an_io_error_the_process_ends_and_the_next_one_goes_on(remediator: Service, tmp_path: Path) -> None:
    """Pages may be lost that a later success would hide: it does not stay up half alive, and keeps what it has said yes to."""
    assert post(remediator) == 200
    pid = remediator.pid
    assert pid is not None
    size = (tmp_path / "journal.db-wal").stat().st_size
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    answers = [200]

    def refused() -> bool:
        answers.append(post(remediator))
        return answers[-1] != 200

    wait_until(refused, "the disk to fail", 30, 0.01)
    assert answers[-1] in (503, 0)
    taken = answers.count(200)
    assert remediator.wait_exit(ENDS_WITHIN) != 0
    assert "the journal is broken; ending" in remediator.log_text()
    remediator.start()
    assert post(remediator) == 200
    with closing(sqlite3.connect(f"file:{tmp_path}/journal.db?mode=ro", uri=True)) as journal:
        (kept,) = journal.execute("SELECT count(*) FROM inbox WHERE kind = 'delivery'").fetchone()
    assert kept >= taken
