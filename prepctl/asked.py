"""What every command that asks the remediator shares: the options before it, and the ways to give a reason and JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from prepctl.client import Client
from prepctl.errors import Exit, Failure

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON, for scripts.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it goes into the journal and is shown to everyone.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """The options before the command."""

    client: Client
    who: str


def asked_of(context: typer.Context) -> Asked:
    """Those of this call."""
    asked = context.obj
    if not isinstance(asked, Asked):
        raise Failure(Exit.USAGE, "prepctl was called without its options.")
    return asked


def as_json(answer: Any) -> None:
    """The whole answer, for scripts."""
    typer.echo(json.dumps(answer, indent=2, sort_keys=True))
