"""Entry point of `prepctl`: runs a command and turns its end into words on stderr and an exit code."""

from __future__ import annotations

import sys

from prepctl import plugins, show
from prepctl.cli import app
from prepctl.errors import Failure


def main() -> None:
    """Console script. Never shows a traceback for what a person can put right.

    Typer itself ends wrong usage with 2, a declined question with 1, and Ctrl-C with 130.
    """
    plugins.add_to(app)
    try:
        app(prog_name="prepctl")
    except Failure as failure:
        out = show.console(errors=True)
        for line in failure.message.split("\n"):
            out.print(show.text(line, "bold red"), soft_wrap=True)
        if failure.do:
            out.print(show.text(failure.do), soft_wrap=True)
        sys.exit(failure.code)


if __name__ == "__main__":
    main()
