"""One episode in hand: read from the journal, the inbox folded into it, and written back event by event.

In: a claim. Out: a `Run` whose `events` are all durable. Nothing here decides about acting; what an alert, a click
or a reload means for the episode is written down, no more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import structlog

from remediator.actions.base import Settlement
from remediator.alerts import Alert
from remediator.clicks import Act, over, second, settled
from remediator.deciding import HOLDS
from remediator.errors import Permanent
from remediator.events import Event, Kind, Torn
from remediator.journal import Claim, EpisodeIndex, InboxRow, Journal
from remediator.ledger import Approval, Ledger, fold
from remediator.matching import Matched, match
from remediator.ports import Observer
from remediator.runbooks import Runbook, from_body
from remediator.settings import Settings
from remediator.versions import binding
from remediator.world import Answer, ProofLook, World

log = structlog.get_logger(__name__)
MAKES_ROOM = frozenset(
    {
        Kind.OBSERVED,
        Kind.REFUSED,
        Kind.WOULD_ACT,
        Kind.NEEDS_APPROVAL,
        Kind.ALLOWED,
        Kind.OUTCOME,
        Kind.SETTLED,
        Kind.VERDICT,
        Kind.HANDED_OVER,
        Kind.CLOSED,
    }
)
"""After these it may be another's turn: this one is over, proven, with people, or waits for something else."""
COMMAND = "Command"
"""In the place of an alert's name where a person has asked for it."""


@dataclass
class Run:
    """One claimed episode while it is worked on; everything durable is in `events`.

    generation  of the configuration that it was read under, see `Episodes.reconfigure`
    made_room   something was written after which another episode may be next
    last_round  when a round of its proof was last asked, by whichever replica; None when none was
    """

    episode: str
    events: list[Event]
    ledger: Ledger
    book: Runbook | None
    world: World | None = None
    proof: ProofLook | None = None
    rule: Answer | None = None
    generation: int = 0
    made_room: bool = False
    last_round: float | None = None

    def forget(self) -> None:
        """What was seen is not reused after something was done."""
        self.world = self.proof = self.rule = None


@dataclass
class Episodes:
    """Reads and writes episodes for one owner. `ids` makes attempt and event ids (32 hex digits)."""

    journal: Journal
    settings: Settings
    books: tuple[Runbook, ...]
    observe: Observer
    owner: str
    ids: Callable[[], str] = lambda: uuid.uuid4().hex
    generation: int = 0
    _documents: dict[str, Runbook] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._documents = {book.digest(): book for book in self.books}

    def reconfigure(self, settings: Settings, books: tuple[Runbook, ...]) -> None:
        """Other settings and runbooks: what is being worked on belongs to an older generation, and is read again."""
        self.settings, self.books = settings, books
        self._documents |= {book.digest(): book for book in books}
        self.generation += 1

    async def load(self, claim: Claim) -> Run:
        """Read the episode, fold the inbox into it, and say that it was taken over. Raises events.Unreadable."""
        generation = self.generation
        events, rows = await self.journal.load(claim.episode)
        if not events:
            events, rows = await self._open(claim.episode, rows)
            if not events:
                raise Torn(f"episode {claim.episode}: it has no event, and no alert that would open it")
        run = Run(claim.episode, events, fold(events), None, generation=generation, last_round=claim.proof_at)
        run.book = await self._decided_on(run.ledger.digest)
        if claim.taken_over:
            await self.append(run, Kind.CLAIMED, {"owner": self.owner, "epoch": claim.epoch})
        await self._fold_inbox(run, rows)
        await self._match_again(run)
        return run

    async def _open(self, episode: str, rows: list[InboxRow]) -> tuple[list[Event], list[InboxRow]]:
        """The first events, and the rows that are left. In a storm the first alert has come many times over."""
        if rows and rows[0].kind == "command":
            return await self._open_command(episode, rows[0]), rows[1:]
        alerts = [row for row in rows if row.kind == "alert"]
        if not alerts:
            return [], rows
        alert = Alert.from_json(json.loads(alerts[0].body))
        taken = [row.id for row in takewhile(lambda row: row.body == alerts[0].body, alerts)]
        matched = match(alert, self.books, self.settings.environment)
        data: dict[str, Any] = {"alert": alert.as_json(), "received_at": alerts[0].received_at}
        opened = [await self.event(episode, 1, Kind.OPENED, data)]
        index = EpisodeIndex(runbook=None, severity=severity_of(alert), firing=alert.status == "firing")
        if isinstance(matched, Matched):
            digest = await self._store_document(matched.runbook)
            data |= {"target": dict(matched.target), "runbook": matched.runbook.name, "digest": digest}
            index = replace(index, runbook=matched.runbook.name)
        else:
            refused = {"reason": matched.reason, "sentence": matched.sentence, "earliest": None, "rung": None}
            opened.append(await self.event(episode, 2, Kind.REFUSED, refused))
        await self.journal.append(opened, takes=taken, index=index)
        self._tell(opened)
        return opened, [row for row in rows if row.id not in taken]

    async def _open_command(self, episode: str, row: InboxRow) -> list[Event]:
        """What a person wants done, as the first event. In the place of an alert stands what names the target."""
        said = json.loads(row.body)
        book = from_body(said["book"])
        labels = {"alertname": COMMAND, **said["target"], "environment": self.settings.environment}
        data = {
            "alert": Alert("firing", labels, {}, row.received_at, episode[:16]).as_json(),
            "received_at": row.received_at,
            "target": said["target"],
            "runbook": book.name,
            "digest": await self._store_document(book),
            "command": said["command"],
        }
        opened = [await self.event(episode, 1, Kind.OPENED, data)]
        index = EpisodeIndex(runbook=book.name, severity=None, firing=False)
        await self.journal.append(opened, takes=[row.id], index=index)
        self._tell(opened)
        return opened

    async def _fold_inbox(self, run: Run, rows: Iterable[InboxRow]) -> None:
        """Facts from outside become events of the episode, in the transaction that marks them taken.

        What says nothing new is marked with the next row that does, or all at once at the end.
        """
        idle: list[int] = []
        for row in rows:
            data = json.loads(row.body)
            if row.kind == "click":
                await self._click(run, row, data)
                continue
            if row.kind == "command":  # the same one once more: its COMMIT was not answered, and it was written again
                idle.append(row.id)
                continue
            alert = Alert.from_json(data)
            idle.append(row.id)
            if _is_news(alert, run.ledger):
                index = EpisodeIndex(run.ledger.runbook, severity_of(alert), alert.status == "firing")
                await self.append(run, Kind.OBSERVED, {"alert": alert.as_json()}, takes=idle, index=index)
                idle = []
        if idle:
            await self.journal.append([], takes=idle)

    async def _click(self, run: Run, row: InboxRow, data: Mapping[str, Any]) -> None:
        """What a person said. What is settled or answered already, or never was asked, changes nothing."""
        if data.get("kind") in ("approve", "decline"):
            await self._answer(run, row, data)
            return
        open_doubts = {attempt.id for attempt in run.ledger.attempts if attempt.in_doubt}
        if data.get("kind") != "settle" or data.get("attempt") not in open_doubts:
            found = next((one for one in run.ledger.attempts if one.id == data.get("attempt")), None)
            await self._came_second(row, "settle", str(data.get("attempt")), data, settled(found))
            return
        said = {
            "attempt": data["attempt"],
            "settlement": Settlement(data["settlement"]),
            "detail": data["reason"],
            "evidence": {},
            "by": data["who"],
        }
        await self.append(run, Kind.SETTLED, said, takes=[row.id])

    async def _answer(self, run: Run, row: InboxRow, data: Mapping[str, Any]) -> None:
        """An answer counts once from each person, while its question is open, in time and the same."""
        asked = next((one for one in run.ledger.approvals if one.id == data.get("approval")), None)
        why = _no_answer(run.ledger, asked, row, data)
        if asked is None or why is not None:
            why = why or ("no_such_approval", "There is no question with this id.")
            await self._came_second(row, data["kind"], str(data.get("approval")), data, why)
            return
        kind = Kind.APPROVED if data["kind"] == "approve" else Kind.DECLINED
        said = {"approval": asked.id, "who": data["who"], "reason": data["reason"]}
        await self.append(run, kind, said, takes=[row.id])

    async def _came_second(
        self, row: InboxRow, act: Act, of: str, data: Mapping[str, Any], why: tuple[str, str]
    ) -> None:
        """A click that changes nothing is told, with who, before it is marked taken: so it is told whatever happens."""
        await self.journal.not_taken(second(row, act, of, str(data.get("who")), why))
        await self.journal.append([], takes=[row.id])

    async def _match_again(self, run: Run) -> None:
        """A reload may have brought a runbook for an episode that had none."""
        if run.ledger.runbook is not None:
            return
        matched = match(run.ledger.alert, self.books, self.settings.environment)
        if isinstance(matched, Matched):
            digest = await self._store_document(matched.runbook)
            data = {"runbook": matched.runbook.name, "digest": digest, "target": dict(matched.target)}
            index = EpisodeIndex(
                matched.runbook.name, severity_of(run.ledger.alert), run.ledger.last_delivery == "firing"
            )
            await self.append(run, Kind.MATCHED, data, index=index)
            run.book = matched.runbook

    async def _store_document(self, book: Runbook) -> str:
        """Into the journal, once in this process' life: nothing takes a document out of it."""
        digest = book.digest()
        if digest not in self._kept:
            await self.journal.put_document(digest, book.body())
            self._kept.add(digest)
        return digest

    async def _decided_on(self, digest: str | None) -> Runbook | None:
        """The runbook an episode was decided on, with whatever the newest version of it forbids."""
        if digest is None:
            return None
        decided = await self._document(digest)
        return binding(decided, next((book for book in self.books if book.name == decided.name), None))

    async def _document(self, digest: str) -> Runbook:
        """A runbook as it was, from the journal, whatever the files say now."""
        if digest not in self._documents:
            body = await self.journal.get_document(digest)
            if body is None:
                raise Permanent(f"the journal has lost runbook {digest}")
            self._documents[digest] = from_body(body)
        return self._documents[digest]

    async def event(
        self, episode: str, seq: int, kind: Kind, data: Mapping[str, Any], at: float | None = None
    ) -> Event:
        return Event(self.ids(), episode, seq, kind, await self.journal.now() if at is None else at, data)

    async def append(
        self,
        run: Run,
        kind: Kind,
        data: Mapping[str, Any],
        *,
        takes: Iterable[int] = (),
        index: EpisodeIndex | None = None,
    ) -> None:
        event = await self.event(run.episode, run.ledger.seq + 1, kind, data)
        await self.journal.append([event], takes=list(takes), index=index)
        self.take(run, [event])

    def take(self, run: Run, events: list[Event]) -> None:
        run.events += events
        run.ledger = fold(events, run.ledger)
        run.made_room = run.made_room or any(_makes_room(event) for event in events)
        for event in events:
            self.observe(event, run.ledger)

    def _tell(self, events: list[Event]) -> None:
        ledger = fold(events)
        for event in events:
            self.observe(event, ledger)


def _makes_room(event: Event) -> bool:
    return event.kind in MAKES_ROOM and event.data.get("reason") not in HOLDS


def _is_news(alert: Alert, ledger: Ledger) -> bool:
    """Fires or stopped firing, is another one of the same target, or the same one says something else.

    Two that stand for one target are told over again each minute, in turns: neither is news for ever.
    """
    if alert.status != ledger.last_delivery or alert.fingerprint not in ledger.heard:
        return True
    return alert.fingerprint == ledger.alert.fingerprint and alert.labels != ledger.alert.labels


def _no_answer(
    ledger: Ledger, asked: Approval | None, row: InboxRow, data: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Why an answer does not count, as a code and a sentence; None when it does, or was never asked for."""
    if asked is None:
        return None
    if (why := over(ledger, asked, row.received_at)) is not None:
        return why
    if asked.digest != data.get("digest"):
        return "digest", "The digest is not that of what would be done."
    if data["who"] in asked.approved_by:
        return "approved_already", f"{data['who']} has approved it already; {asked.persons} persons are needed."
    return None


def severity_of(alert: Alert) -> str:
    """The alert's own level; P2 when it says none, so that it is neither first nor last."""
    return alert.labels.get("severity", "P2")
