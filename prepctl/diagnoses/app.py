"""All reading commands of the handbook, a file a group; `cli.py` takes them over."""

from __future__ import annotations

import typer

from prepctl.diagnoses import compliance, containers, db, disk, payments, redis

app = typer.Typer()
for group in (payments, compliance, redis, db, disk, containers):
    app.registered_commands += group.app.registered_commands
