"""One transaction, seen from inside: the same code for SQLite and PostgreSQL.

A *body* is a plain function of a `Tx`. It may run more than once (a deadlock, an unknown COMMIT), so it has no
side effect but its statements; it does no network or file work, as others may wait for its locks.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Double, Executable, Table, cast, extract, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult

T = TypeVar("T")
Params = Mapping[str, Any]

INTENT_LOCK = 0x70726570_0001  # 'prep' and a number: intents, pauses and modes; nothing else takes it
ROUTE_LOCK = 0x70726570_0002
MIGRATION_LOCK = 0x70726570_0003
SEAL_LOCK = 0x70726570_0004

# clock_timestamp(), not now(): the time of the statement, which may have waited for a lock, not of BEGIN.
DATABASE_CLOCK = select(cast(extract("epoch", func.clock_timestamp()), Double))
_LOCK = text("SELECT pg_advisory_xact_lock(:key)")


def new_id() -> str:
    """32 hex digits that nobody has made before."""
    return uuid.uuid4().hex


class Insert:
    """Inserts with an ON CONFLICT clause: the one thing the two dialects spell alike but not in SQLAlchemy."""

    def __init__(self, dialect: Callable[[Table], Any]) -> None:
        self._dialect = dialect
        self._built: dict[tuple[str, str], Executable] = {}

    def ignore(self, into: Table, returning: str = "") -> Executable:
        """Insert unless any unique key is taken; `returning` a column says by its row that it was inserted."""
        key = (into.name, returning)
        if key not in self._built:
            statement = self._dialect(into).on_conflict_do_nothing()
            self._built[key] = statement.returning(into.c[returning]) if returning else statement
        return self._built[key]

    def replace(self, into: Table, *columns: str) -> Executable:
        """Insert, or set these columns of the row that has the primary key."""
        key = (into.name, ",".join(columns))
        if key not in self._built:
            statement = self._dialect(into)
            self._built[key] = statement.on_conflict_do_update(
                index_elements=list(into.primary_key), set_={name: statement.excluded[name] for name in columns}
            )
        return self._built[key]


_INSERTS = {"sqlite": Insert(sqlite.insert), "postgresql": Insert(postgresql.insert)}


class Tx:
    """An open transaction.

    again  True when an earlier try of the same body may have been committed: its rows may be there
    ids    makes the ids of episodes; a simulation makes them from its seed, as work of the same moment goes by them
    """

    def __init__(
        self,
        connection: Connection,
        clock: Callable[[], float],
        *,
        again: bool = False,
        ids: Callable[[], str] = new_id,
    ) -> None:
        self.connection = connection
        self.again = again
        self.ids = ids
        self.postgresql = connection.dialect.name == "postgresql"
        self.insert = _INSERTS[connection.dialect.name]
        self._clock = clock

    def now(self) -> float:
        """UNIX seconds by the journal's clock, read at this moment."""
        if self.postgresql:
            return float(self.connection.execute(DATABASE_CLOCK).scalar_one())
        return self._clock()

    def lock(self, key: int) -> None:
        """Wait for a lock that ends with the transaction. SQLite: BEGIN IMMEDIATE has it already.

        Under READ COMMITTED the statements after this one see everything that was committed before the lock was
        granted, so it must be a statement of its own (PostgreSQL 13.2.1).
        """
        if self.postgresql:
            self.connection.execute(_LOCK, {"key": key})

    def run(self, statement: Executable, params: Params | Sequence[Params] | None = None) -> CursorResult[Any]:
        """Execute a statement."""
        return self.connection.execute(statement, params)

    def rows(self, statement: Executable, params: Params | None = None) -> Sequence[Any]:
        """All rows of a query; their columns are attributes."""
        return self.connection.execute(statement, params).all()

    def row(self, statement: Executable, params: Params | None = None) -> Any:
        """The first row of a query, or None."""
        return self.connection.execute(statement, params).first()


def plain(text: str) -> str:
    """Text that both databases can store: no NUL (PostgreSQL) and no lone surrogate (both)."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def filled(values: Sequence[T]) -> list[T]:
    """The values for an IN list, the last one repeated up to a power of two.

    Each length is a statement of its own to prepare and cache; so there are a dozen lengths, not thousands.
    """
    size = 1 << (len(values) - 1).bit_length()
    return [*values, *[values[-1]] * (size - len(values))]
