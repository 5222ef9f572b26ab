"""What speaks against restarting a replica: each row of its server and of its primary alone, and what was not told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remediator.actions.replicas import Case, Primary, Replica, Server, refusals
from remediator.errors import ConfigError
from remediator.reasons import Reason
from remediator.settings import parse

SERVER = Server("7", True, "2026-01-01", 1000.0, True, "prep_remediator", "172.18.0.5")
REPLICA = Replica(SERVER, "streaming", 61.0, 60.0, "replica", "", False, 0, 0, ())
PRIMARY = Primary(replace(SERVER, in_recovery=False, started="2025-12-01", address="172.18.0.4"), "", (), ())
CASE = Case("postgres-replica", ("172.18.0.5",), 999.5, True, 1, REPLICA, PRIMARY)
OTHER = {"name": "other", "address": "172.18.0.9", "pid": 1, "state": "streaming", "sync": "async", "replays": True}
OWN = {**OTHER, "name": "postgres-replica", "address": "172.18.0.5", "pid": 2}
SLOT = {"name": "mine", "pid": None, "temporary": False, "status": "reserved", "safe": None}


def server(case: Case = CASE, **changes: Any) -> Case:
    return replica(case, server=replace(case.replica.server, **changes))


def replica(case: Case = CASE, **changes: Any) -> Case:
    return replace(case, replica=replace(case.replica, **changes))


def primary(case: Case = CASE, **changes: Any) -> Case:
    return replace(case, primary=replace(case.primary, **changes))


def slot(**changes: Any) -> Case:
    return primary(replica(slot="mine"), slots=({**SLOT, **changes},))


def leading(**changes: Any) -> Case:
    return primary(server=replace(PRIMARY.server, **changes))


def reasons(case: Case) -> list[Reason]:
    return [refusal.reason for refusal in refusals(case)]


@pytest.mark.parametrize(
    "case",
    [
        CASE,
        replica(receiver=None, silent=None),
        replica(receiver="stopping", silent=1.0),
        replica(silent=60.5, patience=0.0),
        replace(primary(standbys=(OTHER,)), singleton=False),
        primary(standbys=(OWN, {**OTHER, "sync": "sync"}), synchronous="other"),
        primary(standbys=({**OWN, "sync": "potential"},), synchronous="other, postgres-replica"),
        slot(),
        slot(safe=64 * 1024 * 1024),
    ],
)
def test_a_sick_replica_that_nobody_needs_meanwhile(case: Case) -> None:
    """Nothing speaks against it."""
    assert reasons(case) == []


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (server(in_recovery=False), Reason.REPLICA_PROMOTED),
        (server(address=""), Reason.REPLICA_UNPROVEN),
        (server(address="172.18.0.6"), Reason.REPLICA_UNPROVEN),
        (replace(CASE, addresses=()), Reason.REPLICA_UNPROVEN),
        (replace(CASE, started=1001.5), Reason.REPLICA_UNPROVEN),
        (leading(in_recovery=True), Reason.REPLICA_UNPROVEN),
        (leading(system="8"), Reason.REPLICA_UNPROVEN),
        (leading(started=SERVER.started, address=SERVER.address), Reason.REPLICA_UNPROVEN),
        (primary(standbys=({**OWN, "sync": "sync"},)), Reason.REPLICA_SYNCHRONOUS),
        (primary(standbys=({**OWN, "sync": "quorum"},)), Reason.REPLICA_SYNCHRONOUS),
        (primary(standbys=({**OWN, "sync": None},)), Reason.REPLICA_SYNCHRONOUS),
        (primary(standbys=({**OWN, "name": "x", "sync": "sync"},)), Reason.REPLICA_SYNCHRONOUS),
        (primary(standbys=({**OWN, "name": "replica", "address": "", "sync": "sync"},)), Reason.REPLICA_SYNCHRONOUS),
        (primary(standbys=(OTHER,), synchronous="other"), Reason.REPLICA_SYNCHRONOUS),
        (replace(CASE, singleton=False), Reason.REPLICA_LAST),
        (replace(primary(standbys=(OWN,)), singleton=False), Reason.REPLICA_LAST),
        (replace(primary(standbys=({**OTHER, "replays": False},)), singleton=False), Reason.REPLICA_LAST),
        (replace(primary(standbys=({**OTHER, "state": "catchup"},)), singleton=False), Reason.REPLICA_LAST),
        (replace(primary(standbys=(OTHER,)), singleton=False, min_healthy=2), Reason.REPLICA_LAST),
        (replica(slot="mine"), Reason.REPLICA_SLOT),
        (slot(status="lost"), Reason.REPLICA_SLOT),
        (slot(status="unreserved"), Reason.REPLICA_SLOT),
        (slot(safe=64 * 1024 * 1024 - 1), Reason.REPLICA_SLOT),
        (primary(standbys=(OWN,), slots=({**SLOT, "pid": 2, "temporary": True},)), Reason.REPLICA_SLOT),
        (replica(base_backups=1), Reason.REPLICA_BUSY),
        (replica(senders=1), Reason.REPLICA_BUSY),
        (replica(backups=("pg_dump",)), Reason.REPLICA_BUSY),
        (replica(paused=True), Reason.REPLICA_BUSY),
        (primary(replica(silent=60.0), standbys=(OTHER,)), Reason.NOTHING_TO_DO),
        (server(can_see=False), Reason.TARGET_NOT_ALLOWED),
        (leading(can_see=False), Reason.TARGET_NOT_ALLOWED),
    ],
)
def test_each_reason_alone(case: Case, reason: Reason) -> None:
    """By its name, with a sentence."""
    found = refusals(case)
    assert [refusal.reason for refusal in found] == [reason]
    assert found[0].sentence.endswith((".", ";"))


def test_the_last_one_that_streams_is_refused_whatever_is_said_aloud() -> None:
    """`singleton` is about a sick one: a restart of it takes no spare away."""
    assert reasons(primary(replica(silent=0.1), standbys=(OWN,))) == [Reason.REPLICA_LAST, Reason.NOTHING_TO_DO]


ENTRY = "host: h, database: d, user: u, password_file: /p"
BASE = """
environment: test
webhook: {token_files: [/t]}
prometheus: {urls: ["http://prometheus:9090"]}
alertmanager: {urls: ["http://alertmanager:9093"]}
"""


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (f"databases: {{a: {{{ENTRY}, replica_of: gone}}}}", "databases.a.replica_of: gone is no primary"),
        (f"databases: {{a: {{{ENTRY}, replica_of: a}}}}", "databases.a.replica_of: a is no primary"),
        (f"databases: {{a: {{{ENTRY}}}}}\nservices: {{a: {{}}}}", "services.a: is a database that is no replica"),
        (
            f"databases: {{p: {{{ENTRY}}}, a: {{{ENTRY}, replica_of: p}}}}\nservices: {{a: {{containers: 2}}}}",
            "services.a.containers: one address is one server",
        ),
    ],
)
def test_settings_that_would_restart_a_primary_are_refused(said: str, fault: str) -> None:
    """When they are read, not when it happens."""
    with pytest.raises(ConfigError) as caught:
        parse(BASE + said, "x.yml")
    assert f"x.yml: {fault}" in str(caught.value)
