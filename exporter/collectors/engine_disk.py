"""Background collector `engine_disk`: what the engine holds on its disk, and what of it can be given back.

In: `system/df`. Out: bytes by kind. It runs on a slow interval of its own, since the engine walks through all its
layers and volumes for it, and must never be asked for at scrape time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.catalog import containers as catalog
from exporter.collector_settings import DockerCollector as DockerSettings
from exporter.docker_api import DockerApi
from exporter.errors import Transient
from exporter.samples import Collected, Sample
from exporter.workers import Worker


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of one kind."""

    used: int
    reclaimable: int


class EngineDiskCollector:
    """One reckoning, in a thread, since the SDK blocks."""

    name = "engine_disk"

    def __init__(self, settings: DockerSettings) -> None:
        self._api = DockerApi(settings.base_url, settings.disk_usage_timeout)
        self._worker = Worker("engine_disk")

    async def collect(self, deadline: float) -> Collected:
        raw = await self._worker.run(self._ask, deadline)
        try:
            return Collected(tuple(samples(parse(raw))))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Transient(f"engine_disk: the engine's answer has not the shape of system/df: {error!r}") from error

    async def close(self) -> None:
        self._worker.close()
        self._api.forget()

    def _ask(self) -> Mapping[str, Any]:
        with self._api.client() as client:
            answer: Mapping[str, Any] = client.df()
            return answer


def parse(raw: Mapping[str, Any]) -> dict[str, Held]:
    """`system/df` by kind, of either shape.

    Since API 1.52 the engine reckons itself (https://docs.docker.com/reference/api/engine/version/v1.52/). Before, it
    lists (v1.41). A size of -1 is one that the engine did not reckon: 0 here. Of an unused image only the layers that
    no other image shares are sure to go. The build cache's shared records are held by others too.
    """
    if "ImageUsage" in raw:
        words = {"images": "Image", "containers": "Container", "volumes": "Volume", "build_cache": "BuildCache"}
        return {kind: _reckoned(raw.get(f"{word}Usage") or {}) for kind, word in words.items()}
    images, containers = raw.get("Images") or (), raw.get("Containers") or ()
    volumes = [one.get("UsageData") or {} for one in raw.get("Volumes") or ()]
    cache = [one for one in raw.get("BuildCache") or () if not one.get("Shared")]
    return {
        "images": Held(
            max(0, int(raw["LayersSize"])),
            sum(max(0, one["Size"] - max(0, one["SharedSize"])) for one in images if one["Containers"] == 0),
        ),
        "containers": Held(
            _sum(one.get("SizeRw") for one in containers),
            _sum(one.get("SizeRw") for one in containers if one["State"] not in ("running", "paused", "restarting")),
        ),
        "volumes": Held(
            _sum(one.get("Size") for one in volumes),
            _sum(one.get("Size") for one in volumes if one.get("RefCount") == 0),
        ),
        "build_cache": Held(_sum(one["Size"] for one in cache), _sum(one["Size"] for one in cache if not one["InUse"])),
    }


def _reckoned(usage: Mapping[str, Any]) -> Held:
    return Held(max(0, int(usage.get("TotalSize") or 0)), max(0, int(usage.get("Reclaimable") or 0)))


def _sum(sizes: Iterable[int | None]) -> int:
    return sum(max(0, size or 0) for size in sizes)


def samples(held: Mapping[str, Held]) -> Iterator[Sample]:
    """All kinds, also those of which there is nothing."""
    for kind, found in held.items():
        yield Sample(catalog.ENGINE_DISK_USED, (kind,), float(found.used))
        yield Sample(catalog.ENGINE_DISK_RECLAIMABLE, (kind,), float(found.reclaimable))
