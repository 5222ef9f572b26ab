"""One remediator that is killed again and again over its targets, and the judge of what each kill led to.

A target stays ill after the effect until all that could lead to a second one is over: nothing but the remediator's own
knowledge stands between the two. Effects are counted at the target; what was acknowledged is looked for in the journal
as the kill left it, before anything starts again and could read it back from Alertmanager.
"""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

from tests.faults.kills import Point, Scope, Trace
from tests.faults.outside import Outside
from tests.faults.targets import Reader, Target, Web
from tests.support.remediation import HOLD_OFF, Remediator, World, database_entry, query_book, restart_book
from tests.support.remediation import service_entries as services_of
from tests.support.waiting import NotInTime, wait_until

T = TypeVar("T")
R = TypeVar("R")

REST = 90.0  # seconds until what a kill left behind is settled, on a busy machine
AFTER = 2.0  # seconds after the effect, and after the hold-off, in which a second effect would come


@dataclass
class Judged:
    """What came of one kill, over all targets of a chain.

    doubts   attempts that people have to look into
    settled  those that the target could tell the end of
    lost     deliveries that were acknowledged and are not in the journal
    wrong    what must not be, in words
    """

    effects: list[int] = field(default_factory=list)
    doubts: int = 0
    settled: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def doubled(self) -> int:
        return sum(effects > 1 for effects in self.effects)


class Chain:
    """A remediator, its targets, and its journal, which grows over all trials.

    heals     the targets are mended once a second effect has had its time; False: only at the trial's end
    hold_off  seconds after a kill without an intent; on PostgreSQL a lease instead
    """

    def __init__(
        self, world: World, targets: Sequence[Target], remediator: Remediator, outside: Outside | None = None
    ) -> None:
        self.world, self.targets, self.remediator = world, targets, remediator
        self.outside = outside or Outside.file(remediator.journal)
        self.heals = True
        self.hold_off = HOLD_OFF
        self.rested = 0.0

    @property
    def target(self) -> Target:
        return self.targets[0]

    # What happens to it.

    def start(self) -> Self:
        self.remediator.start()
        return self

    def ready(self) -> float:
        """Running and ill, nothing held off any more; the time from which on episodes count."""
        if not self.remediator.process.alive:  # a trial that failed has left it dead
            self.again()
        wait_until(lambda: time.time() > self.rested, "the hold-off to be over", self.hold_off + 1)
        self.on_all(lambda target: target.sicken())
        for target in self.targets:
            target.begin()
        return time.time()

    def on_all(self, call: Callable[[Target], Any]) -> None:
        """Side by side: each waits until Prometheus knows."""
        with ThreadPoolExecutor(len(self.targets)) as pool:
            list(pool.map(call, self.targets))

    def post(self, target: Target | None = None, note: str = "", **changes: Any) -> bool:
        """Deliver a target's alert; was it acknowledged?"""
        target = target or self.target
        try:
            return self.remediator.post(target.name, alertname=target.alertname, note=note, **changes)
        except (OSError, HTTPException):
            return False

    def again(self) -> None:
        """Start the killed one again."""
        self.remediator.process.kill()
        self.remediator.start()
        self.rested = time.time() + self.hold_off

    @contextlib.contextmanager
    def traced(
        self, over: Callable[[], str], word: str, scope: Scope, point: Point | None = None
    ) -> Iterator[tuple[Trace, Future[bool]]]:
        """The delivery under strace: its trace, and whether it was acknowledged.

        With `point.after` the process is stopped there and goes on when the point is waited for; the trace begins
        then. `over` ends the waiting for a place that it does not come to.
        """
        run, ours = self.world.run, self.remediator
        posted: Future[bool] | None = None
        with ThreadPoolExecutor(1) as pool:
            if point and point.after:
                with Trace(run, ours.process.pid, ours.folder, point.after.scope, point.after) as trace:
                    posted = pool.submit(self.post, note=word)
                    wait_until(lambda: trace.stopped() or over(), f"{point.after} or the end", REST, 0.05, ours.story)
            with Trace(run, ours.process.pid, ours.folder, scope, point) as trace:
                ours.process.thaw()
                yield trace, posted or pool.submit(self.post, note=word)

    def take(self, targets: Iterable[Target]) -> None:
        """As Alertmanager does with what was not acknowledged: send again until it is."""
        for target in targets:
            wait_until(partial(self.post, target), "the delivery to be taken", 20)

    def recover(self, since: float) -> None:
        """At rest: with people, or healed once the hold-off is over and nothing more was done, and closed."""
        wait_until(self.over(since), "the started one to be at rest", REST, 0.3, self.remediator.story)

    def over(self, since: float) -> Callable[[], str]:
        """`killed`, `at rest`, or "" for not yet. Mends the targets on the way: only then can it come to an end.

        It asks the journal's file and not the remediator, which would answer by system calls that are counted.
        """
        mend_at: dict[str, float] = {}

        def over() -> str:
            if not self.remediator.process.alive:
                return "killed"
            now = time.time()
            for target in self.targets:
                if self.heals and target.name not in mend_at and target.effects:
                    mend_at[target.name] = max(now, self.rested) + AFTER
                if mend_at.get(target.name, math.inf) < now:
                    target.heal()
                    mend_at[target.name] = math.inf
            return "at rest" if self.outside.at_rest(since, len(self.targets)) else ""

        return over

    def clear(self, since: float) -> None:
        """Mend the targets. What people have in hand closes in its own time: then another journal, and a new start."""
        self.on_all(lambda target: target.heal())
        if all(row["closed_at"] for row in self.remediator.episodes(since) if row["runbook"]):
            return
        self.remediator.process.kill()
        self.outside.forget()
        (self.remediator.folder / "journal.witness").unlink(missing_ok=True)
        self.remediator.start()
        self.rested = 0.0

    # What came of it.

    def judge(self, since: float, acknowledged: Mapping[str, bool] | None = None, kept: str = "") -> Judged:
        """Two effects, a lost alert, a doubt that nobody was told of.

        acknowledged  each delivery's note, and whether it was taken
        kept          what the journal held when it was killed
        """
        said = Judged()
        said.lost = sum(taken and note not in kept for note, taken in (acknowledged or {}).items())
        said.wrong += [f"{said.lost} acknowledged deliveries are not in the journal"] if said.lost else []
        rows = self._rows(since)
        doubts = {doubt["episode"] for doubt in self.remediator.ask("doubts")["doubts"]}
        for target in self.targets:
            self._judge(said, target, {row["id"] for row in rows[target.name]}, doubts)
        if said.wrong:
            said.wrong.append(self.remediator.story())
        return said

    def _judge(self, said: Judged, target: Target, ids: set[str], doubts: set[str]) -> None:
        effects = target.effects
        said.effects.append(effects)
        said.settled += sum(self.remediator.kinds(each).count("settled") for each in ids)
        said.wrong += [f"{target.name}: {effects} effects"] if effects > 1 else []
        said.wrong += [] if ids else [f"{target.name}: no episode"]
        if ids & doubts:
            said.doubts += 1
            said.wrong += self._untold(target, ids, "RemediationInDoubt")
        elif effects == 0 or not self.heals:
            said.wrong += self._untold(target, ids, "RemediationFailed")

    def _untold(self, target: Target, episodes: set[str], alertname: str) -> list[str]:
        """Empty when people have got this alert about one of these, which takes Alertmanager a moment."""
        try:
            wait_until(lambda: any(alertname in self.world.people(each) for each in episodes), alertname, 15, 0.2)
        except NotInTime:
            return [f"{target.name}: {target.effects} effects, and people never got {alertname}"]
        return []

    def _rows(self, since: float) -> Mapping[str, list[dict[str, Any]]]:
        """Episodes with a runbook by the target's name."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self.remediator.episodes(since):
            if row["runbook"]:
                labels = self.remediator.events(row["id"])[0]["data"]["alert"]["labels"]
                found[labels["service"]].append(row)
        return found

    def close(self) -> None:
        self.remediator.process.kill()
        for target in self.targets:
            target.close()


def note() -> str:
    """A word that no other delivery has."""
    return f"note-{uuid.uuid4().hex}"


def chain(
    world: World,
    webs: Sequence[str] = (),
    readers: Sequence[str] = (),
    *,
    patience: float = 60.0,
    gate_url: str = "",
    database_port: int = 0,
    **changes: Any,
) -> Chain:
    """A remediator, not started yet, over containers to restart and databases with a query to cancel; incurable, all of them.

    patience  seconds after an effect until it counts as no help
    changes   whole sections of the settings
    """
    services, databases = [Web(world, name) for name in webs], [Reader(world, name) for name in readers]
    books = [restart_book(webs, patience=patience)] if webs else []
    books += [query_book(name, patience) for name in readers]
    entries = {each.name: database_entry(world.folder, database_port or each.server.port) for each in databases}
    # Seldom heartbeats: each is a write, and moves the numbers of what a recording has found.
    journal = {"lease": "90s", "renew": "30s"}
    sections = {"services": services_of(services), "databases": entries, "journal": journal} | changes
    if gate_url:
        sections["docker"] = {"gate_url": gate_url}
    ours = Remediator(world, books, **{name: section for name, section in sections.items() if section})
    targets: list[Target] = [*services, *databases]
    for target in targets:
        target.incurable = True
    return Chain(world, targets, ours)


def shared(chains: Sequence[Chain], jobs: Iterable[T], do: Callable[[Chain, T], R]) -> list[R]:
    """Every job once, side by side; each chain takes the next one when it is free."""
    todo: SimpleQueue[T] = SimpleQueue()
    for job in jobs:
        todo.put(job)

    def work(chain: Chain) -> list[R]:
        done = []
        with contextlib.suppress(Empty):
            while True:
                done.append(do(chain, todo.get_nowait()))
        return done

    with ThreadPoolExecutor(len(chains)) as pool:
        return [result for done in pool.map(work, chains) for result in done]
