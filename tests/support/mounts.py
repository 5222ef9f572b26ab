"""A mount whose server never says a word: every call on it waits for ever. Needs root and /dev/fuse."""

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
