"""Seals: each closes some events with a digest over them and over the seal before, so that a later change shows.

In: events that no seal holds. Out: the newest seal, whose number and digest are told outside of the journal, as a line
of the log and as metrics; and what does not agree. Whoever can write the database can write it anew from the beginning,
seals and all: then only the number and digest that were told before say so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import bindparam, func, select, update

from remediator.errors import JournalError
from remediator.journal.tables import events, seals
from remediator.journal.transaction import SEAL_LOCK, Tx, filled

MOST = 250  # events in a seal: one transaction that others wait for
LOWEST = -(2**31)  # below every number that the column can hold
SHORT = 12  # hex digits that a number of a metric holds exactly
_SEALED = (
    events.c.id,
    events.c.episode,
    events.c.seq,
    events.c.kind,
    events.c.version,
    events.c.at,
    events.c.attempt,
    events.c.data,
)
_ORDER = (events.c.at, events.c.episode, events.c.seq)
_OPEN = select(*_SEALED).where(events.c.seal.is_(None)).order_by(*_ORDER).limit(MOST)
_ANY_OPEN = select(events.c.id).where(events.c.seal.is_(None)).limit(1)
_OLDEST_OPEN = select(func.min(events.c.at)).where(events.c.seal.is_(None))
_OPEN_COUNT = select(func.count()).select_from(events).where(events.c.seal.is_(None))
_CLOSE = update(events).where(events.c.id.in_(bindparam("ids", expanding=True))).values(seal=bindparam("number"))
_HEAD = select(seals).order_by(seals.c.number.desc()).limit(1)
_ONE = select(seals).where(seals.c.number == bindparam("number"))
_SOME = select(seals).where(seals.c.number > bindparam("after")).order_by(seals.c.number).limit(bindparam("most"))
_OF = select(*_SEALED).where(events.c.seal == bindparam("number")).order_by(*_ORDER)
_LOOSE = (
    select(events.c.seal, func.count().label("count"))
    .where(events.c.seal.is_not(None), events.c.seal.not_in(select(seals.c.number)))
    .group_by(events.c.seal)
    .order_by(events.c.seal)
)
NAMED = 5  # episodes that a difference names


class Cut(JournalError):
    """A seal that was seen is not in the journal any more, or is another one."""


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal.

    number  counted from 1
    digest  SHA-256 over the digest before, the seal itself and the events, hex
    at      UNIX seconds
    count   how many events it holds
    made_by the replica
    """

    number: int
    digest: str
    at: float
    count: int
    made_by: str

    def is_told(self, word: str) -> bool:
        """Is it what was told outside of the journal: the digest of the log's line, or the number of the metric?"""
        return word in (self.digest, str(self.short))

    @property
    def short(self) -> int:
        """The first 12 hex digits of the digest as a number, as a metric can hold it."""
        return int(self.digest[:SHORT], 16)


def head(tx: Tx) -> Seal | None:
    """The newest seal."""
    return _seal(tx.row(_HEAD))


def one(tx: Tx, number: int) -> Seal | None:
    """The seal of this number."""
    return _seal(tx.row(_ONE, {"number": number}))


def unsealed(tx: Tx) -> int:
    """How many events no seal holds yet."""
    return int(tx.rows(_OPEN_COUNT)[0][0])


def oldest_unsealed(tx: Tx) -> float | None:
    """When the oldest event that no seal holds was written, UNIX seconds; None when each is in one."""
    found = tx.rows(_OLDEST_OPEN)[0][0]
    return None if found is None else float(found)


def look(tx: Tx, seen: Seal | None) -> tuple[Seal | None, bool]:
    """The newest seal, and whether there is something to seal. Raises Cut: what was `seen` is not there as it was."""
    if seen is not None and one(tx, seen.number) != seen:
        raise Cut(f"seal {seen.number} ({seen.digest[:SHORT]}…) was made and is not there any more as it was")
    return head(tx), tx.row(_ANY_OPEN) is not None


def close(tx: Tx, by: str) -> Seal | None:
    """Seal the oldest events that no seal holds, 250 at most; None when there is none. Replicas take turns."""
    tx.lock(SEAL_LOCK)
    rows = tx.rows(_OPEN)
    if not rows:
        return None
    before = head(tx)
    blank = Seal((before.number if before else 0) + 1, "", tx.now(), len(rows), by)
    made = replace(blank, digest=_digest(before, blank, rows))
    tx.run(seals.insert(), asdict(made))
    tx.run(_CLOSE, {"ids": filled([row.id for row in rows]), "number": made.number})
    return made


def differences(tx: Tx, before: Seal | None, most: int) -> tuple[list[str], Seal | None]:
    """What does not agree in the `most` seals after `before`, one a line; and their last one, None after the newest."""
    problems: list[str] = []
    last = before
    for row in tx.rows(_SOME, {"after": before.number if before else LOWEST, "most": most}):
        expected = (last.number if last else 0) + 1
        if row.number != expected:
            problems.append(f"seal {expected}: not there; the next one is {row.number}")
        made, held = Seal(*row), tx.rows(_OF, {"number": row.number})
        if len(held) != row.count:
            problems.append(f"seal {row.number}: {len(held)} of its {row.count} events are there, {_of(held)}")
        elif row.number == expected and _digest(last, made, held) != made.digest:
            problems.append(f"seal {row.number}: its events are not what was sealed, or the seal is not, {_of(held)}")
        last = made
    return problems, (None if last == before else last)


def loose(tx: Tx) -> list[str]:
    """Events that say they are in a seal which is not there, one seal a line."""
    return [f"seal {row.seal}: not there, and {row.count} events say that they are in it" for row in tx.rows(_LOOSE)]


def _of(rows: Sequence[Any]) -> str:
    names = sorted({row.episode for row in rows})
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"of episode {', '.join(names[:NAMED])}{more}" if names else "of no episode"


def _digest(before: Seal | None, seal: Seal, rows: Sequence[Any]) -> str:
    """A line of JSON for each. Sorted here: databases sort text by their collation, and are moved to another one."""
    lines = [[before.digest if before else "", seal.number, seal.at, seal.count, seal.made_by]]
    lines += sorted((list(row) for row in rows), key=lambda each: (each[5], each[1], each[2]))
    return hashlib.sha256("\n".join(json.dumps(line) for line in lines).encode()).hexdigest()


def _seal(row: Any) -> Seal | None:
    return None if row is None else Seal(*row)
