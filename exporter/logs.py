"""Structured logs: one JSON object (or one line for a terminal) for each event, ours and the libraries' alike.

In: level, format, stream. Out: structlog and the standard library's logging set up, so that a line of asyncio or
aiohttp is an event like any other. It must never let a secret through: each text of an event, tracebacks too, is
cleaned last.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from structlog.typing import EventDict, Processor, WrappedLogger

from exporter.redaction import clean

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up(level: str, form: str, stream: TextIO) -> None:
    """`level`: debug, info, warning or error, of our own events; the libraries' begin at warning. `form`: json or
    console.
    """
    render: Processor = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, redact, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, render],
        )
    )
    handler.addFilter(_is_not_of_a_client)
    logging.basicConfig(level=max(_LEVELS[level], logging.WARNING), handlers=[handler], force=True)


def _is_not_of_a_client(record: logging.LogRecord) -> bool:
    """False for what aiohttp says of a request that is no HTTP: its words repeat what the client has sent, which may be
    a password, and a port scan would fill the disk. The client has got its 400.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Clean every text of an event, however deep."""
    return {key: _cleaned(value) for key, value in event.items()}


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {key: _cleaned(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(each) for each in value]
    return value if isinstance(value, bool | int | float | None) else clean(str(value))
