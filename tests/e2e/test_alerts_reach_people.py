"""Faults made for real on the compose stack, with the shipped timing: who gets which page, and after how many seconds.

The table is written to build/alerts.json and printed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from rich.table import Table

from demo import tour
from demo.stack import PROJECT, ROOT, Stack, StackError, wait_for
from tests.e2e import outages
from tests.e2e.outages import LIMITS, ONE_BY_ONE, TOGETHER, Outage, Page

pytestmark = [pytest.mark.timeout(2400), pytest.mark.campaign(seconds=2400)]

OUT = ROOT / "build" / "alerts.json"


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The demo's stack with the shipped durations, looking only: nothing is repaired."""
    stack = Stack()
    if stack.docker.containers.list(all=True, filters={"label": f"com.docker.compose.project={PROJECT}"}):
        pytest.fail("containers of a demo are there already; take it down first: make demo-down")
    try:
        tour.prepare(stack, "shadow", durations=False)
        _look_at_more(stack.config / "exporter.yml")
        stack.up()
        stack.compose(
            "exec", "-T", "exporter", "bash", "-c", f"mkdir -p {outages.BACKUPS}; echo x > {outages.BACKUPS}/a.dump"
        )
        yield stack
    except StackError as error:
        pytest.fail(str(error))
    finally:
        stack.down()


def _look_at_more(path: Path) -> None:
    """A small disk and a folder of backups, which the shipped configuration cannot know of."""
    settings = yaml.safe_load(path.read_text())
    collectors = settings["collectors"]
    collectors["disk"]["paths"][outages.SMALL_DISK] = outages.SMALL_DISK
    source = {"path": outages.BACKUPS, "files": "*.dump", "settled": "1s"}
    collectors["backups"] = {"interval": "15s", "directories": {"database": source}}
    path.write_text(yaml.safe_dump(settings, sort_keys=False))


def test_every_fault_reaches_the_right_people_in_time(stack: Stack) -> None:
    """P0 within 90 s of the fault, P1 within 3 minutes, P2 within 10, each at its level's receiver."""
    outages.quiet(stack, (*TOGETHER, *ONE_BY_ONE), 300)
    rows = _told(stack, TOGETHER)
    for outage in ONE_BY_ONE:
        outages.quiet(stack, ONE_BY_ONE, 600)
        rows += _told(stack, (outage,))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(rows, indent=2) + "\n")
    table = Table("fault", "alert", "level", "seconds", "at most")
    for row in rows:
        seconds = "never" if row["seconds"] is None else f"{row['seconds']:.0f}"
        table.add_row(str(row["fault"]), str(row["alert"]), str(row["level"]), seconds, f"{row['limit']:.0f}")
    Console(width=110).print(table)
    late = [row for row in rows if row["seconds"] is None or row["seconds"] > row["limit"]]
    assert not late, late


def _told(stack: Stack, wanted: tuple[Outage, ...]) -> list[dict[str, str | float | None]]:
    """Make the outages, wait for their pages, take them out again: a row a page."""
    rows: list[dict[str, str | float | None]] = []
    with ExitStack() as made:
        open_ones: list[tuple[Outage, Page, float]] = []
        for outage in wanted:
            made.enter_context(outage.make(stack))
            begun = outages.now() + outage.after
            open_ones += [(outage, page, begun) for page in outage.pages]
        end = outages.now() + max(LIMITS[page.level] + outage.after for outage, page, _ in open_ones) + 60
        for outage, page, begun in sorted(open_ones, key=lambda each: LIMITS[each[1].level]):
            found = _wait(stack, page, begun, end)
            rows.append(
                {
                    "fault": outage.what,
                    "alert": page.alert,
                    "level": page.level,
                    "seconds": None if found is None else round(found - begun, 1),
                    "limit": LIMITS[page.level],
                }
            )
    return rows


def _wait(stack: Stack, page: Page, begun: float, end: float) -> float | None:
    try:
        return float(
            wait_for(page.alert, lambda: outages.received(stack, page, begun), max(1.0, end - outages.now()), pause=1.0)
        )
    except StackError:
        return None
