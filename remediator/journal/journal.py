"""The durable truth: what came in, what was decided, who works on what, and the limits over all of it.

In: facts from outside, events of the engine. Out: the same, in order, and claims on work. It must never answer
before the database has acknowledged, never redo an effect, and never decide by what it remembers: only a
transaction that reads and writes together may.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence

from remediator.errors import Conflict
from remediator.events import Event, Kind
from remediator.facts import Facts
from remediator.journal import clicks, index, intake, limits, lines, watch, work
from remediator.journal.readings import Readings
from remediator.journal.sqlite import SQLiteStore
from remediator.journal.store import NoSpace, Unstorable
from remediator.journal.transaction import Tx
from remediator.journal.values import (
    Claim,
    Decide,
    Demotion,
    EpisodeIndex,
    InboxRow,
    NotTaken,
    Pause,
    Promoted,
    Routed,
    Running,
    Storm,
)
from remediator.reasons import Refusal

OUTCOME_TRIES = 20
TOLD_LETTERS = "dead_letters_told"
BODIES_KEPT = 7 * 86400.0  # seconds; long enough to look at a delivery that was read wrongly


class _Refused(Exception):
    """Carries a refusal out of the intent's transaction, so that it is rolled back."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


class Journal(Readings):
    """The journal as one replica sees it; every method may raise JournalError."""

    # -- intake -------------------------------------------------------------------------------------------

    async def store(self, bodies: Sequence[tuple[str, bytes]]) -> None:
        """Keep (kind, body) rows from outside, all in one durable transaction. Takes no lock.

        What the database refuses for its data is written row by row; a row that fails alone is a dead letter.
        After an unknown COMMIT they may be there twice, which is one episode all the same.
        """
        if not bodies:
            return
        rows = [(kind, None, body) for kind, body in bodies]
        try:
            await self._store.write(lambda tx: intake.put(tx, rows))
        except Unstorable:
            for row in rows:
                await self._store_alone(row)
        self.wake.set()

    async def _store_alone(self, row: tuple[str, str | None, bytes]) -> None:
        try:
            await self._store.write(lambda tx: intake.put(tx, [row]))
        except Unstorable:
            await self.dead_letter("unstorable", row[2], quota=self._quota)

    async def click(self, episode: str, body: bytes) -> None:
        """Keep what a person said about an episode, and make it due. Raises Conflict when it is closed."""
        await self._store.write(lambda tx: intake.tell(tx, episode, "click", body))
        self.wake.set()

    async def not_taken(self, said: NotTaken) -> None:
        """Keep that a person's click came to nothing. It makes nothing due, and no decision reads it."""
        for last in (*[False] * clicks.TRIES, True):
            try:
                await self._store.write(lambda tx: clicks.note(tx, said))
                break
            except Conflict:
                if last:
                    raise

    async def command(self, episode: str, label: str, body: bytes) -> None:
        """Keep what a person wants done as an episode of its own, due now; `episode` is a new id, 32 hex digits."""
        await self._store.write(lambda tx: intake.command(tx, episode, label, body))
        self.wake.set()

    async def dead_letter(self, cause: str, body: bytes, *, quota: int) -> None:
        """Count a body that can never be read; its first 4 KiB are kept while fewer than `quota` are."""
        self._quota = quota
        await self._store.write(lambda tx: intake.bury(tx, cause, body, quota))

    async def dead_letters(self) -> dict[str, int]:
        """How many there were of each cause."""
        return await self._store.read(intake.buried)

    async def dead_letters_told(self) -> int:
        """Of how many people have been told; a restart forgets nothing of it."""
        return int(await self._store.read(lambda tx: index.mark(tx, TOLD_LETTERS)) or 0)

    async def dead_letters_are_told(self, count: int) -> None:
        """People know of so many now."""
        await self._store.write(lambda tx: index.set_mark(tx, TOLD_LETTERS, str(count)))

    async def route(self, split: Callable[[InboxRow], Sequence[Routed]], limit: int = 64) -> int:
        """Give the alerts of stored deliveries to their episodes; returns how many deliveries that were.

        `split` is pure and runs outside of the transaction; a delivery it raises for becomes a dead letter.
        """
        splits = await self._split(split, limit)
        if not splits:
            return 0
        try:
            routed = await self._store.write(lambda tx: intake.route(tx, splits, self._quota))
        except Unstorable:
            routed = sum([await self._route_alone(one) for one in splits])
        self.wake.set()
        return routed

    async def take_in(self, split: Callable[[InboxRow], Sequence[Routed]], claims: int, limit: int = 64) -> list[Claim]:
        """`route` and `claim` in one transaction: a new alert waits for one sync of the disk instead of two."""
        splits = await self._split(split, limit)
        if not splits:
            return await self.claim(claims) if claims else []
        sent, held = self._clock.boottime(), frozenset(self._held)

        def body(tx: Tx) -> list[Claim]:
            intake.route(tx, splits, self._quota)
            return work.claim(tx, self.owner, self._lease, held, claims) if claims else []

        try:
            claimed = await self._store.write(body)
        except Unstorable:
            for one in splits:
                await self._route_alone(one)
            self.wake.set()
            return []
        self._hold(claimed, sent)
        if len(splits) == limit:
            self.wake.set()  # there may be more
        return claimed

    async def _split(self, split: Callable[[InboxRow], Sequence[Routed]], limit: int) -> list[intake.Split]:
        splits = []
        for row in await self._store.read(lambda tx: intake.unrouted(tx, limit)):
            splits.append(_split(split, row))
            await asyncio.sleep(0)  # a large batch must not keep the webhook's answers waiting
        return splits

    async def _route_alone(self, split: intake.Split) -> int:
        """One delivery by itself; what the database refuses of it is a dead letter, and the others go on."""
        try:
            return await self._store.write(lambda tx: intake.route(tx, [split], self._quota))
        except Unstorable:
            buried = intake.Split(split.row, cause="unroutable")
            return await self._store.write(lambda tx: intake.route(tx, [buried], self._quota))

    async def inbox(self, episode: str) -> list[InboxRow]:
        """What came for an episode and was not taken yet, in the order it came."""
        return await self._store.read(lambda tx: intake.untaken(tx, episode))

    async def load(self, episode: str) -> tuple[list[Event], list[InboxRow]]:
        """`events` and `inbox` of an episode. Raises events.Unreadable, also where charges or index tell of more."""
        return await self._store.read(lambda tx: (lines.loaded(tx, episode), intake.untaken(tx, episode)))

    # -- work -----------------------------------------------------------------------------------------------

    async def claim(self, limit: int) -> list[Claim]:
        """Take up to `limit` due episodes, in the order of `work.claim`. Claim only what is started now."""
        sent, held = self._clock.boottime(), frozenset(self._held)
        claims = await self._store.write(lambda tx: work.claim(tx, self.owner, self._lease, held, limit))
        self._hold(claims, sent)
        return claims

    def _hold(self, claims: Sequence[Claim], sent: float) -> None:
        """Ours for certain for a lease, counted from before the claim was sent."""
        self._held.update((claim.episode, sent + self._lease) for claim in claims)

    async def renew(self) -> None:
        """Extend the leases of everything that was claimed and not released."""
        sent, held = self._clock.boottime(), list(self._held)
        if held:
            await self._store.write(lambda tx: work.renew(tx, self.owner, self._lease, held))
            self._held.update((episode, sent + self._lease) for episode in held if episode in self._held)

    def lease_left(self, episode: str) -> float:
        """Seconds for which the episode is ours for certain, by boot time since before the claim was sent.

        Nothing is started in the last third of a lease.
        """
        return self._held.get(episode, 0.0) - self._clock.boottime() if episode in self._held else 0.0

    async def release(
        self, episode: str, due_at: float, *, failed: bool = False, proof_at: float | None = None
    ) -> None:
        """Give an episode up until `due_at`, or until now when something came for it meanwhile.

        failed    nothing was planned, something went wrong: the claim counts towards `stuck`
        proof_at  when a round of proof was asked; the next claim tells it, whoever makes it
        """
        self._held.pop(episode, None)
        due = await self._store.write(
            lambda tx: work.release(tx, self.owner, episode, due_at, failed=failed, proof_at=proof_at)
        )
        self._wake_if(due)

    def forget(self, episode: str) -> None:
        """Renew this lease no more: the work on it ended without a release (the journal failed)."""
        self._held.pop(episode, None)

    async def sweep(self) -> int:
        """Make due what nobody would wake: open episodes without work, times out of reach.

        Forget old bodies, and replicas that have not been seen for a day.
        """

        def body(tx: Tx) -> int:
            intake.prune(tx, BODIES_KEPT)
            limits.forget(tx)
            return work.sweep(tx)

        found = await self._store.write(body)
        if found:
            self.wake.set()
        return found

    async def nudge(self) -> int:
        """Make every open episode due now (the runbooks were reloaded)."""
        found = await self._store.write(work.nudge)
        self.wake.set()
        return found

    async def wake_next_held(self) -> None:
        """Something ended that others waited for after a storm or a pause: whoever is next is due now."""
        episode = await self._store.read(watch.next_held)
        if episode is not None:
            await self._store.write(lambda tx: work.wake(tx, episode))
            self.wake.set()

    def _wake_if(self, due: float | None) -> None:
        if due is not None and due <= self._clock.now() + 1.0:
            self.wake.set()

    # -- events ---------------------------------------------------------------------------------------------

    async def append(
        self,
        events: Sequence[Event],
        *,
        due_at: float | None = None,
        takes: Sequence[int] = (),
        close: bool = False,
        index: EpisodeIndex | None = None,
    ) -> None:
        """Append events of one episode as its owner, with all that belongs to them, in one transaction.

        takes   inbox rows that became these events; without events, rows that change nothing
        due_at  when the episode is due next; now instead when its inbox is not empty
        close   the episode is over
        Raises Conflict: another owner has it or wrote this place, or it cannot close as something came for it.
        """
        what = lines.Append(tuple(events), due_at, tuple(takes), close, index)
        if not what.events:
            if close or index is not None or due_at is not None:
                raise ValueError("without an event, rows can be taken and nothing else")
            await self._store.write(lambda tx: lines.take(tx, what.takes))
            return
        if any(event.kind is Kind.INTENT for event in what.events):
            raise ValueError("intents are written by `intend` only")
        if [event.seq for event in what.events] != [*range(what.events[0].seq, what.events[0].seq + len(events))]:
            raise ValueError("the events of one append follow one another")
        due = await self._store.write(lambda tx: lines.append(tx, self.owner, what))
        if close:
            self._held.pop(what.episode, None)
        self._acknowledged(what.events[-1])
        self._wake_if(due)

    async def outcome(self, event: Event) -> Event:
        """Write how an attempt ended, whoever owns the episode by now. Returns the event with its place.

        Tried until it is in: a full disk frees the ballast that is kept for this. The second outcome of an
        attempt changes nothing.
        """
        for last in (*[False] * OUTCOME_TRIES, True):
            try:
                placed = await self._store.write(lambda tx: lines.outcome(tx, event))
                break
            except Conflict:
                if last:
                    raise
            except NoSpace:
                if not isinstance(self._store, SQLiteStore) or not self._store.drop_ballast():
                    raise
        self._acknowledged(placed)
        self.wake.set()
        return placed

    async def put_document(self, digest: str, body: str) -> None:
        """Keep a document (a runbook's body) under its digest."""
        await self._store.write(lambda tx: index.put_document(tx, digest, body))

    async def get_document(self, digest: str) -> str | None:
        """The document with this digest, None when it is not there."""
        return await self._store.read(lambda tx: index.document(tx, digest))

    # -- limits ---------------------------------------------------------------------------------------------

    async def facts(self, episode: str, runbook: str, resource: str | None, *, service: str = "") -> Facts:
        """What others did, for planning; `intend` reads it again under the lock."""
        asked = self._asked(episode, runbook, resource, service)
        return await self._store.read(lambda tx: limits.facts(tx, asked))

    async def intend(
        self, intent: Event, *, runbook: str, resource: str, decide: Decide, service: str = ""
    ) -> Refusal | None:
        """Write an intent and charge it, unless `decide` refuses on facts read under the lock.

        Returns the refusal, or None once the intent is durable. Raises Conflict (another owner) and
        JournalError; after the latter the intent may have been written: read the episode's events again.
        """
        if intent.kind is not Kind.INTENT:
            raise ValueError(f"{intent.kind} is not an intent")

        def body(tx: Tx) -> None:
            # asked for inside: a new connection may just have shown that the journal lost something
            asked = self._asked(intent.episode, runbook, resource, service)
            refusal = limits.intend(tx, self.owner, intent, asked, decide)
            if refusal is not None:
                raise _Refused(refusal)

        try:
            await self._store.write(body)
        except _Refused as refused:
            return refused.refusal
        self._acknowledged(intent)
        return None

    async def pause(self, scope: str, who: str, reason: str, until: float | None, *, once: bool = False) -> int:
        """Forbid intents in a scope until a time or `resume`.

        Scopes: `all`, `runbook:<name>`, `resource:<canonical>`, `service:<name>` (a deployment, a maintenance).
        once: a pause of this scope by the same that holds already is the one, however many write it at once.

        Returns the pause's number, once no intent can pass any more; `running` tells what had passed before.
        """
        if scope != "all" and not scope.startswith(("runbook:", "resource:", "service:")):
            raise ValueError(f"a pause's scope is all, runbook:, resource: or service: and a name, not {scope!r}")
        token = uuid.uuid4().hex
        return await self._store.write(lambda tx: limits.pause(tx, token, scope, who, reason, until, once=once))

    async def resume(self, id: int, who: str) -> bool:
        """End a pause; False when there is none of that number. What it stopped is due now."""
        token = uuid.uuid4().hex
        ended = await self._store.write(lambda tx: limits.resume(tx, token, id, who))
        if ended:
            await self.nudge()
        return ended

    async def pauses(self) -> list[Pause]:
        """Pauses that hold now."""
        return await self._store.read(lambda tx: limits.paused(tx, tx.now()))

    async def turn_storm(self, limit: int, calm: float) -> Storm | None:
        """Begin, calm or end a storm by the number of episodes that fire now; returns the one that holds.

        limit  so many are a storm; calm  seconds of fewer after which it is over
        """
        changes, storm = await self._store.read(lambda tx: watch.turn(tx, "", limit, calm, look_only=True))
        if not changes:
            return storm
        token = uuid.uuid4().hex
        await self._store.write(lambda tx: watch.turn(tx, token, limit, calm, look_only=False))
        now = await self.storm()
        if storm is not None and now is None:
            await self.nudge()
        return now

    async def storm(self) -> Storm | None:
        """The storm that holds now."""
        return await self._store.read(watch.storm)

    async def end_storm(self, who: str, reason: str) -> bool:
        """A person ends the storm that holds; False when none does."""
        token = uuid.uuid4().hex
        ended = await self._store.write(lambda tx: watch.end_storm(tx, token, who, reason))
        if ended:
            await self.nudge()
        return ended

    async def demote(self, runbook: str, why: str) -> bool:
        """A runbook may only ask for approval from now on; False when that is so already."""
        token = uuid.uuid4().hex
        return await self._store.write(lambda tx: watch.demote(tx, token, runbook, why))

    async def restore(self, runbook: str, who: str, reason: str) -> bool:
        """A person lets a demoted runbook act again; False when it is not demoted."""
        token = uuid.uuid4().hex
        restored = await self._store.write(lambda tx: watch.restore(tx, token, runbook, who, reason))
        if restored:
            await self.nudge()
        return restored

    async def promoted(self, said: Promoted) -> None:
        """Note that a person gives a runbook another mode; the mode itself stands in the configuration."""
        token = uuid.uuid4().hex
        await self._store.write(lambda tx: watch.promoted(tx, token, said))

    async def demoted(self) -> list[Demotion]:
        """Runbooks that may only ask for approval now."""
        return await self._store.read(watch.demoted)

    async def running(self) -> list[Running]:
        """Attempts whose outcome is not written yet."""
        return await self._store.read(limits.running)

    async def open_ends(self) -> int:
        """How many attempts are in doubt: begun or maybe begun, nobody at them, and not settled."""
        return await self._store.read(limits.open_ends)


def _split(split: Callable[[InboxRow], Sequence[Routed]], row: InboxRow) -> intake.Split:
    try:
        return intake.Split(row, tuple(intake.storable(one) for one in split(row)))
    except Exception as error:  # noqa: BLE001 - one delivery that cannot be split must not stop all others
        return intake.Split(row, cause=str(getattr(error, "cause", type(error).__name__)))
