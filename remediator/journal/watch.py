"""What is latched over all episodes: a storm, and runbooks that may only ask; and who goes first when it is over.

A storm begins when too many episodes fire at once and ends by itself only after it has been calm for a while: a limit
that forgot it at once would start so many in each window. Changes are written under the intents' lock, each with its
event in the journal's own stream, so that no intent is decided beside one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, and_, bindparam, case, exists, func, or_, select, update

from remediator.events import OWN, Event, Kind
from remediator.facts import RECURRENCE_WINDOW
from remediator.journal import lines
from remediator.journal.tables import charges, demotions, episodes, events, pauses, storms, work
from remediator.journal.transaction import INTENT_LOCK, Tx, plain
from remediator.journal.values import Demotion, Promoted, Storm
from remediator.reasons import Reason

CALM = "calm"
"""Who has ended a storm that ended by itself."""
LOOK_BACK = 20
"""Episodes of a runbook that its budget may look at."""
RELEASE_WITHIN = 86400.0
"""Seconds after its end in which a storm or a pause still orders what it held back."""
STUCK = 3
"""Claims without anything new after which an episode is stuck."""
MOVED_WITHIN = 120.0
"""Seconds after the end of a pause of all in which what it held back has been decided again. Who is refused as paused
later than that is under a narrower pause, and not to be waited for."""

firing = and_(episodes.c.closed_at.is_(None), episodes.c.firing, episodes.c.runbook.is_not(None))
"""Open episodes that fire and have a runbook: what a storm is made of."""
_FIRING = select(func.count()).select_from(episodes).where(firing)
_LAST_STORM = (
    select(storms.c.id, storms.c.began_at, storms.c.most, storms.c.calm_since, storms.c.ended_at, storms.c.ended_by)
    .order_by(storms.c.id.desc())
    .limit(1)
)
_LAST_SEQ = select(func.coalesce(func.max(events.c.seq), 0)).where(events.c.episode == OWN)
_ACTIVE_DEMOTIONS = (
    select(demotions.c.id, demotions.c.runbook, demotions.c.at, demotions.c.why)
    .where(demotions.c.ended_at.is_(None))
    .order_by(demotions.c.runbook)
)
_SET_STORM = update(storms).where(storms.c.id == bindparam("of"))
_RESTORE = (
    update(demotions)
    .where(demotions.c.runbook == bindparam("book"), demotions.c.ended_at.is_(None))
    .values(ended_at=bindparam("now"), ended_by=bindparam("who"), reason=bindparam("because"))
)


def note(tx: Tx, id: str, kind: Kind, **data: Any) -> None:
    """Append to the journal's own stream; the caller holds the intents' lock, so that its places follow one another.

    `id` is the writer's: a second try of the same transaction finds its event there.
    """
    if tx.row(select(events.c.id).where(events.c.id == id)) is not None:
        return
    seq = int(tx.run(_LAST_SEQ).scalar_one()) + 1
    tx.run(events.insert(), lines.row_of(Event(id, OWN, seq, kind, tx.now(), data)))


# -- storms -----------------------------------------------------------------------------------------------


def storm(tx: Tx) -> Storm | None:
    """The storm that holds now, None when there is none."""
    return _holding(tx.row(_LAST_STORM))


def _holding(last: Any) -> Storm | None:
    return None if last is None or last.ended_at is not None else Storm(last.id, last.began_at, last.most)


def turn(tx: Tx, id: str, limit: int, calm: float, *, look_only: bool) -> tuple[bool, Storm | None]:
    """Begin, calm or end a storm by the number of episodes that fire now.

    Returns whether anything changes, and the storm that held before.

    look_only  tells whether something would, and takes no lock
    """
    if not look_only:
        tx.lock(INTENT_LOCK)
    now, count, last = tx.now(), int(tx.run(_FIRING).scalar_one()), tx.row(_LAST_STORM)
    high, held = count >= limit, _holding(last)
    if last is None or (last.ended_at is not None and not _overridden(last)):
        if high and not look_only:
            made = tx.run(storms.insert(), {"began_at": now, "most": count})
            number = made.inserted_primary_key[0] if made.inserted_primary_key else 0
            note(tx, id, Kind.STORM_BEGAN, storm=number, open=count)
        return high, held
    change = _change(last, now, count, high, calm)
    if change and not look_only:
        tx.run(_SET_STORM.values(**change), {"of": last.id})
        if change.get("ended_by"):
            note(tx, id, Kind.STORM_ENDED, storm=last.id, most=last.most, by=CALM, reason="")
    return bool(change), held


def _change(last: Any, now: float, count: int, high: bool, calm: float) -> dict[str, Any]:
    """What becomes of the row of a storm that holds, or that a person has ended while it was high."""
    if last.ended_at is not None:
        return {} if high else {"calm_since": now}  # from now on a new one can begin
    if high:
        grown: dict[str, Any] = {"most": count} if count > last.most else {}
        return grown | ({"calm_since": None} if last.calm_since is not None else {})
    if last.calm_since is None:
        return {"calm_since": now}
    return {"ended_at": now, "ended_by": CALM} if now - last.calm_since >= calm else {}


def _overridden(last: Any) -> bool:
    return last.ended_at is not None and last.ended_by != CALM and last.calm_since is None


def end_storm(tx: Tx, id: str, who: str, reason: str) -> bool:
    """A person ends the storm; no other one begins before the number of episodes has been low. False: there is none."""
    tx.lock(INTENT_LOCK)
    last = tx.row(_LAST_STORM)
    if last is None or last.ended_at is not None:
        return tx.again
    said = {"ended_at": tx.now(), "ended_by": plain(who), "reason": plain(reason), "calm_since": None}
    tx.run(_SET_STORM.values(**said), {"of": last.id})
    note(tx, id, Kind.STORM_ENDED, storm=last.id, most=last.most, by=plain(who), reason=plain(reason))
    return True


# -- demotions ----------------------------------------------------------------------------------------------


def demoted(tx: Tx) -> list[Demotion]:
    """Runbooks that may only ask for approval now."""
    return [Demotion(*row) for row in tx.rows(_ACTIVE_DEMOTIONS)]


def demote(tx: Tx, id: str, runbook: str, why: str) -> bool:
    """A runbook may only ask from now on, until a person restores it. False when that is so already."""
    tx.lock(INTENT_LOCK)
    if any(row.runbook == runbook for row in tx.rows(_ACTIVE_DEMOTIONS)):
        return tx.again
    tx.run(demotions.insert(), {"runbook": runbook, "at": tx.now(), "why": why})
    note(tx, id, Kind.DEMOTED, runbook=runbook, why=why)
    return True


def restore(tx: Tx, id: str, runbook: str, who: str, reason: str) -> bool:
    """A person lets a runbook do what its mode says again; its failures up to now count no more. False: not demoted."""
    tx.lock(INTENT_LOCK)
    said = {"book": runbook, "now": tx.now(), "who": plain(who), "because": plain(reason)}
    if tx.run(_RESTORE, said).rowcount == 0:
        return tx.again
    note(tx, id, Kind.RESTORED, runbook=runbook, who=plain(who), reason=plain(reason))
    return True


def promoted(tx: Tx, id: str, said: Promoted) -> None:
    """Note who gives a runbook another mode, and why. It changes nothing here: the mode stands in the configuration."""
    tx.lock(INTENT_LOCK)
    who, reason, despite = plain(said.who), plain(said.reason), plain(said.despite)
    data = {"runbook": said.runbook, "from": said.before, "to": said.to, "who": who, "reason": reason}
    note(tx, id, Kind.PROMOTED, **data, despite=despite)


# -- for the facts --------------------------------------------------------------------------------------------


def _scalar(statement: Select[Any], name: str) -> Any:
    return statement.correlate(None).scalar_subquery().label(name)


_PAUSE_END = func.coalesce(pauses.c.ended_at, pauses.c.ends_at)
_JUDGED = or_(
    charges.c.verdict.is_not(None),
    and_(charges.c.result == "in_doubt", or_(charges.c.settlement.is_(None), charges.c.settlement == "unknown")),
)
STATES: tuple[Any, ...] = (
    _scalar(
        select(demotions.c.why)
        .where(demotions.c.runbook == bindparam("book"), demotions.c.ended_at.is_(None))
        .limit(1),
        "demoted",
    ),
    _scalar(select(func.max(storms.c.ended_at)), "storm_end"),
    _scalar(select(func.max(_PAUSE_END)).where(pauses.c.scope == "all", bindparam("now") >= _PAUSE_END), "pause_end"),
    _scalar(
        select(func.count())
        .select_from(charges)
        .where(
            charges.c.resource == bindparam("resource"),
            charges.c.runbook == bindparam("book"),
            charges.c.verdict == "fixed",
            charges.c.at > bindparam("now") - RECURRENCE_WINDOW,
        ),
        "fixed_lately",
    ),
)
_LATER = charges.alias("later")
_RECENT = (
    select(case((charges.c.verdict == "fixed", True), else_=False).label("fixed"))
    .where(
        charges.c.runbook == bindparam("book"),
        _JUDGED,
        # Of each episode the last: a mild rung that did not help is no failure when the next one did.
        ~exists().where(_LATER.c.episode == charges.c.episode, _LATER.c.at > charges.c.at),
        charges.c.at
        > select(func.coalesce(func.max(demotions.c.ended_at), 0.0))
        .where(demotions.c.runbook == bindparam("book"))
        .scalar_subquery(),
    )
    .order_by(charges.c.at.desc())
    .limit(LOOK_BACK)
)
_SEVERITY = func.coalesce(episodes.c.severity, "P9")
_STUCK = exists().where(work.c.episode == episodes.c.episode, work.c.claims >= STUCK)


def _held(*reasons: Reason) -> Select[Any]:
    """The most severe of those that wait for this; none that fails again and again, as its turn would never end."""
    return (
        select(episodes.c.episode, episodes.c.label)
        .where(firing, episodes.c.refused.in_([reason.value for reason in reasons]), ~_STUCK)
        .order_by(_SEVERITY, episodes.c.opened_at, episodes.c.episode)
        .limit(1)
    )


_HELD = _held(Reason.STORM, Reason.RELEASING)
_HELD_OR_PAUSED = _held(Reason.STORM, Reason.RELEASING, Reason.PAUSED)
_UNPROVEN = (
    select(charges.c.episode)
    .join(episodes, episodes.c.episode == charges.c.episode)
    .where(
        charges.c.episode != bindparam("episode"),
        charges.c.at >= bindparam("since"),
        charges.c.verdict.is_(None),
        or_(charges.c.result.is_(None), charges.c.result != "failed"),
        or_(charges.c.settlement.is_(None), charges.c.settlement != "not_done"),
        episodes.c.closed_at.is_(None),
    )
    .limit(1)
)


def next_held(tx: Tx) -> str | None:
    """The most severe episode that waits for its turn after a storm or a pause, None when none does."""
    row = tx.row(_HELD)
    return None if row is None else str(row.episode)


@dataclass(frozen=True, slots=True)
class States:
    """The part of `Facts` that is latched; the fields are named as there."""

    storm: str | None
    storm_overridden: bool
    releasing: str | None
    demoted: str | None
    recent: tuple[bool, ...]
    fixed_lately: int


def states(tx: Tx, now: float, episode: str, runbook: str, row: Any) -> States:
    """What is latched, as it concerns one episode. `row` has the columns `STATES`."""
    last = tx.row(_LAST_STORM)
    since = max(row.storm_end or 0.0, row.pause_end or 0.0)
    return States(
        storm=_phrase(last) if last is not None and last.ended_at is None else None,
        storm_overridden=last is not None and _overridden(last),
        releasing=_releasing(tx, since > now - MOVED_WITHIN, since, episode) if since > now - RELEASE_WITHIN else None,
        demoted=row.demoted,
        recent=tuple(bool(one.fixed) for one in tx.rows(_RECENT, {"book": runbook})) if runbook else (),
        fixed_lately=row.fixed_lately,
    )


def _phrase(last: Any) -> str:
    began = datetime.fromtimestamp(last.began_at, UTC)
    return f"since {began:%Y-%m-%d %H:%M:%S} UTC, up to {last.most} episodes at once"


def _releasing(tx: Tx, just_over: bool, since: float, episode: str) -> str | None:
    """While anything that was held back waits: one at a time, proved before the next, the most severe first."""
    held = tx.row(_HELD_OR_PAUSED if just_over else _HELD)
    if held is None:
        return None
    unproven = tx.row(_UNPROVEN, {"since": since, "episode": episode})
    if unproven is not None:
        return f"episode {unproven.episode} acts and is not proven yet"
    if held.episode != episode:
        return f"episode {held.episode} ({held.label}) goes first"
    return None
