"""Episodes in a real journal, written as the engine writes them: for tests of what people see of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace

from remediator.events import Event, Kind
from remediator.journal import EpisodeIndex, InboxRow, Journal, Routed
from remediator.webhook import split
from tests.support.deliveries import alert, delivery
from tests.unit.cases import NOW, History, book

LABELS = {
    "alertname": "EngineSlow",
    "job": "exporter",
    "component": "engine",
    "service": "engine",
    "environment": "test",
    "severity": "P2",
}


def _split(row: InboxRow) -> Sequence[Routed]:
    return split(row, [book()], "test")


async def deliver(journal: Journal, service: str) -> None:
    """An alert for `service` comes and is routed to its episode."""
    mark = hashlib.sha256(service.encode()).hexdigest()[:16]
    body = delivery([alert(labels={**LABELS, "service": service}, fingerprint=mark)])
    await journal.store([("delivery", body)])
    await journal.route(_split)


async def write(journal: Journal, history: History, service: str = "engine") -> str:
    """Deliver an alert for `service`, take its episode as owner, append the history. Returns the episode's id.

    The history's `NOW` becomes this moment. Intents and outcomes go their own ways, as in the engine; the episode
    stays in our hands (its lease runs), so that nobody else takes it.
    """
    await deliver(journal, service)
    claim = (await journal.claim(1))[0]
    for event in history.events:
        await _write(journal, replace(event, episode=claim.episode, at=event.at - NOW + time.time()))
    return claim.episode


async def _write(journal: Journal, event: Event) -> None:
    unique = replace(event, id=f"{event.episode[:20]}{event.seq:012x}")
    match event.kind:
        case Kind.INTENT:
            resource = event.data["resource"]
            refusal = await journal.intend(unique, runbook="engine-slow", resource=resource, decide=lambda _: None)
            assert refusal is None
        case Kind.OUTCOME:
            await journal.outcome(unique)
        case Kind.OPENED:
            taken = [row.id for row in await journal.inbox(event.episode)]
            index = EpisodeIndex("engine-slow", "P2", True)
            await journal.append([unique], takes=taken, index=index)
        case _:
            await journal.append([unique], close=event.kind is Kind.CLOSED)
