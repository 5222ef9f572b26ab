"""Lines of the containers' logs that tell of errors, the newest of all of them. Reads only, bounded.

In: a `Source`; with a service only its containers, without one all of the project. Out: text and one sentence, as in
`captures.py`: not redacted yet.
"""

from __future__ import annotations

import asyncio
import re

from remediator.captured import Captured, Source
from remediator.errors import Permanent, RemediatorError

LINES = 1000  # of each container's log, at most
LOG_BYTES = 512 * 1024
CONTAINERS = 40
_ERROR = re.compile(
    r"\b(?:ERROR|FATAL|PANIC|CRITICAL|Traceback|Exception)\b|\"?(?:level|severity)\"?\s*[=:]\s*\"?(?:error|critical|fatal)\b"
)
"""A level of a log line: PostgreSQL's and Python's words in capitals, `level=error` and `"level": "error"`."""


async def error_lines(source: Source, tail: int) -> Captured:
    """The newest `tail` lines that tell of an error, oldest first, each with its time and its container."""
    containers = await (source.engine.of_service(source.service) if source.service else source.engine.of_project())
    if not containers:
        raise Permanent(f"{source.service or f'project {source.settings.docker.project}'} has no container")
    asked = containers[:CONTAINERS]
    logs = await asyncio.gather(*(source.engine.logs(item, LINES, LOG_BYTES) for item in asked), return_exceptions=True)
    found: list[tuple[str, str, str]] = []
    silent = []
    for item, log in zip(asked, logs, strict=True):
        if isinstance(log, BaseException):
            if not isinstance(log, RemediatorError):
                raise log
            silent.append(item.name)
            continue
        for line in log.decode("utf-8", "replace").splitlines():
            at, _, words = line.partition(" ")
            if _ERROR.search(words):
                found.append((at, item.name, words))
    newest = sorted(found)[-tail:]
    missing = f"; not read: {', '.join(silent)}" if silent else ""
    said = f"{len(newest)} of {len(found)} lines that tell of errors, in the logs of {len(asked)} containers{missing}"
    return Captured("\n".join(f"{at} {name} {words}" for at, name, words in newest), said)
