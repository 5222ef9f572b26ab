"""The peer: Debian's `webhook`, which runs a command for each delivery. It keeps nothing and asks nobody.

Its command writes a line with its own time: what it has done, counted where it is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import Run, Service, free_port, program

_COMMAND = """#!/bin/sh
echo "$(date +%s.%N) $1" >>"$(dirname "$0")/done"
"""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A running one. `url` is its hook's."""

    url: str
    pid: int
    folder: Path

    def done(self) -> list[tuple[float, str]]:
        """What was done: when (UNIX seconds), and for which service; it gets the first alert of a delivery only."""
        file = self.folder / "done"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(float(at), service) for at, service in (line.split() for line in lines)]


@contextmanager
def webhook(run: Run) -> Iterator[Webhook]:
    """`webhook` with one hook, as its manual has it."""
    folder, port = run.folder("webhook"), free_port()
    command, hooks = folder / "command", folder / "hooks.json"
    command.write_text(_COMMAND)
    command.chmod(0o755)
    given = [{"source": "payload", "name": "alerts.0.labels.service"}]
    hook = {"id": "alertmanager", "execute-command": str(command), "pass-arguments-to-command": given}
    hooks.write_text(json.dumps([hook]))
    argv = [program("webhook"), "-hooks", str(hooks), "-ip", "127.0.0.1", "-port", str(port)]
    service = Service(run, argv, ready_url=f"http://127.0.0.1:{port}/", name="webhook").start()
    try:
        yield Webhook(f"http://127.0.0.1:{port}/hooks/alertmanager", service.pid, folder)
    finally:
        service.kill()
