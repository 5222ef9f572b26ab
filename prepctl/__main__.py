"""Entry point of `prepctl`: runs a command and turns its end into words on stderr and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from pathlib import Path

from prepctl import plugins, show
from prepctl.cli import app
from prepctl.errors import Exit, Failure

GONE = 141
"""As a shell tells of a program that SIGPIPE ended: who read the output (`| head`) has gone."""


def main() -> None:
    """Console script. Never shows a traceback for what a person can put right.

    Typer itself ends wrong usage with 2, a declined question with 1, and Ctrl-C with 130.
    """
    # Closed ones (`>&-`) are None, and nothing can be asked of them.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - until the end of the process
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    plugins.add_to(app)
    output = _watched()
    try:
        code = _run(output)
        sys.stdout.flush()
    except OSError as error:  # the only file that nobody has named is the one that this is written to
        if error.errno != errno.EPIPE:
            _complain(Failure(Exit.USAGE, f"The output cannot be written: {error.strerror or error}."))
        code = GONE if error.errno == errno.EPIPE else Exit.USAGE
        _forget_output()
    sys.exit(code)


def _run(output: select.poll) -> int:
    try:
        app(prog_name="prepctl")
    except Failure as failure:
        _complain(failure)
        return failure.code
    except SystemExit as ended:
        # Typer and Rich take a closed pipe for a failure of the command.
        nobody_reads = any(found & select.POLLERR for _, found in output.poll(0))
        return GONE if ended.code == 1 and nobody_reads else int(ended.code or 0)
    return Exit.DONE


def _complain(failure: Failure) -> None:
    out = show.console(errors=True)
    for line in failure.message.split("\n"):
        out.print(show.text(line, "bold red"), soft_wrap=True)
    if failure.do:
        out.print(show.text(failure.do), soft_wrap=True)


def _watched() -> select.poll:
    """The output, to be asked whether its other end is closed; a copy, since Rich turns the real one away then."""
    watched = select.poll()
    with contextlib.suppress(OSError, ValueError):  # there may be no output at all
        watched.register(os.dup(sys.stdout.fileno()), 0)
    return watched


def _forget_output() -> None:
    """What is left in the buffer cannot be written; the interpreter would try again at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())


if __name__ == "__main__":
    main()
