"""What people decide: approvals given and declined, a storm ended, a demoted runbook restored.

In: requests of named people (`operators`). Out: rows that the episode's owner folds in (`episodes.py`), and changes
under the intents' lock. An answer is bound to the digest that its giver has seen: what would be done may be something
else by the time somebody clicks, and then it is another question.

    GET  /api/v1/approvals
    POST /api/v1/approvals/{id}/approve       {digest, reason, who}
    POST /api/v1/approvals/{id}/decline       {digest, reason, who}
    POST /api/v1/storm/end                    {reason, who}
    POST /api/v1/runbooks/{name}/restore      {reason, who}
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from remediator import openapi
from remediator.api import Api, Handler
from remediator.api_models import Because, Decline, Yes
from remediator.errors import Conflict
from remediator.events import Unknown
from remediator.handling import caller_of, no, read_body, who_of
from remediator.journal import EpisodeRow, Journal
from remediator.ledger import Approval, fold

log = structlog.get_logger(__name__)


@dataclass
class Approvals:
    """Handlers; `api` guards them."""

    journal: Journal
    api: Api

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""

        def act(handler: Handler) -> Handler:
            return self.api.guarded(handler, role="operator")

        return [
            web.get("/api/v1/approvals", self.api.guarded(self.waiting)),
            web.post("/api/v1/approvals/{id}/approve", act(self.approve)),
            web.post("/api/v1/approvals/{id}/decline", act(self.decline)),
            web.post("/api/v1/storm/end", act(self.end_storm)),
            web.post("/api/v1/runbooks/{name}/restore", act(self.restore)),
        ]

    async def waiting(self, _: web.Request) -> web.Response:
        """Questions that can be answered now, the oldest first."""
        now = await self.journal.now()
        found = [_told(row, asked) for row, asked in await self._open() if asked.good_until > now]
        return web.json_response({"approvals": found, "now": now})

    async def approve(self, request: web.Request) -> web.Response:
        """Yes. It is done when nothing forbids it at that moment, after another look; 202 says that it is taken."""
        said = await read_body(request, Yes)
        row, asked = await self._asked(request.match_info["id"], said.digest)
        who = who_of(request, said.who)
        if asked.persons > 1 and caller_of(request).name is None:
            raise no(
                403,
                "shared_token",
                f"This needs {asked.persons} different persons, and a shared token is nobody in particular.",
                "Use a token of your own (`operators` in the configuration).",
            )
        if who in asked.approved_by:
            do = "Another person must approve it too."
            raise no(409, "approved_already", f"{who} has approved it; {asked.persons} persons are needed.", do)
        return await self._click(row, asked, "approve", who, said.reason or "")

    async def decline(self, request: web.Request) -> web.Response:
        """No, for this episode. It costs no limit."""
        said = await read_body(request, Decline)
        row, asked = await self._asked(request.match_info["id"], said.digest)
        return await self._click(row, asked, "decline", who_of(request, said.who), said.reason)

    async def end_storm(self, request: web.Request) -> web.Response:
        """A person says that the storm is over: what waits is released one after the other."""
        said = await read_body(request, Because)
        who = who_of(request, said.who)
        if not await self.journal.end_storm(who, said.reason):
            raise no(409, "no_storm", "There is no storm.", "GET /api/v1/status tells what holds.")
        log.warning("storm ended by a person", who=who, reason=said.reason)
        return web.json_response({"status": "ended"})

    async def restore(self, request: web.Request) -> web.Response:
        """A demoted runbook may do what its mode says again."""
        said = await read_body(request, Because)
        name, who = request.match_info["name"], who_of(request, said.who)
        if not await self.journal.restore(name, who, said.reason):
            do = "GET /api/v1/status lists those that are."
            raise no(409, "not_demoted", f"Runbook {name[:63]!r} is not demoted.", do)
        log.warning("runbook restored", runbook=name, who=who, reason=said.reason)
        return web.json_response({"status": "restored", "runbook": name})

    # -- questions --------------------------------------------------------------------------------------

    async def _open(self) -> list[tuple[EpisodeRow, Approval]]:
        found = []
        for row in await self.journal.open_episodes():
            if row.refused != "needs_approval":
                continue
            try:
                asked = fold(await self.journal.events(row.episode)).approval
            except Unknown:
                continue  # a newer version's question: that one answers for it
            if asked is not None and asked.open:
                found.append((row, asked))
        return found

    async def _asked(self, id: str, digest: str) -> tuple[EpisodeRow, Approval]:
        """The open question of this id, seen as it is. Raises No."""
        found = [pair for pair in await self._open() if pair[1].id == id] if re.fullmatch(openapi.ATTEMPT, id) else []
        if not found:
            do = "GET /api/v1/approvals lists what waits; another one may have answered it."
            raise no(404, "no_such_approval", "No question with this id waits for an answer.", do)
        row, asked = found[0]
        if not asked.digest.startswith(digest):
            do = "Read it again: what would be done has changed since you saw it."
            raise no(409, "digest", "The digest is not that of what would be done now.", do)
        if await self.journal.now() >= asked.good_until:
            raise no(409, "expired", "The time to answer is over.", "Act by hand, or wait: it was handed to people.")
        return row, asked

    async def _click(self, row: EpisodeRow, asked: Approval, kind: str, who: str, reason: str) -> web.Response:
        click = {"kind": kind, "approval": asked.id, "digest": asked.digest, "who": who, "reason": reason}
        try:
            await self.journal.click(row.episode, json.dumps(click).encode())
        except Conflict as error:
            raise no(409, "episode_closed", "The episode has closed meanwhile.", "Nothing need be done.") from error
        log.warning("a person answers", kind=kind, approval=asked.id, who=who)
        return web.json_response({"status": "accepted", "episode": row.episode, "approval": asked.id}, status=202)


def _told(row: EpisodeRow, asked: Approval) -> dict[str, Any]:
    return {
        "id": asked.id,
        "episode": row.episode,
        "alert": row.label,
        "runbook": row.runbook,
        "severity": row.severity,
        "rung": asked.rung,
        "action": asked.action,
        "resource": asked.resource,
        "summary": asked.summary,
        "items": [dict(item) for item in asked.items],
        "digest": asked.digest,
        "asked_at": asked.asked_at,
        "good_until": asked.good_until,
        "persons": asked.persons,
        "approved_by": list(asked.approved_by),
    }
