"""Delivers messages: webhooks, PagerDuty, Slack. One try a call, under its own timeout.

In: a destination's name and a `Message`. Out: None, or one line that says why it did not arrive. Secrets are read from
their files at each try and never become part of that line.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from exporter.errors import ConfigError
from switch import messages
from switch.messages import Message
from switch.settings import Pages, secret


class Pager:
    """All destinations of the settings, by name."""

    def __init__(self, pages: Pages, session: aiohttp.ClientSession) -> None:
        self._pages = pages
        self._session = session

    @property
    def names(self) -> tuple[str, ...]:
        """Every destination."""
        return (*self._pages.webhooks, *self._pages.pagerduty, *self._pages.slack)

    async def send(self, name: str, message: Message) -> str | None:
        """None when it was taken (any 2xx). Raises nothing for what the network or a file does."""
        try:
            url, body, headers = self._request(name, message)
        except ConfigError as error:
            return str(error)
        timeout = aiohttp.ClientTimeout(total=self._pages.timeout)
        try:
            async with self._session.post(
                url, json=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                return None if 200 <= answer.status < 300 else f"answered {answer.status}"
        except TimeoutError:
            return f"no answer within {self._pages.timeout:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # By its kind only: the text may hold the address, which is a secret for Slack.
            return f"cannot be reached ({type(error).__name__})"

    def _request(self, name: str, message: Message) -> tuple[str, dict[str, Any], dict[str, str]]:
        """Address, body and headers. Raises ConfigError."""
        if (hook := self._pages.webhooks.get(name)) is not None:
            url = secret(hook.url_file) if hook.url_file is not None else str(hook.url)
            headers = {"Authorization": f"Bearer {secret(hook.token_file)}"} if hook.token_file is not None else {}
            return url, messages.webhook(message), headers
        if (service := self._pages.pagerduty.get(name)) is not None:
            return service.url, messages.pagerduty(message, secret(service.routing_key_file)), {}
        return secret(self._pages.slack[name].url_file), messages.slack(message), {}

    async def test(self, message: Message) -> dict[str, str | None]:
        """Send to all at once; what came of each."""
        names = self.names
        return dict(zip(names, await asyncio.gather(*(self.send(name, message) for name in names)), strict=True))
