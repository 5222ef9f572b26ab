"""The inbox: what a person would get. Receives what Alertmanager sends to pagers and channels, and shows it.

    POST /{receiver}           an Alertmanager webhook (version 4), stored as it came
    GET  /                     a page to read
    GET  /api/messages         [{"received", "receiver", "status", "alerts", ...}], oldest first; ?receiver= picks one
    GET  /health, /metrics

The last PREP_INBOX_KEEP messages are in memory; with PREP_INBOX_FILE each is added to that file too, one JSON object a
line (a file that reaches FILE_BYTES is moved to `<name>.1`). It is a demo's inbox: whoever reaches it may write to it.
"""

from __future__ import annotations

import asyncio
import html
import json
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from demo.environment import Environment, text, whole
from demo.service import json_object, main

PORT = 8025
BODY_BYTES = 1024 * 1024
FILE_BYTES = 20 * 1024 * 1024

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>Inbox</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1e; }}
article {{ border-left: .3rem solid #b3261e; background: #f6f6f7; padding: .6rem 1rem; margin: 0 0 .8rem; }}
article.resolved {{ border-color: #2e7d32; }}
h2 {{ font-size: 1rem; margin: 0; }} p {{ margin: .2rem 0; }} small {{ color: #5f6368; }}
</style></head><body><h1>Inbox</h1><p>{count} messages, the newest first. This is what people would get.</p>
{messages}</body></html>
"""


class Inbox:
    """The messages. `keep` of them stay in memory."""

    def __init__(self, keep: int, file: Path | None) -> None:
        self._messages: deque[dict[str, Any]] = deque(maxlen=keep)
        self._file = file
        self._turn = asyncio.Lock()

    async def receive(self, request: web.Request) -> web.Response:
        """POST /{receiver}. 200 only when the message is kept (and, if configured, in the file)."""
        body = await json_object(request)
        message = {"received": time.time(), **body, "receiver": request.match_info["receiver"]}
        if self._file is not None:
            async with self._turn:
                await asyncio.to_thread(_append, self._file, json.dumps(message) + "\n")
        self._messages.append(message)
        return web.json_response({"status": "kept"})

    async def messages(self, request: web.Request) -> web.Response:
        """GET /api/messages."""
        receiver = request.query.get("receiver")
        return web.json_response([m for m in self._messages if receiver is None or m["receiver"] == receiver])

    async def page(self, _: web.Request) -> web.Response:
        """GET /."""
        shown = "\n".join(_article(message) for message in reversed(self._messages))
        page = _PAGE.format(count=len(self._messages), messages=shown or "<p>Nothing yet.</p>")
        return web.Response(text=page, content_type="text/html")


def _append(file: Path, line: str) -> None:
    if file.exists() and file.stat().st_size > FILE_BYTES:
        file.replace(file.with_name(file.name + ".1"))
    with file.open("a", encoding="utf-8") as log:
        log.write(line)


def _article(message: dict[str, Any]) -> str:
    """One message as HTML; everything in it comes from outside and is escaped."""
    at = datetime.fromtimestamp(message["received"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    alerts = message.get("alerts")
    lines = "".join(_alert(alert) for alert in alerts if isinstance(alert, dict)) if isinstance(alerts, list) else ""
    status = str(message.get("status", ""))
    css = "resolved" if status == "resolved" else "firing"
    return (
        f'<article class="{css}"><h2>to {html.escape(message["receiver"])}: {html.escape(status) or "message"}</h2>'
        f"<small>{at}</small>{lines}</article>"
    )


def _alert(alert: dict[str, Any]) -> str:
    labels, notes = (part if isinstance(part, dict) else {} for part in (alert.get("labels"), alert.get("annotations")))
    name, severity, service = (html.escape(str(labels.get(key, ""))) for key in ("alertname", "severity", "service"))
    summary = html.escape(str(notes.get("summary", notes.get("description", ""))))
    return f"<p><strong>{severity} {name}</strong> {service}<br>{summary}</p>"


async def build(environment: Environment, _: CollectorRegistry) -> web.Application:
    """The application. Raises SettingsError."""
    file = text(environment, "PREP_INBOX_FILE", "")
    inbox = Inbox(whole(environment, "PREP_INBOX_KEEP", 500, 1, 10_000), Path(file) if file else None)
    application = web.Application(client_max_size=BODY_BYTES)
    application.router.add_get("/", inbox.page)
    application.router.add_get("/api/messages", inbox.messages)
    application.router.add_post("/{receiver:[a-zA-Z0-9_-]{1,64}}", inbox.receive)
    return application


if __name__ == "__main__":
    main("inbox", PORT, build)
