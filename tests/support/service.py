"""Our own programs as processes: to be killed at any moment, and to be judged by exit code and log."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.daemon import Daemon
from tests.support.run import Run
from tests.support.waiting import fetch


class Service(Daemon):
    """A console script (`prep-exporter`), a module (`python -m demo.inbox`) or any program.

    argv        `prep-…`, `prepctl` and `python` are taken from the environment that runs the tests
    ready_url   it is ready when a GET of this address answers below 400
    ready_log   it is ready when its log matches this pattern; with neither it is ready at once
    env         variables beside ours; a value of None takes one away
    """

    def __init__(
        self,
        run: Run,
        argv: Sequence[str | Path],
        *,
        ready_url: str | None = None,
        ready_log: str | None = None,
        env: Mapping[str, str | None] | None = None,
        name: str | None = None,
        start_seconds: float = 20.0,
    ) -> None:
        command = [str(word) for word in argv]
        super().__init__(run, name or Path(command[0]).name)
        beside = Path(sys.executable).parent / command[0]
        self._argv = [str(beside) if beside.exists() else command[0], *command[1:]]
        self._env = dict(env or {})
        self.ready_url = ready_url
        self._ready_log = re.compile(ready_log) if ready_log else None
        self._log_start = 0
        self.start_seconds = start_seconds

    def argv(self) -> list[str]:
        # A new process must prove itself by what it says, not by what its predecessor said.
        self._log_start = len(self.log_text())
        return self._argv

    def env(self) -> Mapping[str, str]:
        merged: dict[str, str | None] = {**os.environ, "PYTHONUNBUFFERED": "1", **self._env}
        return {key: value for key, value in merged.items() if value is not None}

    def ready(self) -> bool:
        if self._ready_log is not None and not self._ready_log.search(self.log_text()[self._log_start :]):
            return False
        return self.ready_url is None or fetch(self.ready_url, timeout=2).status < 400

    def run_to_end(self, deadline: float = 30.0) -> int:
        """Start it without waiting until it is ready, and wait until it ends; its exit code."""
        self.launch()
        return self.wait_exit(deadline)

    def launch(self) -> None:
        """Start it and do not wait until it is ready."""
        self._process = self.run.spawn(self.argv(), self.log, stop=self.stop_signal, env=self.env(), cwd=self.folder)

    def terminate(self, deadline: float = 15.0) -> int:
        """SIGTERM, and wait for the end it chooses by itself; its exit code. Raises NotInTime when it hangs."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(deadline)

    @property
    def words(self) -> str:
        """What its last start has said."""
        return self.log_text()[self._log_start :]
