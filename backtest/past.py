"""One Prometheus as it was: what the remediator would have been told, had it asked at a moment that is over.

In: URL, a stretch of time, a step. Out: the answers that `remediator.rules` asks for, as of `clock()`. Reads only, by
range queries of bounded size; what was read is kept as spans, which are small. The rules are those that the server has
loaded now: it keeps no older ones.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import aiohttp
import yaml

from backtest.errors import Unusable
from backtest.spans import Series, Span, gaps, of_points
from remediator.durations import human, seconds
from remediator.errors import Permanent, Transient
from remediator.fetch import Json
from remediator.narrative import clock as written
from remediator.prometheus import Prometheus, Rule, Sample

POINTS = 2000
"""Points of one series in one answer. Prometheus refuses over 11,000; fewer keep an answer small."""
TRIES, PAUSE = 3, 2.0  # of one question, and seconds between two
COVERAGE_STEP = 60.0
"""Seconds between two looks at whether anything was recorded at all."""
MOST_STEP = 60.0
Key = frozenset[tuple[str, str]]
Progress = Callable[[float], None]


class Past(Prometheus):
    """The recorded world.

    clock    the moment it is asked about, UNIX seconds; whoever replays sets it
    alerts   every series of ALERTS, state included, over the whole stretch
    """

    def __init__(
        self, url: str, session: aiohttp.ClientSession, timeout: float, since: float, until: float, step: float = 0.0
    ) -> None:
        super().__init__(url, session, timeout)
        self.since, self.until, self.step = since, until, step
        self.clock: Callable[[], float] = lambda: since
        self.alerts: dict[Key, Series] = {}
        self.external: Mapping[str, str] = {}
        self.gaps: list[Span] = []
        self.broken: Transient | None = None
        self.questions = 0
        self._loaded: tuple[Rule, ...] = ()
        self._every: dict[str, float] = {}
        self._chunks: dict[tuple[str, int], list[Series] | Permanent] = {}

    # -- reading --------------------------------------------------------------------------------------------

    async def read(self, progress: Progress) -> None:
        """Rules, labels, what was recorded when, and all alerts. Raises Unusable in words for people.

        `progress` hears of the part that is done, 0 to 1.
        """
        try:
            await self._read_rules()
            await self._read_labels()
            await self._read_coverage()
            questions = list(self._questions())
            for start, end in self._pieces():
                for expression in questions:
                    self._take_alerts(await self.between(expression, start, end))
                progress((end - self.since) / max(1.0, self.until - self.since))
        except Transient as error:
            raise Unusable(3, f"Prometheus does not answer: {error}", "Is it up, and is --prometheus right?") from error
        except Permanent as error:
            raise Unusable(1, f"Prometheus cannot tell its history: {error}") from error

    async def _read_rules(self) -> None:
        """All alerting rules; from them the step: the shortest evaluation interval of a group with alerts."""
        data = await self._asked("/api/v1/rules", ("type", "alert"))
        try:
            groups = [group for group in data["groups"] if group["rules"]]
            intervals = [float(group["interval"]) for group in groups]
            for group, interval in zip(groups, intervals, strict=True):
                for rule in group["rules"]:
                    self._every[rule["name"]] = max(interval, self._every.get(rule["name"], 0.0))
        except (KeyError, TypeError, ValueError) as error:
            raise Permanent(f"{self.url}/api/v1/rules: not an answer of Prometheus") from error
        self._loaded = await super()._rules()
        if not self.step:
            self.step = max(1.0, min(MOST_STEP, *intervals)) if intervals else 15.0
        # On the grid: what is asked in pieces must fall on the same moments as in one.
        self.since = math.ceil(self.since / self.step) * self.step
        self.until = math.floor(self.until / self.step) * self.step

    def _questions(self) -> Iterator[str]:
        """ALERTS as held from one evaluation to the next, each alert by the interval of its own group: looking
        back longer would join what was apart, and end it late.
        """
        slower: dict[float, list[str]] = {}
        for name, interval in self._every.items():
            if interval > self.step:
                slower.setdefault(interval, []).append(re.escape(name))
        others = json.dumps("|".join(name for names in slower.values() for name in names))
        yield f"present_over_time(ALERTS{{alertname!~{others}}}[{math.ceil(self.step)}s])"
        for interval, names in slower.items():
            yield f"present_over_time(ALERTS{{alertname=~{json.dumps('|'.join(names))}}}[{math.ceil(interval)}s])"

    async def _read_labels(self) -> None:
        """Alertmanager is sent the server's external labels too, `environment` among them; ALERTS lacks them."""
        data = await self._asked("/api/v1/status/config")
        try:
            found = (yaml.safe_load(data["yaml"]).get("global") or {}).get("external_labels") or {}
            self.external = {str(name): str(value) for name, value in found.items()}
        except (AttributeError, KeyError, TypeError, yaml.YAMLError) as error:
            raise Permanent(f"{self.url}/api/v1/status/config: not an answer of Prometheus") from error

    async def _read_coverage(self) -> None:
        """When anything was recorded. Raises Unusable when that begins later than what was asked for."""
        # On a short stretch closer: a point of a wide grid may fall beside all that there is.
        grid = max(self.step, min(COVERAGE_STEP, (self.until - self.since) / 20))
        seen = Series({})
        grid = self.step * math.ceil(grid / self.step)
        for start, end in self._pieces(grid):
            for found in await self.between("count(up)", start, end, grid):
                seen.add(found.spans)
        if not seen.spans:
            between = f"between {written(self.since)} and {written(self.until)}"
            raise Unusable(1, f"{self.url} holds nothing {between}.", "Ask for a stretch that it was running in.")
        first = seen.spans[0].start
        if first > self.since + max(2 * grid, 300.0):
            raise Unusable(
                1,
                f"{self.url} has data from {written(first)} only, {human(first - self.since)} later than asked for.",
                f"Ask with --since {held(self.until - first)}, or keep more there (--storage.tsdb.retention.time).",
            )
        # A scrape that is late is no gap: an instant query looks back five minutes.
        self.gaps = [gap for gap in gaps(seen.spans, first, self.until) if gap.end - gap.start > 2 * grid]

    def _take_alerts(self, found: Iterable[Series]) -> None:
        """Of an alert whose rule is not loaded any more the interval is not known: the longest one joins it."""
        longest = max([self.step, *self._every.values()])
        for series in found:
            key = frozenset(series.labels.items())
            more = 0.0 if series.labels["alertname"] in self._every else longest - self.step
            spans = (Span(span.start, span.end + more, span.value) for span in series.spans)
            self.alerts.setdefault(key, Series(series.labels)).add(spans)

    def _pieces(self, step: float = 0.0) -> Iterator[tuple[float, float]]:
        """The whole stretch in pieces that one answer may hold, (first point, last point) each."""
        step = step or self.step
        at = self.since
        while at <= self.until:
            end = min(self.until, at + (POINTS - 1) * step)
            yield at, end
            at = end + step

    async def between(
        self, expression: str, start: float, end: float, step: float = 0.0, *, by_value: bool = False
    ) -> list[Series]:
        """A range query as series of spans. An answer that is too long is asked for again in halves."""
        step = step or self.step
        asked = (("query", expression), ("start", f"{start:.3f}"), ("end", f"{end:.3f}"), ("step", f"{step:g}"))
        try:
            data = await self._asked("/api/v1/query_range", *asked)
        except Permanent as error:
            too_much = any(said in str(error) for said in ("longer than", "too many samples"))
            if not too_much or end - start < step:
                raise
            middle = start + math.floor((end - start) / step / 2) * step
            both = await self.between(expression, start, middle, step, by_value=by_value)
            return _joined(both, await self.between(expression, middle + step, end, step, by_value=by_value), by_value)
        try:
            return [
                Series(
                    {name: value for name, value in item["metric"].items() if name != "__name__"},
                    of_points(item["values"], step, by_value=by_value),
                )
                for item in data["result"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise Permanent(f"{self.url}/api/v1/query_range: not an answer of Prometheus") from error

    async def _asked(self, path: str, *params: tuple[str, str]) -> Json:
        """Asked again when nobody answers; when that does not help either, nothing more can be told at all."""
        self.questions += 1
        for left in reversed(range(TRIES)):
            try:
                return await self._get(path, *params)
            except Transient as error:
                if not left:
                    self.broken = error
                    raise
                await asyncio.sleep(PAUSE)
        raise AssertionError("unreachable: the last try returns or raises")

    # -- as it was at `clock()` --------------------------------------------------------------------------------

    async def rules(self) -> tuple[Rule, ...]:
        """The rules with the states that their alerts had then."""
        now = self.clock()
        states: dict[str, set[str]] = {}
        for series in self.alerts.values():
            if series.at(now) is not None:
                states.setdefault(series.labels["alertname"], set()).add(series.labels["alertstate"])
        return tuple(
            Rule(rule.name, rule.expression, rule.labels, "ok", "", frozenset(states.get(rule.name, ())))
            for rule in self._loaded
        )

    async def query(self, expression: str) -> tuple[Sample, ...]:
        """The expression's value then; its first value since it became true stands for the later ones."""
        now = self.clock()
        found = []
        for series in await self._chunk(expression, now):
            if (span := series.at(now)) is not None:
                found.append(Sample(series.labels, span.value, now))
        return tuple(found)

    async def up(self) -> tuple[tuple[Sample, ...], float]:
        """What was scraped and answered then. The clocks of then cannot be compared: no skew is assumed."""
        return await self.query("up"), 0.0

    async def change(self, names: Sequence[str], target: Mapping[str, str], causes: Sequence[str]) -> float:
        """The next moment at which anything that a look at these rules sees may be different; at most some hours away.

        names   the alert's rules: of them only what has the target's labels counts
        causes  alerts of which every series counts
        """
        now = self.clock()
        moments = [self._chunk_end(now)]
        for rule in self._loaded:
            if rule.name not in names and rule.name not in causes:
                continue
            wanted = {} if rule.name in causes else {name: v for name, v in target.items() if name not in rule.labels}
            for series in await self._recorded(rule.expression, now):
                if series.labels.items() >= wanted.items() and (moment := series.change(now)) is not None:
                    moments.append(moment)
        for series in self.alerts.values():
            if series.labels["alertname"] in causes and (moment := series.change(now)) is not None:
                moments.append(moment)
        seen = await self._recorded("up", now)
        moments += [moment for series in seen if (moment := series.change(now)) is not None]
        return min(moment for moment in moments if moment > now)

    async def _recorded(self, expression: str, moment: float) -> list[Series]:
        """The same; nothing where the server cannot evaluate it, as it says so at each moment alike."""
        try:
            return await self._chunk(expression, moment)
        except Permanent:
            return []

    async def _chunk(self, expression: str, moment: float) -> list[Series]:
        """The expression over the piece of time that holds this moment; read once. Raises Permanent where one of its
        moments cannot be evaluated: of the whole piece it is not known then.
        """
        number = math.floor(moment / (POINTS * self.step))
        if (found := self._chunks.get((expression, number))) is None:
            start = number * POINTS * self.step
            end = start + (POINTS - 1) * self.step
            try:
                found = await self.between(expression, start, end, by_value=expression == "up")
            except Permanent as error:
                found = error
            self._chunks[expression, number] = found
        if isinstance(found, Permanent):
            raise found
        return found

    def _chunk_end(self, moment: float) -> float:
        return (math.floor(moment / (POINTS * self.step)) + 1) * POINTS * self.step


def _joined(one: Sequence[Series], other: Sequence[Series], by_value: bool) -> list[Series]:
    found = {frozenset(series.labels.items()): series for series in one}
    for series in other:
        found.setdefault(frozenset(series.labels.items()), Series(series.labels)).add(series.spans, by_value=by_value)
    return list(found.values())


def moment(text: str, now: float, option: str) -> float:
    """`30d` before now, or a time in RFC 3339, as UNIX seconds. Raises Unusable that names the option."""
    from datetime import datetime  # noqa: PLC0415 - one name for two things otherwise

    try:
        return now - seconds(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Unusable(
            2, f"{option}: {text!r} is neither a duration (30d) nor a time (2026-11-01T00:00:00Z)."
        ) from error
    if found.tzinfo is None:
        raise Unusable(2, f"{option}: {text!r} has no zone; write 2026-11-01T00:00:00Z for UTC.")
    return found.timestamp()


def held(seconds: float) -> str:
    """What `--since` can ask of so much data, in one whole unit."""
    minutes = max(1, math.floor(seconds / 60.0))
    hours = minutes // 60
    return f"{hours // 24}d" if hours >= 48 else f"{hours}h" if hours else f"{minutes}m"
