"""prepctl: the handbook's commands, in the handbook's names (`subject:verb`).

Everything here goes through the remediator's API, what reads its journal in `cli_journal.py`. What needs only files is
in `cli_files.py`; what asks the platform itself, with the remediator's rights, in `diagnoses/`.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from prepctl import raw, show
from prepctl.asked import AsJson, Asked, Reason
from prepctl.asked import as_json as _as_json
from prepctl.asked import asked_of as _asked
from prepctl.cli_files import app as files
from prepctl.cli_files import duration
from prepctl.cli_journal import app as journal
from prepctl.cli_trust import app as trust
from prepctl.client import Client
from prepctl.diagnoses import health
from prepctl.diagnoses.app import app as diagnoses
from prepctl.diagnoses.asking import CONFIG, Config, load
from prepctl.errors import Exit, Failure
from remediator.durations import human

EXITS = """Exit codes: 0 done; 1 the answer is no (not found, refused, not ready), or a drill or a promise that did not
hold; 2 wrong usage, or a file that is wrong, or cannot be read or written; 3 the one that is asked does not answer, or
cannot answer now; 4 the token does not let in; 130 Ctrl-C; 141 who read the output has gone."""
WHOLE_ID = re.compile("[0-9a-f]{32}")

app = typer.Typer(
    name="prepctl",
    help="Watch and steer the remediator: what it did, what it did not do and why, pauses and doubts. Read the "
    "platform as its evidence does (db:, redis:, containers:, ...): call these in the remediator's container.",
    epilog=EXITS,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def begin(
    context: typer.Context,
    url: Annotated[
        str, typer.Option(envvar="PREPCTL_URL", help="The remediator's address.")
    ] = "http://127.0.0.1:11471",
    token_file: Annotated[
        Path | None, typer.Option(envvar="PREPCTL_TOKEN_FILE", help="File with an operator's token.")
    ] = None,
    who: Annotated[
        str,
        typer.Option(envvar="PREPCTL_WHO", help="Who acts, for the journal. [default: login@host]", show_default=False),
    ] = "",
) -> None:
    """Options that hold for every command."""
    context.obj = Asked(Client(url, token_file), who or _login())


def _login() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        name = f"uid-{os.getuid()}"
    return f"{name}@{socket.gethostname()}"


# -- pauses -------------------------------------------------------------------------------------------


@app.command("pause")
def pause(
    context: typer.Context,
    reason: Reason,
    runbook: Annotated[str, typer.Option(help="Only this runbook.")] = "",
    resource: Annotated[str, typer.Option(help="Only this target, e.g. docker:prep/python-compliance.")] = "",
    service: Annotated[str, typer.Option(help="Only alerts of this service: while it is deployed or maintained.")] = "",
    lasting: Annotated[
        str, typer.Option("--for", help="End by itself after e.g. 2h; without it a person must resume.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Begin no action from now on, anywhere or for one runbook or target. What has begun goes on."""
    named = {"runbook": runbook, "resource": resource, "service": service}
    scopes = [f"{kind}:{name}" for kind, name in named.items() if name]
    if len(scopes) > 1:
        raise Failure(
            Exit.USAGE,
            "--runbook, --resource and --service are pauses of their own.",
            "Give one, twice if need be.",
        )
    asked = _asked(context)
    scope = scopes[0] if scopes else "all"
    body = {"scope": scope, "who": asked.who, "reason": reason, "for_seconds": duration(lasting, "--for")}
    answer = asked.client.post("/api/v1/pauses", body)
    if as_json:
        _as_json(answer)
        return
    out = show.console()
    until = answer["pause"]["until"]
    ends = f"for {human(until - answer['pause']['since'])}" if until is not None else "until a person resumes it"
    out.print(show.text(f"Paused ({scope}) {ends}. Pause {answer['pause']['id']}.", "bold"))
    for row in show.running(answer["running"]):
        out.print(row)


@app.command("pauses")
def pauses(context: typer.Context, as_json: AsJson = False) -> None:
    """Pauses in force."""
    found = _asked(context).client.get("/api/v1/pauses")
    if as_json:
        _as_json(found)
        return
    if not found["pauses"]:
        typer.echo("Not paused.")
        return
    show.console().print(show.pauses(found["pauses"]))


@app.command("resume")
def resume(
    context: typer.Context,
    number: Annotated[
        int | None, typer.Argument(help="The pause's number, from `prepctl pauses`.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="End every pause.")] = False,
) -> None:
    """End a pause. With no number and only one pause in force, that one."""
    asked = _asked(context)
    found = asked.client.get("/api/v1/pauses")["pauses"]
    numbers = [number] if number is not None else [row["id"] for row in found]
    if not numbers:
        typer.echo("Not paused.")
        return
    if len(numbers) > 1 and not everything:
        raise Failure(
            Exit.USAGE,
            f"{len(numbers)} pauses are in force.",
            "Give one's number (prepctl pauses), or --all.",
        )
    for one in numbers:
        asked.client.delete(f"/api/v1/pauses/{one}", who=asked.who)
        typer.echo(f"Pause {one} is ended.")


# -- approvals, storms, demotions ---------------------------------------------------------------------


@app.command("approvals:list")
def approvals_list(context: typer.Context, as_json: AsJson = False) -> None:
    """What the remediator would do and waits for a person to approve."""
    found = _asked(context).client.get("/api/v1/approvals")
    if as_json:
        _as_json(found)
        return
    if not found["approvals"]:
        typer.echo("Nothing waits for an approval.")
        return
    out = show.console()
    for row in show.approvals(found["approvals"], found["now"]):
        out.print(row, soft_wrap=True)


Question = Annotated[str, typer.Argument(help="Its id, or the beginning of it, from `prepctl approvals:list`.")]
Digest = Annotated[
    str, typer.Option("--digest", help="Of what you have seen, 12 digits or more; without it you are asked.")
]


@app.command("approvals:approve")
def approvals_approve(
    context: typer.Context,
    approval: Question,
    digest: Digest = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the journal.")] = "",
) -> None:
    """Approve exactly what is shown. It is done once nothing forbids it at that moment."""
    _answer(context, approval, "approve", digest, reason)


@app.command("approvals:decline")
def approvals_decline(context: typer.Context, approval: Question, reason: Reason, digest: Digest = "") -> None:
    """Decline it for this episode. It costs no limit; people go on by hand."""
    _answer(context, approval, "decline", digest, reason)


def _answer(context: typer.Context, given: str, verb: str, digest: str, reason: str) -> None:
    asked = _asked(context)
    found = asked.client.get("/api/v1/approvals")
    matching = [row for row in found["approvals"] if row["id"].startswith(given)]
    if not matching and digest and WHOLE_ID.fullmatch(given):
        matching = [{"id": given}]  # the remediator says whose answer counted, and journals that this one was not taken
    if len(matching) != 1:
        said = "Several questions begin" if matching else "No question that waits begins"
        raise Failure(Exit.NO, f"{said} with {given!r}.", "prepctl approvals:list shows them.")
    if not digest:
        out = show.console()
        for row in show.approvals(matching, found["now"]):
            out.print(row, soft_wrap=True)
        typer.confirm(f"{verb.capitalize()} this?", abort=True)
    body = {"digest": digest or matching[0]["digest"], "who": asked.who, "reason": reason or None}
    answer = asked.client.post(f"/api/v1/approvals/{matching[0]['id']}/{verb}", body)
    typer.echo(f"Taken. What comes of it: prepctl episodes:show {answer['episode']}")


@app.command("act")
def act(
    context: typer.Context,
    action: Annotated[str, typer.Argument(help="What to do, e.g. restart_service; docs/actions.md tells of each.")],
    service: Annotated[str, typer.Option("--service", help="The service or database, as the settings name it.")],
    reason: Annotated[
        str, typer.Option("--reason", help="Why; it goes into the journal and is shown to everyone.")
    ] = "",
    param: Annotated[
        list[str] | None, typer.Option("--param", help="NAME=VALUE beside the runbook's own; as often as needed.")
    ] = None,
    runbook: Annotated[str, typer.Option(help="Whose proof counts, where several have the action.")] = "",
    digest: Digest = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    break_glass: Annotated[
        str,
        typer.Option(help="Why it must be now: past pauses, storms and limits (role admin). Everyone is told."),
    ] = "",
) -> None:
    """Do something yourself, by the remediator's own careful way: shown, confirmed, journaled, done once, proven.

    No mode holds it back, but every limit does, and whatever the target says against it. When the remediator does not
    answer, the command to run by hand is printed, and the exit code is 3.
    """
    asked = _asked(context)
    if not dry_run and not (reason or break_glass):
        raise Failure(Exit.USAGE, "Why is not said.", "Give --reason, or --break-glass with the reason.")
    wish: dict[str, Any] = {"action": action, "service": service, "params": raw.params(param or [])}
    wish |= {"runbook": runbook} if runbook else {}
    try:
        found = asked.client.post("/api/v1/commands/preview", wish)
    except Failure as failure:
        if failure.code is Exit.UNREACHABLE:
            typer.echo(raw.command(action, service))
        raise
    out = show.console()
    for row in show.preview(found):
        out.print(row, soft_wrap=True)
    if dry_run:
        return
    if not digest:
        typer.confirm("Do this?", abort=True)
    body = {**wish, "digest": digest or found["digest"], "who": asked.who, "reason": break_glass or reason}
    answer = asked.client.post("/api/v1/commands", body | {"break_glass": bool(break_glass)})
    typer.echo(f"Taken. What comes of it: prepctl episodes:show {answer['episode']}")


@app.command("storm:end")
def storm_end(context: typer.Context, reason: Reason) -> None:
    """Say that a storm is over: what waits is released one after the other, each proven before the next."""
    asked = _asked(context)
    asked.client.post("/api/v1/storm/end", {"who": asked.who, "reason": reason})
    typer.echo("The storm is ended.")


@app.command("runbook:restore")
def runbook_restore(
    context: typer.Context, name: Annotated[str, typer.Argument(help="The runbook's name.")], reason: Reason
) -> None:
    """Let a runbook act again that was demoted because it failed too often."""
    asked = _asked(context)
    asked.client.post(f"/api/v1/runbooks/{quote(name, safe='')}/restore", {"who": asked.who, "reason": reason})
    typer.echo(f"{name} does what its mode says again.")


# -- doubts -------------------------------------------------------------------------------------------


@app.command("doubts:list")
def doubts_list(context: typer.Context, as_json: AsJson = False) -> None:
    """Attempts that may have taken effect and whose end nobody knows."""
    found = _asked(context).client.get("/api/v1/doubts")
    if as_json:
        _as_json(found)
        return
    if not found["doubts"]:
        typer.echo("No attempt is in doubt.")
        return
    show.console().print(show.doubts(found["doubts"]))


@app.command("doubts:settle")
def doubts_settle(
    context: typer.Context,
    attempt: Annotated[str, typer.Argument(help="The attempt's id, from `prepctl doubts:list`.")],
    reason: Reason,
    done: Annotated[bool | None, typer.Option("--done/--not-done", help="Did the effect happen?")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Say whether an attempt in doubt took effect, after looking at the target yourself."""
    if done is None:
        raise Failure(Exit.USAGE, "Say what you saw at the target.", "Give --done or --not-done.")
    asked = _asked(context)
    if not yes:
        then = "it goes on to prove it" if done else "it may act on that target again"
        said = "did" if done else "did not"
        typer.confirm(f"The effect of attempt {attempt} {said} happen, and {then}. Sure?", abort=True)
    body = {"settlement": "done" if done else "not_done", "who": asked.who, "reason": reason}
    answer = asked.client.post(f"/api/v1/doubts/{quote(attempt, safe='')}/settle", body)
    typer.echo(f"Taken. The episode's owner writes it down: prepctl episodes:show {answer['episode']}")


# -- configuration ------------------------------------------------------------------------------------


@app.command("reload")
def reload(context: typer.Context, as_json: AsJson = False) -> None:
    """Have the remediator read its configuration and runbooks anew, all of it or nothing (as SIGHUP does)."""
    found = _asked(context).client.post("/-/reload", {})
    if as_json:
        _as_json(found)
        return
    out = show.console()
    out.print(show.text(f"Taken over, configuration {found['config_digest']}.", "bold"))
    for change in found["changed"] or ["Nothing has changed."]:
        out.print(show.text(f"  {change}"), soft_wrap=True)


# -- health ---------------------------------------------------------------------------------------------


@app.command("health:check")
def health_check(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Probe every service, database and Redis of the configuration first.")
    ] = False,
    config: Config = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Is the remediator able to work? Each of its own footings, and what needs a person."""
    client = _asked(context).client
    probed = health.probed(load(config)) if everything else ()
    if everything and not as_json:
        show.console().print(health.table(probed))
    ready = client.ready()
    status = client.get("/api/v1/status") if client.token_file else None
    if as_json:
        _as_json({"ready": ready.body, "status": status, **({"probes": probed} if everything else {})})
    else:
        out = show.console()
        out.print(show.readiness(ready.body.get("checks", [])))
        if status is not None:
            for row in show.status(status):
                out.print(row, soft_wrap=True)
    if ready.status != 200 or health.sick(probed):
        raise typer.Exit(Exit.NO)


app.add_typer(journal)
app.add_typer(files)
app.add_typer(diagnoses)
app.add_typer(trust)
