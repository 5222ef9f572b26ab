"""An episode keeps the runbook version it was decided on; what the newest one forbids holds for it all the same. Pure.

In: the version in the journal and the one that is loaded now. Out: what the episode goes on with. It must never be
freer than either: a person who lowers a limit while something is going on means what is going on, too.
"""

from __future__ import annotations

from remediator.runbooks import MODES, Limits, Runbook, Rung


def binding(decided: Runbook, newest: Runbook | None) -> Runbook:
    """The decided version with the stricter of both versions' limits, mode, settle time and approvals.

    newest  the runbook of that name as it is loaded now; None when there is none any more: nothing new is begun then
            (mode shadow), and what was begun is proved as it was decided.
    """
    if newest is None:
        return decided.model_copy(update={"mode": MODES[0]})
    if newest == decided:
        return decided
    changes = {
        "mode": min(decided.mode, newest.mode, key=MODES.index),
        "settle": max(decided.settle, newest.settle),
        "limits": _limits(decided.limits, newest.limits),
        "ladder": tuple(_rung(rung, newest.rung(rung.name)) for rung in decided.ladder),
    }
    return decided.model_copy(update=changes)


def _limits(one: Limits, other: Limits) -> Limits:
    """Of the numbers the smaller, of the cooldowns the longer."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in Limits.model_fields}
    return one.model_copy(update={name: max(pair) if name == "cooldown" else min(pair) for name, pair in pairs.items()})


def _rung(decided: Rung, newest: Rung | None) -> Rung:
    """A rung that asks for approval in either version asks for it."""
    return decided if newest is None or not newest.approval else decided.model_copy(update={"approval": True})
