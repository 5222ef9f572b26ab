"""The Docker Engine, reached only through the gate: the reads, and the few effects there are.

In: the settings' gate and compose project. Out: frozen values. Reads raise Transient or Permanent; an
effect never raises for what it is told, that is a `Sent`. No path here takes a name that did not come out
of the engine's own answer, and nothing is ever sent twice.
Source: Docker Engine API 1.41 (docs.docker.com/reference/api/engine/version/v1.41/) and the gate's contract,
`docs/architecture.md`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import aiohttp

from remediator.effect_call import NotSent, Unsure, call_once
from remediator.errors import Permanent, Transient
from remediator.fetch import Refused, describe, get_bytes, get_json
from remediator.redaction import redact
from remediator.settings import Docker

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
ONE_OFF = "com.docker.compose.oneoff"


@dataclass(frozen=True, slots=True)
class Container:
    """One container as `GET /containers/<id>/json` tells it.

    started_at  RFC 3339 text as the engine wrote it: compared for equality, nanoseconds and all
    started     the same, UNIX seconds on the engine's clock
    status      created, running, paused, restarting, removing, exited or dead
    restarts    how often the restart policy started it since it was last started by hand
    health      healthy, unhealthy, starting, or none when the image has no health check
    """

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    status: str
    started_at: str
    started: float
    restarts: int
    health: str
    health_check: tuple[str, ...]
    shell: tuple[str, ...]
    exec_ids: tuple[str, ...]
    raw: Mapping[str, Any]

    @property
    def one_off(self) -> bool:
        """Made by `docker compose run`: somebody's own command beside the service."""
        return self.labels.get(ONE_OFF, "").lower() == "true"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its own addresses in the engine's networks; none when it has the host's network, or none at all."""
        networks = (self.raw.get("NetworkSettings") or {}).get("Networks") or {}
        found = [each.get(key) for each in networks.values() for key in ("IPAddress", "GlobalIPv6Address")]
        return tuple(address for address in found if address)


@dataclass(frozen=True, slots=True)
class GateState:
    """The gate's own word: since when it remembers attempts, and its clock. UNIX seconds."""

    started: float
    now: float


class Answered(StrEnum):
    """What came of a call that has an effect. Only `not_sent` and `refused` prove that nothing began."""

    DONE = "done"
    NOT_SENT = "not_sent"
    REFUSED = "refused"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Sent:
    """Such a call's end, with a sentence for the journal."""

    answered: Answered
    detail: str


class Engine:
    """Reads through the gate, bounded by `settings.timeout` seconds each."""

    def __init__(self, settings: Docker, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._base = settings.gate_url.rstrip("/")

    async def gate(self) -> GateState:
        """The gate's clock and start."""
        answer = await self._get("/_gate")
        try:
            return GateState(float(answer["started"]), float(answer["now"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Permanent(f"{self._base}/_gate: not the gate's answer: {str(answer)[:80]}") from error

    async def seen(self, attempt: str) -> bool:
        """Did the gate let this attempt through since it started?"""
        try:
            await get_bytes(
                self._session, f"{self._base}/_attempt/{quote(attempt, safe='')}", within=self._settings.timeout
            )
        except Refused as error:
            if error.status == 404:
                return False
            raise
        return True

    async def of_service(self, service: str) -> tuple[Container, ...]:
        """Every container of one compose service, one-off and stopped ones too, sorted by name."""
        filters = {"label": [f"{PROJECT}={self._settings.project}", f"{SERVICE}={service}"]}
        return await self._listed(filters)

    async def _listed(self, filters: Mapping[str, Any]) -> tuple[Container, ...]:
        """What the engine lists, each one asked about, sorted by name."""
        listed = await self._get("/containers/json", ("all", "1"), ("filters", json.dumps(filters)))
        found = await asyncio.gather(*(self.inspect(entry["Id"]) for entry in listed), return_exceptions=True)
        gone = (Refused,)
        for item in found:
            # A one-off container may go away between the list and the question about it.
            if isinstance(item, BaseException) and not (isinstance(item, gone) and item.status == 404):
                raise item
        return tuple(sorted((item for item in found if isinstance(item, Container)), key=lambda item: item.name))

    async def one_offs(self) -> tuple[Container, ...]:
        """Every one-off container of the project, in whatever state."""
        filters = {"label": [f"{PROJECT}={self._settings.project}", f"{ONE_OFF}=True"]}
        return await self._listed(filters)

    async def images_in_use(self) -> frozenset[str]:
        """Ids of the images that any container of the engine is made of, whoever's and in whatever state."""
        return frozenset(str(entry["ImageID"]) for entry in await self._get("/containers/json", ("all", "1")))

    async def images(self, label: str, value: str) -> list[Mapping[str, Any]]:
        """Images with this label, also those without a name, as the engine lists them."""
        filters = json.dumps({"label": [f"{label}={value}"]})
        return list(await self._get("/images/json", ("filters", filters)))

    async def all_images(self) -> list[Mapping[str, Any]]:
        """Every image of the engine but parents of others."""
        return list(await self._get("/images/json"))

    async def of_project(self) -> tuple[Container, ...]:
        """Every container of the project, in whatever state."""
        return await self._listed({"label": [f"{PROJECT}={self._settings.project}"]})

    async def usage(self) -> Mapping[str, int]:
        """Bytes on the engine's disk by kind, as it counts them; slow where there is much."""
        found = await self._get("/system/df")
        return {
            "layers_bytes": int(found.get("LayersSize") or 0),
            "containers_bytes": sum(int(one.get("SizeRw") or 0) for one in found.get("Containers") or ()),
            "volumes_bytes": sum(
                int((one.get("UsageData") or {}).get("Size") or 0) for one in found.get("Volumes") or ()
            ),
            "build_cache_bytes": sum(int(one.get("Size") or 0) for one in found.get("BuildCache") or ()),
        }

    async def events(self, service: str, since: float, until: float) -> list[Mapping[str, Any]]:
        """Events of a service's containers between two moments (UNIX seconds), oldest first, as far as it has them."""
        filters = {
            "type": ["container"],
            "label": [f"{PROJECT}={self._settings.project}", f"{SERVICE}={service}"],
        }
        body = await get_bytes(
            self._session,
            f"{self._base}/events",
            (("since", f"{since:.3f}"), ("until", f"{until:.3f}"), ("filters", json.dumps(filters))),
            within=self._settings.timeout,
        )
        try:
            return [json.loads(line) for line in body.splitlines() if line.strip()]
        except ValueError as error:
            raise Permanent(f"GET {self._base}/events: the answer is not JSON") from error

    async def image(self, id: str) -> Mapping[str, Any] | None:
        """One image by its full id; None when it has gone meanwhile."""
        try:
            found: Mapping[str, Any] = await self._get(f"/images/{quote(id, safe=':')}/json")
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return found

    async def inspect(self, container: str) -> Container:
        """One container by id or name. Refused with status 404 when there is none."""
        return _container(await self._get(f"/containers/{quote(container, safe='')}/json"))

    async def running_execs(self, container: Container) -> tuple[str, ...]:
        """Commands that run in the container beside its main process, its own health check left out."""
        answers = await asyncio.gather(*(self._exec(exec_id) for exec_id in container.exec_ids))
        commands = (command for command in answers if command)
        return tuple(" ".join(command)[:120] for command in commands if not _is_health_check(container, command))

    async def logs(self, container: Container, lines: int, limit: int) -> bytes:
        """The last `lines` lines of stdout and stderr, of them the last `limit` bytes, frames of the stream removed."""
        params = (("stdout", "1"), ("stderr", "1"), ("timestamps", "1"), ("tail", str(lines)))
        body = await get_bytes(
            self._session,
            f"{self._base}/containers/{quote(container.id, safe='')}/logs",
            params,
            within=self._settings.timeout,
        )
        return (body if container.raw["Config"].get("Tty") else _unframe(body))[-limit:]

    async def allowed(self, name: str) -> bool:
        """Would the gate let a restart of this container through? Nothing is restarted, and nothing is recorded.

        What may be restarted may be started. A call without its attempt id: the gate answers 428 for a name on its list
        and 403 for every other, both marked as its own word. Whoever else listens there might take the call for what it
        says, so the gate has to answer as one first. Raises Permanent when it does not, or answers otherwise.
        """
        await self.gate()
        url = f"{self._base}/v1.41/containers/{quote(name, safe='')}/restart"
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout)
        try:
            async with self._session.post(url, timeout=timeout, allow_redirects=False) as response:
                said = (response.status, response.headers.get("X-Gate-Refused"))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Transient(f"{url}: {describe(error)}") from error
        if said in ((428, "no-attempt"), (403, "not-allowed")):
            return said[0] == 428
        raise Permanent(f"{url}: status {said[0]} is not the gate's answer to a call without an attempt")

    async def restart(self, name: str, attempt: str, start_by: float, deadline: float) -> Sent:
        """Restart a container by its name; as `_send`."""
        return await self._send("POST", f"/containers/{quote(name, safe='')}/restart", attempt, start_by, deadline)

    async def start(self, name: str, attempt: str, start_by: float, deadline: float) -> Sent:
        """Start a container by its name; refused when it runs already. As `_send`."""
        return await self._send("POST", f"/containers/{quote(name, safe='')}/start", attempt, start_by, deadline)

    async def delete(self, kind: str, id: str, attempt: str, start_by: float, deadline: float) -> Sent:
        """Delete one of `images` or `containers` by its full id; refused while it is in use. As `_send`."""
        return await self._send("DELETE", f"/{kind}/{quote(id, safe=':')}", attempt, start_by, deadline)

    async def _send(self, method: str, path: str, attempt: str, start_by: float, deadline: float) -> Sent:
        """Make the call once; `start_by` is UNIX seconds on the gate's clock, `deadline` seconds for the whole call."""
        headers = {"X-Attempt-Id": attempt, "X-Start-By": str(int(start_by))}
        try:
            said = await call_once(method, f"{self._base}/v1.41{path}", headers, deadline)
        except NotSent as error:
            return Sent(Answered.NOT_SENT, f"The gate took no connection: {error}.")
        except Unsure as error:
            return Sent(Answered.UNSURE, f"Not known how it ended: {error}.")
        return _sent(method, path, said.status, said.headers.get("X-Gate-Refused"), said.body)

    async def _get(self, path: str, *params: tuple[str, str]) -> Any:
        return await get_json(self._session, self._base + path, params, within=self._settings.timeout)

    async def _exec(self, exec_id: str) -> tuple[str, ...]:
        """The command of an exec that runs, or () when it has ended meanwhile."""
        try:
            answer = await self._get(f"/exec/{quote(exec_id, safe='')}/json")
        except Refused as error:
            if error.status == 404:
                return ()
            raise
        process = answer.get("ProcessConfig") or {}
        return (process.get("entrypoint", "?"), *(process.get("arguments") or ())) if answer.get("Running") else ()


def timestamp(text: str) -> float:
    """Docker's RFC 3339 to UNIX seconds (microseconds kept); its zero time, year 1, is 0.0."""
    moment = datetime.fromisoformat(text)
    return 0.0 if moment.year == 1 else moment.timestamp()


def _container(answer: Mapping[str, Any]) -> Container:
    """The engine's answer to a value. Raises Permanent when it is not one."""
    try:
        state, config = answer["State"], answer["Config"]
        check = (config.get("Healthcheck") or {}).get("Test") or ()
        return Container(
            id=answer["Id"],
            name=answer["Name"].lstrip("/"),
            image=answer["Image"],
            labels=config.get("Labels") or {},
            status=state["Status"],
            started_at=state["StartedAt"],
            started=timestamp(state["StartedAt"]),
            restarts=int(answer.get("RestartCount", 0)),
            health=(state.get("Health") or {}).get("Status") or "none",
            health_check=tuple(check),
            shell=tuple(config.get("Shell") or ("/bin/sh", "-c")),
            exec_ids=tuple(answer.get("ExecIDs") or ()),
            raw=answer,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Permanent(f"The engine's answer about a container cannot be read: {describe(error)}") from error


def _is_health_check(container: Container, command: tuple[str, ...]) -> bool:
    """Is this exec the engine's own health check? It runs every few seconds and means nobody is at work."""
    if not container.health_check:
        return False
    kind, *words = container.health_check
    if kind == "CMD-SHELL":
        return command == (*container.shell, *words)
    return kind == "CMD" and command == tuple(words)


def _unframe(stream: bytes) -> bytes:
    """Docker's multiplexed log stream to plain text: 8 bytes of head (kind, 0, 0, 0, length) a frame."""
    text, at = bytearray(), 0
    while at + 8 <= len(stream):
        length = int.from_bytes(stream[at + 4 : at + 8], "big")
        text += stream[at + 8 : at + 8 + length]
        at += 8 + length
    return bytes(text)


def _sent(method: str, path: str, status: int, gate: str | None, body: bytes) -> Sent:
    """What an answer to an effect's call proves.

    204 is done, for an image 200. The gate's refusal is marked by its header and never reaches the engine; but
    "repeated" says that a copy of this call, which somebody on the way has made, did before, and may have begun. The
    engine's own "No such …" and "client version", 304 to a start ("started already") and 409 to a deletion ("in
    use") are said before it begins. Everything else may have begun.
    """
    said = " ".join(body[:200].decode("utf-8", "replace").split())
    if gate == "repeated":
        return Sent(Answered.UNSURE, f"The Docker gate let this attempt through before (repeated, status {status}).")
    if gate is not None:
        return Sent(Answered.REFUSED, f"The Docker gate refused: {gate} (status {status}).")
    if method == "DELETE" and status in (200, 204):
        return Sent(Answered.DONE, f"The engine deleted it (status {status}).")
    if method == "POST" and status == 204:
        verb = "restarted" if path.endswith("/restart") else "started"
        return Sent(Answered.DONE, f"The engine {verb} the container (status 204).")
    if status == 304 and path.endswith("/start"):
        return Sent(Answered.REFUSED, "The engine says that the container runs already.")
    none_such = "No such container" in said or "No such image" in said
    refused = (status == 404 and none_such) or (status == 400 and "client version" in said)
    if refused or (status == 409 and method == "DELETE"):
        return Sent(Answered.REFUSED, f"The engine refused: {said}")
    return Sent(Answered.UNSURE, f"Status {status}: {redact(said) or 'no text'}")
