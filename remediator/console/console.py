"""The console: its routes, who may come in, and how it says no.

In: requests of browsers under `/console`. Out: pages, or the way to the log-in. Every page needs a session, every form
the session's own mark and a role; every answer forbids whatever is not ours. What a click does is the API's doing
(`decisions.py`), and is in the journal with who.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import parse_qsl, quote

import aiohttp
import structlog
from aiohttp import web
from pydantic import ValidationError

from remediator import settings
from remediator.api import ANSWER_TIMEOUT, Api
from remediator.api_models import SAID
from remediator.bearer import Answer
from remediator.clicks import Act
from remediator.clock import Clock
from remediator.console.access import Access, Visitor, genuine, same_origin
from remediator.console.acts import Acts, Form, Went
from remediator.console.graph import Graphs
from remediator.console.live import Live
from remediator.console.overview import Gatherer
from remediator.console.render import HEADERS, Renderer, Static
from remediator.console.sessions import Session, Sessions
from remediator.console.views import Views
from remediator.errors import JournalError
from remediator.handling import No, no, read_bytes
from remediator.operators import Caller
from remediator.settings import Role
from remediator.shadow_report import Report

log = structlog.get_logger(__name__)

NEXT = re.compile(r"/(console|alerts)(/[A-Za-z0-9._~-]+)*/?(\?[A-Za-z0-9._~=&%+:-]*)?")
MOST_FIELDS = 20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Page = Callable[[web.Request, Visitor], Awaitable[web.StreamResponse]]
Doing = Callable[[web.Request, Visitor, Form], Awaitable[Went]]


class Console:
    """All of it. `of` gives the settings that hold now; `run` is a task of the server's group, `close` its end."""

    def __init__(
        self,
        api: Api,
        of: Callable[[], settings.Settings],
        session: aiohttp.ClientSession,
        clock: Clock,
        pause_file: Callable[[], bool],
        report: Callable[[float, str], Awaitable[Report]],
    ) -> None:
        self._api = api
        self._sessions = Sessions(clock.boottime)
        self._access = Access(lambda: of().console, lambda: api.operators, self._sessions)
        api.address = self._access.address  # of the same person by both doors
        self._static = Static()
        self._renderer = Renderer(self._static)
        self.live = Live(api.journal)
        version = lambda: self.live.version  # noqa: E731 - short
        self._gatherer = Gatherer(api.journal, api.decisions, api.ready, pause_file, clock.boottime, version)
        self._graphs = Graphs(lambda: of().prometheus, session, clock.boottime)
        self._views = Views(api, self._gatherer, self._graphs, self._renderer, report, of)
        self._acts = Acts(api.decisions)

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        page, act, views, acts = self._page, self._act, self._views, self._acts
        return [
            web.get("/", _to_console),
            web.get("/console", page(views.now)),
            web.get("/console/login", self._open(self.log_in_page)),
            web.post("/console/login", self._open(self.log_in)),
            web.post("/console/logout", self._open(self.log_out)),
            web.get("/console/live", page(self._follow, within=None)),
            web.get("/console/episodes/{id}", page(views.episode)),
            web.get("/console/episodes/{id}/graph", page(views.graph)),
            web.get("/console/runbooks", page(views.runbooks)),
            web.get("/console/runbooks/{name}", page(views.runbook)),
            web.get("/console/runbooks/{name}/shadow", page(views.shadow)),
            web.get("/console/journal", page(views.journal)),
            web.get("/console/journal/export", page(views.export, within=None)),
            web.get("/console/pauses", page(views.pauses)),
            web.post("/console/approvals/{id}/approve", act(acts.approve, "approve")),
            web.post("/console/approvals/{id}/decline", act(acts.decline, "decline")),
            web.post("/console/doubts/{attempt}/settle", act(acts.settle, "settle")),
            web.post("/console/pauses", act(acts.pause, "pause")),
            web.post("/console/pauses/{id}/end", act(acts.resume, "resume")),
            web.post("/console/storm/end", act(acts.end_storm, "end_storm")),
            web.post("/console/runbooks/{name}/restore", act(acts.restore, "restore")),
            *self._static.routes(),
            web.get("/console/{nowhere:.*}", page(_nowhere)),
        ]

    async def run(self) -> None:
        """Follow the journal, until cancelled."""
        await self.live.run()

    async def close(self) -> None:
        """At shutdown, before the server waits for its requests."""
        await self.live.close()
        await self._gatherer.close()
        await self._graphs.close()

    # -- guards -----------------------------------------------------------------------------------------

    def _page(self, handler: Page, within: float | None = ANSWER_TIMEOUT) -> Handler:
        """For somebody who is logged in; `within` seconds for the answer, None where it takes as long as it takes."""

        @functools.wraps(handler)
        async def shown(request: web.Request) -> web.StreamResponse:
            visitor = self._access.visitor(request)
            if visitor is None:
                return self._away(request)
            return await self._said(request, visitor, asyncio.timeout(within), lambda: handler(request, visitor))

        return shown

    def _act(self, handler: Doing, act: Act, role: Role = "operator") -> Handler:
        """For a form: from this session's page, by somebody with the role. Afterwards the reader is sent on.

        A no is journaled with who, unless it may be somebody else's form.
        """

        @functools.wraps(handler)
        async def done(request: web.Request) -> web.StreamResponse:
            visitor = self._access.visitor(request)

            async def work() -> web.StreamResponse:
                same_origin(request)
                if visitor is None:
                    raise no(403, "logged_out", "You are not logged in any more.", "Log in; nothing was done.")
                form = await _fields(request)
                genuine(visitor, form.get("csrf"))
                try:
                    _holds(visitor, role)
                    went = await handler(request, visitor, form)
                except No as said:
                    of = next(iter(request.match_info.values()), "")
                    await self._api.clicks.refused(act, of, visitor.caller.name, visitor.who, said.error)
                    self.live.publish()
                    raise
                visitor.session.tell(went.said, went.to)
                self.live.publish()
                raise web.HTTPSeeOther(went.to, headers=HEADERS)

            return await self._said(request, visitor, asyncio.timeout(ANSWER_TIMEOUT), work)

        return done

    def _open(self, handler: Handler) -> Handler:
        """For the log-in itself."""

        @functools.wraps(handler)
        async def shown(request: web.Request) -> web.StreamResponse:
            return await self._said(request, None, asyncio.timeout(ANSWER_TIMEOUT), lambda: handler(request))

        return shown

    async def _said(
        self,
        request: web.Request,
        visitor: Visitor | None,
        within: asyncio.Timeout,
        work: Callable[[], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """The answer of `work`, or a page that says why not and what to do."""
        try:
            async with within:
                return await work()
        except No as said:
            return self._problem(request, visitor, said)
        except (JournalError, TimeoutError) as error:
            log.error("journal does not answer the console", path=request.path, why=str(error) or "timeout")
            do = "Look at /-/ready and the log. The pause file stops the automation without the journal."
            message = f"The journal cannot be used now: {str(error) or 'no answer in time'}."
            return self._problem(request, visitor, no(503, "journal_failed", message, do))

    def _problem(self, request: web.Request, visitor: Visitor | None, said: No) -> web.Response:
        about = self._api.about if visitor is not None else None
        return self._renderer.page(
            "problem",
            said.answer.status,
            about=about,
            visitor=visitor,
            path=request.path,
            here="",
            told="",
            error=said.error,
        )

    def _away(self, request: web.Request) -> web.StreamResponse:
        """To the log-in, and back here afterwards."""
        if request.headers.get("HX-Request"):
            return web.Response(status=401, headers=HEADERS | {"HX-Refresh": "true"})
        # Not a redirect: after a link from a chat or a mail the browser keeps a strict cookie back, and gives it to the
        # request that this page makes. So whoever is logged in already comes through.
        to = f"/console/login?next={quote(_next(request.path_qs), safe='')}"
        return self._renderer.page("arrive", 401, to=to)

    async def alert(self, request: web.Request, name: str, text: str) -> web.Response:
        """An alert's page for a browser; `remediator.pages` has its text."""
        return await self._views.alert(request, self._access.visitor(request), name, text)

    async def _follow(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        return await self.live.stream(request, visitor.who, lambda: self._access.visitor(request) is not None)

    # -- log-in -----------------------------------------------------------------------------------------

    async def log_in_page(self, request: web.Request) -> web.StreamResponse:
        """The form; or straight in, for whom a proxy vouches."""
        to = _next(request.query.get("next"))
        if (caller := self._access.vouched(request)) is not None:
            self._enter(request, self._sessions.new(proxied=caller.name), caller, to)
        if self._access.visitor(request) is not None:
            raise web.HTTPSeeOther(to, headers=HEADERS)
        return self._form(request, to, 200, "")

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        """A token for a session. After some wrong ones from an address none is looked at for a while."""
        same_origin(request)
        form, address = await _fields(request), self._access.address(request)
        to = _next(form.get("next"))
        if not self._api.operators.anybody:
            return self._form(request, to, 403, "Nobody can log in: no tokens are configured (`operators`).")
        header = f"Bearer {form.get('token', '').strip()}"
        if (wait := self._api.tries.wait(address, header)) > 0:
            said = f"Too many wrong tokens from {address}. Try again in {wait:.0f} s."
            answer = self._form(request, to, 429, said)
            answer.headers["Retry-After"] = f"{wait:.0f}"
            return answer
        caller = self._api.operators.check(header)
        if caller is Answer.UNCONFIGURED:
            return self._form(request, to, 503, "No token can be read from its file now, so nobody can log in.")
        if isinstance(caller, Answer):
            self._api.tries.fail(address, header)
            log.warning("log-in refused", address=address)
            return self._form(request, to, 403, "This is not a token that is valid now.")
        self._api.tries.right(header)
        said_name = None
        if caller.name is None:
            try:
                said_name = SAID.validate_python(form.get("name", "").strip()[:64])
            except ValidationError:
                return self._form(request, to, 422, "This token is shared: say who you are.")
        self._enter(request, self._sessions.new(header=header, said=said_name), caller, to)
        raise AssertionError("entering ends the request")

    def _enter(self, request: web.Request, session: Session, caller: Caller, to: str) -> None:
        """Begin the session, and send its owner on; one that the browser had is over. Raises HTTPSeeOther."""
        self._sessions.end(self._access.cookie(request))
        answer = web.HTTPSeeOther(to, headers=HEADERS)
        self._access.give(request, answer, self._sessions.begin(session))
        who = caller.name or session.said
        log.info("logged in", who=who, role=caller.role, address=self._access.address(request))
        raise answer

    async def log_out(self, request: web.Request) -> web.StreamResponse:
        """The session is over, here and in the browser."""
        same_origin(request)
        visitor = self._access.visitor(request)
        if visitor is not None:
            genuine(visitor, (await _fields(request)).get("csrf"))
        self._sessions.end(self._access.cookie(request))
        self.live.publish()
        answer = web.HTTPSeeOther("/console/login", headers=HEADERS)
        self._access.take(request, answer)
        raise answer

    def _form(self, request: web.Request, to: str, status: int, why: str) -> web.Response:
        exposed, shared = self._access.exposed(request), self._api.operators.shared
        return self._renderer.page(
            "login", status, about=None, visitor=None, path=request.path, here="", told="", to=to, why=why,
            exposed=exposed, shared=shared,
        )  # fmt: skip


async def _nowhere(_: web.Request, __: Visitor) -> web.StreamResponse:
    """What none of the routes before it is."""
    raise no(404, "no_page", "The console has no such page.", "See the links above.")


async def _to_console(_: web.Request) -> web.StreamResponse:
    raise web.HTTPSeeOther("/console", headers=HEADERS)


async def _fields(request: web.Request) -> Form:
    """A form's fields, each once, in at most as many bytes as a body of the API. Raises No."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise no(415, "no_form", "This is not a form.", "Use the console's own page.")
    try:
        text = (await read_bytes(request)).decode()
        return dict(parse_qsl(text, max_num_fields=MOST_FIELDS, keep_blank_values=True))
    except ValueError as error:
        raise no(400, "bad_form", "This form cannot be read.", "Use the console's own page.") from error


def _holds(visitor: Visitor, role: Role) -> None:
    """Raises No for somebody without the role."""
    if not visitor.caller.may(role):
        said = f"{visitor.who} has the role {visitor.caller.role}; this needs {role}."
        raise no(403, "role", said, "Ask somebody who has it, or for the role in `operators`.")


def _next(given: str | None) -> str:
    """Where to go after the log-in: one of our own pages, whatever a link says."""
    return given if given and NEXT.fullmatch(given) else "/console"


def routes_of(console: Console | None) -> Sequence[web.RouteDef]:
    """None is switched off."""
    return console.routes() if console is not None else ()
