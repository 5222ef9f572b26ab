"""Who may ask: users with passwords, clients by the names in their certificate; and the headers of every answer.

In: the web configuration that holds now, and requests. Out: the answer of the handler inside, or 401, 403, 503. It must
never say whether a user exists, not by the time it takes either, and never keep a password.

bcrypt is meant to be slow (some 50 ms of CPU at cost 10), so that a stolen hash is worth little. A scrape must not pay
that each time: what came of a check is remembered under a keyed digest of user, hash and password, as exporter-toolkit
does. Checks run one after the other in one thread, so strangers who guess cost one core at most, and no scraper who has
logged in before; when too many wait, the next one is answered 503.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import bcrypt
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from exporter.tls import alternative_name
from exporter.web_config import WebConfig

_REMEMBERED = 128
"""Results of checks that are kept, of good and of bad ones each; the oldest unused go first."""
_WAITING = 16
"""Checks that may wait for their turn."""
_LONGEST = 72
"""Bytes of a password that bcrypt looks at."""

_CHALLENGE = {hdrs.WWW_AUTHENTICATE: 'Basic realm="prep-exporter", charset="UTF-8"'}


class Gatekeeper:
    """The middleware. `config` gives the web configuration that holds now."""

    def __init__(self, config: Callable[[], WebConfig]) -> None:
        self._config = config
        self._key = secrets.token_bytes(32)
        # Apart, so that strangers who guess push no scraper out.
        self._known: Mapping[bool, OrderedDict[bytes, None]] = {True: OrderedDict(), False: OrderedDict()}
        self._turn = asyncio.Lock()
        self._waiting = 0

    def middleware(self) -> Middleware:
        """To be put first, around everything, unknown paths too."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            config = self._config()
            try:
                response = await self._refusal(request, config) or await handler(request)
            except web.HTTPException as answer:
                answer.headers.update(config.headers)
                raise
            response.headers.update(config.headers)
            return response

        return guard

    async def _refusal(self, request: web.Request, config: WebConfig) -> web.Response | None:
        """The answer to somebody who may not ask; None for who may."""
        if config.allowed_sans and config.allowed_sans.isdisjoint(_alternative_names(request)):
            return web.Response(status=403, text="none of the names in this certificate is allowed\n")
        if not config.users:
            return None
        given = _credentials(request.headers.get(hdrs.AUTHORIZATION, ""))
        if given is None:
            return web.Response(status=401, text="unauthorized\n", headers=_CHALLENGE)
        allowed = await self.allowed(*given, config.users)
        if allowed is None:
            return web.Response(status=503, text="too many logins are being checked\n", headers={"Retry-After": "1"})
        return None if allowed else web.Response(status=401, text="unauthorized\n", headers=_CHALLENGE)

    async def allowed(self, user: str, password: bytes, users: Mapping[str, str]) -> bool | None:
        """Whether the password is this user's; None when too many checks wait already."""
        # For an unknown user another's hash is checked, and the result thrown away: it takes the same time.
        hashed = users.get(user) or next(iter(users.values()))
        digest = self._digest(user, hashed, password)
        if (known := self._remembered(digest)) is not None:
            return known
        if self._waiting >= _WAITING:
            return None
        self._waiting += 1
        try:
            async with self._turn:
                if (known := self._remembered(digest)) is not None:  # somebody has asked the same meanwhile
                    return known
                fits = await asyncio.to_thread(_fits, password, hashed)
                return self._remember(digest, fits and user in users)
        finally:
            self._waiting -= 1

    def _digest(self, user: str, hashed: str, password: bytes) -> bytes:
        parts = (hashlib.sha256(part).digest() for part in (user.encode(), hashed.encode(), password))
        return hmac.digest(self._key, b"".join(parts), "sha256")

    def _remembered(self, digest: bytes) -> bool | None:
        return next((self._remember(digest, each) for each, kept in self._known.items() if digest in kept), None)

    def _remember(self, digest: bytes, allowed: bool) -> bool:
        kept = self._known[allowed]
        kept[digest] = None
        kept.move_to_end(digest)
        while len(kept) > _REMEMBERED:
            kept.popitem(last=False)
        return allowed


def _fits(password: bytes, hashed: str) -> bool:
    try:
        return bcrypt.checkpw(password[:_LONGEST], hashed.encode())
    except ValueError:
        return False


def _credentials(header: str) -> tuple[str, bytes] | None:
    """User and password of `Basic ...`; None when there are none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


def _alternative_names(request: web.Request) -> frozenset[str]:
    """Subject alternative names of the client's certificate, which TLS has verified."""
    transport = request.transport
    certificate: dict[str, Any] | None = transport.get_extra_info("peercert") if transport is not None else None
    names = (certificate or {}).get("subjectAltName", ())
    return frozenset(alternative_name(str(value)) for kind, value in names if kind in _KINDS)


_KINDS = frozenset(("DNS", "email", "IP Address", "URI"))
