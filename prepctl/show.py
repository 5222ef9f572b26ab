"""How answers look in a terminal. Everything printed comes from outside and is cleaned first.

A label may hold terminal escapes (title changes, clipboard writes) or Rich markup: control and format
characters are made visible, and no text is ever read as markup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from remediator.durations import human
from remediator.narrative import after, clock
from remediator.terminal import printable

Json = Any
PIPED_WIDTH = 200  # columns when the output is no terminal: Rich would cut tables at 80
STYLES = {
    "intent": "bold yellow",
    "outcome": "yellow",
    "verdict": "bold green",
    "refused": "cyan",
    "handed_over": "bold red",
    "closed": "dim",
}


def console(*, errors: bool = False) -> Console:
    """A console for results (stdout) or complaints (stderr)."""
    stream = sys.stderr if errors else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(stderr=errors, width=width, highlight=False, markup=False, emoji=False)


def clean(value: object) -> str:
    """As one line of printable text."""
    return printable(str(value))


def text(value: object, style: str = "") -> Text:
    """Cleaned, and never read as markup."""
    return Text(clean(value), style=style, overflow="fold")


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table; long cells are folded, never cut: a cut id is no id."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        made.add_column(title, overflow="fold")
    for row in rows:
        made.add_row(*(text(cell) for cell in row))
    return made


def ago(at: float, now: float | None = None) -> str:
    """`3m20s ago`; `in 2h` for what is to come."""
    passed = (time.time() if now is None else now) - at
    if abs(passed) < 1:
        return "now"
    return f"{human(passed)} ago" if passed > 0 else f"in {human(-passed)}"


def episodes(found: Sequence[Mapping[str, Json]]) -> Table:
    """One line an episode, newest last."""
    return table(
        ("EPISODE", "OPENED", "SEVERITY", "ALERT", "RUNBOOK", "STATE"),
        (
            (
                row["id"],
                ago(row["opened_at"]),
                row["severity"] or "-",
                row["alert"],
                row["runbook"] or "-",
                row["why"],
            )
            for row in found
        ),
    )


def timeline(found: Mapping[str, Json]) -> Iterable[Text]:
    """Head, the present state in one sentence, and every event with the time since the first."""
    head, events = found["episode"], found["events"]
    yield text(f"{head['alert']}  ({head['severity'] or 'no severity'}, {head['runbook'] or 'no runbook'})", "bold")
    yield text(f"episode {head['id']}, opened {clock(head['opened_at'])}, {ago(head['opened_at'])}")
    yield text(found["why"], "bold")
    if not_acted := found.get("not_acted"):
        yield text(not_acted)
    yield Text()
    began = events[0]["at"] if events else 0.0
    marks = [after(event["at"] - began) for event in events]
    width = max((len(mark) for mark in marks), default=0)
    for event, mark in zip(events, marks, strict=True):
        yield Text.assemble(
            (f"{mark:>{width}}  ", "dim"),
            (f"{clean(event['kind']):<14}  ", STYLES.get(event["kind"], "")),
            clean(event["sentence"]),
        )
    if clicks := found.get("not_taken"):
        yield Text()
        yield text("Clicks about it that were not taken:", "bold")
    for event in clicks or ():
        yield text(f"{after(event['at'] - began)}  {event['sentence']}")


def tail(event: Mapping[str, Json]) -> Text:
    """One event of any episode, for `journal:tail`."""
    return Text.assemble(
        (f"{clock(event['at'])}  ", "dim"),
        f"{clean(event['episode'])}  ",
        (f"{clean(event['kind']):<14}  ", STYLES.get(event["kind"], "")),
        clean(event["sentence"]),
    )


def approvals(found: Sequence[Mapping[str, Json]], now: float) -> Iterable[Text]:
    """Each question whole: what would be done, to what, its digest, until when, who has said yes."""
    for row in found:
        yield text(f"{row['id']}  {row['summary']}", "bold")
        yield text(f"  {row['alert']} ({row['severity']}, {row['runbook']}), episode {row['episode']}")
        yield text(f"  {row['action']} on {row['resource']}, rung {row['rung']}")
        for item in row["items"]:
            yield text("    " + ", ".join(f"{key}={value}" for key, value in item.items()))
        yield text(f"  digest {row['digest']}")
        persons = "" if row["persons"] == 1 else f", {row['persons']} persons are needed"
        yes = f", approved by {', '.join(row['approved_by'])}" if row["approved_by"] else ""
        yield text(f"  asked {ago(row['asked_at'], now)}, ends {ago(row['good_until'], now)}{persons}{yes}")


def preview(found: Mapping[str, Json]) -> Iterable[Text]:
    """What a command would do: each item, the target's own reasons against it, and the digest."""
    yield text(found["summary"], "bold")
    yield text(f"  {found['action']} on {found['resource']}, proven by runbook {found['runbook']}")
    for item in found["items"]:
        yield text("    " + ", ".join(f"{key}={value}" for key, value in item.items()))
    for one in found["refusals"]:
        yield text(f"  against it ({one['reason']}): {one['sentence']}", "bold red")
    yield text(f"  digest {found['digest']}")


def pauses(found: Sequence[Mapping[str, Json]]) -> Table:
    """Active pauses."""
    return table(
        ("PAUSE", "SCOPE", "BY", "SINCE", "ENDS", "REASON"),
        (
            (
                row["id"],
                row["scope"],
                row["who"],
                ago(row["since"]),
                "when resumed" if row["until"] is None else ago(row["until"]),
                row["reason"],
            )
            for row in found
        ),
    )


def running(found: Sequence[Mapping[str, Json]]) -> Iterable[Text]:
    """What goes on in spite of a pause: an effect that has begun is not called back."""
    if not found:
        yield text("Nothing is running: no action begins from now on.")
        return
    yield text("Already begun, and not called back:", "bold yellow")
    for row in found:
        yield text(f"  {row['runbook']} on {row['resource']}, begun {ago(row['at'])} (attempt {row['attempt']})")


def doubts(found: Sequence[Mapping[str, Json]]) -> Table:
    """Attempts whose end nobody knows."""
    return table(
        ("ATTEMPT", "ACTION", "RESOURCE", "BEGUN", "EPISODE", "DETAIL"),
        (
            (row["attempt"], row["action"], row["resource"], ago(row["at"]), row["episode"], row["detail"])
            for row in found
        ),
    )


def readiness(checks: Sequence[Mapping[str, Json]]) -> Table:
    """The remediator's footings."""
    return table(
        ("CHECK", "OK", "DETAIL"),
        ((row["name"], "yes" if row["ok"] else "NO", row["detail"]) for row in checks),
    )


def status(found: Mapping[str, Json]) -> Iterable[Text]:
    """Mode, and what needs a person."""
    yield Text()
    yield text(f"mode {found['mode']}, version {found['version']}, configuration {found['config_digest']}", "bold")
    yield text(f"{many(found['episodes_open'], 'open episode')}, {many(len(found['pauses']), 'pause')} in force")
    if found["doubts"]:
        yield text(f"{many(len(found['doubts']), 'attempt')} in doubt: prepctl doubts:list", "bold red")
    for cause, count in sorted(found["dead_letters"].items()):
        yield text(f"{many(count, 'delivery', 'deliveries')} could never be read ({cause})", "yellow")


def many(count: int, one: str, several: str = "") -> str:
    """`1 pause`, `2 pauses`."""
    return f"{count} {one if count == 1 else several or one + 's'}"
