"""A real S3 server: moto in server mode, in a process of its own.

`S3Server(run).start()`; `bucket()` makes a bucket that nobody else has, `put()` an object in it. It may be frozen, killed
and started again like any daemon; its contents are in its memory.
"""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

import obstore
from obstore.store import S3Store

from tests.support.daemon import Daemon
from tests.support.run import Run
from tests.support.waiting import fetch, free_port, listens

KEY_ID, SECRET_KEY = "AKIDEXAMPLE", "secret-of-the-backups"


class S3Server(Daemon):
    """moto's server on a free port."""

    start_seconds = 30.0

    def __init__(self, run: Run, *, name: str = "s3", certificate: tuple[Path, Path] | None = None) -> None:
        """`certificate`: the files of a certificate for `localhost` and of its key; None = plain HTTP."""
        super().__init__(run, name)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}" if certificate is None else f"https://localhost:{self.port}"
        self._certificate = certificate

    def argv(self) -> list[str]:
        plain = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        return plain if self._certificate is None else [*plain, "-s", *_files(*self._certificate)]

    def ready(self) -> bool:
        return listens(self.port)

    def bucket(self) -> str:
        """A new bucket; its name."""
        name = f"backups-{uuid4().hex[:8]}"
        assert fetch(f"{self.url}/{name}", "PUT").status == 200
        return name

    def put(self, bucket: str, key: str, size: int) -> None:
        """An object of so many bytes."""
        obstore.put(self.store(bucket), key, b"x" * size)

    def store(self, bucket: str) -> S3Store:
        """A client that may write."""
        return S3Store(
            bucket,
            config={"endpoint": self.url, "access_key_id": KEY_ID, "secret_access_key": SECRET_KEY},
            client_options={"allow_http": True},
        )


def _files(certificate: Path, key: Path) -> list[str]:
    return ["-c", str(certificate), "-k", str(key)]
