"""Background collector `backups`: evidence of backups, by listing directories and buckets.

In: names, sizes and times. Out: last success, last attempt, sizes, last verified restore. A source that cannot be
listed has none of them. It must never open a backup, nor let a source that hangs hold up another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from exporter.background_settings import BackupRules
from exporter.background_settings import BackupsCollector as BackupsSettings
from exporter.backup_sources import BucketSource, DirectorySource, Entry, Source
from exporter.catalog import backups as catalog
from exporter.errors import ConfigError, Permanent, Transient
from exporter.samples import Collected, Sample


class BackupsCollector:
    """All sources, side by side."""

    name = "backups"

    def __init__(self, settings: BackupsSettings) -> None:
        self._settings = settings
        self._sources: dict[str, Source] = {
            **{name: DirectorySource(name, rules) for name, rules in settings.directories.items()},
            **{name: BucketSource(name, rules) for name, rules in settings.buckets.items()},
        }

    async def collect(self, deadline: float) -> Collected:
        parts = await asyncio.gather(*(self._source(name, deadline) for name in self._sources))
        samples = tuple(sample for part in parts for sample in part.samples)
        return Collected(samples, "; ".join(part.fault for part in parts if part.fault) or None)

    async def close(self) -> None:
        for source in self._sources.values():
            source.close()

    async def _source(self, name: str, deadline: float) -> Collected:
        rules = self._settings.sources[name]
        deadline = min(deadline, asyncio.get_running_loop().time() + rules.timeout)
        directory = self._settings.directories.get(name)
        try:
            entries = await self._sources[name].entries(deadline)
        except (Transient, Permanent, ConfigError) as error:
            return Collected((Sample(catalog.BACKUP_LISTED, (name,), 0.0),), f"backup {name}: {error}")
        settled = time.time() - directory.settled if directory is not None else None
        return Collected((Sample(catalog.BACKUP_LISTED, (name,), 1.0), *parse(name, entries, rules, settled)))


def parse(name: str, entries: Sequence[Entry], rules: BackupRules, settled: float | None) -> Iterator[Sample]:
    """What a listing says of the backups in it.

    `settled` in UNIX seconds: without a marker, a file that was written later may still grow; None = nothing grows.
    """
    label, times = (name,), {entry.name: entry.modified for entry in entries}
    tried = [entry for entry in entries if _matches(entry.name, rules.attempts)]
    files = [entry for entry in entries if _is_backup(entry.name, rules)]
    finished = sorted((moment, entry.size) for entry in files if (moment := _finished(entry, rules, times, settled)))
    if finished:
        moment, size = finished[-1]
        yield Sample(catalog.BACKUP_LAST_SUCCESS, label, moment)
        yield Sample(catalog.BACKUP_SIZE, label, float(size))
    if len(finished) > 1:
        yield Sample(catalog.BACKUP_PREVIOUS_SIZE, label, float(finished[-2][1]))
    if traces := [*(entry.modified for entry in (*tried, *files)), *(moment for moment, _ in finished)]:
        yield Sample(catalog.BACKUP_LAST_ATTEMPT, label, max(traces))
    if rules.restore_marker is not None and rules.restore_marker in times:
        yield Sample(catalog.BACKUP_LAST_RESTORE, label, times[rules.restore_marker])


def _is_backup(name: str, rules: BackupRules) -> bool:
    if name == rules.restore_marker or _matches(name, rules.attempts):
        return False
    if rules.marker_suffix is not None and name.endswith(rules.marker_suffix):
        return False
    return fnmatchcase(name, rules.files)


def _matches(name: str, pattern: str | None) -> bool:
    return pattern is not None and fnmatchcase(name, pattern)


def _finished(entry: Entry, rules: BackupRules, times: dict[str, float], settled: float | None) -> float | None:
    """When this backup was complete, UNIX seconds; None while it is not."""
    if entry.size == 0:
        return None
    if rules.marker_suffix is not None:
        return times.get(entry.name + rules.marker_suffix)
    return entry.modified if settled is None or entry.modified <= settled else None
