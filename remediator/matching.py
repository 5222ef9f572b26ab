"""From an alert to its runbook and target, or the named reason why none. Pure.

The runbook pins alertname and job, the settings pin the environment: an alert of another environment or team
is foreign and never acted on, whatever else it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from remediator.alerts import Alert, episode_key
from remediator.reasons import Reason, Refusal
from remediator.runbooks import FromLabel, Runbook, Rung


@dataclass(frozen=True, slots=True)
class Matched:
    """A runbook and the values of its target labels, in the runbook's order."""

    runbook: Runbook
    target: Mapping[str, str]


def match(alert: Alert, books: Iterable[Runbook], environment: str) -> Matched | Refusal:
    """The runbook for an alert.

    The environment is looked at before the runbook: an alert of staging is foreign even where no runbook
    would match it. `job` must be one the runbook names; a rule that aggregated it away never matches.
    """
    found = alert.labels.get("environment", "")
    if found != environment:
        said = f"environment {found!r}" if found else "no environment label"
        return Refusal(Reason.FOREIGN_ALERT, f"The alert has {said}; this remediator acts in {environment!r} only.")
    book = next((book for book in books if alert.name in book.match.alertnames), None)
    if book is None:
        return Refusal(Reason.NO_RUNBOOK, f"No runbook matches the alert {alert.name}.")
    job = alert.labels.get("job", "")
    if job not in book.match.jobs:
        jobs = ", ".join(book.match.jobs)
        return Refusal(Reason.FOREIGN_ALERT, f"The alert comes from job {job!r}; runbook {book.name} is for {jobs}.")
    for name, value in book.match.labels.items():
        if alert.labels.get(name) != value:
            return Refusal(
                Reason.FOREIGN_ALERT,
                f"The alert has {name}={alert.labels.get(name, '')!r}; runbook {book.name} is for {value!r}.",
            )
    target = {name: alert.labels.get(name, "") for name in book.target_labels}
    if missing := [name for name, value in target.items() if not value]:
        return Refusal(Reason.NO_TARGET, f"The alert lacks the target label {', '.join(missing)}.")
    return Matched(book, target)


def key_of(alert: Alert, books: Iterable[Runbook], environment: str) -> str:
    """The episode's key: by target where a runbook names one, else by the alert's own fingerprint.

    Alerts without a target are never merged: the second fault would be acknowledged and forgotten.
    """
    matched = match(alert, books, environment)
    if isinstance(matched, Refusal):
        return f"nt:{alert.fingerprint}"
    return episode_key(alert.name, matched.target, environment)


def params_of(rung: Rung, labels: Mapping[str, str]) -> dict[str, str | int | float | bool]:
    """The rung's parameters with target labels filled in; the action's model validates them afterwards."""
    return {
        name: labels.get(value.label, "") if isinstance(value, FromLabel) else value
        for name, value in rung.params.items()
    }
