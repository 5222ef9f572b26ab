"""A real Docker Engine for tests, the one that is there or one of the run's own, with containers like Compose's.

An engine of our own has no network (`--bridge=none`), so it changes nothing on the host; containers run with
`network="none"` or `"host"`. Images come from no registry: the base image is a static busybox.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
from docker.errors import NotFound
from docker.models.containers import Container

from tests.support.daemon import Daemon
from tests.support.run import MissingProgram, Run, program
from tests.support.waiting import wait_until

RUN_LABEL = "prep-ops.test-run"
_CHECKOUT = Path(__file__).parents[2]

# moby keeps the last 256 events (daemon/events, eventsLimit); an answer this long may have lost its beginning.
_EVENTS_KEPT = 256
# Ends at once when told to: a shell as process 1 has no default action for SIGTERM, hence the trap.
OBEDIENT = ("sh", "-c", "trap 'exit 0' TERM INT; sleep 2147483647 & wait")
# Ignores SIGTERM: `docker restart` waits out the whole stop_timeout, then kills it.
STUBBORN = ("sh", "-c", "trap '' TERM INT; while :; do sleep 2147483647; done")


class Dockerd(Daemon):
    """A dockerd of the run's own, with its own data, containerd and socket."""

    start_seconds = 60.0
    stop_seconds = 30.0

    def __init__(self, run: Run, *, name: str = "docker", data: Path | None = None) -> None:
        """`data`: a folder for images, containers and volumes; without it one of the run's own."""
        if os.geteuid() != 0:
            raise MissingProgram(
                "no Docker Engine answers, and only root can start one: run `make setup`, then as root"
            )
        super().__init__(run, name)
        self.data = data or self.folder / "data"
        self.socket = self.folder / "docker.sock"

    def argv(self) -> list[str]:
        folder = self.folder
        # containerd is shared with a system-wide one where that runs: names of our own keep ours apart.
        spaces = [
            f"--containerd-namespace=t-{self.run.id}",
            f"--containerd-plugins-namespace=p-{self.run.id}",
        ]
        places = [
            f"--data-root={self.data}",
            f"--exec-root={folder}/x",
            f"--pidfile={folder}/pid",
            f"--host=unix://{self.socket}",
        ]
        network = [
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ]
        config = folder / "daemon.json"
        config.write_text("{}")  # else the machine's own /etc/docker/daemon.json would count
        return [
            program("dockerd"),
            f"--config-file={config}",
            *places,
            *spaces,
            *network,
            "--shutdown-timeout=3",
            "--log-level=warn",
        ]

    def ready(self) -> bool:
        return _answers(self.socket)

    def kill(self) -> None:
        """kill -9, its containerd too; the containers live on until the next start, as in a real crash."""
        super().kill()
        # A containerd that init has not reaped yet counts as alive for the next dockerd, which waits for it in vain.
        (self.folder / "x" / "containerd" / "containerd.pid").unlink(missing_ok=True)


class DockerEngine:
    """An engine, and the containers that this run has made on it.

    host     `unix://…`, for DOCKER_HOST
    socket   the path of its socket
    daemon   the dockerd when it is the run's own, which may be frozen, killed and restarted; None for a shared engine
    """

    def __init__(self, run: Run, host: str, daemon: Dockerd | None) -> None:
        self.run = run
        self.host = host
        self.socket = Path(host.removeprefix("unix://"))
        self.daemon = daemon
        self.client = docker.DockerClient(base_url=host, version="1.41", timeout=60)
        self._image: str | None = None
        if daemon is None:  # one of our own takes its containers with it
            run.note_containers(host, f"{RUN_LABEL}={run.id}")

    @classmethod
    def connect(cls, run: Run) -> DockerEngine:
        """The engine of DOCKER_HOST, of build/engine/env or of this machine, if one answers; else the run's own."""
        for host in _known_hosts():
            if _answers(Path(host.removeprefix("unix://"))):
                return cls(run, host, None)
        return cls.own(run)

    @classmethod
    def own(cls, run: Run, data: Path | None = None) -> DockerEngine:
        """An engine of the run's own, for tests that freeze, kill, restart or clean it, or fill its disk (`data`)."""
        daemon = Dockerd(run, data=data).start()
        return cls(run, f"unix://{daemon.socket}", daemon)

    def base_image(self) -> str:
        """A tiny image (busybox, about 2 MB) made without any registry; once a run."""
        if self._image is None:
            tag = f"{self.run.id}-{uuid4().hex[:6]}"
            self.client.api.import_image_from_data(
                _busybox_tar(),
                repository="prep-test/busybox",
                tag=tag,
                changes=["ENV PATH=/bin", f"LABEL {RUN_LABEL}={self.run.id}"],
            )
            self._image = f"prep-test/busybox:{tag}"
        return self._image

    def project(self) -> str:
        """The name of a Compose project that nobody else has."""
        return f"t{uuid4().hex[:10]}"

    def service_container(
        self,
        project: str,
        service: str,
        *,
        labels: Mapping[str, str] | None = None,
        command: Sequence[str] = OBEDIENT,
        number: int = 1,
        oneoff: bool = False,
        stop_timeout: int | None = None,
        stop_signal: str | None = None,
        healthcheck: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        start: bool = True,
        image: str | None = None,
        network: str = "none",
        **host_options: Any,
    ) -> ServiceContainer:
        """A container as Docker Compose makes it: its name `<project>-<service>-<number>` and its labels.

        oneoff        as `docker compose run` makes one: the same service, another name
        stop_timeout  seconds it is given to end before it is killed (Docker's default 10)
        healthcheck   `{"test": [...], "interval": nanoseconds, …}`
        host_options  limits and the like, as docker's `create_host_config` takes them (`mem_limit`, …)
        """
        name = f"{project}-{service}-run-{uuid4().hex[:12]}" if oneoff else f"{project}-{service}-{number}"
        fixed = {
            "com.docker.compose.project": project,
            "com.docker.compose.service": service,
            "com.docker.compose.container-number": str(number),
            "com.docker.compose.oneoff": "True" if oneoff else "False",
            "com.docker.compose.version": "2.39.0",
        }
        made = self.client.api.create_container(
            image or self.base_image(),
            list(command),
            name=name,
            labels={**fixed, **(labels or {}), RUN_LABEL: self.run.id},
            stop_timeout=stop_timeout,
            stop_signal=stop_signal,
            healthcheck=dict(healthcheck) if healthcheck else None,
            environment=dict(environment or {}),
            host_config=self.client.api.create_host_config(network_mode=network, **host_options),
        )
        container = ServiceContainer(self, self.client.containers.get(made["Id"]))
        if start:
            container.container.start()
        return container

    def events(self, since: float, **filters: str) -> list[dict[str, Any]]:
        """Docker's events from `since` (UNIX seconds) to now, oldest first; by `id`, `action`, `type` if given.

        Raises AssertionError when the engine may have forgotten some.
        """
        # The engine takes fractions of a second as text, which the SDK's types do not know.
        window: Any = {"since": f"{since:.9f}", "until": f"{time.time():.9f}"}
        stream = self.client.api.events(**window, decode=True)
        try:
            everything: list[dict[str, Any]] = list(stream)
        finally:
            stream.close()
        if len(everything) >= _EVENTS_KEPT:
            raise AssertionError(
                f"Docker keeps {_EVENTS_KEPT} events, and so many came since {since}: some may be lost"
            )
        return [event for event in everything if _matches(event, filters)]

    def remove_all(self, project: str | None = None) -> None:
        """Remove this run's containers (of one project)."""
        labels = [f"{RUN_LABEL}={self.run.id}"] + ([f"com.docker.compose.project={project}"] if project else [])
        for container in self.client.containers.list(all=True, filters={"label": labels}):
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)

    def close(self) -> None:
        """Remove what this run has made, and end the engine if it is the run's own."""
        if self.daemon is None or self.daemon.alive:
            self.remove_all()
            if self._image is not None:
                self.client.images.remove(self._image, force=True)
        self.client.close()
        if self.daemon is not None:
            self.daemon.stop()


class ServiceContainer:
    """One container, read from the engine anew at every question."""

    def __init__(self, engine: DockerEngine, container: Container) -> None:
        self.engine = engine
        self.container = container
        self.id: str = str(container.id)
        self.name: str = str(container.name)

    def state(self) -> dict[str, Any]:
        """`State` of Docker's inspect."""
        self.container.reload()
        return dict(self.container.attrs["State"])

    @property
    def status(self) -> str:
        """`running`, `exited`, `restarting`, …"""
        return str(self.state()["Status"])

    @property
    def started_at(self) -> float:
        """When its process was last started, UNIX seconds; 0.0 if never."""
        return unix_seconds(self.state()["StartedAt"])

    @property
    def pid(self) -> int:
        """Its first process, on the host; 0 when it does not run."""
        return int(self.state()["Pid"])

    def restarts(self, since: float) -> int:
        """How many restarts were asked of the engine since then and carried through, by its own events."""
        return self.count("restart", since)

    def count(self, action: str, since: float) -> int:
        """How many of its events (`start`, `die`, `kill`, `stop`, `restart`, …) there are since then (UNIX seconds)."""
        return len(self.engine.events(since, id=self.id, action=action))

    def wait_status(self, status: str, deadline: float = 15.0) -> None:
        """Wait until it has this status."""
        wait_until(lambda: self.status == status, f"{self.name} to be {status}", deadline)

    def exec(self, *argv: str) -> str:
        """Run a command in it to its end; its output. Raises AssertionError with the output when it fails."""
        # By the command line: the SDK leaves the socket of an attached exec open.
        done = subprocess.run(
            [program("docker"), "--host", self.engine.host, "exec", self.id, *argv],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"{argv} in {self.name} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def exec_in_background(self, *argv: str) -> str:
        """Begin a command in it (a person's shell, a migration) and leave it running; the exec's id."""
        made = self.engine.client.api.exec_create(self.id, list(argv))
        self.engine.client.api.exec_start(made["Id"], detach=True)
        wait_until(
            lambda: self.engine.client.api.exec_inspect(made["Id"])["Running"],
            f"{argv} to run in {self.name}",
            10,
        )
        return str(made["Id"])

    def logs(self) -> str:
        """All it has said."""
        said = self.container.logs(stream=False)
        assert isinstance(said, bytes)
        return said.decode(errors="replace")

    def remove(self) -> None:
        """Remove it, whatever it does; nothing when it is gone."""
        with contextlib.suppress(NotFound):
            self.container.remove(force=True, v=True)


def unix_seconds(stamp: str) -> float:
    """Docker's times (RFC 3339 with nanoseconds) in UNIX seconds; year 1 (never) is 0.0."""
    if stamp.startswith("0001-"):
        return 0.0
    found = re.fullmatch(r"(.*?)(\.\d+)?Z", stamp)
    if found is None:
        raise ValueError(f"{stamp!r} is not a time in UTC as Docker writes it")
    return datetime.fromisoformat(f"{found[1]}+00:00").timestamp() + float(found[2] or 0)


def _matches(event: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    seen = {"id": event.get("Actor", {}).get("ID"), "action": event.get("Action"), "type": event.get("Type")}
    return all(seen[key] == value for key, value in wanted.items())


def _known_hosts() -> list[str]:
    hosts = [os.environ.get("DOCKER_HOST", "")]
    noted = _CHECKOUT / "build" / "engine" / "env"
    if noted.exists():
        found = re.search(r"DOCKER_HOST=(\S+)", noted.read_text())
        hosts.append(found.group(1) if found else "")
    hosts.append("unix:///var/run/docker.sock")
    # Tests read processes and cgroups of containers, so the engine must be on this machine.
    return [host for host in dict.fromkeys(hosts) if host.startswith("unix://") and Path(host[7:]).exists()]


def _answers(path: Path) -> bool:
    """Does an engine answer at this socket? (The SDK leaves the socket open when it cannot connect.)"""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5.0)
        try:
            client.connect(str(path))
            client.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return client.recv(64).split(b" ")[1:2] == [b"200"]
        except OSError:
            return False


def _busybox_tar() -> bytes:
    """A root file system with busybox under all its names."""
    binary = busybox()
    listed = subprocess.run([str(binary), "--list"], capture_output=True, text=True, timeout=10, check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "etc", "proc", "sys", "dev"):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
        tar.addfile(_entry("tmp", tarfile.DIRTYPE, 0o1777))
        for path, content in (
            ("bin/busybox", binary.read_bytes()),
            ("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n"),
        ):
            entry = _entry(path, tarfile.REGTYPE, 0o755)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for applet in set(listed.stdout.split()) - {"busybox"}:
            link = _entry(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
            link.linkname = "busybox"
            tar.addfile(link)
    return buffer.getvalue()


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type = kind
    entry.mode = mode
    return entry


def busybox() -> Path:
    """A static busybox: the installed one, else Debian's package unpacked under build/ and installed nowhere."""
    installed = shutil.which("busybox")
    if installed and _is_static(Path(installed)):
        return Path(installed)
    folder = _CHECKOUT / "build" / "tests"
    cached = folder / "busybox"
    if not cached.exists():
        folder.mkdir(parents=True, exist_ok=True)
        work = folder / f"unpack-{os.getpid()}"
        work.mkdir()
        try:
            _unpack_busybox(work)
            (work / "root" / "bin" / "busybox").replace(cached)
        except (OSError, subprocess.SubprocessError) as error:
            raise MissingProgram(
                f"no static busybox here, and Debian's could not be fetched ({error}): run `make setup`"
            ) from error
        finally:
            shutil.rmtree(work)
    return cached


def _unpack_busybox(work: Path) -> None:
    fetching = [program("apt-get"), "download", "busybox-static"]
    subprocess.run(fetching, cwd=work, capture_output=True, timeout=120, check=True)
    package = next(work.glob("busybox-static_*.deb"))
    unpacking = [program("dpkg-deb"), "--extract", package.name, "root"]
    subprocess.run(unpacking, cwd=work, capture_output=True, timeout=60, check=True)


def _is_static(binary: Path) -> bool:
    """Does it run without a loader? (A dynamic program names one, as /lib64/ld-linux-x86-64.so.2.)"""
    return re.search(rb"/ld(-linux|-musl)[\w.-]*\.so", binary.read_bytes()) is None


if __name__ == "__main__":
    print(busybox())  # fetched now, so that the tests need no network
