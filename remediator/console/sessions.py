"""Who is logged in: sessions in memory.

In: a token or a proxy's word that was found right. Out: the value of a cookie, and from it the session again. A
session holds no right of its own: whose token it is, and whether it still is one, is asked anew at each request.
Nothing of it is written anywhere, so a restart ends all of them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_SESSIONS = 1000  # of all people; the oldest goes first


@dataclass
class Session:
    """One log-in.

    header    the `Authorization` value that it stands for; None when a proxy vouches for the person
    proxied   the name that the proxy gave; None with a token
    said      what the user of a shared token calls himself
    csrf      what every form of this session carries
    told      words for the page `told_at`, until that is loaded once more (a page that renews itself keeps them)
    """

    began: float
    header: str | None = None
    proxied: str | None = None
    said: str | None = None
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    told: str = ""
    told_at: str = ""
    shown: bool = False

    def tell(self, said: str, at: str) -> None:
        """Words for the next page."""
        self.told, self.told_at, self.shown = said, at, False

    def telling(self, path: str, *, renewed: bool) -> str:
        """What this page is to say; `renewed` when it is the same one that asks anew."""
        if path != self.told_at or (renewed and not self.shown):
            return ""
        if self.shown and not renewed:
            self.told = self.told_at = ""
        self.shown = True
        return self.told


class Sessions:
    """All of them. `clock` never goes back; seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, session: Session) -> str:
        """The cookie's value, which is nowhere else afterwards."""
        cookie = secrets.token_urlsafe(32)
        self._open[_mark(cookie)] = session
        while len(self._open) > MOST_SESSIONS:
            self._open.popitem(last=False)
        return cookie

    def find(self, cookie: str | None, longest: float) -> Session | None:
        """The session of a cookie, None when there is none or it is older than `longest` seconds."""
        found = self._open.get(_mark(cookie)) if cookie else None
        if found is None or self._clock() - found.began <= longest:
            return found
        self.end(cookie)
        return None

    def end(self, cookie: str | None) -> None:
        """Over, if there is such a one."""
        if cookie:
            self._open.pop(_mark(cookie), None)

    def new(self, **of: str | None) -> Session:
        """A session that begins now."""
        return Session(self._clock(), **of)  # type: ignore[arg-type] # told and csrf have their defaults


def _mark(cookie: str) -> bytes:
    """What a session is found by: not the cookie itself, whose comparison could be timed."""
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()
