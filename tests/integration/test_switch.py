"""The dead man's switch as a process: alone, and behind a real Prometheus and a real Alertmanager that are killed."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.http_stubs import Answer, Request, StubServer, WebhookRecorder
from tests.support.servers import (
    AlertmanagerServer,
    PrometheusServer,
    Run,
    Service,
    fetch,
    free_port,
    post_json,
    scrape_config,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "token-of-the-switch-test"
ACCEPT = 4.0
SLACK = 1.5
"""Seconds beyond a promise that a busy machine may take."""


class Switch:
    """One switch with its files; it can be started again in the same place."""

    def __init__(self, run: Run, folder: Path, inbox: WebhookRecorder, **changes: Any) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.inbox = inbox
        for name, text in (("token", TOKEN), ("key", "pagerduty-key"), ("slack", f"{inbox.url}/slack-secret")):
            (folder / name).write_text(f"{text}\n")
        config: dict[str, Any] = {
            "watched": "prep",
            "listen_address": f"127.0.0.1:{self.port}",
            "state_file": str(folder / "state.json"),
            "watchdog": {"token_files": [str(folder / "token")], "accept": f"{ACCEPT}s", "grace": "1s"},
            "pages": {
                "repeat": "3s",
                "retry": "500ms",
                "timeout": "2s",
                "webhooks": {"inbox": {"url": f"{inbox.url}/people", "token_file": str(folder / "token")}},
                "pagerduty": {"duty": {"routing_key_file": str(folder / "key"), "url": f"{inbox.url}/pagerduty"}},
                "slack": {"chat": {"url_file": str(folder / "slack")}},
            },
        }
        for path, value in changes.items():
            place = config
            *parents, last = path.split("__")
            for step in parents:
                place = place[step]
            place[last] = value
        self.config = folder / "switch.yml"
        self.config.write_text(yaml.safe_dump(config))
        self.service = Service(
            run,
            ["python", "-m", "switch", f"--config.file={self.config}"],
            ready_url=f"{self.url}/-/healthy",
            name="switch",
        )

    def feed(self, age: float | None = None, status: str = "firing", token: str = TOKEN) -> int:
        """A Watchdog as Alertmanager delivers it; the status of the answer."""
        notes = {} if age is None else {"evaluated_at": str(time.time() - age)}
        body = {
            "version": "4",
            "alerts": [{"status": status, "labels": {"alertname": "Watchdog"}, "annotations": notes}],
        }
        return post_json(f"{self.url}/watchdog", body, {"Authorization": f"Bearer {token}"}).status

    def told(self, path: str = "/people", status: str | None = "firing") -> list[Request]:
        """What the destination got; `status` picks, None takes all."""
        posts = [request for request in self.inbox.snapshot() if request.path == path]
        return [request for request in posts if status is None or request.json().get("status") == status]

    def wait_told(self, count: int = 1, status: str = "firing", deadline: float = ACCEPT + SLACK) -> list[Request]:
        return wait_until(
            lambda: found if len(found := self.told(status=status)) >= count else [],
            f"{count} pages ({status})",
            deadline,
            seen=self.service.tail,
        )

    def metric(self, series: str) -> float | None:
        """A series of /metrics, by its name and labels as they stand there."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", fetch(f"{self.url}/metrics").text, re.MULTILINE)
        return float(found[1]) if found else None


@pytest.fixture
def switch(run: Run, tmp_path: Path, inbox: WebhookRecorder) -> Iterator[Switch]:
    """A running switch; nobody feeds it."""
    one = Switch(run, tmp_path, inbox)
    with one.service:
        yield one


def test_a_watchdog_that_never_came_pages_everybody(switch: Switch) -> None:
    """Within the acceptance time after the start: by webhook, PagerDuty and Slack, with their keys; then each repeat."""
    began = time.time()
    (page,) = switch.wait_told()
    assert ACCEPT - 1.0 <= page.at - began <= ACCEPT + SLACK
    assert page.headers["authorization"] == f"Bearer {TOKEN}"
    (alert,) = page.json()["alerts"]
    assert (alert["labels"]["alertname"], alert["labels"]["severity"]) == ("WatchdogMissing", "P0")
    assert "No Watchdog came" in alert["annotations"]["description"]
    event = wait_until(lambda: switch.told("/pagerduty", None), "PagerDuty")[0].json()
    assert (event["routing_key"], event["event_action"]) == ("pagerduty-key", "trigger")
    assert "*No word from" in wait_until(lambda: switch.told("/slack-secret", None), "Slack")[0].json()["text"]
    first, second = switch.wait_told(2, deadline=6.0)
    assert 3.0 <= second.at - first.at <= 3.0 + SLACK, "once, then each repeat"
    assert first.json()["groupKey"] == second.json()["groupKey"]
    events = wait_until(lambda: found if len(found := switch.told("/pagerduty", None)) > 1 else [], "again")
    assert len({each.json()["dedup_key"] for each in events}) == 1


def test_silence_pages_and_the_return_is_told(switch: Switch) -> None:
    """While it is fed nobody is told; after the last word it pages in time; the next word closes the same incident."""
    until = time.time() + ACCEPT + 2.0
    while time.time() < until:
        assert switch.feed() == 200
        last = time.time()
        time.sleep(0.5)
    assert switch.inbox.snapshot() == []
    (page,) = switch.wait_told()
    assert ACCEPT - 0.5 <= page.at - last <= ACCEPT + SLACK
    assert switch.metric('prep_switch_incident{kind="watchdog"}') == 1.0
    switch.feed(age=0.2)
    (back,) = switch.wait_told(status="resolved")
    assert back.json()["groupKey"] == page.json()["groupKey"]
    ends = wait_until(
        lambda: [one for one in switch.told("/pagerduty", None) if one.json()["event_action"] == "resolve"], "the end"
    )
    assert ends[0].json()["dedup_key"] == page.json()["groupKey"]
    assert switch.metric('prep_switch_incident{kind="watchdog"}') == 0.0


def test_what_does_not_count_does_not_hold_the_page_back(switch: Switch) -> None:
    """A wrong token, another alert, a resolved Watchdog, an old word: each is answered, counted, and no proof of life."""
    began = time.time()
    other = {"version": "4", "alerts": [{"status": "firing", "labels": {"alertname": "Other"}}]}
    while not switch.told():
        assert switch.feed(token="wrong") == 401
        assert switch.feed(status="resolved") == 200
        assert switch.feed(age=time.time() - began + ACCEPT) == 200
        assert post_json(f"{switch.url}/watchdog", other, {"Authorization": f"Bearer {TOKEN}"}).status == 200
        assert fetch(f"{switch.url}/watchdog", "POST", b"{", {"Authorization": f"Bearer {TOKEN}"}).status == 400
        assert time.time() - began < ACCEPT + SLACK + 1.0
        time.sleep(0.2)
    for worth in ("unauthorized", "resolved", "stale", "foreign", "unreadable"):
        assert (switch.metric(f'prep_switch_watchdog_received_total{{worth="{worth}"}}') or 0.0) >= 1.0
    assert TOKEN not in switch.service.log_text()
    assert "slack-secret" not in switch.service.log_text()


def test_a_restarted_switch_does_not_forget_that_it_waits(run: Run, tmp_path: Path, inbox: WebhookRecorder) -> None:
    """Killed with -9 in the middle of a silence, twice: it pages by the word that it last heard, not by its start."""
    accept = 14.0
    switch = Switch(run, tmp_path, inbox, watchdog__accept=f"{accept:g}s")
    with switch.service:
        switch.feed()
        last = time.time()
        for _ in range(2):
            time.sleep(1.5)
            switch.service.kill()
            switch.service.start()
        started = time.time()
        assert started - last > 2 * SLACK, "else nothing is shown"
        (page,) = switch.wait_told(deadline=accept + SLACK)
        assert accept - 0.5 <= page.at - last <= accept + SLACK


def test_a_restart_does_not_page_again_and_tells_the_return(run: Run, tmp_path: Path, inbox: WebhookRecorder) -> None:
    """Killed after the page: the incident is the same, its repeat comes in its time, and its end is told."""
    switch = Switch(run, tmp_path, inbox, pages__repeat="10m")
    with switch.service:
        (page,) = switch.wait_told(deadline=15.0)
        told = re.compile(r'"told":\{[^}]*"inbox"')  # with those that were told before it
        wait_until(lambda: told.search((tmp_path / "state.json").read_text()), "the state to be saved")
        time.sleep(1.5)
        switch.service.kill()
        switch.service.start()
        time.sleep(2.0)
        assert len(switch.told()) == 1
        switch.feed()
        (back,) = switch.wait_told(status="resolved")
        assert back.json()["groupKey"] == page.json()["groupKey"]


def test_a_destination_that_is_away_is_told_when_it_is_back(run: Run, tmp_path: Path, inbox: WebhookRecorder) -> None:
    """It is tried again until it takes it; meanwhile the others were told in time."""
    with WebhookRecorder() as gone:
        gone.stop()
        hooks = {"inbox": {"url": f"{inbox.url}/people"}, "gone": {"url": f"{gone.url}/people"}}
        switch = Switch(run, tmp_path, inbox, pages__webhooks=hooks, pages__repeat="10m")
        with switch.service:
            switch.wait_told(deadline=15.0)
            wait_until(
                lambda: (switch.metric('prep_switch_pages_total{destination="gone",outcome="failed"}') or 0) >= 2,
                "tries",
            )
            gone.answers = [503]
            gone.start()
            gone.wait_requests(2, deadline=5.0)
            time.sleep(1.5)
            assert len(gone.snapshot()) == 2, "taken once, then not again"
            assert len(switch.told()) == 1


def test_a_frozen_switch_pages_after_it_thaws_only_if_nothing_came(switch: Switch) -> None:
    """What was delivered to its socket while it was frozen is read before it judges."""
    switch.feed()
    with switch.service.frozen():
        time.sleep(11.0)
    until = time.time() + 3.0
    while time.time() < until:
        switch.feed()
        time.sleep(0.3)
    assert switch.told() == []


def test_a_state_that_is_broken_or_shared_is_said(run: Run, tmp_path: Path, inbox: WebhookRecorder) -> None:
    """Unreadable: put aside, and it waits anew. In use by another switch: it does not start."""
    (tmp_path / "state.json").write_text("not a state")
    one = Switch(run, tmp_path, inbox)
    with one.service:
        assert (tmp_path / "state.json.unreadable").read_text() == "not a state"
        other = Switch(run, tmp_path, inbox)
        assert other.service.run_to_end() == 1
        assert "in use by another switch" in other.service.words


def test_wrong_configuration_and_test_page(run: Run, tmp_path: Path, inbox: WebhookRecorder) -> None:
    """Exit code 2 with the line; `--config.check` says good; `page:test` reaches everybody, or says who it did not."""
    switch = Switch(run, tmp_path, inbox)
    command = ["python", "-m", "switch", f"--config.file={switch.config}"]
    check = Service(run, [*command, "--config.check"], name="switch-check")
    assert (check.run_to_end(), "good" in check.words) == (0, True)
    test = Service(run, ["python", "-m", "switch", "page:test", command[-1]], name="switch-test")
    assert test.run_to_end() == 0
    assert {request.path for request in inbox.snapshot()} == {"/people", "/pagerduty", "/slack-secret"}
    inbox.status = 500
    test = Service(run, ["python", "-m", "switch", "page:test", command[-1]], name="switch-test")
    assert test.run_to_end() == 1
    assert "duty: answered 500" in test.words
    switch.config.write_text(switch.config.read_text().replace("accept:", "acept:"))
    wrong = Service(run, command, name="switch-wrong")
    assert wrong.run_to_end() == 2
    assert re.search(r"switch\.yml:\d+: watchdog\.acept: is not a setting \(did you mean accept\?\)", wrong.words)


class Site(StubServer):
    """The platform's public address."""

    status = 200

    def answer(self, request: Request) -> Answer:
        return Answer(self.status)


def test_the_control_probe_is_a_metric_and_pages(run: Run, tmp_path: Path, inbox: WebhookRecorder) -> None:
    """Wrong status, no answer, nobody there: 0 within an interval; the page after its time; the return is told."""
    with Site() as site:
        probe = {"url": f"{site.url}/", "interval": "500ms", "timeout": "400ms", "page_after": "2s"}
        switch = Switch(run, tmp_path, inbox, probe=probe, watchdog__accept="10m")

        def wait_up(value: float) -> None:
            wait_until(lambda: switch.metric("prep_switch_probe_up") == value, f"prep_switch_probe_up {value}", 5.0)

        with switch.service:
            wait_up(1.0)
            site.delay = 2.0
            wait_up(0.0)
            site.delay = 0.0
            wait_up(1.0)
            site.status = 503
            wait_up(0.0)
            began = time.time()
            (page,) = switch.wait_told(deadline=6.0)
            assert 1.0 <= page.at - began <= 2.0 + SLACK
            assert page.json()["alerts"][0]["labels"]["alertname"] == "PlatformUnreachable"
            assert site.url in page.json()["alerts"][0]["annotations"]["description"]
            site.status = 200
            switch.wait_told(status="resolved")
            site.stop()
            wait_up(0.0)
            site.start()
            wait_up(1.0)


# -- behind the real ones -----------------------------------------------------------------------------


@pytest.mark.timeout(180)
@pytest.mark.parametrize("victim", ["alertmanager", "prometheus"])
def test_with_alertmanager_or_prometheus_dead_it_pages_in_time(
    run: Run, tmp_path: Path, inbox: WebhookRecorder, victim: str
) -> None:
    """The shipped rule, the shipped route; one of the two is killed: paged within the acceptance time, and told back.

    Times are a tenth or so of the shipped ones: accepted are 12 s, Prometheus sends again each 3 s, Alertmanager 2 s. It
    would go on repeating the dead Prometheus' last word for 12 s more: the page does not wait for that.
    """
    accept = 12.0
    switch = Switch(run, tmp_path, inbox, watchdog__accept=f"{accept:g}s", watchdog__environment="production")
    routes = yaml.safe_load((ROOT / "alertmanager" / "alertmanager.yml").read_text())
    (route,) = [each for each in routes["route"]["routes"] if each["receiver"] == "watchdog"]
    route |= {"group_interval": "1s", "repeat_interval": "2s"}
    (hook,) = next(each for each in routes["receivers"] if each["name"] == "watchdog")["webhook_configs"]
    hook["url"] = f"{switch.url}/watchdog"
    hook["http_config"]["authorization"]["credentials_file"] = str(tmp_path / "token")
    alertmanager = AlertmanagerServer(run, routes)
    config = scrape_config({}, [alertmanager.port], "1s", environment="production")
    rules = {"meta.rules.yml": (ROOT / "alert-rules" / "meta.rules.yml")}
    prometheus = PrometheusServer(run, config, rules, ["--rules.alert.resend-delay=3s"])
    with switch.service, alertmanager, prometheus:
        heard = 'prep_switch_watchdog_received_total{worth="heard"}'
        wait_until(lambda: (switch.metric(heard) or 0.0) >= 4.0, "four words", 40.0, seen=switch.service.tail)
        evaluated = switch.metric("prep_switch_watchdog_evaluated_timestamp_seconds")
        assert evaluated is not None
        assert time.time() - evaluated < accept
        assert [request.path for request in inbox.snapshot()] == []
        dead = {"alertmanager": alertmanager, "prometheus": prometheus}[victim]
        dead.signal(signal.SIGKILL)
        killed = time.time()
        dead.wait_exit()
        (page,) = switch.wait_told(deadline=accept + SLACK)
        assert page.at - killed <= accept + SLACK, datetime.fromtimestamp(page.at, UTC)
        dead.start()
        switch.wait_told(status="resolved", deadline=40.0)
