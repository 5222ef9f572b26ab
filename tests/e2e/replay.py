"""What a real Prometheus recorded in a drill, given to promtool: the shipped rules fire on it at the same minute.

In: a stack that is still up, a drill's story. Every raw series that the alert's rule reads, also by way of recording
rules, is taken with its own timestamps, and put on a grid of one second. The rules are the rendered ones.
"""

from __future__ import annotations

import math
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

from demo.drills.base import Story, first_firing
from demo.stack import Stack
from remediator.durations import seconds
from tests.support.run import program
from tests.unit.rule_contract import named, selectors

BEFORE = 420
"""Seconds before the fault that are replayed: longer than any range of the demo's rules, and no more than it has run."""
EARLY, LATE = 60, 20  # the latter at least two scrapes and a little
"""Seconds around the real firing: silent until the one before it, fired by the other after it. A scrape and a round of
rules fall otherwise in promtool."""
GAP = 3
"""Scrapes without a sample after which Prometheus holds a series for gone, and a second."""

INTERVAL = "scrape_interval"

Samples = list[tuple[float, float]]


def held(stack: Stack, story: Story, folder: Path) -> None:
    """Replay one drill. Raises AssertionError with promtool's words when it fires at another minute."""
    firing = first_firing(stack, (story.alert,), story.times["fault"])
    assert firing, f"{story.alert} never fired"
    rules = _rules(stack)
    wanted = _raw(rules, story.alert)
    until = time.time()
    begin = math.floor(story.times["fault"]) - BEFORE
    recorded = [(labels, samples) for name in sorted(wanted) for labels, samples in _samples(stack, name, begin, until)]
    assert recorded, f"{story.alert}: none of {sorted(wanted)} has a sample"
    step = int(seconds(yaml.safe_load((stack.config / "prometheus/prometheus.yml").read_text())["global"][INTERVAL]))
    case = _case(story, recorded, begin, until, firing, step)
    files = sorted({file for name, file in _files(stack).items() if name in _reached(rules, story.alert)})
    path = folder / f"{story.drill}.test.yml"
    path.write_text(yaml.safe_dump({"rule_files": files, "evaluation_interval": f"{step}s", "tests": [case]}))
    command = [program("promtool"), "test", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{story.drill}, {story.alert}: {done.stdout}{done.stderr}"


def _rules(stack: Stack) -> Mapping[str, list[str]]:
    """Expressions by the name of the alert or of the recorded series, as Prometheus has them loaded."""
    found: dict[str, list[str]] = {}
    for group in stack.get("prometheus", "/api/v1/rules")["data"]["groups"]:
        for rule in group["rules"]:
            found.setdefault(rule["name"], []).append(rule["query"])
    return found


def _files(stack: Stack) -> Mapping[str, str]:
    """Which rendered file a rule stands in, by its name."""
    return {
        rule.get("record", rule.get("alert")): str(path)
        for path in sorted((stack.config / "alert-rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    }


def _names(expression: str) -> set[str]:
    return {named(each) for each in selectors(promql.parse(expression))} - {""}


def _reached(rules: Mapping[str, list[str]], name: str) -> set[str]:
    """The rule and every rule that it reads, at any depth."""
    found: set[str] = set()
    left = [name]
    while left:
        one = left.pop()
        if one in rules and one not in found:
            found.add(one)
            left += [each for expression in rules[one] for each in _names(expression)]
    return found


def _raw(rules: Mapping[str, list[str]], name: str) -> set[str]:
    """Names of the series that are scraped and that the rule depends on."""
    reached = _reached(rules, name)
    assert reached, f"Prometheus has no rule {name}"
    return {each for rule in reached for expression in rules[rule] for each in _names(expression)} - rules.keys()


def _samples(stack: Stack, name: str, begin: int, until: float) -> Iterator[tuple[dict[str, str], Samples]]:
    """Each series of a name with its raw samples, UNIX seconds."""
    query = urllib.parse.quote(f"{name}[{math.ceil(until - begin)}s]")
    answer = stack.get("prometheus", f"/api/v1/query?query={query}&time={until:.3f}")
    for series in answer["data"]["result"]:
        yield series["metric"], [(float(at), float(value)) for at, value in series["values"]]


def _case(
    story: Story, recorded: list[tuple[dict[str, str], Samples]], begin: int, until: float, firing: float, step: int
) -> dict[str, Any]:
    """One test group: all series, and the two moments at which is asked. `step`: seconds between two scrapes."""
    after = max(LATE, 2 * step + 5)
    # Within the range and not at a moment: what fires may be healed a few seconds later.
    fired = f'count(count_over_time(ALERTS{{alertname="{story.alert}",alertstate="firing"}}[%ds])) > bool 0'
    late = {"expr": fired % (EARLY + after), "eval_time": f"{math.ceil(firing - begin) + after}s"}
    early = {"expr": fired % BEFORE, "eval_time": f"{math.floor(firing - begin) - EARLY}s"}
    asked = [{**late, "exp_samples": [{"value": 1}]}, {**early, "exp_samples": []}]
    return {
        "interval": "1s",
        "input_series": [
            {"series": _selector(labels), "values": _values(labels["__name__"], samples, begin, until, GAP * step + 1)}
            for labels, samples in recorded
        ],
        "promql_expr_test": asked,
    }


def _selector(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f"{key}={_quoted(value)}" for key, value in sorted(labels.items()) if key != "__name__")
    return f"{labels['__name__']}{{{pairs}}}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _values(name: str, samples: Samples, begin: int, until: float, gap: int) -> str:
    """One word a second; `gap` seconds without a sample are an end.

    promtool's time begins at 0, so times among the values are counted from there too.
    """
    shift = begin if name.endswith("_timestamp_seconds") else 0
    words: list[str] = []
    for at, value in samples:
        _pad(words, round(at - begin), gap)
        words.append("_" if math.isnan(value) else repr(value - shift if value > shift else value))
    if round(until - begin) - len(words) > gap:
        _pad(words, round(until - begin), gap)
    return " ".join(words)


def _pad(words: list[str], second: int, gap: int) -> None:
    """Up to a second nothing; where that is long, Prometheus has held the series for gone meanwhile."""
    missing = second - len(words)
    if words and missing > gap:
        words += ["_"] * (gap - 1) + ["stale"] + ["_"] * (missing - gap)
    else:
        words += ["_"] * missing
