"""A running remediator reads its configuration anew: whole or not at all, and open episodes follow. No target is needed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from prepctl.errors import Exit
from tests.support.remediation import ENVIRONMENT, SERVICES_JOB, SICK, delivery, restart_book
from tests.support.servers import Reply, Run, Service, fetch, free_port, post_json, wait_until

SUCCESSFUL = "prep_remediator_config_last_reload_successful"
SINCE = "prep_remediator_config_last_reload_success_timestamp_seconds"
TOKEN, API_TOKEN = "webhook-token", "api-token"


@dataclass
class Remediator:
    """A running remediator in mode auto, whose Prometheus is away: it takes alerts and acts on none."""

    service: Service
    folder: Path
    url: str
    config: dict[str, Any]

    def write(self, **changes: Any) -> None:
        self.config |= changes
        fresh = self.folder / "remediator.new"
        fresh.write_text(yaml.safe_dump(self.config))
        fresh.replace(self.folder / "remediator.yml")

    def book(self, **changes: Any) -> None:
        """Write the one runbook."""
        text = yaml.safe_dump(restart_book(["engine"], **changes))
        (self.folder / "runbooks" / "restart.yml").write_text(text)

    def ask(self, path: str, token: str = API_TOKEN) -> Any:
        answer = fetch(self.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=10)
        assert answer.status == 200, answer
        return answer.json()

    def reload(self, token: str = API_TOKEN) -> Reply:
        return post_json(f"{self.url}/-/reload", {}, {"Authorization": f"Bearer {token}"}, timeout=15)

    def deliver(self, token: str = TOKEN) -> Reply:
        body = delivery(["engine"])
        return post_json(f"{self.url}/alertmanager", body, {"Authorization": f"Bearer {token}"}, timeout=10)

    def metric(self, name: str) -> float:
        lines = fetch(f"{self.url}/metrics", timeout=5).text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))

    def events(self) -> list[dict[str, Any]]:
        """Of the only episode."""
        (row,) = self.ask("/api/v1/episodes")["episodes"]
        return list(self.ask(f"/api/v1/episodes/{row['id']}")["events"])

    def wait_event(self, kind: str, **data: str) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [each for each in self.events() if each["kind"] == kind and data.items() <= each["data"].items()]

        return wait_until(found, f"an event {kind} {data}", 15, 0.2, lambda: str(self.events()))[0]

    def prepctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "prepctl", "--url", self.url, "--token-file", str(self.folder / "api-token")]
        return subprocess.run([*argv, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def remediator(run: Run) -> Iterator[Remediator]:
    port = free_port()
    folder = run.folder(f"reload-{port}")
    (folder / "runbooks").mkdir()
    for name, token in (("token", TOKEN), ("api-token", API_TOKEN)):
        (folder / name).write_text(token)
    nobody = [f"http://127.0.0.1:{free_port()}"]
    config = {
        "environment": ENVIRONMENT,
        "mode": "auto",
        "runbooks": str(folder / "runbooks"),
        "pause_file": str(folder / "pause"),
        "listen": {"host": "127.0.0.1", "port": port},
        "webhook": {"token_files": [str(folder / "token")]},
        "api_token_files": [str(folder / "api-token")],
        "journal": {"url": f"sqlite:///{folder}/journal.db", "evidence_dir": str(folder / "evidence"), "poll": "200ms"},
        "prometheus": {"urls": nobody, "scrape_interval": "1s"},
        "alertmanager": {"urls": nobody},
    }
    url = f"http://127.0.0.1:{port}"
    argv = ["prep-remediator", f"--config.file={folder / 'remediator.yml'}"]
    service = Service(run, argv, ready_url=f"{url}/-/healthy", name=f"reload-{port}", start_seconds=60)
    made = Remediator(service, folder, url, config)
    made.write()
    made.book()
    service.start()
    yield made
    service.kill()


def test_a_broken_file_keeps_the_last_good(remediator: Remediator) -> None:
    """Every fault is in the answer, the metric says 0, and what held before holds; mended, all of it counts at once."""
    before = remediator.ask("/api/v1/status")
    assert (remediator.metric(SUCCESSFUL), remediator.metric(SINCE)) == (1, pytest.approx(time.time(), abs=60))
    remediator.write(mode="shadow")
    remediator.book(settle="soon", title="")
    (remediator.folder / "runbooks" / "second.yml").write_text("format: [")
    answer = remediator.reload()
    assert answer.status == 422
    faults = answer.json()["error"]["faults"]
    assert [each["where"] for each in faults] == ["restart.yml: title", "restart.yml: settle", "second.yml:1"]
    assert remediator.ask("/api/v1/status")["config_digest"] == before["config_digest"]
    assert (remediator.ask("/api/v1/status")["mode"], remediator.metric(SUCCESSFUL)) == ("auto", 0)
    assert remediator.deliver().status == 200

    (remediator.folder / "runbooks" / "second.yml").unlink()
    remediator.book(settle="1s")
    answer = remediator.reload()
    assert answer.status == 200
    assert answer.json()["changed"] == ["runbook restart changed", "setting mode changed"]
    after = remediator.ask("/api/v1/status")
    assert (after["mode"], after["config_digest"]) == ("shadow", answer.json()["config_digest"])
    assert remediator.metric(SUCCESSFUL) == 1


def test_sighup_reloads_too(remediator: Remediator) -> None:
    """A fault is in the log and in the metric; the process lives on and takes the next one."""
    remediator.write(mode="sometimes")
    remediator.service.signal(signal.SIGHUP)
    wait_until(lambda: remediator.metric(SUCCESSFUL) == 0, "the fault to be shown", 20)
    assert "mode" in remediator.service.tail(20)
    remediator.write(mode="approve")
    remediator.service.signal(signal.SIGHUP)
    wait_until(lambda: remediator.ask("/api/v1/status")["mode"] == "approve", "SIGHUP to count", 20)
    assert remediator.metric(SUCCESSFUL) == 1


def test_what_needs_a_restart_is_said(remediator: Remediator) -> None:
    """Address and journal stay, and so does all else of such a file."""
    journal = {**remediator.config["journal"], "url": "sqlite:////elsewhere/journal.db"}
    remediator.write(listen={"host": "127.0.0.1", "port": free_port()}, journal=journal, mode="shadow")
    faults = remediator.reload().json()["error"]["faults"]
    assert [each["where"] for each in faults] == ["listen.port", "journal.url"]
    assert {each["remedy"] for each in faults} == {"restart the remediator"}
    assert remediator.ask("/api/v1/status")["mode"] == "auto"


def test_only_an_operator_reloads(remediator: Remediator) -> None:
    """Neither without a token, nor with the webhook's, nor by GET."""
    remediator.write(mode="shadow")
    assert post_json(f"{remediator.url}/-/reload", {}, {}, timeout=10).status == 401
    assert remediator.reload(TOKEN).status == 401
    assert fetch(f"{remediator.url}/-/reload", timeout=5).status == 405
    assert remediator.ask("/api/v1/status")["mode"] == "auto"


def test_other_tokens_hold_after_the_answer(remediator: Remediator) -> None:
    """Of the webhook and of the API: the new files count, the old ones do not."""
    for name in ("token", "api-token"):
        (remediator.folder / f"{name}.next").write_text(f"new-{name}")
    remediator.write(
        webhook={"token_files": [str(remediator.folder / "token.next")]},
        api_token_files=[str(remediator.folder / "api-token.next")],
    )
    assert remediator.reload().status == 200
    assert (remediator.deliver().status, remediator.deliver("new-token").status) == (401, 200)
    assert remediator.reload().status == 401
    assert remediator.reload("new-api-token").status == 200


def test_an_open_episode_gets_the_runbook_that_was_added(remediator: Remediator) -> None:
    """Unmatched, it stays open; the runbook comes, and the same episode goes on with it, long before its minute is over."""
    match = {"alertnames": ["SomethingElse"], "jobs": [SERVICES_JOB]}
    remediator.book(match=match)
    assert remediator.reload().status == 200
    assert remediator.deliver().status == 200
    wait_until(lambda: remediator.ask("/api/v1/episodes")["episodes"], "the episode", 20)
    remediator.wait_event("refused", reason="no_runbook")
    remediator.book(match={**match, "alertnames": [SICK]})
    assert remediator.reload().status == 200
    assert remediator.wait_event("matched")["data"]["runbook"] == "restart"
    remediator.wait_event("refused", reason="rule_unknown")


def test_prepctl_reload(remediator: Remediator) -> None:
    """What changed and exit code 0; every fault and exit code 1; nobody there and 3."""
    remediator.write(mode="shadow")
    good = remediator.prepctl("reload")
    assert (good.returncode, good.stderr) == (0, "")
    assert "setting mode changed" in good.stdout
    assert "Nothing has changed." in remediator.prepctl("reload").stdout
    remediator.book(settle="soon", title="")
    bad = remediator.prepctl("reload")
    assert (bad.returncode, bad.stdout) == (Exit.NO, "")
    for place in ("restart.yml: title:", "restart.yml: settle:", "what was before still holds"):
        assert place in bad.stderr
    remediator.service.kill()
    assert remediator.prepctl("reload").returncode == Exit.UNREACHABLE
