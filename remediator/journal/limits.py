"""What is judged over all episodes: charges, doubts, holds, pauses, modes; and the intent's transaction.

`facts` reads tables and nothing from memory. Under the lock the reading is exact: only intents, pauses and
changes of mode take it, so nothing that could forbid an effect is written between the reading and the intent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, or_, select, union, update

from remediator.errors import Conflict
from remediator.events import Event, Kind, Unknown
from remediator.facts import Facts
from remediator.journal import lines, watch, work
from remediator.journal.tables import charges, episodes, events, pauses, replicas
from remediator.journal.tables import work as work_table
from remediator.journal.transaction import INTENT_LOCK, Tx, filled, plain
from remediator.journal.values import Decide, Pause, Running
from remediator.reasons import Refusal
from remediator.runbooks import MODES

HOUR, DAY = 3600.0, 86400.0
AHEAD = 5.0
"""Seconds. When the newest event is at most this far ahead of the clock, its time counts as now; further ahead it
is the clock, or the event, that is wrong: `Facts.head_at` tells, and time does not stand still for it."""

_SINCE_HOUR = charges.c.at > bindparam("now") - HOUR
_OF_RESOURCE = charges.c.resource == bindparam("resource")
_OF_RUNBOOK = charges.c.runbook == bindparam("book")


def _charged(*conditions: ColumnElement[bool]) -> Any:
    return func.count().filter(and_(*conditions)) if conditions else func.count()


def _one(statement: Select[Any], name: str) -> Any:
    return statement.correlate(None).scalar_subquery().label(name)


_COUNTS = select(
    _charged(_OF_RESOURCE, _SINCE_HOUR).label("resource_hour"),
    _charged(_OF_RESOURCE).label("resource_day"),
    _charged(_OF_RUNBOOK, _SINCE_HOUR).label("runbook_hour"),
    _charged(_OF_RUNBOOK).label("runbook_day"),
    _charged(_SINCE_HOUR).label("all_hour"),
    _charged().label("all_day"),
    _one(
        select(func.max(charges.c.at)).where(_OF_RESOURCE, charges.c.episode != bindparam("episode")),
        "last_effect_at",
    ),
    _one(select(func.count()).select_from(episodes).where(watch.firing), "open_firing"),
    *watch.STATES,
).where(charges.c.at > bindparam("now") - DAY)
_HEAD = select(func.max(events.c.at))
_ACTED = (
    union(
        select(events.c.episode).where(events.c.kind == "intent", events.c.episode > bindparam("after")),
        select(charges.c.episode).where(charges.c.episode > bindparam("after")),
    )
    .order_by("episode")
    .limit(bindparam("most"))
)
_CHARGES = select(charges).where(charges.c.episode.in_(bindparam("of", expanding=True)))
# The same words as `ledger.Attempt.in_doubt` and `did_not_begin`.
OPEN_END = and_(
    or_(charges.c.result.is_(None), charges.c.result == "in_doubt"),
    or_(charges.c.settlement.is_(None), charges.c.settlement == "unknown"),
)
_BEGAN = and_(
    or_(charges.c.result.is_(None), charges.c.result != "failed"),
    or_(charges.c.settlement.is_(None), charges.c.settlement != "not_done"),
)
# Not proven fixed: being worked on, or in the hands of people, whom nobody must act under.
_UNHELPED = or_(charges.c.verdict.is_(None), charges.c.verdict != "fixed")
_OTHERS = (
    select(charges.c.episode, OPEN_END.label("doubt"), episodes.c.closed_at.is_(None).label("open"), charges.c.verdict)
    .outerjoin(episodes, episodes.c.episode == charges.c.episode)
    .where(_OF_RESOURCE, charges.c.episode != bindparam("episode"), _UNHELPED, _BEGAN)
    .where(or_(OPEN_END, episodes.c.closed_at.is_(None)))
    .order_by(charges.c.at)
)
_ACTIVE = (
    select(pauses.c.id, pauses.c.scope, pauses.c.who, pauses.c.reason, pauses.c.since, pauses.c.ends_at)
    .where(pauses.c.ended_at.is_(None), or_(pauses.c.ends_at.is_(None), pauses.c.ends_at > bindparam("now")))
    .order_by(pauses.c.id)
)
_MODES = select(replicas.c.mode).where(replicas.c.seen_at > bindparam("since")).distinct()
_BY_TOKEN = select(pauses.c.id).where(pauses.c.token == bindparam("of"))
_RESUME = (
    update(pauses)
    .where(pauses.c.id == bindparam("of"), pauses.c.ended_at.is_(None))
    .values(ended_at=bindparam("now"), ended_by=bindparam("by"))
)
_RUNNING = (
    select(charges.c.attempt, charges.c.episode, charges.c.runbook, charges.c.resource, charges.c.at)
    .where(charges.c.result.is_(None), charges.c.settlement.is_(None), charges.c.verdict.is_(None))
    .order_by(charges.c.at)
)
_OPEN_ENDS = (
    select(func.count())
    .select_from(charges.outerjoin(work_table, work_table.c.episode == charges.c.episode))
    .where(
        charges.c.verdict.is_(None),
        OPEN_END,
        or_(
            charges.c.result.is_not(None),
            charges.c.settlement.is_not(None),
            work_table.c.owner.is_(None),
            work_table.c.lease_until <= bindparam("now"),
        ),
    )
)
JOURNAL = "journal"
"""Who pauses when acknowledged events are missing."""
_SEEN = update(replicas).where(replicas.c.owner == bindparam("me")).values(seen_at=bindparam("now"))
_FORGOTTEN = replicas.delete().where(replicas.c.seen_at < bindparam("before"))
_GONE = replicas.delete().where(replicas.c.owner == bindparam("me"))


@dataclass(frozen=True, slots=True)
class Asked:
    """For whom facts are read.

    resource    None before it is known; its counts are 0 then
    mode        this replica's own, whatever the table says
    service     the alert's target service, which a pause may name; "" when it names none
    live        seconds after which a silent replica does not count any more
    hold_left   seconds of this process's own hold-off that are left, by its boot time
    stopped     why this process may start nothing, as a phrase; "" when it may
    """

    episode: str
    runbook: str
    resource: str | None
    mode: str
    live: float
    hold_left: float = 0.0
    hold_why: str = ""
    stopped: str = ""
    service: str = ""


def facts(tx: Tx, asked: Asked) -> Facts:
    """Read everything that others did and that may forbid an effect."""
    clock, head = tx.now(), tx.run(_HEAD).scalar() or 0.0
    now = max(clock, head) if head - clock <= AHEAD else clock
    values = {"now": now, "resource": asked.resource or "", "book": asked.runbook, "episode": asked.episode}
    counts = tx.rows(_COUNTS, values)[0]
    held = [pause for pause in paused(tx, now) if _holds(pause.scope, asked)]
    others = tx.rows(_OTHERS, {"resource": asked.resource or "", "episode": asked.episode})
    states = watch.states(tx, now, asked.episode, asked.runbook, counts)
    return Facts(
        now=now,
        paused=(
            *((asked.stopped,) if asked.stopped else ()),
            *(_phrase(pause) for pause in held),
        ),
        strictest_mode=strictest(tx, asked, now),
        last_effect_at=counts.last_effect_at,
        resource_hour=counts.resource_hour,
        resource_day=counts.resource_day,
        runbook_hour=counts.runbook_hour,
        runbook_day=counts.runbook_day,
        all_hour=counts.all_hour,
        all_day=counts.all_day,
        doubts=tuple(dict.fromkeys(row.episode for row in others if row.doubt)),
        holds=tuple(dict.fromkeys(row.episode for row in others if row.open)),
        unproven=tuple(dict.fromkeys(row.episode for row in others if row.open and row.verdict is None)),
        open_firing=counts.open_firing,
        hold_off_until=now + asked.hold_left if asked.hold_left > 0 else None,
        hold_off_why=asked.hold_why,
        head_at=head,
        storm=states.storm,
        storm_overridden=states.storm_overridden,
        releasing=states.releasing,
        demoted=states.demoted,
        recent=states.recent,
        fixed_lately=states.fixed_lately,
        regressed=asked.stopped or next((pause.reason for pause in held if pause.who == JOURNAL), ""),
    )


def strictest(tx: Tx, asked: Asked, now: float) -> str:
    """The strictest mode among the replicas seen lately and our own."""
    modes = {asked.mode, *(row.mode for row in tx.rows(_MODES, {"since": now - asked.live}))}
    return next((mode for mode in MODES if mode in modes), MODES[0])


def _holds(scope: str, asked: Asked) -> bool:
    return scope in ("all", f"runbook:{asked.runbook}", f"resource:{asked.resource}") or (
        asked.service != "" and scope == f"service:{asked.service}"
    )


def _phrase(pause: Pause) -> str:
    until = f", until {datetime.fromtimestamp(pause.until, UTC):%Y-%m-%d %H:%M:%S} UTC" if pause.until else ""
    return f"{pause.scope} by {pause.who}: {pause.reason}{until}"


def intend(tx: Tx, owner: str, intent: Event, asked: Asked, decide: Decide) -> Refusal | None:
    """The intent's transaction. A refusal means that nothing was written and the caller rolls back.

    On a second try the lock has waited for the first one's end, whichever it was. Raises Conflict when another owns
    the episode, or a person's word waits for it: nothing is begun after a no, as long as it was acknowledged before.
    """
    tx.lock(INTENT_LOCK)
    if tx.again and not _absent(tx, intent):
        return None
    found = facts(tx, asked)
    lines.owned(tx, owner, intent.episode)
    if work.answered(tx, intent.episode):
        raise Conflict(f"episode {intent.episode}: a person said something that is to be read first")
    refusal = decide(found)
    if refusal is not None:
        return refusal
    if not lines.insert(tx, (intent,)):
        return None
    lines.waits(tx, intent)
    tx.run(
        charges.insert(),
        {
            "attempt": intent.data["attempt"],
            "episode": intent.episode,
            "resource": asked.resource,
            "runbook": asked.runbook,
            "at": found.now,
        },
    )
    work.progress(tx, intent.episode, found.now)
    return None


def _absent(tx: Tx, intent: Event) -> bool:
    """Did the first try write nothing? Raises Conflict when the place is somebody else's."""
    row = tx.row(select(events.c.id).where(events.c.episode == intent.episode, events.c.seq == intent.seq))
    if row is not None and row.id != intent.id:
        raise Conflict(f"episode {intent.episode}: event {intent.seq} is somebody else's")
    return row is None


def paused(tx: Tx, now: float) -> list[Pause]:
    """Pauses that hold at this time."""
    return [Pause(*row) for row in tx.rows(_ACTIVE, {"now": now})]


def pause(tx: Tx, token: str, scope: str, who: str, reason: str, until: float | None, *, once: bool = False) -> int:
    """Write a pause; returns its number. `token` is the writer's: a second try finds the first one's row.

    once  the one of this scope by the same that holds already is returned instead; the lock makes it the only one
    """
    tx.lock(INTENT_LOCK)
    said = {"scope": plain(scope), "who": plain(who), "reason": plain(reason)}
    if once:
        for known in paused(tx, tx.now()):
            if (known.scope, known.who) == (said["scope"], said["who"]):
                return known.id
    tx.run(tx.insert.ignore(pauses), {"token": token, **said, "since": tx.now(), "ends_at": until})
    number = int(tx.run(_BY_TOKEN, {"of": token}).scalar_one())
    watch.note(tx, token, Kind.PAUSED, pause=number, until=until, **said)
    return number


def resume(tx: Tx, token: str, number: int, who: str) -> bool:
    """End a pause. False when there is none of that number that holds. `token` is the writer's, as in `pause`."""
    tx.lock(INTENT_LOCK)
    ended = tx.run(_RESUME, {"of": number, "by": plain(who), "now": tx.now()}).rowcount == 1
    if ended:
        watch.note(tx, token, Kind.RESUMED, pause=number, who=plain(who))
    return ended or tx.again


def running(tx: Tx) -> list[Running]:
    """Attempts without an outcome."""
    return [Running(*row) for row in tx.rows(_RUNNING)]


def open_ends(tx: Tx) -> int:
    """How many attempts nobody knows the end of. One without an outcome whose owner lives is only running."""
    return int(tx.run(_OPEN_ENDS, {"now": tx.now()}).scalar_one())


def enlist(tx: Tx, owner: str, mode: str, config_digest: str) -> None:
    """Say under which mode and configuration this replica lives; under the lock, as it may forbid effects."""
    tx.lock(INTENT_LOCK)
    values = {"owner": owner, "mode": mode, "config_digest": config_digest, "seen_at": tx.now()}
    tx.run(tx.insert.replace(replicas, "mode", "config_digest", "seen_at"), values)


def seen(tx: Tx, owner: str) -> bool:
    """This replica lives. False when its row is gone (forgotten after a day): it must enlist again."""
    return tx.run(_SEEN, {"me": owner, "now": tx.now()}).rowcount == 1


def forget(tx: Tx) -> None:
    """Replicas that have not been seen for a day."""
    tx.run(_FORGOTTEN, {"before": tx.now() - DAY})


def leave(tx: Tx, owner: str) -> None:
    """This replica has ended cleanly: its mode binds nobody any more."""
    tx.run(_GONE, {"me": owner})


def acted(tx: Tx, after: str, most: int) -> list[str]:
    """Episodes that have intended something, or are charged for it, in the order of their ids."""
    return [row.episode for row in tx.rows(_ACTED, {"after": after, "most": most})]


def verify(tx: Tx, acted: Sequence[str]) -> list[str]:
    """Recompute the charges of these episodes from their events and say each difference, one a line."""
    wanted: dict[str, dict[str, Any]] = {}
    problems, known = [], []
    for episode in acted:
        try:
            events = lines.left_of_episode(tx, episode)
        except Unknown as error:
            problems.append(f"episode {episode}: not compared, a newer version wrote to it: {error}")
            continue
        known.append(episode)
        for event in events:
            _recompute(wanted, event)
    for row in tx.rows(_CHARGES, {"of": filled(known)}) if known else ():
        expected = wanted.pop(row.attempt, None)
        if expected is None:
            problems.append(f"attempt {row.attempt}: charged without an intent")
            continue
        earliest = expected.pop("at")
        if not earliest - AHEAD <= row.at <= earliest + HOUR:
            problems.append(f"attempt {row.attempt}: charged at {row.at:.3f}, intended at {earliest:.3f}")
        problems += [
            f"attempt {row.attempt}: {name} is {getattr(row, name)!r}, its events say {value!r}"
            for name, value in expected.items()
            if getattr(row, name) != value
        ]
    return problems + [f"attempt {attempt}: intended and never charged" for attempt in wanted]


def _recompute(wanted: dict[str, dict[str, Any]], event: Event) -> None:
    data = event.data
    if event.kind == "intent":
        state = {"result": None, "settlement": None, "verdict": None}
        wanted[data["attempt"]] = {"episode": event.episode, "resource": data["resource"], "at": event.at, **state}
        return
    name = {"outcome": "result", "settled": "settlement", "verdict": "verdict"}.get(event.kind)
    if name is not None and data["attempt"] in wanted:
        wanted[data["attempt"]][name] = str(data[name])
