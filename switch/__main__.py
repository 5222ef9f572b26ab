"""`prep-switch`: wait for the Watchdog, check the configuration, or send a test page.

Exit codes: 0 ended cleanly, or all were reached; 1 it cannot run here, or a test page did not arrive; 2 the
configuration is wrong (every mistake is printed with its line).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from exporter import logs
from exporter.errors import ConfigError
from exporter.redaction import clean
from switch.messages import trial
from switch.paging import Pager
from switch.server import serve
from switch.settings import Settings, load
from switch.statefile import StateError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prep-switch", description=__doc__)
    parser.add_argument("command", nargs="?", default="serve", choices=("serve", "page:test"))
    parser.add_argument("--config.file", dest="config", type=Path, default=Path("/etc/prep/switch.yml"))
    parser.add_argument(
        "--config.check", dest="check", action="store_true", help="check the configuration and its secrets, then exit"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    options = _parser().parse_args(argv)
    try:
        settings = load(options.config, files=True)
    except ConfigError as error:
        print(clean(str(error)), file=sys.stderr)
        return 2
    if options.check:
        print(f"{options.config}: good")
        return 0
    if options.command == "page:test":
        return asyncio.run(_test(settings))
    logs.set_up("info", settings.log_format, sys.stderr)
    try:
        asyncio.run(serve(settings))
    except (StateError, OSError) as error:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        return 1
    return 0


async def _test(settings: Settings) -> int:
    async with aiohttp.ClientSession() as session:
        found = await Pager(settings.pages, session).test(trial(settings.watched, time.time()))
    for name, why in found.items():
        print(clean(f"{name}: {'delivered' if why is None else why}"))
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
