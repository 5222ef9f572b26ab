"""`prep-remediator`: run the remediator, check its configuration, or write the Docker gate's.

Exit codes: 0 ended cleanly, 1 the journal cannot be used, 2 the configuration is wrong (every fault is printed).
SIGHUP reads the configuration anew; a fault in it changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from remediator import gate, logs, settings
from remediator.configuration import load_books
from remediator.errors import ConfigError, JournalError
from remediator.server import serve


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prep-remediator", description=__doc__)
    parser.add_argument("command", nargs="?", default="serve", choices=("serve", "gate:config"))
    parser.add_argument("--config.file", dest="config", type=Path, default=Path("/etc/prep/remediator.yml"))
    parser.add_argument(
        "--config.check", dest="check", action="store_true", help="check configuration and runbooks, then exit"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    options = _parser().parse_args(argv)
    try:
        loaded_settings = settings.load(options.config)
        if options.command == "gate:config":
            sys.stdout.write(gate.render(gate.from_settings(loaded_settings)))
            return 0
        loaded = load_books(loaded_settings)
        if options.check:
            print(
                f"{options.config}: {len(loaded.books)} runbooks, mode {loaded_settings.mode}, digest {loaded.digest}"
            )
            return 0
        logs.set_up(loaded_settings.log_format, sys.stderr)
        return asyncio.run(serve(loaded, options.config))
    except ConfigError as error:
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
        return 2
    except JournalError as error:
        print(f"error: the journal cannot be used: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
