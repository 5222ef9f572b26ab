"""The API's own description, held to the real process by schemathesis: everything that it may be asked, and more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from remediator.api import About, Api
from remediator.approvals import Approvals
from remediator.commands import Commands
from remediator.openapi import described
from remediator.shadow_api import Shadow
from tests.integration.adapting import written
from tests.support.episodes import write
from tests.support.http_side import API_TOKEN, TOKEN, open_journal
from tests.support.servers import Run, Service, fetch, free_port
from tests.unit.cases import NOW, RUNBOOK, History

DOUBT = "d0" * 16
OPERATOR = {"Authorization": f"Bearer {API_TOKEN}"}
EXAMPLES, CAMPAIGN = 10, 1000  # of each operation


def test_every_route_is_described() -> None:
    """A route without its description, or a description without its route, is missed here."""
    nothing = cast(Any, None)
    api = Api(nothing, nothing, nothing, lambda: (), nothing, About("test", "test", "shadow", "digest"))
    others = (Approvals(nothing, api), Commands(nothing, api, dict), Shadow(nothing, api, nothing, nothing))
    routes = [*api.routes(), *(route for each in others for route in each.routes())]
    served = [(route.method, route.path) for route in routes if route.path.startswith("/api/")]
    assert sorted(served) == sorted(described())


@pytest.fixture
async def remediator(run: Run, tmp_path: Path) -> AsyncIterator[Service]:
    """The real process in auto, whose journal knows an episode, and an attempt in doubt that no target can settle."""
    journal = await open_journal(tmp_path)
    await write(journal, History().diagnosed(NOW - 40).intent(NOW - 3000, attempt=DOUBT))
    await journal.close(clean=True)
    (tmp_path / "runbooks").mkdir()
    (tmp_path / "runbooks" / "engine.yml").write_text(RUNBOOK)
    for name, secret in (("token", TOKEN), ("api-token", API_TOKEN)):
        (tmp_path / name).write_text(secret)
    port = free_port()
    made = written(
        tmp_path,
        mode="auto",
        runbooks=tmp_path / "runbooks",
        listen={"host": "127.0.0.1", "port": port},
        api_token_files=[tmp_path / "api-token"],
        journal={"url": f"sqlite:///{tmp_path}/journal.db", "evidence_dir": tmp_path / "evidence"},
        services={"engine": {"singleton": True}},
    )
    (tmp_path / "remediator.yml").write_text(json.dumps(made, default=str))
    url = f"http://127.0.0.1:{port}"
    argv = ["prep-remediator", f"--config.file={tmp_path}/remediator.yml"]
    with Service(run, argv, ready_url=f"{url}/-/healthy", name="remediator", start_seconds=60) as service:
        yield service


def base(remediator: Service) -> str:
    return str(remediator.ready_url).removesuffix("/-/healthy")


def schemathesis(url: str, folder: Path, examples: int) -> str:
    """Everything that it checks, in all its phases; what it said. Its seed is in there, and `--seed` replays it."""
    argv = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/api/v1/openapi.json", "--no-color"]
    argv += ["--header", f"Authorization: Bearer {API_TOKEN}", "--checks", "all", "--max-examples", str(examples)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=folder, env=dict(os.environ))
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0, "schemathesis has found something, see above"
    return ran.stdout


async def finds_nothing(remediator: Service, folder: Path, examples: int) -> None:
    """No finding, every operation reached, and afterwards the process is well and the doubt is still one or settled."""
    url = base(remediator)
    known = fetch(f"{url}/api/v1/doubts", headers=OPERATOR).json()["doubts"]
    assert [doubt["attempt"] for doubt in known] == [DOUBT]
    said = schemathesis(url, folder, examples)
    tested = re.search(r"Selected: (\d+)/(\d+)\n +Tested: (\d+)", said)
    assert tested is not None
    assert len(set(tested.groups())) == 1
    status = fetch(f"{url}/api/v1/status", headers=OPERATOR)
    assert status.status == 200
    assert remediator.pid is not None
    assert all(line.startswith("{") for line in remediator.words.splitlines())


@pytest.mark.timeout(300)
async def test_schemathesis_finds_nothing(remediator: Service, tmp_path: Path) -> None:
    """Answers as described, what is wrong refused, no 5xx, no method too many, no answer without the token."""
    await finds_nothing(remediator, tmp_path, EXAMPLES)


@pytest.mark.campaign(seconds=600)
@pytest.mark.timeout(1200)
async def test_schemathesis_finds_nothing_in_many_tries(remediator: Service, tmp_path: Path) -> None:
    """As above with a hundred times the examples."""
    await finds_nothing(remediator, tmp_path, CAMPAIGN)
