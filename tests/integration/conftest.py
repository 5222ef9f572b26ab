"""Fixtures of several integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounts import hanging


@pytest.fixture
def hung_mount(tmp_path: Path) -> Iterator[Path]:
    """A mount on which every call waits for ever; let go at the end. Needs root and /dev/fuse."""
    point = tmp_path / "hung"
    point.mkdir()
    with hanging(point):
        yield point
