"""prepctl's commands that need files only: `runbook:*`, `severity:*`, `slo:generate`. `cli.py` takes them over.

Each loads what it needs when it is called: the other commands start at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prepctl import show
from prepctl.errors import Exit, Failure
from remediator.durations import seconds

app = typer.Typer()


def duration(text: str, option: str) -> float | None:
    """Seconds of a written duration, None for an empty text. Raises Failure that names the option."""
    if not text:
        return None
    try:
        return seconds(text)
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{option}: {error}.") from error


# -- checks -------------------------------------------------------------------------------------------


@app.command("runbook:check")
def runbook_check(
    folder: Annotated[Path, typer.Argument(help="Folder of *.yml runbooks.")],
    scrape_interval: Annotated[
        str, typer.Option(help="Prometheus' scrape interval; hold times depend on it. --config knows it.")
    ] = "15s",
    rules: Annotated[
        Path | None,
        typer.Option(help="Folder of rule files: can an alert ever reach each runbook?", show_default=False),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="The remediator's configuration: can each action ever work with it?", show_default=False),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Look at the targets too: grants, gate, probes, Prometheus' rules.")
    ] = False,
) -> None:
    """Would the remediator load these runbooks, and could they act? Every fault with its place and what to do."""
    from prepctl.runbooks import Beside, check  # noqa: PLC0415

    for row in check(folder, Beside(duration(scrape_interval, "--scrape-interval") or 15.0, rules, config, live)):
        typer.echo(show.clean(row))


@app.command("runbook:test")
def runbook_test(files: Annotated[list[Path], typer.Argument(help="Test files, e.g. runbooks/tests/*.yml.")]) -> None:
    """Play what the files describe through the real rules: does each step come as expected? Needs no server."""
    from prepctl.runbooks import test  # noqa: PLC0415

    for row in test(files):
        typer.echo(show.clean(row))


Root = Annotated[Path, typer.Option("--root", help="Folder that holds alert-rules/.")]


@app.command("severity:generate")
def severity_generate(
    root: Root = Path(),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 when a file differs.")] = False,
) -> None:
    """Write from alert-rules/severity.yml: Alertmanager's files, the rules' response times, docs/severity.md."""
    from prepctl.severity import generate  # noqa: PLC0415

    for row in generate(root, check=check):
        typer.echo(show.clean(row))


@app.command("severity:fragment")
def severity_fragment(root: Root = Path()) -> None:
    """Print what to copy into an Alertmanager that is there already; then ask severity:check-merge."""
    from prepctl.severity import fragment  # noqa: PLC0415

    typer.echo(fragment(root), nl=False)


@app.command("severity:check-merge")
def severity_check_merge(
    file: Annotated[Path, typer.Argument(help="The merged configuration of Alertmanager.")],
    root: Root = Path(),
    environment: Annotated[str, typer.Option(help="Label `environment` of the alerts.")] = "production",
) -> None:
    """Does anything in a merged configuration mute or misroute our alerts? Needs no server."""
    from prepctl.severity import check_merge  # noqa: PLC0415

    for row in check_merge(file, root, environment):
        typer.echo(show.clean(row))


# -- objectives ---------------------------------------------------------------------------------------


@app.command("slo:generate")
def slo_generate(
    file: Annotated[Path, typer.Argument(help="The objectives, for example alert-rules/slo.yml.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Rule file to write; - prints it. [default: FILE.rules.yml beside it]", show_default=False),
    ] = None,
    only_check: Annotated[bool, typer.Option("--check", help="Write nothing; is the rule file up to date?")] = False,
    severity: Annotated[
        Path | None,
        typer.Option(help="Severity table. [default: severity.yml beside FILE, where it is]", show_default=False),
    ] = None,
) -> None:
    """Prometheus rules out of a file of objectives: burn-rate alerts and error budgets. See docs/slo.md."""
    from prepctl import slo  # noqa: PLC0415

    made = slo.generate(file, severity)
    target = out or slo.place(file)
    if str(target) == "-":
        typer.echo(made, nl=False)
    elif only_check:
        slo.check(made, target)
        typer.echo(f"{target} is what {file} makes.")
    else:
        slo.write(made, target)
        typer.echo(f"Written: {target}.")
