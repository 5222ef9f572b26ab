"""The demo's stack as an object: bring it up, ask its parts, take it down. Nothing is decided here.

Everything goes through the shipped docker-compose.yml; what differs (images, rendered configuration, secrets) are
variables. The engine is whatever DOCKER_HOST says (`scripts/engine run` sets it).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "demo"
PROJECT = "prep"
PORTS = {
    "prometheus": ("PREP_PORT_PROMETHEUS", 9090),
    "alertmanager": ("PREP_PORT_ALERTMANAGER", 9093),
    "exporter": ("PREP_PORT_EXPORTER", 11470),
    "remediator": ("PREP_PORT_REMEDIATOR", 11471),
    "inbox": ("PREP_PORT_INBOX", 8025),
    "switch": ("PREP_PORT_SWITCH", 8026),
    "grafana": ("PREP_PORT_GRAFANA", 3001),
}
Json = Any


class StackError(Exception):
    """The stack cannot be brought up or asked; the message says what failed and what was printed."""


def read_env(path: Path) -> dict[str, str]:
    """`NAME=value` lines, with or without `export`; empty when the file is not there."""
    if not path.exists():
        return {}
    pairs = (line.removeprefix("export ").partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs if not name.startswith("#")}


@dataclass
class Stack:
    """One run of the compose file. `config` is the rendered profile, `secrets` the folder of secret files."""

    config: Path = BUILD / "config"
    secrets: Path = BUILD / "secrets"
    extra: dict[str, str] = field(default_factory=dict)
    _docker: docker.DockerClient | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What compose and its file see."""
        return {
            **os.environ,
            **read_env(BUILD / "images.env"),
            "PREP_CONFIG_DIR": str(self.config),
            "PREP_SECRETS_DIR": str(self.secrets),
            "COMPOSE_PROJECT_NAME": PROJECT,
            **self.extra,
        }

    def compose(self, *args: str, timeout: float = 300.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`docker compose ARGS`. Raises StackError with what was printed."""
        command = self.command(*args)
        try:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise StackError(f"docker compose {' '.join(args)}: no end within {timeout:.0f} s") from error
        if check and done.returncode:
            raise StackError(f"docker compose {' '.join(args)} failed:\n{done.stderr[-3000:]}")
        return done

    def command(self, *args: str) -> list[str]:
        """The argument vector for compose, for whoever runs it himself."""
        binary = Path(sysconfig.get_path("scripts")) / "docker-compose"
        return [str(binary), "--file", str(ROOT / "docker-compose.yml"), "--profile", "demo", *args]

    def up(self, timeout: float = 240.0) -> None:
        """Start everything and wait until every health check passes."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", f"{timeout:.0f}", "--no-build", timeout=timeout + 60)

    def down(self) -> None:
        """Stop and remove everything, volumes as well."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)

    @property
    def docker(self) -> docker.DockerClient:
        """The engine itself: what the demo counts effects with."""
        if self._docker is None:
            self._docker = docker.from_env(timeout=20)
        return self._docker

    def services(self) -> list[str]:
        """Services of the demo that have a running container."""
        listed = self.docker.containers.list(filters={"label": f"com.docker.compose.project={PROJECT}"})
        return sorted(found.labels["com.docker.compose.service"] for found in listed)

    def inspect(self, service: str) -> Json:
        """`docker inspect` of a service's container."""
        return self.docker.api.inspect_container(f"{PROJECT}-{service}-1")

    def logs(self, service: str, since: float) -> str:
        """Both streams of a service's log since a UNIX time."""
        raw = self.docker.api.logs(f"{PROJECT}-{service}-1", since=since, stdout=True, stderr=True)
        return bytes(raw).decode(errors="replace")

    def fault(self, *args: str, timeout: float = 60.0) -> list[Json]:
        """Run `python -m demo.faults` inside the load container; its JSON lines."""
        done = self.compose("exec", "-T", "load", "python", "-m", "demo.faults", *args, timeout=timeout)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def start_fault(self, *args: str) -> subprocess.Popen[str]:
        """The same, left running; the caller reads its first line and ends it."""
        command = self.command("exec", "-T", "load", "python", "-m", "demo.faults", *args)
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )

    def sql(self, statement: str) -> str:
        """One value from the primary, asked by its superuser inside the container."""
        done = self.compose(
            "exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "prepchef", "-AtX", "-c", statement
        )
        return done.stdout.strip()

    def url(self, service: str, path: str = "") -> str:
        """Where a published service answers on this machine."""
        variable, default = PORTS[service]
        return f"http://127.0.0.1:{self.environment.get(variable, default)}{path}"

    def get(self, service: str, path: str, token: str = "", body: Json = None) -> Json:
        """JSON from a published service; with a body it is POSTed.

        Raises OSError when it does not answer, StackError when it says no.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url(service, path), data)  # noqa: S310 - http on 127.0.0.1
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise StackError(f"{service} answers {error.code} to {path}: {error.read(300)!r}") from error

    def api(self, path: str, body: Json = None) -> Json:
        """The remediator's API with the operator's token; with a body it is POSTed."""
        return self.get("remediator", path, (self.secrets / "remediator_api_token").read_text().strip(), body)


def wait_for(what: str, ask: Callable[[], Json], seconds: float, pause: float = 0.5) -> Json:
    """Ask until the answer is true. Raises StackError after `seconds`, naming what was waited for."""
    deadline = time.monotonic() + seconds
    said = ""
    while time.monotonic() < deadline:
        try:
            if answer := ask():
                return answer
        except (OSError, StackError) as error:
            said = f" (last answer: {error})"
        time.sleep(pause)
    raise StackError(f"{what}: not within {seconds:.0f} s{said}")


def first_json(process: subprocess.Popen[str], keys: Sequence[str]) -> Json:
    """The first JSON line of a running fault, which must have these keys."""
    line = process.stdout.readline() if process.stdout else ""
    try:
        found = json.loads(line)
    except ValueError as error:
        process.kill()
        said = process.stderr.read() if process.stderr else ""
        raise StackError(f"the fault did not start: {line!r} {said[-500:]}") from error
    if missing := [key for key in keys if key not in found]:
        raise StackError(f"the fault says {found}, without {', '.join(missing)}")
    return found


def end(process: subprocess.Popen[str]) -> None:
    """End the client of a running fault. What it started in the container is bounded in time by itself."""
    process.kill()
    process.communicate()


class EngineEvents:
    """What the engine says of its containers and images as it happens, from now on to `stop`.

    Followed live: the engine remembers 256 events, and the health checks of a dozen containers fill that in half a
    minute. What each is called there: moby's events.
    """

    ACTIONS = ("restart", "start", "die", "oom", "destroy", "delete", "untag")

    def __init__(self) -> None:
        self._seen: list[tuple[str, str]] = []
        client = docker.from_env(timeout=3600)
        self._stream = client.events(decode=True, filters={"event": list(self.ACTIONS)})
        self._thread = threading.Thread(target=self._follow, name="engine events", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with contextlib.suppress(docker.errors.DockerException, OSError, ValueError):
            for event in self._stream:
                actor = event["Actor"]
                self._seen.append((event["Action"], actor["Attributes"].get("name", "") or actor["ID"]))

    def names(self, action: str) -> list[str]:
        """Names of the containers (or images) that it happened to, in its order."""
        return [name for happened, name in self._seen if happened == action]

    def count(self, action: str, service: str) -> int:
        """How often it happened to a service's container so far."""
        return self.names(action).count(f"{PROJECT}-{service}-1")

    def others(self, action: str, *services: str) -> list[str]:
        """Containers of the demo that it happened to and that are not of these services; the engine may have others."""
        known = {f"{PROJECT}-{service}-1" for service in services}
        return sorted(name for name in self.names(action) if name.startswith(f"{PROJECT}-") and name not in known)

    def stop(self) -> None:
        """End following."""
        self._stream.close()
        self._thread.join(timeout=5)
