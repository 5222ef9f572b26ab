"""May it act? Every rule that can say no, each a small pure function with a named reason.

A guardrail takes the whole `Case` and returns a `Refusal` or None. Unknown is never permission: where a
question got no answer, the guardrail that needs it refuses. Numbers come from the runbook and the settings,
never from an alert. The limits are judged twice with the same functions: once to plan, and once more on facts
read under the lock of the intent's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from remediator.durations import human
from remediator.facts import Facts
from remediator.ledger import Command, Ledger
from remediator.reasons import Reason, Refusal
from remediator.runbooks import MODES, Mode, Runbook, Rung
from remediator.settings import Guards, Settings
from remediator.world import Answer, Health, World

HOUR, DAY = 3600.0, 86400.0
HELD_AGAIN = 30.0  # seconds until it is decided again at the latest; whoever may be next is woken before


@dataclass(frozen=True, slots=True)
class Case:
    """Everything a decision may depend on. `world` is None before the look.

    must_ask  the rung or its action needs a person's approval whatever the mode is
    approved  there is one, for exactly what the look's preview would do, and it is still good
    command   a person wants it done: no mode holds, and no guardrail that asks whether the alert is right
    """

    now: float
    ledger: Ledger
    book: Runbook
    rung: Rung
    settings: Settings
    facts: Facts
    world: World | None = None
    must_ask: bool = False
    approved: bool = False
    command: Command | None = None

    def look(self) -> World:
        """The look; asking for it before there is one is a mistake in the order of the guardrails."""
        if self.world is None:
            raise ValueError("this guardrail needs a look at the world")
        return self.world


Guardrail = Callable[[Case], Refusal | None]


Answers = dict[str, str]
"""What guardrails said of one case, by name: "" is a yes, else the sentence of the no. Others were not asked."""


def first(rules: Iterable[Guardrail], case: Case, answers: Answers | None = None) -> Refusal | None:
    """The first rule that refuses, in order, or None. `answers` gets what each said that was asked."""
    for rule in rules:
        refusal = rule(case)
        if answers is not None:
            answers[rule.__name__] = refusal.sentence if refusal else ""
        if refusal is not None:
            return refusal
    return None


def mode_of(facts: Facts, book: Runbook, guards: Guards) -> Mode:
    """The strictest of what the live replicas are told, what the runbook may ever do, and what it has earned."""
    modes = (facts.strictest_mode, book.mode, "approve" if demotion(facts, guards) else "auto")
    return next((mode for mode in MODES if mode in modes), "shadow")


def demotion(facts: Facts, guards: Guards) -> str | None:
    """Why the runbook may only ask by now: a person has not restored it yet, or its budget is spent this moment."""
    if facts.demoted:
        return facts.demoted
    judged = facts.recent[: guards.budget_episodes]
    failures = len(judged) - sum(judged)
    if failures < guards.budget_failures:
        return None
    return (
        f"{failures} of its last {len(judged)} episodes were not proven fixed; {guards.budget_failures} are too many."
    )


# -- before the look: what the journal and the clock already say --------------------------------------


def stale(case: Case) -> Refusal | None:
    """An old alert is a person's by now. The age counts from `startsAt`; one from the future is no better."""
    age = case.now - case.ledger.alert.starts_at
    limit = case.book.stale_after
    if age > limit:
        return Refusal(
            Reason.STALE_ALERT, f"The alert is {human(age)} old; {case.book.name} acts up to {human(limit)}."
        )
    if age < -60.0:
        return Refusal(
            Reason.STALE_ALERT, f"The alert starts {human(-age)} in the future; its clock cannot be trusted."
        )
    return None


def settling(case: Case) -> Refusal | None:
    """Some faults heal by themselves, and a cause needs time to show: wait the settle time out."""
    wait = case.rung.wait if case.ledger.last else case.book.settle
    since = case.ledger.last.verdict_at or case.ledger.last.outcome_at if case.ledger.last else case.ledger.first_seen
    if case.now < since + wait:
        return Refusal(Reason.SETTLING, f"Waiting {human(wait)} whether it heals by itself.", since + wait)
    return None


# -- limits: judged while planning and again under the lock ---------------------------------------------


def journal_regressed(case: Case) -> Refusal | None:
    """What was acknowledged is missing: limits and doubts that are read from the journal may be too few."""
    if case.facts.regressed:
        said = f"Starting nothing until a person has looked and resumed: {case.facts.regressed}."
        return Refusal(Reason.JOURNAL_REGRESSED, said)
    return None


def paused(case: Case) -> Refusal | None:
    """A person said stop. The file works even when nothing else does."""
    if case.world is not None and case.world.pause_file:
        return Refusal(Reason.PAUSED, f"The pause file {case.settings.pause_file} is there.")
    if case.facts.paused:
        return Refusal(Reason.PAUSED, f"Paused: {'; '.join(case.facts.paused)}.")
    return None


def recovering(case: Case) -> Refusal | None:
    """After a start without a clean shutdown, or a clock step, an effect may be under way unseen."""
    until = case.facts.hold_off_until
    if until is not None and case.now < until:
        left = human(until - case.now)
        return Refusal(
            Reason.RECOVERING,
            f"Starting nothing for {left}: {case.facts.hold_off_why or 'an effect may be under way unseen'}.",
            until,
        )
    return None


def clock_behind(case: Case) -> Refusal | None:
    """The journal knows a later time than the clock: cooldowns computed from it would be wrong."""
    ahead = case.facts.head_at - case.now
    if ahead > case.settings.guards.clock_step:
        return Refusal(Reason.CLOCK, f"The journal's newest event is {human(ahead)} ahead of the clock.")
    return None


def in_doubt(case: Case) -> Refusal | None:
    """While it is open whether an earlier effect happened, no other effect on that resource."""
    if case.facts.doubts:
        return Refusal(
            Reason.TARGET_IN_DOUBT, f"An earlier attempt on this target is in doubt (episode {case.facts.doubts[0]})."
        )
    return None


def busy(case: Case) -> Refusal | None:
    """One at a time: another episode's action on this resource is not proven yet, or people have it in hand.

    A person's own command is how they have it in hand: only what is still being proven stands in its way.
    """
    holds = case.facts.unproven if case.command is not None else case.facts.holds
    if holds:
        said = f"Episode {holds[0]} has this target: it acts, or it was handed to people."
        return Refusal(Reason.TARGET_BUSY, said)
    return None


def cooldown(case: Case) -> Refusal | None:
    """Time must pass between remediations of one resource. Rungs of one episode are one remediation."""
    last, wait = case.facts.last_effect_at, case.book.limits.cooldown
    if last is not None and case.now < last + wait:
        ago = human(max(0.0, case.now - last))
        return Refusal(
            Reason.COOLDOWN, f"This target was acted on {ago} ago; the cooldown is {human(wait)}.", last + wait
        )
    return None


def rate_limit(case: Case) -> Refusal | None:
    """So many an hour and a day, by target, by runbook, over all: a fix that is needed again is no fix."""
    facts, limits, guards = case.facts, case.book.limits, case.settings.guards
    counts = (
        ("this target", facts.resource_hour, limits.per_hour, HOUR),
        ("this target", facts.resource_day, limits.per_day, DAY),
        ("this runbook", facts.runbook_hour, limits.per_hour, HOUR),
        ("this runbook", facts.runbook_day, limits.per_day, DAY),
        ("all runbooks", facts.all_hour, guards.all_per_hour, HOUR),
        ("all runbooks", facts.all_day, guards.all_per_day, DAY),
    )
    for what, count, limit, window in counts:
        if count >= limit:
            return Refusal(Reason.RATE_LIMIT, f"{count} of {limit} allowed in {human(window)} for {what} are used.")
    return None


def storm(case: Case) -> Refusal | None:
    """Many faults at once have one cause, and it is not in any runbook. It lasts until it was calm for a while."""
    if case.facts.storm:
        said = f"A storm holds ({case.facts.storm}): it is for people."
        return Refusal(Reason.STORM, said, case.now + HELD_AGAIN)
    count, limit = case.facts.open_firing, case.settings.guards.storm_episodes
    if count >= limit and not case.facts.storm_overridden:
        said = f"{count} episodes are open at once; {limit} are a storm, and a storm is for people."
        return Refusal(Reason.STORM, said, case.now + HELD_AGAIN)
    return None


def releasing(case: Case) -> Refusal | None:
    """After a storm or a pause not all at once: one at a time, the most severe first, each proven before the next."""
    if case.facts.releasing:
        sentence = f"One after the other after a storm or a pause: {case.facts.releasing}."
        return Refusal(Reason.RELEASING, sentence, case.now + HELD_AGAIN)
    return None


def recurrence(case: Case) -> Refusal | None:
    """A fix that always works, again and again, hides a cause: it becomes somebody's ticket."""
    count, limit = case.facts.fixed_lately, case.book.limits.recurrence
    if count >= limit and case.ledger.last is None:
        return Refusal(
            Reason.RECURRENCE,
            f"{case.book.name} has fixed this target {count} times within 7 days; {limit} hide a cause.",
        )
    return None


def look_stale(case: Case) -> Refusal | None:
    """Between the look and the intent the process may have been frozen."""
    if case.world is None:
        return None
    age, limit = case.now - case.world.looked_at, case.settings.guards.look_max_age
    if not -1.0 <= age <= limit:
        return Refusal(Reason.LOOK_STALE, f"The look is {human(abs(age))} old; at most {human(limit)}.", case.now)
    return None


# -- after the look: what is true now --------------------------------------------------------------------


def rule(case: Case) -> Refusal | None:
    """The alert's rule, as every Prometheus evaluates it now, must be true for this target."""
    world = case.look()
    if world.rule is Answer.NO:
        return Refusal(Reason.RULE_CLEARED, f"The rule is not true any more: {world.rule_detail}.")
    if world.rule is Answer.UNKNOWN:
        return Refusal(Reason.RULE_UNKNOWN, f"Whether the rule is true cannot be known: {world.rule_detail}.")
    return None


def clock_skew(case: Case) -> Refusal | None:
    """Prometheus' clock and ours must agree, or freshness means nothing."""
    skew, limit = case.look().skew, case.settings.prometheus.max_skew
    if skew is None:
        return Refusal(Reason.CLOCK, "Prometheus' clock is not known.")
    if abs(skew) > limit:
        return Refusal(Reason.CLOCK, f"Prometheus' clock is off by {human(abs(skew))}; at most {human(limit)}.")
    return None


def blocked_by(case: Case) -> Refusal | None:
    """A cause is firing: treating its symptom does harm."""
    causes = case.look().causes
    if causes is None:
        return Refusal(Reason.RULE_UNKNOWN, "Whether a cause is firing cannot be known.")
    if causes:
        return Refusal(Reason.BLOCKED_BY_CAUSE, f"A cause is pending or firing: {', '.join(causes)}.")
    return None


def muted(case: Case) -> Refusal | None:
    """A silence or an inhibition means a person, or a cause, is on it."""
    world = case.look()
    if world.muted is Answer.UNKNOWN:
        return Refusal(Reason.ALERTMANAGER_UNREACHABLE, f"Silences cannot be read: {world.muted_by}.")
    if world.muted is Answer.YES:
        return Refusal(Reason.MUTED, f"The alert is silenced or inhibited: {world.muted_by}.")
    return None


def vantage(case: Case) -> Refusal | None:
    """The remediator's own look at the target must agree: an exporter's fault is not the target's."""
    world = case.look()
    if case.book.vantage.kind == "preview":
        return None  # preview_possible and nothing_to_do decide
    if world.probe is Health.UNKNOWN:
        return Refusal(Reason.VANTAGE_UNKNOWN, f"The direct probe has no answer: {world.probe_detail}.")
    if world.probe is Health.HEALTHY:
        return Refusal(Reason.VANTAGE_DISAGREES, f"The direct probe finds the target healthy: {world.probe_detail}.")
    return None


def preview_possible(case: Case) -> Refusal | None:
    """What would be done must be known before it is done."""
    world = case.look()
    if world.preview is None:
        return Refusal(Reason.TARGET_UNREACHABLE, f"The target cannot be looked at: {world.preview_error}.")
    return None


def target_agrees(case: Case) -> Refusal | None:
    """The target's own reasons: no opt-in label, a one-off, an exec running, a query that has written, …"""
    preview = case.look().preview
    return preview.refusals[0] if preview is not None and preview.refusals else None


def nothing_to_do(case: Case) -> Refusal | None:
    """An empty selection selects nothing. It never means everything."""
    preview = case.look().preview
    if preview is not None and not preview.items:
        return Refusal(Reason.NOTHING_TO_DO, f"Nothing here to act on: {preview.summary}")
    return None


BEFORE_LOOK: tuple[Guardrail, ...] = (stale, journal_regressed, paused)
AFTER_LOOK: tuple[Guardrail, ...] = (
    rule,
    clock_skew,
    blocked_by,
    muted,
    preview_possible,
    target_agrees,
    vantage,
    nothing_to_do,
)
HELD_BACK: tuple[Guardrail, ...] = (storm, releasing)
"""What may hold hundreds at once: asked before the look, which would be made of each of them for nothing."""
LIMITS: tuple[Guardrail, ...] = (
    journal_regressed,
    paused,
    recovering,
    clock_behind,
    in_doubt,
    busy,
    storm,
    recurrence,
    cooldown,
    rate_limit,
    look_stale,
    releasing,
)


BY_HAND: tuple[Guardrail, ...] = (preview_possible, target_agrees, nothing_to_do)
"""Of the look's guardrails those that hold for a person's own command: what the target itself says."""
GLASS: tuple[Guardrail, ...] = (paused, storm, releasing, recurrence, cooldown, rate_limit)
"""What protects from the automation; a person with the role admin may break the glass before it."""


def bounds(case: Case) -> tuple[Guardrail, ...]:
    """The limits that hold for this case."""
    if case.command is None or not case.command.break_glass:
        return LIMITS
    return tuple(rule for rule in LIMITS if rule not in GLASS)


def locked(case: Case, answers: Answers | None = None) -> Refusal | None:
    """What the intent's transaction asks once more, on facts read under its lock: mode, approval and limits."""
    mode = mode_of(case.facts, case.book, case.settings.guards)
    if mode == "shadow" and case.command is None:
        return Refusal(Reason.SHADOW, "The mode was changed meanwhile.")
    if (mode == "approve" or case.must_ask) and not case.approved and case.command is None:
        return Refusal(Reason.NEEDS_APPROVAL, "A person must approve it by now.")
    return first(bounds(case), case, answers)
