"""One run of the tests: its folder, what it has started, and the clearing away of both, also after a crash.

In: a folder for temporary files. Out: processes written down before they begin, so that the next run can end what a
killed one left behind. It must never touch a process, a container or a folder that no run of ours has written down.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support import processes
from tests.support.processes import Identity

MARKER = "PREP_TEST_RUN"

# containerd's socket lies 50 characters below it, and a socket's path has at most 107 (unix(7)).
_LONGEST_BASE = 55

# The child writes itself down and then *becomes* the server: there is no moment in which it runs unrecorded.
_REGISTER = 'read -r stat </proc/self/stat && echo "process $2 $stat" >>"$1" && shift 2 && exec "$@"'


class MissingProgram(AssertionError):
    """A server that the tests need is not installed: a failure, never a skip."""


def program(*names: str) -> str:
    """The first of these programs that is there, searched in the usual folders for servers too."""
    places = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    for name in names:
        found = shutil.which(name, path=places)
        if found:
            return found
    raise MissingProgram(f"{' or '.join(names)} is not installed: run `make setup` first")


class Run:
    """The folder and the processes of one run of the tests.

    path    everything that the run writes lies below it; short, since sockets' paths may have 107 characters
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._record = path / "record"
        self._counts: dict[str, int] = {}
        self._spawned: list[subprocess.Popen[bytes]] = []

    @classmethod
    def open(cls, base: Path | None = None) -> Run:
        """Clear away what dead runs have left under `base`, then begin a new one."""
        base = base or default_base()
        if len(str(base)) > _LONGEST_BASE:
            raise ValueError(f"{base} is too long for the sockets below it: set TMPDIR to a short path, as /tmp")
        with _locked_base(base):
            sweep_locked(base)
            # Hexadecimal, since the name is part of container labels, image tags and containerd's namespaces.
            path = base / f"r{secrets.token_hex(4)}"
            path.mkdir(mode=0o711)  # servers that run as another user must get through to their own folder
            (path / "boot").write_text(processes.boot_id())
            lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            # Held while we live; the kernel lets go of it when we are killed.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(path, lock)

    @property
    def id(self) -> str:
        """A word that no other run on this machine has."""
        return self.path.name

    @property
    def marker(self) -> str:
        """In the environment of everything this run starts."""
        return f"{MARKER}={self.path}"

    def folder(self, name: str, user: str | None = None) -> Path:
        """A new folder `<name>-<n>` of the run, for `user` alone (ours by default)."""
        self._counts[name] = self._counts.get(name, 0) + 1
        path = self.path / f"{name}-{self._counts[name]}"
        path.mkdir(mode=0o700)
        if user is not None and os.geteuid() == 0:
            entry = pwd.getpwnam(user)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        return path

    def spawn(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        stop: signal.Signals = signal.SIGTERM,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own.

        log     file its output is added to
        stop    the signal that ends it in order, for the run's end or the next run
        env     its environment; None = ours
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _REGISTER, "sh", str(self._record), stop.name, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**(os.environ if env is None else env), MARKER: str(self.path)},
                cwd=cwd,
                start_new_session=True,
            )
        self._spawned.append(process)
        return process

    def note_containers(self, docker_host: str, label: str) -> None:
        """Write down that containers with this label on this engine are ours to remove."""
        with self._record.open("a") as record:
            record.write(f"containers {docker_host} {label}\n")

    def close(self) -> None:
        """End everything of this run and remove its folder (PREP_KEEP_RUN=1 keeps the folder for a look)."""
        clear(self.path, keep=True)
        for process in self._spawned:
            process.wait(10)
        if os.environ.get("PREP_KEEP_RUN") != "1":
            # Nobody begins or clears meanwhile: a folder that has just lost its lock looks like a dead run's.
            with _locked_base(self.path.parent):
                shutil.rmtree(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def default_base() -> Path:
    """Where runs lie: outside the checkout, which other users (postgres) may not be able to enter."""
    return Path(tempfile.gettempdir()) / f"prep-ops-tests-{os.geteuid()}"


@contextlib.contextmanager
def _locked_base(base: Path) -> Iterator[None]:
    """One process at a time begins or clears runs. Refuses a folder that somebody else could have prepared for us."""
    base.mkdir(mode=0o711, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{base} is not a folder that only this user can write to: remove it")
    lock = os.open(base / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def sweep(base: Path | None = None) -> list[str]:
    """Clear away every run under `base` whose own process is dead; the names of those."""
    base = base or default_base()
    if not base.exists():
        return []
    with _locked_base(base):
        return sweep_locked(base)


def sweep_locked(base: Path) -> list[str]:
    """As sweep(), for a caller that holds the folder's lock."""
    cleared = []
    for path in sorted(base.glob("r*/")):
        lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its run lives
        finally:
            os.close(lock)
        clear(path)
        cleared.append(path.name)
    return cleared


def clear(path: Path, keep: bool = False) -> None:
    """End all that a run has written down, unmount what lies below its folder, and remove the folder."""
    boot = path / "boot"
    if boot.exists() and boot.read_text() == processes.boot_id():
        known, containers = _read_record(path / "record")
        for host, label in containers:
            _remove_containers(host, label)
        processes.end(known)
        # Orphans: what a killed server had started itself (containerd's shims and their containers).
        orphans = processes.carrying(f"{MARKER}={path}")
        processes.kill([each for orphan in orphans for each in processes.tree(orphan)])
        processes.unmount_below(path)
    if not keep:
        shutil.rmtree(path)


def _read_record(record: Path) -> tuple[list[tuple[Identity, signal.Signals]], list[tuple[str, str]]]:
    known: list[tuple[Identity, signal.Signals]] = []
    containers: list[tuple[str, str]] = []
    if not record.exists():
        return known, containers
    for line in record.read_text().splitlines():
        kind, first, rest = line.split(" ", 2)
        if kind == "process":
            known.append((Identity.parse(rest), signal.Signals[first]))
        elif kind == "containers":
            containers.append((first, rest))
    # Later ones may need earlier ones to end in order (a replica its primary): last in, first out.
    return known[::-1], containers


def _remove_containers(host: str, label: str) -> None:
    """Remove a run's containers, images and networks from an engine that outlives the run; an engine that is gone has none."""
    docker = [program("docker"), "--host", host]
    chosen = ["--quiet", "--filter", f"label={label}"]
    try:
        for listing, removing in (
            (["ps", "--all"], ["rm", "--force", "--volumes"]),
            (["image", "ls"], ["image", "rm", "--force"]),
            (["network", "ls"], ["network", "rm"]),
        ):
            listed = subprocess.run(
                [*docker, *listing, *chosen], capture_output=True, text=True, timeout=20, check=True
            )
            ids = sorted(set(listed.stdout.split()))
            if ids:
                subprocess.run([*docker, *removing, *ids], capture_output=True, timeout=60, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"what has the label {label} on {host} could not be removed: {error}")


if __name__ == "__main__":
    for name in sweep():
        print(f"cleared away what the killed test run {name} had left behind")
