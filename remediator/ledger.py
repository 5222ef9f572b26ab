"""The present state of one episode: a pure fold of its events. No I/O, no clock.

    ledger = fold(events)

Whatever the planner needs to know about the past is here; what other episodes did to the same resource is in
`journal.Facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from remediator.actions.base import Result, Settlement
from remediator.alerts import Alert
from remediator.events import Event, Kind, Verdict
from remediator.world import Health


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of one action, as far as the journal knows it.

    probe        what the direct probe found before acting: tells worse from not fixed
    outcome      None: no answer yet, or the process died before it could write one
    settlement   what the target, or a person, said later about a doubt
    settled_at   when that was, UNIX seconds
    good_since   UNIX seconds since when every round of the proof was good, None while it is not
    gaps         how often that began anew because nobody had looked for too long
    """

    id: str
    rung: str
    action: str
    resource: str
    params: Mapping[str, Any]
    items: tuple[Mapping[str, Any], ...]
    summary: str
    at: float
    start_by: float
    deadline: float
    probe: Health = Health.UNKNOWN
    outcome: Result | None = None
    outcome_at: float = 0.0
    detail: str = ""
    settlement: Settlement | None = None
    settled_at: float = 0.0
    good_since: float | None = None
    gaps: int = 0
    proving: bool = False
    verdict: Verdict | None = None
    verdict_at: float = 0.0

    @property
    def in_doubt(self) -> bool:
        """Begun or maybe begun, end unknown, and nobody has settled it."""
        return self.outcome in (None, Result.IN_DOUBT) and self.settlement in (None, Settlement.UNKNOWN)

    @property
    def took_effect(self) -> bool:
        return self.outcome is Result.DONE or self.settlement is Settlement.DONE

    @property
    def did_not_begin(self) -> bool:
        """What took effect by anybody's word has begun, whatever a late outcome says."""
        return not self.took_effect and (self.outcome is Result.FAILED or self.settlement is Settlement.NOT_DONE)

    @property
    def effect_at(self) -> float:
        """When the effect was over at the latest: what a proof must be newer than, and has its time from."""
        settled_at = self.settled_at if self.settlement is Settlement.DONE else 0.0
        return max(self.outcome_at or self.at + self.deadline, settled_at)


@dataclass(frozen=True, slots=True)
class Approval:
    """What a person was asked: this rung's next try, on exactly what the digest stands for, until `good_until`.

    id       of the event that asked
    persons  how many different people must say yes
    used     the attempt that consumed it; None while it has not been used
    target_asked  the target itself wants a person's yes, not the runbook or the mode alone
    """

    id: str
    rung: str
    attempt: int
    digest: str
    good_until: float
    persons: int
    asked_at: float
    action: str
    resource: str
    summary: str
    items: tuple[Mapping[str, Any], ...] = ()
    target_asked: bool = False
    approved_by: tuple[str, ...] = ()
    declined_by: str | None = None
    reason: str = ""
    used: str | None = None

    @property
    def open(self) -> bool:
        """Still to be answered, as far as the journal knows; it may be over by time."""
        return self.used is None and self.declined_by is None and not self.given

    @property
    def given(self) -> bool:
        return len(self.approved_by) >= self.persons


@dataclass(frozen=True, slots=True)
class Command:
    """What a person wants done, instead of an alert: who has confirmed what, by the digest of what was shown.

    break_glass  past the guardrails that protect from the automation, see `guardrails.GLASS`
    """

    action: str
    digest: str
    who: str
    reason: str
    break_glass: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """One episode.

    `would_act_digest` is of what the latest would-be action was about, "" in a journal that does not tell it;
    `refused_at` is when the present reason was first given, `first_seen` when the first delivery was stored,
    `taken_over_at` when the present owner took it from another: it waits a doubt's whole duration from then.
    `heard` has the fingerprint of every alert that it stands for: a pair of servers or an instance label gives several,
    and `alert` is the latest of them, with the oldest beginning of those that fire together.
    """

    episode: str
    seq: int
    alert: Alert
    first_seen: float
    last_delivery: str
    heard: frozenset[str] = frozenset()
    target: Mapping[str, str] = field(default_factory=dict)
    runbook: str | None = None
    digest: str | None = None
    command: Command | None = None
    refused: str | None = None
    refused_rung: str | None = None
    refused_at: float = 0.0
    earliest: float | None = None
    diagnosed: Mapping[str, float] = field(default_factory=dict)
    would_act: frozenset[str] = frozenset()
    would_act_digest: str = ""
    approvals: tuple[Approval, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    handed_over: str | None = None
    handed_over_at: float = 0.0
    hand_over: Mapping[str, Any] = field(default_factory=dict)
    closed: str | None = None
    epoch: int = 0
    taken_over_at: float = 0.0
    last_at: float = 0.0

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def approval(self) -> Approval | None:
        """The latest question to people; only this one can be answered and used."""
        return self.approvals[-1] if self.approvals else None

    @property
    def settled(self) -> bool:
        """May this episode close? Nothing is begun that is not settled, proved or handed over."""
        last = self.last
        return last is None or last.did_not_begin or last.verdict is not None

    def tries(self, rung: str) -> int:
        return sum(attempt.rung == rung for attempt in self.attempts)


def fold(events: Iterable[Event], onto: Ledger | None = None) -> Ledger:
    """Events of one episode, in order, to its state; `onto` is that of the events before them.

    Raises ValueError when the first of all is not `opened`.
    """
    ledger = onto
    for event in events:
        if ledger is None:
            if event.kind is not Kind.OPENED:
                raise ValueError(f"episode {event.episode} begins with {event.kind}, not with opened")
            ledger = _open(event)
            continue
        apply = _APPLY.get(event.kind)
        if apply is None:
            raise ValueError(f"episode {event.episode} seq {event.seq}: {event.kind} belongs to no episode")
        ledger = replace(apply(ledger, event), seq=event.seq, last_at=event.at)
    if ledger is None:
        raise ValueError("an episode without events")
    return ledger


def _open(event: Event) -> Ledger:
    data = event.data
    alert = Alert.from_json(data["alert"])
    return Ledger(
        episode=event.episode,
        seq=event.seq,
        alert=alert,
        first_seen=data.get("received_at", event.at),
        last_delivery=alert.status,
        heard=frozenset({alert.fingerprint}),
        target=data.get("target", {}),
        runbook=data.get("runbook"),
        digest=data.get("digest"),
        command=Command(**data["command"]) if "command" in data else None,
        last_at=event.at,
    )


def _observed(ledger: Ledger, event: Event) -> Ledger:
    alert = Alert.from_json(event.data["alert"])
    heard = ledger.heard | {alert.fingerprint}
    if alert.status != "firing":
        return replace(ledger, last_delivery=alert.status, heard=heard)
    if ledger.last_delivery == "firing":
        alert = replace(alert, starts_at=min(alert.starts_at, ledger.alert.starts_at))
    return replace(ledger, last_delivery=alert.status, heard=heard, alert=alert)


def _claimed(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, epoch=event.data["epoch"], taken_over_at=event.at)


def _matched(ledger: Ledger, event: Event) -> Ledger:
    data = event.data
    return replace(ledger, runbook=data["runbook"], digest=data["digest"], target=data["target"], refused=None)


def _refused(ledger: Ledger, event: Event) -> Ledger:
    data = event.data
    return replace(
        ledger,
        refused=data["reason"],
        refused_rung=data.get("rung"),
        refused_at=event.at,
        earliest=data.get("earliest"),
    )


def _diagnosed(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, diagnosed={**ledger.diagnosed, event.data["rung"]: event.at})


def _would_act(ledger: Ledger, event: Event) -> Ledger:
    data = event.data
    rungs = ledger.would_act | {data["rung"]}
    return replace(ledger, would_act=rungs, would_act_digest=data.get("digest", ""), refused=None)


def _needs_approval(ledger: Ledger, event: Event) -> Ledger:
    data = event.data
    approval = Approval(
        id=event.id,
        rung=data["rung"],
        attempt=data.get("try", 1),
        digest=data.get("digest", ""),
        good_until=data.get("good_until", 0.0),
        persons=data.get("persons", 1),
        asked_at=event.at,
        action=data["action"],
        resource=data["resource"],
        summary=data["summary"],
        items=tuple(data.get("items", ())),
        target_asked=data.get("target_asked", False),
    )
    return replace(ledger, approvals=(*ledger.approvals, approval), refused=None)


def _allowed(ledger: Ledger, _: Event) -> Ledger:
    return replace(ledger, refused=None)


def _approved(ledger: Ledger, event: Event) -> Ledger:
    return _answer(ledger, event, lambda one: replace(one, approved_by=(*one.approved_by, event.data["who"])))


def _declined(ledger: Ledger, event: Event) -> Ledger:
    said = event.data
    return _answer(ledger, event, lambda one: replace(one, declined_by=said["who"], reason=said["reason"]))


def _answer(ledger: Ledger, event: Event, change: Callable[[Approval], Approval]) -> Ledger:
    of = event.data["approval"]
    return replace(ledger, approvals=tuple(change(one) if one.id == of else one for one in ledger.approvals))


def _intent(ledger: Ledger, event: Event) -> Ledger:
    data = event.data
    attempt = Attempt(
        id=data["attempt"],
        rung=data["rung"],
        action=data["action"],
        resource=data["resource"],
        params=data["params"],
        items=tuple(data["items"]),
        summary=data["summary"],
        at=event.at,
        start_by=data["start_by"],
        deadline=data["deadline"],
        probe=Health(data["probe"]),
    )
    used = data.get("approval")
    approvals = tuple(replace(one, used=attempt.id) if one.id == used else one for one in ledger.approvals)
    return replace(ledger, attempts=(*ledger.attempts, attempt), approvals=approvals, refused=None)


def _change(ledger: Ledger, event: Event, **fields: Any) -> Ledger:
    return replace(
        ledger,
        attempts=tuple(
            replace(attempt, **fields) if attempt.id == event.data["attempt"] else attempt
            for attempt in ledger.attempts
        ),
    )


def _outcome(ledger: Ledger, event: Event) -> Ledger:
    data = event.data
    return _change(ledger, event, outcome=Result(data["result"]), outcome_at=event.at, detail=data["detail"])


def _settled(ledger: Ledger, event: Event) -> Ledger:
    data = event.data
    said = {"settlement": Settlement(data["settlement"]), "settled_at": event.at, "detail": data["detail"]}
    changed = _change(ledger, event, **said)
    if data["settlement"] != Settlement.UNKNOWN and ledger.handed_over == "in_doubt":
        return replace(changed, handed_over=None)
    return changed


def _proving(ledger: Ledger, event: Event) -> Ledger:
    since = event.data["good_since"]
    before = next((one for one in ledger.attempts if one.id == event.data["attempt"]), None)
    anew = before is not None and None not in (before.good_since, since) and before.good_since != since
    gaps = before.gaps + anew if before is not None else 0
    return _change(ledger, event, good_since=since, gaps=gaps, proving=True)


def _verdict(ledger: Ledger, event: Event) -> Ledger:
    return _change(ledger, event, verdict=Verdict(event.data["verdict"]), verdict_at=event.at)


def _handed_over(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, handed_over=event.data["reason"], handed_over_at=event.at, hand_over=event.data)


def _closed(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, closed=event.data["reason"])


def _opened_again(_: Ledger, event: Event) -> Ledger:
    raise ValueError(f"episode {event.episode} seq {event.seq}: opened twice")


_APPLY = {
    Kind.OPENED: _opened_again,
    Kind.OBSERVED: _observed,
    Kind.CLAIMED: _claimed,
    Kind.MATCHED: _matched,
    Kind.REFUSED: _refused,
    Kind.DIAGNOSED: _diagnosed,
    Kind.WOULD_ACT: _would_act,
    Kind.NEEDS_APPROVAL: _needs_approval,
    Kind.ALLOWED: _allowed,
    Kind.APPROVED: _approved,
    Kind.DECLINED: _declined,
    Kind.INTENT: _intent,
    Kind.OUTCOME: _outcome,
    Kind.SETTLED: _settled,
    Kind.PROVING: _proving,
    Kind.VERDICT: _verdict,
    Kind.HANDED_OVER: _handed_over,
    Kind.CLOSED: _closed,
}
