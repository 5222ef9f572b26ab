"""A page of what was simulated and what came of it, made of the figures beside it.

`prepctl simulate --report docs/trust.md` writes both; `.venv/bin/python -m simulation.mutants --report
docs/trust.md` writes the part about planted bugs. A test holds that the page says what the figures say, and nothing
else.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remediator.reasons import Reason
from simulation.invariants import ALL_INVARIANTS
from simulation.measures import Result, Row, time_of, together, whole_minutes, wilson
from simulation.story import OFTEN, Sort, Wrong

WORST = 5
REASONS = 4  # of a year: those given in most episodes
NORMAL = Reason.SETTLING  # the wait that every episode begins with: it says nothing about what stopped it
Figures = dict[str, Any]


def figures_of(page: Path) -> Path:
    """The file of figures beside a page."""
    return page.with_suffix(".json")


def writable(page: Path) -> None:
    """Raises ValueError when there can be no page: asked before the years, which take minutes, and not after them."""
    if page.suffix != ".md":
        raise ValueError(f"--report wants a file that ends with .md, not {page}")
    if not page.parent.is_dir():
        raise ValueError(f"--report: there is no folder {page.parent}; make it, or name another file")
    for file in (page, figures_of(page)):
        if file.is_dir():
            raise ValueError(f"--report: {file} is a folder; name another file")
        try:
            if file.exists():
                file.open("r+").close()
            else:
                tempfile.TemporaryFile(dir=file.parent).close()
        except OSError as error:
            raise ValueError(f"--report: {file} cannot be written: {error.strerror}; name another file") from error
    _kept(page)


def _kept(page: Path) -> Figures:
    """The figures beside the page, {} where there are none. Raises ValueError when that file is none of ours."""
    file = figures_of(page)
    if not file.exists():
        return {}
    do = "move it away, or name another page"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # not JSON, or not UTF-8
        raise ValueError(f"--report: {file} is beside the page and is not JSON ({error}); {do}") from error
    try:
        _mutants(found.get("mutants", []))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"--report: {file} is beside the page and holds no figures of one; {do}") from error
    return dict(found)


def with_mutants(page: Path) -> Figures:
    """The figures that a table of planted bugs can join. Raises ValueError when there is no page yet."""
    writable(page)
    if "total" not in (found := _kept(page)):
        do = f"make the page first: prepctl simulate --report {page}"
        raise ValueError(f"--report: {figures_of(page)} has no figures of simulated years; {do}")
    return found


def write(page: Path, results: Sequence[Result]) -> None:
    """The page and its figures; what is known of planted bugs is kept. Raises OSError, ValueError."""
    save(page, {**_kept(page), **figures(results)})


def read(page: Path) -> Figures:
    """What is beside the page."""
    found: Figures = json.loads(figures_of(page).read_text())
    return found


def save(page: Path, found: Figures) -> None:
    """Both files, or none when no page can be made of it. Raises OSError."""
    made = text(found)
    figures_of(page).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    page.write_text(made)


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
    often = sorted(result.refused.items(), key=lambda item: (-item[1], item[0]))[: REASONS + 1]
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
    whole, total = found["total"], Row()
    for row in whole["rows"].values():
        total.add(Row(**row))
    begun = f"In {_many(total.incidents, 'simulated incident')} it"
    if not total.effects:
        return f"{begun} did nothing, and {_broken(whole['violations'])}."
    low, high = wilson(total.false, total.effects)
    several = " (some took more than one)" if total.effects > total.acted else ""
    again = f"{_many(whole['doubled'], 'time')} an attempt" if whole["doubled"] else "no attempt"
    return (
        f"{begun} acted on {total.acted:,}, with {_many(total.effects, 'restart')}{several}: "
        f"{total.false:,} of them on a target that was well ({total.false / total.effects:.2%}; "
        f"95 % Wilson interval {low:.2%} to {high:.2%}), {again} took effect twice, and {_broken(whole['violations'])}."
    )


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' * (count != 1)}"


def _broken(violations: Sequence[str]) -> str:
    """Of each violation the promise's name follows the seed: `seed 3: no_effect_twice: ...`."""
    promises = len({said.split(": ")[1] for said in violations})
    if not promises:
        return f"none of its {len(ALL_INVARIANTS)} promises was broken"
    were = "was" if promises == 1 else "were"
    return f"{promises} of its {len(ALL_INVARIANTS)} promises {were} broken ({_many(len(violations), 'time')})"


def _in_all(found: Figures, total: Row) -> list[str]:
    whole = found["total"]
    number, unit = time_of(whole["days"])
    alone, held, pages = whole_minutes(total.alone_minutes), whole["held"], whole["pages"]
    return [
        "| | |",
        "|---|---|",
        f"| Simulated {unit} | {number} |",
        f"| Stories, seeds | {len(found['seeds'])}, {min(found['seeds'])} to {max(found['seeds'])} |",
        f"| Effects that happened twice | {whole['doubled']} |",
        f"| Harmful effects (on a target that was well, or that died of it) | {total.harmful} |",
        f"| Missed: a restart would have healed it, and people had to | {total.missed} |",
        f"| Attempts whose end was not known at once | {whole['doubts']} |",
        f"| Minutes of outage | {whole_minutes(total.minutes)} |",
        f"| Minutes of outage with people alone, by the handbook's response times | {alone} |",
        f"| People called or told, with it: {held:,} alerts, {pages:,} messages of its own | {held + pages:,} |",
        f"| People called, without it: each alert that nobody silenced | {whole['alerts']:,} |",
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
        "that it did not help, and had handed over. It is negative too where the remediator stood still, as an alert",
        "that may wait for it calls people three minutes later. *Alone* is calculated and *Minutes* are played: they",
        "may differ by a few per cent where nothing was done at all.",
        "",
        "**Missed** are those that something forbade until people had ended them, often a fault around them: a",
        "Prometheus that was away, a pause, a limit that was used up. It is counted for the first two classes only.",
        "",
        *_too_old(Row(**rows[Sort.STALE.name])),
    ]


def _too_old(row: Row) -> list[str]:
    """Whoever reads that it acted on an old alert wants to know why it may."""
    if not row.effects:
        return []
    return [
        f"In the class *{Sort.STALE.value}* it did not act on that alert, which is too old: a later alert of the same",
        "incident, with a beginning of its own, was fresh, or the old one came to an episode that a fresh one began.",
        "",
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
            f"| {row.missed} | {whole_minutes(row.alone_minutes)} | {whole_minutes(row.minutes)} "
            f"| {whole_minutes(saved)} |"
        )
    return lines


def _worst(years: Sequence[Figures]) -> list[str]:
    lines = [
        "| Seed | Incidents | Effects | On a well target | Minutes saved | Reasons given most often, in episodes |",
        "|---|---|---|---|---|---|",
    ]
    for year in years:
        given = [(reason, count) for reason, count in year["stopped"] if reason != NORMAL]
        why = ", ".join(f"`{reason}` {count}" for reason, count in given[:REASONS])
        lines.append(
            f"| {year['seed']} | {year['incidents']} | {year['effects']} | {year['false']} "
            f"| {whole_minutes(year['saved'])} | {why} |"
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
        f"They are stories of eight days, in which what the bug is about comes {OFTEN} times as often as in a year.",
        "`.venv/bin/python -m simulation.mutants --report docs/trust.md` makes the table anew.",
        *_idle(rows),
        "",
        "| Bug | Caught by | Seed | Stories |",
        "|---|---|---|---|",
    ]
    for row in rows:
        by = ", ".join(f"`{name}`" for name in row["caught"]) or "not caught"
        lines.append(f"| {row['what']} | {by} | {row['seed']} | {row['stories']} |")
    return [*lines, ""]


def _idle(rows: Sequence[Figures]) -> list[str]:
    """A promise that no bug was caught by has not shown that it can break."""
    used = {name for row in rows for name in row["caught"]}
    idle = [f"`{rule.__name__}`" for rule in ALL_INVARIANTS if rule.__name__ not in used]
    if not idle:
        return []
    return [
        "",
        f"No planted bug was caught by these promises: {', '.join(idle)}; that nothing breaks them here shows less.",
    ]
