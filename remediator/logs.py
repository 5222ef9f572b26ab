"""The log: one JSON object (or one line for a terminal) for each event, ours and the libraries' alike.

In: format and stream. Out: structlog and the standard library's logging set up, so that a line of asyncio or aiohttp is
an event like any other. A label may hold terminal escapes: no control character reaches the stream as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from structlog.typing import EventDict, Processor, WrappedLogger

from remediator.terminal import printable


def set_up(style: str, stream: TextIO) -> None:
    """`style`: json or console. The libraries' events begin at warning."""
    if style == "console":
        render: list[Processor] = [_for_terminals, structlog.dev.ConsoleRenderer(colors=False)]
    else:
        render = [structlog.processors.JSONRenderer()]  # in ASCII: whatever a label holds is escaped
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(processors=[*shared, *render], logger_factory=structlog.PrintLoggerFactory(stream))
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    handler.addFilter(_is_not_of_a_client)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _is_not_of_a_client(record: logging.LogRecord) -> bool:
    """False for what aiohttp says of a request that is no HTTP: its words repeat what the client has sent, which may be
    a token, and a port scan would fill the disk. The client has got its 400.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _for_terminals(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Every text of an event on one line; a traceback, which is ours, keeps its lines."""
    return {key: _lines(value) if key == "exception" else _cleaned(value) for key, value in event.items()}


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {str(_cleaned(key)): _cleaned(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(each) for each in value]
    return value if isinstance(value, bool | int | float | None) else printable(str(value))
