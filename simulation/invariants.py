"""What must never be, in any story: the safety case, judged by what happened at the target and by what the journal
keeps.

Each function takes a played story and yields a sentence for each time it was broken. Its docstring is the promise,
and its line on the page of `--report`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from remediator.events import Kind, Verdict
from remediator.ledger import Attempt, Ledger, fold
from remediator.world import Health
from simulation.books import ALL, ASKS_BOOK, BOOKS, DOWN, settings
from simulation.clock import START
from simulation.run import Played
from simulation.story import Wrong
from simulation.world import Effect

Invariant = Callable[[Played], Iterator[str]]
SLACK = 2.0  # seconds
HOUR, DAY, WEEK = 3600.0, 86400.0, 7 * 86400.0
ALIVE = 1000.0  # seconds after an answer in which a process that dies may not have written it
MOST_REFUSALS = 240
"""Of one episode in an hour: about one in each round of 15 seconds."""
GUARDS = settings(Path("/nonexistent")).guards
BOOK = BOOKS[0]
"""The runbooks have the same limits."""


def attempts(played: Played) -> dict[str, tuple[Ledger, Attempt]]:
    """Every attempt of the journal by its id."""
    return {attempt.id: (ledger, attempt) for ledger in played.ledgers for attempt in ledger.attempts}


def told(effect: Effect) -> str:
    """An effect in words."""
    return f"{effect.service} at {effect.t:.0f} s (attempt {effect.attempt[:8]})"


# -- the effect itself ------------------------------------------------------------------------------------------


def no_effect_twice(played: Played) -> Iterator[str]:
    """No attempt takes effect twice."""
    for attempt, count in Counter(effect.attempt for effect in played.world.effects).items():
        if count > 1:
            yield f"attempt {attempt[:8]} took effect {count} times"


def intent_before_effect(played: Played) -> Iterator[str]:
    """When an effect begins, its intent is durable."""
    known = attempts(played)
    for effect in played.world.effects:
        if not effect.intended or effect.attempt not in known:
            yield f"no intent: {told(effect)}"


def within_its_window(played: Played) -> Iterator[str]:
    """No effect begins after `start_by`, by the target's clock."""
    for effect in played.world.effects:
        if effect.late > SLACK:
            yield f"{effect.late:.0f} s late: {told(effect)}"


def _never(word: str) -> Callable[[Played], Iterator[str]]:
    def rule(played: Played) -> Iterator[str]:
        for effect in played.world.effects:
            if word in effect.forbidden and not (word == "healthy" and effect.fooled):
                yield f"{word}: {told(effect)}"

    return rule


def _named(name: str, word: str, promise: str) -> Invariant:
    rule = _never(word)
    rule.__name__, rule.__doc__ = name, promise
    return rule


FORBIDDEN: tuple[Invariant, ...] = (
    _named("not_on_the_healthy", "healthy", "Nothing is done to a target that the direct probe finds well."),
    _named("not_while_silenced", "silenced", "Nothing is done while the alert is silenced."),
    _named("not_while_paused", "paused", "Nothing is done while a person has paused it, by file or by command."),
    _named("not_under_a_person", "a person inside", "Nothing is done while a person works inside the container."),
    _named("not_the_never_list", "never", "What is on the never list is never touched."),
    _named("not_the_young", "young", "What was started a moment ago is not started again by another episode."),
    _named("not_in_shadow", "shadow", "In mode shadow nothing is done."),
    _named("not_while_caused", "a cause", "Nothing is done to a symptom while its cause fires."),
    _named("only_while_the_rule_is_true", "no rule", "Nothing is done unless every Prometheus finds the rule true."),
    _named("not_in_a_storm", "storm", "While a storm holds nothing is begun."),
    _named("not_without_prometheus", "prometheus away", "Nothing is done while a Prometheus is silent."),
    _named(
        "not_without_alertmanager", "alertmanager away", "Nothing is done while silences cannot be read everywhere."
    ),
    _named("not_with_another_clock", "skew", "Nothing is done while Prometheus' clock is off."),
    _named("not_without_a_probe", "blind", "Nothing is done while the direct probe has no answer."),
)


def evidence_before(played: Played) -> Iterator[str]:
    """Evidence is complete and durable before the rung that destroys it."""
    for episode, events in played.episodes.items():
        kept: set[str] = set()
        for event in events:
            if event.kind is Kind.DIAGNOSED and event.data["complete"]:
                kept.add(event.data["rung"])
            if event.kind is Kind.INTENT and event.data["rung"] not in kept:
                yield f"episode {episode[:8]}: {event.data['rung']} without evidence"


def only_our_alerts(played: Played) -> Iterator[str]:
    """Only alerts of our environment and of the runbook's job are acted upon, and none that is too old."""
    for episode, events in played.episodes.items():
        for number, event in enumerate(events):
            if event.kind is not Kind.INTENT:
                continue
            alert = fold(events[:number]).alert
            if alert.labels.get("environment") != "production" or alert.labels.get("job") != "platform":
                yield f"episode {episode[:8]}: acted on {dict(alert.labels)}"
            age = event.at - alert.starts_at
            if age > BOOK.stale_after + 30.0:
                yield f"episode {episode[:8]}: acted on an alert of {age:.0f} s ago"


def settled_first(played: Played) -> Iterator[str]:
    """Nothing is done before the settle time is over."""
    books = {book.name: book for book in ALL}
    for ledger, attempt in attempts(played).values():
        first = ledger.attempts[0]
        if attempt is first and attempt.at < ledger.first_seen + books[ledger.runbook or ""].settle - SLACK:
            yield f"episode {ledger.episode[:8]}: {attempt.at - ledger.first_seen:.0f} s after its first alert"


def asked_first(played: Played) -> Iterator[str]:
    """Where a person must say yes, one has, once for each attempt, and nobody said no."""
    known = attempts(played)
    for effect in played.world.effects:
        if effect.attempt not in known:
            continue
        ledger, _ = known[effect.attempt]
        asked = [one for one in ledger.approvals if one.used == effect.attempt]
        if ledger.runbook == ASKS_BOOK.name and not asked:
            yield f"nobody was asked: {told(effect)}"
        if "approve" in effect.forbidden and not asked:
            yield f"nobody was asked in mode approve: {told(effect)}"
        if "demoted" in effect.forbidden and not asked:
            yield f"nobody was asked, and the runbook is demoted: {told(effect)}"
        if any(not one.given or one.declined_by for one in asked):
            yield f"used without a yes: {told(effect)}"
        if any(one.id in played.world.declined for one in asked):
            yield f"a person had said no: {told(effect)}"
    for ledger in played.ledgers:
        used = [one.used for one in ledger.approvals if one.used]
        if len(set(used)) != len(used):
            yield f"episode {ledger.episode[:8]}: one yes for two attempts"


# -- limits ---------------------------------------------------------------------------------------------------------


def _counted(played: Played) -> list[tuple[float, Effect, Ledger, Attempt]]:
    """Effects by the journal's times; without those whose windows hold a step of the clock."""
    known = attempts(played)
    return [(known[e.attempt][1].at, e, *known[e.attempt]) for e in played.world.effects if e.attempt in known]


def _stepped(played: Played, start: float, end: float) -> bool:
    return any(start - DAY <= step <= end for step in played.world.steps)


def cooldown_kept(played: Played) -> Iterator[str]:
    """Between two episodes' effects on one target lies the cooldown."""
    by_service: dict[str, list[tuple[float, Effect, Ledger, Attempt]]] = {}
    for entry in _counted(played):
        by_service.setdefault(entry[1].service, []).append(entry)
    for found in by_service.values():
        for (_, one, first, _), (_, other, second, _) in pairwise(found):
            apart = other.t - one.t
            if first.episode != second.episode and apart < BOOK.limits.cooldown - 12.0:
                yield f"{apart:.0f} s after another episode's: {told(other)}"


def limits_kept(played: Played) -> Iterator[str]:
    """In no hour and on no day more attempts than allowed: of a target, of a runbook, of all."""
    found = _counted(played)
    limits = BOOK.limits
    kinds = (
        ("target", lambda entry: entry[1].service, limits.per_hour, limits.per_day),
        ("runbook", lambda entry: entry[2].runbook, limits.per_hour, limits.per_day),
        ("all", lambda entry: "all", GUARDS.all_per_hour, GUARDS.all_per_day),
    )
    for what, key, hour, day in kinds:
        groups: dict[str, list[float]] = {}
        for entry in found:
            groups.setdefault(str(key(entry)), []).append(entry[1].t)
        for name, times in groups.items():
            for window, limit in ((HOUR, hour), (DAY, day)):
                for place in range(len(times) - limit):
                    start, end = times[place], times[place + limit]
                    if end - start < window - 12.0 and not _stepped(played, start, end):
                        yield f"{limit + 1} within {end - start:.0f} s for {what} {name}"


def one_at_a_time(played: Played) -> Iterator[str]:
    """On one target the next attempt begins only when the one before is judged, or did not begin."""
    by_service: dict[str, list[tuple[float, Effect, Ledger, Attempt]]] = {}
    for entry in _counted(played):
        by_service.setdefault(entry[1].service, []).append(entry)
    for found in by_service.values():
        for (_, _, first, one), (at, other, second, _) in pairwise(found):
            judged = one.verdict is not None and one.verdict_at <= at + SLACK
            done = judged or one.did_not_begin or first.closed is not None
            if first.episode == second.episode and not judged:
                yield f"before the one before it was judged: {told(other)}"
            if not done:
                yield f"under another episode: {told(other)}"


def ladder_in_order(played: Played) -> Iterator[str]:
    """The mildest rung first, the next one only when that was done and did not help."""
    names = [rung.name for rung in BOOK.ladder]
    for ledger in played.ledgers:
        for place, attempt in enumerate(ledger.attempts):
            before = ledger.attempts[place - 1] if place else None
            if before is None and names.index(attempt.rung) != 0:
                yield f"episode {ledger.episode[:8]} begins with {attempt.rung}"
            if before is not None and before.rung != attempt.rung and before.verdict is not Verdict.NOT_FIXED:
                yield f"episode {ledger.episode[:8]}: {attempt.rung} after {before.verdict}"
            if before is not None and before.rung == attempt.rung and not before.did_not_begin:
                yield f"episode {ledger.episode[:8]}: {attempt.rung} was redone"


def no_effect_in_doubt(played: Played) -> Iterator[str]:
    """While it is not known whether an attempt took effect, nothing else is done to its target."""
    for effect in played.world.effects:
        if "in doubt" in effect.forbidden:
            yield f"in doubt: {told(effect)}"


def settled_in_time(played: Played) -> Iterator[str]:
    """The target is asked how an attempt ended only when its whole duration is over; before, it may still begin."""
    for ledger in played.ledgers:
        at = {attempt.id: attempt for attempt in ledger.attempts}
        for event in played.episodes[ledger.episode]:
            if event.kind is not Kind.SETTLED or event.data["by"] != "target":
                continue
            attempt = at[event.data["attempt"]]
            early = attempt.at + attempt.deadline - event.at
            since = attempt.at - START
            if early > SLACK and not _stepped(played, since, since + attempt.deadline):
                yield f"episode {ledger.episode[:8]}: settled {early:.0f} s before its time was over"


def answers_kept(played: Played) -> Iterator[str]:
    """An answer that came to a process that lived on is in the journal."""
    known, world = attempts(played), played.world
    for attempt, t in world.answered.items():
        died = any(t - 1.0 <= birth <= t + ALIVE for birth in world.births)
        away = any(fault.at <= t + 60.0 and fault.at + fault.lasts >= t for fault in world.faults(Wrong.JOURNAL_AWAY))
        if died or away or t + ALIVE > played.world.story.seconds or attempt not in known:
            continue
        if known[attempt][1].outcome is None:
            yield f"at {t:.0f} s the target said that {attempt[:8]} is done, and nothing was written"


def writes_no_more_than_it_says(played: Played) -> Iterator[str]:
    """What forbids an episode to go on is written when it changes, and does not change all the time."""
    for episode, events in played.episodes.items():
        at = [event.at for event in events if event.kind in (Kind.REFUSED, Kind.ALLOWED)]
        for first, last in zip(at, at[MOST_REFUSALS:], strict=False):
            if 0.0 <= last - first < HOUR:
                yield f"episode {episode[:8]}: {MOST_REFUSALS} refusals within an hour, from {first - START:.0f} s on"
                break


def recurrence_stops(played: Played) -> Iterator[str]:
    """The same fix of one target so many times in a week is a ticket, not one more fix."""
    fixes: dict[tuple[str, str], list[float]] = {}
    for effect in played.world.effects:
        known = attempts_of(played).get(effect.attempt)
        if known is None:
            continue
        ledger, attempt = known
        key = (effect.service, ledger.runbook or "")
        if attempt is ledger.attempts[0]:
            lately = [at for at in fixes.get(key, []) if effect.t - at < WEEK - HOUR * 3]
            if len(lately) >= BOOK.limits.recurrence and not _stepped(played, lately[0], effect.t):
                yield f"fixed {len(lately)} times within a week: {told(effect)}"
        if attempt.verdict is Verdict.FIXED:
            fixes.setdefault(key, []).append(effect.t)


_cache: dict[int, dict[str, tuple[Ledger, Attempt]]] = {}


def attempts_of(played: Played) -> dict[str, tuple[Ledger, Attempt]]:
    """As `attempts`, made once for a story."""
    if id(played) not in _cache:
        _cache.clear()
        _cache[id(played)] = attempts(played)
    return _cache[id(played)]


def held_off(played: Played) -> Iterator[str]:
    """After a process has noticed a step of its clock it begins nothing for a full cooldown."""
    world = played.world
    if world.story.replicas > 1:
        return  # there the journal's own clock tells the time, and none of the simulation's stands still beside it
    for effect in world.effects:
        for step in world.noticed:
            again = any(step < birth < effect.t for birth in world.births)
            if not again and step + 12.0 < effect.t < step + BOOK.limits.cooldown - 12.0:
                yield f"{effect.t - step:.0f} s after the clock was set: {told(effect)}"


# -- what is said of it ---------------------------------------------------------------------------------------------


def proof_from_samples(played: Played) -> Iterator[str]:
    """`fixed` is only said of samples that were there and good, for the whole hold time, by what the probe saw too."""
    for episode, events in played.episodes.items():
        ended: dict[str, float] = {}  # as told before the verdict: a replica that was frozen tells it again afterwards
        for event in events:
            if event.kind in (Kind.OUTCOME, Kind.SETTLED):
                ended[event.data["attempt"]] = event.at
            if event.kind is not Kind.VERDICT or event.data["verdict"] != Verdict.FIXED:
                continue
            empty = [check["name"] for check in event.data["checks"] if check["value"] is None or not check["good"]]
            if empty or not event.data["checks"] or event.data["probe"] != Health.HEALTHY:
                yield f"episode {episode[:8]}: fixed without samples of {', '.join(empty) or 'anything'}"
            since = ended.get(event.data["attempt"], event.at)
            if event.at - since < BOOK.proof.hold - SLACK and not played.world.steps:
                yield f"episode {episode[:8]}: fixed after {event.at - since:.0f} s"


def fixed_is_well(played: Played) -> Iterator[str]:
    """What is called fixed is well at that moment, unless monitors and probe are both fooled."""
    world = played.world
    for episode, events in played.episodes.items():
        for event in events:
            if event.kind is not Kind.VERDICT or event.data["verdict"] != Verdict.FIXED:
                continue
            t = world.event_times.get(event.id)
            service = world.services[_service(events)]
            if t is not None and all(service.probed(t - back) is not Health.HEALTHY for back in (0.0, 4.0, 8.0)):
                yield f"episode {episode[:8]}: called fixed while {service.name} was {service.at(t)}"


def _service(events: list[object]) -> str:
    return str(events[0].data["target"]["service"])  # type: ignore[attr-defined]


def not_begun_is_true(played: Played) -> Iterator[str]:
    """What is called not begun has not happened."""
    happened = {effect.attempt for effect in played.world.effects}
    for ledger, attempt in attempts_of(played).values():
        if attempt.did_not_begin and attempt.id in happened:
            yield f"episode {ledger.episode[:8]}: {attempt.id[:8]} called not begun, and it happened"


def done_is_true(played: Played) -> Iterator[str]:
    """What is called done by the answer to the call has happened."""
    happened = {effect.attempt for effect in played.world.effects}
    for ledger, attempt in attempts_of(played).values():
        if attempt.outcome == "done" and attempt.id not in happened:
            yield f"episode {ledger.episode[:8]}: {attempt.id[:8]} called done, and nothing happened"


def journal_adds_up(played: Played) -> Iterator[str]:
    """The limits' table says what the events say."""
    yield from played.problems


# -- nobody is forgotten ----------------------------------------------------------------------------------------------


def nothing_lost(played: Played) -> Iterator[str]:
    """Every alert that was acknowledged has an episode that was open at or after that time."""
    seen: dict[str, list[float]] = {}
    for ledger in played.ledgers:
        labels = ledger.alert.labels
        seen.setdefault(f"{ledger.alert.name}/{labels.get('service')}", []).append(ledger.first_seen)
    for alert, t in played.world.acknowledged.items():
        if alert not in seen and not alert.startswith("DatabaseDown"):
            yield f"{alert}, acknowledged at {t:.0f} s, has no episode"


def everything_ends(played: Played) -> Iterator[str]:
    """Two days after the last incident each episode has ended, or people have it; and each open one will be woken."""
    paged = {page.alert.episode for page in played.world.pages.values()}
    for episode, due in played.open.items():
        if due is None:
            yield f"episode {episode[:8]} is open and nobody will wake it"
        elif episode not in paged:
            yield f"episode {episode[:8]} is open, and people were never told"


def closed_with_nothing_open(played: Played) -> Iterator[str]:
    """An episode closes only when nothing that it began is open."""
    for ledger in played.ledgers:
        if ledger.closed is not None and not ledger.settled and not ledger.handed_over:
            yield f"episode {ledger.episode[:8]} closed with something open in it"


def handed_over_is_told(played: Played) -> Iterator[str]:
    """Whatever is handed over reaches people."""
    paged = {page.alert.episode for page in played.world.pages.values()}
    for ledger in played.ledgers:
        if ledger.handed_over and ledger.episode not in paged:
            yield f"episode {ledger.episode[:8]}: handed over ({ledger.handed_over}), and nobody was told"


def storm_is_told(played: Played) -> Iterator[str]:
    """A storm reaches people."""
    storms = sum(event.kind is Kind.STORM_BEGAN for event in played.own)
    pages = sum(page.alert.alertname == "RemediationStorm" for page in played.world.pages.values())
    if storms and not pages:
        yield f"{storms} storms, and nobody was told"


def open_while_firing(played: Played) -> Iterator[str]:
    """An episode ends as resolved or fixed only when the rule is not true: nothing is closed on a word alone."""
    world = played.world
    for episode, events in played.episodes.items():
        last = events[-1] if events else None
        if last is None or last.kind is not Kind.CLOSED or last.data["reason"] not in ("cleared", "fixed"):
            continue
        t = world.event_times.get(last.id)
        service = world.services.get(_service(events))
        if t is None or service is None:
            continue
        times = [t - back for back in range(0, 91, 10)]
        bad = Health.DOWN if events[0].data["alert"]["labels"]["alertname"] == DOWN else Health.SICK
        if all(service.monitored(at) is bad for at in times):
            yield f"episode {episode[:8]} closed as {last.data['reason']} while {service.name} was ill"


ALL_INVARIANTS: tuple[Invariant, ...] = (
    no_effect_twice,
    intent_before_effect,
    within_its_window,
    *FORBIDDEN,
    evidence_before,
    only_our_alerts,
    settled_first,
    asked_first,
    cooldown_kept,
    limits_kept,
    one_at_a_time,
    ladder_in_order,
    no_effect_in_doubt,
    settled_in_time,
    answers_kept,
    writes_no_more_than_it_says,
    recurrence_stops,
    held_off,
    proof_from_samples,
    fixed_is_well,
    not_begun_is_true,
    done_is_true,
    journal_adds_up,
    nothing_lost,
    everything_ends,
    closed_with_nothing_open,
    handed_over_is_told,
    storm_is_told,
    open_while_firing,
)


def violations(played: Played) -> list[str]:
    """Every broken promise of a story, each with the invariant's name."""
    return [f"{rule.__name__}: {said}" for rule in ALL_INVARIANTS for said in rule(played)]
