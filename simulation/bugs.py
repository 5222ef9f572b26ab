"""What is planted: bugs as somebody could write them, each for the process that it is planted in and no other.

Hunted by `simulation.mutants`. Never imported by what ships beside this.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from remediator import deciding, engine, guardrails, matching, planner, proofs, rules, steps, verification
from remediator.actions.base import Outcome, Result, Settled, Settlement
from remediator.engine import Engine
from remediator.episodes import Episodes
from remediator.guardrails import Case
from remediator.journal import Journal, limits
from remediator.journal.tables import charges
from remediator.ledger import Attempt
from remediator.matching import Matched
from remediator.reasons import Refusal
from remediator.steps import Diagnose, Intend, View
from remediator.world import Answer, CheckSample
from simulation.story import Sort, Wrong
from simulation.target import SimRestart

TABLES = ("BEFORE_LOOK", "HELD_BACK", "AFTER_LOOK", "LIMITS", "BY_HAND", "GLASS")
Plant = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """One bug: its name, what it is in words, how it gets in, and what must come often for it to show."""

    name: str
    what: str
    plant: Plant
    often: Collection[Sort | Wrong] = frozenset()


# -- guardrails -------------------------------------------------------------------------------------


def allowed(_: Case) -> None:
    """In the place of a guardrail."""


def without(*names: str) -> Plant:
    """Guardrails that say yes to everything."""

    def plant() -> None:
        for name in names:
            before = getattr(guardrails, name)
            setattr(guardrails, name, allowed)
            for module in (guardrails, deciding):
                for table in TABLES:
                    if hasattr(module, table):
                        kept = tuple(allowed if rule is before else rule for rule in getattr(module, table))
                        setattr(module, table, kept)
                if hasattr(module, name):
                    setattr(module, name, allowed)

    return plant


def put(owner: Any, name: str, make: Callable[[Any], Any]) -> Plant:
    """Something else in the place of a function or a value; `make` gets what was there."""
    return lambda: setattr(owner, name, make(getattr(owner, name)))


def _always_auto() -> None:
    guardrails.mode_of = lambda *_: "auto"
    deciding.mode_of = guardrails.mode_of  # type: ignore[attr-defined]


def _foreign_is_ours(before: Callable[..., Matched | Refusal]) -> Callable[..., Matched | Refusal]:
    def match(alert: Any, books: Any, environment: str) -> Matched | Refusal:
        return before(replace(alert, labels={**alert.labels, "environment": environment}), books, environment)

    return match


def _foreign() -> None:
    from remediator import episodes  # noqa: PLC0415 - it has its own name for it

    matching.match = _foreign_is_ours(matching.match)
    episodes.match = matching.match  # type: ignore[attr-defined]


# -- the engine's order -----------------------------------------------------------------------------


def _effect_before_intent(_: Any) -> Any:
    async def act(self: Engine, run: Any, step: Intend) -> float | None:
        call, intent = await self._intent(run, step)
        outcome = await self._execute(run, self.actions[step.rung.action], call)
        refusal = await self.journal.intend(
            intent, runbook=self._book(run).name, resource=call.resource, decide=lambda facts: None
        )
        if refusal is None:
            self.episodes.take(run, [intent])
            await self._outcome(run, call, outcome)
        run.forget()
        return None

    return act


def _intent_without_lock(_: Any) -> Any:
    return lambda case, answers: None


def _lost_is_failed(before: Any) -> Any:
    async def execute(self: Engine, run: Any, action: Any, call: Any) -> Outcome:
        found: Outcome = await before(self, run, action, call)
        return replace(found, result=Result.FAILED) if found.result is Result.IN_DOUBT else found

    return execute


def _lost_is_done(before: Any) -> Any:
    async def execute(self: Engine, run: Any, action: Any, call: Any) -> Outcome:
        found: Outcome = await before(self, run, action, call)
        return replace(found, result=Result.DONE) if found.result is Result.IN_DOUBT else found

    return execute


def _twice(before: Any) -> Any:
    async def execute(self: Engine, run: Any, action: Any, call: Any) -> Outcome:
        found: Outcome = await before(self, run, action, call)
        if found.result is Result.IN_DOUBT:
            return await before(self, run, action, replace(call, attempt=self.episodes.ids()))  # type: ignore[no-any-return]
        return found

    return execute


def _no_start_by(before: Any) -> Any:
    async def execute(self: Engine, run: Any, action: Any, call: Any) -> Outcome:
        return await before(self, run, action, replace(call, start_by=float("inf")))  # type: ignore[no-any-return]

    return execute


def _no_outcome(_: Any) -> Any:
    async def outcome(self: Engine, run: Any, call: Any, outcome: Outcome) -> None:
        run.events = await self.journal.events(run.episode)

    return outcome


def _without_evidence(before: Any) -> Any:
    def next_step(view: View) -> Any:
        step = before(replace(view, ledger=replace(view.ledger, diagnosed={"restart": 1.0, "again": 1.0})))
        return step if not isinstance(step, Diagnose) else steps.Wait(view.now + 1.0)

    return next_step


def _incomplete_is_enough() -> None:
    engine.EVIDENCE_FIRST = frozenset()


def _redone(before: Any) -> Any:
    """A doubt is no doubt: the rung is tried once more."""

    def next_step(view: View) -> Any:
        last = view.ledger.last
        if last is not None and last.in_doubt:
            return before(replace(view, ledger=replace(view.ledger, attempts=view.ledger.attempts[:-1])))
        return before(view)

    return next_step


def _steps(make: Callable[[Any], Any]) -> Plant:
    def plant() -> None:
        planner.next_step = make(planner.next_step)
        engine.next_step = planner.next_step  # type: ignore[attr-defined]

    return plant


def _not_waiting(_: Any) -> Any:
    """A doubt is concluded at once, before the attempt's duration has passed."""

    def doubt(view: View, attempt: Attempt) -> Any:
        return steps.SettleDoubt(attempt)

    return doubt


# -- proof ------------------------------------------------------------------------------------------


def _empty_is_good(before: Any) -> Any:
    def unknown(wanted: Any, why: str) -> CheckSample:
        return CheckSample(wanted.name, None, True, why)

    return unknown


def _unknown_is_good(before: Any) -> Any:
    return lambda look, proof: before(look, proof) is not False


def _no_hold(before: Any) -> Any:
    def judge(attempt: Any, proof: Any, look: Any, last_round: Any) -> Any:
        return before(attempt, proof.model_copy(update={"hold": 0.0}), look, last_round)

    return judge


def _judge(make: Callable[[Any], Any]) -> Plant:
    def plant() -> None:
        verification.judge = make(verification.judge)
        planner.judge = verification.judge  # type: ignore[attr-defined]

    return plant


def _no_trace_is_not_done(before: Any) -> Any:
    async def settle(self: Any, call: Any) -> Settled:
        found: Settled = await before(self, call)
        if found.settlement is Settlement.UNKNOWN or call.attempt not in self.world.gate_seen:
            return Settled(Settlement.NOT_DONE, "no trace")
        return found

    return settle


def _always_not_done(before: Any) -> Any:
    async def settle(self: Any, call: Any) -> Settled:
        return Settled(Settlement.NOT_DONE, "so it is said")

    return settle


# -- sight, journal and people ----------------------------------------------------------------------


def _any_server(before: Any) -> Any:
    """One Prometheus that says yes is enough."""

    def agree(looks: Sequence[Any]) -> Any:
        found = next((look for look in looks if look.answer is Answer.YES), None)
        return found if found is not None else before(looks)

    return agree


def _limits_in_memory() -> None:
    before = limits.facts

    def facts(tx: Any, asked: Any) -> Any:
        found = before(tx, asked)
        zero: dict[str, Any] = {
            f"{what}_{window}": 0 for what in ("resource", "runbook", "all") for window in ("hour", "day")
        }
        return replace(found, last_effect_at=None, fixed_lately=0, **zero)

    limits.facts = facts


def _uncharged() -> None:
    before = limits.intend

    def intend(tx: Any, owner: str, intent: Any, asked: Any, decide: Any) -> Any:
        found = before(tx, owner, intent, asked, decide)
        if found is None:
            tx.run(charges.delete().where(charges.c.attempt == intent.data["attempt"]))
        return found

    limits.intend = intend


def _resolved_closes(before: Any) -> Any:
    """Alertmanager's word is enough to close."""

    def next_step(view: View) -> Any:
        if view.ledger.last_delivery == "resolved" and view.book is not None:
            return steps.Close("cleared", "Alertmanager says so.")
        return before(view)

    return next_step


def _handed_over_in_silence(_: Any) -> Any:
    async def tell(self: Engine, run: Any, *, resolved: bool = False) -> bool:
        return True

    return tell


def _acknowledged_unstored(before: Any) -> Any:
    count = 0

    async def store(self: Journal, bodies: Any) -> None:
        nonlocal count
        count += 1
        if count % 2:
            await before(self, bodies)

    return store


def _no_reading_back(before: Any) -> Any:
    async def alerts(self: Any) -> list[bytes]:
        return []

    return alerts


def _lost_deliveries() -> None:
    """What was acknowledged is not stored, and nobody reads it back."""
    from remediator.sight import Sight  # noqa: PLC0415 - planted in its own process only

    Sight.active_alerts = _no_reading_back(None)  # type: ignore[method-assign]
    Journal.store = _acknowledged_unstored(Journal.store)  # type: ignore[method-assign]


def _any_answer_counts(before: Any) -> Any:
    """A decline is read as a yes."""

    async def answer(self: Episodes, run: Any, row: Any, data: Any) -> None:
        await before(self, run, row, {**data, "kind": "approve"})

    return answer


def _never_asked(before: Any) -> Any:
    def asked(view: View, case: Case, world: Any, said: Any) -> Any:
        return Intend(case.rung, world, replace(case, approved=True), answers=said)

    return asked


def _all_rungs_at_once(before: Any) -> Any:
    """Goes on to the next rung whatever the verdict is."""

    def rung(book: Any, ledger: Any) -> Any:
        if ledger.last is not None and ledger.attempts and len(ledger.attempts) < len(book.ladder):
            return book.ladder[len(ledger.attempts)]
        return before(book, ledger)

    return rung


def _harsh_first(before: Any) -> Any:
    return lambda book, ledger: book.ladder[-1] if ledger.last is None else before(book, ledger)


def _no_hold_off() -> None:
    async def hold(self: Engine) -> None:
        return None

    Engine.hold_off_after_step = hold  # type: ignore[assignment, method-assign]


def _never_only_waits(_: Any) -> Any:
    return lambda view, case: False


ASKED: frozenset[Sort | Wrong] = frozenset({Sort.ASKS})
ALONE: frozenset[Sort | Wrong] = frozenset({Wrong.PROMETHEUS_LAGS, Sort.HEALS})
LOST: frozenset[Sort | Wrong] = frozenset({Wrong.ANSWER_LOST, Wrong.CALL_LOST, Wrong.CALL_HANGS, Wrong.SILENT})
FORGETTING: frozenset[Sort | Wrong] = frozenset({Wrong.ANSWER_LOST, Wrong.GATE_RESTARTED})
GUARDRAILS: dict[str, Collection[Sort | Wrong]] = {
    "stale": {Sort.STALE},
    "settling": {Sort.HEALS},
    "rule": {Wrong.PROMETHEUS_LAGS, Sort.CURED},
    "clock_skew": {Wrong.PROMETHEUS_SKEWED},
    "blocked_by": {Sort.CAUSE},
    "muted": {Sort.SILENCED},
    "vantage": {Sort.EXPORTER},
    "target_agrees": {Sort.PERSON, Sort.DEPLOYED},
    "paused": {Sort.CURED, Wrong.PAUSED, Wrong.PAUSE_FILE},
    "cooldown": {Sort.RETURNS},
    "rate_limit": {Sort.RETURNS},
    "storm": {Sort.STORM},
    "recurrence": {Sort.CURED},
}
"""Each guardrail, and what it is for."""
MUTANTS: tuple[Mutant, ...] = (
    *(Mutant(name, f"guardrail `{name}` is gone", without(name), often) for name, often in GUARDRAILS.items()),
    Mutant(
        "busy", "guardrails `busy` and `cooldown`, which stand in for each other, are gone", without("busy", "cooldown")
    ),
    Mutant(
        "in_doubt",
        "guardrails `in_doubt`, `busy` and `cooldown`, which stand in for each other, are gone",
        without("in_doubt", "busy", "cooldown"),
    ),
    Mutant("mode_of", "the mode is not asked for", _always_auto, {Wrong.SHADOW, Wrong.APPROVE}),
    Mutant("foreign", "an alert of another environment counts as ours", _foreign, {Sort.FOREIGN}),
    Mutant("locked", "under the lock nothing is asked again", put(guardrails, "locked", _intent_without_lock)),
    Mutant("late_intent", "the intent is written after the effect", put(Engine, "_act", _effect_before_intent)),
    Mutant("lost_is_failed", "a lost answer is called failed", put(Engine, "_execute", _lost_is_failed), LOST),
    Mutant("lost_is_done", "a lost answer is called done", put(Engine, "_execute", _lost_is_done), LOST),
    Mutant("call_again", "a lost answer is asked for by a second call", put(Engine, "_execute", _twice), LOST),
    Mutant("no_start_by", "the gate is not told `start_by`", put(Engine, "_execute", _no_start_by), {Wrong.FREEZE}),
    Mutant("no_outcome", "outcomes are not written", put(Engine, "_outcome", _no_outcome)),
    Mutant("no_evidence", "nothing is captured before a restart", _steps(_without_evidence), {Wrong.NO_EVIDENCE}),
    Mutant("some_evidence", "evidence that could not be read is enough", _incomplete_is_enough, {Wrong.NO_EVIDENCE}),
    Mutant("redone", "what is in doubt is done again", _steps(_redone), LOST),
    Mutant("settled_at_once", "a doubt is settled before its time is over", put(planner, "_doubt", _not_waiting), LOST),
    Mutant("no_trace", "no trace is called not done", put(SimRestart, "settle", _no_trace_is_not_done), FORGETTING),
    Mutant("never_done", "every doubt is called not done", put(SimRestart, "settle", _always_not_done), LOST),
    Mutant(
        "empty_proof",
        "a proof without samples counts as good",
        put(proofs, "_unknown", _empty_is_good),
        {Wrong.PROMETHEUS_RESTARTED},
    ),
    Mutant("unknown_proof", "an unknown round of proof counts as good", put(verification, "state", _unknown_is_good)),
    Mutant("no_hold", "the first good round proves it", _judge(_no_hold)),
    Mutant("one_prometheus", "one Prometheus is enough for a yes", put(rules, "agree", _any_server), ALONE),
    Mutant("limits_in_memory", "limits do not outlive a restart", _limits_in_memory, {Sort.RETURNS}),
    Mutant("uncharged", "an intent is not charged", _uncharged, {Sort.RETURNS}),
    Mutant("resolved_closes", "resolved closes an episode", _steps(_resolved_closes), {Wrong.FALSE_RESOLVED}),
    Mutant("silent", "what is handed over is told to nobody", put(Engine, "_tell_standing", _handed_over_in_silence)),
    Mutant("unstored", "deliveries are acknowledged and not stored", _lost_deliveries),
    Mutant(
        "declined_is_yes", "a decline is taken for a yes", put(Episodes, "_answer", _any_answer_counts), {Sort.ASKS}
    ),
    Mutant("never_asked", "nobody is asked", put(deciding, "_asked", _never_asked), ASKED),
    Mutant("all_rungs", "the next rung follows whatever the verdict is", put(planner, "_rung", _all_rungs_at_once)),
    Mutant("harsh_first", "the harshest rung goes first", put(planner, "_rung", _harsh_first)),
    Mutant(
        "takes_turns",
        "who only waits for an answer is held back for others after a storm",
        put(deciding, "_only_waits", _never_only_waits),
        {Sort.ASKS, Sort.STORM},
    ),
    Mutant("no_hold_off", "a step of the clock is not noticed", _no_hold_off, {Wrong.STEP}),
)
