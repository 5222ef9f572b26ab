"""Faults for drills, put in on purpose: `python -m demo.faults NAME [--options]`, inside the load container.

    runaway-query     a person's report burns a core of the primary: a reading query in a session of prep_analyst
    stop-queries      end every session of prep_analyst
    leak-sessions     clients that hang up in the middle of a check: the engine sessions that they had are lost
    slow-again        the same again, as soon as python-compliance has been restarted
    poison-rule       a rule that python-compliance cannot understand: it runs on, and dies at its next start
    unpoison-rule     take that rule out
    provider-fails    the payment provider's double answers so many new payments with 503, and then all again
    provider-well     end that before its time
    declined-cards    customers whose banks say no, one after the other
    provider-ledger   no fault: what the double took, by order
    leak-redis        a client that opens connections to Redis, one after the other, and never gives one back
    put-sessions      people log in: their sessions stand in Redis

In: options, and the environment of the load container (demo/README.md). Out: JSON objects, one a line, that say what
was done; exit code 0 when the fault is in (or has ended), 1 when it could not be put in, 2 for wrong options. Every
fault is what really happens, done by an ordinary client with an ordinary role: nothing here tells a service to behave
badly. Every fault is bounded in time or count, ends with SIGTERM, and is taken out again by what its help says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from demo import fault_leaks, fault_provider, fault_queries, fault_redis, fault_rules
from demo.environment import SettingsError
from demo.fault_report import FaultError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m demo.faults", description="Faults for drills.")
    names = top.add_subparsers(dest="name", required=True, metavar="NAME")

    query = names.add_parser("runaway-query", help="burn a core of the primary; ends by itself after --seconds")
    query.add_argument("--seconds", type=_between(1, 600), default=600, help="ends by itself after so long (most: 600)")
    query.add_argument("--after-write", action="store_true", help="its transaction has written: it has a backend_xid")
    query.add_argument("--as-backup", action="store_true", help="application_name is pg_dump")
    query.add_argument("--ignore-cancel", action="store_true", help="run it again after a cancel, in the same session")
    query.set_defaults(run=fault_queries.runaway_query)

    stop = names.add_parser("stop-queries", help="end every session of prep_analyst")
    stop.set_defaults(run=fault_queries.stop_queries)

    leak = names.add_parser("leak-sessions", help="lose engine sessions; only a restart brings them back")
    leak.add_argument("--count", type=_between(1, 64), default=3, help="how many")
    leak.add_argument("--seconds", type=_between(5, 600), default=90, help="give up after so long")
    leak.set_defaults(run=fault_leaks.leak_sessions)

    again = names.add_parser("slow-again", help="lose them again after the next restart of python-compliance")
    again.add_argument("--count", type=_between(1, 64), default=3, help="how many sessions")
    again.add_argument("--after", type=_between(0, 600), default=10, help="seconds after the restart")
    again.add_argument("--times", type=_between(1, 10), default=1, help="after so many restarts, one after the other")
    again.add_argument(
        "--within", type=_between(1, 3600), default=600, help="give up when none comes in so many seconds"
    )
    again.set_defaults(run=fault_leaks.slow_again)

    poison = names.add_parser("poison-rule", help="add a malformed rule; unpoison-rule takes it out")
    poison.set_defaults(run=fault_rules.poison_rule)
    redis = names.add_parser("leak-redis", help="hold connections to Redis until --spare are left; SIGTERM closes them")
    redis.add_argument("--spare", type=_between(0, 1000), default=3, help="so many are left to everybody else")
    redis.add_argument("--seconds", type=_between(5, 600), default=300, help="ends by itself after so long")
    redis.set_defaults(run=fault_redis.leak_connections)
    sessions = names.add_parser("put-sessions", help="write sessions into Redis, each for an hour")
    sessions.add_argument("--count", type=_between(1, 10000), default=400, help="how many")
    sessions.set_defaults(run=fault_redis.put_sessions)
    names.add_parser("unpoison-rule", help="take the malformed rule out").set_defaults(run=fault_rules.unpoison_rule)

    fails = names.add_parser("provider-fails", help="new payments are not answered; ends by itself after --seconds")
    fails.add_argument("--percent", type=_between(1, 100), default=60, help="how many of a hundred")
    fails.add_argument("--seconds", type=_between(1, 600), default=180, help="ends by itself after so long")
    fails.set_defaults(run=fault_provider.provider_fails)

    well = names.add_parser("provider-well", help="end provider-fails before its time")
    well.set_defaults(run=fault_provider.provider_well)

    declined = names.add_parser("declined-cards", help="payments that the bank declines")
    declined.add_argument("--count", type=_between(1, 500), default=80, help="how many, four a second")
    declined.set_defaults(run=fault_provider.declined_cards)
    names.add_parser("provider-ledger", help="what the double took").set_defaults(run=fault_provider.provider_ledger)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Put one fault in; the exit code."""
    options = parser().parse_args(argv)
    try:
        asyncio.run(_until_signal(options.run, options))
    except (FaultError, SettingsError) as error:
        print(json.dumps({"event": "failed", "fault": options.name, "reason": str(error)}), flush=True)
        return 1
    except asyncio.CancelledError:
        print(json.dumps({"event": "stopped", "fault": options.name}), flush=True)
    return 0


async def _until_signal(run: Callable[[argparse.Namespace, Any], Awaitable[None]], options: argparse.Namespace) -> None:
    """Run the fault; SIGTERM cancels it, so that it closes its sessions."""
    task = asyncio.ensure_future(run(options, os.environ))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await task


def _between(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not from {low} to {high}")
        return value

    parse.__name__ = "whole number"  # argparse names the type by it
    return parse


if __name__ == "__main__":
    sys.exit(main())
