"""A real HAProxy for tests: the Docker gate as it ships, or any other configuration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.daemon import Daemon, write_config
from tests.support.run import Run, program
from tests.support.waiting import free_port, listens


class Haproxy(Daemon):
    """haproxy in the foreground, one process.

    config   its text, or a file. `{port}` in it is where it must listen on 127.0.0.1
    env      variables that the configuration reads, beside ours
    """

    def __init__(
        self, run: Run, config: str | Path, env: Mapping[str, str] | None = None, *, name: str = "haproxy"
    ) -> None:
        super().__init__(run, name)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = dict(env or {})
        self.config_file = self.folder / "haproxy.cfg"
        self.configure(config)

    def configure(self, config: str | Path) -> None:
        """Write the configuration; it counts from the next start on."""
        text = config.read_text() if isinstance(config, Path) else config
        write_config(self.config_file, text.replace("{port}", str(self.port)))

    def check(self) -> str:
        """`haproxy -c`: what it says of its configuration, warnings too. Raises AssertionError when it refuses it."""
        done = subprocess.run(
            [program("haproxy"), "-c", "-f", str(self.config_file)],
            env=self.env(),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"haproxy refuses {self.config_file}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def argv(self) -> list[str]:
        return [program("haproxy"), "-db", "-f", str(self.config_file)]

    def env(self) -> Mapping[str, str]:
        return {**os.environ, **self._env, "PREP_TEST_PORT": str(self.port)}

    def ready(self) -> bool:
        return listens(self.port)
