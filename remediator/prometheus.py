"""One Prometheus server: its alerting rules, and expressions evaluated now. Reads only.

In: URL and timeout. Out: frozen values. Every method raises Transient (no answer) or Permanent (not an
answer). Expressions come from the server's own rules and from runbooks, never from an alert.
Source: prometheus.io/docs/prometheus/latest/querying/api/ (2.42 to 3.5).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from remediator.errors import Permanent
from remediator.fetch import Json, get_json


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
    """One series at the time of evaluation."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """A client for one server; holds nothing but its address."""

    def __init__(self, url: str, session: aiohttp.ClientSession, timeout: float) -> None:
        self.url = url.rstrip("/")
        self._session = session
        self._timeout = timeout

    async def rules(self) -> tuple[Rule, ...]:
        """Every alerting rule."""
        data = await self._get("/api/v1/rules", ("type", "alert"))
        try:
            return tuple(_rule(rule) for group in data["groups"] for rule in group["rules"])
        except (KeyError, TypeError) as error:
            raise Permanent(f"{self.url}/api/v1/rules: not an answer of Prometheus") from error

    async def query(self, expression: str) -> tuple[Sample, ...]:
        """The expression's value now; a scalar is one sample without labels."""
        data = await self._get("/api/v1/query", ("query", expression))
        try:
            if data["resultType"] == "scalar":
                return (Sample({}, float(data["result"][1])),)
            if data["resultType"] == "vector":
                return tuple(Sample(item["metric"], float(item["value"][1])) for item in data["result"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Permanent(f"{self.url}/api/v1/query: not an answer of Prometheus") from error
        raise Permanent(f"{self.url}: {expression!r} gives a {data['resultType']}, not a vector")

    async def skew(self) -> float:
        """How far the server's clock is from ours, seconds, at least: the time of the question is no skew."""
        before = time.time()
        samples = await self.query("time()")
        after = time.time()
        theirs = samples[0].value
        return max(0.0, before - theirs, theirs - after)

    async def _get(self, path: str, *params: tuple[str, str]) -> Json:
        answer = await get_json(self._session, self.url + path, params, within=self._timeout)
        if not isinstance(answer, dict) or answer.get("status") != "success":
            raise Permanent(f"{self.url}{path}: not an answer of Prometheus: {str(answer)[:80]}")
        return answer.get("data")


def _rule(item: Mapping[str, Json]) -> Rule:
    return Rule(
        name=item["name"],
        expression=item["query"],
        labels=item.get("labels") or {},
        health=item.get("health", "unknown"),
        last_error=item.get("lastError", ""),
        states=frozenset(alert["state"] for alert in item.get("alerts") or ()),
    )
