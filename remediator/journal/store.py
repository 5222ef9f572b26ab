"""Where transactions run: what a store promises, whichever database is behind it.

    write(body)   one durable transaction; returned only after COMMIT was acknowledged
    read(body)    one read-only look

Both may be cancelled at any await without cutting a transaction in half: the caller's cancellation is passed on
only after the transaction has ended (`undisturbed`). A cancelled COMMIT would leave a row that nobody knows of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from remediator.errors import JournalError
from remediator.journal.transaction import Tx

T = TypeVar("T")
Body = Callable[[Tx], T]


class Store(Protocol):
    """A database that holds a journal.

    shared  may other processes write to it at the same time?
    broken  why nothing may be written any more (an I/O error), or None; only a new process recovers
    """

    shared: bool
    broken: str | None

    async def write(self, body: Body[T], *, patient: bool = False) -> T:
        """Run `body` in a transaction and commit it durably.

        patient  it may take as long as it takes: a change of tables that hold years

        What the body raises rolls back and is raised. Raises JournalError when the database cannot do it, also
        when the result of COMMIT stays unknown after `body` was tried again on a fresh connection.
        """
        ...

    async def read(self, body: Body[T]) -> T:
        """Run `body`, which changes nothing."""
        ...

    async def now(self) -> float:
        """UNIX seconds by the clock that all who write here share: the database's own, or this machine's."""
        ...

    async def close(self) -> None:
        """End connections and threads."""
        ...


class Unstorable(JournalError):
    """The database refuses these values, and will again: nothing was written."""


class NoSpace(JournalError):
    """The disk is full: nothing was written, and what was there is intact."""


async def undisturbed(work: Awaitable[T]) -> T:
    """Wait for `work` to end even when this task is cancelled meanwhile; then the cancellation goes on."""
    future = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not report it as lost
        raise cancelled
    return future.result()
