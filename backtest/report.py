"""What a backtest found, as values: the JSON, the page and the words in a terminal are all made of these.

In: what was replayed. Out: `Report`. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backtest.deliveries import Firing
from backtest.outcome import Decided, State, decided
from backtest.pretended import ASSUMED
from backtest.spans import Span
from remediator import narrative
from remediator.durations import human
from remediator.events import Event, Kind
from remediator.reasons import Reason, Refusal
from remediator.runbooks import Runbook

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Told:
    """One step: UNIX seconds, the event with the word that matters in it (`refused cooldown`), and a sentence."""

    at: float
    what: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Episode:
    """One alert on one target, and what would have come of it. Times are UNIX seconds.

    fired_at, ended_at  of the alert, as recorded; ended_at None: it fired when the history ended
    healed_after        seconds from the moment it would have acted until the alert ended; None: it did not, or nothing
                        would have been done
    unneeded            it ended so soon that acting was not needed, if it ended by itself
    end_known           the recording has no gap where the alert ended
    story               every step
    """

    alertname: str
    target: str
    labels: Mapping[str, str]
    runbook: str
    fired_at: float
    ended_at: float | None
    state: State
    reason: str
    sentence: str
    at: float | None
    action: str
    resource: str
    rungs: tuple[str, ...]
    healed_after: float | None
    unneeded: bool
    end_known: bool
    story: tuple[Told, ...] = ()

    @property
    def identity(self) -> tuple[str, str, float]:
        return self.alertname, self.target, self.fired_at

    def as_json(self) -> dict[str, Any]:
        return {
            "alertname": self.alertname,
            "target": self.target,
            "labels": dict(sorted(self.labels.items())),
            "runbook": self.runbook or None,
            "fired_at": self.fired_at,
            "ended_at": self.ended_at,
            "end_known": self.end_known,
            "state": self.state.value,
            "reason": self.reason or None,
            "sentence": self.sentence,
            "at": self.at,
            "action": self.action or None,
            "resource": self.resource or None,
            "rungs": list(self.rungs),
            "healed_after": self.healed_after,
            "unneeded": self.unneeded,
            "story": [{"at": step.at, "what": step.what, "sentence": step.sentence} for step in self.story],
        }


@dataclass(frozen=True, slots=True)
class Played:
    """One pass: with the shipped numbers, or with those of `changes`."""

    changes: tuple[str, ...]
    episodes: tuple[Episode, ...]

    def summary(self) -> str:
        """`41 would act, 6 refused (cooldown 4, storm 2), 2 blocked by their cause`"""
        return words(self.episodes)

    def counts(self) -> dict[str, Any]:
        return counted(self.episodes)

    def by_runbook(self) -> dict[str, list[Episode]]:
        """Episodes of each runbook, by its name; those without one are under ""."""
        found: dict[str, list[Episode]] = {}
        for episode in sorted(self.episodes, key=lambda each: (each.runbook == "", each.runbook)):
            found.setdefault(episode.runbook, []).append(episode)
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "changes": list(self.changes),
            "summary": self.summary(),
            "counts": self.counts(),
            "runbooks": [
                {"runbook": name or None, "summary": words(mine), "counts": counted(mine)}
                for name, mine in self.by_runbook().items()
            ],
            "episodes": [episode.as_json() for episode in self.episodes],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """Everything: what was asked, what was assumed, and one or two passes."""

    prometheus: str
    environment: str
    since: float
    until: float
    step: float
    unneeded_within: float
    gaps: tuple[Span, ...]
    shipped: Played
    changed: Played | None = None
    made_at: float = 0.0
    assumed: Mapping[str, str] = field(default_factory=lambda: ASSUMED)

    def differences(self) -> list[tuple[Episode | None, Episode | None]]:
        """Episodes that come to another end with the changed numbers: (shipped, changed); None: there is none there."""
        if self.changed is None:
            return []
        before, after = _by_identity(self.shipped.episodes), _by_identity(self.changed.episodes)
        pairs = [(before.get(key), after.get(key)) for key in dict.fromkeys((*before, *after))]
        return [
            (one, other)
            for one, other in pairs
            if one is None or other is None or (one.state, one.reason, one.at) != (other.state, other.reason, other.at)
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "prometheus": self.prometheus,
            "environment": self.environment,
            "since": self.since,
            "until": self.until,
            "step": self.step,
            "made_at": self.made_at,
            "unneeded_within": self.unneeded_within,
            "gaps": [{"from": gap.start, "to": gap.end} for gap in self.gaps],
            "assumed": dict(self.assumed),
            "shipped": self.shipped.as_json(),
            "changed": self.changed.as_json() if self.changed else None,
            "differences": [
                {"shipped": one.as_json() if one else None, "changed": other.as_json() if other else None}
                for one, other in self.differences()
            ],
        }


def _by_identity(episodes: Iterable[Episode]) -> dict[tuple[object, ...], Episode]:
    """An alert that fires on after its episode is closed has another one: the first, the second, … of each."""
    seen: Counter[tuple[str, str, float]] = Counter()
    found: dict[tuple[object, ...], Episode] = {}
    for episode in episodes:
        seen[episode.identity] += 1
        found[*episode.identity, seen[episode.identity]] = episode
    return found


def counted(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Numbers by state and by reason."""
    states = Counter(episode.state for episode in episodes)
    return {
        "episodes": len(episodes),
        "states": {state.value: states[state] for state in State},
        "refused": dict(sorted(Counter(each.reason for each in episodes if each.state is State.REFUSED).items())),
        "unneeded": sum(episode.unneeded for episode in episodes),
    }


def words(episodes: Sequence[Episode]) -> str:
    """The numbers as one line; what there is none of is left out, but for what would be done."""
    numbers = counted(episodes)
    states = numbers["states"]
    said = [f"{states[State.ACT]} would act"]
    if numbers["unneeded"]:
        said[0] += f" ({numbers['unneeded']} of them not needed)"
    if states[State.ASK]:
        said.append(f"{states[State.ASK]} would ask a person")
    if states[State.REFUSED]:
        reasons = sorted(numbers["refused"].items(), key=lambda each: (-each[1], each[0]))
        said.append(f"{states[State.REFUSED]} refused ({', '.join(f'{reason} {count}' for reason, count in reasons)})")
    if count := states[State.BLOCKED]:
        said.append(f"{count} blocked by {'its' if count == 1 else 'their'} cause")
    if states[State.OVER]:
        said.append(f"{states[State.OVER]} over before it would have acted")
    if states[State.NO_RUNBOOK]:
        said.append(f"{states[State.NO_RUNBOOK]} without a runbook")
    if states[State.UNKNOWN]:
        said.append(f"{states[State.UNKNOWN]} unknown")
    return ", ".join(said)


def of_replayed(
    events: Sequence[Event], spans: Sequence[Span], book: Runbook, gaps: Sequence[Span], until: float, within: float
) -> Episode:
    """An episode that was driven. `spans`: when its alert fired."""
    opened = events[0].data
    alert = opened["alert"]
    came = decided(events)
    fired_at = float(alert["starts_at"])
    over = next((span.end for span in spans if span.end > fired_at), None)
    ended_at = over if over is not None and over <= until else None
    known = ended_at is not None and not _cut_off(ended_at, gaps)
    healed = ended_at - came.at if came.state is State.ACT and came.at is not None and ended_at is not None else None
    unneeded = known and healed is not None and healed <= within
    return Episode(
        alertname=alert["labels"]["alertname"],
        target=_words_of(opened["target"]),
        labels=alert["labels"],
        runbook=book.name,
        fired_at=fired_at,
        ended_at=ended_at,
        state=came.state,
        reason=came.reason,
        sentence=_compared(came, healed, unneeded, known, book),
        at=came.at,
        action=came.action,
        resource=came.resource,
        rungs=came.rungs,
        healed_after=healed,
        unneeded=unneeded,
        end_known=known or ended_at is None,
        story=tuple(_story(events)),
    )


def name_of(opened: Event) -> str:
    """What a person calls the episode: its alert and its target."""
    return f"{opened.data['alert']['labels']['alertname']} {_words_of(opened.data.get('target', {}))}".strip()


_ID = re.compile(r"\b[0-9a-f]{32}\b")


def named(events: Sequence[Event], names: Mapping[str, str]) -> list[Event]:
    """The events with a name in the place of each episode's id: the id is of no journal, and another one each time."""

    def of(found: re.Match[str]) -> str:
        return names.get(found[0], found[0])

    return [
        replace(event, data={**event.data, "sentence": _ID.sub(of, event.data["sentence"])})
        if isinstance(event.data.get("sentence"), str)
        else event
        for event in events
    ]


def of_refused(firing: Firing, refusal: Refusal, gaps: Sequence[Span]) -> Episode:
    """An alert that no runbook takes: no runbook, no target, or not ours."""
    state = State.NO_RUNBOOK if refusal.reason is Reason.NO_RUNBOOK else State.REFUSED
    return _undriven(firing, state, refusal.reason, refusal.sentence, "", gaps)


def of_cut(firing: Firing, book: Runbook, gaps: Sequence[Span]) -> Episode:
    """It fired already when the history began."""
    said = "History lacks its beginning: it fired before that, so its age and what was done then are not known."
    return _undriven(firing, State.UNKNOWN, "", said, book.name, gaps)


def _undriven(firing: Firing, state: State, reason: str, sentence: str, runbook: str, gaps: Sequence[Span]) -> Episode:
    about = {name: value for name, value in firing.labels.items() if name in ("service", "instance", "path")}
    known = firing.ends_at is None or not _cut_off(firing.ends_at, gaps)
    return Episode(
        firing.labels["alertname"],
        _words_of(about),
        firing.labels,
        runbook,
        firing.starts_at,
        firing.ends_at,
        state,
        str(reason),
        sentence,
        None,
        "",
        "",
        (),
        None,
        False,
        known,
    )


def _compared(came: Decided, healed: float | None, unneeded: bool, known: bool, book: Runbook) -> str:
    """The sentence why, and what became of the alert by itself."""
    if came.state is State.ACT:
        second = {"probe": "its direct probe had found it ill", "preview": "it had found something to act on"}
        provided = f" Provided that {second[book.vantage.kind]} and nothing else at the target forbade it."
        if healed is None:
            then = " The alert did not end within this history."
        elif not known:
            then = " When the alert ended is not known: the recording has a gap there."
        else:
            later = human(max(0.0, healed))
            then = (
                f" The alert ended {later} later; if by itself, acting was not needed."
                if unneeded
                else (f" The alert ended {later} later.")
            )
        return came.sentence + then + provided
    return came.sentence


def _story(events: Iterable[Event]) -> Iterable[Told]:
    """The steps; an outcome says nothing here, and attempts have no identity."""
    for event in events:
        if event.kind not in (Kind.OUTCOME, Kind.PROVING):
            yield Told(event.at, what(event), _said(event))


def what(event: Event) -> str:
    """`refused cooldown`, `intent restart`, `verdict fixed`; of other events their kind."""
    word = next((event.data[name] for name in ("reason", "verdict", "rung") if event.data.get(name)), "")
    return f"{event.kind} {word}".strip()


def _said(event: Event) -> str:
    match event.kind:
        case Kind.INTENT:
            return f"Would {event.data['action']} on {event.data['resource']} (rung {event.data['rung']})."
        case Kind.VERDICT:
            return f"As recorded, that would be: {narrative.line(event)}"
        case Kind.DIAGNOSED:
            return "Evidence would be captured."
    return narrative.line(event)


def _cut_off(ended_at: float, gaps: Sequence[Span]) -> bool:
    """Does a gap begin where the alert ended? Nobody knows then how it went on."""
    return any(gap.start - 600.0 <= ended_at <= gap.end for gap in gaps)


def _words_of(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())
