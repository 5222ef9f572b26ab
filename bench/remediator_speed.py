"""From POST to effect: one alert after another, each on a target of its own, and where the time goes.

    python -m bench.remediator_speed [--targets 200]

Settle time 0; everything else is on: durable intake, every guardrail, direct probe, evidence, the second look, the
intent under its lock, the gate. The effect is the moment at which the restart arrives at the target's engine. Out: a
table, and build/bench/remediator_speed.json. Exit code 1 when a limit of bench/README.md does not hold.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import cpu
from bench.limits import Limit, judge, keep
from bench.webhook_peer import webhook
from tests.support.crowded_world import APART, CrowdedWorld, one_by_one, post
from tests.support.remediation import Remediator
from tests.support.servers import Run, wait_until

LIMITS = (
    Limit("median_milliseconds", "from POST to effect, median, ms", at_most=50),
    Limit("p99_milliseconds", "from POST to effect, 99th percentile, ms", at_most=200),
)
STAGES = ("acknowledged", "opened", "diagnosed", "intent", "effect")
"""Each is timed from the POST; `opened` is when its episode was taken up, `intent` when its writing began."""


def ours(run: Run, targets: int) -> tuple[dict[str, list[float]], float]:
    """Seconds from the POST to each stage, a list a stage; and CPU seconds an effect."""
    with CrowdedWorld(run, targets) as world:
        remediator = world.remediator(settle="0s", storm_episodes=10 * targets, all_per_hour=10 * targets)
        with remediator:
            before = cpu.of_process(remediator.process.pid)
            times = dict(one_by_one(world, remediator))
            used = cpu.of_process(remediator.process.pid) - before
            effects = {restart.service: restart.at for restart in world.restarts()}
            stages: dict[str, list[float]] = {name: [] for name in STAGES}
            for service, events in episodes(remediator, targets):
                sent, answered = times[service]
                at = {"acknowledged": answered, "effect": effects[service]} | {e["kind"]: e["at"] for e in events[::-1]}
                for stage in STAGES:
                    stages[stage].append(at[stage] - sent)
    return stages, used / targets


def episodes(remediator: Remediator, targets: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Service and events of each episode."""
    for row in remediator.ask(f"episodes?limit={2 * targets}")["episodes"]:
        events = remediator.events(row["id"])
        yield events[0]["data"]["alert"]["labels"]["service"], events


def theirs(run: Run, targets: int) -> list[float]:
    """Seconds from the POST to the effect of `webhook`."""
    took = []
    with CrowdedWorld(run, targets) as world, webhook(run) as peer:
        for number, name in enumerate(world.names):
            sent, _ = post(peer.url, world.body([name]), {})
            wait_until(lambda done=number: len(peer.done()) > done, f"the effect on {name}", 10, 0.005)  # type: ignore[misc]
            took.append(peer.done()[-1][0] - sent)
            time.sleep(random.uniform(*APART))
    return took


def figures(stages: Mapping[str, Sequence[float]], cpu_seconds: float, peer: Sequence[float]) -> dict[str, float]:
    """Milliseconds, and how many times the peer's."""
    found = {f"{name}_milliseconds": statistics.median(took) * 1000 for name, took in stages.items()}
    effects, peers = stages["effect"], statistics.median(peer)
    return found | {
        "median_milliseconds": statistics.median(effects) * 1000,
        "p99_milliseconds": statistics.quantiles(effects, n=100)[98] * 1000,
        "slowest_milliseconds": max(effects) * 1000,
        "cpu_milliseconds_an_effect": cpu_seconds * 1000,
        "webhook_median_milliseconds": peers * 1000,
        "median_to_webhook": statistics.median(effects) / peers,
    }


def show(found: Mapping[str, float], console: Console) -> None:
    """Where the time goes: each stage's median, and what it adds."""
    table, before = Table("stage", "ms from the POST", "ms of its own"), 0.0
    for stage in STAGES:
        value = found[f"{stage}_milliseconds"]
        table.add_row(stage, f"{value:.1f}", f"{value - before:.1f}")
        before = value
    console.print(table)
    console.print(
        f"{found['cpu_milliseconds_an_effect']:.1f} ms of CPU an effect, its proof included; the slowest took"
        f" {found['slowest_milliseconds']:.1f} ms; webhook's median is {found['webhook_median_milliseconds']:.1f} ms,"
        f" ours is {found['median_to_webhook']:.1f} times that."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """0 every limit holds, 1 not."""
    parser = argparse.ArgumentParser(prog="bench.remediator_speed")
    parser.add_argument("--targets", type=int, default=200, help="effects, each on a target of its own")
    options = parser.parse_args(argv)
    console, run = Console(width=110), Run.open()
    try:
        found = figures(*ours(run, options.targets), theirs(run, options.targets))
    finally:
        run.close()
    keep("remediator_speed", found)
    show(found, console)
    return 0 if judge(found, LIMITS, console) else 1


if __name__ == "__main__":
    sys.exit(main())
