"""Fixtures of several integration tests."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_MNT_DETACH = 2


@pytest.fixture
def hung_mount(tmp_path: Path) -> Iterator[Path]:
    """A mount on which every call waits for ever; let go at the end. Needs root and /dev/fuse."""
    point = tmp_path / "hung"
    point.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"hung", str(point).encode(), b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "cannot mount a FUSE filesystem (root needed)")
        yield point
    finally:
        os.close(device)  # the kernel now answers every waiting call with ENOTCONN
        libc.umount2(str(point).encode(), _MNT_DETACH)
