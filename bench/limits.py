"""Figures beside their limits: a table for people, and whether all hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).resolve().parent.parent / "build" / "bench"


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure must not exceed, or not fall below."""

    figure: str
    words: str
    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: float) -> bool:
        """NaN, a figure that is missing, never does."""
        return value <= self.at_most if self.at_most is not None else value >= (self.at_least or 0.0)

    @property
    def bound(self) -> str:
        return f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"


def judge(figures: Mapping[str, float], limits: Sequence[Limit], console: Console) -> bool:
    """Print every limit with what was measured; whether all hold."""
    table = Table("", "what", "measured", "limit")
    results = []
    for limit in limits:
        value = figures.get(limit.figure, float("nan"))
        results.append(limit.holds(value))
        table.add_row("ok" if results[-1] else "NOT SO", limit.words, f"{value:,.1f}", limit.bound)
    console.print(table)
    return all(results)


def keep(name: str, figures: Mapping[str, float]) -> None:
    """Every figure, as build/bench/<name>.json."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
