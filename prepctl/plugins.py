"""Commands that other packages add: entry points of the group `prepctl.commands`.

An entry point is a function that takes the arguments after its name and gives the exit code. It is loaded when it is
called, so that a package that cannot be imported harms no other command.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

import typer

from prepctl.errors import Exit, Failure

GROUP = "prepctl.commands"
_AS_THEY_ARE = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_to(app: typer.Typer) -> None:
    """Make a command of each; one of our own names is never taken over."""
    groups = (group.typer_instance for group in app.registered_groups)
    own = {command.name for each in (app, *groups) if each is not None for command in each.registered_commands}
    for found in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        if found.name not in own:
            said = f"Of {found.value.partition(':')[0]}; `{found.name} --help` tells more."
            app.command(found.name, help=said, context_settings=_AS_THEY_ARE, add_help_option=False)(_calling(found))


def _calling(found: EntryPoint) -> Callable[[typer.Context], None]:
    def call(context: typer.Context) -> None:
        try:
            run = found.load()
        except ImportError as error:
            raise Failure(Exit.USAGE, f"{found.name} cannot run here: {error}", "Install what it needs.") from error
        raise typer.Exit(run(context.args))

    return call
