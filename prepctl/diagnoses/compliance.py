"""`compliance:stats`: how well the compliance engine's cache does. Restarting it is `prepctl act restart_service`."""

from __future__ import annotations

from typing import Annotated

import typer

from prepctl.diagnoses.asking import CONFIG, AsJson, Config, load, tell

app = typer.Typer()


@app.command("compliance:stats")
def stats(
    service: Annotated[str, typer.Option("--service", help="Label `service` of its metrics.")] = "python-compliance",
    config: Config = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Hit rate of the RegEngine cache within five minutes, an hour and a day, by Prometheus."""
    tell(load(config), service, "compliance:stats", "cache_hits", as_json=as_json)
