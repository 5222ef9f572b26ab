"""Pages that follow by themselves: one look at the journal each second, and a word to every open page when it changed.

In: the journal's pulse. Out: server-sent events, `change` and a sign of life, to a bounded number of streams. A page
then asks for itself anew, so that there is one way to make it. Nobody looks while nobody is there, and at shutdown
every stream ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable

import structlog
from aiohttp import web

from remediator.errors import JournalError
from remediator.handling import no
from remediator.journal import Journal

log = structlog.get_logger(__name__)

LOOK_EVERY = 1.0  # seconds
ALIVE_EVERY = 15.0  # seconds between two signs of life; also how long a session that ended may still be told
MOST_STREAMS = 100
MOST_EACH = 4  # of one person: a browser has six connections to us in all, and an answer to a question needs one
GONE_EVERY = 1.0  # seconds from one look whether the reader is still there to the next
WRITE_WITHIN = 10.0  # seconds until a reader that takes nothing is let go
AGAIN_AFTER = 3000  # milliseconds until a browser asks again
_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Live:
    """`run` is a task of the server's group; `stream` answers one request."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._streams: Counter[str] = Counter()
        self._somebody = asyncio.Event()
        self._turn = asyncio.Event()  # replaced at each change: who waits for the old one goes on
        self._closing = False
        self.version = 0

    @property
    def count(self) -> int:
        """Streams that are open."""
        return self._streams.total()

    async def run(self) -> None:
        """Look each second while somebody watches, until cancelled."""
        seen: object = None
        blind = False
        while True:
            await self._somebody.wait()
            try:
                now = await self._journal.pulse()
                if now != seen:
                    seen = now
                    self.publish()
                blind = False
            except JournalError as error:
                if not blind:
                    log.warning("the console cannot look at the journal", why=str(error))
                blind = True
            await asyncio.sleep(LOOK_EVERY)

    def publish(self) -> None:
        """Something is other than it was."""
        self.version += 1
        before, self._turn = self._turn, asyncio.Event()
        before.set()

    async def close(self) -> None:
        """End every stream; no other one begins."""
        self._closing = True
        self.publish()

    async def stream(self, request: web.Request, who: str, still: Callable[[], bool]) -> web.StreamResponse:
        """Tell of every change, several at once as one, until the reader goes, `still` is False, or we end."""
        if self._closing or self.count >= MOST_STREAMS or self._streams[who] >= MOST_EACH:
            raise no(503, "too_many", "Too many pages follow already.", "This one asks again by itself; close some.")
        self._streams[who] += 1
        self._somebody.set()
        response = web.StreamResponse(headers=_HEADERS)
        try:
            await response.prepare(request)
            await self._tell(response, f"retry: {AGAIN_AFTER}\n\n")
            await self._follow(request, response, still)
        except (ConnectionError, TimeoutError):
            request.protocol.force_close()
        finally:
            self._streams[who] -= 1
            if self.count <= 0:
                self._streams.clear()
                self._somebody.clear()
        return response

    async def _follow(self, request: web.Request, response: web.StreamResponse, still: Callable[[], bool]) -> None:
        told = -1
        while not self._closing and still():
            version = self.version
            if version != told:
                told = version
                await self._tell(response, f"event: change\ndata: {version}\n\n")
            elif await self._idle(request):
                await self._tell(response, ": still here\n\n")
            elif request.transport is None:
                return

    async def _idle(self, request: web.Request) -> bool:
        """True after ALIVE_EVERY without a change; False at one, or when the reader has gone, which nobody tells us."""
        turn = self._turn
        for _ in range(int(ALIVE_EVERY / GONE_EVERY)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GONE_EVERY):
                    await turn.wait()
                return False
            if request.transport is None:
                return False
        return True

    @staticmethod
    async def _tell(response: web.StreamResponse, text: str) -> None:
        async with asyncio.timeout(WRITE_WITHIN):
            await response.write(text.encode())
