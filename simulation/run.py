"""Lets a story happen: time passes from one thing to the next, and everybody does what is due.

`play(story)` is a pure function of the story: the same one gives the same world again, to the last event.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from remediator.errors import JournalError
from remediator.journal import Journal
from remediator.journal.sqlite import SQLiteStore
from remediator.journal.tables import episodes as episode_table
from remediator.journal.tables import work
from remediator.ledger import Ledger, fold
from remediator.people import OwnAlert
from simulation.alerting import Alert, Alerting
from simulation.clock import START
from simulation.persons import RESPOND, Case, Persons
from simulation.replica import Life
from simulation.servers import SimAlertmanager, SimPrometheus
from simulation.story import Fault, Story, Wrong
from simulation.world import Page, Span, World

TICK = 15.0  # seconds between two evaluations of the rules while anything is not as it should be
RENEW = 2.0  # seconds between two rounds while something is being done
IDLE = 60.0  # seconds between two rounds while anything is open
AGAIN = 15.0  # seconds until Alertmanager tries a delivery again
TRIES = 8
FULL_DAY = 86400.0
_OPEN = select(func.count()).select_from(episode_table).where(episode_table.c.closed_at.is_(None))
_DUE_AND_OPEN = select(func.min(func.max(work.c.due_at, work.c.lease_until)), _OPEN.scalar_subquery())


@dataclass
class Played:
    """A story as it went: the world, every episode's ledger, what the journal says of itself, and the cases."""

    world: World
    ledgers: list[Ledger]
    episodes: dict[str, list[Any]]
    open: dict[str, float | None]
    problems: list[str]
    cases: dict[int, Case]
    alerts: int
    held: int
    own: list[Any] = field(default_factory=list)


class Play:
    """Everything of one story."""

    def __init__(self, story: Story, folder: Path) -> None:
        self.story, self.world = story, World(story)
        clock = self.clock = self.world.clock
        self.prometheus = (SimPrometheus(self.world, 0), SimPrometheus(self.world, 1))
        self.alerting = Alerting(self.world, self.prometheus)
        self.alertmanagers = tuple(SimAlertmanager(self.world, number, self.alerting.fired) for number in (0, 1))
        self.persons = Persons(self.world, self.alerting)
        chance = random.Random(f"{story.seed}/ids")
        self.ids: Callable[[], str] = lambda: f"{chance.getrandbits(128):032x}"
        self.store = SQLiteStore(None, clock.now, shared=story.replicas > 1, ids=self.ids)
        self.office = Journal(self.store, "office", clock, "auto", "", 6.0)
        self.files = [folder / f"pause-{number}" for number in range(story.replicas)]
        self.lives: list[Life] = []
        self.mode = "auto"
        self.round_at, self.changed = -IDLE, True
        self.due: float | None = None
        self.open = 0
        self.storm_told = -FULL_DAY
        self._asked: set[str] = set()
        self.later: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.alerting.deliver = self._deliver
        self.persons.pause = self._pause

    # -- the whole of it ------------------------------------------------------------------------------------------

    async def run(self) -> Played:
        await self.store.open()
        for number in range(self.story.replicas):
            self.lives.append(await self._born(number))
        self._plan()
        while (t := await self._next()) <= self.story.seconds:
            await self.clock.advance(t)
            await self._turn()
        for life in self.lives:
            life.die()
        await self.clock.close()
        return await self._record()

    async def _next(self) -> float:
        """When something is to be done next."""
        times = [self.clock.next() or self.story.seconds + 1.0]
        able = any(life.able for life in self.lives)
        if any(life.running and life.able for life in self.lives):
            times.append(self.clock.t + RENEW)
        ill = any(service.owner is not None for service in self.world.services.values())
        if ill or self.alerting.busy or any(s.shown and s.shown[-1][1] > self.clock.t for s in self._all()):
            times.append(self.clock.t - self.clock.t % TICK + TICK)
        if self.changed:
            self.changed = False
            self.due, self.open = await self.store.read(lambda tx: tx.rows(_DUE_AND_OPEN)[0])
        if self.due is not None and able:
            times.append(max(self.due - START - self.clock.stepped, self.clock.t + 1.0))
        if self.open or self.alerting.fired:
            times.append(self.clock.t + IDLE)
        return min(times)

    def _all(self) -> list[Any]:
        return list(self.world.services.values())

    async def _turn(self) -> None:
        """The rules are evaluated, and every replica that lives does a round."""
        self.alerting.tick()
        later, self.later = self.later, []
        for call in later:
            await self._do(call())
        if not self._needed() and not later:
            return
        self.round_at, self.changed = self.clock.t, True
        able = [life for life in self.lives if life.able]
        for life in able:
            self.clock.spawn(life.beat())
        await self.clock.settle()
        # One of them is first, as a rule; at times all at the same moment.
        several = len(able) if self.world.random.random() < 0.3 else 1
        for life in self.world.random.sample(able, min(several, len(able))):
            if not life.dead and not life.frozen:
                self.clock.spawn(life.round())
        await self.clock.settle()

    def _needed(self) -> bool:
        """Is there anything for a replica to do? Between two evaluations of the rules there often is not."""
        if any(life.running and life.able for life in self.lives) or self.clock.t - self.round_at >= IDLE:
            return True
        return self.due is not None and self.due <= self.clock.now()

    async def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """In a task of its own, as it may have to wait."""
        self.clock.spawn(_quiet(work))
        await self.clock.settle()

    async def _born(self, number: int) -> Life:
        servers = (self.prometheus, self.alertmanagers)
        life = Life(self.world, number, self.store, servers, self._hear, self.ids, self.files[number])
        life.died = lambda: self._died(number)
        self.clock.spawn(life.start(self.mode))
        await self.clock.settle()
        return life

    def _died(self, number: int) -> None:
        """It is started anew after a while."""
        after = self.world.random.uniform(1.0, 60.0)
        self.clock.at(self.clock.t + after, lambda: self.later.append(partial(self._again, number)))

    async def _again(self, number: int) -> None:
        self.clock.spawn(self._reborn(number))

    async def _reborn(self, number: int) -> None:
        servers = (self.prometheus, self.alertmanagers)
        life = Life(self.world, number, self.store, servers, self._hear, self.ids, self.files[number])
        life.died = lambda: self._died(number)
        self.lives[number] = life
        await life.start(self.mode)

    # -- faults that somebody brings about --------------------------------------------------------------------------

    def _plan(self) -> None:
        """Put every fault that is an event, and not only so for a while, on the clock."""
        begins = {
            Wrong.CRASH: self._arm,
            Wrong.FREEZE: self._arm,
            Wrong.STOP: self._stop,
            Wrong.STEP: self._step,
            Wrong.PAUSED: self._paused,
            Wrong.PAUSE_FILE: self._file,
            Wrong.GATE_RESTARTED: self._gate,
            Wrong.SHADOW: self._mode,
            Wrong.APPROVE: self._mode,
        }
        for fault in self.story.faults:
            if (begin := begins.get(fault.wrong)) is not None:
                self.clock.at(fault.at, partial(begin, fault))
        day = FULL_DAY
        while day < self.story.seconds:
            self.clock.at(day, lambda: self.later.append(self._restore))
            day += FULL_DAY

    def _life(self, fault: Fault) -> Life:
        return self.lives[fault.where % len(self.lives)]

    def _arm(self, fault: Fault) -> None:
        life = self._life(fault)
        if fault.wrong is Wrong.CRASH:
            life.crash_at = life.steps + int(fault.much)
        else:
            life.freeze_at = (life.steps + int(fault.much), fault.lasts)

    def _stop(self, fault: Fault) -> None:
        life = self._life(fault)
        if life.up and not life.dead and not life.frozen:
            self.clock.spawn(life.stop())

    def _step(self, fault: Fault) -> None:
        """Somebody sets the clock; later it is set right."""
        if self.clock.stepped:
            return
        self.clock.stepped = fault.much
        self.world.steps.append(self.clock.t)
        self.round_at = -IDLE  # a real loop looks at its clocks all the time
        self.clock.at(self.clock.t + fault.lasts, self._step_back)

    def _step_back(self) -> None:
        self.clock.stepped = 0.0
        self.round_at = -IDLE
        self.world.steps.append(self.clock.t)

    def _gate(self, _: Fault) -> None:
        self.world.gate_seen = set()
        self.world.gate_started = self.clock.t

    def _paused(self, fault: Fault) -> None:
        self._pause("all", fault.lasts)

    def _pause(self, scope: str, lasts: float) -> None:
        self.later.append(partial(self._do_pause, scope, lasts))
        self.clock.at(self.clock.t + 0.001, lambda: None)

    async def _do_pause(self, scope: str, lasts: float) -> None:
        number = await self.office.pause(scope, "ada", "because", None)
        name = scope.removeprefix("service:")
        self.world.pauses.append((name, Span(self.clock.t)))

        async def resume() -> None:
            await self.office.resume(number, "ada")

        def over() -> None:
            self.world.stop(self.world.pauses, name)
            self.later.append(resume)

        self.clock.at(self.clock.t + lasts, over)

    def _file(self, fault: Fault) -> None:
        """Somebody puts the file there; while it is there, nobody puts it there once more."""
        if any(file.exists() for file in self.files):
            return
        for file in self.files:
            file.touch()
        self.world.pauses.append(("all", Span(self.clock.t)))
        self.clock.at(self.clock.t + fault.lasts, self._file_gone)

    def _file_gone(self) -> None:
        self.world.stop(self.world.pauses, "all")
        for file in self.files:
            file.unlink(missing_ok=True)

    def _mode(self, fault: Fault) -> None:
        self.later.append(partial(self._do_mode, "shadow" if fault.wrong is Wrong.SHADOW else "approve"))
        self.clock.at(fault.at + fault.lasts, lambda: self.later.append(partial(self._do_mode, "auto")))

    async def _do_mode(self, mode: str) -> None:
        for name, span in self.world.modes:
            if span.end is None:
                self.world.stop(self.world.modes, name)
        self.mode = mode
        told = [await life.tell_mode(mode) for life in self.lives if life.up and not life.dead and not life.frozen]
        # One that froze while it was told may answer after the next mode has come.
        stands = self.mode == mode and told and all(told) and len(told) == len(self.lives)
        if mode != "auto" and stands:
            self.world.modes.append((mode, Span(self.clock.t)))

    async def _restore(self) -> None:
        for demoted in await self.office.demoted():
            await self.office.restore(demoted.runbook, "ada", "mended")

    # -- deliveries and people ------------------------------------------------------------------------------------

    def _deliver(self, body: bytes, alerts: tuple[Alert, ...], tries: int = 0) -> None:
        self.later.append(partial(self._store, body, alerts, tries))
        self.clock.at(self.clock.t + 0.001, lambda: None)

    async def _store(self, body: bytes, alerts: tuple[Alert, ...], tries: int) -> None:
        """To one of the replicas; again later when it says no."""
        life = self.world.random.choice(self.lives)
        if await life.receive(body):
            for alert in alerts:
                self.world.acknowledged.setdefault("/".join(alert), self.clock.t)
        elif tries < TRIES:
            self.clock.at(self.clock.t + AGAIN, lambda: self._deliver(body, alerts, tries + 1))

    def _hear(self, alert: OwnAlert) -> None:
        """People are told; the first time they do something about it."""
        key = (alert.alertname, alert.episode)
        if alert.resolved or key in self.world.pages:
            return
        self.world.pages[key] = Page(self.clock.t, alert)
        chance = random.Random(f"{self.story.seed}/{alert.alertname}/{self.clock.t:.3f}")
        wait = chance.uniform(0.2, 1.0) * RESPOND["P1"]
        if alert.alertname == "RemediationNeedsApproval":
            kind = chance.choices(("approve", "decline", ""), (7, 2, 1))[0]
            if alert.episode in self._asked:
                del self.world.pages[key]
                return
            wait = chance.uniform(20.0, 1500.0)
            for _ in range(chance.choice((1, 1, 2))):
                self._later(wait, partial(self._answer, alert.episode, kind, chance.choice("ab")))
            del self.world.pages[key]  # the next question of the same episode is another one
            self.world.pages[alert.alertname, f"{alert.episode}/{len(self.world.pages)}"] = Page(self.clock.t, alert)
            self._asked.add(alert.episode)
        elif alert.alertname == "RemediationInDoubt":
            self._later(wait, partial(self._settle, alert.episode))
        elif alert.alertname == "RemediationStorm":
            del self.world.pages[key]
            if self.clock.t - self.storm_told > FULL_DAY / 4:
                self.world.pages[alert.alertname, f"storm {self.clock.t:.0f}"] = Page(self.clock.t, alert)
                self.storm_told = self.clock.t
                self._later(wait * 2, self._end_storm)

    def _later(self, seconds: float, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.clock.at(self.clock.t + seconds, lambda: self.later.append(call))

    async def _ledger(self, episode: str) -> Ledger:
        return fold(await self.office.events(episode))

    async def _answer(self, episode: str, kind: str, who: str) -> None:
        self._asked.discard(episode)
        asked = (await self._ledger(episode)).approval
        if kind and asked is not None and asked.open:
            if kind == "decline":
                self.world.declined.add(asked.id)
            said = {"kind": kind, "approval": asked.id, "digest": asked.digest, "who": who, "reason": "because"}
            await self.office.click(episode, json.dumps(said).encode())

    async def _settle(self, episode: str) -> None:
        """A person looks at the target, and says how it ended."""
        last = (await self._ledger(episode)).last
        if last is not None and last.in_doubt:
            happened = any(effect.attempt == last.id for effect in self.world.effects)
            said = {
                "attempt": last.id,
                "settlement": "done" if happened else "not_done",
                "who": "ada",
                "reason": "seen",
            }
            await self.office.click(episode, json.dumps({"kind": "settle", **said}).encode())

    async def _end_storm(self) -> None:
        await self.office.end_storm("ada", "the cause is gone")

    # -- the end ----------------------------------------------------------------------------------------------------

    async def _record(self) -> Played:
        rows = await self.office.episodes(limit=None)
        events = {row.episode: await self.office.events(row.episode) for row in rows}
        problems = await self.office.verify()
        own = await self.office.events("remediator")
        await self.store.close()
        return Played(
            self.world,
            [fold(found) for found in events.values() if found],
            events,
            {row.episode: row.due_at for row in rows if row.closed_at is None},
            problems,
            self.persons.cases,
            self.persons.alerts,
            self.persons.held,
            own,
        )


async def _quiet(work: Coroutine[Any, Any, None]) -> None:
    """What a person wants is not done while the journal is away, or the episode has closed."""
    with suppress(JournalError):
        await work


def play(story: Story) -> Played:
    """Let it happen, to its end."""
    with tempfile.TemporaryDirectory(prefix="prep-simulate-") as folder:
        return asyncio.run(Play(story, Path(folder)).run())
