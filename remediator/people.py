"""Telling people: the remediator's own alerts, posted to every Alertmanager.

One path to people: routes, silences and grouping hold for these as for every alert. A hand-over is a standing
state, so the caller posts it again each minute; `endsAt` lies far enough ahead that it does not resolve by
itself meanwhile. Never carries evidence, only a sentence and where to look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import structlog

from remediator.alertmanager import Alertmanager
from remediator.errors import RemediatorError
from remediator.settings import Settings

log = structlog.get_logger(__name__)
COMPONENT = "remediator"


@dataclass(frozen=True, slots=True)
class OwnAlert:
    """What people must know. `symptom` and `service` are those of the target; `episode` is its id.

    The labels make the alert's identity: the same episode and alertname again is the same alert.
    """

    alertname: str
    severity: str
    service: str
    symptom: str
    episode: str
    summary: str
    description: str
    resolved: bool = False

    def as_json(self, environment: str, now: float, keep: float) -> dict[str, Any]:
        """The body of API v2. `keep` seconds from now it ends by itself; a resolved one ends now."""
        labels = {
            "alertname": self.alertname,
            "severity": self.severity,
            "component": COMPONENT,
            "symptom": self.symptom,
            "service": self.service,
            "episode": self.episode,
            "environment": environment,
        }
        return {
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {"summary": self.summary, "description": self.description},
            "endsAt": _rfc3339(now if self.resolved else now + keep),
        }


class People:
    """Posts to every Alertmanager of the cluster side by side."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        ours = settings.alertmanager
        self._environment = settings.environment
        self._keep = ours.keep
        self._servers = tuple(Alertmanager(url, session, ours.timeout) for url in ours.urls)

    async def post(self, alerts: Sequence[OwnAlert]) -> bool:
        """True when at least one Alertmanager took them. Never raises for one that does not."""
        now = time.time()
        body = [alert.as_json(self._environment, now, self._keep) for alert in alerts]
        results = await asyncio.gather(*(self._post(server, body) for server in self._servers))
        return any(results)

    async def _post(self, server: Alertmanager, body: Sequence[dict[str, Any]]) -> bool:
        try:
            await server.post(body)
        except RemediatorError as error:
            log.warning("an Alertmanager does not take our alerts", url=server.url, why=str(error))
            return False
        return True


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
