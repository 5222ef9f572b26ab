"""Events: appended once, by the owner, at the next place of an episode; outcomes by whoever made the attempt.

Every event has an id from its writer. An insert that finds its place taken looks whose id is there: its own
means that an earlier COMMIT did happen, another's is a Conflict. Nothing is decided by a read alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from sqlalchemy import bindparam, func, select, update

from remediator.errors import Conflict
from remediator.events import CLICKS, OWN, Event, Kind, Torn, Unknown, Unreadable, read
from remediator.journal import work
from remediator.journal.tables import charges, episodes, events, fingerprints, inbox
from remediator.journal.transaction import Tx, filled, plain
from remediator.journal.values import EpisodeIndex

LATE = 10.0  # seconds; an event is written at most this long after its time: lock waits and tries included

_ANY = select(events.c.id, events.c.episode, events.c.seq, events.c.kind, events.c.version, events.c.at, events.c.data)
_NEWEST = _ANY.order_by(events.c.at.desc(), events.c.episode.desc(), events.c.seq.desc()).limit(bindparam("most"))
_SINCE = (
    _ANY.where(events.c.at > bindparam("since"))
    .order_by(events.c.at, events.c.episode, events.c.seq)
    .limit(bindparam("most"))
)
_OF_EPISODE = _ANY.where(events.c.episode == bindparam("of")).order_by(events.c.seq)
_OF_EPISODES = _ANY.where(events.c.episode.in_(bindparam("of", expanding=True))).order_by(
    events.c.episode, events.c.seq
)
_IDS = select(events.c.seq, events.c.id).where(
    events.c.episode == bindparam("of"), events.c.seq.between(bindparam("first"), bindparam("last"))
)
_ENDS = frozenset({Kind.OUTCOME, Kind.SETTLED, Kind.PROVING, Kind.VERDICT})
"""Events of an attempt, which its intent comes before."""
_CHARGED_OF = select(charges.c.attempt).where(charges.c.episode == bindparam("of"))
_KNOWN = select(episodes.c.episode).where(episodes.c.episode == bindparam("of"), episodes.c.severity.is_not(None))
"""An episode that has been opened: its first events bring its severity."""
_GAPS = (
    select(events.c.episode, func.count().label("count"), func.max(events.c.seq).label("last"))
    .group_by(events.c.episode)
    .having(func.count() < func.max(events.c.seq))
    .order_by(events.c.episode)
)
_LAST_SEQ = select(func.coalesce(func.max(events.c.seq), 0)).where(events.c.episode == bindparam("of"))
_OUTCOME = select(events.c.seq).where(events.c.attempt == bindparam("of"), events.c.kind == Kind.OUTCOME.value)
_TAKE = (
    update(inbox)
    .where(inbox.c.id.in_(bindparam("ids", expanding=True)), inbox.c.processed_at.is_(None))
    .values(processed_at=bindparam("now"))
)
_CLOSE = (
    update(episodes)
    .where(episodes.c.episode == bindparam("of"), episodes.c.closed_at.is_(None))
    .values(closed_at=bindparam("now"), firing=False)
)
_INDEX = (
    update(episodes)
    .where(episodes.c.episode == bindparam("of"))
    .values(runbook=bindparam("book"), severity=bindparam("grade"), firing=bindparam("fires"))
)
_REFUSED = update(episodes).where(episodes.c.episode == bindparam("of")).values(refused=bindparam("why"))
_WAITS = frozenset(
    {Kind.REFUSED, Kind.WOULD_ACT, Kind.NEEDS_APPROVAL, Kind.ALLOWED, Kind.INTENT, Kind.HANDED_OVER, Kind.CLOSED}
)
"""After these an episode waits for another reason than before, or for none. One of two approvals changes nothing."""
_CHARGED = {
    kind: (name, update(charges).where(charges.c.attempt == bindparam("of")).values({name: bindparam("to")}))
    for kind, name in ((Kind.OUTCOME, "result"), (Kind.SETTLED, "settlement"), (Kind.VERDICT, "verdict"))
}


@dataclass(frozen=True, slots=True)
class Append:
    """What one `Journal.append` does, all of it or nothing."""

    events: tuple[Event, ...]
    due_at: float | None = None
    takes: tuple[int, ...] = ()
    close: bool = False
    index: EpisodeIndex | None = None

    @property
    def episode(self) -> str:
        return self.events[0].episode


def of_episode(tx: Tx, episode: str) -> list[Event]:
    """All events of an episode in order. Raises events.Unreadable: see `_whole`."""
    return _whole(tx.rows(_OF_EPISODE, {"of": episode}))


def of_episodes(tx: Tx, wanted: Sequence[str]) -> dict[str, list[Event] | None]:
    """All events of some episodes, each in order; None for one that cannot be read whole."""
    found: dict[str, list[Event] | None] = {}
    rows = tx.rows(_OF_EPISODES, {"of": filled(wanted)}) if wanted else ()
    for episode, theirs in groupby(rows, lambda row: str(row.episode)):
        try:
            found[episode] = _whole(theirs)
        except Unreadable:
            found[episode] = None
    return found


def _whole(rows: Iterable[Any]) -> list[Event]:
    """Rows of one episode as its events. Raises Unknown: a newer program has written one; Torn: one is missing.

    A backup that was put in the journal's place, a standby that was behind, or a hand in it leave an episode that an
    owner goes on with: also one whose first event is the outcome of what is gone.
    """
    found = [read(*row) for row in rows]
    begun: set[str] = set()
    for place, event in enumerate(found, 1):
        if event.episode in (OWN, CLICKS):
            break  # nothing is decided on it as a whole
        if event.seq != place:
            raise Torn(f"episode {event.episode}: seq {place} is missing")
        if place == 1 and event.kind is not Kind.OPENED:
            raise Torn(f"episode {event.episode}: it begins with {event.kind}")
        if event.kind is Kind.INTENT:
            begun.add(event.data["attempt"])
        elif event.kind in _ENDS and event.data["attempt"] not in begun:
            raise Torn(f"episode {event.episode}: seq {place} is of an attempt whose intent is missing")
    return found


def loaded(tx: Tx, episode: str) -> list[Event]:
    """`of_episode` for who goes on with it. Raises Torn also where others know of more than it tells.

    Charges and index are read first: beside a writer they are never ahead of the events that are read after them.
    """
    charged = {row.attempt for row in tx.rows(_CHARGED_OF, {"of": episode})}
    known = tx.row(_KNOWN, {"of": episode})
    found = of_episode(tx, episode)
    if missing := charged - {event.data["attempt"] for event in found if event.kind is Kind.INTENT}:
        raise Torn(f"episode {episode}: the intent of attempt {min(missing)} is missing")
    if not found and known is not None:
        raise Torn(f"episode {episode}: it was opened, and has no event")
    return found


def left_of_episode(tx: Tx, episode: str) -> list[Event]:
    """The events of an episode that are there. Raises events.Unknown for what a newer program has written."""
    return [read(*row) for row in tx.rows(_OF_EPISODE, {"of": episode})]


def gaps(tx: Tx) -> list[str]:
    """Episodes that are not whole, one a line."""
    return [
        f"episode {row.episode}: {row.last - row.count} events before seq {row.last} are missing"
        for row in tx.rows(_GAPS)
    ]


def read_known(row: Any) -> Event | None:
    """A row as an event; None for what a newer program has written."""
    with contextlib.suppress(Unknown):
        return read(*row)
    return None


def tail(tx: Tx, after: str | None, most: int) -> tuple[list[Event], str]:
    """Events of all episodes by time, those of newer programs left out, and the cursor to go on from."""
    since = _position(after)
    if since is None:
        rows, split = tx.rows(_NEWEST, {"most": most})[::-1], False
    else:
        more = tx.rows(_SINCE, {"since": since, "most": most + 1})
        rows, split = more[:most], len(more) > most and more[most].at == more[most - 1].at
    found = []
    for row in rows:
        with contextlib.suppress(Unknown):
            found.append(read(*row))
    settled = tx.now() - LATE
    past = [row.at for row in rows if row.at <= settled]
    if split:
        past = [at for at in past if at < rows[-1].at]  # the page ends among events of one time: they come again
    if len(rows) == most and not past and since is not None:
        past = [rows[-1].at]  # a full page of fresh events: go on, or the page would come again for ever
    return found, repr(max([since or 0.0, *past]))


def _position(after: str | None) -> float | None:
    try:
        return float(after) if after else None
    except ValueError:
        return None


def append(tx: Tx, owner: str, what: Append) -> float | None:
    """Append as the owner; returns the time at which the episode is due now, None when that was not changed.

    The order of locks is the router's: the episode's row, then its work. Raises Conflict when a place is taken,
    when another owner holds the episode, when it is closed, or when it is to be closed with alerts waiting.
    """
    of = what.episode
    if what.index is not None:
        reindex(tx, of, what.index)
    closed = tx.run(_CLOSE, {"of": of, "now": tx.now()}).rowcount if what.close else 0
    if not insert(tx, what.events):
        return None  # an earlier COMMIT of these very rows did happen, and all that belongs to them with it
    owned(tx, owner, of)
    for event in what.events:
        charge_state(tx, event)
        waits(tx, event)
    take(tx, what.takes)
    if what.index is not None:
        work.rank(tx, of, what.index.severity)
    if what.events and all(event.kind is Kind.CLAIMED for event in what.events):
        return None  # that somebody took it over is no progress: whatever kills each owner must be told at last
    if not what.close:
        return work.progress(tx, of, what.due_at)
    if work.pending(tx, of):
        raise Conflict(f"episode {of} cannot close: something came for it meanwhile")
    if not closed:
        raise Conflict(f"episode {of} is closed already")
    work.remove(tx, of)
    return None


def take(tx: Tx, rows: Sequence[int]) -> None:
    """Mark inbox rows taken."""
    if rows:
        tx.run(_TAKE, {"ids": filled(rows), "now": tx.now()})


def owned(tx: Tx, owner: str, episode: str) -> None:
    """Lock the episode's work. Raises Conflict when it is closed, or another owner's."""
    there, holder = work.owner_of(tx, episode)
    if not there:
        raise Conflict(f"episode {episode} is closed, or was never opened")
    if holder not in (None, owner):
        raise Conflict(f"episode {episode} was taken over by {holder}")


def insert(tx: Tx, new: Sequence[Event]) -> bool:
    """Insert the events. False when exactly these are there already; raises Conflict when others are.

    ON CONFLICT DO NOTHING waits for a transaction in flight that has the same key, so the answer is final.
    """
    statement = tx.insert.ignore(events, returning="seq")
    fresh = [event for event in new if tx.row(statement, row_of(event)) is not None]
    if len(fresh) == len(new):
        return True
    place = {"of": new[0].episode, "first": new[0].seq, "last": new[-1].seq}
    there = {row.seq: row.id for row in tx.rows(_IDS, place)}
    if not fresh and all(there.get(event.seq) == event.id for event in new):
        return False
    raise Conflict(f"episode {new[0].episode}: events {new[0].seq} to {new[-1].seq} are somebody else's")


def outcome(tx: Tx, event: Event) -> Event:
    """Append an outcome at the next free place, unless the attempt has one. Returns it with its place.

    Not bound to an owner: the one who made the attempt knows how it ended, also after a take-over. Raises
    Conflict when the place was taken meanwhile; the caller tries again.
    """
    attempt = {"of": event.data["attempt"]}
    last = tx.run(_LAST_SEQ, {"of": event.episode}).scalar_one()
    placed = replace(event, seq=last + 1)
    if tx.row(tx.insert.ignore(events, returning="seq"), row_of(placed)) is not None:
        charge_state(tx, placed)
        there, _ = work.owner_of(tx, event.episode)
        if there:
            work.progress(tx, event.episode, tx.now())
        return placed
    found = tx.row(_OUTCOME, attempt)
    if found is not None:
        return replace(event, seq=found.seq)
    raise Conflict(f"episode {event.episode}: place {placed.seq} was taken meanwhile")


def charge_state(tx: Tx, event: Event) -> None:
    """Keep the attempt's charge as its events say: what other episodes are judged by."""
    if event.kind in _CHARGED:
        name, statement = _CHARGED[event.kind]
        tx.run(statement, {"of": event.data["attempt"], "to": str(event.data[name])})


def waits(tx: Tx, event: Event) -> None:
    """Keep why the episode waits where others see it without folding."""
    if event.kind in _WAITS:
        asks = event.kind is Kind.NEEDS_APPROVAL
        why = {Kind.REFUSED: "reason", Kind.ALLOWED: "waits"}.get(event.kind, "")
        tx.run(_REFUSED, {"of": event.episode, "why": "needs_approval" if asks else event.data.get(why)})


def reindex(tx: Tx, episode: str, index: EpisodeIndex) -> None:
    """Write what is found of an episode without folding it."""
    values = {"of": episode, "book": index.runbook, "grade": index.severity, "fires": index.firing}
    tx.run(_INDEX, values)
    if index.fingerprints:
        marks: Iterable[str] = sorted({plain(mark) for mark in index.fingerprints})
        tx.run(tx.insert.ignore(fingerprints), [{"fingerprint": mark, "episode": episode} for mark in marks])


def row_of(event: Event) -> dict[str, Any]:
    """An event as a row."""
    return {
        "episode": event.episode,
        "seq": event.seq,
        "id": event.id,
        "kind": event.kind.value,
        "version": event.version,
        "at": event.at,
        "attempt": event.data.get("attempt"),
        "data": event.dumps(),
    }
