"""Bodies that were parsed at the door and wait to be routed: so that each is parsed once.

Only a help: the journal keeps bodies, and what is not here (after a restart, from another replica, under very many) is
parsed again. Never more than a few megabytes.
"""

from __future__ import annotations

from collections import OrderedDict

from remediator.alerts import Notification, parse

MOST = 4 * 1024 * 1024  # bytes of bodies; as values they take some four times as much


class Parsed:
    """Notifications by body, the oldest forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._bytes = 0
        self._known: OrderedDict[bytes, Notification] = OrderedDict()

    def keep(self, body: bytes, notification: Notification) -> None:
        """Remember what a body says until it is routed."""
        if body not in self._known:
            self._known[body] = notification
            self._bytes += len(body)
        while self._bytes > self._most:
            oldest, _ = self._known.popitem(last=False)
            self._bytes -= len(oldest)

    def take(self, body: bytes) -> Notification:
        """What a body says, once. Raises Unreadable."""
        known = self._known.pop(body, None)
        if known is None:
            return parse(body)
        self._bytes -= len(body)
        return known
