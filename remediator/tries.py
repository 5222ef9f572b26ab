"""Guesses at tokens: a few from an address in a minute, by whichever door, then none is looked at, right or wrong.

The same wrong token again and again is one guess: a script with an old token must not lock its neighbours out.

In: the address and the header of a request. Out: how long it has to wait. A token that was right before is looked at
all the same: somebody's script with an old token must not lock out the person beside it, at night, on the same machine.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

TRIES, WINDOW = 5, 60.0  # wrong tokens from one address within so many seconds
MOST_ADDRESSES, MOST_KNOWN = 10_000, 1000


class Tries:
    """Of one process. `clock` never goes back; seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, OrderedDict[bytes, float]] = OrderedDict()
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def wait(self, address: str, header: str | None) -> float:
        """Seconds until this address may try again; 0.0 when it may now, or the header was right before."""
        failed = self._failed.get(address)
        if failed is None or len(failed) < TRIES or _mark(header) in self._known:
            return 0.0
        return max(0.0, next(iter(failed.values())) + WINDOW - self._clock())

    def fail(self, address: str, header: str | None) -> None:
        """This one was wrong."""
        failed, mark = self._failed.setdefault(address, OrderedDict()), _mark(header)
        failed[mark] = self._clock()
        failed.move_to_end(mark)
        if len(failed) > TRIES:
            failed.popitem(last=False)
        self._failed.move_to_end(address)
        while len(self._failed) > MOST_ADDRESSES:
            self._failed.popitem(last=False)

    def right(self, header: str | None) -> None:
        """This one was right."""
        self._known[mark := _mark(header)] = None
        self._known.move_to_end(mark)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


def _mark(header: str | None) -> bytes:
    """What a header is known by: not the token itself."""
    return hashlib.sha256((header or "").encode("utf-8", "surrogateescape")).digest()
