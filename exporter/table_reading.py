"""What a cursor must know of a table: its queries, the index that each of them needs, and what a row means.

In: configured names of tables, columns and words. Out: `Reading`, which `exporter.table_cursor` runs and
`exporter.checks` examines. Names are quoted here, and nowhere are they text of a statement otherwise. It must never do
I/O.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from exporter.catalog.cursors import CursorMetrics
from exporter.catalog.entries import Metric
from exporter.cursor import Totals
from exporter.samples import AnySample, HistogramSample, Sample

T = TypeVar("T")

MICROSECONDS = 1_000_000
"""In a second."""
COUNTED_UP_TO = 100_000
"""Rows of a queue that are counted at most: the cost of a queue that has run full stays bounded."""
REASON_CHARACTERS = 100
"""Of a free text that are read; a configured word is shorter."""


def quoted(name: str) -> str:
    """An identifier, or `schema.table`, as SQL has it; whatever it holds, it stays a name."""
    return ".".join(map(quoted_name, name.split(".")))


def quoted_name(name: str) -> str:
    """One identifier, in which a dot is a dot: a role, a database."""
    return f'"{name.replace(chr(34), chr(34) * 2)}"'


def literal(word: str) -> str:
    """A string constant (PostgreSQL 15 manual, 4.1.2.1; standard_conforming_strings is on by default)."""
    return "'" + word.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Index:
    """An index that keeps a query's cost independent of the table's size."""

    name: str
    table: str
    column: str
    where: str
    """Its predicate: only rows that the query may want are in it."""

    @property
    def ddl(self) -> str:
        """The statement that makes it, without stopping anybody who writes."""
        create = f"create index concurrently if not exists {plain(self.name)}"
        return f"{create}\n    on {plain(self.table)} ({plain(self.column)}) where {self.where};"


def plain(name: str) -> str:
    """The same name without quotes where SQL reads it in the same way: for people."""
    return ".".join(
        part if part == part.lower() and part not in _RESERVED else quoted(part) for part in name.split(".")
    )


_RESERVED = frozenset(
    {"user", "order", "table", "check", "group", "end", "column", "default", "select", "where", "all"}
)


@dataclass(frozen=True, slots=True)
class Read:
    """One SELECT, the columns of `index.table` that it reads, and the index that it needs."""

    sql: str
    index: Index
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """A table as a cursor reads it.

    Each of `rows` takes $1 (the floor, timestamptz), $2 (counted ids, bigint[]), $3 (how many), and answers `id`, `at`
    (microseconds, when the row became final) and what `read` wants, oldest first. With more than one of them a row may
    become final in more than one way, and `id` must say which: they must share none.
    """

    name: str
    layout: str
    """What the totals mean: with another one they begin again."""
    rows: tuple[Read, ...]
    present: Read | None
    """One row about the present state; None when there is nothing to tell."""
    read: Callable[[Mapping[str, Any]], T]
    """A row to what is counted of it."""
    count: Callable[[T], Totals]
    samples: Callable[[Totals], tuple[AnySample, ...]]
    show_present: Callable[[Mapping[str, Any]], tuple[AnySample, ...]]
    metrics: CursorMetrics

    @property
    def rows_query(self) -> str:
        """All that became final, in whatever way, as one statement: one position in time serves them all."""
        if len(self.rows) == 1:
            return self.rows[0].sql
        parts = " union all ".join(f"({part.sql})" for part in self.rows)
        return f"select * from ({parts}) as events order by at, id limit $3"  # noqa: S608 - of quoted names

    @property
    def ddl(self) -> str:
        """The indexes that it needs."""
        return "\n".join(read.index.ddl for read in self.reads)

    @property
    def reads(self) -> tuple[Read, ...]:
        """All of them."""
        return (*self.rows, self.present) if self.present is not None else self.rows


def final_rows(
    id_: str,
    at: str,
    table: str,
    values: Mapping[str, str],
    columns: tuple[str, ...],
    only: tuple[str, str] | None = None,
    suffix: str = "",
) -> Read:
    """The SELECT of one way of becoming final, at the time in column `at`.

    `id_` is an expression over quoted names, `values` are further ones by the name of the answer's column, `only` a
    column and what must hold of it; `columns` says which columns they all read. The index is named after the table and
    `suffix`, or what the time's column is called.
    A row stamped `infinity` is not final; the bound also keeps it out of the arithmetic.
    """
    when = quoted(at)
    shown = ",\n    ".join(f"{what} as {name}" for name, what in values.items())
    condition = f" and {quoted(only[0])} {only[1]}" if only else ""
    sql = f"""
select {id_} as id,
    (extract(epoch from {when}) * 1000000)::bigint as at,
    {shown}
from {quoted(table)}
where {when} >= $1::timestamptz and {when} < 'infinity' and not ({id_} = any($2::bigint[])){condition}
order by {when}, id
limit $3
"""  # noqa: S608 - names are quoted
    where = f"{plain(only[0])} {only[1]}" if only else f"{plain(at)} is not null"
    return Read(sql, Index(index_name(table, suffix or at.removesuffix("_at")), table, at, where), columns)


def index_name(table: str, suffix: str) -> str:
    """A name for an index: an index lies in its table's schema, so it is named without."""
    return f"{table.rpartition('.')[2]}_{suffix}"


def between(later: str, earlier: str) -> str:
    """Microseconds from one timestamptz column to another; 0 when either is NULL or infinite."""
    start, end = quoted(earlier), quoted(later)
    length = f"(extract(epoch from {end} - {start}) * 1000000)::bigint"
    return f"case when isfinite({start}) and isfinite({end}) then {length} else 0 end"


def words(column: str) -> str:
    """A column of states or reasons, of whatever type (an enum too), cut to what a word can be; '' for NULL."""
    return f"coalesce(left({quoted(column)}::text, {REASON_CHARACTERS}), '')"


def queue(table: str, created: str, state: str, waits: str) -> Read:
    """How many rows wait (`pending`), and since when the oldest does (`oldest`, UNIX seconds, NULL: none does).

    A row waits when `waits` holds of its column `state`.
    """
    rows = f"from {quoted(table)} where {quoted(state)} {waits}"
    sql = f"""
select
    (select count(*) from (select 1 {rows} limit {COUNTED_UP_TO}) as queue) as pending,
    (select extract(epoch from min({quoted(created)})) {rows}) as oldest
"""  # noqa: S608 - names are quoted
    return Read(sql, Index(index_name(table, "pending"), table, created, f"{plain(state)} {waits}"), (created, state))


def bucketed(duration: int, metric: Metric) -> Totals:
    """What one duration in microseconds adds to a histogram's totals. One below 0 (clocks) counts as 0."""
    length = max(0, duration)
    return {f"bucket {bisect.bisect_left(metric.buckets, length / MICROSECONDS)}": 1, "duration": length}


def histogram(totals: Totals, metric: Metric) -> HistogramSample:
    """The totals of `bucketed` as a sample, in seconds; nothing counted yet is 0."""
    counts = tuple(totals.get(f"bucket {index}", 0) for index in range(len(metric.buckets) + 1))
    return HistogramSample(metric, (), counts, totals.get("duration", 0) / MICROSECONDS)


def buckets_of(metric: Metric) -> str:
    """A layout's words for a histogram: with other buckets its totals cannot be added to."""
    return "buckets " + " ".join(str(bound) for bound in metric.buckets)


def waiting(row: Mapping[str, Any], pending: Metric, oldest: Metric) -> tuple[Sample, ...]:
    """The one row of `queue` as samples."""
    number = Sample(pending, (), float(row["pending"]))
    if row["oldest"] is None:
        return (number,)
    return (number, Sample(oldest, (), float(row["oldest"])))


def meanings(lists: object) -> dict[str, str]:
    """Word to reason, of a settings object whose every field is a list of words."""
    return {word: reason for reason, words_ in vars(lists).items() for word in words_}
