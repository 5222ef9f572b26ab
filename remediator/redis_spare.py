"""One connection to each Redis, opened in good times, for the hour in which every other one is taken.

At `maxclients` Redis turns everybody away, us too, and just then somebody's leaked connections want closing. So the
remediator holds one and lends it to whatever must look or act when it is turned away (`redis_link.connected`); it
guards and fences nothing less. The direct probe never uses it: that asks whether a client is let in. It costs each
server one connection for each replica of the remediator. Now and then it is named anew: that asks whether it lives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from remediator.redis_link import SPARE, Link, key_of, lend, open_once
from remediator.settings import Redis, Settings

log = structlog.get_logger(__name__)

EVERY = 10.0  # seconds between two looks after it: more often than a server's `timeout` would close it
OLDEST = 3600.0
"""Seconds after which it is replaced, so that a password that was changed holds for it too."""


async def keep(settings: Callable[[], Settings], every: float = EVERY, oldest: float = OLDEST) -> None:
    """Have one for each server of the settings, until cancelled; then none is left."""
    since: dict[tuple[str, int, str | None], float] = {}
    with _closed_at_the_end():
        while True:
            entries = {key_of(redis): redis for redis in settings().redis.values()}
            for key in SPARE.keys() - entries.keys():
                SPARE.pop(key).close()
            now = time.monotonic()
            found = await asyncio.gather(*(_looked_after(redis, now - since.get(key, 0.0) > oldest)
                                           for key, redis in entries.items()))  # fmt: skip
            since |= {key: now for key, fresh in zip(entries, found, strict=True) if fresh}
            await asyncio.sleep(every)


async def _looked_after(redis: Redis, old: bool) -> bool:
    """Ask whether it still answers, and open one where there is none; True for a new one.

    An old one stays when no new one can be had: it may be the only way in. Whatever goes wrong here (a host that is no
    name, a password that is no text) is told by who needs the connection; a convenience must not end the process.
    """
    key = key_of(redis)
    try:
        kept = await lend(redis)
        if kept is not None:
            SPARE[key] = kept
            if not old:
                return False
        fresh = await open_once(redis)
    except Exception as error:  # noqa: BLE001 - see above
        log.debug("no connection can be kept", where=f"Redis {redis.host}:{redis.port}", why=str(error))
        return False
    fresh.lent = True
    _put(key, fresh)
    return True


def _put(key: tuple[str, int, str | None], fresh: Link) -> None:
    if (former := SPARE.pop(key, None)) is not None:
        former.close()
    SPARE[key] = fresh


@contextmanager
def _closed_at_the_end() -> Iterator[None]:
    try:
        yield
    finally:
        while SPARE:
            SPARE.popitem()[1].close()
