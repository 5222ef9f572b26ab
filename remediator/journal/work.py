"""Who works on what, and when: claims with leases, and the rules against lost wake-ups.

An episode is due at `due_at`. Whoever claims it owns it until it is released or its lease runs out; a claim
that follows somebody else's lapsed lease is a take-over. Leases are set and compared by the journal's clock only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import bindparam, delete, exists, or_, select, update

from remediator.journal.intake import UNRANKED, fresh_work
from remediator.journal.tables import episodes, inbox, work
from remediator.journal.transaction import Tx, filled
from remediator.journal.values import Claim

LONGEST_WAIT = 3600.0
"""Seconds. Nothing waits longer without a look: a time from a clock that was wrong must not freeze an episode."""
RANKS = {"P0": 0, "P1": 1, "P2": 2, "P3": 3, "P4": 4}

AGEING = 60.0
"""Seconds that one level of severity is worth: who has waited longer by so much goes first, so none starves."""
_DUE = (
    select(work.c.episode, work.c.owner, work.c.epoch, work.c.claims, work.c.proof_at)
    .where(
        work.c.due_at <= bindparam("now"),
        or_(work.c.owner.is_(None), work.c.lease_until <= bindparam("now"), work.c.owner == bindparam("mine")),
    )
    .order_by(work.c.due_at + AGEING * work.c.rank, work.c.episode)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(work)
    .where(work.c.episode.in_(bindparam("wanted", expanding=True)))
    .values(
        owner=bindparam("me"),
        epoch=work.c.epoch + 1,
        claims=work.c.claims + 1,
        lease_until=bindparam("until"),
        nudged=False,
    )
)
_MINE = (
    select(work.c.episode)
    .where(work.c.episode.in_(bindparam("wanted", expanding=True)), work.c.owner == bindparam("me"))
    .order_by(work.c.episode)
    .with_for_update()
)
_RENEW = (
    update(work)
    .where(work.c.episode.in_(bindparam("wanted", expanding=True)), work.c.owner == bindparam("me"))
    .values(lease_until=bindparam("until"))
)
_HELD = select(work.c.owner, work.c.nudged, work.c.claims).where(work.c.episode == bindparam("of")).with_for_update()
_PENDING = select(exists().where(inbox.c.episode == bindparam("of"), inbox.c.processed_at.is_(None)))
_ANSWERED = select(
    exists().where(inbox.c.episode == bindparam("of"), inbox.c.processed_at.is_(None), inbox.c.kind == "click")
)
_RELEASE = (
    update(work)
    .where(work.c.episode == bindparam("of"))
    .values(owner=None, lease_until=0.0, due_at=bindparam("due"), claims=bindparam("counted"))
)
_RELEASE_PROVING = _RELEASE.values(proof_at=bindparam("proof_at"))
_PROGRESS = update(work).where(work.c.episode == bindparam("of")).values(claims=0, due_at=bindparam("due"))
_MOVED = update(work).where(work.c.episode == bindparam("of")).values(claims=0)
_RANK = update(work).where(work.c.episode == bindparam("of")).values(rank=bindparam("to"))
_REMOVE = delete(work).where(work.c.episode == bindparam("of"))
_ORPHANS = select(episodes.c.episode, episodes.c.severity).where(
    episodes.c.closed_at.is_(None), ~exists().where(work.c.episode == episodes.c.episode)
)
_TOO_FAR = (
    select(work.c.episode)
    .where(work.c.due_at > bindparam("latest"))
    .order_by(work.c.episode)
    .with_for_update(skip_locked=True)
)
_ALL = select(work.c.episode).order_by(work.c.episode).with_for_update()
_NUDGE = (
    update(work)
    .where(work.c.episode.in_(bindparam("wanted", expanding=True)))
    .values(due_at=bindparam("now"), nudged=True)
)
_OWNED = select(work.c.episode).where(work.c.owner == bindparam("me")).order_by(work.c.episode).with_for_update()
_FREE = update(work).where(work.c.episode.in_(bindparam("wanted", expanding=True))).values(owner=None, lease_until=0.0)
_FORGET_PROOFS = update(work).values(proof_at=None)
_LAPSE = update(work).where(work.c.owner.is_not(None)).values(lease_until=0.0)


def claim(tx: Tx, owner: str, lease: float, held: Collection[str], most: int) -> list[Claim]:
    """Take what is due, free or lapsed, the most severe first unless another one waits for long; never what this
    process still works on.

    A second try also takes what the first one may have claimed.
    """
    now = tx.now()
    due = tx.rows(_DUE, {"now": now, "most": most, "mine": owner if tx.again else ""})
    rows = [row for row in due if row.episode not in held]
    if not rows:
        return []
    tx.run(_CLAIM, {"wanted": filled([row.episode for row in rows]), "me": owner, "until": now + lease})
    return [
        Claim(row.episode, row.epoch + 1, row.owner not in (None, owner), row.claims + 1, row.proof_at) for row in rows
    ]


def renew(tx: Tx, owner: str, lease: float, held: Sequence[str]) -> None:
    """Extend the leases of these, where they are still ours. Locked in one order, as the router locks them."""
    mine = [row.episode for row in tx.rows(_MINE, {"wanted": filled(sorted(held)), "me": owner})]
    if mine:
        tx.run(_RENEW, {"wanted": filled(mine), "me": owner, "until": tx.now() + lease})


def owner_of(tx: Tx, episode: str) -> tuple[bool, str | None]:
    """(is there a work row, its owner), the row locked until the transaction ends."""
    row = tx.row(_HELD, {"of": episode})
    return (False, None) if row is None else (True, row.owner)


def pending(tx: Tx, episode: str) -> bool:
    """Is there an inbox row that nobody has taken? Only sure after the work row was locked, see `release`."""
    return bool(tx.run(_PENDING, {"of": episode}).scalar())


def answered(tx: Tx, episode: str) -> bool:
    """Has a person said something that nobody has taken? Only sure after the work row was locked, see `release`."""
    return bool(tx.run(_ANSWERED, {"of": episode}).scalar())


def bounded(due_at: float, now: float) -> float:
    """A due time that a wrong clock or a NaN cannot move out of reach."""
    return min(now + LONGEST_WAIT, due_at)  # in this order a NaN gives the limit


def release(
    tx: Tx, owner: str, episode: str, due_at: float, *, failed: bool, proof_at: float | None = None
) -> float | None:
    """Give it up until `due_at`, or until now when something came meanwhile. Returns when it is due.

    A claim that failed stays counted, and waits its time out; one that ended as planned does not. `proof_at` is when a
    round of proof was asked, where this was one.

    None when it was not ours any more. The row is locked first and the inbox read by a later statement: a
    router that was before us has committed by then, one after us waits for the row and makes it due again.
    """
    held = tx.row(_HELD, {"of": episode})
    if held is None or held.owner != owner:
        return None
    now = tx.now()
    # What fails is not due at once for what came meanwhile: it would fail again, as fast as it can be claimed.
    due = now if not failed and (held.nudged or pending(tx, episode)) else bounded(due_at, now)
    values = {"of": episode, "due": due, "counted": held.claims if failed else 0}
    if proof_at is None:
        tx.run(_RELEASE, values)
    else:
        tx.run(_RELEASE_PROVING, values | {"proof_at": proof_at})
    return due


def progress(tx: Tx, episode: str, due_at: float | None) -> float | None:
    """An event was appended: it is not stuck. With `due_at`, due then, or now when the inbox is not empty."""
    if due_at is None:
        tx.run(_MOVED, {"of": episode})
        return None
    now = tx.now()
    due = now if pending(tx, episode) else bounded(due_at, now)
    tx.run(_PROGRESS, {"of": episode, "due": due})
    return due


def rank(tx: Tx, episode: str, severity: str | None) -> None:
    """Order the episode's work by its severity."""
    tx.run(_RANK, {"of": episode, "to": RANKS.get(severity or "", UNRANKED)})


def remove(tx: Tx, episode: str) -> None:
    """Nothing is to be done for it any more."""
    tx.run(_REMOVE, {"of": episode})


def sweep(tx: Tx) -> int:
    """Open episodes without work become due, and so does what waits too long. Returns how many."""
    now = tx.now()
    orphans = tx.rows(_ORPHANS)
    if orphans:
        tx.run(
            tx.insert.ignore(work),
            [fresh_work(row.episode, now, RANKS.get(row.severity or "", UNRANKED)) for row in orphans],
        )
    far = [row.episode for row in tx.rows(_TOO_FAR, {"latest": now + LONGEST_WAIT})]
    if far:
        tx.run(_NUDGE, {"wanted": filled(far), "now": now})
    return len(orphans) + len(far)


def nudge(tx: Tx) -> int:
    """Everything open is due now, also what is being worked on once it is released. Returns how many."""
    names = [row.episode for row in tx.rows(_ALL)]
    if names:
        tx.run(_NUDGE, {"wanted": filled(names), "now": tx.now()})
    return len(names)


def wake(tx: Tx, episode: str) -> None:
    """This one is due now."""
    tx.run(_NUDGE, {"wanted": [episode], "now": tx.now()})


def give_up(tx: Tx, owner: str) -> None:
    """An owner leaves: what it holds is free, and due when it was."""
    names = [row.episode for row in tx.rows(_OWNED, {"me": owner})]
    if names:
        tx.run(_FREE, {"wanted": filled(names)})


def forget_proofs(tx: Tx) -> None:
    """Each hold time begins anew: for how long nobody looked, a clock that stood still with the machine cannot tell."""
    tx.run(_FORGET_PROOFS)


def lapse(tx: Tx) -> None:
    """Whoever owned something is gone (one process only): all leases end, and their owners' work is taken over."""
    tx.run(_LAPSE)
