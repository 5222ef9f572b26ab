"""The line of an episode: what the alert's rule measures, before, during and after, with the marks of what was done.

In: an episode's events; answers of Prometheus within its own timeout. Out: numbers for a small drawing, or in words why
there is none. A Prometheus that is slow delays the line and never the page. The expression is the server's own rule; of
`a > 5` the line is `a`, and 5 a limit across it. No text of an alert becomes PromQL.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp
import promql_parser as promql

from remediator import settings
from remediator.errors import RemediatorError
from remediator.events import Event, Kind
from remediator.ledger import Ledger
from remediator.prometheus import Prometheus, Rule, Sample
from remediator.rules import labels_of

WIDTH, HEIGHT, EDGE = 640.0, 120.0, 14.0
POINTS = 200
BEFORE, AFTER = 600.0, 300.0  # seconds shown before an episode and after its end, at most: half of its own time
LEAST = 60.0
LONGEST = 86400.0  # seconds; of a longer episode the latest part
KEEP = 10.0  # seconds for which a line is good
MOST_KEPT = 64
AT_ONCE = 4
WAIT = 8.0  # seconds for a line, the wait for its turn among the AT_ONCE included: below what a page may take
MARKS: Mapping[Kind, tuple[str, str]] = {
    Kind.OPENED: ("A", "alert"),
    Kind.NEEDS_APPROVAL: ("?", "asks a person"),
    Kind.APPROVED: ("Y", "approved"),
    Kind.DECLINED: ("N", "declined"),
    Kind.INTENT: ("▶", "acts"),
    Kind.OUTCOME: ("O", "outcome"),
    Kind.VERDICT: ("V", "verdict"),
    Kind.HANDED_OVER: ("!", "handed to people"),
    Kind.CLOSED: ("E", "end"),
}
MOST_MARKS = 40
ROWS, APART = 3, 12.0


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done. `x` in the drawing; `row` is below which others its sign stands, to be read."""

    x: float
    row: int
    at: float
    sign: str
    said: str


@dataclass(frozen=True, slots=True)
class Line:
    """The drawing. `paths` are SVG path data, one a stretch without a gap; `limit_y` None without a limit in sight."""

    paths: tuple[str, ...]
    low: float
    high: float
    last: float
    limit: float | None
    limit_y: float | None
    begin: float
    end: float
    expression: str
    marks: tuple[Mark, ...]


def split(expression: str) -> tuple[str, float | None]:
    """`a > 5` to `a` and 5.0; any other expression to itself and None."""
    try:
        parsed = promql.parse(expression)
    except ValueError:
        return expression, None
    while isinstance(parsed, promql.ParenExpr):
        parsed = parsed.expr
    if not isinstance(parsed, promql.BinaryExpr) or str(parsed.op) not in (">", ">=", "<", "<="):
        return expression, None
    if not isinstance(parsed.rhs, promql.NumberLiteral):
        return expression, None
    return parsed.lhs.prettify(), float(parsed.rhs.val)


def span(events: Sequence[Event], closed_at: float | None, now: float) -> tuple[float, float]:
    """From when to when the line goes, UNIX seconds."""
    half = max(LEAST, ((closed_at or now) - events[0].at) / 2)
    end = now if closed_at is None else min(now, closed_at + min(AFTER, half))
    return max(events[0].at - min(BEFORE, half), end - LONGEST), end


def draw(
    points: Sequence[tuple[float, float]], limit: float | None, begin: float, end: float, step: float
) -> tuple[tuple[str, ...], float, float, float | None]:
    """Paths, the lowest and highest value, and where the limit is."""
    values = [value for _, value in points if math.isfinite(value)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    if limit is not None:
        low, high = min(low, limit), max(high, limit)
    room = (high - low) or abs(high) or 1.0

    def y(value: float) -> float:
        return HEIGHT - EDGE - (value - low) / room * (HEIGHT - 2 * EDGE)

    paths: list[str] = []
    before = -math.inf
    for at, value in points:
        if not math.isfinite(value):
            continue
        where = f"{x_of(at, begin, end):.1f} {y(value):.1f}"
        if at - before > 1.5 * step:
            paths.append(f"M{where}")
        paths[-1] += f"L{where}"
        before = at
    return tuple(paths), low, high, None if limit is None else y(limit)


def x_of(at: float, begin: float, end: float) -> float:
    """Where a moment is in the drawing."""
    return EDGE + (at - begin) / max(end - begin, 1.0) * (WIDTH - 2 * EDGE)


def marks(events: Sequence[Event], begin: float, end: float) -> tuple[Mark, ...]:
    """What was done, in order; of very many the latest."""
    shown = [event for event in events if event.kind in MARKS and begin <= event.at <= end][-MOST_MARKS:]
    found: list[Mark] = []
    for event in shown:
        x = x_of(event.at, begin, end)
        taken = {mark.row for mark in found if x - mark.x < APART}
        row = next((row for row in range(ROWS) if row not in taken), 0)
        found.append(Mark(x, row, event.at, *_mark(event)))
    return tuple(found)


def _mark(event: Event) -> tuple[str, str]:
    sign, said = MARKS[event.kind]
    more = event.data.get("result") or event.data.get("verdict") or event.data.get("action") or ""
    return sign, f"{said}: {str(more).replace('_', ' ')}" if more else said


class Graphs:
    """Asks for lines: a few at a time, each once for all who look, and not again within KEEP seconds."""

    def __init__(
        self, of: Callable[[], settings.Prometheus], session: aiohttp.ClientSession, clock: Callable[[], float]
    ) -> None:
        self._settings = of
        self._session = session
        self._clock = clock
        self._few = asyncio.Semaphore(AT_ONCE)
        self._kept: dict[object, tuple[float, Line | str]] = {}
        self._asking: dict[object, asyncio.Task[Line | str]] = {}
        self._servers: tuple[settings.Prometheus | None, tuple[Prometheus, ...]] = (None, ())

    async def line(self, ledger: Ledger, events: Sequence[Event], closed_at: float | None, now: float) -> Line | str:
        """The line, or why there is none. Bounded by the timeout of Prometheus; never raises for its silence."""
        key = (ledger.episode, events[-1].seq)
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept[0] < KEEP:
            return kept[1]
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._found(key, ledger, events, closed_at, now))
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)  # one who goes must not take the line from the others

    async def close(self) -> None:
        """Ask for nothing any more."""
        asking = list(self._asking.values())
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _found(
        self, key: object, ledger: Ledger, events: Sequence[Event], closed_at: float | None, now: float
    ) -> Line | str:
        try:
            async with asyncio.timeout(WAIT), self._few:
                found = await self._line(ledger, events, closed_at, now)
        except TimeoutError:
            return f"Prometheus did not answer within {WAIT:g} s, or too many lines are asked for."
        while len(self._kept) >= MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = (self._clock(), found)
        return found

    def _asked(self) -> tuple[Prometheus, ...]:
        """The servers of the settings that hold now; the same ones as long as these do, so that they ask together."""
        of = self._settings()
        if self._servers[0] != of:
            self._servers = of, tuple(Prometheus(url, self._session, of.timeout) for url in of.urls)
        return self._servers[1]

    async def _line(self, ledger: Ledger, events: Sequence[Event], closed_at: float | None, now: float) -> Line | str:
        of = self._settings()
        try:
            async with asyncio.timeout(2 * of.timeout):
                servers = self._asked()
                found = await asyncio.gather(*(self._at(one, ledger, events, closed_at, now) for one in servers))
        except TimeoutError:
            return f"Prometheus did not answer within {2 * of.timeout:g} s."
        return next((one for one in found if isinstance(one, Line)), found[0])

    async def _at(
        self, server: Prometheus, ledger: Ledger, events: Sequence[Event], closed_at: float | None, now: float
    ) -> Line | str:
        begin, end = span(events, closed_at, now)
        step = max(self._settings().scrape_interval, (end - begin) / POINTS)
        try:
            rules = [rule for rule in await server.rules() if rule.name == ledger.alert.name]
            if not rules:
                return f"{server.url} has no rule {ledger.alert.name}."
            expression, limit = split(rules[0].expression)
            choose = partial(_ours, rules[0], ledger.target)
            points = await server.range(expression, begin, end, step, choose)
        except RemediatorError as error:
            return f"Prometheus cannot tell now: {error}"
        if not points:
            return f"{server.url} has no values of this rule for this target in that time."
        paths, low, high, limit_y = draw(points, limit, begin, end, step)
        told = marks(events, begin, end)
        return Line(paths, low, high, points[-1][1], limit, limit_y, begin, end, expression, told)


def _ours(rule: Rule, target: Mapping[str, str], series: Sequence[Mapping[str, str]]) -> int | None:
    """The series with the target's labels, by place; the only one there is when none has any of them; else None."""
    labels = [labels_of(rule, Sample(one, 0.0)) for one in series]
    for place, one in enumerate(labels):
        if one.items() >= target.items():
            return place
    return 0 if len(labels) == 1 and not set(target) & set(labels[0]) else None
