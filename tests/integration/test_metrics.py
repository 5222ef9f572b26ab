"""The remediator's own metrics, read by the real promtool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import aiohttp
import pytest

from remediator.actions.registry import NAMES
from remediator.events import Kind, Verdict
from remediator.journal.seals import Seal
from remediator.metrics import CAUSES, DELIVERIES, Metrics, Standing
from remediator.reasons import Reason
from tests.support.http_side import serve
from tests.unit.cases import NOW, History, book


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(version="1.2.3", revision="abc")
    metrics.configured(mode="shadow", digest="d" * 16, books=[book()], actions=NAMES)
    return metrics


def lint(text: bytes) -> str:
    """What promtool has to say about an exposition; "" when nothing."""
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    return (found.stdout + found.stderr).decode()


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"prep_remediator_{name}", labels)


def test_promtool_has_nothing_to_say(metrics: Metrics) -> None:
    """Empty as after a start, and with everything in it once."""
    assert lint(metrics.render("")[0]) == ""
    metrics.standing(Standing(3, 1, NOW, 2, NOW))
    metrics.delivery("stored", 0.01)
    metrics.dead_letter("not_json")
    metrics.alerts({"firing": 2}, 1)
    metrics.batch(3)
    metrics.turned(NOW)
    history = History().intent(NOW).outcome(NOW + 1).verdict(NOW + 2, "fixed")
    for event in history.events:
        metrics.observe(event, history.ledger)
    assert lint(metrics.render("")[0]) == ""


def test_every_known_series_begins_at_zero(metrics: Metrics) -> None:
    """A counter that appears with 1 is no increase that `rate` could see."""
    for reason in Reason:
        assert sample(metrics, "refused_total", reason=reason.value) == 0
    for result in DELIVERIES:
        assert sample(metrics, "deliveries_total", result=result) == 0
    for cause in CAUSES:
        assert sample(metrics, "dead_letters_total", cause=cause) == 0
    for verdict in Verdict:
        assert sample(metrics, "verdicts_total", runbook="engine-slow", verdict=verdict.value) == 0
    for action in NAMES:
        assert sample(metrics, "attempts_total", action=action, result="in_doubt") == 0


def test_times_are_absent_until_there_is_one(metrics: Metrics) -> None:
    """No overdue work is no series: 0 would be 1970, and an alert on its age would fire."""
    assert sample(metrics, "oldest_due_timestamp_seconds") is None
    metrics.standing(Standing(1, 0, NOW, 0))
    assert sample(metrics, "oldest_due_timestamp_seconds") == NOW
    metrics.standing(Standing(1, 0, None, 0))
    assert sample(metrics, "oldest_due_timestamp_seconds") is None


def test_a_journal_without_a_file_system_of_ours_has_no_room(metrics: Metrics) -> None:
    """On PostgreSQL no series: 0 would be a full disk, and wake somebody."""
    assert sample(metrics, "journal_free_ratio") is None
    metrics.standing(Standing(1, 0, None, 0, journal_room=0.25))
    assert sample(metrics, "journal_free_ratio") == 0.25
    metrics.standing(Standing(1, 0, None, 0))
    assert sample(metrics, "journal_free_ratio") is None


def test_the_newest_seal_is_told_as_two_numbers(metrics: Metrics) -> None:
    """What an older journal cannot have; absent before the first one."""
    assert sample(metrics, "journal_seals") is None
    metrics.standing(Standing(1, 0, None, 0, sealed=Seal(7, "f" * 64, NOW, 3, "a")))
    assert sample(metrics, "journal_seals") == 7
    assert sample(metrics, "journal_seal_digest") == int("f" * 12, 16)


def test_all_that_is_sealed_has_no_age(metrics: Metrics) -> None:
    """No event without a seal is no series: 0 would be 1970, and RemediatorJournalUnsealed would fire."""
    metrics.standing(Standing(1, 0, None, 0, oldest_unsealed=NOW))
    assert sample(metrics, "journal_oldest_unsealed_timestamp_seconds") == NOW
    metrics.standing(Standing(1, 0, None, 0))
    assert sample(metrics, "journal_oldest_unsealed_timestamp_seconds") is None


def test_the_mode_is_a_state_set(metrics: Metrics) -> None:
    """One is 1 and the others are 0, also after a change."""
    metrics.mode("auto")
    assert [sample(metrics, "mode", mode=mode) for mode in ("shadow", "approve", "auto")] == [0, 0, 1]


def test_a_reload_replaces_the_info_series(metrics: Metrics) -> None:
    """Two digests at once would be two configurations."""
    metrics.configured(mode="auto", digest="new", books=[book(name="other")], actions=NAMES)
    assert sample(metrics, "config_info", digest="new") == 1
    assert sample(metrics, "config_info", digest="d" * 16) is None
    assert b"runbook_info{digest" in metrics.render("")[0]
    assert b'runbook="engine-slow"' not in b"".join(
        line for line in metrics.render("")[0].splitlines() if line.startswith(b"prep_remediator_runbook_info")
    )


def test_events_are_counted(metrics: Metrics) -> None:
    """One remediation: refused once, done once, fixed, and the time from webhook to intent."""
    history = History(NOW - 30).add(
        Kind.REFUSED, NOW - 29, reason="settling", sentence="Waiting.", earliest=NOW, rung="mild"
    )
    history.intent(NOW).outcome(NOW + 1).verdict(NOW + 120, "fixed")
    ledger = history.ledger
    for event in history.events:
        metrics.observe(event, ledger)
    assert sample(metrics, "refused_total", reason="settling") == 1
    assert sample(metrics, "attempts_total", action="restart_service", result="done") == 1
    assert sample(metrics, "verdicts_total", runbook="engine-slow", verdict="fixed") == 1
    assert sample(metrics, "webhook_to_intent_seconds_sum") == 30
    assert sample(metrics, "webhook_to_intent_seconds_count") == 1


def test_an_unlisted_cause_does_not_open_the_label(metrics: Metrics) -> None:
    """Whatever word comes, the label set stays closed."""
    metrics.dead_letter("DROP TABLE")
    assert sample(metrics, "dead_letters_total", cause="unstorable") == 1
    assert b"DROP" not in metrics.render("")[0]


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0", "*/*"])
async def test_they_are_served_without_a_token(tmp_path: Path, accept: str) -> None:
    """Prometheus scrapes; the format follows its Accept header."""
    async with (
        serve(tmp_path) as side,
        aiohttp.ClientSession() as client,
        client.get(f"{side.url}/metrics", headers={"Accept": accept}) as answer,
    ):
        text = await answer.text()
    assert answer.status == 200
    assert answer.content_type in ("text/plain", "application/openmetrics-text")
    assert "prep_remediator_build_info{" in text
    assert "_created" not in text
