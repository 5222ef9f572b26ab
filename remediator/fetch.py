"""One JSON question over HTTP to a server that may be slow, broken or lying about its size.

In: URL, parameters and a timeout. Out: the decoded answer, or Transient (nobody answered: ask later) or
Permanent (the server said no: asking again gives the same). Reads only; nothing here may carry an effect.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp

from remediator.errors import Permanent, Transient
from remediator.redaction import redact

Json = Any
Params = Iterable[tuple[str, str]]

MAX_BYTES = 16 * 1024 * 1024  # /api/v1/rules and /api/v2/alerts of a large platform are a few MB


class Refused(Permanent):
    """The server answered with a status that is not 2xx. `status` is that number."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


async def get_json(session: aiohttp.ClientSession, url: str, params: Params = (), *, within: float) -> Json:
    """GET and decode. `within` seconds bounds the whole exchange, body included.

    Raises Transient for no answer, a cut answer and 5xx; Refused for other statuses; Permanent for an answer
    that is not JSON or over 16 MB.
    """
    body = await get_bytes(session, url, params, within=within)
    try:
        return json.loads(body)
    except ValueError as error:
        raise Permanent(f"GET {url}: the answer is not JSON: {_excerpt(body)[:80]!r}") from error


async def get_bytes(
    session: aiohttp.ClientSession,
    url: str,
    params: Params = (),
    *,
    within: float,
    limit: int = MAX_BYTES,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """GET and return the body of at most `limit` bytes; errors as in `get_json`."""
    try:
        async with session.get(
            url,
            params=list(params),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=within),
            allow_redirects=False,
        ) as response:
            body = await read_bounded(response, limit + 1)
            status = response.status
    except TimeoutError as error:
        raise Transient(f"GET {url}: no answer within {within:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Transient(f"GET {url}: {describe(error)}") from error
    if status >= 500:
        raise Transient(f"GET {url}: status {status}: {_excerpt(body)}")
    if not 200 <= status < 300:
        raise Refused(status, f"GET {url}: status {status}: {_excerpt(body)}")
    if len(body) > limit:
        raise Permanent(f"GET {url}: the answer is longer than {limit} bytes")
    return body


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """At most `limit` bytes of the body; the rest stays unread."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= limit:
            response.close()
            break
    return bytes(body[:limit])


def describe(error: BaseException) -> str:
    """An exception as words: some have an empty text."""
    return str(error) or type(error).__name__


def _excerpt(body: bytes) -> str:
    return redact(" ".join(body[:200].decode("utf-8", "replace").split()))
