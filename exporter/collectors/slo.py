"""Collector `slo`: the objectives of the configuration as series.

In: settings. Out: ratio and window of each objective. It must never reckon with events: that is what rules do.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.background_settings import Objective
from exporter.catalog import slo as catalog
from exporter.samples import Collected, Sample


class SloCollector:
    """The same samples at every scrape."""

    name = "slo"

    def __init__(self, objectives: Mapping[str, Objective]) -> None:
        self._samples = tuple(
            sample
            for name, one in objectives.items()
            for sample in (
                Sample(catalog.SLO_OBJECTIVE, (name,), one.ratio),
                Sample(catalog.SLO_WINDOW, (name,), one.window),
            )
        )

    async def collect(self, deadline: float) -> Collected:  # noqa: ARG002 - nothing here can take long
        return Collected(self._samples)

    async def close(self) -> None:
        """Nothing is held."""
