"""Evidence before an action: run the named diagnoses, redact, write them beside the journal, give the digest.

In: episode, names, target labels. Out: `Evidence` with the folder, the digest of its manifest and a sentence each.
Files are 0600 in a folder of their own, synced before the digest is given out; they are removed after
`journal.evidence_days`. Nothing is written that did not pass `redaction.redact`; nothing is changed anywhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import structlog

from remediator.captured import Captured, Source
from remediator.captures import CAPTURES
from remediator.errors import RemediatorError
from remediator.fetch import describe
from remediator.postgres import LOST
from remediator.redaction import redact
from remediator.settings import Settings
from remediator.world import Evidence

log = structlog.get_logger(__name__)
NAMES = frozenset(CAPTURES)
DEADLINE = 10.0  # seconds for all diagnoses of a rung, side by side
PRUNE_APART = 3600.0  # seconds; it looks at every folder there is, which a capture before an action must not wait for
FILE_BYTES = 512 * 1024
SENTENCE = 300  # characters


class Diagnoses:
    """Captures evidence for one rung of one episode."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._pruned_at = 0.0

    async def run(
        self, episode: str, names: Sequence[str], labels: Mapping[str, str], deadline: float = DEADLINE
    ) -> Evidence:
        """All diagnoses side by side within `deadline` seconds, and written.

        Never raises for a target that does not answer: that diagnosis is missing, `complete` is False and the
        summary says why. A folder that cannot be written gives an Evidence without path and digest.
        """
        source = Source(self._settings, self._session, labels.get("service", ""))
        found = await asyncio.gather(*(_capture(name, source, deadline) for name in names))
        results = dict(zip(names, found, strict=True))
        summary = {
            name: redact(said if isinstance(said, str) else said.sentence)[:SENTENCE] for name, said in results.items()
        }
        texts = {name: redact(said.text) for name, said in results.items() if isinstance(said, Captured)}
        try:
            path, digest = await asyncio.to_thread(self._write, episode, texts, summary, dict(labels))
        except OSError as error:
            log.error("evidence cannot be written", episode=episode, why=describe(error))
            return Evidence("", "", False, {**summary, "evidence": f"cannot be written: {describe(error)}"})
        return Evidence(digest, str(path), len(texts) == len(names), summary)

    def prune(self, now: float) -> int:
        """Remove what is older than the settings allow, by the folder's own time; how many folders went."""
        oldest = now - self._settings.journal.evidence_days * 86400.0
        gone = 0
        for folder in self._settings.journal.evidence_dir.glob("*/*/"):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder)
                gone += 1
        return gone

    def _write(
        self, episode: str, texts: Mapping[str, str], summary: Mapping[str, str], labels: Mapping[str, str]
    ) -> tuple[Path, str]:
        """Files, then the manifest with their digests; synced, folders too."""
        now = time.time()
        if now - self._pruned_at >= PRUNE_APART or now < self._pruned_at:
            self._pruned_at = now
            self.prune(now)
        top = self._settings.journal.evidence_dir / (re.sub(r"[^A-Za-z0-9_-]", "_", episode)[:100] or "_")
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = top / f"{now:.6f}"
        folder.mkdir(mode=0o700)
        files = {}
        for name, text in texts.items():
            data = text.encode("utf-8", "replace")
            kept = data if len(data) <= FILE_BYTES else data[:FILE_BYTES] + b"\n[cut]\n"
            _write_file(folder / f"{name}.txt", kept)
            files[f"{name}.txt"] = {"sha256": hashlib.sha256(kept).hexdigest(), "bytes": len(kept)}
        manifest: dict[str, Any] = {"episode": episode, "at": now, "labels": labels, "summary": summary, "files": files}
        body = json.dumps(manifest, sort_keys=True, indent=2).encode()
        _write_file(folder / "manifest.json", body)
        for written in (folder, top, top.parent):
            _sync_folder(written)
        return folder, hashlib.sha256(body).hexdigest()


async def _capture(name: str, source: Source, deadline: float) -> Captured | str:
    """One diagnosis, or why there is none."""
    capture = CAPTURES.get(name)
    if capture is None:
        return f"no diagnosis of the name {name}"
    try:
        async with asyncio.timeout(deadline):
            return await capture(source)
    except TimeoutError:
        return f"not read within {deadline:g} s"
    except (RemediatorError, *LOST, asyncpg.PostgresError) as error:
        return f"could not be read: {describe(error)}"


def _write_file(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
