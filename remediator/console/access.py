"""Who asks for a page, and whether a form is really from one of our pages.

In: a request. Out: a `Visitor`, or None for somebody who must log in; `No` for a form that is not to be believed. A
proxy is believed by its address only, and only about a person that `operators` names.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from remediator.bearer import Answer
from remediator.handling import no
from remediator.operators import Caller, Operators

if TYPE_CHECKING:
    from aiohttp import web

    from remediator.console.sessions import Session, Sessions
    from remediator.settings import Console, ConsoleProxy, Role

COOKIE, SECURE_COOKIE = "prep-console", "__Host-prep-console"
LOCAL = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is logged in. `who` is what the journal will call him."""

    caller: Caller
    who: str
    session: Session

    @property
    def said(self) -> str | None:
        """For the models' `who`: None where the token has a name."""
        return None if self.caller.name else self.who

    def may(self, role: Role) -> bool:
        """For templates: does his role hold what `role` may do?"""
        return self.caller.may(role)


@dataclass
class Access:
    """`settings` and `operators` give what holds now: a reload counts from the next request on."""

    settings: Callable[[], Console]
    operators: Callable[[], Operators]
    sessions: Sessions

    # -- who it is --------------------------------------------------------------------------------------

    def visitor(self, request: web.Request) -> Visitor | None:
        """Whose session the cookie is, if that still holds: token and role are asked anew each time."""
        session = self.sessions.find(self.cookie(request), self.settings().session)
        if session is None:
            return None
        if session.proxied is not None:
            vouched = self.vouched(request)
            same = vouched is not None and vouched.name == session.proxied
            return Visitor(vouched, session.proxied, session) if vouched and same else None
        caller = self.operators().check(session.header)
        if isinstance(caller, Answer):
            return None
        return Visitor(caller, caller.name or f"{session.said} (shared token)", session)

    def vouched(self, request: web.Request) -> Caller | None:
        """The person that a trusted proxy names in its header; None without such a proxy, header or person."""
        proxy = self.proxy(request)
        name = _only(request, proxy.user_header) if proxy is not None and proxy.user_header else ""
        return self.operators().person(name) if name else None

    def proxy(self, request: web.Request) -> ConsoleProxy | None:
        """The proxy's settings when this request comes from one of its addresses."""
        proxy, peer = self.settings().proxy, request.remote
        if proxy is None or not peer:
            return None
        address = ip_address(peer.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address  # as a socket for both families tells it
        return proxy if any(address in ip_network(each) for each in proxy.addresses) else None

    def address(self, request: web.Request) -> str:
        """Where it comes from: what a trusted proxy saw last, else the connection's other end."""
        lines = request.headers.getall("X-Forwarded-For", ()) if self.proxy(request) is not None else ()
        forwarded = ",".join(lines)  # a proxy may add a line of its own below what the client has sent
        return forwarded.rpartition(",")[2].strip()[:64] or request.remote or "unknown"

    # -- the connection ---------------------------------------------------------------------------------

    def secure(self, request: web.Request) -> bool:
        """Is it encrypted, here or up to a trusted proxy?"""
        if request.transport is not None and request.transport.get_extra_info("sslcontext") is not None:
            return True
        proto = _only(request, "X-Forwarded-Proto").lower()
        return self.proxy(request) is not None and proto == "https"

    def exposed(self, request: web.Request) -> bool:
        """Could somebody on the way read it? To this very machine nobody can."""
        return not self.secure(request) and request.host.rsplit(":", 1)[0] not in LOCAL

    def cookie(self, request: web.Request) -> str | None:
        """The session's cookie. By TLS only the one that a browser never took from a plain connection."""
        return request.cookies.get(SECURE_COOKIE if self.secure(request) else COOKIE)

    def give(self, request: web.Request, response: web.StreamResponse, cookie: str) -> None:
        """Set it: no script reads it, no other site's link or form sends it."""
        secure = self.secure(request)
        name = SECURE_COOKIE if secure else COOKIE
        age = int(self.settings().session)
        response.set_cookie(name, cookie, max_age=age, path="/", httponly=True, samesite="Strict", secure=secure)

    def take(self, request: web.Request, response: web.StreamResponse) -> None:
        """Take it back."""
        secure = self.secure(request)
        name = SECURE_COOKIE if secure else COOKIE
        response.del_cookie(name, path="/", httponly=True, samesite="Strict", secure=secure)


def same_origin(request: web.Request) -> None:
    """A form of another site is refused, whatever it carries. Raises No. A browser says where a form comes from."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None and site not in ("same-origin", "none"):
        raise no(403, "cross_site", "This form was sent from another site.", "Open the console and do it there.")
    if origin is not None and urlsplit(origin).netloc != request.host:
        do = "Open the console and do it there; a proxy before it must pass the header Host on."
        raise no(403, "cross_site", "This form was sent from another address.", do)


def genuine(visitor: Visitor, given: str | None) -> None:
    """The form must carry what our page gave to this session. Raises No."""
    if given is None or not hmac.compare_digest(given.encode("utf-8", "replace"), visitor.session.csrf.encode()):
        do = "Go back, reload the page and do it again; nothing was done."
        raise no(403, "csrf", "This form is not one of this session's pages.", do)


def _only(request: web.Request, name: str) -> str:
    """A header that is there once; "" where it is not, or more than once: then one line is not the proxy's."""
    lines = request.headers.getall(name, ())
    return lines[0].strip() if len(lines) == 1 else ""
