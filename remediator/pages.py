"""The page of an alert, where `runbook_url` leads: what it means, what to look at, what to do first.

In: a folder with one Markdown file per alert. Out: that file, as a page for a browser and as text for everybody else,
or a 404 that says which pages there are. No token: whoever is paged must be able to read it, and it holds no secret.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from remediator.answers import problem

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")


Show = Callable[[web.Request, str, str], Awaitable[web.Response]]
"""Of a request, the alert's name and its text."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Serves `folder`/<name>.md; nothing outside it can be named."""

    folder: Path
    shown: Show | None = None
    """Makes a page of it; None: it is text for browsers too."""

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        return [web.get("/alerts/{name}", self.page)]

    async def page(self, request: web.Request) -> web.Response:
        """One page."""
        name = request.match_info["name"]
        path = self.folder / f"{name}.md"
        if not _NAME.fullmatch(name) or not await asyncio.to_thread(path.is_file):
            do = f"There is a page for each alert in {self.folder} (docs/alerts in the repository)."
            return problem(404, "no_such_alert", "There is no page for this alert.", do)
        text = await asyncio.to_thread(path.read_text, "utf-8")
        if self.shown is not None and "text/html" in request.headers.get("Accept", ""):
            return await self.shown(request, name, text)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")
