"""alert-rules/severity.yml as frozen values: levels, hours, receivers, escalation.

In: the file. Out: one `Severity`, or `TableError` with every fault. It must never let a table pass that makes P0 or P1
wait, or that names a receiver or an interval which is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31_536_000.0}
_DURATION = r"(?:(?:\d+(?:ms|[smhdwy]))+|0)"
_PART = re.compile(r"(\d+)(ms|[smhdwy])")

Duration = Annotated[str, Field(pattern=rf"^{_DURATION}$")]
"""As Alertmanager writes it (`1m30s`), kept as text."""
NEVER_WAIT = ("P0", "P1")
"""Levels that no `hold` may delay."""


class TableError(Exception):
    """The table cannot be used; `faults` lists every mistake as `path: what`."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(faults))


def seconds(duration: str) -> float:
    """`1m30s` -> 90.0. Raises ValueError for what Alertmanager would not read."""
    if not re.fullmatch(_DURATION, duration):
        raise ValueError(f"not a duration of Alertmanager: {duration!r}")
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(duration))


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timing(_Frozen):
    """One route's receiver and rhythm (Alertmanager's configuration page, `<route>`)."""

    receiver: str
    group_wait: Duration
    group_interval: Duration
    repeat_interval: Duration


class Told(Timing):
    """People: also by which of the receivers below they are told; None = not that way."""

    pagerduty: str | None = None
    slack: str | None = None
    status_page: Literal["always", "customers", "never"] = "never"


class Level(Told):
    """One row of the handbook's table. `hold`: so long a rule with a runbook may let people wait."""

    name: str
    respond: str
    example: str
    told: str
    hours: str | None = None
    hold: Duration | None = None


class Watchdog(Timing):
    """The alarm that always sounds."""

    severity: str
    respond: str


class Hours(_Frozen):
    """A window of every week, in local time of `location`."""

    weekdays: str
    times: tuple[str, str]
    location: str


class Hook(_Frozen):
    """A webhook; `token_file` holds its bearer token, None = no token."""

    url: str
    token_file: str | None = None


class PagerDuty(_Frozen):
    """A service of PagerDuty: the file with its Events API v2 key, and its severity."""

    key_file: str
    severity: Literal["critical", "error", "warning", "info"]


class Slack(_Frozen):
    """A channel: the file with its incoming webhook."""

    url_file: str
    channel: str
    send_resolved: bool


class Receivers(_Frozen):
    """How each is reached."""

    remediator: Hook
    watchdog: Hook
    inbox: str
    pagerduty: Mapping[str, PagerDuty]
    slack: Mapping[str, Slack]


class Fragment(_Frozen):
    """What tells our alerts from others' in a shared Alertmanager."""

    matchers: tuple[str, ...] = Field(min_length=1)


class Handoff(_Frozen):
    """When the on-call week changes."""

    weekday: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    time: str
    location: str


class Escalation(_Frozen):
    """PagerDuty's policy for what nobody acknowledges."""

    acknowledge: Duration
    loops: int = Field(ge=0, le=9)
    handoff: Handoff
    rungs: tuple[str, ...] = Field(min_length=1)
    outage_begins_with: tuple[str, ...] = Field(min_length=1)
    executives: tuple[str, ...]


class Severity(_Frozen):
    """The whole table."""

    levels: Mapping[str, Level] = Field(min_length=1)
    watchdog: Watchdog
    remediator: Timing
    catch_all: Told
    hours: Mapping[str, Hours]
    receivers: Receivers
    fragment: Fragment
    escalation: Escalation

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if faults := list(self._loose_ends()):
            raise ValueError("; ".join(faults))
        return self

    def _loose_ends(self) -> Iterator[str]:
        for name, told in [*self.levels.items(), ("catch_all", self.catch_all)]:
            if told.pagerduty is not None and told.pagerduty not in self.receivers.pagerduty:
                yield f"{name}: pagerduty {told.pagerduty!r} is not in receivers.pagerduty"
            if told.slack is not None and told.slack not in self.receivers.slack:
                yield f"{name}: slack {told.slack!r} is not in receivers.slack"
            if told.pagerduty is None and told.slack is None:
                yield f"{name}: nobody is told"
        for name, level in self.levels.items():
            if level.hours is not None and level.hours not in self.hours:
                yield f"{name}: hours {level.hours!r} is not in hours"
            if level.hold is not None and name in NEVER_WAIT:
                yield f"{name}: may not wait, remove hold"
        names = [row.receiver for row in (*self.levels.values(), self.watchdog, self.remediator, self.catch_all)]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"receiver {name!r} is there twice"

    def respond(self, severity: str) -> str | None:
        """The `response_time` of an alert by its label's value; None for one that the table does not have."""
        if severity == self.watchdog.severity:
            return self.watchdog.respond
        level = self.levels.get(severity)
        return level.respond if level else None


def parse(text: str, where: str) -> Severity:
    """YAML text to the table. Raises TableError with every fault, each behind `where`."""
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TableError([f"{where}: is not YAML: {' '.join(str(error).split())}"]) from error
    try:
        return Severity.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise TableError(
            [
                ": ".join(part for part in (where, ".".join(str(step) for step in one["loc"]), what) if part)
                for one in found
                for what in one["msg"].removeprefix("Value error, ").split("; ")
            ]
        ) from error


def load(path: Path) -> Severity:
    """Read the file. Raises TableError, also when it cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise TableError([f"{path}: cannot be read: {error.strerror}"]) from error
