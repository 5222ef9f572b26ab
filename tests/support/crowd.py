"""Many sick services as one process, cheap enough for hundreds: their containers, their health and their metrics.

    python -m tests.support.crowd SOCKET PORT RESTARTS PROJECT COUNT

In: the reads and the restart of the Docker Engine's API on a Unix socket. Out: one line a restart in the file RESTARTS,
the moment it came in (UNIX seconds) and the service: the target's own count. On PORT: `/health/<service>`, 503 until
the restart and 200 after it, and `/metrics` with `prep_service_sick`. What is measured against it is the remediator's
time alone: a real engine's would be added to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from remediator.containers import PROJECT, SERVICE

LOG = b"2026-11-27T12:00:00.000000000Z the queue is full\n"
FRAME = bytes([1, 0, 0, 0]) + len(LOG).to_bytes(4, "big") + LOG


def names(count: int) -> list[str]:
    """The services: `svc-000`, `svc-001`, …"""
    return [f"svc-{number:03}" for number in range(count)]


@dataclass
class Member:
    """One service and its only container."""

    service: str
    container: str
    project: str
    started_at: str = "2026-11-01T12:00:00.123456789Z"
    sick: bool = True

    @property
    def id(self) -> str:
        return hashlib.sha256(self.container.encode()).hexdigest()

    def inspect(self) -> dict[str, object]:
        """As `GET /containers/<id>/json` has it, cut to what anybody reads."""
        return {
            "Id": self.id,
            "Name": f"/{self.container}",
            "Image": f"sha256:{self.id}",
            "RestartCount": 0,
            "ExecIDs": None,
            "State": {"Status": "running", "StartedAt": self.started_at},
            "HostConfig": {"Memory": 0, "NanoCpus": 0, "RestartPolicy": {"Name": "no"}},
            "Config": {
                "Tty": False,
                "Labels": {PROJECT: self.project, SERVICE: self.service, "prep-ops.remediate": "true"},
            },
        }


class Crowd:
    """The engine's and the services' handlers over one set of members."""

    def __init__(self, restarts: Path, project: str, count: int) -> None:
        self._restarts = os.open(restarts, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        made = [Member(name, f"{project}-{name}-1", project) for name in names(count)]
        self._by_service = {each.service: each for each in made}
        self._by_name = {key: each for each in made for key in (each.id, each.container)}

    def engine(self) -> web.Application:
        """What the gate talks to."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/containers/json", self._list),
                web.get("/containers/{name}/json", self._inspect),
                web.get("/containers/{name}/logs", self._logs),
                web.post("/containers/{name}/restart", self._restart),
            ]
        )
        return app

    def services(self) -> web.Application:
        """What clients and Prometheus talk to."""
        app = web.Application()
        app.add_routes([web.get("/health/{service}", self._health), web.get("/metrics", self._metrics)])
        return app

    async def _list(self, request: web.Request) -> web.Response:
        labels = dict(label.split("=", 1) for label in json.loads(request.query["filters"])["label"])
        found = self._by_service.get(labels[SERVICE])
        return web.json_response([{"Id": found.id}] if found and found.project == labels[PROJECT] else [])

    async def _inspect(self, request: web.Request) -> web.Response:
        return web.json_response(self._member(request).inspect())

    async def _logs(self, request: web.Request) -> web.Response:
        self._member(request)
        return web.Response(body=FRAME, content_type="application/vnd.docker.multiplexed-stream")

    async def _restart(self, request: web.Request) -> web.Response:
        member = self._member(request)
        os.write(self._restarts, f"{time.time():.6f} {member.service}\n".encode())
        member.started_at, member.sick = datetime.now(UTC).isoformat(), False
        return web.Response(status=204)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self._by_service[request.match_info["service"]].sick else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        lines = [f'prep_service_sick{{service="{m.service}"}} {int(m.sick)}\n' for m in self._by_service.values()]
        return web.Response(text="".join(lines))

    def _member(self, request: web.Request) -> Member:
        member = self._by_name.get(request.match_info["name"])
        if member is None:
            raise web.HTTPNotFound(text='{"message":"No such container"}')
        return member


async def _serve(socket: Path, port: int, crowd: Crowd) -> None:
    engine, services = (web.AppRunner(app, access_log=None) for app in (crowd.engine(), crowd.services()))
    await engine.setup()
    await services.setup()
    await web.UnixSite(engine, str(socket), backlog=512).start()
    await web.TCPSite(services, "127.0.0.1", port, backlog=512).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    _, socket, port, restarts, project, count = sys.argv
    asyncio.run(_serve(Path(socket), int(port), Crowd(Path(restarts), project, int(count))))
