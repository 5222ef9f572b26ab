"""One HTTP call that has an effect: on a connection of its own, sent once, and told apart by what is proven.

In: method, URL, headers, body, seconds. Out: status, headers and the head of the body; or `NotSent`, when nobody took
the connection, or `Unsure`, when it may have arrived. No keep-alive connection and no retry: a request that finds a
closed connection must not be taken for one that was refused, nor sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from remediator.fetch import describe, read_bounded

CONNECT = 2.0  # seconds until the target must have taken the connection: it stands on the same network
HEAD = 4096  # bytes of the answer that are read


class NotSent(Exception):
    """Nobody took the connection: nothing has begun."""


class Unsure(Exception):
    """It was sent, or may have been; how it ended is not known."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered; `body` at most HEAD bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Once(aiohttp.TCPConnector):
    """Gives one connection and no other: aiohttp sends a DELETE again when the first connection breaks under it."""

    _given = False

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        if self._given:
            raise aiohttp.ClientConnectionError("the connection broke, and nothing is sent twice")
        self._given = True
        return await super().connect(*args, **kwargs)


async def call_once(method: str, url: str, headers: Mapping[str, str], within: float, json: Any = None) -> Reply:
    """Make the call; `within` seconds bounds all of it. Raises NotSent or Unsure."""
    timeout = aiohttp.ClientTimeout(total=within, connect=min(CONNECT, within))
    try:
        async with (
            aiohttp.ClientSession(connector=_Once(force_close=True, limit=1), timeout=timeout) as once,
            once.request(method, url, headers=headers, json=json, allow_redirects=False) as response,
        ):
            return Reply(response.status, response.headers, await read_bounded(response, HEAD))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise NotSent(describe(error)) from error
    except TimeoutError as error:
        raise Unsure(f"no answer within {within:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unsure(f"the connection broke after the call was sent: {describe(error)}") from error
