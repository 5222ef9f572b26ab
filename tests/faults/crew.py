"""Three remediators on one PostgreSQL journal over many targets, and the judge of what came of a fault among them.

A restart does not heal a target: nothing but what the remediators know stands between the first effect and a second
one, until all that was begun has had its time. Effects are counted at the target. The journal is read by psql, past
the remediators, to know where they are and what they say of themselves.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from typing import Any

from tests.faults.targets import Web
from tests.support.remediation import Remediator, World, delivery, restart_book, service_entries
from tests.support.servers import Database, NotInTime, wait_until

COUNT = 3
DEADLINE = 12.0  # seconds for a restart where many run at once on two cores
PATIENCE = 150.0  # seconds after an effect until it counts as no help: the targets are mended before
AFTER = 2.0  # seconds in which a second effect would come
REST = 90.0
AT_ONCE = 12  # targets asked side by side
SHIPPED = {"lease": "6s", "renew": "2s", "poll": "1s"}
TAKE_OVER = 10.0  # seconds, the promise

_LINES = """
select v.episode, v.kind, v.at, v.data from events v join episodes e on e.episode = v.episode
where e.opened_at >= {since} and e.runbook is not null order by v.episode, v.seq
"""
_OWNED = "select episode from work where owner = '{owner}'"
_OPEN = """
select w.owner, c.attempt from charges c join work w on w.episode = c.episode
where c.result is null and c.settlement is null and w.owner is not null
"""
_UNFINISHED = """
select e.episode from episodes e where e.opened_at >= {since} and e.runbook is not null
and not exists (select 1 from events v where v.episode = e.episode and v.kind = 'handed_over')
and not exists (select 1 from charges c where c.episode = e.episode and (c.result = 'done' or c.settlement = 'done'))
"""
_RESTING = """
select count(*) from episodes e where e.opened_at >= {since} and e.runbook is not null and (e.closed_at is not null
or exists (select 1 from events v where v.episode = e.episode and v.kind = 'handed_over'))
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One event of an episode."""

    episode: str
    kind: str
    at: float
    data: Mapping[str, Any]


@dataclass
class Judged:
    """What came of one round, over all targets.

    effects    of each target, by its own count
    attempts   intents
    failed     attempts that certainly did not begin: refused at the target, or not sent
    settled    doubts that the target could tell the end of, by settlement
    doubts     attempts that people have to look into
    wrong      what must not be, in words
    """

    effects: list[int] = field(default_factory=list)
    attempts: int = 0
    failed: int = 0
    settled: Counter[str] = field(default_factory=Counter)
    doubts: int = 0
    people: int = 0
    wrong: list[str] = field(default_factory=list)


class Crew:
    """Replicas with the lease that ships, not started yet."""

    def __init__(self, world: World, services: Sequence[Web], database: Database) -> None:
        self.world, self.services, self.database = world, services, database
        self._owners: dict[str, str] = {}  # what is in a replica's name in the journal, by our name of it
        names = [each.name for each in services]
        url = database.dsn(scheme="postgresql+asyncpg")
        for each in services:
            each.incurable = True
        self.replicas = [
            Remediator(
                world,
                [restart_book(names, DEADLINE, PATIENCE)],
                name=f"replica{number}",
                services=service_entries(services),
                journal={"url": url, **SHIPPED},
                guards={"start_within": "10s", "all_per_hour": 10_000, "all_per_day": 10_000},
            )
            for number in range(COUNT)
        ]

    def start(self) -> None:
        """Start those that do not run."""
        with ThreadPoolExecutor(COUNT) as pool:
            list(pool.map(Remediator.start, self.replicas))
        self._owners = {each.name: f":{each.process.pid}#" for each in self.replicas}

    def close(self) -> None:
        for each in self.replicas:
            each.process.kill()

    # What happens to it.

    def sicken(self, services: Iterable[Web] | None = None) -> float:
        """All of these ill and known as such; the time from which on episodes count."""
        chosen = list(services or self.services)
        _side_by_side(Web.sicken, chosen)
        _side_by_side(Web.begin, chosen)
        return time.time()

    def deliver(self, services: Iterable[Web] | None = None) -> list[int]:
        """A webhook for each of these, at all replicas in the same moment; the answers' statuses."""
        bodies = [delivery([each.name]) for each in services or self.services]
        with ThreadPoolExecutor(COUNT) as pool:
            return [status for body in bodies for status in pool.map(partial(send, body=body), self.replicas)]

    def under_way(self) -> dict[Remediator, int]:
        """Effects that were intended and have no outcome yet, by the replica that owns them."""
        owners = Counter(row[0] for row in self.database.sql(_OPEN))
        return {each: count for each in self.replicas for owner, count in owners.items() if self._is(owner, each)}

    def wait_under_way(self, replicas: int) -> list[Remediator]:
        """So many replicas with an effect under way, the one with most of them first."""

        def found() -> list[Remediator]:
            open_ = {each: count for each, count in self.under_way().items() if each.process.alive}
            return sorted(open_, key=lambda each: -open_[each]) if len(open_) >= replicas else []

        return wait_until(found, f"{replicas} replicas to act", 30, 0.01, self.replicas[0].process.tail)

    def owner(self, replica: Remediator) -> str:
        """Its name in the journal, while it lives or is frozen or was just killed."""
        rows = self.database.sql("select owner from replicas order by seen_at desc")
        return next(row[0] for row in rows if self._is(row[0], replica))

    def _is(self, owner: str, replica: Remediator) -> bool:
        return self._owners[replica.name] in owner

    def owned(self, owner: str) -> set[str]:
        """Episodes that this owner has claimed."""
        return {row[0] for row in self.database.sql(_OWNED.format(owner=owner))}

    def wait_taken_over(self, owner: str, episodes: set[str], since: float) -> list[float]:
        """Wait until somebody else has all of these; the seconds from `since` until each was claimed anew."""
        wait_until(lambda: not self.owned(owner) & episodes, f"{owner} to be relieved", 30, 0.1, self._work)
        found = "', '".join(episodes)
        query = (
            f"select episode, min(at) from events where kind = 'claimed' and at > {since} and episode in ('{found}')"
        )

        def claimed() -> list[list[str]]:
            rows = self.database.sql(f"{query} group by episode")
            return rows if len(rows) == len(episodes) else []

        rows = wait_until(claimed, f"{len(episodes)} claims in the journal", 20, 0.1) if episodes else []
        return [float(row[1]) - since for row in rows]

    def _work(self) -> str:
        """Who has what, since when due and until when, in seconds from now."""
        now = "extract(epoch from clock_timestamp())"
        what = f"episode, owner, round((due_at - {now})::numeric, 1), round((lease_until - {now})::numeric, 1), claims"
        return "\n".join(" ".join(row) for row in self.database.sql(f"select {what} from work order by owner"))

    # How it ends.

    def recover(self, since: float) -> None:
        """Every effect done or with people, a while passed, the targets mended, and every episode at rest."""
        wait_until(lambda: not self._unfinished(since), "an end of all that was begun", REST, 0.3, self.story)
        end = time.monotonic() + AFTER
        wait_until(lambda: time.monotonic() > end, "a while to pass", AFTER + 5)
        _side_by_side(Web.heal, self.services)
        count = len(self.services)
        resting = _RESTING.format(since=since)
        wait_until(
            lambda: int(self.database.value(resting)) >= count, "every episode to be at rest", REST, 0.3, self.story
        )

    def _unfinished(self, since: float) -> bool:
        rows = self.database.value(f"select count(*) from episodes where opened_at >= {since} and runbook is not null")
        return int(rows) < len(self.services) or bool(self.database.sql(_UNFINISHED.format(since=since)))

    def lines(self, since: float) -> dict[str, list[Line]]:
        """Events by the target's name, of the episodes opened since then."""
        found: dict[str, list[Line]] = defaultdict(list)
        service: dict[str, str] = {}
        for episode, kind, at, data in self.database.sql(_LINES.format(since=since)):
            line = Line(episode, kind, float(at), json.loads(data))
            if kind == "opened":
                service[episode] = line.data["target"]["service"]
            found[service[episode]].append(line)
        return found

    def judge(self, since: float) -> Judged:
        """Two effects, an effect begun anew too early, a lost alert, a doubt that nobody was told of."""
        said = Judged()
        lines = self.lines(since)
        living = next(each for each in self.replicas if each.process.alive)
        open_ = {doubt["episode"] for doubt in living.ask("doubts")["doubts"]}
        for target in self.services:
            self._judge(said, target, lines[target.name], open_)
        return said

    def _judge(self, said: Judged, target: Web, lines: Sequence[Line], doubts: set[str]) -> None:
        effects, episodes = target.effects, {line.episode for line in lines}
        said.effects.append(effects)
        said.attempts += sum(line.kind == "intent" for line in lines)
        said.failed += sum(line.kind == "outcome" and line.data["result"] == "failed" for line in lines)
        said.settled += Counter(line.data["settlement"] for line in lines if line.kind == "settled")
        wrong = [*too_early(lines)]
        wrong += [f"{effects} effects"] if effects > 1 else []
        wrong += [] if len(episodes) == 1 else [f"{len(episodes)} episodes"]
        wanted = {line.data["alertname"] for line in lines if line.kind == "handed_over"}
        if episodes & doubts:
            said.doubts += 1
            wanted.add("RemediationInDoubt")
        if effects == 0 and not wanted:
            wrong.append("no effect, and nobody was asked to look")
        said.people += bool(wanted)
        wrong += [f"people never got {name}" for name in wanted if not self._told(episodes, name)]
        story = [f"  {line.at - lines[0].at:7.2f} {line.kind} {_short(line)}" for line in lines]
        said.wrong += ["\n".join([f"{target.name}: {'; '.join(wrong)}", *story])] if wrong else []

    def _told(self, episodes: Iterable[str], alertname: str) -> bool:
        try:
            wait_until(lambda: any(alertname in self.world.people(each) for each in episodes), alertname, 15, 0.2)
        except NotInTime:
            return False
        return True

    def clear(self) -> None:
        """What people have in hand is settled by what the target says, and closes."""
        living = next(each for each in self.replicas if each.process.alive)
        by_episode = {lines[0].episode: name for name, lines in self.lines(0.0).items()}
        effects = {each.name: each.effects for each in self.services}
        for doubt in living.ask("doubts")["doubts"]:
            done = effects[by_episode[doubt["episode"]]]
            living.settle(doubt["attempt"], "done" if done else "not_done")

    def story(self) -> str:
        """For a failure's message: what each replica said last."""
        return "\n".join(each.process.tail(8) for each in self.replicas)


def too_early(lines: Sequence[Line]) -> list[str]:
    """Where an intent came while the one before was neither certainly not begun nor over, or was settled too soon."""
    wrong: list[str] = []
    ends: dict[str, float] = {}
    last = ""
    for line in lines:
        attempt = line.data.get("attempt", "")
        if line.kind == "intent":
            if line.at < ends.get(last, 0.0):
                wrong.append(f"intent {attempt[:8]} before the deadline of {last[:8]}")
            ends[attempt], last = line.at + line.data["deadline"], attempt
        elif line.kind == "settled" and line.at < ends[attempt]:
            wrong.append(f"{attempt[:8]} settled before its deadline")
        elif line.kind == "outcome" and line.data["result"] == "failed":
            ends[attempt] = 0.0
    return wrong


def _short(line: Line) -> str:
    words = ("owner", "attempt", "result", "settlement", "verdict", "reason", "detail", "sentence")
    return " ".join(str(line.data[word])[:100] for word in words if word in line.data)


def send(replica: Remediator, body: Mapping[str, Any]) -> int:
    """The status of the answer; 0 for none."""
    try:
        return replica.send(body, 15).status
    except (OSError, HTTPException):
        return 0


def _side_by_side(call: Callable[[Web], object], services: Sequence[Web]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(call, services))
