"""Reading what Alertmanager sends: the real bodies, and every way in which one cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from remediator.alerts import Alert, Unreadable, episode_key, label_hash, parse
from remediator.journal import InboxRow
from remediator.webhook import split
from tests.support.deliveries import REAL, alert, delivery, read
from tests.unit.cases import book


def test_a_real_firing_body_is_read_whole() -> None:
    """What Alertmanager 0.25 sent for one alert, to the millisecond and with its own fingerprint."""
    found = parse(read("firing_1"))
    assert (found.receiver, found.truncated, len(found.alerts)) == ("remediator", 0, 1)
    one = found.alerts[0]
    assert (one.status, one.name, one.fingerprint) == ("firing", "ComplianceChecksSlow", "37654f4d3203cc75")
    assert one.starts_at == 1795464653.823935
    assert one.labels["service"] == "python-compliance"
    assert one.annotations["summary"].startswith("95 % of compliance checks")


def test_a_resolved_body_carries_the_same_identity() -> None:
    """Firing and resolved of one alert have the same fingerprint and labels: they are one episode."""
    firing, resolved = parse(read("firing_1")).alerts[0], parse(read("resolved_1")).alerts[0]
    assert resolved.status == "resolved"
    assert (firing.fingerprint, firing.labels) == (resolved.fingerprint, resolved.labels)


def test_a_group_is_read_alert_by_alert() -> None:
    """A body is a whole group; each of its ten alerts comes out with its own fingerprint."""
    found = parse(read("firing_10"))
    assert len({alert.fingerprint for alert in found.alerts}) == 10


def test_alerts_cut_off_are_counted() -> None:
    """With max_alerts Alertmanager cuts the tail and never delivers it later: the count must be seen."""
    found = parse(read("truncated_3_of_5"))
    assert (len(found.alerts), found.truncated) == (2, 3)


@pytest.mark.parametrize("name", REAL)
def test_fields_of_newer_versions_are_ignored(name: str) -> None:
    """Alertmanager 0.32 added `notification_reason` and `routeLabels`; the next one adds others."""
    data = json.loads(read(name))
    data |= {"notification_reason": "repeat interval elapsed", "routeLabels": {"a": "b"}, "later": [1, None]}
    data["alerts"][0]["later"] = {"x": 1.5}
    assert parse(json.dumps(data).encode()) == parse(read(name))


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff\xfe\x00", "not_json"),
        (b'{"version":"4","alerts":NaN}', "not_json"),
        (b'{"version":"4","alerts":[],"truncatedAlerts":Infinity}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"1" * 5_000, "not_json"),
        (b"null", "not_an_object"),
        (b"[]", "not_an_object"),
        (b"{}", "unknown_version"),
        (b'{"version":"5","alerts":[]}', "unknown_version"),
        (b'{"version":4,"alerts":[]}', "unknown_version"),
        (b'{"version":"4"}', "bad_alerts"),
        (b'{"version":"4","alerts":{}}', "bad_alerts"),
        (b'{"version":"4","alerts":[],"truncatedAlerts":-1}', "bad_alerts"),
        (b'{"version":"4","alerts":[],"truncatedAlerts":true}', "bad_alerts"),
        (b'{"version":"4","version":"4","alerts":[]}', "duplicate_keys"),
        (b'{"version":"4","alerts":[{"status":"firing","status":"resolved"}]}', "duplicate_keys"),
    ],
)
def test_what_can_never_be_read_has_a_named_cause(body: bytes, cause: str) -> None:
    """The cause is a closed word: metric, dead letter and the sentence to people use it."""
    with pytest.raises(Unreadable) as found:
        parse(body)
    assert found.value.cause == cause


@pytest.mark.parametrize(
    "change",
    [
        {"status": "pending"},
        {"status": None},
        {"labels": {}},
        {"labels": {"alertname": ""}},
        {"labels": {"alertname": "A", "n": 1}},
        {"labels": {"alertname": "A", "n": None}},
        {"labels": [["alertname", "A"]]},
        {"labels": {"alertname": "A", **{f"l{n}": "v" for n in range(64)}}},
        {"annotations": {"summary": 3}},
        {"startsAt": None},
        {"startsAt": 1_800_000_000},
        {"startsAt": "yesterday"},
        {"startsAt": "9999-99-99T00:00:00Z"},
    ],
)
def test_an_alert_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    """Half an alert is not acted on: the whole body is a dead letter, and people hear of it."""
    with pytest.raises(Unreadable) as found:
        parse(delivery([alert() | change]))
    assert found.value.cause == "bad_alert"


def test_text_that_no_database_stores_is_replaced() -> None:
    """NUL and lone surrogates would make PostgreSQL refuse the row, for ever."""
    found = parse(delivery([alert(labels={"service": "a\x00b\ud800c"})])).alerts[0]
    assert found.labels["service"] == "a\ufffdb?c"


def test_a_missing_fingerprint_is_made_from_the_labels() -> None:
    """Other senders leave it out; the same labels in another order are the same alert."""
    one, other = alert(labels={"a": "1", "b": "2"}), alert(labels={"b": "2", "a": "1"})
    del one["fingerprint"], other["fingerprint"]
    first, second = parse(delivery([one, other])).alerts
    assert first.fingerprint == second.fingerprint == label_hash(first.labels)


@pytest.mark.parametrize("given", ["", "x" * 65, 7, None, "a\x00", "\ud800", "zähne"])
def test_a_fingerprint_that_is_none_is_not_believed(given: object) -> None:
    """It is a key in the journal: only what Alertmanager itself would write is taken over."""
    found = parse(delivery([alert() | {"fingerprint": given}])).alerts[0]
    assert found.fingerprint == label_hash(found.labels)


def test_the_journals_form_of_an_alert_leads_back() -> None:
    """What is kept of an alert is all of it."""
    for found in parse(read("firing_10")).alerts:
        assert Alert.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_the_episodes_key_depends_on_the_target_alone() -> None:
    """Two Prometheus replicas, or a moved instance, are one episode; another target or environment is not."""
    key = episode_key("Slow", {"service": "a"}, "production")
    assert key == episode_key("Slow", {"service": "a"}, "production")
    others = {
        episode_key("Slow", {"service": "b"}, "production"),
        episode_key("Slow", {"service": "a"}, "staging"),
        episode_key("Fast", {"service": "a"}, "production"),
    }
    assert key not in others
    assert len(others) == 3


# -- a delivery taken apart -------------------------------------------------------------------------------


def routed(*alerts: dict[str, Any]) -> list[Any]:
    row = InboxRow(1, "delivery", None, 1_800_000_000.0, delivery(alerts))
    return split(row, [book()], "test")


ENGINE = {"alertname": "EngineSlow", "job": "exporter", "component": "engine", "environment": "test"}


def test_two_fingerprints_of_one_target_are_one_episode() -> None:
    """The runbook names `service` as target: `instance` and `replica` do not split the episode."""
    first, second = routed(
        alert(labels={**ENGINE, "service": "engine", "replica": "a"}, fingerprint="1"),
        alert(labels={**ENGINE, "service": "engine", "replica": "b"}, fingerprint="2"),
    )
    assert first.key == second.key == episode_key("EngineSlow", {"service": "engine"}, "test")
    assert (first.fingerprint, second.fingerprint) == ("1", "2")
    assert Alert.from_json(json.loads(second.body)).labels["replica"] == "b"


@pytest.mark.parametrize("labels", [{}, {"service": ""}])
def test_alerts_without_a_target_are_never_merged(labels: dict[str, str]) -> None:
    """Merged, the second fault would be acknowledged and forgotten."""
    first, second = routed(
        alert(labels={**ENGINE, **labels}, fingerprint="1"),
        alert(labels={**ENGINE, **labels}, fingerprint="2"),
    )
    assert (first.key, second.key) == ("nt:1", "nt:2")


def test_an_alert_of_another_environment_is_keyed_by_itself() -> None:
    """Its episode must not be the one of our own target of the same name."""
    ours, theirs = routed(
        alert(labels={**ENGINE, "service": "engine"}, fingerprint="1"),
        alert(labels={**ENGINE, "service": "engine", "environment": "staging"}, fingerprint="2"),
    )
    assert ours.key != theirs.key == "nt:2"
