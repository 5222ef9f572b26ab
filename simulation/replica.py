"""One life of the remediator in the simulated world: the real engine, planner, guardrails, sight and journal.

It may die or freeze before and after every transaction and around every effect. What it knows is in the journal; the
next life begins with nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from remediator.actions.base import Action, Call
from remediator.engine import FAILED_WAIT, Engine, Parts
from remediator.episodes import Episodes
from remediator.errors import JournalError
from remediator.events import Event
from remediator.journal import Claim, InboxRow, Journal, Routed
from remediator.journal.sqlite import SQLiteStore
from remediator.journal.transaction import Tx
from remediator.ledger import Ledger
from remediator.loop import PARALLEL
from remediator.people import OwnAlert
from remediator.probing import Probed
from remediator.runbooks import Runbook
from remediator.settings import Settings
from remediator.sight import Sight
from remediator.watch import Watch
from remediator.webhook import split
from remediator.world import Evidence, Health
from simulation.books import ALL, settings
from simulation.judge import judge
from simulation.servers import SimAlertmanager, SimPrometheus
from simulation.small_world import Crash
from simulation.story import Wrong
from simulation.target import SimRestart
from simulation.world import World

T = TypeVar("T")
HOLD_OFF = 20.0  # seconds: the longest deadline of the runbooks
MINUTE = 60.0


class MortalStore:
    """The journal's store, as one life reaches it: not at all for a while, or the life ends at it."""

    broken: str | None = None

    def __init__(self, store: SQLiteStore, life: Life) -> None:
        self._store, self._life = store, life
        self.shared = store.shared

    async def write(self, body: Callable[[Tx], T], *, patient: bool = False) -> T:
        await self._life.moment(journal=True)
        result = await self._store.write(body, patient=patient)
        await self._life.moment()
        return result

    async def read(self, body: Callable[[Tx], T]) -> T:
        self._there()
        return await self._store.read(body)

    async def now(self) -> float:
        self._there()
        return await self._store.now()

    def _there(self) -> None:
        if self._life.dead:
            raise Crash
        if self._life.world.wrong(Wrong.JOURNAL_AWAY):
            raise JournalError("the journal does not answer")

    async def close(self) -> None:
        """It is the world's; another life goes on with it."""


class SimSight(Sight):
    """The real eyes, on simulated servers."""

    def __init__(
        self,
        world: World,
        settings: Settings,
        actions: Mapping[str, Action],
        prometheus: Sequence[SimPrometheus],
        alertmanagers: Sequence[SimAlertmanager],
    ) -> None:
        # No session: nothing is sent anywhere.
        super().__init__(settings, None, actions, world.clock)  # type: ignore[arg-type]
        self._world = world
        self._prometheus = tuple(prometheus)  # type: ignore[arg-type]
        self._alertmanagers = tuple(alertmanagers)  # type: ignore[arg-type]

    async def probe(self, labels: Mapping[str, str]) -> Probed:
        """The remediator's own request to the service."""
        service = self._world.services.get(labels.get("service", ""))
        if service is None or self._world.wrong(Wrong.BLIND):
            return Probed(Health.UNKNOWN, "no answer")
        return Probed(service.probed(self._world.t), "asked")


class Inbox:
    """Where people hear of it: at any Alertmanager that answers."""

    def __init__(self, alertmanagers: Sequence[SimAlertmanager], heard: Callable[[OwnAlert], None]) -> None:
        self._alertmanagers, self._heard = alertmanagers, heard

    async def post(self, alerts: Sequence[OwnAlert]) -> bool:
        if all(server.away() for server in self._alertmanagers):
            return False
        for alert in alerts:
            self._heard(alert)
        return True


class Camera:
    """Evidence: there, or at times not to be had."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self, episode: str, names: Sequence[str], labels: Mapping[str, str]) -> Evidence:
        return Evidence("0" * 64, f"{episode}/evidence", not self._world.wrong(Wrong.NO_EVIDENCE), {})


class Life:
    """One process from its start to its end.

    died      called once when it dies
    crash_at, freeze_at  number of the step at which it happens, None while nothing is planned
    """

    def __init__(
        self,
        world: World,
        number: int,
        store: SQLiteStore,
        servers: tuple[Sequence[SimPrometheus], Sequence[SimAlertmanager]],
        heard: Callable[[OwnAlert], None],
        ids: Callable[[], str],
        pause_file: Path,
    ) -> None:
        self.world, self.number, self.ids = world, number, ids
        self.servers, self.pause_file, self._raw = servers, pause_file, store
        self.store = MortalStore(store, self)
        self.people = Inbox(servers[1], heard)
        self.dead = self.up = False
        self.died: Callable[[], None] = lambda: None
        self.steps = 0
        self.crash_at: int | None = None
        self.freeze_at: tuple[int, float] | None = None
        self.frozen_until = 0.0
        self.swept = -MINUTE
        self.running: dict[str, asyncio.Task[None]] = {}
        self.busy = False
        self.mode = "auto"

    # -- dying ----------------------------------------------------------------------------------------------------

    async def moment(self, *, journal: bool = False) -> None:
        """A moment at which the process may die or freeze, and at which others get their turn."""
        await asyncio.sleep(0)
        self._alive()
        self.steps += 1
        if self.crash_at is not None and self.steps >= self.crash_at:
            self.die()
            raise Crash
        if self.freeze_at is not None and self.steps >= self.freeze_at[0]:
            self.frozen_until, self.freeze_at = self.world.t + self.freeze_at[1], None
        while self.world.t < self.frozen_until:
            await self.world.clock.until(self.frozen_until)
        self._alive()
        if journal and self.world.wrong(Wrong.JOURNAL_AWAY):
            raise JournalError("the journal does not answer")

    def _alive(self) -> None:
        if self.dead:
            raise Crash

    def die(self) -> None:
        if not self.dead:
            self.dead = True
            self.died()

    @property
    def able(self) -> bool:
        """Can it begin a round now?"""
        return self.up and not self.dead and not self.frozen and not self.busy

    @property
    def frozen(self) -> bool:
        return self.world.t < self.frozen_until

    # -- living ---------------------------------------------------------------------------------------------------

    async def start(self, mode: str) -> None:
        """As `remediator.server` does it."""
        try:
            self.mode = mode
            self.journal = await Journal.over(
                self.store,
                owner=f"r{self.number}",
                clock=self.world.clock,
                mode=mode,
                config_digest="",
                hold_off=HOLD_OFF,
                lease=6.0,
            )
            parts = self._parts(mode)
            self.engine = Engine(
                journal=self.journal,
                sight=parts.sight,
                actions=parts.actions,
                people=parts.people,
                diagnoses=parts.diagnoses,
                settings=parts.settings,
                episodes=Episodes(self.journal, parts.settings, ALL, self._observe, self.journal.owner, self.ids),
                clock=self.world.clock,
            )
            self.watch = Watch(self.engine)
            self.up = True
            self.world.births.append(self.world.t)
        except Crash:
            return
        except JournalError:
            self.die()

    def _parts(self, mode: str) -> Parts:
        ours = settings(self.pause_file, mode=mode)
        action = SimRestart(self.world, tuple(self.servers[0]), ours, self.moment, self._judge)
        actions = {action.name: action}
        sight = SimSight(self.world, ours, actions, *self.servers)
        return Parts(ours, sight, actions, self.people, Camera(self.world))

    async def _judge(self, call: Call) -> tuple[bool, list[str]]:
        """What the journal says when an effect begins; asked past everything that may fail, since only a judge asks.

        Returns whether the intent is durable, and what in the journal forbids the effect.
        """
        return await judge(self._raw, call)

    def _observe(self, event: Event, ledger: Ledger) -> None:
        self.world.event_times[event.id] = self.world.t

    def _split(self, row: InboxRow) -> list[Routed]:
        return split(row, self.books(), self.engine.settings.environment)

    def books(self) -> tuple[Runbook, ...]:
        return self.engine.episodes.books

    async def tell_mode(self, mode: str) -> bool:
        """A reload with another mode. True once every replica is bound by it."""
        try:
            self.engine.reconfigure(self._parts(mode), ALL)
            await self.journal.reconfigured(mode, "", HOLD_OFF)
            await self.journal.nudge()
        except (JournalError, Crash):
            return False
        self.mode = mode
        return True

    async def receive(self, body: bytes) -> bool:
        """A delivery: true once it is durable."""
        if not self.up or self.dead or self.frozen:
            return False
        try:
            await self.journal.store([("delivery", body)])
        except (JournalError, Crash):
            return False
        return True

    async def beat(self) -> None:
        """Leases and heartbeat, as `remediator.loop.Loop` does them."""
        with suppress(JournalError, Crash):
            if self.engine.clock_stepped() is not None:
                self.world.noticed.append(self.world.t)
                await self.engine.hold_off_after_step()
            await self.journal.renew()
            await self.journal.heartbeat(self.engine.settings.mode)

    async def round(self) -> None:
        """One turn of the loop: sweep, watch, take in, drive."""
        self.busy = True
        try:
            if self.world.t - self.swept >= MINUTE:
                self.swept = self.world.t
                await self.journal.sweep()
                if bodies := await self.engine.sight.active_alerts():
                    await self.journal.store([("delivery", body) for body in bodies])
                await self.watch.tick()
            claims = await self.journal.take_in(self._split, PARALLEL - len(self.running), 256)
            for claim in claims:
                self.running[claim.episode] = self.world.clock.spawn(self._drive(claim))
            if claims:
                await self.watch.tick()
            await self.watch.tell()
        except (JournalError, Crash):
            pass
        finally:
            self.busy = False

    async def _drive(self, claim: Claim) -> None:
        try:
            await self.engine.drive(claim)
        except JournalError:
            with suppress(JournalError, Crash):
                await self.journal.release(claim.episode, self.world.clock.now() + FAILED_WAIT, failed=True)
        except Crash:
            pass
        finally:
            self.running.pop(claim.episode, None)

    async def stop(self) -> None:
        """Told to end: what runs is cut off into doubt, as after the loop's grace."""
        tasks = list(self.running.values())
        for task in tasks:
            task.cancel()
        with suppress(JournalError, Crash):
            while self.running:
                await self.world.clock.sleep(0.5)
            await self.journal.close(clean=not tasks)
        self.die()
