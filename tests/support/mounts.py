"""Mounts that are ill: one whose server never says a word (needs /dev/fuse), and one that is soon full. Need root."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_MNT_DETACH = 2


@contextlib.contextmanager
def hanging(folder: Path) -> Iterator[Path]:
    """Mounted over this folder for the block: what lies in it is hidden, and there again afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"hung", str(folder).encode(), b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "cannot mount a FUSE filesystem (root needed)")
        yield folder
    finally:
        os.close(device)  # the kernel now answers every waiting call with ENOTCONN
        libc.umount2(str(folder).encode(), _MNT_DETACH)


@contextlib.contextmanager
def small(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of this size over this folder for the block, in memory; full as soon as so much is written."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={megabytes}m,mode=0755".encode()
    if libc.mount(b"small", str(folder).encode(), b"tmpfs", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "cannot mount a tmpfs (root needed)")
    try:
        yield folder
    finally:
        libc.umount2(str(folder).encode(), _MNT_DETACH)
