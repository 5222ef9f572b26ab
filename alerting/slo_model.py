"""Objectives as values: what counts, how much of it must be good, and who is told when too much is not. Format 1.

In: plain data of one file. Out: frozen models that fit together. The arithmetic of burn rates is here, because a file
whose alert could never fire is refused and not turned into rules.

Words: an **event** is one thing that can go well or badly (a payment). The **error budget** is the share of events that
may be bad within the objective's window, 1 - objective. A **burn rate** of 1 uses up the budget in exactly the window,
one of 10 in a tenth of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

WINDOW = "$window"
"""Stands for the range in the expressions of a source."""
BASE = 300
"""Seconds: range of the recordings that long windows are added up from. The services are scraped every 15 to 60 s."""
RAW_UP_TO = 3600
"""Seconds: windows up to this long read the counters themselves, longer ones add up the recordings."""
INTERVAL = 60
"""Seconds between two evaluations; BASE must be a multiple, so that every event is counted BASE / INTERVAL times."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_RATE = re.compile(r"\b(?:rate|irate)\s*\(")


def seconds(text: Any) -> Any:
    """`1h30m` -> 5400. Raises ValueError for any other text, and for a bare number (which unit?)."""
    parts = re.findall(r"(\d+)([smhdw])", text) if isinstance(text, str) else []
    if not parts or "".join(amount + unit for amount, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration: write for example 5m, 6h or 30d")
    return sum(int(amount) * _UNITS[unit] for amount, unit in parts)


def promql(duration: int) -> str:
    """Seconds as PromQL and the names of recordings write them: 3600 -> `1h`, 5400 -> `90m`, 604800 -> `7d`."""
    unit = next(unit for unit in ("d", "h", "m", "s") if duration % _UNITS[unit] == 0)
    return f"{duration // _UNITS[unit]}{unit}"


def number(value: Decimal) -> str:
    """A number without trailing zeros or exponent: 7.20 -> `7.2`, 0.010 -> `0.01`."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


Duration = Annotated[int, BeforeValidator(seconds), Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
AlertName = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]+$")]
Level = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]


class Strict(BaseModel):
    """Unknown keys are mistakes, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Strict):
    """Where events are counted: two PromQL expressions that may yield several series, which are then added up."""

    bad: Text
    total: Text

    @field_validator("bad", "total")
    @classmethod
    def _counts_events(cls, text: str) -> str:
        if f"[{WINDOW}]" not in text:
            raise ValueError(f"has no range [{WINDOW}]: write increase(a_counter_total[{WINDOW}])")
        if _RATE.search(text):
            raise ValueError(
                f"uses rate(), which is per second: write increase(...[{WINDOW}]), so that events are counted"
            )
        return text.strip()


class Pair(Strict):
    """The alert fires when the budget burns so fast in both windows, said in one of two ways.

    The long window says that it matters, the short one that it still goes on.
    """

    long: Duration
    short: Duration
    burn_rate: Annotated[Decimal, Field(ge=1)] | None = None
    budget: Annotated[Decimal, Field(gt=0, le=1)] | None = None
    """Share of the whole budget that `long` alone uses up."""

    @model_validator(mode="after")
    def _ordered(self) -> Pair:
        if (self.burn_rate is None) == (self.budget is None):
            raise ValueError("give exactly one of burn_rate and budget")
        if self.short >= self.long:
            raise ValueError(f"short ({promql(self.short)}) must be shorter than long ({promql(self.long)})")
        if self.short < BASE:
            raise ValueError(f"short ({promql(self.short)}) must be at least {promql(BASE)}")
        return self

    def factor(self, window: int) -> Decimal:
        """The burn rate for an objective's window in seconds. 2 % in 1h of 30d: 0.02 * 720h / 1h = 14.4."""
        return self.burn_rate or round((self.budget or Decimal(0)) * window / self.long, 4)


class Alert(Strict):
    """Name, level and the first thing to do, in a sentence with the word `first`.

    `symptom`: of another alert that says the same of the same service and component. Both are one message then, and its
    P1 form mutes a P2 form of this one.
    """

    name: AlertName
    severity: Level
    first: Text
    runbook: Name | None = None
    symptom: Name | None = None

    @field_validator("first")
    @classmethod
    def _says_what_to_do_first(cls, text: str) -> str:
        if not re.search(r"\bfirst\b", text, re.IGNORECASE):
            raise ValueError("says what to do first, with that word")
        return " ".join(text.split())


def _pair(long: str, short: str, burn_rate: str) -> Pair:
    return Pair.model_validate({"long": long, "short": short, "burn_rate": Decimal(burn_rate)})


FAST = (_pair("1h", "5m", "14.4"), _pair("6h", "30m", "6"))
"""Google's SRE workbook, chapter 5, table 5-8: 2 and 5 % of the budget of 30 days."""
SLOW = (_pair("1d", "2h", "3"), _pair("3d", "6h", "1"))
"""The same table: 10 % each."""


class Fast(Alert):
    """Wakes somebody."""

    pairs: tuple[Pair, ...] = Field(default=FAST, min_length=1)


class Slow(Alert):
    """Makes a ticket."""

    pairs: tuple[Pair, ...] = Field(default=SLOW, min_length=1)


class Low(Alert):
    """Little of the budget is left."""

    below: Annotated[Decimal, Field(gt=0, lt=1)] = Decimal("0.1")


class Blind(Alert):
    """No source gives events; `for` bridges a restart."""

    lasting: Duration = Field(default=300, alias="for")


class Alerts(Strict):
    """Each is made only where it is given."""

    fast: Fast | None = None
    slow: Slow | None = None
    low: Low | None = None
    blind: Blind | None = None

    @model_validator(mode="after")
    def _any(self) -> Alerts:
        if not any((self.fast, self.slow, self.low, self.blind)):
            raise ValueError("has no alert: give at least one of fast, slow, low, blind")
        return self

    def each(self) -> Iterator[Alert]:
        """Those that are given."""
        yield from (alert for alert in (self.fast, self.slow, self.low, self.blind) if alert is not None)


class Objective(Strict):
    """So large a share of events is good, over so long a window."""

    title: Text
    """What the events are, in the middle of a sentence: `payments`."""
    objective: Annotated[Decimal, Field(gt=0, lt=1)]
    window: Duration = 30 * 86400
    service: Name
    component: Name = "slo"
    sources: tuple[Source, ...] = Field(min_length=1)
    """The first that has events counts alone; the next ones take over while it gives nothing."""
    minimum_bad_events: int = Field(default=5, ge=1)
    """No burn is told with fewer bad events in the long window: one failure of three at night is no incident."""
    labels: Mapping[Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")], Text] = {}
    """Put on every alert of this objective."""
    alerts: Alerts

    @property
    def budget(self) -> Decimal:
        """The share of events that may be bad."""
        return 1 - self.objective

    def pairs(self) -> Iterator[Pair]:
        """Of all its alerts."""
        for alert in (self.alerts.fast, self.alerts.slow):
            yield from alert.pairs if alert is not None else ()

    @model_validator(mode="after")
    def _reachable(self) -> Objective:
        """Every threshold must be one that a real burn can pass."""
        if taken := self.labels.keys() & {"alertname", "severity", "component", "symptom", "service", "runbook", "slo"}:
            raise ValueError(f"labels: {', '.join(sorted(taken))} are set by the generator")
        if longer := [promql(pair.long) for pair in self.pairs() if pair.long > self.window]:
            raise ValueError(f"the pair {longer[0]} is longer than the window of {promql(self.window)}")
        for pair in self.pairs():
            factor, long = pair.factor(self.window), promql(pair.long)
            if factor * self.budget >= 1:
                raise ValueError(
                    f"an alert could never fire: a burn rate of {number(factor)} in {long} would need"
                    f" {number(factor * self.budget * 100)} % of all events to be bad; with this objective it must be"
                    f" under {number(round(1 / self.budget, 2))}"
                )
            if factor < 1:
                raise ValueError(
                    f"an alert would fire within the objective: {long} has a burn rate of {number(factor)}, and 1 is"
                    " what the budget is for"
                )
        return self


class Retention(Strict):
    """An alert on the Prometheus that evaluates the rules: do its samples reach back as far as the windows do?"""

    alert: Alert
    job: Text = "prometheus"
    """The job under which Prometheus scrapes itself."""
    margin: Duration = 86400


class Links(Strict):
    """Annotations; `{alert}`, `{service}` and `{slo}` are replaced."""

    runbook: Text
    dashboard: Text | None = None


class SloFile(Strict):
    """One file of objectives."""

    format: Literal[1]
    group: Name = "slo"
    """Name of the rule group; unique among the files that one Prometheus reads."""
    links: Links | None = None
    objectives: Mapping[Name, Objective] = Field(min_length=1)
    retention: Retention | None = None

    @model_validator(mode="after")
    def _one_meaning_a_name(self) -> SloFile:
        """An alert's page and level go by its name: rules that share it must agree."""
        seen: dict[str, tuple[str, str]] = {}
        for name, one in self.objectives.items():
            for alert in one.alerts.each():
                if seen.setdefault(alert.name, (alert.severity, name))[0] != alert.severity:
                    level, first = seen[alert.name]
                    raise ValueError(
                        f"{alert.name} is {level} in {first} and {alert.severity} in {name};"
                        " give it two names or one level"
                    )
        return self

    def longest(self) -> int:
        """The longest window, seconds."""
        return max(one.window for one in self.objectives.values())

    def retention_needed(self) -> int:
        """How long Prometheus must keep samples, seconds: the longest window and the margin."""
        return self.longest() + (self.retention.margin if self.retention else 86400)
