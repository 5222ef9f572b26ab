"""Replication: from what the servers say to samples. A side that says nothing is not known, which is not 0."""

from __future__ import annotations

import json
from typing import Any

import pytest

from exporter.collector_settings import Heartbeat, ReplicationCollector
from exporter.collectors.replication import Seen, heartbeat_query, parse
from exporter.samples import Sample, faults

SETTINGS = ReplicationCollector.model_validate(
    {"replicas": {"one": {"server": "standby"}, "two": {}}, "slots": ["for_one"]}
)
STREAMING = {"name": "one", "state": "streaming", "sync": "async", "replied": 50.5, "flushed": 10, "replayed": 30}
STANDBY = {
    "in_recovery": True, "receiver": "streaming", "last_message": 60, "flushed": "990", "replayed": "900",
    "last_transaction": 55, "paused": False,
}  # fmt: skip


def primary(*senders: dict[str, Any], slots: tuple[dict[str, Any], ...] = (), position: str | None = "1000") -> Seen:
    row = {"position": position, "senders": json.dumps(senders), "slots": json.dumps(slots), "base_backups": 0}
    return Seen(row)


def found(one: Seen, standby: Seen | None = None) -> dict[tuple[str, ...], float]:
    samples = parse(SETTINGS, {"postgres": one, "standby": standby or Seen()})
    assert faults(samples) == []
    return {
        (each.metric.name.removeprefix("prep_replication_"), *each.labels): each.value
        for each in samples
        if isinstance(each, Sample)
    }


def test_both_sides_of_a_healthy_link() -> None:
    """Each side's own word; the replica that is not read has the primary's side only."""
    now = found(primary(STREAMING), Seen(STANDBY, heartbeat=70.0))
    assert now["streaming", "one", "primary"] == now["streaming", "one", "replica"] == 1
    assert now["streaming", "two", "primary"] == 0
    assert ("streaming", "two", "replica") not in now
    assert (now["replicas_expected",], now["replicas_connected",], now["unexpected_receivers",]) == (2, 1, 0)
    assert (now["behind_bytes", "one", "primary", "flushed"], now["behind_bytes", "one", "primary", "replayed"]) == (
        10,
        30,
    )
    assert (now["behind_bytes", "one", "replica", "flushed"], now["behind_bytes", "one", "replica", "replayed"]) == (
        10,
        100,
    )
    assert now["heartbeat_timestamp_seconds", "standby"] == 70
    assert ("heartbeat_timestamp_seconds", "postgres") not in now


def test_nobody_said_anything() -> None:
    """Only what the configuration says is left: no 0 is made up."""
    assert found(Seen()) == {("replicas_expected",): 2}


def test_cut_link() -> None:
    """No row and no receiver: 0 on both sides, no lag by reports, and the distance of the positions."""
    cut = found(primary(), Seen({**STANDBY, "receiver": None, "last_message": None}))
    assert cut["streaming", "one", "primary"] == cut["streaming", "one", "replica"] == cut["replicas_connected",] == 0
    assert [key for key in cut if key[0] == "behind_bytes" and key[2] == "primary"] == []
    assert cut["behind_bytes", "one", "replica", "replayed"] == 100
    assert {value for key, value in cut.items() if key[:2] == ("sync_state", "one")} == {0}
    assert ("last_message_timestamp_seconds", "one") not in cut


@pytest.mark.parametrize("state", ["startup", "catchup", "stopping"])
def test_connected_and_not_streaming(state: str) -> None:
    """A replica that catches up is connected; it does not stream yet."""
    now = found(primary({**STREAMING, "state": state}))
    assert (now["streaming", "one", "primary"], now["replicas_connected",]) == (0, 1)


def test_old_connection_beside_the_new_one() -> None:
    """The one that lingers after a cut does not make the replica look late."""
    now = found(primary({**STREAMING, "replayed": 9_000, "flushed": 9_000}, STREAMING))
    assert now["behind_bytes", "one", "primary", "replayed"] == 30
    assert (now["replicas_connected",], now["unexpected_receivers",]) == (1, 0)


@pytest.mark.parametrize(
    "sender",
    [
        {**STREAMING, "flushed": None, "replayed": None},
        {**STREAMING, "name": "stranger"},
    ],
    ids=["archiver of the same name", "unknown replica"],
)
def test_receivers_that_are_no_expected_replica(sender: dict[str, Any]) -> None:
    """What does not replay, and what nobody expects, is counted apart."""
    now = found(primary(sender))
    assert (now["streaming", "one", "primary"], now["replicas_connected",], now["unexpected_receivers",]) == (0, 0, 1)


def test_base_backup_is_no_receiver() -> None:
    """The copy itself is counted by its own metric."""
    assert found(primary({**STREAMING, "state": "backup", "replayed": None}))["unexpected_receivers",] == 0


def test_promoted_replica_has_no_distance() -> None:
    """Its positions are of another history."""
    promoted = {**STANDBY, "in_recovery": False, "receiver": None, "paused": None}
    now = found(primary(), Seen(promoted))
    assert now["streaming", "one", "replica"] == 0
    assert {key[0] for key in now if key[1:2] == ("one",)} == {"streaming", "sync_state"}


def test_positions_read_at_different_times() -> None:
    """A replica that is ahead of what was read of the primary is not behind by less than nothing."""
    now = found(primary({**STREAMING, "replayed": -5}), Seen({**STANDBY, "replayed": "1005"}))
    assert now["behind_bytes", "one", "primary", "replayed"] == now["behind_bytes", "one", "replica", "replayed"] == 0


def test_positions_are_exact() -> None:
    """64-bit positions that a float would round: the difference is right to the byte."""
    far = 2**62
    now = found(primary(position=str(far + 1)), Seen({**STANDBY, "replayed": str(far)}))
    assert now["behind_bytes", "one", "replica", "replayed"] == 1


def test_replica_that_has_received_nothing_yet() -> None:
    """After its start, from an archive: what is not there has no sample."""
    nothing = {**STANDBY, "flushed": None, "last_transaction": None, "receiver": None, "last_message": None}
    now = found(primary(position=None), Seen(nothing))
    assert {key[0] for key in now if key[1:2] == ("one",)} == {"streaming", "sync_state", "replay_paused"}


def slot(name: str, active: bool, retained: int | None, lost: bool = False) -> dict[str, Any]:
    return {"name": name, "active": active, "retained": retained, "lost": lost}


def test_slots_by_state_and_by_name() -> None:
    """Names that are not configured are in no label; the furthest of a state is shown; a lost one retains nothing."""
    slots = (slot("a", False, 5), slot("b", False, 900), slot("for_one", True, 7), slot("c", False, None, lost=True))
    now = found(primary(slots=slots))
    assert [now["slots", state] for state in ("active", "inactive", "lost")] == [1, 2, 1]
    assert [now["slots_retained_bytes", state] for state in ("active", "inactive", "lost")] == [7, 900, 0]
    assert (now["slot_active", "for_one"], now["slot_retained_bytes", "for_one"]) == (1, 7)
    assert {key[1] for key in now if key[0].startswith("slot_")} == {"for_one"}


def test_expected_slot_that_is_missing_or_lost() -> None:
    """Not active, and no number of bytes that would look like nothing to do."""
    for slots in ((), (slot("for_one", False, None, lost=True),), (slot("for_one", False, None),)):
        now = found(primary(slots=slots))
        assert now["slot_active", "for_one"] == 0
        assert ("slot_retained_bytes", "for_one") not in now


def test_heartbeat_names_are_quoted() -> None:
    """Names as they are written, with the schema apart."""
    query = heartbeat_query(Heartbeat(table="Ops.beat", column="at"))
    assert query == 'select extract(epoch from max("at")) from "Ops"."beat"'
