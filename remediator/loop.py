"""Who wakes whom: the loop that claims due episodes and drives each in a task of its own.

Everything durable is due work in the journal; this loop only makes it happen soon. It owns three rounds beside
the driving: leases and heartbeat, the sweep, and reading the active alerts back from every Alertmanager, so
that no lost delivery stays lost.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from remediator.engine import FAILED_WAIT, Engine
from remediator.errors import JournalError
from remediator.journal import Claim, InboxRow, Routed
from remediator.metrics import Standing
from remediator.people import OwnAlert
from remediator.watch import Watch

log = structlog.get_logger(__name__)

PARALLEL = 16  # episodes driven at once; the rest stays due
ACTIVE_APART = 10.0  # seconds between two readings at least: a stream of dead letters must not become one of questions
BEHIND, LOOK_AGAIN = 0.25, 0.01  # seconds for which deliveries that wait go first, and between two looks at them
ROUTED = 256  # deliveries in one round: the more at once, the fewer times an episode hears the same word
WATCH = 1.0  # seconds between two looks at storms and the pause file
GRACE = 8.0  # seconds that running steps get at shutdown before they are cancelled into doubt


@dataclass
class Loop:
    """Runs an engine until `stop` is set.

    `alive` is the boot time of the last completed round: readiness looks at it. `blind` is set when active
    alerts must be read now (a truncated or unreadable delivery). `busy` is true while deliveries wait to be stored: in
    a storm their senders are answered first, and what is decided a moment later is decided on more of them at once.
    """

    engine: Engine
    split: Callable[[InboxRow], Sequence[Routed]]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    blind: asyncio.Event = field(default_factory=asyncio.Event)
    busy: Callable[[], bool] = lambda: False
    alive: float = 0.0
    watch: Watch = field(init=False)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _due: float | None = None

    def __post_init__(self) -> None:
        self.watch = Watch(self.engine)

    async def serve(self) -> bool:
        """Until `stop`. Returns True when everything ended by itself, False when a step was cut off."""
        async with asyncio.TaskGroup() as group:
            rounds = [
                group.create_task(self._leases()),
                group.create_task(self._sweeps()),
                group.create_task(self._watching()),
                group.create_task(self._active_alerts()),
                group.create_task(self._wake_on_stop()),
            ]
            while not self.stop.is_set():
                await self._round(group)
            clean = await self._finish()
            for task in rounds:
                task.cancel()
        return clean

    async def _round(self, group: asyncio.TaskGroup) -> None:
        journal = self.engine.journal
        await self._deliveries_first()
        journal.wake.clear()
        try:
            claims = await journal.take_in(self.split, PARALLEL - len(self._running), ROUTED)
            for claim in claims:
                # By turn, not by episode: given back, it may be claimed again before its turn is quite over.
                turn = group.create_task(self._drive(claim))
                self._running.add(turn)
                turn.add_done_callback(self._running.discard)
            if claims:
                await self.watch.tick()  # a storm begins with what came in, not with the next turn
            self.alive = self.engine.clock.boottime()
        except JournalError as error:
            log.error("journal does not answer", why=str(error))
        await self._nap()

    async def _deliveries_first(self) -> None:
        clock = self.engine.clock
        until = clock.boottime() + BEHIND
        while self.busy() and clock.boottime() < until and not self.stop.is_set():
            await clock.sleep(LOOK_AGAIN)

    async def _nap(self) -> None:
        """Until something is due, something comes in, or the poll interval is over."""
        pause = self.engine.settings.journal.poll
        if self._due is not None:
            pause = min(pause, max(0.01, self._due - self.engine.clock.now()))
            self._due = None
        try:
            async with asyncio.timeout(pause):
                await self.engine.journal.wake.wait()
        except TimeoutError:
            return

    async def _drive(self, claim: Claim) -> None:
        try:
            due = await self.engine.drive(claim)
            self._due = due if self._due is None else min(self._due, due)
        except JournalError as error:
            log.error("journal failed under an episode", episode=claim.episode, why=str(error))
            # not renewed any more: should this fail as well, the lease runs out and it is claimed anew
            await self._try(functools.partial(self._give_back, claim.episode))
        finally:
            # Before the loop wakes: it counts the free places, and this is one.
            if (turn := asyncio.current_task()) is not None:
                self._running.discard(turn)
            self.engine.journal.wake.set()

    async def _give_back(self, episode: str) -> None:
        journal = self.engine.journal
        await journal.release(episode, self.engine.clock.now() + FAILED_WAIT, failed=True)

    async def _finish(self) -> bool:
        """Let running steps end; cancel what does not, which writes its doubt."""
        running = list(self._running)
        if not running:
            return True
        _, late = await asyncio.wait(running, timeout=GRACE)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=GRACE)
        return not late

    async def _leases(self) -> None:
        """Free what a frozen one holds, renew leases, tell that we live and in which mode, notice a stepped clock."""
        engine = self.engine
        while True:
            if engine.clock_stepped() is not None:
                await self._try(engine.hold_off_after_step)
            await self._try(engine.journal.relieve)
            await self._try(engine.journal.renew)
            await self._try(lambda: engine.journal.heartbeat(engine.settings.mode))
            await engine.clock.sleep(engine.settings.journal.renew)

    async def _watching(self) -> None:
        """Storms and the pause file: a round of its own, as telling people takes its time and leases must not wait."""
        while True:
            await self._try(self.watch.tick)
            await self._try(self.watch.tell)
            await self.engine.clock.sleep(WATCH)

    async def _sweeps(self) -> None:
        """Each minute: wake what nobody would wake, seal the events, tell of unreadable bodies, look for standbys."""
        while True:
            await self._try(self.engine.journal.sweep)
            await self._try(self.engine.journal.seal)
            await self._try(self.engine.journal.look_for_standbys)
            await self._try(self._tell_dead_letters)
            await self.engine.clock.sleep(60.0)

    async def _tell_dead_letters(self) -> None:
        """An alert may be in a body that cannot be read: people must know of each, also of one before a restart."""
        journal = self.engine.journal
        causes = await journal.dead_letters()
        count = sum(causes.values())
        if count <= await journal.dead_letters_told():
            return
        words = ", ".join(f"{number} {cause}" for cause, number in sorted(causes.items()))
        summary = f"Deliveries that cannot be read were kept as dead letters ({words} in all)."
        steps = "See who posts to the webhook, and Alertmanager's version. The alerts were read back from it."
        name, symptom = "RemediatorDeadLetter", "remediator-dead-letter"
        alert = OwnAlert(name, "P2", "remediator", symptom, "dead-letters", summary, steps)
        if await self.engine.people.post([alert]):
            await journal.dead_letters_are_told(count)

    async def _active_alerts(self) -> None:
        """At start, each minute, and when a delivery could not be read in full."""
        while True:
            self.blind.clear()
            bodies = await self.engine.sight.active_alerts()
            if bodies:
                rows = [("delivery", body) for body in bodies]
                await self._try(functools.partial(self.engine.journal.store, rows))
            await self.engine.clock.sleep(ACTIVE_APART)
            try:
                async with asyncio.timeout(60.0):
                    await self.blind.wait()
            except TimeoutError:
                continue

    async def standing(self) -> Standing | None:
        """What the journal says now, for the gauges; None when it does not answer."""
        journal = self.engine.journal
        try:
            rows, pauses = await journal.open_episodes(), await journal.pauses()
            now, facts = await journal.now(), await journal.facts("", "", None)
            doubts, storm, demoted = await journal.open_ends(), await journal.storm(), await journal.demoted()
            unsealed = await journal.oldest_unsealed()
        except JournalError as error:
            log.error("journal does not answer", why=str(error))
            return None
        overdue = [row.due_at for row in rows if row.due_at is not None and row.due_at < now and row.owner is None]
        return Standing(
            episodes_open=len(rows),
            doubts_open=doubts,
            oldest_due=min(overdue, default=None),
            pauses=len(pauses),
            hold_off_until=facts.hold_off_until,
            approvals_waiting=sum(row.refused == "needs_approval" for row in rows),
            storm=storm is not None,
            demoted=frozenset(one.runbook for one in demoted),
            journal_room=journal.room(),
            sealed=journal.told,
            oldest_unsealed=unsealed,
        )

    async def _wake_on_stop(self) -> None:
        await self.stop.wait()
        self.engine.journal.wake.set()

    async def _try(self, call: Callable[[], object]) -> bool:
        """A round that needs the journal: a fault is logged and tried again next time."""
        try:
            result = call()
            if asyncio.iscoroutine(result):
                await result
            return True
        except (JournalError, OSError) as error:
            log.error("journal does not answer", why=str(error))
            return False
