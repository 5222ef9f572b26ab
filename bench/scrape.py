"""A scrape of ours beside the three exporters that a team would run instead: same servers, same run, in turn.

    python -m bench.scrape [--rows 5000000] [--rounds 10] [--scrapes 20]

In: Debian's prometheus-postgres-exporter, -redis-exporter and -node-exporter as they come. Out: a table, and
build/bench/scrape.json with every figure. Exit code 1 when a limit of bench/README.md does not hold.

One round asks each exporter `scrapes` times, in an order that changes from round to round; CPU is read before and after
such a block, so it holds what the exporter and the database servers used for it. What the servers use by themselves is
measured in idle stretches of half a second and taken off.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import cpu
from bench.platform import Platform, buffers, exporter_of_ours, pay
from tests.support.servers import Database, PostgresServer, RedisServer, Run, Service, free_port, program

OUT = Path(__file__).resolve().parent.parent / "build" / "bench" / "scrape.json"
ACCEPT = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
OURS = "prep-exporter"
POSTGRES = "postgres_exporter"


@dataclass
class Exporter:
    """One exporter under measurement. Seconds; CPU per scrape as one figure a block."""

    name: str
    pid: int
    port: int
    latency: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    servers: list[float] = field(default_factory=list)
    samples: int = 0

    def ask(self, connection: http.client.HTTPConnection) -> float:
        """One scrape over a kept connection, as Prometheus does; seconds until the whole body is there."""
        began = time.perf_counter()
        connection.request("GET", "/metrics", headers={"Accept": ACCEPT, "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"{self.name} answers {answer.status}")
        return took

    def page(self) -> list[str]:
        """The lines with samples."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/metrics", headers={"Accept": ACCEPT})
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return [line for line in lines if line and not line.startswith("#")]


@contextmanager
def peers(run: Run, postgres: PostgresServer, redis: RedisServer) -> Iterator[list[Exporter]]:
    """The three, as Debian ships them, with their defaults."""
    made = []
    with ExitStack() as stack:
        for name, binary, flag, arguments, env in (
            (
                POSTGRES,
                "prometheus-postgres-exporter",
                "--web.listen-address",
                (),
                {"DATA_SOURCE_NAME": postgres.dsn("postgres") + "?sslmode=disable"},
            ),
            (
                "redis_exporter",
                "prometheus-redis-exporter",
                "-web.listen-address",
                (f"-redis.addr=redis://127.0.0.1:{redis.port}",),
                {},
            ),
            ("node_exporter", "prometheus-node-exporter", "--web.listen-address", (), {}),
        ):
            port = free_port()
            url = f"http://127.0.0.1:{port}/metrics"
            argv = [program(binary), f"{flag}=127.0.0.1:{port}", *arguments]
            service = Service(run, argv, ready_url=url, env=env, name=name).start()
            stack.callback(service.kill)
            made.append(Exporter(name, service.pid, port))
        yield made


def measure(exporters: Sequence[Exporter], servers: Callable[[], float], rounds: int, scrapes: int, seed: int) -> float:
    """Fill in the figures; returns the CPU seconds a second that the servers use when nobody asks."""
    dice, idle = random.Random(seed), list[float]()
    for number in range(rounds + 1):
        for exporter in dice.sample(list(exporters), len(exporters)):
            _block(exporter, servers, scrapes, kept=number > 0)  # the first round only warms up
        before, began = servers(), time.perf_counter()
        time.sleep(0.5)
        idle.append((servers() - before) / (time.perf_counter() - began))
    return statistics.median(idle)


def _block(exporter: Exporter, servers: Callable[[], float], scrapes: int, *, kept: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=10)
    own, theirs = cpu.of_process(exporter.pid), servers()
    took = [exporter.ask(connection) for _ in range(scrapes)]
    time.sleep(0.05)  # backends that were only opened for this need a moment to end
    connection.close()
    if kept:
        exporter.latency += took
        exporter.own.append((cpu.of_process(exporter.pid) - own) / scrapes)
        exporter.servers.append((servers() - theirs) / scrapes)


def spaced(exporters: Sequence[Exporter], ticks: int) -> dict[str, float]:
    """Median scrape of each when it is asked about once a second: caches are cold, and ours logs in anew each time."""
    connections = [http.client.HTTPConnection("127.0.0.1", each.port, timeout=10) for each in exporters]
    took: dict[str, list[float]] = {each.name: [] for each in exporters}
    for _ in range(ticks):
        time.sleep(1.05)
        for exporter, connection in zip(exporters, connections, strict=True):
            took[exporter.name].append(exporter.ask(connection))
            time.sleep(0.03)
    for connection in connections:
        connection.close()
    return {name: statistics.median(found) for name, found in took.items()}


def growth(exporters: Sequence[Exporter], scrapes: int) -> float:
    """Median scrape of the second over that of the first, asked in turn."""
    connections = [http.client.HTTPConnection("127.0.0.1", each.port, timeout=10) for each in exporters]
    for _ in range(scrapes):
        for exporter, connection in zip(exporters, connections, strict=True):
            exporter.latency.append(exporter.ask(connection))
    for connection in connections:
        connection.close()
    small, large = (statistics.median(each.latency) for each in exporters)
    return large / small


def memory(exporter: Exporter, scrapes: int) -> tuple[int, int]:
    """Resident bytes in steady use (after twice as many scrapes), and by how much further ones make it grow."""
    connection = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=10)
    for _ in range(2 * scrapes):
        exporter.ask(connection)
    steady = cpu.resident(exporter.pid)
    for _ in range(scrapes):
        exporter.ask(connection)
    connection.close()
    return steady, cpu.resident(exporter.pid) - steady


def missed_of_fresh(exporter: Exporter, database: Database, times: int) -> int:
    """How many of so many payments, each committed a second before a scrape, were not in that scrape."""

    def counted() -> float:
        return sum(float(line.split()[-1]) for line in exporter.page() if line.startswith(_PAYMENTS))

    missed = 0
    for _ in range(times):
        before = counted()
        pay(database)
        time.sleep(1)
        missed += counted() != before + 1
    return missed


_PAYMENTS = "prep_payments_finalized_total{"


def statements(exporter: Exporter, counted: Callable[[], int], scrapers: int) -> tuple[int, int]:
    """Statements at the database servers for one scrape, and for so many that are released at once."""

    def at_once(number: int) -> int:
        """Connected beforehand, so that all requests leave in the same moment."""
        connections = [http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=10) for _ in range(number)]
        for connection in connections:
            connection.connect()
        gate, before = threading.Barrier(number), counted()

        def one(connection: http.client.HTTPConnection) -> None:
            gate.wait(10)
            exporter.ask(connection)
            connection.close()

        with ThreadPoolExecutor(number) as pool:
            list(pool.map(one, connections))
        return counted() - before

    at_once(1)
    pairs = []
    for _ in range(5):
        time.sleep(1.1)  # beyond the second for which a login answers for the next scrape as well
        single = at_once(1)
        time.sleep(1.1)
        pairs.append((single, at_once(scrapers)))
    return max(pairs, key=lambda pair: pair[1] / pair[0])


def report(exporters: Sequence[Exporter], idle: float, facts: Mapping[str, float]) -> dict[str, object]:
    """All figures: seconds, bytes, and the ratios that the limits are about."""
    ours, postgres, *_ = exporters
    figures: dict[str, dict[str, float]] = {}
    for each in exporters:
        median = statistics.median(each.latency)
        figures[each.name] = {
            "samples": each.samples,
            "median_seconds": median,
            "p95_seconds": statistics.quantiles(each.latency, n=20)[-1],
            "own_cpu_seconds": statistics.median(each.own),
            "servers_cpu_seconds": max(0.0, statistics.median(each.servers) - idle * median),
        }
    total = {name: each["own_cpu_seconds"] + each["servers_cpu_seconds"] for name, each in figures.items()}
    return {
        "exporters": figures,
        "idle_servers_cpu_per_second": idle,
        "ratios": {
            "median_to_postgres_exporter": figures[ours.name]["median_seconds"]
            / figures[postgres.name]["median_seconds"],
            "cpu_to_the_three_together": total[ours.name] / sum(total[each.name] for each in exporters[1:]),
        },
        **facts,
    }


LIMITS: Mapping[str, tuple[str, float]] = {
    "median_to_postgres_exporter": ("median scrape, to postgres_exporter's alone", 1.0),
    "cpu_to_the_three_together": ("CPU a scrape with the servers', to the three peers' together", 1.0),
    "growth_5m_to_100k_rows": ("median scrape at the large table, to that at 100,000 rows", 1.2),
    "buffers_more": ("buffers of a look at payments (EXPLAIN), more than at 100,000 rows", 2.0),
    "fresh_rows_missed": ("payments committed 1 s before a scrape and not in it", 0.0),
    "statements_16_to_1": ("statements for 16 scrapers at once, to those for one", 1.0),
    "resident_megabytes": ("resident memory, MB", 90.0),
    "growth_megabytes_per_1000": ("memory grown in 1,000 scrapes, MB", 1.0),
}


def judge(figures: Mapping[str, object], console: Console) -> bool:
    """Print every limit with what was measured; whether all hold."""
    ratios = figures["ratios"]
    assert isinstance(ratios, dict)
    table, good = Table("", "what", "measured", "at most"), True
    for name, (words, limit) in LIMITS.items():
        value = float(ratios.get(name, figures.get(name, float("nan"))))
        holds = value <= limit
        good &= holds
        table.add_row("ok" if holds else "NOT SO", words, f"{value:.2f}", f"{limit:g}")
    console.print(table)
    ratio = figures["median_to_postgres_exporter_spaced"]
    console.print(f"Without a limit: asked once a second, the median is {ratio:.2f} of postgres_exporter's.")
    return good


def show(figures: Mapping[str, object], console: Console) -> None:
    """A line an exporter; milliseconds."""
    table = Table("exporter", "samples", "median ms", "p95 ms", "own CPU ms", "servers' CPU ms")
    exporters = figures["exporters"]
    assert isinstance(exporters, dict)
    for name, each in exporters.items():
        cells = (
            each[key] * 1000 for key in ("median_seconds", "p95_seconds", "own_cpu_seconds", "servers_cpu_seconds")
        )
        table.add_row(name, f"{each['samples']:.0f}", *(f"{value:.2f}" for value in cells))
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """0 every limit holds, 1 not."""
    parser = argparse.ArgumentParser(prog="bench.scrape")
    parser.add_argument("--rows", type=int, default=5_000_000, help="payments in the large table")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--scrapes", type=int, default=20, help="of each exporter in a round")
    options = parser.parse_args(argv)
    console, run = Console(width=110), Run.open()
    try:
        with ExitStack() as stack:
            console.print(f"Filling {options.rows:,} payments …")
            platform = stack.enter_context(Platform.made(run, options.rows))
            ours = stack.enter_context(exporter_of_ours(run, platform, platform.large))
            small = stack.enter_context(exporter_of_ours(run, platform, platform.small))
            exporters = [
                Exporter(OURS, ours.pid, ours.port),
                *stack.enter_context(peers(run, platform.postgres, platform.redis)),
            ]
            for each in exporters:
                each.samples = len(each.page())
            console.print(f"{options.rounds} rounds of {options.scrapes} scrapes of each …")
            idle = measure(exporters, platform.servers_cpu, options.rounds, options.scrapes, seed=1)
            with platform.statements_logged() as counted:
                one, many = statements(exporters[0], counted, 16)
            second = spaced(exporters, 40)
            pair = [Exporter("small", small.pid, small.port), Exporter("large", ours.pid, ours.port)]
            ratio = growth(pair, 200)
            found = [buffers(database) for database in (platform.small, platform.large)]
            missed = missed_of_fresh(exporters[0], platform.large, 5)
            resident, grown = memory(exporters[0], 1000)
        facts = {
            "rows": float(options.rows),
            "growth_5m_to_100k_rows": ratio,
            "median_to_postgres_exporter_spaced": second[OURS] / second[POSTGRES],
            "buffers_small": float(found[0]),
            "buffers_large": float(found[1]),
            "buffers_more": float(found[1] - found[0]),
            "fresh_rows_missed": float(missed),
            "statements_of_one": float(one),
            "statements_16_to_1": many / one,
            "resident_megabytes": resident / 1e6,
            "growth_megabytes_per_1000": grown / 1e6,
        }
        figures = report(exporters, idle, facts)
    finally:
        run.close()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(figures, indent=2) + "\n")
    show(figures, console)
    return 0 if judge(figures, console) else 1


if __name__ == "__main__":
    sys.exit(main())
