"""prepctl's commands about trust: what a shadow would have done, more freedom for a runbook. `cli.py` takes them over.

Each loads what it needs when it is called: the other commands start at once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import typer

from prepctl import show
from prepctl.asked import AsJson, Reason, as_json, asked_of
from prepctl.cli_files import duration
from prepctl.errors import Exit, Failure
from remediator.narrative import clock

app = typer.Typer()
Folder = Annotated[
    Path | None,
    typer.Option("--runbooks", help="Their folder. [default: the configuration's]", show_default=False),
]


@app.command("shadow:report")
def shadow_report(
    context: typer.Context,
    runbook: Annotated[str, typer.Option("--runbook", help="Only this runbook.")] = "",
    since: Annotated[str, typer.Option(help="Only the last so long, e.g. 7d. [default: promotion.window]")] = "",
    journal: Annotated[
        Path | None, typer.Option("--journal", help="Read what journal:export wrote, and ask no remediator.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="With --journal: whose numbers count.")] = None,
    runbooks: Annotated[Path | None, typer.Option("--runbooks", help="With --journal: their folder.")] = None,
    json: AsJson = False,
) -> None:
    """What would have been done and why, what really came, and what each runbook is ready for."""
    from prepctl.shadow import lines, of_file  # noqa: PLC0415

    lasting = duration(since, "--since")
    if journal is None and (config or runbooks):
        do = "Without --journal the remediator tells by its own."
        raise Failure(Exit.USAGE, "--config and --runbooks go with --journal.", do)
    if journal is not None:
        found = of_file(journal, lasting, runbook, config, runbooks, time.time())
    else:
        seconds = None if lasting is None else max(1, round(lasting))
        found = asked_of(context).client.get("/api/v1/shadow", since=seconds, runbook=runbook or None)
    if json:
        as_json(found)
        return
    out = show.console()
    for row in lines(found):
        out.print(row, soft_wrap=True)


@app.command("runbook:promote")
def runbook_promote(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The runbook's name.")],
    to: Annotated[Literal["approve", "auto"], typer.Option("--to", help="The mode that it is to have.")],
    reason: Reason,
    config: Annotated[Path, typer.Option("--config", help="The remediator's configuration file.")],
    runbooks: Folder = None,
    who: Annotated[str, typer.Option("--who", help="Who says so. [default: as for every command]")] = "",
    despite_report: Annotated[
        str, typer.Option("--despite-report", help="Why, although the shadow report does not support it.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Give a runbook more freedom: into its file, with who and why, and into the journal. It holds after a reload."""
    from prepctl import modes, promote  # noqa: PLC0415

    asked = asked_of(context)
    wish = promote.Wish(name, to, who or asked.who, reason, despite_report, clock(time.time()))
    promote.demand_words(wish)
    files = promote.read(config, runbooks)
    edits = promote.plan(files, wish)
    record = promote.evidence(asked.client, files, wish)
    out = show.console()
    for row in record["said"]:
        out.print(show.text(row), soft_wrap=True)
    promote.demand_support(record, wish)
    for row in promote.told(edits):
        out.print(show.text(row), soft_wrap=True)
    if not yes:
        typer.confirm(f"Promote {name} to {to}?", abort=True)
    body = {"to": to, "who": wish.who, "reason": reason, "despite": despite_report or None}
    asked.client.post(f"/api/v1/runbooks/{quote(name, safe='')}/promote", body)
    for done, edit in enumerate(edits):
        try:
            modes.replace(edit)
        except Failure as failure:
            said = f"{failure.message}\n{done} of {len(edits)} files are written; it is in the journal."
            raise Failure(
                Exit.NO, said, f"{failure.do} Nothing is freer before the last one and a reload."
            ) from failure
    typer.echo(f"Written. {name} is in {to} once the remediator has read it: prepctl reload")
