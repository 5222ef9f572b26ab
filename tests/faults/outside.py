"""A journal as it lies there, read past the remediator: also while it is dead, and without a call that it could see."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.support.servers import Database

Ask = Callable[[str], list[list[str]]]
Forget = Callable[[], None]

_KEPT = {
    # A body is bytes; escaped, its ASCII is readable in both.
    "sqlite": "select cast(body as text) from inbox where received_at >= {since}"
    " union all select data from events where at >= {since}",
    "postgresql": "select encode(body, 'escape') from inbox where received_at >= {since}"
    " union all select data from events where at >= {since}",
}
_EPISODES = """
select e.closed_at is not null or exists (select 1 from events v where v.episode = e.episode and v.kind = 'handed_over')
from episodes e where e.opened_at >= {since} and e.runbook is not null
"""
_LAST = "select kind from events where at >= {since} order by at desc, seq desc limit 1"


class Outside:
    """`since` is UNIX seconds everywhere: what was written from then on.

    forget  empties the journal; nobody may have it open
    """

    def __init__(self, ask: Ask, dialect: str, forget: Forget) -> None:
        self._ask, self._dialect = ask, dialect
        self.forget = forget

    @classmethod
    def file(cls, path: Path) -> Outside:
        """A SQLite journal. Read-only: closing it changes nothing, even when nobody else has it open."""

        def ask(sql: str) -> list[list[str]]:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
                return [[str(value) for value in row] for row in connection.execute(sql)]

        def forget() -> None:
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                path.with_name(name).unlink(missing_ok=True)

        return cls(ask, "sqlite", forget)

    @classmethod
    def database(cls, database: Database) -> Outside:
        """A journal on PostgreSQL."""

        def forget() -> None:
            database.sql("drop schema public cascade; create schema public")

        return cls(database.sql, "postgresql", forget)

    def kept(self, since: float) -> str:
        """All bodies and events, to look for an alert's note in."""
        return "\n".join(row[0] for row in self._ask(_KEPT[self._dialect].format(since=since)))

    def at_rest(self, since: float, count: int) -> bool:
        """Are there so many episodes with a runbook, and each closed or with people?"""
        rows = self._ask(_EPISODES.format(since=since))
        return len(rows) >= count and all(row[0] in ("1", "t") for row in rows)

    def last(self, since: float) -> str:
        """The kind of the newest event, `nothing` when there is none."""
        rows = self._ask(_LAST.format(since=since))
        return rows[0][0] if rows else "nothing"
