"""A real Redis for tests."""

from __future__ import annotations

from collections.abc import Sequence

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.daemon import Daemon
from tests.support.run import Run, program
from tests.support.waiting import free_port


class RedisServer(Daemon):
    """redis-server on 127.0.0.1. It writes nothing to disk unless `options` say so (`["--appendonly", "yes"]`)."""

    def __init__(
        self, run: Run, password: str | None = None, options: Sequence[str] = (), *, name: str = "redis"
    ) -> None:
        super().__init__(run, name)
        self.port = free_port()
        self.password = password
        self._options = list(options)

    def argv(self) -> list[str]:
        fixed = [
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--daemonize",
            "no",
        ]
        secret = ["--requirepass", self.password] if self.password else []
        return [program("redis-server"), *fixed, *secret, *self._options]

    def ready(self) -> bool:
        try:
            return self.command("PING") in (b"PONG", True)
        except redis.RedisError:
            return False

    @property
    def url(self) -> str:
        """For redis.from_url()."""
        credentials = f":{self.password}@" if self.password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    def command(self, *words: str | int | float | bytes) -> object:
        """One command on a connection of its own, within 2 s; the raw answer."""
        client = redis.Redis(
            host="127.0.0.1", port=self.port, password=self.password, socket_timeout=2.0, retry=Retry(NoBackoff(), 0)
        )
        try:
            answer: object = client.execute_command(*words)  # type: ignore[no-untyped-call] # as redis has it
            return answer
        finally:
            client.close()

    def clients(self) -> list[str]:
        """A line for each client that the server has, the one that asks among them."""
        listed = self.command("CLIENT", "LIST")
        assert isinstance(listed, bytes)
        return listed.decode().splitlines()

    def flush(self) -> None:
        """Empty it, for the next test."""
        self.command("FLUSHALL")
