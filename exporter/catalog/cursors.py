"""Catalog: what every cursor over a table tells of itself, beside what it counts.

In: a subject and the name of its collector. Out: the same four families for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.catalog.entries import Metric, Subject


@dataclass(frozen=True, slots=True)
class CursorMetrics:
    """The families of one cursor; none of them has a label."""

    catching_up: Metric
    overlap_cut: Metric
    overlap_cuts: Metric
    state_discarded: Metric


def cursor_metrics(subject: Subject, collector: str) -> CursorMetrics:
    """Enter the cursor's families of the collector `collector`: `prep_<collector>_cursor_*`."""
    prefix = f"prep_{collector}_cursor"
    return CursorMetrics(
        catching_up=subject.metric(
            f"{prefix}_catching_up",
            "gauge",
            "",
            "1 while the counters hold a jump of rows from a time in which nobody counted; alerts on their rates should"
            " wait until max_over_time() of it over their range is 0.",
            collector,
        ),
        overlap_cut=subject.metric(
            f"{prefix}_overlap_cut",
            "gauge",
            "",
            "1 while a transaction is open for longer than the cursor's overlap reaches back: its rows may be missed.",
            collector,
        ),
        overlap_cuts=subject.metric(
            f"{prefix}_overlap_cuts_total",
            "counter",
            "",
            "Looks in which `overlap_cut` was 1, over restarts: while this stands still, nothing was missed.",
            collector,
        ),
        state_discarded=subject.metric(
            f"{prefix}_state_discarded",
            "gauge",
            "",
            "1 when this process found the cursor's saved state unreadable or foreign and began again from its start"
            " time.",
            collector,
        ),
    )
