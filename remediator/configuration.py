"""The configuration that holds, and how another one takes its place while episodes are worked on.

In: how to read settings and runbooks. Out: both, whole, or every fault. A reload, in order: read and check everything
(a fault ends it here, and nothing has changed); take all of it over in one go, between two steps of the engine; tell
the journal the mode, so that the strictest of all replicas holds; make every open episode due, since it may be matched
or judged otherwise now. It must never leave the remediator with half a configuration, or with none.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from remediator import runbooks, settings, tls
from remediator.actions import registry
from remediator.clock import Clock
from remediator.diagnosis import NAMES as DIAGNOSES
from remediator.errors import ConfigError, Fault, JournalError
from remediator.journal import Journal
from remediator.metrics import Metrics
from remediator.runbooks import Runbook
from remediator.settings import Settings

log = structlog.get_logger(__name__)

READ_WITHIN = 8.0
"""Seconds for reading and checking: a folder on a dead mount hangs. Below the 10 s of an answer of the API."""
FIXED = ("environment", "listen", "webhook.path", "journal", "alert_pages", "console.enabled", "log_format")
"""What a process is started with and keeps. The environment is in the key of every open episode."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and runbooks, both whole, with the digest of what was read."""

    settings: Settings
    books: tuple[Runbook, ...]
    digest: str


def load_books(settings: Settings) -> Loaded:
    """Read the runbooks of the settings, and try its TLS files. Raises ConfigError with every fault of both."""
    problems: list[Fault] = []
    books: tuple[Runbook, ...] = ()
    try:
        if settings.listen.tls is not None:
            tls.context(settings.listen.tls)
    except ConfigError as error:
        problems += error.faults
    try:
        books = runbooks.load(settings.runbooks, registry.PARAMS, DIAGNOSES, settings.prometheus.scrape_interval)
    except ConfigError as error:
        problems += error.faults
    if problems:
        raise ConfigError(problems)
    parts = [settings.model_dump_json(), *(book.digest() for book in books)]
    return Loaded(settings, books, hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16])


def read(file: Path, before: Settings | None = None) -> Loaded:
    """Settings and runbooks. Raises ConfigError with every fault of the file, or else of the runbooks that it names.

    `before` is what holds now: what a reload cannot change is a fault like any other.
    """
    found = settings.load(file)
    problems = list(unchangeable(before, found)) if before is not None else []
    try:
        loaded = load_books(found)
    except ConfigError as error:
        raise ConfigError([*problems, *error.faults]) from error
    if problems:
        raise ConfigError(problems)
    return loaded


def longest_deadline(loaded: Loaded) -> float:
    """Seconds after which whatever an earlier life began is over: what an unclean start waits out."""
    deadlines = [rung.deadline or 60.0 for book in loaded.books for rung in book.ladder]
    return max(deadlines) + loaded.settings.guards.start_within


def unchangeable(old: Settings, new: Settings) -> Iterator[Fault]:
    """What a reload cannot take over. A section is told by those of its keys that differ."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    for key in FIXED:
        for path in _differing(key, _at(before, key), _at(after, key)):
            yield Fault(path, "cannot change by a reload", "restart the remediator")


def changes(old: Loaded, new: Loaded) -> list[str]:
    """What a reload changed, one phrase each: runbooks by name, settings by key and without their values."""
    before, after = ({book.name: book.digest() for book in each.books} for each in (old, new))
    found = [f"runbook {name} removed" for name in before if name not in after]
    found += [f"runbook {name} added" for name in after if name not in before]
    found += [f"runbook {name} changed" for name, digest in after.items() if before.get(name, digest) != digest]
    one, other = (each.settings.model_dump(mode="json") for each in (old, new))
    return found + [f"setting {path} changed" for path in _differing("", one, other)]


def _at(data: Mapping[str, object], key: str) -> object:
    found: object = data
    for part in key.split("."):
        found = found[part] if isinstance(found, Mapping) else None
    return found


def _differing(path: str, one: object, other: object) -> Iterator[str]:
    """The path of every value that differs, or that only one of them has."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys((*one, *other)):
            yield from _differing(f"{path}.{key}".lstrip("."), one.get(key), other.get(key))
    elif one != other:
        yield path


class Reloader:
    """Reads the configuration anew whenever it is asked to; several in a row are one after the other.

    read   gives what the files say now, knowing what holds, or raises ConfigError; it may block
    adopt  makes the remediator work with it: all at once, or raises before anything has changed
    """

    def __init__(
        self,
        loaded: Loaded,
        read: Callable[[Settings], Loaded],
        adopt: Callable[[Loaded], None],
        journal: Journal,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.loaded = loaded
        self._read = read
        self._adopt = adopt
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """SIGHUP: reload soon."""
        self._asked.set()

    async def follow(self) -> None:
        """Reload whenever `ask` was called, for ever; what goes wrong is logged and shown by the metric."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self.reload()
            except ConfigError:
                continue
            except JournalError as error:
                log.error("the journal could not be told of the reload", why=str(error))

    async def reload(self) -> list[str]:
        """Take over what the files say now; returns what changed, one phrase each.

        Raises ConfigError with every fault: then the former configuration holds. Raises JournalError when this process
        has taken it over and the journal could not be told: the mode is told with the next heartbeat, and open
        episodes are looked at within a minute.
        """
        async with self._one_at_a_time:
            try:
                loaded = await self._checked()
                found = changes(self.loaded, loaded)
                self._adopt(loaded)
            except ConfigError as error:
                self._metrics.reload_refused()
                log.error("configuration refused, the former one holds", faults=[str(fault) for fault in error.faults])
                raise
            self.loaded = loaded
            self._metrics.reloaded(self._clock.now())
            log.info("configuration taken over", digest=loaded.digest, changes=found)
            await self._tell(loaded)
            return found

    async def _checked(self) -> Loaded:
        """What the files say, found good, and possible without a restart."""
        try:
            async with asyncio.timeout(READ_WITHIN):
                return await asyncio.to_thread(self._read, self.loaded.settings)
        except TimeoutError as error:
            said = f"was not read within {READ_WITHIN:.0f} s"
            raise ConfigError([Fault("configuration", said, "is a folder on a mount that hangs?")]) from error
        except (ConfigError, asyncio.CancelledError):
            raise
        except Exception as error:  # the shell: what runs goes on, whatever is wrong with what would follow
            log.exception("configuration cannot be read")
            raise ConfigError([Fault("configuration", "a mistake in the remediator itself, see its log")]) from error

    async def _tell(self, loaded: Loaded) -> None:
        """The journal: mode and digest of this replica, and that everything open is to be looked at again."""
        try:
            await self._journal.reconfigured(loaded.settings.mode, loaded.digest, longest_deadline(loaded))
            await self._journal.nudge()
        except JournalError as error:
            said = f"taken over here, yet the journal could not be told, reload once more: {error}"
            raise JournalError(said) from error
