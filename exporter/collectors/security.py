"""Collector `security`: logins and locks of the platform's audit log, and the accounts that are locked now.

In: the events after the cursor. Out: logins, refused logins by reason, locks. It must never show or keep whose account
an event is about, or where it came from: those columns are not read, and the role needs no right to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.catalog import security as catalog
from exporter.cursor import Totals
from exporter.cursor_settings import AccountsTable
from exporter.cursor_settings import SecurityCollector as SecuritySettings
from exporter.samples import AnySample, Sample
from exporter.sessions import PostgresSession
from exporter.statefile import StateFile
from exporter.table_cursor import CursorCollector
from exporter.table_reading import (
    COUNTED_UP_TO,
    Index,
    Read,
    Reading,
    final_rows,
    index_name,
    literal,
    meanings,
    plain,
    quoted,
    words,
)

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Event:
    """A lock, or a login and why it was refused (None: it was not)."""

    lock: bool
    failure: str | None = None


def reading(settings: SecuritySettings) -> Reading[Event]:
    """The audit log as the cursor reads it."""
    table = settings.table
    rows = final_rows(
        quoted(table.id) + "::bigint",
        table.at,
        table.name,
        {"event": words(table.event), "outcome": words(table.outcome), "reason": words(table.reason)},
        (table.id, table.at, table.event, table.outcome, table.reason),
        only=(table.event, f"in ({literal(table.login_event)}, {literal(table.lock_event)})"),
        suffix="logins",
    )
    return Reading(
        name="security",
        layout="logins",
        rows=(rows,),
        present=_locked(settings.accounts) if settings.accounts is not None else None,
        read=reader(settings),
        count=count,
        samples=samples,
        show_present=lambda row: (Sample(catalog.LOCKED_ACCOUNTS, (), float(row["locked"])),),
        metrics=catalog.SECURITY_CURSOR,
    )


def _locked(accounts: AccountsTable) -> Read:
    rows = f"select 1 from {quoted(accounts.name)} where {quoted(accounts.locked_at)} is not null limit {COUNTED_UP_TO}"  # noqa: S608
    index = Index(
        index_name(accounts.name, "locked"),
        accounts.name,
        accounts.locked_at,
        f"{plain(accounts.locked_at)} is not null",
    )
    sql = f"select count(*) as locked from ({rows}) as accounts"  # noqa: S608 - of quoted names
    return Read(sql, index, (accounts.locked_at,))


def reader(settings: SecuritySettings) -> Callable[[Mapping[str, Any]], Event]:
    """What turns a row into an Event, by the configured words."""
    reasons, table = meanings(settings.reasons), settings.table

    def read(row: Mapping[str, Any]) -> Event:
        if row["event"] == table.lock_event:
            return Event(lock=True)
        return Event(False, reasons.get(row["reason"], OTHER) if row["outcome"] == table.failed_outcome else None)

    return read


def count(event: Event) -> Totals:
    """What one event adds to the totals."""
    if event.lock:
        return {"locks": 1}
    return {"logins": 1} if event.failure is None else {"logins": 1, f"failed {event.failure}": 1}


def samples(totals: Totals) -> tuple[AnySample, ...]:
    """Totals to counters; every reason has its series, also before anything was counted for it."""
    return (
        Sample(catalog.LOGINS, (), float(totals.get("logins", 0))),
        *(
            Sample(catalog.LOGINS_FAILED, (reason,), float(totals.get(f"failed {reason}", 0)))
            for reason in catalog.LOGIN_FAILURES
        ),
        Sample(catalog.ACCOUNTS_LOCKED, (), float(totals.get("locks", 0))),
    )


class SecurityCollector(CursorCollector[Event]):
    """The cursor over the audit log and the look at the locked accounts, on the primary's kept session."""

    def __init__(self, session: PostgresSession, settings: SecuritySettings, state_file: StateFile) -> None:
        super().__init__(session, reading(settings), settings, state_file)
