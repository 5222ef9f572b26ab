"""What the scrape engine asks of a collector."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from exporter.samples import Collected


class Collector(Protocol):
    """One subject. `name` is its key in the catalog and the value of the label `collector`."""

    name: str

    async def collect(self, deadline: float) -> Collected:
        """Gather all samples before `deadline` (the event loop's time, seconds).

        A part that failed is told in `Collected.fault`, beside the samples of the others. Raises Transient, Permanent
        or StateError when nothing at all can be said. It is never run twice at once.
        """

    async def close(self) -> None:
        """Let go of connections, threads and locks; called once, at the end."""


@runtime_checkable
class Heir(Protocol):
    """A collector that counts something itself, in memory: a reload must not let its counters begin anew."""

    def inherit(self, predecessor: Collector) -> None:
        """Take over the counts of the collector of the same name, which has ended. Called before the first run."""
