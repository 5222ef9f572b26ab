"""`containers:*`, `logs:errors`: what Docker knows of a service, through the gate. Restarting is `prepctl act`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prepctl.diagnoses.asking import CONFIG, AsJson, Config, answer, chosen, load, tell

if TYPE_CHECKING:
    from remediator.captured import Captured, Source

app = typer.Typer()
Of = Annotated[str, typer.Argument(metavar="SERVICE", help="The Compose service.")]


@app.command("containers:facts")
def facts(service: Of, config: Config = CONFIG, as_json: AsJson = False) -> None:
    """State, health, limits, exit code and what runs inside; never its environment."""
    tell(load(config), service, "containers:facts", "container_facts", as_json=as_json)


@app.command("containers:logs")
def logs(service: Of, config: Config = CONFIG, as_json: AsJson = False) -> None:
    """The last 100 lines of each of its containers, redacted."""
    tell(load(config), service, "containers:logs", "container_logs", as_json=as_json)


@app.command("containers:events")
def events(service: Of, config: Config = CONFIG, as_json: AsJson = False) -> None:
    """What the engine still knows to have happened to its containers within the hour."""
    tell(load(config), service, "containers:events", "container_events", as_json=as_json)


@app.command("containers:probe")
def probe(service: Of, config: Config = CONFIG, as_json: AsJson = False) -> None:
    """One direct request to it, past every exporter: what the remediator's second vantage would see."""
    settings = load(config)
    probed = [name for name, entry in settings.services.items() if entry.probe is not None]
    which = chosen([*probed, *settings.databases, *settings.redis], service, "services, databases or redis")
    tell(settings, which, "containers:probe", "service_probe", as_json=as_json)


@app.command("logs:errors")
def errors(
    tail: Annotated[int, typer.Option("--tail", min=1, max=1000, help="The newest so many.")] = 50,
    service: Annotated[str, typer.Option("--service", help="Only this Compose service.")] = "",
    config: Config = CONFIG,
    as_json: AsJson = False,
) -> None:
    """The newest log lines of all containers that tell of errors, redacted."""

    async def newest(source: Source) -> Captured:
        from remediator.captures_logs import error_lines  # noqa: PLC0415

        return await error_lines(source, tail)

    answer(load(config), service, "logs:errors", newest, as_json=as_json)
