"""The dashboards beside the running demo: every query answered, and moved by the drill that concerns it.

In: a stack, and the stories of the drills that were run on it. Out: nothing, or an AssertionError with every query that is
wrong. Values are read from the Prometheus that the panels would ask.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from dashboards import preview
from dashboards.queries import Query, committed, filled, panels, queries
from demo.drills.base import Drill, Story
from demo.stack import Stack, wait_for
from tests.support.browser import Chromium
from tests.support.panels import named_alerts, steps
from tests.support.run import Run

LIMIT_SECONDS = 0.100
LOOKS = 3
RATE = "10s"
"""Grafana's $__rate_interval where Prometheus scrapes each 2 s: four scrapes at least, and the step."""
SCRAPED = 5.0
"""Seconds after which what has happened is in Prometheus, and what is reckoned from it: two scrapes, and a round of the rules."""
BEFORE = 6.0
"""Seconds before a fault in which a panel's values are those that it has without."""
BASELINE = BEFORE + SCRAPED
"""Seconds for which a new platform is left alone before its drill: the panels' values before a fault are not those of the start."""
LEFT_OFF = {
    ("service-health", "Certificate: time left"): "no probe of the shipped configuration speaks TLS",
    ("service-health", "Oldest of the newest backups"): "the shipped configuration watches no backup",
    ("service-health", "Last verified restore"): "the shipped configuration watches no backup",
    ("service-health", "Vendors in trouble"): "the shipped configuration reads no vendor's page",
    ("business-metrics", "Sessions"): "the shipped configuration has no session store",
}
"""Panels that are words on a healthy demo, and why. The tables of alerts are words too where no alert fires."""
COUNTED = (("golden-signals", "Alerts that fire, by level"), ("remediation", "Open episodes"))
"""Small counts of what is there now: a drill moves them up and down within itself, whatever the one before has left."""
ALWAYS = (*COUNTED, ("remediation", "Done"), ("remediation", "Proven"))
"""What every drill that is healed must move."""
_ENGINE = (
    ("business-metrics", "Sessions of the rule engine"),
    ("business-metrics", "Checks in 5 minutes"),
)
_CPU = (("golden-signals", "Saturation: PostgreSQL's CPU"), ("service-health", "CPU of its limit"))
_STREAMS = (("golden-signals", "Replica streams"), ("service-health", "Link streams, by side"))
CONCERNED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "ComplianceChecksSlow": _ENGINE,
    "ComplianceStalled": _ENGINE,
    "ContainerDown": (("service-health", "Container runs"),),
    "ContainerUnhealthy": (("service-health", "Container is unhealthy"),),
    "DatabaseCpuSaturated": _CPU,
    "DatabaseLongRunningQuery": _CPU,
    "RedisConnectionsHigh": (("service-health", "Clients"),),
    "RedisDown": (("golden-signals", "Redis"),),
    "ReplicaNotStreaming": _STREAMS,
}
"""What a fault shows in beside the panels that have a threshold of its alert, by the alert that fired."""


BAD_EVENTS = "Bad events in an hour"
"""Of the dashboard `slo`."""


@dataclass(frozen=True)
class Value:
    """A sample of a panel: the series' labels as text, when (UNIX seconds), and how much."""

    series: str
    at: float
    value: float


def answered(stack: Stack) -> None:
    """Every query has numbers to show, in under 100 ms, on a platform that is well."""
    prometheus = preview.Prometheus(stack.url("prometheus"))
    wrong = [
        said
        for dashboard in committed().values()
        for query in queries(dashboard)
        if (said := _objection(prometheus, query))
    ]
    assert not wrong, "\n".join(wrong)


def _objection(prometheus: preview.Prometheus, query: Query) -> str:
    where = f"{query.dashboard}, {query.panel} {query.place}"
    expr = filled(query.expr, rate_interval=RATE)
    seconds: list[float] = []
    for _ in range(LOOKS):
        begun = time.perf_counter()
        result = prometheus.get("query", query=expr)["result"]
        seconds.append(time.perf_counter() - begun)
        if seconds[-1] <= LIMIT_SECONDS:
            break
    if min(seconds) > LIMIT_SECONDS:
        return f"{where}: {min(seconds):.3f} s"
    if (query.dashboard, query.panel) in LEFT_OFF:
        return f"{where}: has data, though {LEFT_OFF[query.dashboard, query.panel]}" if result else ""
    if not result and "ALERTS{" not in expr:
        return f"{where}: no data: {expr}"
    strange = [each["metric"] for each in result if preview.number(each["value"][1]) is None]
    return f"{where}: no number for {strange}" if strange else ""


def moved(stack: Stack, drill: Drill, story: Story) -> None:
    """The panels with a threshold of the alert that fired crossed it, and had not before; what else the fault concerns went
    beyond where it had been, or stayed where it had been for a moment."""
    prometheus = preview.Prometheus(stack.url("prometheus"))
    fault, end = story.times["fault"], (story.times.get("closed") or time.time()) + SCRAPED
    time.sleep(max(0.0, end - time.time()))
    wrong, looked = [], 0
    for uid, panel in _all_panels():
        place = (uid, panel["title"])
        limits = steps(panel) if story.alert in named_alerts(panel) else []
        more = (*CONCERNED.get(story.alert, ()), *(ALWAYS if story.ended == "fixed" else ()))
        if not limits and place not in more:
            continue
        looked += 1
        before = list(_values(prometheus, panel, fault - BEFORE, fault - 1))
        during = list(_values(prometheus, panel, fault, end))
        went = (
            crossed(before, during, limits)
            if limits
            else beyond(before, during) or stayed(before, during) or pinned(before, during)
        )
        if not went and not (place in COUNTED and changed(during)):
            wrong.append(
                f"{drill.name} ({story.alert}): {place} stood still: {_told(before)} before, {_told(during)} during"
            )
    assert looked, f"no panel has anything to do with {story.alert}"
    assert not wrong, "\n".join(wrong)


def burned(stack: Stack, since: float) -> None:
    """The slow checks of a drill begun at `since` are bad events of their objective, a minute later at most: its rules run once
    a minute."""
    prometheus = preview.Prometheus(stack.url("prometheus"))
    panel = next(panel for panel in panels(committed()["slo"]) if panel["title"] == BAD_EVENTS)
    before = list(_values(prometheus, panel, since - BEFORE, since - 1))
    wait_for(
        f"{BAD_EVENTS} to rise", lambda: beyond(before, list(_values(prometheus, panel, since, time.time()))), 75, 2.0
    )


def _all_panels() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for uid, dashboard in committed().items():
        for panel in panels(dashboard):
            yield uid, panel


def _values(prometheus: preview.Prometheus, panel: Mapping[str, Any], begin: float, end: float) -> Iterator[Value]:
    for place, target in enumerate(panel["targets"]):
        expr = filled(target["expr"], rate_interval=RATE)
        answer = prometheus.get("query_range", query=expr, start=str(begin), end=str(end), step="1")
        for each in answer["result"]:
            name = f"{place} {sorted(each['metric'].items())}"
            yield from (
                Value(name, float(at), value)
                for at, text in each["values"]
                if (value := preview.number(text)) is not None
            )


def crossed(before: list[Value], during: list[Value], limits: list[float]) -> bool:
    """Whether some series was on both sides of a threshold, or on the one where it had not been."""
    for limit in limits:
        sides = {each.value > limit for each in during}
        if sides and sides | {each.value > limit for each in before} == {True, False}:
            return True
    return False


def beyond(before: list[Value], during: list[Value]) -> bool:
    """Whether some series left the range in which it had been, by a tenth of it at least; a new one counts when it is not 0."""
    for name in {each.series for each in during}:
        was = [each.value for each in before if each.series == name] or [0.0]
        now = [each.value for each in during if each.series == name]
        slack = 0.1 * (max(was) - min(was)) + 1e-9
        if max(now) > max(was) + slack or min(now) < min(was) - slack:
            return True
    return False


def stayed(before: list[Value], during: list[Value]) -> bool:
    """Whether some series, on the mean of `BEFORE` seconds, was off its mean before by half of the range that it had then.

    For what goes up and down within its whole range by itself: sessions are all busy for a moment on a platform that is well,
    and all busy for long on one that is not.
    """
    for name in {each.series for each in before}:
        was = [each.value for each in before if each.series == name]
        now = [(each.at, each.value) for each in during if each.series == name]
        slack = 0.5 * (max(was) - min(was))
        for begin, _ in now:
            window = [value for at, value in now if begin <= at < begin + BEFORE]
            if len(window) >= len(was) and abs(mean(window) - mean(was)) > slack:
                return True
    return False


def pinned(before: list[Value], during: list[Value]) -> bool:
    """Whether some series stood at its highest or lowest for twice `BEFORE` without a break, and had not stood there before.

    For what is at its bound half of the time by itself, so that no mean can leave it.
    """
    for name in {each.series for each in before}:
        was = {each.value for each in before if each.series == name}
        now = [(each.at, each.value) for each in during if each.series == name]
        bounds = {min(was | {value for _, value in now}), max(was | {value for _, value in now})}
        for begin, bound in now:
            window = [value for at, value in now if begin <= at <= begin + 2 * BEFORE]
            whole = now[-1][0] >= begin + 2 * BEFORE
            if whole and bound in bounds and set(window) == {bound} and was != {bound}:
                return True
    return False


def changed(during: list[Value]) -> bool:
    """Whether some series had two values, or came or went."""
    moments = {each.at for each in during}
    for name in {each.series for each in during}:
        own = [each for each in during if each.series == name]
        if len({each.value for each in own}) > 1 or len(own) < len(moments):
            return True
    return False


def _told(values: list[Value]) -> str:
    numbers = [each.value for each in values]
    return f"{min(numbers):g} to {max(numbers):g}" if numbers else "nothing"


def pictured(stack: Stack, run: Run, folder: Path) -> None:
    """The preview of all dashboards and its screenshot, kept in `folder` for whoever wants to see them."""
    page = folder / "preview.html"
    assert preview.main(["--url", stack.url("prometheus"), "--since", "15m", "--out", str(page)]) == 0
    with Chromium(run) as chromium, chromium.person() as person:
        person.page.goto(page.as_uri())
        person.page.wait_for_selector("html[data-drawn]")
        person.shot(folder / "preview.png", whole=True)
        person.page.set_viewport_size({"width": 1280, "height": 1900})
        person.page.locator("#golden-signals").scroll_into_view_if_needed()
        person.shot(folder / "golden-signals.png")
        assert person.page.locator(".chart canvas").count() > 60
        assert person.faults == []
