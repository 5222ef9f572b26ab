"""Clicks of people that were not taken, as events of a stream of their own.

In: who wanted what and why it came to nothing. Out: one event, once, whoever writes it again. It takes no lock:
somebody who clicks without end must not keep an intent waiting. Nothing that decides reads this stream.
"""

from __future__ import annotations

from sqlalchemy import bindparam, func, select

from remediator.errors import Conflict
from remediator.events import CLICKS, Event, Kind
from remediator.journal import lines
from remediator.journal.tables import events
from remediator.journal.transaction import Tx, plain
from remediator.journal.values import NotTaken

LONGEST = 500  # characters of a sentence; LONGEST_NAME of anything else
LONGEST_NAME = 128
TRIES = 20

_LAST_SEQ = select(func.coalesce(func.max(events.c.seq), 0)).where(events.c.episode == CLICKS)
_KNOWN = select(events.c.seq).where(events.c.id == bindparam("of"))
_EPISODE_OF = select(events.c.episode).where(events.c.id == bindparam("of"))
_LATEST = (
    select(events.c.id, events.c.episode, events.c.seq, events.c.kind, events.c.version, events.c.at, events.c.data)
    .where(events.c.episode == CLICKS, events.c.at >= bindparam("since"))
    .order_by(events.c.seq.desc())
    .limit(bindparam("most"))
)


def note(tx: Tx, said: NotTaken) -> None:
    """Append it at the next place. Raises Conflict when another has taken that place: the caller tries again."""
    seq = int(tx.run(_LAST_SEQ).scalar_one()) + 1
    data = {
        "what": said.what,
        "of": plain(said.of)[:LONGEST_NAME],
        "episode": said.episode,
        "who": plain(said.who)[:LONGEST_NAME],
        "code": said.code,
        "sentence": plain(said.sentence)[:LONGEST],
    }
    row = lines.row_of(Event(said.id, CLICKS, seq, Kind.NOT_TAKEN, tx.now(), data))
    if tx.row(tx.insert.ignore(events, returning="seq"), row) is None and tx.row(_KNOWN, {"of": said.id}) is None:
        raise Conflict(f"place {seq} among the clicks was taken meanwhile")


def about(tx: Tx, episode: str, since: float, most: int) -> list[Event]:
    """Of the latest `most` clicks since then (UNIX seconds) those about this episode, in order."""
    found = []
    for row in tx.rows(_LATEST, {"since": since, "most": most}):
        event = lines.read_known(row)
        if event is not None and event.data.get("episode") == episode:
            found.append(event)
    return found[::-1]


def episode_of(tx: Tx, id: str) -> str | None:
    """The episode, or the stream, of an event."""
    row = tx.row(_EPISODE_OF, {"of": id})
    return None if row is None else str(row.episode)
