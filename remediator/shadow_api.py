"""The shadow report over the API, and the note that a person gives a runbook more freedom.

In: requests of operators. Out: `shadow_report.as_json`, made of the journal; a promotion becomes one event of the
journal's own stream. Reading is done in small pieces, so that no intent waits for a report; a mode is changed in the
configuration only, never here.

    GET   /api/v1/shadow?since=&runbook=             since in seconds
    POST  /api/v1/runbooks/{name}/promote            {to, reason, who, despite}
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from aiohttp import web
from pydantic import ValidationError

from remediator import openapi
from remediator.api import Api
from remediator.api_models import Promote
from remediator.events import OWN, Event, Kind
from remediator.handling import caller_of, named, no, read_body
from remediator.journal import Journal, Promoted
from remediator.promotion import Record, supports
from remediator.runbooks import MODES, Mode, Runbook, from_body
from remediator.settings import Settings
from remediator.shadow_report import Past, Report, as_json, report

log = structlog.get_logger(__name__)

MOST = 2000  # episodes of one report, the newest
PIECE = 100  # episodes read in one look at the journal
DOCUMENTS = 200  # runbooks that are kept read


@dataclass
class Shadow:
    """Handlers; `api` guards them. `settings` and `books` are those that hold at the moment."""

    journal: Journal
    api: Api
    settings: Callable[[], Settings]
    books: Callable[[], Sequence[Runbook]]
    _documents: dict[str, Runbook] = field(default_factory=dict)

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        return [
            web.get("/api/v1/shadow", self.api.guarded(self.shadow)),
            web.post("/api/v1/runbooks/{name}/promote", self.api.guarded(self.promote, role="operator", act="promote")),
        ]

    async def shadow(self, request: web.Request) -> web.Response:
        """The report, of all runbooks or of one."""
        asked = request.query.get("runbook")
        if asked is not None:
            self._known(asked)
        since = _since(request.query.get("since")) or self.settings().promotion.window
        found = await self.report(since, asked)
        return web.json_response(await asyncio.to_thread(as_json, found))

    async def promote(self, request: web.Request) -> web.Response:
        """Into the journal: who, why, from, to. 409 where the report does not support it and `despite` is not given."""
        said = await read_body(request, Promote)
        name, who = request.match_info["name"], named(caller_of(request), said.who)
        self._known(name)
        found = (await self.report(self.settings().promotion.window, name)).records[0]
        was = found.mode or MODES[0]
        if MODES.index(was) >= MODES.index(said.to):
            raise no(409, "no_promotion", f"{name} is in {was} already.", "Change `mode` in its file to hold it lower.")
        if not supports(found, said.to) and said.despite is None:
            raise no(409, "not_supported", _unsupported(found, said.to), "Wait, or say why in `despite`.")
        await self.journal.promoted(Promoted(name, was, said.to, who, said.reason, said.despite or ""))
        log.warning("runbook promoted", runbook=name, was=was, to=said.to, who=who, despite=said.despite)
        return web.json_response({"status": "noted", "runbook": name, "was": was, "to": said.to})

    def _known(self, name: str) -> None:
        known = sorted(book.name for book in self.books())
        if name not in known:
            raise no(404, "no_such_runbook", f"There is no runbook {name[:63]!r}.", f"Give one of {', '.join(known)}.")

    async def report(self, since: float, only: str | None) -> Report:
        """Everything that the journal holds of the last `since` seconds, looked back at."""
        now, settings = await self.journal.now(), self.settings()
        rows = [row for row in await self.journal.episodes(limit=MOST + 1) if row.opened_at >= now - since]
        histories, unreadable = await self._histories([OWN, *(row.episode for row in rows[-MOST:])])
        demoted = {one.runbook: one.why for one in await self.journal.demoted()}
        books = {book.name: book for book in self.books()}
        past = Past(
            now=now,
            since=now - since,
            histories=histories,
            documents=await self._bodies(histories),
            books=books,
            modes={name: strictest(settings.mode, book.mode, name in demoted) for name, book in books.items()},
            demoted=demoted,
            budget=(settings.guards.budget_episodes, settings.guards.budget_failures),
            unreadable=unreadable,
            cut=len(rows) > MOST,
        )
        return await asyncio.to_thread(report, past, settings.promotion, [only] if only else ())

    async def _histories(self, wanted: Sequence[str]) -> tuple[dict[str, list[Event]], int]:
        """Events by episode, those of newer programs only counted. Between two pieces others may use the journal."""
        found: dict[str, list[Event]] = {}
        unreadable = 0
        for first in range(0, len(wanted), PIECE):
            for name, events in (await self.journal.histories(wanted[first : first + PIECE])).items():
                if events is None:
                    unreadable += 1
                else:
                    found[name] = events
            await asyncio.sleep(0)
        return found, unreadable

    async def _bodies(self, histories: Mapping[str, Sequence[Event]]) -> dict[str, Runbook]:
        """The runbooks that the episodes were decided on, as the journal keeps them."""
        told = (Kind.OPENED, Kind.MATCHED)
        digests = {event.data.get("digest") for events in histories.values() for event in events if event.kind in told}
        if len(self._documents) > DOCUMENTS:
            self._documents.clear()
        for digest in digests - self._documents.keys() - {None}:
            body = await self.journal.get_document(str(digest))
            try:
                if body is not None:
                    self._documents[str(digest)] = from_body(body)
            except ValidationError:
                continue  # of a version that cannot be read any more: not at hand
        return dict(self._documents)


def strictest(remediator: Mode, book: Mode, demoted: bool) -> Mode:
    """What a runbook may do by now."""
    modes = (remediator, book, "approve" if demoted else "auto")
    return next(mode for mode in MODES if mode in modes)


def _unsupported(found: Record, to: Mode) -> str:
    missing = " ".join(found.missing[to])
    return f"The shadow report does not support {to} for {found.runbook}: {missing}"


def _since(given: str | None) -> float | None:
    if given is None:
        return None
    if not re.fullmatch("[1-9][0-9]{0,8}", given) or int(given) > openapi.MOST_SINCE:
        message = f"`since` is not a number of seconds from 1 to {openapi.MOST_SINCE}."
        raise no(400, "since", message, "Give ?since=2592000 for 30 days.")
    return float(given)
