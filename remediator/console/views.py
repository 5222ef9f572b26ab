"""The pages that only show: now, an episode with its line, runbooks, an alert's page, journal and export, pauses.

In: a request of a `Visitor`. Out: HTML, or JSON lines. Reads only, in bounded pieces.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiohttp import web

from remediator import narrative, openapi, shadow_words
from remediator.api import Api, event_line
from remediator.console.access import Visitor
from remediator.console.graph import Graphs, Line
from remediator.console.live import WRITE_WITHIN
from remediator.console.overview import Gatherer
from remediator.console.render import HEADERS, Renderer, markdown
from remediator.console.timeline import entry, folded, things
from remediator.errors import JournalError
from remediator.events import OWN, Event, Kind
from remediator.handling import no
from remediator.journal import EpisodeRow, Place, Wanted
from remediator.ledger import fold
from remediator.settings import Settings
from remediator.shadow_report import Report

log = structlog.get_logger(__name__)

A_PAGE, A_PIECE, MOST_EXPORTED = 100, 1000, 200_000
MOST_ENTRIES = 200
REPORT_KEEP, LATEST = 60.0, 10  # seconds, episodes
AT_ONCE = 2  # exports
FILTERS = ("kind", "runbook", "episode", "days")
EFFECTS = 30 * 86400.0  # seconds
PEOPLE = ("approved", "declined", "settled", "paused", "resumed", "storm_ended", "restored", "promoted", "not_taken")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "people": PEOPLE,
    "effects": ("intent", "outcome", "settled", "verdict"),
    "refusals": ("refused",),
    "hand-overs": ("handed_over",),
}
PLACE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)_([0-9a-zA-Z-]{1,64})_([0-9]{1,9})")
_DAYS = {"1": 86400.0, "7": 7 * 86400.0, "30": 30 * 86400.0}


@dataclass
class Views:
    """Handlers; the console guards them."""

    api: Api
    gatherer: Gatherer
    graphs: Graphs
    renderer: Renderer
    report: Callable[[float, str], Awaitable[Report]]
    settings: Callable[[], Settings]
    _reports: dict[str, tuple[float, Report]] = field(default_factory=dict)
    _reporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def show(self, request: web.Request, visitor: Visitor, name: str, /, **values: Any) -> web.Response:
        """A page with what all pages have."""
        told = visitor.session.telling(request.path, renewed="HX-Request" in request.headers)
        return self.renderer.page(
            name, about=self.api.about, visitor=visitor, path=request.path, here=request.path_qs, told=told, **values
        )

    # -- now --------------------------------------------------------------------------------------------

    async def now(self, request: web.Request, visitor: Visitor) -> web.Response:
        """What is open, what waits for a person, what holds, and whether it can work."""
        found = await self.gatherer.overview(_number(request, "page"))
        footings = await self.gatherer.footings()
        return self.show(request, visitor, "now", all=found, footings=footings, things=things)

    # -- an episode -------------------------------------------------------------------------------------

    async def episode(self, request: web.Request, visitor: Visitor) -> web.Response:
        """All that happened, in order; its question; in one sentence why nothing was done."""
        row = await self._row(request)
        now = await self.api.journal.now()
        told = await self.api.decisions.events(row.episode)
        events = told or []
        whole = request.query.get("all") == "1"
        ledger = fold(events) if events else None
        asked = ledger.approval if ledger is not None and not ledger.closed else None
        return self.show(
            request,
            visitor,
            "episode",
            row=row,
            now=now,
            ledger=ledger,
            asked=asked if asked is not None and asked.open and not (ledger and ledger.handed_over) else None,
            doubts=[one for one in ledger.attempts if one.in_doubt] if ledger else [],
            why=narrative.state(told, now),
            not_acted=narrative.not_acted(events) if events else None,
            story=folded(events, MOST_ENTRIES, whole=whole),
            clicks=[entry(event) for event in await self.api.journal.clicks_about(row.episode, row.opened_at)],
            whole=whole,
            things=things,
        )

    async def graph(self, request: web.Request, visitor: Visitor) -> web.Response:
        """The line, as a piece of the episode's page."""
        del visitor
        row = await self._row(request)
        events = await self.api.decisions.events(row.episode) or []
        if not events or events[0].data.get("command"):
            found: Line | str = "There is no alert rule behind this."
        else:
            now = await self.api.journal.now()
            found = await self.graphs.line(fold(events), events, row.closed_at, now)
        drawn = isinstance(found, Line)
        return self.renderer.page("graph", line=found if drawn else None, why="" if drawn else found)

    async def _row(self, request: web.Request) -> EpisodeRow:
        asked = request.match_info["id"]
        row = await self.api.journal.episode(asked) if re.fullmatch(openapi.EPISODE, asked) else None
        if row is None:
            raise no(404, "no_such_episode", "There is no episode with this id.", "The journal lists all there were.")
        return row

    # -- runbooks and alerts ----------------------------------------------------------------------------

    async def runbooks(self, request: web.Request, visitor: Visitor) -> web.Response:
        """All that are loaded, with what came of them in the last 30 days."""
        journal = self.api.journal
        effects = await journal.effects(await journal.now() - EFFECTS)
        demoted = {one.runbook: one for one in await journal.demoted()}
        open_ = await journal.open_by_runbook()
        books = sorted(self.api.books(), key=lambda book: book.name)
        return self.show(request, visitor, "runbooks", books=books, effects=effects, demoted=demoted, open=open_)

    async def runbook(self, request: web.Request, visitor: Visitor) -> web.Response:
        """One: when it matches, its ladder, its numbers, what came of it, its latest episodes."""
        name = request.match_info["name"]
        book = next((book for book in self.api.books() if book.name == name), None)
        if book is None:
            raise no(404, "no_such_runbook", "No runbook of this name is loaded.", "See the list of runbooks.")
        journal = self.api.journal
        effects = (await journal.effects(await journal.now() - EFFECTS)).get(name)
        demoted = next((one for one in await journal.demoted() if one.runbook == name), None)
        latest = (await journal.page(Wanted(kinds=("opened",), runbook=name), None, 20)).events
        return self.show(request, visitor, "runbook", book=book, effects=effects, demoted=demoted, latest=latest)

    async def shadow(self, request: web.Request, visitor: Visitor) -> web.Response:
        """The shadow report of a runbook, as a piece of its page: it reads many episodes, and is made once a minute."""
        del visitor
        name = request.match_info["name"]
        if all(book.name != name for book in self.api.books()):
            raise no(404, "no_such_runbook", "No runbook of this name is loaded.", "See the list of runbooks.")
        now = await self.api.journal.now()
        async with self._reporting:
            if name not in self._reports or now - self._reports[name][0] > REPORT_KEEP:
                self._reports[name] = now, await self.report(self.settings().promotion.window, name)
        at, found = self._reports[name]
        latest = [
            (seen, shadow_words.story(seen)) for seen in sorted(found.seen, key=lambda one: -one.opened_at)[:LATEST]
        ]
        verdict = [line for record in found.records for line in shadow_words.verdict(record, found.past.budget[1])]
        return self.renderer.page(
            "shadow",
            at=at,
            verdict=verdict,
            latest=latest,
            meaning=shadow_words.meaning(found.numbers),
            cut=found.past.cut,
        )

    async def alert(self, request: web.Request, visitor: Visitor | None, name: str, text: str) -> web.Response:
        """The page of an alert: readable without a log-in; with one, where the automation stands too."""
        books = [book for book in self.api.books() if name in book.match.alertnames] if visitor else []
        values: dict[str, Any] = {"name": name, "text": markdown(text), "books": books}
        if visitor is None:
            return self.renderer.page("alert", about=None, visitor=None, path=request.path, here="", told="", **values)
        return self.show(request, visitor, "alert", **values)

    # -- the journal ------------------------------------------------------------------------------------

    async def journal(self, request: web.Request, visitor: Visitor) -> web.Response:
        """Events of everything, the newest first, a page at a time."""
        wanted, days = await self._wanted(request)
        found = await self.api.journal.page(wanted, _place(request), A_PAGE)
        older = "_".join((repr(found.older[0]), found.older[1], str(found.older[2]))) if found.older else ""
        asked = {name: request.query[name] for name in FILTERS if request.query.get(name)}
        return self.show(
            request,
            visitor,
            "journal",
            events=[(_page_of(event), entry(event)) for event in found.events],
            older=older,
            asked=asked,
            days=days,
            groups=list(GROUPS),
            kinds=[kind.value for kind in Kind],
            books=sorted(book.name for book in self.api.books()),
        )

    async def export(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        """The same as JSON lines, the newest first, as the API tells events; piece by piece, so memory stays flat."""
        del visitor
        wanted, _ = await self._wanted(request)
        if self._exports.locked():
            raise no(503, "too_many", "Two exports run already.", "Try again when they are done.")
        headers = HEADERS | {"Content-Disposition": 'attachment; filename="journal.jsonl"'}
        response = web.StreamResponse(headers=headers | {"Content-Type": "application/x-ndjson; charset=utf-8"})
        async with self._exports:
            left = MOST_EXPORTED
            found = await self.api.journal.page(wanted, None, A_PIECE)  # what fails now is still said as a page
            await response.prepare(request)
            try:
                while True:
                    told = ({"episode": event.episode, "id": event.id, **event_line(event)} for event in found.events)
                    async with asyncio.timeout(WRITE_WITHIN):  # who takes nothing must not keep others from exporting
                        await response.write("".join(f"{json.dumps(line)}\n" for line in told).encode())
                    left -= len(found.events)
                    if found.older is None or left <= 0:
                        break
                    found = await self.api.journal.page(wanted, found.older, A_PIECE)
                await response.write_eof()
            except (JournalError, ConnectionError, TimeoutError) as error:
                log.warning("export broke off", why=str(error))
                request.protocol.force_close()  # a cut answer, not one that looks whole
        return response

    async def _wanted(self, request: web.Request) -> tuple[Wanted, str]:
        """The filter that the request asks for; raises No for one that there is not."""
        kind, book = request.query.get("kind", ""), request.query.get("runbook", "")
        episode, days = request.query.get("episode", "").strip(), request.query.get("days", "")
        kinds = GROUPS.get(kind, (kind,) if kind else ())
        if any(one not in Kind.__members__.values() for one in kinds):
            raise no(400, "kind", "There is no such kind of event.", "Choose one of the list.")
        if episode and not re.fullmatch(openapi.EPISODE, episode):
            raise no(400, "episode", "That is no id of an episode.", "Copy it from an episode's page.")
        if len(book) > 63 or (days and days not in _DAYS):
            raise no(400, "filter", "There is no such filter.", "Choose one of the list.")
        since = await self.api.journal.now() - _DAYS[days] if days else None
        return Wanted(tuple(kinds), episode or None, book or None, since), days

    # -- pauses -----------------------------------------------------------------------------------------

    async def pauses(self, request: web.Request, visitor: Visitor) -> web.Response:
        """Those in force, and the form for another one."""
        journal = self.api.journal
        now, found = await journal.now(), await journal.pauses()
        books = sorted(book.name for book in self.api.books())
        return self.show(
            request,
            visitor,
            "pauses",
            now=now,
            pauses=found,
            running=await journal.running(),
            books=books,
            services=sorted(self.settings().services),
            scope=request.query.get("scope", "all"),
        )


def _page_of(event: Event) -> str:
    """Where an event of the journal leads: its place in an episode; the episode it is about; "" without one."""
    if event.kind is Kind.NOT_TAKEN:
        return event.data["episode"] or ""
    return "" if event.episode == OWN else f"{event.episode}#event-{event.seq}"


def _number(request: web.Request, name: str) -> int:
    given = request.query.get(name, "1")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 6 else 1


def _place(request: web.Request) -> Place | None:
    given = request.query.get("before")
    if not given:
        return None
    found = PLACE.fullmatch(given)
    if found is None:
        raise no(400, "before", "That is no place in the journal.", "Follow the link to older events.")
    return float(found[1]), found[2], int(found[3])
