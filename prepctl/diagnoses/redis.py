"""`redis:info`, `redis:pool-stats`, `redis:keys`: what a Redis says of itself, who holds it, what fills it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prepctl.diagnoses.asking import CONFIG, AsJson, Config, Service, answer, chosen, load, tell

if TYPE_CHECKING:
    from remediator.captured import Captured, Source

app = typer.Typer()


@app.command("redis:info")
def info(
    section: Annotated[
        str, typer.Argument(help="One section, e.g. memory; without it all, and what a restart would lose.")
    ] = "",
    service: Service = "",
    config: Config = CONFIG,
    as_json: AsJson = False,
) -> None:
    """State, memory, persistence and clients by Redis' own INFO."""
    settings = load(config)
    which = chosen(list(settings.redis), service, "redis")

    async def of_section(source: Source) -> Captured:
        from remediator import redis_diagnoses  # noqa: PLC0415
        from remediator.captured import Captured  # noqa: PLC0415

        return Captured(*await redis_diagnoses.section(source.settings.redis[source.service], section))

    if section:
        answer(settings, which, "redis:info", of_section, as_json=as_json)
    else:
        tell(settings, which, "redis:info", "redis_info", as_json=as_json)


@app.command("redis:pool-stats")
def pool_stats(service: Service = "", config: Config = CONFIG, as_json: AsJson = False) -> None:
    """Connections by name, address and user: how many, how long idle, which commands."""
    settings = load(config)
    tell(settings, chosen(list(settings.redis), service, "redis"), "redis:pool-stats", "redis_clients", as_json=as_json)


@app.command("redis:keys")
def keys(service: Service = "", config: Config = CONFIG, as_json: AsJson = False) -> None:
    """A bounded sample of the keys by size and prefix; never a key's whole name."""
    settings = load(config)
    tell(settings, chosen(list(settings.redis), service, "redis"), "redis:keys", "redis_keys", as_json=as_json)
