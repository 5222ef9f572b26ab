"""`health:check --all`: the remediator's own direct probe of all that its configuration names. Reads only."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from prepctl import show

if TYPE_CHECKING:
    from remediator.settings import Settings

Found = Mapping[str, str]
"""`service`, `health` (healthy, sick, down, unknown) and `detail`."""
_OWN_WORD = re.compile(r"\[redacted:secret\](?= (?:cannot be read|is no text))")
"""After a file's name that ends with `password`, redaction takes `secret cannot be read` for a password."""
DEADLINE = 15.0  # seconds for one probe, over what its own settings say


def probed(settings: Settings) -> Sequence[Found]:
    """Every service that has a probe, every database and every Redis, side by side, sorted by name."""
    names = {name for name, entry in settings.services.items() if entry.probe is not None}
    return asyncio.run(_probed(settings, sorted(names | set(settings.databases) | set(settings.redis))))


def sick(found: Sequence[Found]) -> bool:
    """Is anything not healthy? What cannot be known counts."""
    return any(row["health"] != "healthy" for row in found)


def table(found: Sequence[Found]) -> Table:
    """For the terminal."""
    return show.table(("SERVICE", "HEALTH", "SEEN"), ((row["service"], row["health"], row["detail"]) for row in found))


async def _probed(settings: Settings, names: Sequence[str]) -> Sequence[Found]:
    import aiohttp  # noqa: PLC0415

    from remediator.probing import probe  # noqa: PLC0415
    from remediator.redaction import redact  # noqa: PLC0415

    async def one(session: aiohttp.ClientSession, name: str) -> Found:
        try:
            async with asyncio.timeout(DEADLINE):
                found = await probe(settings, session, name)
        except TimeoutError:
            return {"service": name, "health": "unknown", "detail": f"no end of the probe within {DEADLINE:g} s"}
        return {"service": name, "health": str(found.health), "detail": _OWN_WORD.sub("secret", redact(found.detail))}

    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*(one(session, name) for name in names))
