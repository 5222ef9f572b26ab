"""Writing a page that is made from the code, or saying that it is not what the code says. For the generators here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def keep(page: Path, made: str, script: str, arguments: Sequence[str] | None = None) -> int:
    """Write `made` to `page`; with `--check` compare, with exit code 1 and what to run on stderr when it differs."""
    parser = argparse.ArgumentParser(prog=f"scripts/{script}", description=f"Make docs/{page.name}.")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    if not parser.parse_args(arguments).check:
        page.write_text(made, encoding="utf-8")
        return 0
    if page.exists() and page.read_text(encoding="utf-8") == made:
        return 0
    print(f"{page.name} is not what the code says: run python scripts/{script}", file=sys.stderr)
    return 1
