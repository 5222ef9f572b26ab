"""What the journal itself says against an effect, at the moment in which it begins. Read by the judge only.

It does not go by the guardrails: each question is put to the events and tables anew, so that a guardrail that is
lost or wrong is seen here.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select

from remediator.actions.base import Call
from remediator.events import OWN, Event, Kind
from remediator.journal.lines import of_episode
from remediator.journal.sqlite import SQLiteStore
from remediator.journal.tables import charges
from remediator.journal.transaction import Tx
from remediator.journal.watch import storm
from remediator.ledger import Ledger, fold

SEEN = 11.0  # seconds: what began later than this before the effect may have come after the last look
RECENT = 2 * 86400.0  # seconds of history that are looked at


async def judge(store: SQLiteStore, call: Call) -> tuple[bool, list[str]]:
    """Is the intent durable; and what forbids it, in words."""

    def body(tx: Tx) -> tuple[bool, list[str]]:
        rows = tx.rows(select(charges.c.attempt, charges.c.episode).where(charges.c.at > tx.now() - RECENT))
        mine = next((row.episode for row in rows if row.attempt == call.attempt), None)
        found = {row.episode: of_episode(tx, row.episode) for row in rows}
        others = [fold(events) for episode, events in found.items() if events and episode != mine]
        own = of_episode(tx, OWN)
        said = list(_doubts(others, call))
        said += _demoted(own, found.get(mine or "", []))
        latched = storm(tx)
        if latched is not None and latched.began_at < tx.now() - SEEN:
            said.append("storm")
        return mine is not None, said

    return await store.read(body)


def _doubts(others: list[Ledger], call: Call) -> Iterator[str]:
    """Another episode's attempt on the same resource that nobody knows the end of, or that is not judged yet."""
    for ledger in others:
        for attempt in ledger.attempts:
            if attempt.resource == call.resource and attempt.in_doubt:
                yield "in doubt"


def _demoted(own: list[Event], mine: list[Event]) -> Iterator[str]:
    """May the runbook of this episode only ask by now?"""
    if not mine:
        return
    runbook = mine[0].data.get("runbook")
    demoted = False
    for event in own:
        if event.kind is Kind.DEMOTED and event.data["runbook"] == runbook:
            demoted = True
        if event.kind is Kind.RESTORED and event.data["runbook"] == runbook:
            demoted = False
    if demoted:
        yield "demoted"
