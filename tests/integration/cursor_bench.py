"""A table and exporters for it that a test starts and ends as it likes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.cursor_settings import CursorSettings
from exporter.sessions import PostgresSession
from exporter.statefile import StateFile
from exporter.table_cursor import CursorCollector
from exporter.table_reading import Read, Reading
from tests.integration.exporter_parts import in_seconds, postgres_settings, shown
from tests.support.servers import Database

Values = dict[tuple[str, ...], float]


@dataclass
class CursorBench:
    """Exporters of one kind on one database, with one state file."""

    database: Database
    folder: Path
    model: type[CursorSettings]
    reading: Callable[[Any], Reading[Any]]
    started: list[CursorCollector[Any]] = field(default_factory=list)

    def settings(self, **changes: object) -> CursorSettings:
        return self.model.model_validate({"state_file": str(self.folder / "state.json"), "margin": "300ms", **changes})

    def exporter(self, **changes: object) -> CursorCollector[Any]:
        """A new process, as far as the collector can tell."""
        settings = self.settings(**changes)
        session = PostgresSession("postgres", postgres_settings(self.database, self.folder / "secret"))
        collector = CursorCollector(session, self.reading(settings), settings, StateFile(settings.state_file))
        self.started.append(collector)
        return collector

    async def end(self, collector: CursorCollector[Any]) -> None:
        await collector._session.close()
        await collector.close()
        self.started.remove(collector)

    async def end_all(self) -> None:
        for collector in list(self.started):
            await self.end(collector)
        self.database.drop()

    def buffers(self, read: Read, floor: str) -> int:
        """Buffers that reading the new rows touches, by EXPLAIN, at the given floor; by the index of `read`."""
        query = read.sql.replace("$1", f"'{floor}'").replace("$2", "'{1,2,3,4,5,6,7,8,9,10,11,12}'")
        query = query.replace("$3", "20000")
        plan = "\n".join(
            row[0] for row in self.database.sql(f"explain (analyze, buffers, timing off, costs off) {query}")
        )
        assert re.search(rf"Scan (using|on) {read.index.name}\b", plan), plan  # an Index Scan, or a Bitmap Index Scan
        assert "Seq Scan" not in plan, plan
        hit = re.search(r"Buffers: shared (?:hit=(\d+))?(?: ?read=(\d+))?", plan)
        assert hit, plan
        return sum(int(each) for each in hit.groups() if each)


async def scrape(collector: CursorCollector[Any]) -> Values:
    return dict(shown(await collector.collect(in_seconds(10))))


def seed() -> int:
    """A new one a run; a failing test tells it."""
    return random.randrange(1_000_000)
