"""A server as one process.

Start it and wait until it answers, freeze it, kill it, start it again in the same place.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from tests.support import processes
from tests.support.processes import Identity
from tests.support.run import Run
from tests.support.waiting import NotInTime, wait_until


class ServerFailed(AssertionError):
    """A server ended while it was being started; the message ends with its log."""


class Daemon:
    """One server process of a test run. Subclasses say how it is called (`argv`) and when it answers
    (`ready`).

    run      the run it belongs to, which ends it in the end
    name     its folder's and log's name
    folder   its own folder, kept over restarts
    log      file with all it has said, over all its starts
    """

    stop_signal = signal.SIGTERM
    start_seconds = 30.0
    stop_seconds = 15.0

    def __init__(self, run: Run, name: str, user: str | None = None) -> None:
        self.run = run
        self.name = name
        self.folder = run.folder(name, user)
        self.log = self.folder.parent / f"{self.folder.name}.log"
        self.log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    # What a subclass says.

    def argv(self) -> list[str]:
        """The command, in the foreground."""
        raise NotImplementedError

    def env(self) -> Mapping[str, str] | None:
        """Its whole environment; None = ours."""
        return None

    def ready(self) -> bool:
        """Does it answer? OSError and False mean not yet."""
        raise NotImplementedError

    # What a test does.

    def start(self) -> Self:
        """Start it and wait until it is ready; nothing when it runs.

        Raises ServerFailed or NotInTime with its log.
        """
        if self.alive:
            return self
        self._process = self.run.spawn(self.argv(), self.log, stop=self.stop_signal, env=self.env(), cwd=self.folder)
        try:
            wait_until(self._settled, f"{self.name} to answer", self.start_seconds, 0.03, self.tail)
        except NotInTime:
            self.kill()
            raise
        return self

    def _settled(self) -> bool:
        code = self.exit_code
        if code is not None:
            raise ServerFailed(f"{self.name} ended with {code} while starting\n{self.tail()}")
        return self.ready()

    def stop(self) -> None:
        """End it in order (thawed first); by force what is left after `stop_seconds`."""
        identity = self.identity
        if identity is not None:
            processes.end([(identity, self.stop_signal)], self.stop_seconds)
        self._reap()

    def kill(self) -> None:
        """kill -9, its children too: a crash."""
        identity = self.identity
        if identity is not None:
            processes.kill(processes.tree(identity))
        self._reap()

    def restart(self) -> Self:
        """Stop and start; same port, same data."""
        self.stop()
        return self.start()

    def freeze(self) -> None:
        """SIGSTOP the whole tree: connections stay open and nothing answers."""
        processes.freeze(self._living())

    def thaw(self) -> None:
        """SIGCONT the whole tree."""
        processes.thaw(self._living())

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Self]:
        """`with server.frozen():` freezes it for the block."""
        self.freeze()
        try:
            yield self
        finally:
            self.thaw()

    def signal(self, number: signal.Signals) -> None:
        """Send one signal to the server's main process."""
        self._living().send(number)

    def wait_exit(self, deadline: float = 30.0) -> int:
        """Wait until it ends by itself; its exit code (negative: the signal).

        Raises NotInTime with the log.
        """
        if self._process is None:
            raise AssertionError(f"{self.name} was never started")
        try:
            return self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise NotInTime(f"{self.name} did not end within {deadline:g} s\n{self.tail()}") from None

    @property
    def identity(self) -> Identity | None:
        """The living main process; None when it is down."""
        if self._process is None or self._process.poll() is not None:
            return None
        return Identity.of(self._process.pid)

    @property
    def alive(self) -> bool:
        return self.identity is not None

    @property
    def pid(self) -> int:
        return self._living().pid

    @property
    def exit_code(self) -> int | None:
        """How the last process ended (negative: the signal); None while it runs."""
        return None if self._process is None else self._process.poll()

    def log_text(self) -> str:
        """All that it has said so far."""
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = 30) -> str:
        """The last lines of its log, for a failure's message."""
        return f"-- {self.log} ends with:\n" + "\n".join(self.log_text().splitlines()[-lines:])

    def wait_log(self, text: str, deadline: float = 10.0, since: int = 0) -> str:
        """Wait until the log holds `text` after `since` characters; the line it stands in."""

        def found() -> str:
            said = self.log_text()[since:]
            return next((line for line in said.splitlines() if text in line), "")

        return wait_until(found, f"{self.name} to log {text!r}", deadline, seen=self.tail)

    def _living(self) -> Identity:
        identity = self.identity
        if identity is None:
            raise AssertionError(f"{self.name} is not running\n{self.tail()}")
        return identity

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def write_config(path: Path, text: str) -> Path:
    """Write a server's file in one step, so that a reload never reads half of it."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.replace(path)
    return path
