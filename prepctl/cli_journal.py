"""prepctl's commands about the journal: episodes, their events, and whether they are what was sealed. `cli.py` takes
them over.
"""

from __future__ import annotations

import json
import re
import time
from typing import Annotated

import typer

from prepctl import show
from prepctl.asked import AsJson, asked_of
from prepctl.asked import as_json as told_as_json
from prepctl.cli_files import duration
from prepctl.client import Client
from prepctl.errors import Exit, Failure
from remediator.seal_names import SEAL

app = typer.Typer()
FOLLOW = 1.0  # seconds between two questions of `journal:tail --follow`
VERIFY = "/api/v1/journal/verify"


@app.command("episodes:list")
def episodes_list(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Open episodes: one alert on one target each, with what the remediator is doing about it."""
    found = asked_of(context).client.get("/api/v1/episodes", open=None if everything else 1, limit=limit)
    if as_json:
        told_as_json(found)
        return
    if not found["episodes"]:
        typer.echo("No episodes." if everything else "No open episodes.")
        return
    show.console().print(show.episodes(found["episodes"]))


@app.command("episodes:show")
def episodes_show(
    context: typer.Context,
    episode: Annotated[str, typer.Argument(help="Its id, or the beginning of it.")],
    as_json: AsJson = False,
) -> None:
    """One episode: why it is where it is, and every event since the alert came."""
    client = asked_of(context).client
    found = client.get(f"/api/v1/episodes/{_whole_id(client, episode)}")
    if as_json:
        told_as_json(found)
        return
    out = show.console()
    for row in show.timeline(found):
        out.print(row, soft_wrap=True)


def _whole_id(client: Client, given: str) -> str:
    """Complete the beginning of an id; whoever reads one aloud at 3 am reads six characters."""
    if not given.isalnum():
        raise Failure(Exit.USAGE, f"{given!r} is not an episode's id.", "prepctl episodes:list --all shows them.")
    if len(given) >= 32:
        return given
    known = [row["id"] for row in client.get("/api/v1/episodes", limit=500)["episodes"]]
    matching = [one for one in known if one.startswith(given)]
    if len(matching) != 1:
        said = "several episodes begin" if matching else "no episode begins"
        raise Failure(Exit.NO, f"{said.capitalize()} with {given!r}.", "prepctl episodes:list --all shows them.")
    return str(matching[0])


@app.command("journal:tail")
def journal_tail(
    context: typer.Context,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=1000, help="How many of the newest events.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """The newest events of all episodes, as they were written."""
    client, out = asked_of(context).client, show.console()
    found = client.get("/api/v1/journal", limit=limit)
    told: set[tuple[str, int]] = set()
    while True:
        fresh = [event for event in found["events"] if (event["episode"], event["seq"]) not in told]
        told = {(event["episode"], event["seq"]) for event in found["events"]} or told
        for event in fresh:
            if as_json:
                typer.echo(json.dumps(event, sort_keys=True))
            else:
                out.print(show.tail(event), soft_wrap=True)
        if not follow:
            return
        time.sleep(FOLLOW)
        found = client.get("/api/v1/journal", after=found["next"], limit=1000)


@app.command("journal:verify")
def journal_verify(
    context: typer.Context,
    seal: Annotated[
        str,
        typer.Option(
            metavar="NUMBER:DIGEST",
            help="A seal as it was told outside of the journal: the log's line `journal sealed`, or the metrics "
            "prep_remediator_journal_seals and prep_remediator_journal_seal_digest. The journal must still have it.",
        ),
    ] = "",
) -> None:
    """Recompute every limit's charge and every seal from the events; the exit code is 1 when something differs."""
    if seal and not re.fullmatch(SEAL, seal):
        do = "Give NUMBER:DIGEST, as the log's line `journal sealed` or the two metrics tell it."
        raise Failure(Exit.USAGE, f"--seal: {seal!r} is no number and digest of a seal.", do)
    client = asked_of(context).client
    problems = client.get(VERIFY, seal=seal)["problems"] if seal else []
    if seal and not problems:
        typer.echo(f"Seal {seal.partition(':')[0]} is there as it was told.")
    found = client.get(VERIFY)
    problems += found["problems"]
    while found.get("next"):
        found = client.get(VERIFY, after=found["next"])
        problems += found["problems"]
    for problem in problems:
        typer.echo(show.clean(problem))
    if problems:
        raise typer.Exit(Exit.NO)
    typer.echo("The charges are what the events say.")
    if (last := found.get("seal")) is None:
        typer.echo("Nothing is sealed yet: the first seal comes a minute after the first event.")
        return
    typer.echo(f"The events are what was sealed, up to seal {last['number']}, made {show.ago(last['at'])}.")
    typer.echo(f"In no seal yet: {show.many(found['unsealed'], 'event')}.")
    typer.echo(f"To be kept elsewhere: --seal {last['number']}:{last['digest']}")


@app.command("journal:export")
def journal_export(
    context: typer.Context,
    since: Annotated[str, typer.Option(help="Only the last so long, e.g. 30d; without it everything.")] = "",
) -> None:
    """Every event as one JSON object a line, in the order of time."""
    client = asked_of(context).client
    lasting = duration(since, "--since")
    after = "0" if lasting is None else f"{max(0.0, time.time() - lasting):.3f}"
    told: set[tuple[str, int]] = set()
    while True:
        found = client.get("/api/v1/journal", after=after, limit=1000)
        fresh = [event for event in found["events"] if (event["episode"], event["seq"]) not in told]
        for event in fresh:
            typer.echo(json.dumps(event, sort_keys=True))
        told = {(event["episode"], event["seq"]) for event in found["events"]}
        # A short page is no end: what a newer remediator wrote is left out of it.
        if not fresh and found["next"] == after:
            return
        after = found["next"]
