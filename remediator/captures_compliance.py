"""Evidence about the compliance engine's cache: how many of its look-ups hit, by Prometheus. Reads only.

What Prometheus does not tell is told as such and is never a reason against acting: the cache explains a slowness, it
does not prove one. Source of the counter: `prep_compliance_cache_requests_total{result}` in docs/metrics.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from remediator.captured import Captured, Source
from remediator.errors import RemediatorError
from remediator.prometheus import Prometheus

RANGES = ("5m", "1h", "1d")
WITHIN = 2.0  # seconds for each Prometheus: several that hang must leave the rest of the evidence its time
LOOKUPS = "sum by (service, result) (increase(prep_compliance_cache_requests_total[{range}]))"


async def cache_hits(source: Source) -> Captured:
    """The service's hit rate within five minutes, an hour and a day: a trend, which the alert's one number is not."""
    why = "no Prometheus is named"
    for url in source.settings.prometheus.urls:
        server = Prometheus(url, source.session, source.settings.prometheus.timeout)
        try:
            async with asyncio.timeout(WITHIN):
                rows = await asyncio.gather(*(_row(server, source.service, each) for each in RANGES))
        except (RemediatorError, TimeoutError) as error:
            why = str(error) or f"no answer within {WITHIN:g} s"
            continue
        said = ", ".join(_said(row) for row in rows)
        return Captured("\n".join(json.dumps(row) for row in rows), f"cache hits: {said}")
    return Captured(why, "the cache's hit rate is not known: Prometheus does not answer", answered=False)


async def _row(server: Prometheus, service: str, within: str) -> dict[str, object]:
    """`hit_rate` None: no look-up within this time that Prometheus knows of."""
    samples = await server.query(LOOKUPS.format(range=within))
    counts: Mapping[str, float] = {
        each.labels.get("result", ""): each.value for each in samples if each.labels.get("service") == service
    }
    lookups = sum(counts.values())
    rate = round(counts.get("hit", 0.0) / lookups, 4) if lookups else None
    return {"within": within, "lookups": round(lookups), "hit_rate": rate}


def _said(row: Mapping[str, object]) -> str:
    rate = row["hit_rate"]
    return f"{rate:.1%} within {row['within']}" if isinstance(rate, float) else f"no look-up within {row['within']}"
