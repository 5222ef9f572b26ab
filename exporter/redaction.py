"""Secrets out of everything that is told to people: log lines, and faults on the page at `/`.

In: text. Out: the same text with `***` where a secret was. Two nets, since each has holes: every secret that the
exporter has read from a file is known by its value; and what looks like one is taken by its form (the password in a
URL, `password=...`, an Authorization header), because a library may tell of one that came another way.

It must never slow a scrape down: texts are short, and the patterns do not backtrack.
"""

from __future__ import annotations

import re
import threading
from urllib.parse import quote, quote_plus

MASK = "***"

_SHORTEST = 4
"""Characters of a secret that is known by its value; a shorter one would mask words by chance."""
_MOST = 256
"""Values that are remembered; a secret that is rotated each minute forgets its oldest."""

_URL = re.compile(r"(?P<head>[a-z][a-z0-9+.-]{0,30}://[^\s/?#:@]{0,256}:)[^\s/@]{1,1024}@", re.IGNORECASE)
_PAIR = re.compile(
    r"(?P<head>(?:password|passwd|pwd|secret|secret[_-]?access[_-]?key|api[_-]?key|token)[\"']?\s{0,3}[=:]\s{0,3})"
    r"(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&\"')}\]]+)",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(r"(?P<head>\b(?:basic|bearer)\s+)[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)

_lock = threading.Lock()
_known: dict[str, None] = {}


def remember(secret: str) -> None:
    """Mask this value from now on, also as it stands in a URL."""
    if len(secret) < _SHORTEST or secret in _known:
        return
    with _lock:
        for form in {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}:
            _known[form] = None
        while len(_known) > _MOST:
            del _known[next(iter(_known))]


def clean(text: str) -> str:
    """The text without secrets."""
    for secret in sorted(_known.copy(), key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _URL.sub(rf"\g<head>{MASK}@", text)
    text = _AUTHORIZATION.sub(rf"\g<head>{MASK}", text)
    return _PAIR.sub(rf"\g<head>{MASK}", text)
