"""One Prometheus server: its alerting rules, and expressions evaluated now. Reads only.

In: URL and timeout. Out: frozen values. Every method raises Transient (no answer) or Permanent (not an
answer). Expressions come from the server's own rules and from runbooks, never from an alert.
Source: prometheus.io/docs/prometheus/latest/querying/api/ (2.42 to 3.5).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp

from remediator.errors import Permanent
from remediator.fetch import Json, get_bytes, get_json
from remediator.together import Together

MOST_RANGE = 2 * 1024 * 1024  # bytes of values over a time: some 350 series of 200 points


@dataclass(frozen=True, slots=True)
class Rule:
    """One alerting rule as the server has loaded it. `states` are those of its alerts: pending, firing."""

    name: str
    expression: str
    labels: Mapping[str, str]
    health: str
    last_error: str
    states: frozenset[str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at the time of evaluation, `at`: UNIX seconds on the server's clock."""

    labels: Mapping[str, str]
    value: float
    at: float = 0.0


Points = tuple[tuple[float, float], ...]
"""A series over a time: (UNIX seconds, value), in order."""
Choose = Callable[[Sequence[Mapping[str, str]]], int | None]
"""Which of some series is wanted, by the labels of each; None for none of them."""


class Prometheus:
    """A client for one server; holds nothing but its address. The same question at the same time is asked once."""

    def __init__(self, url: str, session: aiohttp.ClientSession, timeout: float) -> None:
        self.url = url.rstrip("/")
        self._session = session
        self._timeout = timeout
        self._together = Together()

    async def rules(self) -> tuple[Rule, ...]:
        """Every alerting rule."""
        return await self._together.ask("rules", self._rules)

    async def _rules(self) -> tuple[Rule, ...]:
        data = await self._get("/api/v1/rules", ("type", "alert"))
        try:
            return tuple(_rule(rule) for group in data["groups"] for rule in group["rules"])
        except (KeyError, TypeError) as error:
            raise Permanent(f"{self.url}/api/v1/rules: not an answer of Prometheus") from error

    async def query(self, expression: str) -> tuple[Sample, ...]:
        """The expression's value now; a scalar is one sample without labels."""
        return await self._together.ask(("query", expression), partial(self._query, expression))

    async def _query(self, expression: str) -> tuple[Sample, ...]:
        data = await self._get("/api/v1/query", ("query", expression))
        try:
            if data["resultType"] == "scalar":
                return (_sample({}, data["result"]),)
            if data["resultType"] == "vector":
                return tuple(_sample(item["metric"], item["value"]) for item in data["result"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Permanent(f"{self.url}/api/v1/query: not an answer of Prometheus") from error
        raise Permanent(f"{self.url}: {expression!r} gives a {data['resultType']}, not a vector")

    async def range(self, expression: str, begin: float, end: float, step: float, choose: Choose) -> Points:
        """One series' values from `begin` to `end` (UNIX seconds), each `step` seconds; () where `choose` wants none.

        For people to see, never a proof. Read beside the loop, and only the wanted one is made of numbers; of more than
        MOST_RANGE bytes nothing, as a rule may have thousands of series.
        """
        asked = (("query", expression), ("start", f"{begin:.3f}"), ("end", f"{end:.3f}"), ("step", f"{step:.3f}"))
        where = f"{self.url}/api/v1/query_range"
        body = await get_bytes(self._session, where, asked, within=self._timeout, limit=MOST_RANGE)
        try:
            return await asyncio.to_thread(_chosen, body, choose)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Permanent(f"{where}: not an answer of Prometheus with values over a time") from error

    async def up(self) -> tuple[tuple[Sample, ...], float]:
        """What is scraped and whether it answers (`up`); and the clock's skew, told by the same answer."""
        return await self._together.ask("up", self._up)

    async def _up(self) -> tuple[tuple[Sample, ...], float]:
        before = time.time()
        samples = await self._query("up")
        after = time.time()
        # an empty answer has no time of its own
        return samples, _skew(before, samples[0].at, after) if samples else await self.skew()

    async def skew(self) -> float:
        """How far the server's clock is from ours, seconds, at least: the time of the question is no skew."""
        before = time.time()
        samples = await self._query("time()")
        return _skew(before, samples[0].value, time.time())

    async def _get(self, path: str, *params: tuple[str, str]) -> Json:
        answer = await get_json(self._session, self.url + path, params, within=self._timeout)
        if not isinstance(answer, dict) or answer.get("status") != "success":
            raise Permanent(f"{self.url}{path}: not an answer of Prometheus: {str(answer)[:80]}")
        return answer.get("data")


def _sample(labels: Mapping[str, str], value: Sequence[Json]) -> Sample:
    """A value of the API: [UNIX seconds, "number"]."""
    return Sample(labels, float(value[1]), float(value[0]))


def _chosen(body: bytes, choose: Choose) -> Points:
    """The wanted series of an answer; raises KeyError, TypeError, ValueError or IndexError for what is none."""
    answer = json.loads(body)
    if answer["status"] != "success" or answer["data"]["resultType"] != "matrix":
        raise ValueError("no matrix")
    found = answer["data"]["result"]
    wanted = choose([item["metric"] for item in found])
    return () if wanted is None else tuple((float(at), float(value)) for at, value in found[wanted]["values"])


def _skew(before: float, theirs: float, after: float) -> float:
    return max(0.0, before - theirs, theirs - after)


def _rule(item: Mapping[str, Json]) -> Rule:
    return Rule(
        name=item["name"],
        expression=item["query"],
        labels=item.get("labels") or {},
        health=item.get("health", "unknown"),
        last_error=item.get("lastError", ""),
        states=frozenset(alert["state"] for alert in item.get("alerts") or ()),
    )
