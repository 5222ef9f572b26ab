"""Why a runbook that loads would never act: alerts that no rule makes, targets that the settings keep from it. Pure.

In: runbooks, the rules of a folder and the settings, as far as they are at hand. Out: faults, each with what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prepctl.alert_rules import Rules
from remediator.actions.registry import CLASSES
from remediator.captures import OF_DATABASES, OF_PAYMENTS, OF_REDIS
from remediator.errors import Fault
from remediator.runbooks import FromLabel, Runbook, Rung
from remediator.settings import Settings

ACTIONS = {action.name: action for action in CLASSES}


def of_rules(book: Runbook, rules: Rules) -> Iterator[Fault]:
    """Alerts, jobs, labels and causes that no rule can give: what waits for them waits for ever."""
    for name in book.match.alertnames:
        found = rules.alerts(name)
        if not found:
            yield Fault(
                f"{book.name}: match.alertnames", f"no rule makes the alert {name}", "mend the name, or drop it"
            )
            continue
        for label, value in book.match.labels.items():
            if not any(rules.can_have(rule, label, value) for rule in found):
                said = f"no alert {name} can have {label}={value!r}"
                yield Fault(f"{book.name}: match.labels.{label}", said, "see the rule's labels and its expression")
        for label in book.target_labels:
            if not any(rules.can_have(rule, label) for rule in found):
                said = f"no alert {name} can have the label {label}: each is refused no_target"
                yield Fault(f"{book.name}: target_labels", said, "have the rule keep it, or put it on")
        told = {rule.labels.get("runbook", book.name) for rule in found}
        if told != {book.name}:
            said = f"the rule {name} has the label runbook={min(told - {book.name})!r}"
            yield Fault(f"{book.name}: name", said, "the label names the runbook")
    yield from _jobs(book, rules)
    yield from _causes(book, rules)


def _jobs(book: Runbook, rules: Rules) -> Iterator[Fault]:
    """Each alert must come from one of the jobs, and each job must be good for an alert."""
    given = {name: rules.alerts(name) for name in book.match.alertnames}
    for name, found in given.items():
        if found and not any(rules.can_have(rule, "job", job) for rule in found for job in book.match.jobs):
            jobs = " or ".join(book.match.jobs)
            said = f"no alert {name} can have job {jobs}: each is refused foreign_alert"
            yield Fault(f"{book.name}: match.jobs", said, "does the rule aggregate the job away?")
    for job in book.match.jobs:
        if not any(rules.can_have(rule, "job", job) for found in given.values() for rule in found):
            yield Fault(f"{book.name}: match.jobs", f"none of its alerts can have job {job}", "mend it, or drop it")


def _causes(book: Runbook, rules: Rules) -> Iterator[Fault]:
    for name in book.blocked_by:
        if name in book.match.alertnames:
            yield Fault(f"{book.name}: blocked_by", f"{name} is its own alert: it is always blocked", "drop it here")
        elif not rules.alerts(name):
            said = f"no rule makes the alert {name}: whether it fires can never be known, and nothing is done"
            yield Fault(f"{book.name}: blocked_by", said, "mend the name, or drop it")


def of_settings(book: Runbook, settings: Settings, rules: Rules | None) -> Iterator[Fault]:
    """What the settings do not let each rung do. Without rules, only what holds for every target there could be."""
    for rung in book.ladder:
        services = targets(book, rung, settings, rules)
        if services is None:
            continue
        found = {service: list(_of_target(book, rung, settings, service)) for service in services}
        where = f"{book.name}: ladder.{rung.name}"
        if not found:
            remedy = "list it under `services`, `databases` or `redis`"
            yield Fault(where, f"{rung.action} has no target: none that its alerts name is in the settings", remedy)
        elif rules is not None or all(found.values()):
            for service, faults in found.items():
                yield from (Fault(f"{where} on {service}: {each.where}", each.what, each.remedy) for each in faults)


def targets(book: Runbook, rung: Rung, settings: Settings, rules: Rules | None) -> Sequence[str] | None:
    """Services that the rung could be for: the fixed one, or those in the settings that an alert can name.

    Without rules all that are in the settings. None for an action that the settings list nothing for.
    """
    given = rung.params.get("service")
    if isinstance(given, str):
        return (given,)
    listed = ACTIONS[rung.action].listed(settings)
    if listed is None or rules is None or not isinstance(given, FromLabel):
        return listed
    found = [rule for name in book.match.alertnames for rule in rules.alerts(name)]
    return [service for service in listed if any(rules.can_have(rule, given.label, service) for rule in found)]


def _of_target(book: Runbook, rung: Rung, settings: Settings, service: str) -> Iterator[Fault]:
    yield from ACTIONS[rung.action].obstacles(settings, service)
    entry = settings.services.get(service)
    probed = (
        service in settings.databases or service in settings.redis or (entry is not None and entry.probe is not None)
    )
    if not probed and book.vantage.kind == "probe":
        said = "has no probe: the second vantage has no answer, and it never acts"
        yield Fault(f"services.{service}.probe", said, "give it one, or take vantage {kind: preview}")
    if not probed and book.proof.probe:
        said = "has no probe: the proof is never complete, and each attempt ends with people"
        yield Fault(f"services.{service}.probe", said, "give it one, or say `proof.probe: false`")
    if service not in settings.databases and (asked := sorted(OF_DATABASES & set(book.diagnosis))):
        said = f"is no database: {', '.join(asked)} cannot be read, and without evidence nothing is disrupted"
        yield Fault(f"databases.{service}", said, "list it, or take these out of `diagnosis`")
    if service not in settings.payments and (asked := sorted(OF_PAYMENTS & set(book.diagnosis))):
        said = f"is no payments service: {', '.join(asked)} cannot be read, and without evidence nothing is done"
        yield Fault(f"payments.{service}", said, "list it, or take these out of `diagnosis`")
    if service not in settings.redis and (asked := sorted(OF_REDIS & set(book.diagnosis))):
        said = f"is no Redis: {', '.join(asked)} cannot be read, and without evidence nothing is disrupted"
        yield Fault(f"redis.{service}", said, "list it, or take these out of `diagnosis`")
