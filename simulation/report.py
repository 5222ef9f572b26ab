"""A page of what was simulated and what came of it, made of the figures beside it.

`prepctl simulate --report trust.md` writes both; `python -m simulation.mutants --report trust.md` writes
the part about planted bugs. A test holds that the page says what the figures say, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulation.invariants import ALL_INVARIANTS
from simulation.measures import Result, Row, together, wilson
from simulation.story import Sort, Wrong

WORST = 5
REASONS = 4  # of a year: those given in most episodes
Figures = dict[str, Any]


def figures_of(page: Path) -> Path:
    """The file of figures beside a page."""
    return page.with_suffix(".json")


def writable(page: Path) -> None:
    """Raises ValueError when the page cannot be one."""
    if page.suffix != ".md":
        raise ValueError(f"--report wants a file that ends with .md, not {page}")
    if not page.parent.is_dir():
        raise ValueError(f"--report: there is no folder {page.parent}")


def write(page: Path, results: Sequence[Result]) -> None:
    """The page and its figures; what is known of planted bugs is kept."""
    kept = json.loads(figures_of(page).read_text()) if figures_of(page).exists() else {}
    save(page, {**kept, **figures(results)})


def read(page: Path) -> Figures:
    """What is beside the page."""
    found: Figures = json.loads(figures_of(page).read_text())
    return found


def save(page: Path, found: Figures) -> None:
    """Both files."""
    figures_of(page).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    page.write_text(text(found))


def figures(results: Sequence[Result]) -> Figures:
    """What the page is made of."""
    whole = together(results)
    worst = sorted(results, key=lambda each: each.total.alone_minutes - each.total.minutes)[:WORST]
    return {
        "seeds": [result.seed for result in results],
        "total": {**whole.as_json(), "seconds": round(whole.seconds, 1)},
        "worst": [_year(result) for result in worst],
    }


def _year(result: Result) -> Figures:
    total = result.total
    often = sorted(result.refused.items(), key=lambda item: (-item[1], item[0]))[:REASONS]
    return {
        "seed": result.seed,
        "incidents": total.incidents,
        "effects": total.effects,
        "false": total.false,
        "harmful": total.harmful,
        "saved": total.alone_minutes - total.minutes,
        "stopped": often,
    }


# -- the page -------------------------------------------------------------------------------------------------------


def text(found: Figures) -> str:
    """The page."""
    whole = found["total"]
    total = Row()
    for row in whole["rows"].values():
        total.add(Row(**row))
    return "\n".join(
        [
            "# Trust: what it did in simulated years",
            "",
            "Made by `prepctl simulate --report` of the figures beside it; do not edit. The real",
            "intake, ledger, guardrails, planner, engine and journal live through simulated years. How, and",
            "what it cannot show: docs/simulation.md.",
            "",
            f"**{headline(found)}**",
            "",
            *_in_all(found, total),
            "",
            "## By class of incident",
            "",
            *_how_to_read(whole["rows"], total),
            "",
            *_classes(whole["rows"]),
            "",
            "## The stories that gained least, and what stopped it",
            "",
            *_worst(found["worst"]),
            "",
            "## What must never be",
            "",
            "Judged by what happened at the target and what the journal keeps, after every year:",
            "",
            "| Promise | In words |",
            "|---|---|",
            *(f"| `{rule.__name__}` | {' '.join((rule.__doc__ or '').split())} |" for rule in ALL_INVARIANTS),
            "",
            *_mutants(found.get("mutants", [])),
        ]
    )


def headline(found: Figures) -> str:
    """The one sentence that README quotes."""
    rows = [Row(**row) for row in found["total"]["rows"].values()]
    incidents, effects, false = (sum(getattr(row, name) for row in rows) for name in ("incidents", "effects", "false"))
    low, high = wilson(false, effects)
    return (
        f"In {incidents:,} simulated incidents it acted {effects:,} times, {false} times on a target that was well "
        f"({false / effects:.2%}; 95 % Wilson interval {low:.2%} to {high:.2%}), never twice, and broke "
        f"{_number(len(found['total']['violations']))} of its promises."
    )


def _number(count: int) -> str:
    return "none" if count == 0 else str(count)


def _in_all(found: Figures, total: Row) -> list[str]:
    whole = found["total"]
    return [
        "| | |",
        "|---|---|",
        f"| Simulated years | {whole['days'] / 365:.1f} |",
        f"| Stories, seeds | {len(found['seeds'])}, {min(found['seeds'])} to {max(found['seeds'])} |",
        f"| Effects that happened twice | {whole['doubled']} |",
        f"| Harmful effects (on a target that was well, or that died of it) | {total.harmful} |",
        f"| Missed: a restart would have healed it, and people had to | {total.missed} |",
        f"| Attempts whose end was not known at once | {whole['doubts']} |",
        f"| Minutes of outage | {total.minutes:,.0f} |",
        f"| Minutes of outage with people alone, by the handbook's response times | {total.alone_minutes:,.0f} |",
        f"| Alerts that called a person | {whole['held']:,} of {whole['alerts']:,} |",
        f"| Messages of its own to people | {whole['pages']:,} |",
        f"| CPU time | {whole['seconds']:,.0f} s |",
        f"| Kinds of faults around the incidents | {len(Wrong)} |",
    ]


def _how_to_read(rows: dict[str, Any], total: Row) -> list[str]:
    unseen = Row(**rows[Sort.CUT_OFF.name])
    return [
        f"**On a well target** {total.false} times: {unseen.false} of them where {Sort.CUT_OFF.value},",
        "so that Prometheus, the exporter and the remediator's own probe all called it down, and only somebody",
        "elsewhere could have known better. The others got well by themselves in the seconds between look and restart.",
        "",
        "**Saved** is negative where a restart could not help: people came after the remediator had tried, had proved",
        "that it did not help, and had handed over. **Missed** are those that something forbade until people had ended",
        "them, often a fault around them: a Prometheus that was away, a pause, a limit that was used up.",
    ]


def _classes(rows: dict[str, Any]) -> list[str]:
    lines = [
        "| Incident | Number | Acted | Effects | On a well target | Harmful | Missed | Alone, min | Minutes | Saved |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for sort in Sort:
        row = Row(**rows[sort.name])
        saved = row.alone_minutes - row.minutes
        lines.append(
            f"| {sort.value} | {row.incidents} | {row.acted} | {row.effects} | {row.false} | {row.harmful} "
            f"| {row.missed} | {row.alone_minutes:,.0f} | {row.minutes:,.0f} | {saved:,.0f} |"
        )
    return lines


def _worst(years: Sequence[Figures]) -> list[str]:
    lines = [
        "| Seed | Incidents | Effects | On a well target | Minutes saved | What stopped it most often, in episodes |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for year in years:
        why = ", ".join(f"`{reason}` {count}" for reason, count in year["stopped"])
        lines.append(
            f"| {year['seed']} | {year['incidents']} | {year['effects']} | {year['false']} "
            f"| {year['saved']:,.0f} | {why} |"
        )
    return lines


def _mutants(rows: Sequence[Figures]) -> list[str]:
    if not rows:
        return []
    caught = sum(bool(row["caught"]) for row in rows)
    lines = [
        "## Planted bugs",
        "",
        f"Each is put in, and stories are played until one breaks a promise. {caught} of {len(rows)} are caught.",
        "`python -m simulation.mutants --report trust.md` makes the table anew.",
        "",
        "| Bug | Caught by | Seed | Stories |",
        "|---|---|---|---|",
    ]
    for row in rows:
        by = ", ".join(f"`{name}`" for name in row["caught"]) or "not caught"
        lines.append(f"| {row['what']} | {by} | {row['seed']} | {row['stories']} |")
    return [*lines, ""]
