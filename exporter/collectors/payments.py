"""Collector `payments`: payments of the platform's own table, counted when they become final, refunds, and the queue.

In: the rows after the cursor. Out: how many became final, how many of them failed and whose failure it was, how many
were declined, how many were refunded, how long they took, how many wait. A label's value is a configured name or a
reason of the catalog; whatever else stands in the table is counted as `other`.

One position serves both ways of becoming final: a payment (`finalized_at`) counts under twice its id, its refund
(`refunded_at`) under twice its id and one. A refund of a payment that was counted years ago is so found by an index,
at the same cost, and a row that goes from succeeded to refunded is never a second final payment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from exporter.catalog import payments as catalog
from exporter.catalog.entries import Metric
from exporter.cursor import Totals
from exporter.cursor_settings import PaymentsCollector as PaymentsSettings
from exporter.cursor_settings import PaymentsTable
from exporter.samples import AnySample, Sample
from exporter.sessions import PostgresSession
from exporter.statefile import StateFile
from exporter.table_cursor import CursorCollector
from exporter.table_reading import (
    Read,
    Reading,
    between,
    bucketed,
    buckets_of,
    final_rows,
    histogram,
    literal,
    meanings,
    queue,
    quoted,
    waiting,
    words,
)

OTHER = "other"

Kind = Literal["finalized", "refunded"]
Verdict = Literal["failed", "declined"]


@dataclass(frozen=True, slots=True)
class Payment:
    """One way in which a row became final. `provider` and `method` are values of labels already.

    `verdict` and `reason` are None for what did not fail; `duration` (microseconds) means nothing for a refund.
    """

    kind: Kind
    provider: str
    method: str
    duration: int = 0
    verdict: Verdict | None = None
    reason: str | None = None


def reading(settings: PaymentsSettings) -> Reading[Payment]:
    """The table of payments as the cursor reads it."""
    table = settings.table
    return Reading(
        name="payments",
        layout="payments, " + buckets_of(catalog.PAYMENTS_DURATION),
        rows=(_final(table), *_refunds(table)),
        present=queue(table.name, table.created_at, table.status, f"= {literal(table.pending_status)}"),
        read=reader(settings),
        count=count,
        samples=shower(settings),
        show_present=lambda row: waiting(row, catalog.PAYMENTS_PENDING, catalog.PAYMENTS_OLDEST_PENDING),
        metrics=catalog.PAYMENTS_CURSOR,
    )


def _final(table: PaymentsTable) -> Read:
    values = {
        "refund": "false",
        "duration": between(table.finalized_at, table.created_at),
        "status": words(table.status),
        "reason": words(table.failure_reason),
        "provider": words(table.provider),
        "method": words(table.method),
    }
    columns = (
        table.id,
        table.created_at,
        table.finalized_at,
        table.status,
        table.failure_reason,
        table.provider,
        table.method,
    )
    return final_rows(f"{quoted(table.id)}::bigint * 2", table.finalized_at, table.name, values, columns)


def _refunds(table: PaymentsTable) -> Iterator[Read]:
    """The refunds' SELECT, with the columns of `_final`; none where the table does not tell when they were made."""
    if table.refunded_at is None:
        return
    values = {
        "refund": "true",
        "duration": "0::bigint",
        "status": "''",
        "reason": "''",
        "provider": words(table.provider),
        "method": words(table.method),
    }
    columns = (table.id, table.refunded_at, table.provider, table.method)
    yield final_rows(f"{quoted(table.id)}::bigint * 2 + 1", table.refunded_at, table.name, values, columns)


def reader(settings: PaymentsSettings) -> Callable[[Mapping[str, Any]], Payment]:
    """What turns a row into a Payment, by the configured names and words."""
    providers, methods = frozenset(settings.providers), frozenset(settings.methods)
    failures, declines = meanings(settings.failures), meanings(settings.declines)
    failed = settings.table.failed_status

    def read(row: Mapping[str, Any]) -> Payment:
        provider = row["provider"] if row["provider"] in providers else OTHER
        method = row["method"] if row["method"] in methods else OTHER
        if row["refund"]:
            return Payment("refunded", provider, method)
        if row["status"] != failed:
            return Payment("finalized", provider, method, row["duration"])
        word = row["reason"]
        if word in declines:
            return Payment("finalized", provider, method, row["duration"], "declined", declines[word])
        # A word that nobody has put in a list counts against the platform: better one look too many than a silence.
        return Payment("finalized", provider, method, row["duration"], "failed", failures.get(word, OTHER))

    return read


def count(payment: Payment) -> Totals:
    """What one payment or refund adds to the totals."""
    series = {_key(payment.kind, payment.provider, payment.method): 1}
    if payment.kind == "refunded":
        return series
    if payment.verdict is not None and payment.reason is not None:
        series[_key(payment.verdict, payment.provider, payment.method, payment.reason)] = 1
    return {**bucketed(payment.duration, catalog.PAYMENTS_DURATION), **series}


def shower(settings: PaymentsSettings) -> Callable[[Totals], tuple[AnySample, ...]]:
    """What turns totals into samples: every known series, also one that nothing was counted for.

    The first failure would be invisible to increase() in a series that begins with it.
    """
    providers = dict.fromkeys((*settings.providers, OTHER))
    methods = dict.fromkeys((*settings.methods, OTHER))
    families: list[tuple[str, Metric, tuple[str, ...]]] = [
        ("finalized", catalog.PAYMENTS_FINALIZED, ()),
        ("failed", catalog.PAYMENTS_FAILED, catalog.FAILURE_REASONS),
        ("declined", catalog.PAYMENTS_DECLINED, catalog.DECLINE_REASONS),
    ]
    if settings.table.refunded_at is not None:
        families.append(("refunded", catalog.PAYMENTS_REFUNDED, ()))
    series = [
        (_key(kind, *labels), metric, labels)
        for kind, metric, reasons in families
        for labels in product(providers, methods, *([reasons] if reasons else []))
    ]

    def samples(totals: Totals) -> tuple[AnySample, ...]:
        return (
            *(Sample(metric, labels, float(totals.get(key, 0))) for key, metric, labels in series),
            histogram(totals, catalog.PAYMENTS_DURATION),
        )

    return samples


def _key(kind: str, *labels: str) -> str:
    """A series' key in the totals; configured names hold no such character."""
    return "|".join((kind, *labels))


class PaymentsCollector(CursorCollector[Payment]):
    """The cursor over the payments and the look at their queue, on the primary's kept session."""

    def __init__(self, session: PostgresSession, settings: PaymentsSettings, state_file: StateFile) -> None:
        super().__init__(session, reading(settings), settings, state_file)
