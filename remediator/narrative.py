"""Events as sentences: what a person reads in prepctl, the API and the console, the same words everywhere.

In: events of one episode. Out: text. Pure. Labels and answers of servers inside the sentences come from
outside: whoever prints them takes care of control characters (prepctl does) or of HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from remediator.actions.base import Result, Settlement
from remediator.durations import human
from remediator.events import Event, Kind, Verdict
from remediator.ledger import Attempt, Ledger, fold
from remediator.reason_words import words

OUTCOMES = {
    Result.DONE: "Done",
    Result.FAILED: "Failed, and the effect did not begin",
    Result.IN_DOUBT: "In doubt: it may have begun, and its end is unknown",
}
VERDICTS = {
    Verdict.FIXED: "Proven fixed",
    Verdict.NOT_FIXED: "Not fixed",
    Verdict.WORSE: "Worse than before",
    Verdict.UNKNOWN: "Not proven either way",
}
SETTLEMENTS = {
    Settlement.DONE: "the effect did happen",
    Settlement.NOT_DONE: "the effect did not happen",
    Settlement.UNKNOWN: "it cannot be known",
}


def clock(at: float) -> str:
    """UNIX seconds as `2026-11-23 06:22:47 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def after(seconds: float) -> str:
    """Time since the episode's first event: `+0s`, `+850ms`, `+1m35s`; negative when a clock went back."""
    if abs(seconds) < 0.0005:
        return "+0s"
    return ("+" if seconds > 0 else "-") + human(abs(seconds))


UNREADABLE = "It is left alone: events of it are missing (prepctl journal:verify), or a newer version wrote some."


def line(event: Event) -> str:
    """One event as one sentence."""
    said = _LINES[event.kind](event.data).strip()
    return said if said.endswith((".", "!", "?")) else f"{said}."


def state(events: Sequence[Event] | None, now: float) -> str:
    """`why`, also where there is no event yet; None stands for events that cannot be read whole."""
    if events is None:
        return UNREADABLE
    return why(events, now) if events else "Waiting to be taken up."


def why(events: Sequence[Event], now: float) -> str:
    """The sentence that answers "what is it doing, and why not more?", as of `now` (UNIX seconds)."""
    ledger = fold(events)
    if ledger.closed is not None:
        return line(events[-1])
    last = ledger.last
    if last is not None and last.in_doubt:
        return _doubt(last, now)
    if ledger.handed_over is not None:
        return f"People have it: {ledger.hand_over.get('sentence', ledger.handed_over)}"
    if last is not None and last.took_effect and last.verdict is None:
        passed = human(max(0.0, now - last.effect_at))
        return f"Proving for {passed} that {last.action} on {last.resource} helped."
    return _why_not(ledger, events, now)


def _doubt(attempt: Attempt, now: float) -> str:
    until = attempt.at + attempt.deadline
    if attempt.outcome is None and now < until:
        return f"Acting now: {attempt.action} on {attempt.resource}, at most {human(until - now)} more."
    return (
        f"Attempt {attempt.id} ({attempt.action} on {attempt.resource}) is in doubt: it may have taken "
        "effect. Nothing else is done there until the target or a person settles it (prepctl doubts:settle)."
    )


def _why_not(ledger: Ledger, events: Sequence[Event], now: float) -> str:
    last = events[-1] if events[-1].kind is not Kind.OBSERVED else _before_observed(events)
    if ledger.refused is not None:
        refused = next(event for event in reversed(events) if event.kind is Kind.REFUSED)
        wait = ledger.earliest - now if ledger.earliest is not None else 0.0
        again = f" Decided again in {human(wait)}." if wait > 0 else ""
        return f"Not acting ({ledger.refused}): {refused.data['sentence']}{again}"
    if last.kind in (Kind.WOULD_ACT, Kind.NEEDS_APPROVAL, Kind.ALLOWED, Kind.APPROVED, Kind.VERDICT):
        return line(last)
    return f"Deciding: {line(last)}"


def _before_observed(events: Sequence[Event]) -> Event:
    return next((event for event in reversed(events) if event.kind is not Kind.OBSERVED), events[-1])


def not_acted(events: Sequence[Event]) -> str | None:
    """The sentence that answers "why did you not act?"; None when it has acted, or may have.

    Pure, for prepctl, the API and the console: the reason in plain words, and the value that decided.
    """
    ledger = fold(events)
    if any(not attempt.did_not_begin for attempt in ledger.attempts):
        return None
    if ledger.closed is None:
        return f"Nothing was done so far: {_cause(ledger, events)}."
    ended = _bare(events[-1].data["sentence"])
    return f"Nothing was done: {_cause(ledger, events)}; it ended so: {ended}."


def _cause(ledger: Ledger, events: Sequence[Event]) -> str:
    """What stood in the way last, and weighs most: what was tried, what a person said, then what was found."""
    asked = ledger.approval
    if ledger.last is not None:
        return f"{_bare(ledger.last.summary)} was tried and did not begin ({_bare(ledger.last.detail)})"
    if asked is not None and asked.declined_by is not None:
        return f"{asked.declined_by} declined it ({_bare(asked.reason)})"
    if ledger.handed_over is not None:
        return f"it was handed to people ({_bare(ledger.hand_over.get('sentence', ledger.handed_over))})"
    if ledger.refused is not None:
        refused = next(event for event in reversed(events) if event.kind is Kind.REFUSED)
        return f"{words(ledger.refused)} ({_bare(refused.data['sentence'])})"
    if asked is not None:
        return f"a person must approve it first, and it was not used ({_bare(asked.summary)})"
    if ledger.would_act:
        would = next(event for event in reversed(events) if event.kind is Kind.WOULD_ACT)
        return f"it may only watch here, not act; it would have done this: {_bare(would.data['summary'])}"
    return words("no_runbook") if ledger.runbook is None else "there was nothing decided yet"


def _bare(sentence: str) -> str:
    """A sentence as a part of another one."""
    return sentence.strip().rstrip(".")


Data = Mapping[str, Any]


def _opened(data: Data) -> str:
    if command := data.get("command"):
        glass = ", breaking the glass" if command["break_glass"] else ""
        on = ", ".join(f"{key}={value}" for key, value in data["target"].items())
        return f"{command['who']} wants {command['action']} on {on}{glass}: {command['reason']}"
    alert = data["alert"]
    labels = alert["labels"]
    about = data.get("target") or {key: value for key, value in labels.items() if key != "alertname"}
    on = ", ".join(f"{key}={value}" for key, value in about.items()) or "no labels"
    book = f"runbook {data['runbook']}" if data.get("runbook") else "no runbook"
    return f"Alert {labels['alertname']} {alert['status']} for {on}; {book}."


def _observed(data: Data) -> str:
    return f"Alertmanager says {data['alert']['status']}."


def _claimed(data: Data) -> str:
    return f"Taken over by {data['owner']} (epoch {data['epoch']})."


def _matched(data: Data) -> str:
    return f"Runbook {data['runbook']} now matches."


def _refused(data: Data) -> str:
    rung = f" for rung {data['rung']}" if data.get("rung") else ""
    return f"Not acting{rung} ({data['reason']}): {data['sentence']}"


def _diagnosed(data: Data) -> str:
    whole = "complete" if data["complete"] else "with gaps"
    what = "; ".join(f"{name}: {said}" for name, said in data["summary"].items())
    return f"Evidence kept, {whole}, at {data['path']}" + (f" ({what})." if what else ".")


def _would_act(data: Data) -> str:
    return f"Shadow: would {data['action']} on {data['resource']}: {data['summary']}"


def _needs_approval(data: Data) -> str:
    return f"Waits for a person to approve {data['action']} on {data['resource']}: {data['summary']}"


def _allowed(data: Data) -> str:
    then = "it waits for a person again" if data["waits"] else "a shadow would act"
    return f"Nothing forbids rung {data['rung']} any more; {then}."


def _approved(data: Data) -> str:
    return f"{data['who']} approved it" + (f": {data['reason']}" if data["reason"] else ".")


def _declined(data: Data) -> str:
    return f"{data['who']} declined it: {data['reason']}"


def _paused(data: Data) -> str:
    until = f" until {clock(data['until'])}" if data["until"] is not None else ""
    return f"Paused ({data['scope']}) by {data['who']}{until}: {data['reason']}"


def _resumed(data: Data) -> str:
    return f"Pause {data['pause']} ended by {data['who']}."


def _storm_began(data: Data) -> str:
    return f"Storm: {data['open']} episodes at once. Nothing is begun until it is over."


def _storm_ended(data: Data) -> str:
    how = "it has been calm" if data["by"] == "calm" else f"{data['by']} says so: {data['reason']}"
    return f"The storm of up to {data['most']} episodes is over ({how}). What waits is released one after the other."


def _demoted(data: Data) -> str:
    return f"Runbook {data['runbook']} only asks for approval from now on: {data['why']}"


def _restored(data: Data) -> str:
    return f"{data['who']} lets runbook {data['runbook']} act again: {data['reason']}"


def _promoted(data: Data) -> str:
    despite = f" The shadow report did not support it: {data['despite']}" if data["despite"] else ""
    said = f"{data['who']} promotes runbook {data['runbook']} from {data['from']} to {data['to']}: {data['reason']}"
    return f"{_bare(said)}.{despite}"


ACTS = {
    "approve": "The yes",
    "decline": "The no",
    "settle": "The word about a doubt",
    "pause": "The pause",
    "resume": "The end of a pause",
    "end_storm": "The end of a storm",
    "restore": "The restoring of a runbook",
    "promote": "The promotion of a runbook",
    "command": "The command",
}


def _not_taken(data: Data) -> str:
    what = ACTS.get(data["what"], data["what"])
    return f"{what} of {data['who']} was not taken ({data['code']}): {data['sentence']}"


def _intent(data: Data) -> str:
    return f"Begins {data['action']} on {data['resource']} (attempt {data['attempt']}): {data['summary']}"


def _outcome(data: Data) -> str:
    return f"{OUTCOMES[Result(data['result'])]}: {data['detail']}"


def _settled(data: Data) -> str:
    who = "The target says" if data["by"] == "target" else f"{data['by']} says"
    return f"Doubt looked into. {who}: {SETTLEMENTS[Settlement(data['settlement'])]}. {data['detail']}"


def _proving(data: Data) -> str:
    return data.get("sentence") or ("Good so far." if data["good_since"] is not None else "Not proven yet.")


def _verdict(data: Data) -> str:
    return f"{VERDICTS[Verdict(data['verdict'])]}. {data['sentence']}"


def _handed_over(data: Data) -> str:
    return f"Handed over to people as {data['alertname']} ({data['severity']}): {data['sentence']}"


def _closed(data: Data) -> str:
    return f"Closed ({data['reason']}): {data['sentence']}"


_LINES = {
    Kind.OPENED: _opened,
    Kind.OBSERVED: _observed,
    Kind.CLAIMED: _claimed,
    Kind.MATCHED: _matched,
    Kind.REFUSED: _refused,
    Kind.DIAGNOSED: _diagnosed,
    Kind.WOULD_ACT: _would_act,
    Kind.INTENT: _intent,
    Kind.OUTCOME: _outcome,
    Kind.SETTLED: _settled,
    Kind.PROVING: _proving,
    Kind.VERDICT: _verdict,
    Kind.NEEDS_APPROVAL: _needs_approval,
    Kind.ALLOWED: _allowed,
    Kind.APPROVED: _approved,
    Kind.DECLINED: _declined,
    Kind.HANDED_OVER: _handed_over,
    Kind.CLOSED: _closed,
    Kind.PAUSED: _paused,
    Kind.RESUMED: _resumed,
    Kind.STORM_BEGAN: _storm_began,
    Kind.STORM_ENDED: _storm_ended,
    Kind.DEMOTED: _demoted,
    Kind.RESTORED: _restored,
    Kind.PROMOTED: _promoted,
    Kind.NOT_TAKEN: _not_taken,
}
