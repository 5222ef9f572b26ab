"""Which authorities the TLS probes trust: the system's, and those of a file that some probes name beside them.

In: files of certificates. Out: a TLS context for each of them, shared by all probes that name it. It must never be
loaded in the event loop, nor once for each probe: the system's authorities alone take 20 ms of a good machine, in which
nobody else's handshake goes on, and a dozen of probes would run into their timeouts by our own work.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from exporter.workers import Worker

_LOAD_TIMEOUT = 60.0
"""Seconds after which nobody waits for a file; every probe has a shorter timeout of its own."""
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's <openssl/x509_vfy.h> (1.1.0 and later); Python has no name for it."""

Key = tuple[Path | None, bool]
"""The file beside the system's authorities, and whether an expired certificate is good enough."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A context, and a digest of the files that it was made of."""

    context: ssl.SSLContext
    digest: bytes


class Trust:
    """The contexts of a set of files. Each is loaded when it is first wanted, by one thread."""

    def __init__(self, files: Iterable[Path | None]) -> None:
        keys = [(file, expired) for file in set(files) for expired in (False, True)]
        self._workers = {key: Worker(f"authorities {key[0] or 'of the system'}") for key in keys}
        self._kept: dict[Key, _Loaded] = {}
        self._doubted: set[Key] = set()
        self._running: dict[Key, asyncio.Task[_Loaded]] = {}

    async def context(self, file: Path | None, *, expired: bool = False) -> ssl.SSLContext:
        """A client's context that checks the name and the signature, and the dates unless `expired`.

        Raises OSError or ssl.SSLError when the file cannot be used, Transient while reading it hangs.
        """
        key = file, expired
        if key in self._kept and key not in self._doubted:
            return self._kept[key].context
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._load(key), name=f"authorities {file}")
            task.add_done_callback(lambda ended: self._ended(key, ended))
        return (await asyncio.shield(task)).context

    def doubt(self, file: Path | None) -> None:
        """A certificate was refused: another authority may lie in the files by now, so they are looked at again."""
        self._doubted |= {(file, False), (file, True)}

    async def close(self) -> None:
        """End what runs, and the threads."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for worker in self._workers.values():
            worker.close()

    async def _load(self, key: Key) -> _Loaded:
        kept = self._kept.get(key)
        deadline = asyncio.get_running_loop().time() + _LOAD_TIMEOUT
        loaded = await self._workers[key].run(lambda: _made(*key, kept), deadline)
        self._kept[key] = loaded
        self._doubted.discard(key)
        return loaded

    def _ended(self, key: Key, task: asyncio.Task[_Loaded]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen: all who waited may have gone


def _made(file: Path | None, expired: bool, kept: _Loaded | None) -> _Loaded:
    """In the worker's thread. What is kept, as long as the files hold what they held: most refusals are no news."""
    digest = _digest(file)
    if kept is not None and kept.digest == digest:
        return kept
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if expired:
        context.verify_flags |= _NO_CHECK_TIME
    context.load_default_certs()
    if file is not None:
        context.load_verify_locations(file)
    return _Loaded(context, digest)


def _digest(file: Path | None) -> bytes:
    """Of the file and of the system's own, which need not be there. Raises OSError when `file` is not."""
    found = hashlib.sha256()
    system = ssl.get_default_verify_paths().cafile
    if system is not None and Path(system).is_file():
        found.update(Path(system).read_bytes())
    if file is not None:
        found.update(file.read_bytes())
    return found.digest()
