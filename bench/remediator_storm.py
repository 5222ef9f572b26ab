"""A storm: so many deliveries at once, every one durable, and what the remediator starts because of it.

    python -m bench.remediator_storm [--posts 1000] [--alerts 10] [--targets 200] [--at-once 64]

Out: a table, and build/bench/remediator_storm.json with every figure. Exit code 1 when a limit of bench/README.md does
not hold. Debian's `webhook` gets the very same load in the same run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bench import cpu
from bench.limits import Limit, judge, keep
from bench.webhook_peer import webhook
from tests.support.crowded_world import CrowdedWorld
from tests.support.load import Loaded, fire
from tests.support.processes import peak_memory
from tests.support.remediation import TOKEN
from tests.support.servers import Run, wait_until

STORM, STARTS = 10, 10  # the defaults of guards.storm_episodes and guards.all_per_hour
LIMITS = (
    Limit("not_acknowledged", "deliveries that were not acknowledged", at_most=0),
    Limit("posts_per_second", "deliveries a second, load generator on the same cores", at_least=1000),
    Limit("p99_milliseconds", "99th percentile of an answer, ms", at_most=150),
    Limit("peak_megabytes", "largest resident memory, MB", at_most=150),
    Limit("starts", "effects begun, counted at the target", at_most=STARTS),
    Limit("unaccounted", "targets neither acted on nor refused", at_most=0),
)


def ours(run: Run, options: argparse.Namespace) -> dict[str, float]:
    """The remediator, default guards and a settle time of 1 s."""
    with CrowdedWorld(run, options.targets) as world:
        remediator = world.remediator(settle="1s", storm_episodes=STORM, all_per_hour=STARTS)
        with remediator:
            before = cpu.of_process(remediator.process.pid)
            began = time.monotonic()
            loaded = fire(
                f"{remediator.url}/alertmanager",
                world.bodies(options.posts, options.alerts),
                options.at_once,
                {"Authorization": f"Bearer {TOKEN}"},
            )
            answered = cpu.of_process(remediator.process.pid)
            wait_until(lambda: world.decided(remediator) >= options.targets, "everything to be decided", 120, 0.2)
            decided = time.monotonic() - began
            figures = _load(loaded, options.posts) | {
                "cpu_milliseconds_a_post": (answered - before) / options.posts * 1000,
                "decided_after_seconds": decided,
                "cpu_seconds_until_decided": cpu.of_process(remediator.process.pid) - before,
                "peak_megabytes": peak_memory(remediator.process.pid) / 1e6,
                "starts": float(len(world.restarts())),
                "unaccounted": float(options.targets - len(world.accounted(remediator))),
            }
    return figures


def theirs(run: Run, options: argparse.Namespace) -> dict[str, float]:
    """`webhook` under the same load."""
    with CrowdedWorld(run, options.targets) as world, webhook(run) as peer:
        loaded = fire(peer.url, world.bodies(options.posts, options.alerts), options.at_once, {})
        figures = _load(loaded, options.posts)
        time.sleep(2)  # its commands run on after the answer
        figures["starts"] = float(len(peer.done()))
        figures["peak_megabytes"] = peak_memory(peer.pid) / 1e6
    return figures


def _load(loaded: Loaded, posts: int) -> dict[str, float]:
    return {
        "not_acknowledged": float(posts - loaded.statuses.get(200, 0)),
        "posts_per_second": loaded.per_second,
        "median_milliseconds": loaded.percentile(50) * 1000,
        "p99_milliseconds": loaded.percentile(99) * 1000,
        "slowest_milliseconds": max(loaded.latencies) * 1000,
    }


def show(found: Mapping[str, Mapping[str, float]], console: Console) -> None:
    """A line a figure, a column a program, and the ratio."""
    table = Table("figure", *found, "ratio")
    mine, peer = found.values()
    for name, value in mine.items():
        other = peer.get(name)
        ratio = f"{value / other:.2f}" if other else ""
        table.add_row(name, f"{value:,.1f}", "" if other is None else f"{other:,.1f}", ratio)
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """0 every limit holds, 1 not."""
    parser = argparse.ArgumentParser(prog="bench.remediator_storm")
    for name, default in (("posts", 1000), ("alerts", 10), ("targets", 200), ("at-once", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(argv)
    console, run = Console(width=110), Run.open()
    try:
        found = {"prep-remediator": ours(run, options), "webhook": theirs(run, options)}
    finally:
        run.close()
    keep("remediator_storm", found["prep-remediator"] | {f"webhook_{n}": v for n, v in found["webhook"].items()})
    show(found, console)
    return 0 if judge(found["prep-remediator"], LIMITS, console) else 1


if __name__ == "__main__":
    sys.exit(main())
