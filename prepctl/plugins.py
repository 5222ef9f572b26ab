"""Commands that other packages add: entry points of the group `prepctl.commands`.

An entry point is a function that takes the arguments after its name and gives the exit code. It is loaded when it is
called, so that a package that cannot be imported harms no other command.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

import typer

from prepctl.errors import Exit, Failure

GROUP = "prepctl.commands"
_SENTENCE = re.compile(r'"""(?:`prepctl [^`]*`: )?([^.\n]+\.)')
_AS_THEY_ARE = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_to(app: typer.Typer) -> None:
    """Make a command of each; one of our own names is never taken over."""
    groups = (group.typer_instance for group in app.registered_groups)
    own = {command.name for each in (app, *groups) if each is not None for command in each.registered_commands}
    for found in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        if found.name not in own:
            app.command(found.name, help=_said(found), context_settings=_AS_THEY_ARE, add_help_option=False)(
                _calling(found)
            )


def _said(found: EntryPoint) -> str:
    """The first sentence of its module, which is read and not run; of one that cannot be read where it comes from."""
    module = found.value.partition(":")[0]
    try:
        spec = find_spec(module)
        with Path(spec.origin if spec and spec.origin else "").open(encoding="utf-8") as source:
            first = _SENTENCE.match(source.readline())
    except (ImportError, OSError, ValueError):
        first = None
    if first is None:
        return f"Of {module}; `{found.name} --help` tells more."
    return first[1][:1].upper() + first[1][1:]


def _calling(found: EntryPoint) -> Callable[[typer.Context], None]:
    def call(context: typer.Context) -> None:
        try:
            run = found.load()
        except ImportError as error:
            raise Failure(Exit.USAGE, f"{found.name} cannot run here: {error}", "Install what it needs.") from error
        raise typer.Exit(run(context.args))

    return call
