"""A person's click that was not taken, refused at the door or second behind another's: into the journal, with who.

In: who wanted what, and the answer that said no. Out: an event of the clicks' own stream (`events.CLICKS`), which no
decision reads: it costs no limit, makes nothing due and changes no episode. Bounded: so many of one person in a minute.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import structlog

from remediator.actions.base import Settlement
from remediator.errors import JournalError
from remediator.events import CLICKS, OWN
from remediator.journal import InboxRow, Journal, NotTaken
from remediator.ledger import Approval, Attempt, Ledger
from remediator.narrative import clock

log = structlog.get_logger(__name__)

Act = Literal["approve", "decline", "settle", "pause", "resume", "end_storm", "restore", "promote", "command"]
MOST, WITHIN = 10, 60.0  # clicks of one person that are told within so many seconds; of more the log tells
WAIT = 3.0  # seconds for the journal; whoever clicked waits so long for his no
SHARED = "somebody with the shared token"
_ID = re.compile("[0-9a-f]{32}")


@dataclass
class Clicks:
    """Tells of clicks that the API or the console have refused."""

    journal: Journal
    seconds: Callable[[], float] = time.monotonic
    _told: dict[str | None, deque[float]] = field(default_factory=dict)
    _telling: set[asyncio.Task[None]] = field(default_factory=set)

    async def refused(self, act: Act, of: str, name: str | None, who: str, error: Mapping[str, str]) -> None:
        """`name` is the token's, None for a shared one; `who` is what the journal calls him. Never raises."""
        if not self._may(name):
            log.warning("too many refused clicks to journal", act=act, of=of[:64], who=who, code=error["code"])
            return
        telling = asyncio.create_task(self._tell(act, of, who, error))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        # Not cancelled when it takes longer: a transaction is never cut, so a cancellation would wait for its end too.
        await asyncio.wait({telling}, timeout=WAIT)

    async def _tell(self, act: Act, of: str, who: str, error: Mapping[str, str]) -> None:
        try:
            episode = await self._episode(act, of)
            told = NotTaken(uuid.uuid4().hex, act, of, episode, who, error["code"], error["message"])
            await self.journal.not_taken(told)
        except JournalError as failed:  # the answer is no all the same
            log.error("refused click is not in the journal", act=act, who=who, code=error["code"], why=str(failed))

    def _may(self, name: str | None) -> bool:
        """Names are those of tokens, so that there are few."""
        now, told = self.seconds(), self._told.setdefault(name, deque(maxlen=MOST))
        if len(told) == MOST and now - told[0] < WITHIN:
            return False
        told.append(now)
        return True

    async def _episode(self, act: Act, of: str) -> str | None:
        if not _ID.fullmatch(of):
            return None
        if act == "settle":
            return await self.journal.episode_of(of)
        found = await self.journal.episode_of_event(of) if act in ("approve", "decline") else None
        return None if found in (OWN, CLICKS) else found


def second(row: InboxRow, act: Act, of: str, who: str, why: tuple[str, str]) -> NotTaken:
    """A click that was taken at the door and then came second. Of one row it is always the same event."""
    mark = hashlib.sha256(f"{row.id} {row.received_at!r} ".encode() + row.body).hexdigest()[:32]
    return NotTaken(mark, act, of, row.episode, who, *why)


def over(ledger: Ledger, asked: Approval, at: float) -> tuple[str, str] | None:
    """Why a question takes no answer at `at` (UNIX seconds), as a code and a sentence; None while it takes one."""
    if asked.declined_by is not None:
        return "answered", f"{asked.declined_by} has declined it before: {asked.reason}"
    if asked.given or asked.used is not None:
        return "answered", f"{' and '.join(asked.approved_by)} approved it before."
    if ledger.closed is not None:
        return "episode_closed", f"The episode has closed meanwhile ({ledger.closed})."
    if ledger.approval is None or ledger.approval.id != asked.id:
        return "asked_anew", "It was asked anew: what would be done has changed since."
    if at >= asked.good_until:
        return "expired", f"The time to answer is over since {clock(asked.good_until)}."
    if ledger.handed_over is not None:
        return "handed_over", f"It was handed to people before ({ledger.handed_over})."
    return None


def settled(attempt: Attempt | None) -> tuple[str, str]:
    """Why a word about a doubt came second."""
    if attempt is None:
        return "no_such_attempt", "There is no attempt with this id."
    if attempt.settlement not in (None, Settlement.UNKNOWN):
        return "not_in_doubt", f"It was settled before: {attempt.settlement}."
    return "not_in_doubt", f"It is not in doubt: {attempt.outcome}."
