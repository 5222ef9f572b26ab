"""The JSON API for operators, and what says whether the remediator lives: health, readiness, metrics.

In: requests with a bearer token of `operators` or `api_token_files`. Out: JSON. It reads the journal and writes
into it what people say, by `decisions.py`: pauses and their end, doubts settled here, questions answered in
`approvals.py`. It performs no action; it can have the configuration read anew. Without tokens in the settings all of
this answers 403.

    GET    /api/v1/episodes?open=1&limit=50          GET  /api/v1/episodes/{id}
    GET    /api/v1/journal?after=&limit=             GET  /api/v1/journal/verify
    GET    /api/v1/doubts
    GET    /api/v1/pauses        POST /api/v1/pauses      {scope, who, reason, for_seconds}
    DELETE /api/v1/pauses/{id}?who=
    POST   /api/v1/doubts/{attempt}/settle                {settlement, who, reason}
    GET    /api/v1/status        GET  /api/v1/openapi.json  (what all of these take and answer)
    POST   /-/reload                                      read configuration and runbooks anew
    GET    /-/healthy   GET /-/ready   GET /metrics       (no token: for the machine and Prometheus)
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog
from aiohttp import web

from remediator import narrative, openapi
from remediator.answers import faulty, finished, problem, refused
from remediator.api_models import NewPause, Settle
from remediator.bearer import Answer
from remediator.clicks import SHARED, Act, Clicks
from remediator.decisions import Decisions
from remediator.errors import ConfigError, JournalError
from remediator.events import Event
from remediator.handling import CALLER, SAID, No, caller_of, no, read_body
from remediator.journal import EpisodeRow, Journal
from remediator.journal.readings import START, Verified
from remediator.journal.seals import Seal
from remediator.ledger import Attempt
from remediator.metrics import Metrics
from remediator.narrative import line
from remediator.operators import Caller, Operators
from remediator.runbooks import Runbook
from remediator.seal_names import SEAL
from remediator.settings import Role
from remediator.tries import Tries

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT = 10.0  # seconds for the whole of an answer
READY_TIMEOUT = 5.0
VERIFYING = 3.0  # seconds for a part of a verification
Json = Any  # what `json.dumps` takes
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Footing:
    """One thing the remediator stands on, for readiness. `detail` is for people and holds no secret."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class About:
    """What this process was started with."""

    version: str
    environment: str
    mode: str
    config_digest: str


@dataclass
class Api:
    """Handlers of the API. `ready` tells each footing; it is asked with a bound on its time."""

    journal: Journal
    metrics: Metrics
    operators: Operators
    books: Callable[[], Sequence[Runbook]]
    ready: Callable[[], Awaitable[Sequence[Footing]]]
    about: About
    reload: Callable[[], Awaitable[Sequence[str]]] | None = None
    """Reads the configuration anew: what changed, or ConfigError. None where there is none to read."""
    tries: Tries = field(default_factory=Tries)
    address: Callable[[web.Request], str] = lambda request: request.remote or "unknown"
    """Where a request comes from; the console knows which proxy is believed about it."""

    def __post_init__(self) -> None:
        self.decisions = Decisions(self.journal, self.books)
        self.clicks = Clicks(self.journal)

    def reconfigure(self, operators: Operators, about: About) -> None:
        """Other tokens from the next request on, and another configuration to tell of."""
        self.operators, self.about = operators, about

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        guard, act = self.guarded, functools.partial(self.guarded, role="operator")
        return [
            web.get("/api/v1/episodes", guard(self.episodes)),
            web.get("/api/v1/episodes/{id}", guard(self.episode)),
            web.get("/api/v1/journal", guard(self.tail)),
            web.get("/api/v1/journal/verify", guard(self.verify)),
            web.get("/api/v1/doubts", guard(self.doubts)),
            web.post("/api/v1/doubts/{attempt}/settle", act(self.settle, act="settle")),
            web.get("/api/v1/pauses", guard(self.pauses)),
            web.post("/api/v1/pauses", act(self.pause, act="pause")),
            web.delete("/api/v1/pauses/{id}", act(self.resume, act="resume")),
            web.get("/api/v1/status", guard(self.status)),
            web.post("/-/reload", act(self.read_anew)),
            web.get("/api/v1/openapi.json", guard(self.description)),
            web.get("/-/healthy", self.healthy),
            web.get("/-/ready", self.readiness),
            web.get("/metrics", self.exposition),
        ]

    def guarded(self, handler: Handler, *, role: Role = "viewer", act: Act | None = None) -> Handler:
        """Token and role first; then the handler's answer, or one that says what to do.

        act  what a person does by it: a no to that is journaled, with who
        """

        @functools.wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            if (answer := self._authenticate(request)) is not None:
                return await finished(request, answer)
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    _holds(caller_of(request), role)
                    return await handler(request)
            except No as said:
                if act is not None:
                    await self._refused(request, act, said)
                return await finished(request, said.answer)
            except (JournalError, TimeoutError) as error:
                self.metrics.journal_failed()
                log.error("journal does not answer the API", path=request.path, why=str(error) or "timeout")
                do = "Look at /-/ready and the log. The pause file stops the automation without the journal."
                message = f"The journal cannot be used now: {str(error) or 'no answer in time'}."
                return problem(503, "journal_failed", message, do, {"Retry-After": "2"})

        return guarded

    async def _refused(self, request: web.Request, act: Act, said: No) -> None:
        caller = caller_of(request)
        given = getattr(request.get(SAID), "who", None) or request.query.get("who")
        who = caller.name or given or SHARED
        of = next(iter(request.match_info.values()), "")
        await self.clicks.refused(act, of, caller.name, who, said.error)

    def _authenticate(self, request: web.Request) -> web.Response | None:
        if not self.operators.anybody:
            do = "Name files with operators' tokens under `operators` or `api_token_files` and restart."
            return problem(403, "api_disabled", "The API is switched off: no tokens are configured.", do)
        header, address = request.headers.get("Authorization"), self.address(request)
        if header and (wait := self.tries.wait(address, header)) > 0:
            # 403 and not 429: by the description a token that does not let in is answered by 401 or 403, whyever.
            said = f"Too many wrong tokens came from {address}; none is looked at for a while."
            return problem(403, "too_many_tries", said, f"Try again in {wait:.0f} s.", {"Retry-After": f"{wait:.0f}"})
        caller = self.operators.check(header)
        if caller is Answer.WRONG:
            self.tries.fail(address, header)
            log.warning("token refused", address=address, path=request.path)
        if isinstance(caller, Answer):
            return refused(caller, "operators` and `api_token_files")
        self.tries.right(header)
        request[CALLER] = caller
        return None

    # -- reading ----------------------------------------------------------------------------------------

    async def episodes(self, request: web.Request) -> web.Response:
        """The latest episodes, the newest last; `open=1` only open ones, `open=0` only closed ones."""
        limit = _number(request, "limit", 50, 1, openapi.MOST_EPISODES)
        only = {None: None, "1": True, "0": False}
        if (asked := request.query.get("open")) not in only:
            raise no(400, "open", "`open` is neither 1 nor 0.", "Leave it out for all episodes.")
        rows = await self.journal.episodes(open=only[asked], limit=limit)
        now = await self.journal.now()
        return web.json_response({"episodes": [await self._summary(row, now) for row in rows]})

    async def episode(self, request: web.Request) -> web.Response:
        """One episode with all its events in order, each also as a sentence."""
        asked = request.match_info["id"]
        row = await self.journal.episode(asked) if re.fullmatch(openapi.EPISODE, asked) else None
        if row is None:
            raise no(
                404,
                "no_such_episode",
                "There is no episode with this id.",
                "GET /api/v1/episodes lists them.",
            )
        now = await self.journal.now()
        events = await self.decisions.events(asked)
        said = [event_line(event) for event in events or ()]
        not_acted = narrative.not_acted(events) if events else None
        clicks = [event_line(event) for event in await self.journal.clicks_about(asked, row.opened_at)]
        state = {"why": narrative.state(events, now), "not_acted": not_acted}
        story = {"episode": _row(row), **state, "events": said, "not_taken": clicks}
        return web.json_response(story)

    async def _summary(self, row: EpisodeRow, now: float) -> dict[str, Json]:
        return _row(row) | {"why": narrative.state(await self.decisions.events(row.episode), now)}

    async def tail(self, request: web.Request) -> web.Response:
        """Events of all episodes by time: the newest, or those since `after`. `next` is the next `after`.

        The newest ones are told again by the next answer, since another replica may commit out of the order
        of times: a reader knows an event by its episode and seq.
        """
        limit = _number(request, "limit", 100, 1, openapi.MOST_EVENTS)
        events, following = await self.journal.tail(_moment(request, "after"), limit)
        said = [{"episode": event.episode, "id": event.id, **event_line(event)} for event in events]
        return web.json_response({"events": said, "next": following})

    async def verify(self, request: web.Request) -> web.Response:
        """Each difference between the events, what was charged and what was sealed; none is what it should be.

        In parts: `next` is the next `after`, null at the end. With `seal` only that one is compared with what was told.
        """
        begin, said = await self._verified(request.query.get("after")), request.query.get("seal")
        if said is not None:
            return web.json_response(await self._told(said))
        part = await self.journal.verify_part(begin, VERIFYING)
        following = None if part.after is None else str(part.after)
        return web.json_response(await self._verification(part.problems, part.seal, following))

    async def _verification(self, problems: Sequence[str], seal: Seal | None, following: str | None) -> Json:
        told = seal and {"number": seal.number, "digest": seal.digest, "at": seal.at}
        left = await self.journal.unsealed()
        return {"problems": [*problems], "seal": told, "next": following, "unsealed": left}

    async def _told(self, said: str) -> Json:
        if not re.fullmatch(SEAL, said):
            do = "Give number:digest, as the log's line `journal sealed` or the two metrics tell it."
            raise no(400, "seal", "`seal` is no number and digest of a seal.", do)
        number, _, word = said.partition(":")
        seal, problems = await self.journal.seal_of(int(number)), []
        if seal is None:
            problems.append(f"seal {number}: not there, and it was told outside of the journal")
        elif not seal.is_told(word):
            problems.append(f"seal {number}: {seal.digest} is not what was told outside of the journal")
        return await self._verification(problems, seal, None)

    async def _verified(self, given: str | None) -> Verified:
        if given is None:
            return START
        if not re.fullmatch(openapi.VERIFIED, given):
            raise no(400, "after", "`after` is no place in a verification.", "Give the `next` of the answer before.")
        what, _, which = given.partition(":")
        return Verified(which) if what == "episode" else Verified(None, await self.journal.seal_of(int(which)))

    async def doubts(self, _: web.Request) -> web.Response:
        """Attempts that may have taken effect and are not running any more."""
        return web.json_response(
            {"doubts": [_doubt(episode, attempt) for episode, attempt in await self.decisions.doubts()]}
        )

    async def status(self, _: web.Request) -> web.Response:
        """What it is, what it may do, and what needs a person."""
        books = [{"name": book.name, "digest": book.digest(), "mode": book.mode} for book in self.books()]
        open_rows = await self.journal.open_episodes()
        said = {
            **asdict(self.about),
            "now": await self.journal.now(),
            "runbooks": books,
            "episodes_open": len(open_rows),
            "doubts": [_doubt(episode, attempt) for episode, attempt in await self.decisions.doubts()],
            "pauses": [asdict(pause) for pause in await self.journal.pauses()],
            "storm": asdict(storm) if (storm := await self.journal.storm()) is not None else None,
            "demoted": [asdict(one) for one in await self.journal.demoted()],
            "approvals_waiting": sum(row.refused == "needs_approval" for row in open_rows),
            "running": [asdict(attempt) for attempt in await self.journal.running()],
            "dead_letters": await self.journal.dead_letters(),
        }
        return web.json_response(said)

    async def description(self, _: web.Request) -> web.Response:
        """The OpenAPI document of this API, with the runbooks that are loaded."""
        return web.json_response(openapi.document(self.about.version, [book.name for book in self.books()]))

    # -- what a person says -----------------------------------------------------------------------------

    async def pauses(self, _: web.Request) -> web.Response:
        """Pauses in force."""
        return web.json_response({"pauses": [asdict(pause) for pause in await self.journal.pauses()]})

    async def pause(self, request: web.Request) -> web.Response:
        """Stop beginning actions. Answers once it holds for every replica, with what is running."""
        made, running = await self.decisions.pause(caller_of(request), await read_body(request, NewPause))
        said = {"pause": asdict(made), "running": [asdict(attempt) for attempt in running]}
        return web.json_response(said, status=201)

    async def resume(self, request: web.Request) -> web.Response:
        """End a pause; ending one that is over is no mistake of anybody's, but is said."""
        who = request.query.get("who")
        ended = await self.decisions.resume(caller_of(request), request.match_info["id"], who)
        return web.json_response({"resumed": ended})

    async def settle(self, request: web.Request) -> web.Response:
        """A person's word about an attempt in doubt. Refused while it may still be running."""
        asked, said = request.match_info["attempt"], await read_body(request, Settle)
        episode = await self.decisions.settle(caller_of(request), asked, said)
        return web.json_response({"status": "accepted", "episode": episode, "attempt": asked}, status=202)

    async def read_anew(self, _: web.Request) -> web.Response:
        """Read settings and runbooks: 200 with what changed, 422 with every fault, and then nothing has changed."""
        if self.reload is None:
            raise no(404, "no_configuration", "There is no configuration to read.", "Start prep-remediator itself.")
        try:
            found = await self.reload()
        except ConfigError as error:
            raise No(faulty(error.faults)) from error
        said = {"status": "reloaded", "config_digest": self.about.config_digest, "changed": list(found)}
        return web.json_response(said)

    # -- for the machine --------------------------------------------------------------------------------

    async def healthy(self, _: web.Request) -> web.Response:
        """The process answers. Whether it can work is readiness: a restart would not mend that."""
        return web.json_response({"status": "healthy"})

    async def readiness(self, _: web.Request) -> web.Response:
        """200 when every footing holds, else 503; each with its detail."""
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                checks = list(await self.ready())
        except TimeoutError:
            checks = [Footing("answer", False, f"the footings did not answer within {READY_TIMEOUT:.0f} s")]
        ok = bool(checks) and all(check.ok for check in checks)
        body = {"status": "ready" if ok else "not ready", "checks": [asdict(check) for check in checks]}
        return web.json_response(body, status=200 if ok else 503)

    async def exposition(self, request: web.Request) -> web.Response:
        """The remediator's own metrics."""
        text, content_type = self.metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})


def _holds(caller: Caller, role: Role) -> None:
    """Raises No for somebody without the role."""
    if not caller.may(role):
        said = f"{caller.name or 'This token'} has the role {caller.role}; this needs {role}."
        raise no(403, "role", said, "Ask somebody who has it, or for the role in `operators`.")


def _row(row: EpisodeRow) -> dict[str, Json]:
    said = asdict(row)
    return {"id": said.pop("episode"), "alert": said.pop("label"), **said}


def event_line(event: Event) -> dict[str, Json]:
    """An event as the API tells it."""
    return {
        "seq": event.seq,
        "at": event.at,
        "kind": event.kind.value,
        "sentence": line(event),
        "data": event.data,
    }


def _doubt(episode: str, attempt: Attempt) -> Mapping[str, Json]:
    return {
        "attempt": attempt.id,
        "episode": episode,
        "action": attempt.action,
        "resource": attempt.resource,
        "summary": attempt.summary,
        "at": attempt.at,
        "detail": attempt.detail or "no outcome was written",
    }


def _number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    given = request.query.get(name)
    if given is None:
        return default
    if not given.isascii() or not given.isdigit() or len(given) > 9 or not least <= int(given) <= most:
        raise no(
            400,
            name,
            f"`{name}` is not a number from {least} to {most}.",
            f"Give ?{name}={default}, for example.",
        )
    return int(given)


def _moment(request: web.Request, name: str) -> str | None:
    given = request.query.get(name)
    if given is not None and not re.fullmatch(openapi.MOMENT, given):
        raise no(400, name, f"`{name}` is no place in the journal.", "Give the `next` of the answer before.")
    return given
