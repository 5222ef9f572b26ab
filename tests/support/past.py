"""A Prometheus with a past that a test has written: blocks made by promtool, rules as loaded now.

In: alerts and when they fired. Out: a `PrometheusServer` that holds them. Every alert has a series behind it, `prep_fault`,
which is 1 while the rule is true and 0 otherwise, sampled as often as the rules are evaluated.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.support.prometheus import PrometheusServer
from tests.support.run import Run, program

DAY = 86400
JOB = "prep-exporter"
Stretch = tuple[float, float]


@dataclass
class Wrote:
    """One alert: its labels beside the name, and (from, to) of its firing, of being pending, of its rule being true."""

    name: str
    labels: Mapping[str, str]
    firing: Sequence[Stretch]
    pending: Sequence[Stretch] = ()
    true: Sequence[Stretch] | None = None


@dataclass
class History:
    """A past from `begin` to `end` (UNIX seconds, on the grid of `step`), each time a multiple of the step.

    away    when nothing at all was recorded
    down    when the exporter could not be scraped: its series are missing, and `up` is 0
    forgot  alerts whose rule is not loaded any more
    other   alerts whose rule is another one now: its expression by the alert's name
    seldom  alerts whose rule is evaluated each minute only
    """

    begin: int
    end: int
    step: int = 15
    wrote: list[Wrote] = field(default_factory=list)
    away: list[Stretch] = field(default_factory=list)
    down: list[Stretch] = field(default_factory=list)
    forgot: set[str] = field(default_factory=set)
    other: dict[str, str] = field(default_factory=dict)
    seldom: set[str] = field(default_factory=set)

    def alert(self, name: str, service: str, *firing: Stretch, **more: Any) -> None:
        """It fired then: seconds from `begin`. `pending`, `true` as well; other words are labels."""
        times = {key: [self._moved(each) for each in more.pop(key)] for key in ("pending", "true") if key in more}
        labels = {"service": service, "job": JOB, "severity": "P2", **more}
        labels = {key: value for key, value in labels.items() if value}
        self.wrote.append(Wrote(name, labels, [self._moved(each) for each in firing], **times))

    def _moved(self, stretch: Stretch) -> Stretch:
        return self.begin + stretch[0], self.begin + stretch[1]

    def rules(self) -> dict[str, Any]:
        """What is loaded now. The alert's own labels come from the series, its severity from the rule."""
        names = sorted({each.name for each in self.wrote} - self.forgot)
        rules = [
            {
                "alert": name,
                "expr": self.other.get(name, f'prep_fault{{kind="{name}"}} > 0'),
                "labels": {"severity": "P2"},
            }
            for name in names
        ]
        seldom = [rule for rule in rules if rule["alert"] in self.seldom]
        often = [rule for rule in rules if rule["alert"] not in self.seldom]
        groups = [{"name": "past", "interval": f"{self.step}s", "rules": often}]
        return {"groups": [*groups, {"name": "seldom", "interval": "60s", "rules": seldom}]}

    def write(self, folder: Path) -> None:
        """Blocks, a day at a time: promtool reads its whole input once for each block."""
        folder.mkdir(parents=True, exist_ok=True)
        text = folder.parent / f"{folder.name}.om"
        for day in range(self.begin, self.end, DAY):
            with text.open("w") as out:
                self._write_day(out, range(day, min(day + DAY, self.end), self.step))
            made = [program("promtool"), "tsdb", "create-blocks-from", "--max-block-duration=24h", "openmetrics"]
            subprocess.run([*made, str(text), str(folder)], check=True, capture_output=True, timeout=100)
        text.unlink()

    def _write_day(self, out: IO[str], moments: range) -> None:
        gone, unseen = self._among(self.away, moments), self._among(self.down, moments)
        there = [at for at in moments if at not in gone]
        scraped = [at for at in there if at not in unseen]
        for each in self.wrote:
            for state, stretches in (("firing", each.firing), ("pending", each.pending)):
                labels = {"alertname": each.name, "alertstate": state, **each.labels}
                _series(out, "ALERTS", labels, sorted(self._among(stretches, moments) - gone), frozenset(there))
        for each in self.wrote:
            labels = {"kind": each.name, **{key: value for key, value in each.labels.items() if key != "severity"}}
            true = self._among(each.firing if each.true is None else each.true, moments)
            _series(out, "prep_fault", labels, scraped, true)
        _series(out, "up", {"job": JOB, "instance": "a:1"}, there, frozenset(scraped))
        out.write("# EOF\n")

    def _among(self, stretches: Sequence[Stretch], moments: range) -> frozenset[int]:
        """The moments of a day that lie in any of these."""
        found: set[int] = set()
        for start, end in stretches:
            first = self.begin + -(-int(start - self.begin) // self.step) * self.step
            found.update(range(max(first, moments.start), min(math.ceil(end), moments.stop), self.step))
        return frozenset(found)


def _series(out: IO[str], name: str, labels: Mapping[str, str], moments: Sequence[int], ones: frozenset[int]) -> None:
    said = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    line = f"{name}{{{said}}}"
    out.writelines(f"{line} {'1' if at in ones else '0'} {at}\n" for at in moments)


def prometheus(run: Run, history: History, environment: str = "production") -> PrometheusServer:
    """A server, not started yet, that holds this past and would keep it for years."""
    config = {"global": {"evaluation_interval": "1h", "external_labels": {"environment": environment}}}
    server = PrometheusServer(
        run, config, {"past.rules.yml": history.rules()}, ["--storage.tsdb.retention.time=10y"], name="past"
    )
    history.write(server.folder / "data")
    return server
