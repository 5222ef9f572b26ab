"""The table of guardrails in docs/safety-case.md: equal to the situations that are played, and none is forgotten."""

from __future__ import annotations

from pathlib import Path

from remediator import guardrails
from remediator.reasons import Reason
from tests.faults.situations import SITUATIONS, table
from tests.support.mutated import TARGET
from tests.unit.test_safety_case import PAGE, missing_tests

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## Guardrails, each taken out once"
NO_GUARDRAIL = {
    Reason.NO_RUNBOOK: "there is nothing that could be done",
    Reason.NO_TARGET: "there is nothing that it could be done to",
    Reason.DECLINED: "without a yes nothing is done anyway",
    Reason.SHADOW: "the mode once more, under the lock",
}
"""Reasons that stand for the lack of something, and not for a rule that could be lost."""
PLAYED_BY_THE_ACTION = {
    "tests/integration/test_payment_retries.py": {Reason.PROVIDER_FAILING},
    "tests/integration/test_raise_redis.py": {Reason.REDIS_AT_CAP},
    "tests/integration/test_mending_redis.py": {Reason.REDIS_CANNOT_SAVE, Reason.REDIS_LOADING, Reason.REDIS_ROLE},
    "tests/integration/test_restart_replica.py": {
        Reason.REPLICA_BUSY,
        Reason.REPLICA_LAST,
        Reason.REPLICA_PROMOTED,
        Reason.REPLICA_SLOT,
        Reason.REPLICA_SYNCHRONOUS,
        Reason.REPLICA_UNPROVEN,
    },
    "tests/integration/test_prune_docker.py": {Reason.TARGET_NOT_FULL},
    "tests/integration/test_start_service.py": {Reason.TARGET_STOPPED},
}
"""Preconditions of one action, refused on real parts in that action's own tests, and not taken out once."""
SAID_OTHERWISE = {Reason.RULE_CLEARED: "cleared"}


def part() -> str:
    return PAGE.split(f"\n{HEADING}\n")[1].split("\n## ")[0]


def test_the_table_is_what_is_played() -> None:
    """Row by row; `python -m tests.faults.situations` prints it."""
    assert [line for line in part().splitlines() if line.startswith("| `")] == table()


def test_every_guardrail_is_taken_out() -> None:
    """Each function in the tables of guardrails, and what stands beside them."""
    named = {rule.__name__ for rule in (*guardrails.BEFORE_LOOK, *guardrails.AFTER_LOOK, *guardrails.LIMITS)}
    named |= {"settling", "mode_of", "demotion", "locked"}
    taken = {each.guardrail.removeprefix(TARGET) if TARGET not in each.guardrail else TARGET for each in SITUATIONS}
    assert named - {"target_agrees"} - taken == set()
    assert TARGET in taken


def test_every_reason_is_seen() -> None:
    """Each reason for which nothing is done is said in one of the situations, or in the tests of its action."""
    for file, reasons in PLAYED_BY_THE_ACTION.items():
        text = (ROOT / file).read_text()
        assert {reason for reason in reasons if f"Reason.{reason.name}" not in text and reason not in text} == set()
    said = {each.reason for each in SITUATIONS} | set().union(*PLAYED_BY_THE_ACTION.values())
    assert {str(SAID_OTHERWISE.get(reason, reason)) for reason in Reason if reason not in NO_GUARDRAIL} - said == set()


def test_what_plays_it_exists() -> None:
    """The page names the test."""
    assert "test_what_it_stops_happens_without_it" in part()
    assert missing_tests(part()) == []
