"""Other numbers for the same past: `--set NAME=VALUE`. Pure.

guards.storm_episodes=20             over all runbooks, as in the settings
limits.cooldown=10m, settle=2m       of every runbook
compliance-engine-slow:settle=2m     of one runbook
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from backtest.errors import Unusable
from remediator.runbooks import Limits, Runbook
from remediator.settings import Guards, Settings

GUARDS = ("all_per_hour", "all_per_day", "storm_episodes", "storm_calm")
"""The guards that a history can tell something about; the others rest on verdicts and clocks."""
NUMBERS = (*(f"limits.{name}" for name in Limits.model_fields), "settle", "stale_after", "approve_within")


def changed(
    wishes: Sequence[str], settings: Settings, books: Sequence[Runbook]
) -> tuple[Settings, tuple[Runbook, ...]]:
    """Settings and runbooks with these numbers. Raises Unusable for a name or a value that cannot be."""
    made = list(books)
    for wish in wishes:
        name, equals, value = wish.partition("=")
        if not equals:
            raise Unusable(2, f"--set {wish!r} is not NAME=VALUE.", f"Names are {', '.join(names())}.")
        if name.startswith("guards.") and name.removeprefix("guards.") in GUARDS:
            guards = _validated(wish, Guards, settings.guards.model_dump(), name.removeprefix("guards."), value)
            settings = settings.model_copy(update={"guards": guards})
            continue
        only, _, number = name.rpartition(":")
        if number not in NUMBERS or (only and only not in [book.name for book in made]):
            raise Unusable(2, f"--set {name}: no such number.", f"There are {', '.join(names())}.")
        made = [book if only and book.name != only else _book(wish, book, number, value) for book in made]
    return settings, tuple(made)


def names() -> list[str]:
    """Everything that may be set; what is not of `guards` also for one runbook, as RUNBOOK:NAME."""
    return [*(f"guards.{name}" for name in GUARDS), *NUMBERS]


def _book(wish: str, book: Runbook, number: str, value: str) -> Runbook:
    data = book.model_dump()
    if number.startswith("limits."):
        limits = _validated(wish, Limits, data["limits"], number.removeprefix("limits."), value)
        return book.model_copy(update={"limits": limits})
    made: Runbook = _validated(wish, Runbook, data, number, value)
    return made


def _validated(wish: str, model: type[Any], data: dict[str, Any], name: str, value: str) -> Any:
    whole = model.model_fields[name].annotation is int  # a bare number of what has a unit says nothing
    given: int | str = int(value) if whole and value.isdigit() else value
    try:
        return model.model_validate({**data, name: given})
    except (ValidationError, ValueError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise Unusable(2, f"--set {wish}: {told}.") from error
