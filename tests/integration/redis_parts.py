"""A real Redis with the remediator's own user, clients of a test, and settings for both."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remediator.actions.base import Action, Preview
from remediator.reasons import Reason
from remediator.settings import Settings
from tests.integration.adapting import settings
from tests.support.servers import RedisServer, wait_until

SERVICE = "redis"
USER, PASSWORD = "prep_remediator", "remediator-of-the-tests"
# The rights of docs/architecture.md, word for word: a test holds the page to this.
RIGHTS = (
    "~prep-remediator:*",
    "%R~*",
    "resetchannels",
    "-@all",
    "+ping",
    "+info",
    "+time",
    "+client|setname",
    "+client|list",
    "+client|kill",
    "+config|set",
    "+memory|purge",
    "+memory|usage",
    "+scan",
    "+script|load",
    "+evalsha",
    "+xread",
    "+xadd",
    "+set",
    "+pexpire",
    "+exists",
    "+select",
    "+dbsize",
)


def give_rights(server: RedisServer) -> None:
    """Make the remediator's user, as the documentation says."""
    server.command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *RIGHTS)


def redis_settings(folder: Path, port: int, *, parts: dict[str, Any] | None = None, **entry: Any) -> Settings:
    (folder / "redis").write_text(PASSWORD)
    base = {"host": "127.0.0.1", "port": port, "user": USER, "password_file": folder / "redis", "timeout": "2s"}
    return settings(folder, redis={SERVICE: {**base, **entry}}, **(parts or {}))


async def preview(action: Action, **params: Any) -> Preview:
    return await action.preview(action.params_model.model_validate({"service": SERVICE, **params}))


def reasons(found: Preview) -> list[Reason]:
    return [refusal.reason for refusal in found.refusals]


class Client:
    """A plain connection of a test; what it says is said as an inline command or in Redis' protocol."""

    def __init__(self, port: int, name: str = "", user: str = "", password: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._socket.settimeout(5)
        if user:
            self.say("AUTH", user, password)
        if name:
            self.say("CLIENT", "SETNAME", name)
        self.id = int(self.say("CLIENT", "ID")[1:])

    def say(self, *words: str, answered: bool = True) -> bytes:
        packed = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
        self._socket.sendall(packed)
        return self._socket.recv(65536) if answered else b""

    def closed(self) -> bool:
        """Has the server closed it?"""
        self._socket.settimeout(0.3)
        try:
            return self._socket.recv(65536) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self._socket.close()


@contextmanager
def clients() -> Iterator[list[Client]]:
    """A list to put clients in; they are closed at the end."""
    held: list[Client] = []
    try:
        yield held
    finally:
        for client in held:
            client.close()


def ids(server: RedisServer) -> set[int]:
    """Of every client but the one that asks, and ours."""
    listed: Any = server.command("CLIENT", "LIST")
    return {
        int(line.split(b" ")[0].removeprefix(b"id="))
        for line in listed.splitlines()
        if b" cmd=client|list " not in line and b" name=prep-remediator" not in line
    }


def grow_idle(seconds: float) -> None:
    """Let clients be idle: Redis counts whole seconds."""
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > seconds, "clients to be idle", seconds + 5)
