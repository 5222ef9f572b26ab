"""Intake of Alertmanager's notifications: authenticate, cap, parse, store, answer; nothing else.

In: `POST` on one exact path. Out: 200 only after the body is durable. It never acts, decides or waits for
anything but the journal. What is answered, and why (Alertmanager 0.34, notify/util.go and notify/webhook):

    200  stored, or kept as a dead letter: a 4xx for what can never be read would come again at each flush
    401  token or password missing or wrong; 403 without the certificate that is asked for
    413  over `max_bytes`: read no further, but recorded and told, since a 4xx is not retried in that flush
    503  the journal cannot be written, or too much is waiting: Alertmanager retries 5xx until the flush ends
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from aiohttp import web

from remediator.alerts import Notification, Unreadable, parse
from remediator.answers import finished, problem
from remediator.errors import JournalError
from remediator.journal import InboxRow, Journal, Routed
from remediator.matching import key_of
from remediator.metrics import Metrics
from remediator.parsed import Parsed
from remediator.runbooks import Runbook
from remediator.senders import Senders
from remediator.settings import Tls, Webhook

log = structlog.get_logger(__name__)

BATCH_BODIES = 64
BATCH_BYTES = 8 * 1024 * 1024
WAITING = 1024  # bodies that may wait for the writer: about a second's worth, which a sender can well wait
WAITING_BYTES = 64 * 1024 * 1024
INLINE_BYTES = 64 * 1024  # up to here parsing takes under about 2 ms; more is done off the event loop
PREFIX = 4096  # bytes of a body that is too large: enough to see whose it is
HELD_FACTOR = 4  # bodies in memory at once, as a multiple of max_bytes
READ_TIMEOUT = 10.0  # seconds for a whole body; Alertmanager's own shortest flush deadline
STORE_TIMEOUT = 10.0  # seconds; a slower answer makes the next Alertmanager of a cluster send as well (15 s)
RETRY_AFTER = {"Retry-After": "2"}
QUIET = 60.0  # seconds between two log lines about refused senders

Store = Callable[[Sequence[tuple[str, bytes]]], Awaitable[None]]


class Overloaded(Exception):
    """More is waiting than will be written in the time a sender waits."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    body: bytes
    written: asyncio.Future[None]


class Batcher:
    """Group commit: one writer, one transaction for all that came while the last one was written.

    Nobody waits for a batch to fill: a lone body is written at once, and under load the batches grow by
    themselves. `run` is one task of the server's group; when it ends, whoever waits or comes later is told
    JournalError.
    """

    def __init__(self, store: Store, metrics: Metrics, waiting: int = WAITING, patience: float = STORE_TIMEOUT) -> None:
        self._store = store
        self._metrics = metrics
        self._patience = patience
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(waiting)
        self._bytes = 0
        self._ended = False

    async def put(self, body: bytes) -> None:
        """Return when the body is durable. Raises Overloaded, JournalError, TimeoutError.

        After TimeoutError the body may still be written: the sender sends it again, and twice is one episode.
        """
        if self._ended:
            raise JournalError("the writer of the inbox has ended")
        if self._queue.full() or self._bytes + len(body) > WAITING_BYTES:
            raise Overloaded
        waiting = _Waiting(body, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        self._bytes += len(body)
        async with asyncio.timeout(self._patience):
            await waiting.written

    def busy(self) -> bool:
        """Do bodies wait behind those that are being written now?"""
        return not self._queue.empty()

    async def run(self) -> None:
        """Write until cancelled."""
        batch: list[_Waiting] = []
        try:
            while True:
                batch = await self._collect()
                await self._write(batch)
        finally:
            self._ended = True
            left = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
            _settle([*batch, *left], JournalError("the remediator is shutting down"))

    async def _collect(self) -> list[_Waiting]:
        """What is there, at least one and at most a batch; whoever was told to send again is left out."""
        batch: list[_Waiting] = []
        size = 0
        while not batch or (len(batch) < BATCH_BODIES and size < BATCH_BYTES and not self._queue.empty()):
            waiting = await self._queue.get()
            self._bytes -= len(waiting.body)
            if not waiting.written.done():
                batch.append(waiting)
                size += len(waiting.body)
        return batch

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._store([("delivery", waiting.body) for waiting in batch])
        except JournalError as error:
            self._metrics.journal_failed()
            log.error(
                "deliveries not stored; their senders are told to send again",
                count=len(batch),
                why=str(error),
            )
            _settle(batch, error)
        else:
            self._metrics.batch(len(batch))
            _settle(batch, None)


def _settle(batch: Iterable[_Waiting], error: JournalError | None) -> None:
    for waiting in batch:
        if waiting.written.done():  # the request is gone, or was answered before
            continue
        if error is None:
            waiting.written.set_result(None)
        else:
            waiting.written.set_exception(JournalError(str(error)))


@dataclass(frozen=True, slots=True)
class Said:
    """How a request ended: a word of metrics.DELIVERIES, and the answer."""

    result: str
    answer: web.Response


class _TooLarge(Exception):
    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        super().__init__()


@dataclass
class Intake:
    """The webhook's handler.

    `blind` is set when the alerts that Alertmanager holds must be read from it now, because not all of them
    came through here: a body that cannot be read, one with alerts cut off, or a journal that failed.
    """

    settings: Webhook
    journal: Journal
    batcher: Batcher
    metrics: Metrics
    blind: asyncio.Event
    tls: Tls | None = None
    parsed: Parsed = field(default_factory=Parsed)
    senders: Senders = field(init=False)
    _held: int = 0
    _quiet_until: float = 0.0

    def __post_init__(self) -> None:
        self.senders = Senders(self.settings, self.tls)
        # One thread: parsing is Python, so that more would only take turns, each with a body in memory.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parse")

    def reconfigure(self, settings: Webhook) -> None:
        """Other tokens and bounds from the next request on; the path stays."""
        self.settings, self.senders = settings, Senders(settings, self.tls)

    def close(self) -> None:
        """After the last request."""
        self._parser.shutdown(wait=False, cancel_futures=True)

    def routes(self) -> list[web.RouteDef]:
        """POST on the configured path; aiohttp answers 405 to other methods and 404 to other paths."""
        return [web.post(self.settings.path, self.handle)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One notification."""
        clock = asyncio.get_running_loop().time
        began = clock()
        said = await self._receive(request)
        self.metrics.delivery(said.result, clock() - began)
        return await finished(request, said.answer)

    async def _receive(self, request: web.Request) -> Said:
        """Authenticate before the first byte of the body is read; every way out is a `Said`."""
        if (denied := self.senders.check(request)) is not None:
            self._note_refused(denied.why, request.remote)
            return Said("unauthorized", denied.answer)
        try:
            with self._memory() as take:
                return await self._keep(await self._read(request, take))
        except _TooLarge as cut:
            return await self._too_large(cut.prefix, request.remote)
        except Overloaded:
            return Said("overloaded", _again("overloaded", "More deliveries are waiting than can be written in time."))

    # -- the body ---------------------------------------------------------------------------------------

    async def _read(self, request: web.Request, take: Callable[[int], None]) -> bytes | Said:
        """The whole body, at most `max_bytes` when decompressed. Raises _TooLarge once that is known."""
        most = self.settings.max_bytes
        body = bytearray()
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                if (request.content_length or 0) > most:
                    raise _TooLarge(await request.content.read(PREFIX))
                while chunk := await request.content.readany():
                    take(len(chunk))
                    body += chunk
                    if len(body) > most:
                        raise _TooLarge(bytes(body[:PREFIX]))
        except (TimeoutError, ConnectionError, web.RequestPayloadError) as error:
            return self._incomplete(error, request.remote)
        return bytes(body)

    @contextmanager
    def _memory(self) -> Iterator[Callable[[int], None]]:
        """Bounds the bytes of bodies held by all requests at once: `take` raises Overloaded beyond it."""
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self._held + size > HELD_FACTOR * self.settings.max_bytes:
                raise Overloaded
            self._held += size
            mine += size

        try:
            yield take
        finally:
            self._held -= mine

    async def _keep(self, body: bytes | Said) -> Said:
        """Parse, to know whether it can ever be read; make it durable as it came; answer."""
        if isinstance(body, Said):
            return body
        try:
            if len(body) <= INLINE_BYTES:
                notification = parse(body)
            else:
                notification = await asyncio.get_running_loop().run_in_executor(self._parser, parse, body)
        except Unreadable as error:
            return await self._unreadable(error, body)
        self.parsed.keep(body, notification)
        try:
            await self.batcher.put(body)
        except (JournalError, TimeoutError) as error:
            return self._journal_failed(error)
        if notification.unreadable and (failed := await self._bury("bad_alert", body)) is not None:
            return failed
        counts = Counter[str](alert.status for alert in notification.alerts)
        self.metrics.alerts(counts, notification.truncated)
        if notification.truncated:
            log.warning("alerts were cut off this delivery, reading them all", cut=notification.truncated)
            self.blind.set()
        return Said("stored", web.json_response({"status": "stored", "alerts": len(notification.alerts)}))

    # -- what cannot be taken ---------------------------------------------------------------------------

    async def _unreadable(self, error: Unreadable, body: bytes) -> Said:
        if (failed := await self._bury(error.cause, body)) is not None:
            return failed
        log.error("delivery can never be read, kept as a dead letter", cause=error.cause, why=str(error))
        said = {
            "status": "dead_letter",
            "cause": error.cause,
            "message": f"Not a notification that can be read here ({error}). It is kept, counted and told.",
            "do": "Do not send it again. This program reads Alertmanager's webhook version 4.",
        }
        return Said("dead_letter", web.json_response(said))

    async def _too_large(self, prefix: bytes, sender: str | None) -> Said:
        if (failed := await self._bury("too_large", prefix)) is not None:
            return failed
        most = self.settings.max_bytes
        log.error("delivery is too large, its alerts are read from Alertmanager", most_bytes=most, sender=sender)
        message = f"The body is over {most} bytes. It was not read, but it is counted and told."
        do = "Group alerts more finely (group_by), or raise `webhook.max_bytes`."
        return Said("too_large", problem(413, "too_large", message, do))

    def _incomplete(self, error: Exception, sender: str | None) -> Said:
        """Whoever is slow is asked to come again; whose encoding is broken would only break it again."""
        self.blind.set()
        log.warning("delivery broke off before its end", sender=sender, why=type(error).__name__)
        if isinstance(error, TimeoutError):
            return Said("incomplete", _again("slow_body", f"The body took over {READ_TIMEOUT:.0f} s."))
        do = "Send it again, whole; look for what breaks it on the way."
        return Said("incomplete", problem(400, "incomplete_body", "The body did not come to its end.", do))

    async def _bury(self, cause: str, body: bytes) -> Said | None:
        """A dead letter, and a look at the alerts it may have carried. Not None: it cannot be kept now."""
        self.blind.set()
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                await self.journal.dead_letter(cause, body, quota=self.settings.dead_letters)
        except (JournalError, TimeoutError) as error:
            return self._journal_failed(error)
        self.metrics.dead_letter(cause)
        return None

    def _journal_failed(self, error: Exception) -> Said:
        self.blind.set()
        message = f"The journal cannot be written now: {str(error) or 'no answer in time'}."
        return Said("journal_failed", _again("journal_failed", message))

    def _note_refused(self, why: str, sender: str | None) -> None:
        """Whoever tries secrets must not be able to fill the log."""
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            log.warning(
                "webhook refuses a sender (further ones are only counted for a minute)",
                why=why,
                sender=sender,
            )


def _again(code: str, message: str) -> web.Response:
    return problem(503, code, message, "Send it again in a few seconds; nothing of it was acknowledged.", RETRY_AFTER)


def split(
    row: InboxRow, books: Sequence[Runbook], environment: str, read: Callable[[bytes], Notification] = parse
) -> list[Routed]:
    """A stored delivery to its alerts, each with the key of the episode it belongs to. Pure.

    The key is made of alertname, environment and the target labels of the runbook; an alert without runbook
    or target is keyed by its fingerprint and never merged with another one. Raises Unreadable for a body that
    an other version of this program stored and this one cannot read.
    """
    return [
        Routed(
            key=key_of(alert, books, environment),
            fingerprint=alert.fingerprint,
            body=json.dumps(alert.as_json()).encode(),
            label=alert.name,
            opens=alert.status == "firing",
        )
        for alert in read(row.body).alerts
    ]


@dataclass(frozen=True, slots=True)
class Splitter:
    """`split` for the journal's `route`, with the runbooks as they are loaded now.

    A stored body that cannot be read any more (another version wrote it) is counted here, and the alerts that
    it carried are read from Alertmanager; the error goes on to the journal, which keeps the body as a dead
    letter.
    """

    books: Callable[[], Sequence[Runbook]]
    environment: str
    metrics: Metrics
    blind: asyncio.Event
    parsed: Parsed = field(default_factory=Parsed)

    def __call__(self, row: InboxRow) -> Sequence[Routed]:
        try:
            return split(row, self.books(), self.environment, self.parsed.take)
        except Unreadable as error:
            log.error("stored delivery cannot be read by this version", row=row.id, why=str(error))
            self.metrics.dead_letter(error.cause)
            self.blind.set()
            raise
