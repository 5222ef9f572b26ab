"""Fixtures of several integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from remediator.journal import Journal
from tests.support.journals import Place
from tests.support.mounts import hanging


@pytest.fixture
def hung_mount(tmp_path: Path) -> Iterator[Path]:
    """A mount on which every call waits for ever; let go at the end. Needs root and /dev/fuse."""
    point = tmp_path / "hung"
    point.mkdir()
    with hanging(point):
        yield point


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """An empty journal's place on either engine."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/journal.db"
    else:
        url = request.getfixturevalue("database").dsn()
    place = Place(url, tmp_path)
    yield place
    await place.close()


@pytest.fixture
async def journal(place: Place) -> Journal:
    """A journal, just opened."""
    return await place.open()
