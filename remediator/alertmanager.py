"""One Alertmanager: its alerts and silences, and posting alerts of our own.

In: URL and timeout. Out: decoded JSON of API v2. Raises Transient (no answer) or Permanent (not an answer).
Source: Alertmanager api/v2/openapi.yaml, 0.25 to 0.34.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import aiohttp

from remediator.errors import Permanent, Transient
from remediator.fetch import describe, get_json, read_bounded
from remediator.together import Together


class Alertmanager:
    """A client for one server; holds nothing but its address. The same question at the same time is asked once."""

    def __init__(self, url: str, session: aiohttp.ClientSession, timeout: float) -> None:
        self.url = url.rstrip("/")
        self._session = session
        self._timeout = timeout
        self._together = Together()

    async def alerts(self, *params: tuple[str, str]) -> list[dict[str, Any]]:
        """GET /api/v2/alerts; without parameters all, silenced and inhibited ones too."""
        return await self._list("/api/v2/alerts", params)

    async def silences(self) -> list[dict[str, Any]]:
        """Every silence that is active now."""
        found = await self._list("/api/v2/silences", ())
        return [item for item in found if item.get("status", {}).get("state") == "active"]

    async def post(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """POST /api/v2/alerts. The same label set again only moves its `endsAt`, so it may be repeated."""
        url = f"{self.url}/api/v2/alerts"
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        try:
            async with self._session.post(url, json=list(alerts), timeout=timeout, allow_redirects=False) as response:
                body = await read_bounded(response, 500)
                status = response.status
        except TimeoutError as error:
            raise Transient(f"POST {url}: no answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Transient(f"POST {url}: {describe(error)}") from error
        if status != 200:
            kind = Transient if status >= 500 else Permanent
            raise kind(f"POST {url}: status {status}: {body.decode('utf-8', 'replace')[:200]}")

    async def _list(self, path: str, params: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        return await self._together.ask((path, *params), partial(self._get, path, params))

    async def _get(self, path: str, params: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        answer = await get_json(self._session, self.url + path, params, within=self._timeout)
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise Permanent(f"{self.url}{path}: not an answer of Alertmanager: {str(answer)[:80]}")
        return answer


def silenced_by(silence: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Do all matchers of a silence match these labels? A missing label is the empty string.

    Regular expressions are anchored as in Alertmanager. Raises Permanent for one that Python cannot read:
    then nobody here knows whether it matches.
    """
    return all(_matches(matcher, labels.get(matcher["name"], "")) for matcher in silence["matchers"])


def _matches(matcher: Mapping[str, Any], value: str) -> bool:
    wanted = matcher["value"]
    if matcher.get("isRegex"):
        try:
            same = re.fullmatch(wanted, value) is not None
        except re.error as error:
            raise Permanent(f"the silence's pattern {wanted!r} cannot be read here: {error}") from error
    else:
        same = wanted == value
    return same is bool(matcher.get("isEqual", True))
