"""An "engine" on a Unix socket that writes down every request as bytes and answers as a test says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

NO_CONTENT = b"HTTP/1.1 204 No Content\r\nApi-Version: 1.41\r\n\r\n"


class RecordingEngine:
    """Answers one request a connection with `answer`, then closes.

    requests   each request's head as it came, oldest first
    answer     what to say to it; b"" closes without a word
    release    set = answers at once; a test clears it to keep the engine waiting
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self.answer: Callable[[bytes], bytes] = lambda head: NO_CONTENT
        self.release = threading.Event()
        self.release.set()
        self._threads: list[threading.Thread] = []
        self._server: socket.socket | None = None

    @property
    def lines(self) -> list[str]:
        """The first line of each request."""
        return [head.split(b"\r\n", 1)[0].decode() for head in self.requests]

    def __enter__(self) -> Self:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.path))
        self._server.listen(64)
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self.release.set()
        assert self._server is not None
        # A blocked accept() is ended by shutdown, not by close.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(10)
        self.path.unlink(missing_ok=True)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        assert self._server is not None
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._start(lambda client=client: self._serve(client))  # type: ignore[misc]

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                part = client.recv(65536)
                if not part:
                    return
                head += part
            self.requests.append(head)
            self.release.wait(20)
            with contextlib.suppress(OSError):
                client.sendall(self.answer(head))
