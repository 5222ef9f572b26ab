"""The control probe: one GET of the public address on a new connection. Out: a `Look`; it raises nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass

import aiohttp

from switch.settings import Probe


@dataclass(frozen=True, slots=True)
class Look:
    """What came of one probe; `took` in seconds, `why` one line, "" when it is up."""

    up: bool
    took: float
    why: str = ""


async def probe(settings: Probe) -> Look:
    """Ask once. A session of its own: a kept connection would prove nothing about the next client."""
    begun = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=settings.timeout)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(settings.url, allow_redirects=False) as answer,
        ):
            await answer.content.readany()
            why = "" if answer.status == settings.status else f"answered {answer.status}, not {settings.status}"
    except TimeoutError:
        why = f"no answer within {settings.timeout:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        why = f"cannot be reached ({type(error).__name__})"
    return Look(not why, time.monotonic() - begun, why)
