"""What the engine needs of the outside, as protocols: the real ones talk to servers, a simulation to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import BaseModel

from remediator.events import Event
from remediator.ledger import Ledger
from remediator.people import OwnAlert
from remediator.runbooks import Runbook, Rung
from remediator.world import Answer, Evidence, ProofLook, World


class Sight(Protocol):
    """Looking at the world: reads only, bounded in time, never raises for a server that does not answer."""

    async def look(
        self, book: Runbook, rung: Rung, params: BaseModel | None, labels: Mapping[str, str], now: float
    ) -> World: ...

    async def rule(self, alertname: str, labels: Mapping[str, str]) -> tuple[Answer, str, float | None]: ...

    async def proof(self, book: Runbook, labels: Mapping[str, str], since: float, now: float) -> ProofLook: ...

    async def active_alerts(self) -> list[bytes]: ...


class People(Protocol):
    """Telling people, through Alertmanager."""

    async def post(self, alerts: Sequence[OwnAlert]) -> bool: ...


class Diagnoses(Protocol):
    """Capturing evidence: reads only."""

    async def run(self, episode: str, names: Sequence[str], labels: Mapping[str, str]) -> Evidence: ...


class Observer(Protocol):
    """Hears of every event after it is durable: metrics and log lines."""

    def __call__(self, event: Event, ledger: Ledger) -> None: ...
