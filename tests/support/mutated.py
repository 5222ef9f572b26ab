"""`prep-remediator` with guardrails replaced by "allowed": what tests show the worth of each with. Never shipped.

    python -m tests.support.mutated cooldown,rate_limit --config.file=remediator.yml

Replaced before anything else of the remediator is imported, so that every module sees the replacement.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from remediator import guardrails, matching
from remediator.alerts import Alert
from remediator.guardrails import Case
from remediator.matching import Matched
from remediator.reasons import Reason, Refusal
from remediator.runbooks import Runbook

TABLES = ("BEFORE_LOOK", "HELD_BACK", "AFTER_LOOK", "LIMITS")
TARGET = "target_agrees:"
"""Followed by a reason: of the target's own reasons only this one is not heard."""


def allowed(*_: object) -> None:
    """In the place of a guardrail, or of what demotes a runbook."""


def put(name: str, instead: Callable[..., Any]) -> None:
    """In the place of a function of `remediator.guardrails`, in its tables too."""
    before = getattr(guardrails, name)
    setattr(guardrails, name, instead)
    for table in TABLES:
        rules = getattr(guardrails, table)
        setattr(guardrails, table, tuple(instead if rule is before else rule for rule in rules))


def all_but(unheard: frozenset[str], case: Case) -> Refusal | None:
    """As `target_agrees`, deaf to some reasons."""
    preview = case.look().preview
    left = [refusal for refusal in preview.refusals if refusal.reason not in unheard] if preview else []
    return left[0] if left else None


def unaware(before: Callable[..., Awaitable[list[Refusal]]], unheard: frozenset[str]) -> Any:
    """As what asks the target once more right before the call, deaf to the same reasons."""

    async def forbids(*given: Any) -> list[Refusal]:
        return [refusal for refusal in await before(*given) if refusal.reason not in unheard]

    return forbids


def ours(before: Callable[..., Matched | Refusal], alert: Alert, books: Any, environment: str) -> Matched | Refusal:
    """As `match`, for which no alert is foreign."""
    found = before(alert, books, environment)
    if not isinstance(found, Refusal) or found.reason is not Reason.FOREIGN_ALERT:
        return found
    labels: dict[str, str] = {**alert.labels, "environment": environment}
    book: Runbook | None = next((book for book in books if alert.name in book.match.alertnames), None)
    if book is not None:
        labels |= {"job": book.match.jobs[0], **book.match.labels}
    return before(replace(alert, labels=labels), books, environment)


def without_asking(**given: Any) -> Case:
    """A case in which neither rung nor action needs a person."""
    return Case(**{**given, "must_ask": False})


def mutate(names: str) -> None:
    """Replace each of these guardrails; raises AttributeError for one that does not exist."""
    wanted = names.split(",")
    unheard = frozenset(name.removeprefix(TARGET) for name in wanted if name.startswith(TARGET))
    if unheard - {str(reason) for reason in Reason}:
        raise AttributeError(f"no such reason of a target: {sorted(unheard)}")
    if unheard:
        from remediator.actions.restart_service import RestartService  # noqa: PLC0415 - after the others were replaced

        RestartService._forbids = unaware(RestartService._forbids, unheard)  # type: ignore[method-assign]
        deaf = partial(all_but, unheard)
        deaf.__name__ = "target_agrees"  # type: ignore[attr-defined] # an answer is told under the guardrail's name
        put("target_agrees", deaf)
    for name in wanted:
        if name.startswith(TARGET):
            continue
        if name == "match":
            matching.match = partial(ours, matching.match)
        elif name == "must_ask":
            put("Case", without_asking)
        elif name == "mode_of":
            put(name, lambda *_: "auto")
        elif name == "evidence_first":
            from remediator import engine  # noqa: PLC0415 - only after what is replaced before it

            engine.EVIDENCE_FIRST = frozenset()
        else:
            put(name, allowed)


def main() -> int:
    """The program as it ships, but for what the first argument names."""
    mutate(sys.argv.pop(1))
    from remediator import __main__ as program  # noqa: PLC0415 - after what is replaced

    return program.main()


if __name__ == "__main__":
    sys.exit(main())
