"""What every guardrail said at a decision, as the decision's own event tells: passed, refused, or not asked.

In: an event in which something was decided. Out: a line a guardrail, in the order in which they are asked. Pure.
Nothing is concluded here: the planner writes down each answer that it got (`guardrails.Answers`), and asks no further
after a no.
"""

from __future__ import annotations

from dataclasses import dataclass

from remediator import guardrails
from remediator.events import Event
from remediator.guardrails import AFTER_LOOK, BEFORE_LOOK, BY_HAND, GLASS, LIMITS, Guardrail
from remediator.ledger import Command

ORDER: tuple[Guardrail, ...] = tuple(dict.fromkeys((*BEFORE_LOOK, guardrails.settling, *AFTER_LOOK, *LIMITS)))


@dataclass(frozen=True, slots=True)
class Check:
    """A guardrail's answer. `said` is passed, refused, or not asked; `why` a no's sentence; `what` it is for."""

    name: str
    said: str
    why: str
    what: str


def checks(event: Event, command: Command | None = None) -> tuple[Check, ...]:
    """In order; empty where no guardrail decided. `command` for an episode that a person began."""
    answers: dict[str, str] = event.data.get("answers") or {}
    if not answers:
        return ()
    rules = {rule.__name__: rule for rule in _order(command)}
    unknown = [name for name in answers if name not in rules]  # of another version of the program
    return tuple(_check(name, rules.get(name), answers.get(name)) for name in (*rules, *unknown))


def _order(command: Command | None) -> tuple[Guardrail, ...]:
    """Those that hold for an alert, or for a person's command."""
    if command is None:
        return ORDER
    limits = LIMITS if not command.break_glass else tuple(rule for rule in LIMITS if rule not in GLASS)
    return tuple(dict.fromkeys((guardrails.stale, *BY_HAND, *limits)))


def _check(name: str, rule: Guardrail | None, answer: str | None) -> Check:
    text = " ".join((rule.__doc__ or "").split()) if rule is not None else ""
    what = text.partition(". ")[0].rstrip(".") + "." if text else ""
    said = "not asked" if answer is None else "refused" if answer else "passed"
    return Check(name.replace("_", " "), said, answer or "", what)
