"""What a cursor makes of a row, by table; and that no configured name can be more than a name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from exporter.catalog.payments import DECLINE_REASONS, FAILURE_REASONS
from exporter.catalog.security import LOGIN_FAILURES
from exporter.checks import Scan, scans_of
from exporter.collectors import compliance, payments, security
from exporter.collectors.payments import Payment
from exporter.collectors.security import Event
from exporter.cursor_settings import (
    ComplianceCollector,
    DeclineWords,
    FailureWords,
    LoginFailureWords,
    PaymentsCollector,
    SecurityCollector,
)
from exporter.errors import ConfigError
from exporter.settings import parse
from exporter.table_reading import literal, plain, quoted

FAILED = {"refund": False, "duration": 5, "status": "failed", "reason": "", "provider": "stripe", "method": "card"}


def final(**changes: Any) -> Payment:
    return payments.reader(PaymentsCollector())({**FAILED, **changes})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"status": "succeeded"}, Payment("finalized", "stripe", "card", 5)),
        ({"status": "refunded", "reason": "card_declined"}, Payment("finalized", "stripe", "card", 5)),
        ({"reason": "card_declined"}, Payment("finalized", "stripe", "card", 5, "declined", "refused_by_bank")),
        ({"reason": "expired_card"}, Payment("finalized", "stripe", "card", 5, "declined", "expired_card")),
        ({"reason": "abandoned"}, Payment("finalized", "stripe", "card", 5, "failed", "platform")),
        ({"reason": "provider_error"}, Payment("finalized", "stripe", "card", 5, "failed", "provider")),
        ({"reason": "provider_timeout"}, Payment("finalized", "stripe", "card", 5, "failed", "network")),
        ({"reason": "never heard of"}, Payment("finalized", "stripe", "card", 5, "failed", "other")),
        ({"provider": "", "method": "Card"}, Payment("finalized", "other", "other", 5, "failed", "other")),
        ({"refund": True, "status": ""}, Payment("refunded", "stripe", "card")),
    ],
)
def test_payment_is_read_by_the_configured_words(row: dict[str, Any], expected: Payment) -> None:
    """Declines are no failures, unknown words count against the platform, unknown names are `other`."""
    assert final(**row) == expected


def test_payment_adds_to_its_series_only() -> None:
    """Final, failed and duration at once; a refund to its own counter and nothing else."""
    counted = payments.count(Payment("finalized", "stripe", "card", 300_000, "failed", "network"))
    assert counted == {"bucket 3": 1, "duration": 300_000, "finalized|stripe|card": 1, "failed|stripe|card|network": 1}
    assert payments.count(Payment("refunded", "stripe", "card")) == {"refunded|stripe|card": 1}


@pytest.mark.parametrize(
    ("event", "outcome", "reason", "expected", "counted"),
    [
        ("login", "success", "", Event(False), {"logins": 1}),
        (
            "login",
            "failure",
            "wrong_password",
            Event(False, "wrong_password"),
            {"logins": 1, "failed wrong_password": 1},
        ),
        ("login", "failure", "ann@example.org", Event(False, "other"), {"logins": 1, "failed other": 1}),
        ("account_locked", "success", "", Event(True), {"locks": 1}),
    ],
)
def test_event_is_read_by_the_configured_words(
    event: str, outcome: str, reason: str, expected: Event, counted: dict[str, int]
) -> None:
    """Whatever the log says beside the configured words, only closed reasons come out."""
    found = security.reader(SecurityCollector())({"event": event, "outcome": outcome, "reason": reason})
    assert found == expected
    assert security.count(found) == counted


def test_reasons_of_settings_and_catalog_are_the_same() -> None:
    """A list of words that no label stands for, or a label that no word leads to, is a mistake."""
    assert (*FailureWords.model_fields, "other") == FAILURE_REASONS
    assert tuple(DeclineWords.model_fields) == DECLINE_REASONS
    assert (*LoginFailureWords.model_fields, "other") == LOGIN_FAILURES


@pytest.mark.parametrize(
    "name",
    [
        "payments; drop table payments",
        'pay"ments',
        "a.b.c",
        "",
        "1st",
        "pay ments",
        "x" * 64,
        "(select 1)",
        "a.",
        "a\n",
    ],
)
def test_name_that_is_no_name_is_refused(name: str) -> None:
    """Of a table or a column: what is no identifier does not get near a statement."""
    for table in ({"name": name}, {"status": name}):
        with pytest.raises(ValidationError):
            PaymentsCollector.model_validate({"table": table})


@pytest.mark.parametrize("word", ["it's", "back\\slash", "", "new\nline", "x" * 65, 'quo"te', "a|b"])
def test_word_that_could_end_a_constant_is_refused(word: str) -> None:
    """Also one that could be taken for two labels."""
    for changes in ({"table": {"pending_status": word}}, {"providers": [word]}, {"failures": {"network": [word]}}):
        with pytest.raises(ValidationError):
            PaymentsCollector.model_validate(changes)


def test_names_and_constants_are_quoted() -> None:
    """The second wall: even what the first would refuse stays what it is."""
    assert quoted('a.b"; drop') == '"a"."b""; drop"'
    assert literal("it's") == "'it''s'"
    assert [plain("a.Order"), plain("user"), plain("at")] == ['a."Order"', '"user"', "at"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("payments: {failures: {network: [timeout, card_declined]}}", "card_declined in more than one list"),
        ("security: {reasons: {second_factor: [locked]}}", "locked in more than one list"),
        ("payments: {server: other}", "'other' is no server of collectors.postgres.servers"),
        ("security: {margin: 20m}", "is not below the overlap"),
        ("payments: {state_file: /s}\n  security: {state_file: /s}", "is also the file of collectors.payments"),
        ("payments: {providers: []}", "is empty"),
    ],
)
def test_mistakes_are_told(text: str, told: str) -> None:
    """A word with two meanings, a file of two cursors, a server that is not there."""
    servers = "collectors:\n  postgres: {servers: {postgres: {host: db, database: d, user: u}}}\n"
    with pytest.raises(ConfigError) as caught:
        parse(f"{servers}  {text}\n", "exporter.yml")
    assert any(told in str(fault) for fault in caught.value.faults), caught.value


def test_every_read_names_an_index_on_its_own_time() -> None:
    """The statement that is printed is on the table and column that the query asks for."""
    readings = [
        compliance.reading(ComplianceCollector()),
        payments.reading(PaymentsCollector()),
        security.reading(SecurityCollector()),
    ]
    reads = [read for reading in readings for read in reading.reads]
    assert len(reads) == 7
    assert len({read.index.name for read in reads}) == 7
    for read in reads:
        assert read.index.column in read.columns
        assert quoted(read.index.table) in read.sql
        assert f"on {read.index.table} ({read.index.column}) where " in read.index.ddl


def test_scans_are_found_in_a_plan() -> None:
    """Every node that reads a table, however deep; of a bitmap its index."""
    plan = {
        "Node Type": "Limit",
        "Plans": [
            {"Node Type": "Index Scan", "Index Name": "a", "Index Cond": "(x > 1)"},
            {"Node Type": "Bitmap Heap Scan", "Plans": [{"Node Type": "Bitmap Index Scan", "Index Name": "b"}]},
            {"Node Type": "Subquery Scan", "Plans": [{"Node Type": "Seq Scan", "Relation Name": "t"}]},
        ],
    }
    assert list(scans_of(plan)) == [Scan("a", True), Scan("b", False), Scan(None, False)]
