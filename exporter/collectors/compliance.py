"""Collector `compliance`: checks of the platform's own table, counted when they become final, and the queue.

In: the rows after the cursor. Out: a histogram, a counter, the pending checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.catalog import compliance as catalog
from exporter.cursor import Totals
from exporter.cursor_settings import ComplianceCollector as ComplianceSettings
from exporter.cursor_settings import ComplianceTable
from exporter.samples import AnySample, Sample
from exporter.sessions import PostgresSession
from exporter.statefile import StateFile
from exporter.table_cursor import CursorCollector
from exporter.table_reading import (
    Reading,
    between,
    bucketed,
    buckets_of,
    final_rows,
    histogram,
    queue,
    quoted,
    waiting,
    words,
)


@dataclass(frozen=True, slots=True)
class Check:
    """One final check: its duration in microseconds, and whether it ended without an answer."""

    duration: int
    failed: bool


def reading(settings: ComplianceSettings) -> Reading[Check]:
    """The table of checks as the cursor reads it."""
    table = settings.table
    errors = frozenset(table.error_results)

    def read(row: Mapping[str, Any]) -> Check:
        return Check(row["duration"], row["result"] in errors)

    rows = final_rows(
        quoted(table.id) + "::bigint",
        table.finished_at,
        table.name,
        {"duration": between(table.finished_at, table.created_at), "result": words(table.result)},
        (table.id, table.created_at, table.finished_at, table.result),
    )
    return Reading(
        name="compliance",
        layout=buckets_of(catalog.COMPLIANCE_DURATION),
        rows=(rows,),
        present=queue(table.name, table.created_at, table.finished_at, "is null"),
        read=read,
        count=count,
        samples=samples,
        show_present=lambda row: waiting(row, catalog.COMPLIANCE_PENDING, catalog.COMPLIANCE_OLDEST_PENDING),
        metrics=catalog.COMPLIANCE_CURSOR,
    )


def count(check: Check) -> Totals:
    """What one check adds to the totals."""
    return {**bucketed(check.duration, catalog.COMPLIANCE_DURATION), "failed": int(check.failed)}


def samples(totals: Totals) -> tuple[AnySample, ...]:
    """Totals to the histogram (seconds) and the counter; nothing counted yet is shown as 0."""
    failed = Sample(catalog.COMPLIANCE_FAILED, (), float(totals.get("failed", 0)))
    return (histogram(totals, catalog.COMPLIANCE_DURATION), failed)


class ComplianceCollector(CursorCollector[Check]):
    """The cursor over the checks and the look at their queue, on the primary's kept session."""

    def __init__(self, session: PostgresSession, settings: ComplianceSettings, state_file: StateFile) -> None:
        super().__init__(session, reading(settings), settings, state_file)


ROWS_QUERY = reading(ComplianceSettings(table=ComplianceTable())).rows_query
"""With Prep's names."""
