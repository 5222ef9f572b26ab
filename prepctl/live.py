"""`runbook:check --live`: looks at every target as the remediator would, with the rights that it has now. Reads only.

In: runbooks and settings. Out: what would keep an action from working, each with what to do. It sends the gate a call
that the gate refuses by its own rules (`Engine.allowed`), and else nothing that could change anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import aiohttp

from prepctl.alert_rules import Rules
from prepctl.obstacles import targets
from remediator import gate, probing
from remediator.actions import registry
from remediator.actions.base import Action
from remediator.actions.one_container import OneContainer
from remediator.clock import SystemClock
from remediator.containers import Engine
from remediator.errors import Fault, Permanent, RemediatorError
from remediator.matching import params_of
from remediator.prometheus import Prometheus
from remediator.reasons import Reason
from remediator.runbooks import FromLabel, Runbook, Rung
from remediator.settings import Settings
from remediator.world import Health

LASTING = frozenset(
    {
        Reason.TARGET_NOT_ALLOWED,
        Reason.TARGET_NOT_LABELLED,
        Reason.TARGET_COUNT,
        Reason.TARGET_NOT_RUNNING,
        Reason.NEVER_LIST,
        Reason.REPLICA_PROMOTED,
        Reason.REPLICA_UNPROVEN,
        Reason.REPLICA_SYNCHRONOUS,
        Reason.REPLICA_SLOT,
    }
)
"""The target's reasons that do not pass by themselves. A young container or a protected query is no fault."""


BY_NAME = frozenset(action.name for action in registry.CLASSES if issubclass(action, OneContainer))
"""Actions that the gate lets through by the container's name: the same names for all of them."""


def look(books: Sequence[Runbook], settings: Settings, rules: Rules | None) -> list[Fault]:
    """Every fault that can be seen from here, each once, in the order of the runbooks."""
    steps = [
        (book, rung, service)
        for book in books
        for rung in book.ladder
        for service in targets(book, rung, settings, rules) or ()
    ]
    return list(dict.fromkeys(asyncio.run(_look(books, settings, steps))))


async def _look(
    books: Sequence[Runbook], settings: Settings, steps: Sequence[tuple[Runbook, Rung, str]]
) -> list[Fault]:
    async with aiohttp.ClientSession() as session:
        actions = registry.build(settings, session, SystemClock())
        asked = [_target(actions[rung.action], book, rung, service) for book, rung, service in steps]
        acted_on = sorted({service for _, rung, service in steps if rung.action in BY_NAME})
        probed = sorted({service for book, _, service in steps if book.proof.probe})
        asked += [_gate(settings, session, service) for service in acted_on if service in settings.services]
        asked += [_probe(settings, session, service) for service in probed]
        asked += [_prometheus(url, settings, session, books) for url in settings.prometheus.urls]
        return [fault for found in await asyncio.gather(*asked) for fault in found]


async def _target(action: Action, book: Runbook, rung: Rung, service: str) -> list[Fault]:
    """The action's own look at the target."""
    where = f"{book.name}: ladder.{rung.name} on {service}"
    labels = {value.label: service for value in rung.params.values() if isinstance(value, FromLabel)}
    try:
        params = action.params_model.model_validate(params_of(rung, labels))
        async with asyncio.timeout(5.0):
            preview = await action.preview(params)
    except (RemediatorError, ValueError) as error:
        return [Fault(where, f"cannot be looked at: {error}", "mend that, or see whether it runs")]
    except TimeoutError:
        return [Fault(where, "cannot be looked at within 5 s", "see whether it answers")]
    found = [refusal for refusal in preview.refusals if refusal.reason in LASTING]
    return [Fault(where, f"would be refused {each.reason}: {each.sentence}") for each in found]


async def _gate(settings: Settings, session: aiohttp.ClientSession, service: str) -> list[Fault]:
    """Is each container of the service on the gate's list?"""
    engine = Engine(settings.docker, session)
    ours = settings.model_copy(update={"services": {service: settings.services[service]}})
    found = []
    for name in gate.from_settings(ours).containers:
        try:
            if not await engine.allowed(name):
                remedy = "prep-remediator gate:config writes its configuration; restart it"
                found.append(Fault(f"gate: {name}", "the Docker gate answers 403 to a restart", remedy))
        except RemediatorError as error:
            return [*found, Fault(f"gate: {name}", f"cannot be asked: {error}", "is docker.gate_url the gate's?")]
    return found


async def _probe(settings: Settings, session: aiohttp.ClientSession, service: str) -> list[Fault]:
    """Does the direct probe get any answer? That a service is sick or down is one."""
    found = await probing.probe(settings, session, service)
    if found.health is not Health.UNKNOWN:
        return []
    return [Fault(f"probe of {service}", f"has no answer: {found.detail}", "mend its settings")]


async def _prometheus(
    url: str, settings: Settings, session: aiohttp.ClientSession, books: Sequence[Runbook]
) -> list[Fault]:
    """Has it the rules of every alert and cause, and does it understand every proof?"""
    server = Prometheus(url, session, settings.prometheus.timeout)
    try:
        known = {rule.name for rule in await server.rules()}
        answers = [(f"{book.name}: proof.{check.name}", check.query) for book in books for check in book.proof.checks]
        said = await asyncio.gather(*(server.query(query) for _, query in answers), return_exceptions=True)
    except RemediatorError as error:
        return [Fault(f"prometheus {url}", f"cannot be asked: {error}", "is it in prometheus.urls by its right name?")]
    found = list(_rules(books, known, url))
    for (where, _), answer in zip(answers, said, strict=True):
        if isinstance(answer, Permanent):
            found.append(Fault(where, str(answer), "try the query at Prometheus"))
        elif isinstance(answer, BaseException):
            found.append(Fault(where, f"has no answer: {answer}"))
    return found


def _rules(books: Sequence[Runbook], known: set[str], url: str) -> Iterator[Fault]:
    for book in books:
        for key, names in (("match.alertnames", book.match.alertnames), ("blocked_by", book.blocked_by)):
            for name in names:
                if name not in known:
                    yield Fault(f"{book.name}: {key}", f"{url} has no rule {name}", "load the rules there")
