"""What comes from outside: stored at once, routed to episodes later, taken by their owners.

Bodies are bytes, so that nothing a sender can write makes a row impossible to store. Rows have no order that
anybody follows: they are taken by `processed_at IS NULL`, in the transaction of what they became.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import bindparam, delete, func, select, update

from remediator.errors import Conflict
from remediator.journal.tables import dead_letter_counts, dead_letters, episodes, fingerprints, inbox, work
from remediator.journal.transaction import ROUTE_LOCK, Tx, filled, plain
from remediator.journal.values import InboxRow, Routed

PREFIX = 4096  # bytes of a dead letter that are kept: enough to see what it was
CAUSE = 64  # characters
PRUNED = 5000  # rows forgotten in one transaction: a sweep must not hold up the intake
UNRANKED = 1  # as P1, until the episode's severity is known: it may be one, and a person's command is no less

_INSERT = inbox.insert()
_UNROUTED = (
    select(inbox.c.id, inbox.c.kind, inbox.c.episode, inbox.c.received_at, inbox.c.body)
    .where(inbox.c.processed_at.is_(None), inbox.c.episode.is_(None))
    .order_by(inbox.c.id)
    .limit(bindparam("most"))
)
_STILL_UNROUTED = select(inbox.c.id).where(
    inbox.c.id.in_(bindparam("ids", expanding=True)), inbox.c.processed_at.is_(None)
)
_PROCESSED = update(inbox).where(inbox.c.id.in_(bindparam("ids", expanding=True))).values(processed_at=bindparam("now"))
_OF_EPISODE = (
    select(inbox.c.id, inbox.c.kind, inbox.c.episode, inbox.c.received_at, inbox.c.body)
    .where(inbox.c.processed_at.is_(None), inbox.c.episode == bindparam("of"))
    .order_by(inbox.c.id)
)
_BY_FINGERPRINT = (
    select(fingerprints.c.fingerprint, fingerprints.c.episode)
    .join(episodes, episodes.c.episode == fingerprints.c.episode)
    .where(fingerprints.c.fingerprint.in_(bindparam("wanted", expanding=True)), episodes.c.closed_at.is_(None))
    .order_by(episodes.c.opened_at.desc(), episodes.c.episode)
)
_BY_KEY = select(episodes.c.key, episodes.c.episode).where(
    episodes.c.key.in_(bindparam("wanted", expanding=True)), episodes.c.closed_at.is_(None)
)
_HOLD_OPEN = (
    select(episodes.c.episode)
    .where(episodes.c.episode.in_(bindparam("wanted", expanding=True)), episodes.c.closed_at.is_(None))
    .order_by(episodes.c.episode)
    .with_for_update()
)
_WORK_THERE = (
    select(work.c.episode)
    .where(work.c.episode.in_(bindparam("wanted", expanding=True)))
    .order_by(work.c.episode)
    .with_for_update()
)
_SOONER = (
    update(work)
    .where(work.c.episode.in_(bindparam("wanted", expanding=True)), work.c.due_at > bindparam("now"))
    .values(due_at=bindparam("now"))
)
_PRUNE = delete(inbox).where(
    inbox.c.id.in_(select(inbox.c.id).where(inbox.c.processed_at < bindparam("before")).limit(PRUNED))
)
_KEPT = select(func.count()).select_from(dead_letters)
_COUNT_UP = (
    update(dead_letter_counts)
    .where(dead_letter_counts.c.cause == bindparam("of"))
    .values(count=dead_letter_counts.c.count + 1, last_at=bindparam("now"))
)
_COUNTS = select(dead_letter_counts.c.cause, dead_letter_counts.c.count.label("count_"))


@dataclass(frozen=True, slots=True)
class Split:
    """A delivery taken apart, before the transaction that routes it. `cause` when that was not possible."""

    row: InboxRow
    routed: tuple[Routed, ...] = ()
    cause: str = ""


def storable(one: Routed) -> Routed:
    """The same with texts that both databases take; a sender chooses its fingerprints."""
    if all(text.isascii() and "\0" not in text for text in (one.key, one.fingerprint, one.label)):
        return one
    return replace(one, key=plain(one.key), fingerprint=plain(one.fingerprint), label=plain(one.label))


def put(tx: Tx, rows: Sequence[tuple[str, str | None, bytes]]) -> None:
    """Insert (kind, episode, body) rows, received now."""
    now = tx.now()
    tx.run(
        _INSERT,
        [{"kind": kind, "episode": episode, "received_at": now, "body": body} for kind, episode, body in rows],
    )


def tell(tx: Tx, episode: str, kind: str, body: bytes) -> None:
    """One fact for an open episode, which becomes due. Raises Conflict when it is closed."""
    if not tx.rows(_HOLD_OPEN, {"wanted": [episode]}):
        raise Conflict(f"episode {episode} is closed, or was never opened")
    put(tx, [(kind, episode, body)])
    _wake(tx, {episode}, tx.now())


def command(tx: Tx, episode: str, label: str, body: bytes) -> None:
    """Open an episode for what a person wants done: no alert's, so it is no part of a storm. It is due now."""
    now = tx.now()
    row = {"episode": episode, "key": f"by-hand:{episode}", "label": label, "firing": False, "opened_at": now}
    tx.run(tx.insert.ignore(episodes), row)
    put(tx, [("command", episode, body)])
    _wake(tx, {episode}, now)


def unrouted(tx: Tx, most: int) -> list[InboxRow]:
    """Deliveries that belong to no episode yet, the oldest first."""
    return [InboxRow(*row) for row in tx.rows(_UNROUTED, {"most": most})]


def untaken(tx: Tx, episode: str) -> list[InboxRow]:
    """What the episode's owner has not taken yet, in the order it came."""
    return [InboxRow(*row) for row in tx.rows(_OF_EPISODE, {"of": episode})]


def bury(tx: Tx, cause: str, body: bytes, quota: int) -> None:
    """Count a body that can never be read, and keep its beginning while there is room."""
    now, cause = tx.now(), plain(cause)[:CAUSE]
    tx.run(tx.insert.ignore(dead_letter_counts), {"cause": cause, "count": 0, "last_at": now})
    tx.run(_COUNT_UP, {"of": cause, "now": now})
    if tx.run(_KEPT).scalar_one() < quota:
        tx.run(dead_letters.insert(), {"cause": cause, "at": now, "size": len(body), "prefix": body[:PREFIX]})


def buried(tx: Tx) -> dict[str, int]:
    """How many dead letters of each cause there ever were."""
    return {row.cause: row.count_ for row in tx.rows(_COUNTS)}


def prune(tx: Tx, keep: float) -> None:
    """Forget bodies that were taken more than `keep` seconds ago; what became of them is in the events."""
    tx.run(_PRUNE, {"before": tx.now() - keep})


def route(tx: Tx, splits: Sequence[Split], quota: int) -> int:
    """Give every alert of these deliveries to its episode; returns how many deliveries were routed here.

    One router at a time: two could each open the other's episodes and wait for one another. An episode that is
    being closed is waited for; what comes after is a new episode.
    """
    tx.lock(ROUTE_LOCK)
    left = {row.id for row in tx.rows(_STILL_UNROUTED, {"ids": filled([split.row.id for split in splits])})}
    mine = [split for split in splits if split.row.id in left]
    if not mine:
        return 0
    now = tx.now()
    for split in mine:
        if split.cause:
            bury(tx, split.cause, split.row.body, quota)
    alerts = [(split.row.received_at, routed) for split in mine for routed in split.routed]
    if alerts:
        homes = _homes(tx, [routed for _, routed in alerts], now)
        rows = _told_once(
            (received_at, homes[routed], routed.body) for received_at, routed in alerts if routed in homes
        )
        if rows:
            tx.run(_INSERT, rows)
            _wake(tx, set(homes.values()), now)
    tx.run(_PROCESSED, {"ids": filled([split.row.id for split in mine]), "now": now})
    return len(mine)


def _told_once(alerts: Iterable[tuple[float, str, bytes]]) -> list[dict[str, object]]:
    """Inbox rows of (received at, episode, body). The very same word twice in a row says nothing new, and in a storm
    each episode would get hundreds.
    """
    rows: list[dict[str, object]] = []
    last: dict[str, bytes] = {}
    for received_at, episode, body in alerts:
        if last.get(episode) != body:
            last[episode] = body
            rows.append({"kind": "alert", "episode": episode, "received_at": received_at, "body": body})
    return rows


def _homes(tx: Tx, wanted: Sequence[Routed], now: float) -> dict[Routed, str]:
    """The open episode of each alert, its row locked; opened where there is none, unless the alert opens nothing."""
    prints = filled([*dict.fromkeys(routed.fingerprint for routed in wanted)])
    keys = [*dict.fromkeys(routed.key for routed in wanted)]
    by_print = {row.fingerprint: row.episode for row in tx.rows(_BY_FINGERPRINT, {"wanted": prints})}
    by_key = {row.key: row.episode for row in tx.rows(_BY_KEY, {"wanted": filled(keys)})}
    found = {*by_print.values(), *by_key.values()}
    still_open = {row.episode for row in tx.rows(_HOLD_OPEN, {"wanted": filled(sorted(found))})} if found else set()
    by_print = {mark: episode for mark, episode in by_print.items() if episode in still_open}
    by_key = {key: episode for key, episode in by_key.items() if episode in still_open}
    missing = {
        routed.key: routed
        for routed in reversed(wanted)
        if routed.opens and routed.fingerprint not in by_print and routed.key not in by_key
    }
    if missing:
        by_key |= _opened(tx, missing.values(), now)
    found_for = {routed: by_print.get(routed.fingerprint) or by_key.get(routed.key) for routed in wanted}
    homes = {routed: home for routed, home in found_for.items() if home is not None}
    new = sorted({(routed.fingerprint, home) for routed, home in homes.items() if routed.fingerprint not in by_print})
    if new:
        tx.run(tx.insert.ignore(fingerprints), [{"fingerprint": mark, "episode": home} for mark, home in new])
    return homes


def _opened(tx: Tx, missing: Iterable[Routed], now: float) -> dict[str, str]:
    """Open an episode for each key. Under the route lock nobody else opens one; the index would refuse a second."""
    rows = {routed.key: (tx.ids(), routed.label) for routed in missing}
    tx.run(
        episodes.insert(),
        [
            {"episode": episode, "key": key, "label": label, "firing": True, "opened_at": now}
            for key, (episode, label) in rows.items()
        ],
    )
    return {key: episode for key, (episode, _) in rows.items()}


def _wake(tx: Tx, wanted: set[str], now: float) -> None:
    """Make the episodes due: in the same transaction, so that no alert waits for a wake-up that was lost."""
    names = sorted(wanted)
    there = {row.episode for row in tx.rows(_WORK_THERE, {"wanted": filled(names)})}
    tx.run(_SOONER, {"wanted": filled(names), "now": now})
    if new := [name for name in names if name not in there]:
        tx.run(tx.insert.ignore(work), [fresh_work(name, now) for name in new])


def fresh_work(episode: str, due_at: float, rank: int = UNRANKED) -> dict[str, object]:
    """A work row that nobody owns."""
    return {
        "episode": episode,
        "due_at": due_at,
        "rank": rank,
        "owner": None,
        "epoch": 0,
        "lease_until": 0.0,
        "claims": 0,
        "nudged": False,
    }
