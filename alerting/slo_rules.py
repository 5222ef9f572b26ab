"""From objectives to Prometheus rules: counts of events, shares of bad ones, burn alerts, what is left.

In: checked objectives. Out: rule groups as plain data. Three things it must never do: average ratios (every window is
bad events by all events), divide by nothing (an idle stretch has no share, and leaves every longer window alone), wake
somebody for a handful of events.

Layers, all evaluated every INTERVAL:

    slo:events:increase5m, slo:bad_events:increase5m     of the counters; one series an objective
    ...:increase30m, ...:increase1h                      of the counters too: no lag in what wakes people
    ...:increase2h ... 6h                                the 5m recordings added up: each event is in
                                                         BASE / INTERVAL of them, hence the division
    ...:tile15m                                          the same over 15m, but only every 15 minutes: side by side
    ...:increase1d ... 30d                               the tiles added up; over 30 days a fifteenth of the samples
    slo:bad_events_per_events:ratio5m ... 30d            bad by all; no sample where there was no event
    slo:error_budget_left:ratio, :events                 of the objective's own window; always a number
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alerting.slo_model import (
    BASE,
    INTERVAL,
    RAW_UP_TO,
    WINDOW,
    Alert,
    Objective,
    Pair,
    Retention,
    SloFile,
    Source,
    number,
    promql,
)

Rule = dict[str, Any]
TILE = 900
"""Seconds: how long a tile is, and how late a window that is made of them may be."""
TILED_FROM = 6 * 3600
"""Seconds: windows longer than this are made of tiles; they move slowly, and page nobody."""
SAMPLES_AN_EVENT = BASE // INTERVAL
"""In how many samples of the 5m recordings one event is counted."""


def groups(file: SloFile, response_times: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rule groups of a file. `response_times` by level become annotations; a level that is not there has none.

    One group: its rules are evaluated in their order and at one moment. Groups of their own would be evaluated at
    different moments, and each layer would add up to an interval of delay.
    """
    rules = [*_counts(file), *_windows(file), *_Writer(file, response_times).all()]
    return [{"name": file.group, "interval": promql(INTERVAL), "rules": rules}]


def windows(one: Objective) -> list[int]:
    """Every window that an objective needs, seconds, shortest first."""
    return sorted({BASE, RAW_UP_TO, one.window, *(each for pair in one.pairs() for each in (pair.short, pair.long))})


def _counts(file: SloFile) -> Iterator[Rule]:
    """Events out of the counters themselves."""
    for name, one in file.objectives.items():
        labels = {"slo": name, "service": one.service}
        for window in (window for window in windows(one) if window <= RAW_UP_TO):
            text = promql(window)
            yield {"record": f"slo:events:increase{text}", "labels": labels, "expr": _total(one.sources, text)}
            yield {"record": f"slo:bad_events:increase{text}", "labels": labels, "expr": _bad(name, one.sources, text)}


def _total(sources: tuple[Source, ...], window: str) -> str:
    return "\nor\n".join(_sum(source.total, window) for source in sources)


def _bad(name: str, sources: tuple[Source, ...], window: str) -> str:
    """Of the same source as the total: bad exists where its total does, and is 0 where no bad series is there yet.

    Of the last source the total is what was just recorded: no other is left. clamp_min, because two series that are
    subtracted may be extrapolated differently, by a fraction of an event.
    """
    parts = []
    for index, source in enumerate(sources):
        last = index == len(sources) - 1
        counted = f'slo:events:increase{window}{{slo="{name}"}}' if last else _sum(source.total, window)
        parts.append(f"(\n{_indent(f'({_sum(source.bad, window)} or vector(0))')}\n  and on ()\n{_indent(counted)}\n)")
    return f"clamp_min(\n{_indent(f'{chr(10)}or{chr(10)}'.join(parts))},\n  0\n)"


def _sum(expression: str, window: str) -> str:
    """One series without labels: what the sources call them does not matter, and their history is one."""
    return f"sum(\n{_indent(expression.replace(WINDOW, window))}\n)"


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _windows(file: SloFile) -> Iterator[Rule]:
    """For all objectives that use a window at once: long counts, shares, and what is left of the budget."""
    used: dict[int, list[str]] = {}
    for name, one in file.objectives.items():
        for window in windows(one):
            used.setdefault(window, []).append(name)
    yield from _tiles(used)
    for window, names in sorted(used.items()):
        text, chosen = promql(window), f'{{slo=~"{"|".join(names)}"}}'
        if window > RAW_UP_TO:
            for what in ("events", "bad_events"):
                yield {"record": f"slo:{what}:increase{text}", "expr": _added_up(what, chosen, window)}
        yield {
            "record": f"slo:bad_events_per_events:ratio{text}",
            "expr": f"slo:bad_events:increase{text}{chosen}\n/\n(slo:events:increase{text}{chosen} > 0)",
        }
    for name, one in file.objectives.items():
        yield from _budget(name, one)


def _added_up(what: str, chosen: str, window: int) -> str:
    """Of recordings: raw ranges would read every series of every counter for weeks."""
    if window > TILED_FROM:
        return f"sum_over_time(slo:{what}:tile{promql(TILE)}{chosen}[{promql(window)}])"
    return f"sum_over_time(slo:{what}:increase{promql(BASE)}{chosen}[{promql(window)}]) / {SAMPLES_AN_EVENT}"


def _tiles(used: Mapping[int, list[str]]) -> Iterator[Rule]:
    """Sums that lie side by side, written only when a tile is full; what reads them reads ranges.

    The range is half an interval short of a tile, so that it holds TILE / INTERVAL samples whether a Prometheus counts
    the one at its very beginning (2.x) or not (3.x).
    """
    names = [name for window, names in sorted(used.items()) if window > TILED_FROM for name in names]
    chosen = f'{{slo=~"{"|".join(dict.fromkeys(names))}"}}'
    span = f"{TILE - INTERVAL // 2}s"
    for what in ("events", "bad_events") if names else ():
        yield {
            "record": f"slo:{what}:tile{promql(TILE)}",
            "expr": (
                f"sum_over_time(slo:{what}:increase{promql(BASE)}{chosen}[{span}]) / {SAMPLES_AN_EVENT}\n"
                f"and on () minute() % {TILE // 60} == 0"
            ),
        }


def _budget(name: str, one: Objective) -> Iterator[Rule]:
    text, chosen, budget = promql(one.window), f'{{slo="{name}"}}', number(one.budget)
    labels = {"slo": name, "service": one.service}
    yield {"record": "slo:objective:ratio", "labels": labels, "expr": f"vector({number(one.objective)})"}
    yield {
        "record": "slo:error_budget_left:ratio",
        "labels": labels,
        # Without a single event nothing is used up.
        "expr": (
            f"1 - slo:bad_events_per_events:ratio{text}{chosen} / {budget}\n"
            f"or\n1 + 0 * slo:events:increase{text}{chosen}"
        ),
    }
    yield {
        "record": "slo:error_budget_left:events",
        "labels": labels,
        "expr": f"{budget} * slo:events:increase{text}{chosen} - slo:bad_events:increase{text}{chosen}",
    }


class _Writer:
    """Alerts of one file."""

    def __init__(self, file: SloFile, response_times: Mapping[str, str]) -> None:
        self._file = file
        self._times = response_times

    def all(self) -> Iterator[Rule]:
        """What wakes people first, then what they read in the morning, then what says that nothing can be known."""
        objectives = self._file.objectives.items()
        for name, one in objectives:
            if one.alerts.fast:
                yield self._burn(name, one, one.alerts.fast, one.alerts.fast.pairs, "fast")
        for name, one in objectives:
            if one.alerts.blind:
                yield self._blind(name, one)
        for name, one in objectives:
            if one.alerts.slow:
                yield self._burn(name, one, one.alerts.slow, one.alerts.slow.pairs, "slowly but surely")
        for name, one in objectives:
            if one.alerts.low:
                yield self._low(name, one)
        if self._file.retention:
            yield self._retention(self._file.retention)

    def _burn(self, name: str, one: Objective, alert: Alert, pairs: tuple[Pair, ...], how: str) -> Rule:
        budget, long = number(one.budget * 100), promql(pairs[0].long)
        count = f"slo:bad_events:increase{long}{{slo='{name}'}}"
        return self._rule(
            alert,
            expr="\nor\n".join(_pair(name, one, pair) for pair in pairs),
            labels=_labels(one, alert, one.component, f"{name}-burn"),
            summary=f"The error budget of {one.title} is burning {how}.",
            description=(
                f"The budget of {one.title}, {budget} % of them in {promql(one.window)}, burns"
                " {{ $value | humanize }} times as fast as it can last"
                f'{{{{ with query "{count}" }}}}; bad ones in the last {long}: '
                "{{ . | first | value | humanize }}{{ end }}. "
                f"{alert.first}"
            ),
            slo=name,
        )

    def _low(self, name: str, one: Objective) -> Rule:
        low = one.alerts.low
        assert low is not None  # noqa: S101 - asked by the caller
        text, left = promql(one.window), f"slo:error_budget_left:events{{slo='{name}'}}"
        return self._rule(
            low,
            expr=(
                f'slo:error_budget_left:ratio{{slo="{name}"}} < {number(low.below)}\n'
                f'and slo:bad_events:increase{text}{{slo="{name}"}} >= {one.minimum_bad_events}'
            ),
            labels=_labels(one, low, "slo", f"{name}-budget-low"),
            summary=f"The error budget of {one.title} is nearly used up.",
            description=(
                f"Left of the error budget of {one.title} in {text}: {{{{ $value | humanizePercentage }}}}"
                f'{{{{ with query "{left}" }}}}; bad ones that it still bears: '
                "{{ . | first | value | humanize }}{{ end }}. "
                f"{low.first}"
            ),
            slo=name,
        )

    def _blind(self, name: str, one: Objective) -> Rule:
        blind = one.alerts.blind
        assert blind is not None  # noqa: S101 - asked by the caller
        rule = self._rule(
            blind,
            expr=f'absent(slo:events:increase{promql(BASE)}{{slo="{name}"}}) - 1',
            labels=_labels(one, blind, "slo", f"{name}-blind"),
            summary=f"Nothing counts {one.title}, so their objective cannot be judged.",
            description=f"Sources that count {one.title}: {{{{ $value | humanize }}}}. {blind.first}",
            slo=name,
        )
        return {**dict(list(rule.items())[:2]), "for": promql(blind.lasting), **dict(list(rule.items())[2:])}

    def _retention(self, one: Retention) -> Rule:
        needed, job = self._file.retention_needed(), f'{{job="{one.job}"}}'
        rule = self._rule(
            one.alert,
            expr=(
                f"(prometheus_tsdb_retention_limit_seconds{job} > 0) < {needed}\n"
                "or\n"
                "(\n"
                f"  time() - prometheus_tsdb_lowest_timestamp_seconds{job} < {needed}\n"
                "  and on (job, instance)\n"
                f"  prometheus_tsdb_time_retentions_total{job} + prometheus_tsdb_size_retentions_total{job} > 0\n"
                ")\n"
                "or\n"
                f"0 * absent(prometheus_tsdb_lowest_timestamp_seconds{job})"
            ),
            labels={"component": "slo", "symptom": "retention-short", "service": "prometheus"},
            summary="Prometheus forgets samples that the error budgets still need.",
            description=(
                "How far back the samples of Prometheus reach: {{ $value | humanizeDuration }} (0s: it does not scrape"
                f" itself, so nobody can tell); the objectives need {promql(needed)}. {one.alert.first}"
            ),
            slo="",
        )
        return {**dict(list(rule.items())[:2]), "for": "15m", **dict(list(rule.items())[2:])}

    def _rule(
        self, alert: Alert, *, expr: str, labels: dict[str, str], summary: str, description: str, slo: str
    ) -> Rule:
        notes = {"summary": summary, "description": description}
        if alert.severity in self._times:
            notes["response_time"] = self._times[alert.severity]
        if links := self._file.links:
            words = {"alert": alert.name, "service": labels["service"], "slo": slo}
            notes["runbook_url"] = _filled(links.runbook, words)
            if links.dashboard:
                notes["dashboard_url"] = _filled(links.dashboard, words)
        told = {"runbook": alert.runbook} if alert.runbook else {}
        return {
            "alert": alert.name,
            "expr": expr,
            "labels": {"severity": alert.severity, **labels, **told},
            "annotations": notes,
        }


def _labels(one: Objective, alert: Alert, component: str, symptom: str) -> dict[str, str]:
    """Who shares another alert's symptom is about that alert's component, the objective's own."""
    if alert.symptom is not None:
        component, symptom = one.component, alert.symptom
    return {"component": component, "symptom": symptom, "service": one.service, **one.labels}


def _pair(name: str, one: Objective, pair: Pair) -> str:
    chosen, budget, factor = f'{{slo="{name}"}}', number(one.budget), number(pair.factor(one.window))
    long, short = promql(pair.long), promql(pair.short)
    return (
        "(\n"
        f"  slo:bad_events_per_events:ratio{long}{chosen} / {budget} > {factor}\n"
        f"  and slo:bad_events_per_events:ratio{short}{chosen} / {budget} > {factor}\n"
        f"  and slo:bad_events:increase{long}{chosen} >= {one.minimum_bad_events}\n"
        ")"
    )


def _filled(template: str, words: Mapping[str, str]) -> str:
    for key, value in words.items():
        template = template.replace(f"{{{key}}}", value)
    return template
