"""What a diagnosis gives, and what it may ask. Nothing is captured here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from remediator.containers import Container, Engine
from remediator.errors import Permanent
from remediator.settings import Settings

CONTAINERS = 5  # of one service, at most


@dataclass(frozen=True, slots=True)
class Captured:
    """One diagnosis: the text for the file and a sentence for the journal. Not redacted yet.

    answered  False: whoever was asked did not answer, and the sentence says so
    """

    text: str
    sentence: str
    answered: bool = True


class Source:
    """What the captures of one rung may ask; its containers are asked for once."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession, service: str) -> None:
        self.settings = settings
        self.session = session
        self.service = service
        self.engine = Engine(settings.docker, session)
        self._lock = asyncio.Lock()
        self._containers: Sequence[Container] = ()

    async def containers(self) -> Sequence[Container]:
        """Of the service, at most CONTAINERS. Raises Permanent when it has none."""
        async with self._lock:
            if not self._containers:
                self._containers = (await self.engine.of_service(self.service))[:CONTAINERS]
        if not self._containers:
            raise Permanent(f"service {self.service} has no container")
        return self._containers
