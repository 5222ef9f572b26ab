"""Templates to pages: escaping, times, numbers, headers.

In: a template's name and values. Out: a response whose policy lets nothing run and nothing load but our own files.
Everything that a template prints is escaped and freed of characters that steer (controls, changes of writing
direction): labels come from outside. What is marked as safe comes from here only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from remediator.durations import human
from remediator.narrative import after

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LONGEST = 2000  # characters of one value; what is cut off is said
_KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# Controls but line ends and tabs, marks of writing direction, and what does not show at all.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


class Static:
    """Our own files, read once: a name that is not among them is not there."""

    def __init__(self) -> None:
        files = sorted((HERE / "static").iterdir())
        self._files = {file.name: file.read_bytes() for file in files if file.suffix[1:] in _KINDS}
        whole = hashlib.sha256(b"".join(self._files.values()))
        self.version = whole.hexdigest()[:12]

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        return [web.get("/console/static/{name}", self.file)]

    async def file(self, request: web.Request) -> web.Response:
        """One file; its address changes with its content, so it may be kept."""
        name = request.match_info["name"]
        if name not in self._files:
            raise web.HTTPNotFound
        kind = _KINDS[name.rpartition(".")[2]]
        headers = HEADERS | {"Cache-Control": "public, max-age=31536000, immutable"}
        return web.Response(body=self._files[name], content_type=kind, charset="utf-8", headers=headers)


class Renderer:
    """The templates, with what all of them know."""

    def __init__(self, static: Static) -> None:
        made = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_plain,
        )
        made.globals["static"] = static.version
        made.filters |= {
            "moment": moment,
            "human": human,
            "after": after,
            "value": value,
            "web_address": web_address,
        }
        self._environment = made

    def page(self, name: str, /, status: int = 200, **values: Any) -> web.Response:
        """A template as a response."""
        text = self._environment.get_template(f"{name}.html").render(values)
        return web.Response(text=text, status=status, content_type="text/html", charset="utf-8", headers=HEADERS)


def _plain(value: Any) -> Any:
    """What every expression of a template goes through before it is escaped."""
    if isinstance(value, Markup):
        return value
    text = value if isinstance(value, str) else str(value)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text):,} characters)"
    return _STEERING.sub("\ufffd", text)


def moment(at: float | None) -> Markup:
    """UNIX seconds as a time that the page's script says in the reader's zone too; without the script it is UTC."""
    if at is None:
        return Markup("—")
    when = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        when.strftime("%Y-%m-%dT%H:%M:%SZ"), when.strftime("%Y-%m-%d %H:%M:%S")
    )


def value(of: object) -> str:
    """A value of an event's data for people: numbers short, lists and mappings as text."""
    if of is None or of == "":
        return "—"
    if isinstance(of, bool):
        return "yes" if of else "no"
    if isinstance(of, float):
        return f"{of:.6g}" if abs(of) < 1e6 else f"{of:.0f}"
    if isinstance(of, Mapping):
        return ", ".join(f"{key}={value(each)}" for key, each in of.items()) or "—"
    if isinstance(of, list | tuple):
        return ", ".join(value(each) for each in of) or "—"
    return str(of)


def web_address(text: object) -> str:
    """An address that may become a link: http or https with a host; "" for anything else."""
    try:
        parts = urlsplit(str(text))
    except ValueError:
        return ""
    return str(text) if parts.scheme in ("http", "https") and parts.netloc and len(str(text)) <= LONGEST else ""


@lru_cache(maxsize=256)
def markdown(text: str) -> Markup:
    """One of our own pages; HTML inside of it is shown as text, and only harmless addresses become links."""
    return Markup(_MARKDOWN.render(text))  # noqa: S704 - the renderer escapes
