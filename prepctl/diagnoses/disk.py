"""`disk:usage`, `disk:docker`: what is full and what fills it. Deleting is `prepctl act prune_docker`."""

from __future__ import annotations

import typer

from prepctl.diagnoses.asking import CONFIG, AsJson, Config, load, tell

app = typer.Typer()


@app.command("disk:usage")
def usage(config: Config = CONFIG, as_json: AsJson = False) -> None:
    """Room and inodes of each file system that is seen from here, and the largest folders beside the journal."""
    tell(load(config), "", "disk:usage", "disk_use", as_json=as_json)


@app.command("disk:docker")
def docker(config: Config = CONFIG, as_json: AsJson = False) -> None:
    """The engine's own count of its disk, its largest images, and containers whose logs grow without an end."""
    tell(load(config), "", "disk:docker", "docker_disk", as_json=as_json)
