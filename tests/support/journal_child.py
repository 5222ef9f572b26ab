"""A process with a SQLite journal of its own, to be killed, starved or refused.

`python -m tests.support.journal_child <what to do> <the journal's file>`. It prints one line after each thing that
the journal has acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import sys
from pathlib import Path

import structlog

from remediator.clock import SystemClock
from remediator.errors import JournalError
from remediator.events import Kind
from remediator.journal import Journal
from remediator.settings import Journal as Settings
from tests.support.journals import acted, allow, event, intent, opened

MEGABYTE = 1024 * 1024


async def open_journal(file: str) -> Journal:
    """As the remediator does."""
    settings = Settings(url=f"sqlite:///{file}", evidence_dir=Path(file).parent / "evidence")
    return await Journal.open(
        settings, owner="child", clock=SystemClock(), mode="auto", config_digest="0" * 64, hold_off=60.0
    )


def say(what: object) -> None:
    """One line, at once."""
    print(what, flush=True)


async def store(file: str) -> None:
    """Store deliveries until killed; each line is the number of one that was acknowledged."""
    journal = await open_journal(file)
    number = 0
    while True:
        await journal.store([("delivery", json.dumps([number]).encode())])
        say(number)
        number += 1


async def store_some(file: str) -> None:
    """Store a hundred deliveries, one after another, and leave."""
    journal = await open_journal(file)
    for _ in range(100):
        await journal.store([("delivery", b"[]")])
    await journal.close()


async def append(file: str) -> None:
    """Append to one episode until killed; each line is the place of an event that was acknowledged."""
    journal = await open_journal(file)
    episode = await opened(journal)
    say(episode)
    seq = 2
    while True:
        await journal.append([event(episode, seq, Kind.REFUSED), event(episode, seq + 1, Kind.REFUSED)])
        say(seq + 1)
        seq += 2


async def hold(file: str) -> None:
    """Open the journal and keep it."""
    await open_journal(file)
    say("open")
    await asyncio.sleep(3600)


async def starve(file: str) -> None:
    """Fill the disk under the journal: nothing begins, what was begun is written down, then all is well again."""
    journal = await open_journal(file)
    episode, attempt = await acted(journal, "k")
    filler = Path(file).with_name("filler")
    with filler.open("wb", buffering=0) as full:
        for size in (MEGABYTE, 4096, 1):
            try:
                while full.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    said: dict[str, object] = {}
    for number in range(2000):  # the pages that the file already has are used up first
        try:
            await journal.store([("delivery", bytes(10_000))])
        except JournalError as error:
            said["stores before it was full"] = number
            said["store"] = type(error).__name__
            break
    try:
        new = intent(episode, 3, await journal.now())
        await journal.intend(new, runbook="b", resource="r", decide=allow)
        said["intent"] = "written"
    except JournalError as error:
        said["intent"] = type(error).__name__
    placed = await journal.outcome(event(episode, 3, Kind.OUTCOME, attempt=attempt, result="done", detail="x" * 50_000))
    said["outcome"] = placed.seq
    said["broken"] = journal.broken
    filler.unlink()
    await journal.store([("delivery", bytes(10_000))])
    await journal.heartbeat("auto")
    said["ballast is back"] = Path(file + ".ballast").exists()
    await journal.close()
    say(json.dumps(said))


async def io_error(file: str) -> None:
    """Let writing to the file fail as a bad disk does; nothing is written after that, not even what could be."""
    journal = await open_journal(file)
    await opened(journal)
    size = max(os.stat(f"{file}{end}").st_size for end in ("", "-wal"))  # noqa: PTH116 - two names of one thing
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40_000, resource.RLIM_INFINITY))
    said = []
    for _ in range(100):
        try:
            await journal.store([("delivery", bytes(10_000))])
        except JournalError as error:
            said.append(str(error))
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        await journal.store([("delivery", b"")])
    except JournalError as error:
        said.append(str(error))
    await journal.close()
    say(json.dumps(said))


async def io_error_under_load(file: str) -> None:
    """Many stores at once when writing begins to fail, and works again at once."""
    journal = await open_journal(file)
    size = max(os.stat(f"{file}{end}").st_size for end in ("", "-wal"))  # noqa: PTH116 - two names of one thing
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 400_000, resource.RLIM_INFINITY))
    stores = [journal.store([("delivery", bytes(10_000))]) for _ in range(200)]
    found = await asyncio.gather(*stores, return_exceptions=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found += await asyncio.gather(*(journal.store([("delivery", b"")]) for _ in range(50)), return_exceptions=True)
    await journal.close()
    refused = sum(isinstance(one, JournalError) for one in found)
    with sqlite3.connect(file) as database:
        stored = database.execute("SELECT count(*) FROM inbox").fetchone()[0]
    database.close()
    say(json.dumps({"refused": refused, "acknowledged": len(found) - refused, "stored": stored}))


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # the lines of stdout are its answers
    asyncio.run(globals()[sys.argv[1]](sys.argv[2]))
