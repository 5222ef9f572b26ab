"""What people decide, over the JSON API: approvals given and declined, a storm ended, a demoted runbook restored.

In: requests of named people (`operators`). Out: JSON. What a decision is, and what it is bound to, is `decisions.py`'s.

    GET  /api/v1/approvals
    POST /api/v1/approvals/{id}/approve       {digest, reason, who}
    POST /api/v1/approvals/{id}/decline       {digest, reason, who}
    POST /api/v1/storm/end                    {reason, who}
    POST /api/v1/runbooks/{name}/restore      {reason, who}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from remediator.api import Api, Handler
from remediator.api_models import Because, Decline, Yes
from remediator.clicks import Act
from remediator.handling import caller_of, read_body
from remediator.journal import EpisodeRow, Journal
from remediator.ledger import Approval


@dataclass
class Approvals:
    """Handlers; `api` guards them."""

    journal: Journal
    api: Api

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""

        def act(handler: Handler, act: Act) -> Handler:
            return self.api.guarded(handler, role="operator", act=act)

        return [
            web.get("/api/v1/approvals", self.api.guarded(self.waiting)),
            web.post("/api/v1/approvals/{id}/approve", act(self.approve, "approve")),
            web.post("/api/v1/approvals/{id}/decline", act(self.decline, "decline")),
            web.post("/api/v1/storm/end", act(self.end_storm, "end_storm")),
            web.post("/api/v1/runbooks/{name}/restore", act(self.restore, "restore")),
        ]

    async def waiting(self, _: web.Request) -> web.Response:
        """Questions that can be answered now, the oldest first."""
        now = await self.journal.now()
        found = [told(row, asked) for row, asked in await self.api.decisions.questions() if asked.good_until > now]
        return web.json_response({"approvals": found, "now": now})

    async def approve(self, request: web.Request) -> web.Response:
        """Yes. It is done when nothing forbids it at that moment, after another look; 202 says that it is taken."""
        asked, said = request.match_info["id"], await read_body(request, Yes)
        return _taken(asked, await self.api.decisions.approve(caller_of(request), asked, said))

    async def decline(self, request: web.Request) -> web.Response:
        """No, for this episode. It costs no limit."""
        asked, said = request.match_info["id"], await read_body(request, Decline)
        return _taken(asked, await self.api.decisions.decline(caller_of(request), asked, said))

    async def end_storm(self, request: web.Request) -> web.Response:
        """A person says that the storm is over: what waits is released one after the other."""
        await self.api.decisions.end_storm(caller_of(request), await read_body(request, Because))
        return web.json_response({"status": "ended"})

    async def restore(self, request: web.Request) -> web.Response:
        """A demoted runbook may do what its mode says again."""
        name, said = request.match_info["name"], await read_body(request, Because)
        await self.api.decisions.restore(caller_of(request), name, said)
        return web.json_response({"status": "restored", "runbook": name})


def _taken(asked: str, episode: str) -> web.Response:
    return web.json_response({"status": "accepted", "episode": episode, "approval": asked}, status=202)


def told(row: EpisodeRow, asked: Approval) -> dict[str, Any]:
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
