"""A remediator's part of one attempt, as a process that can be killed anywhere: preview, word of the attempt, execute.

    python -m tests.support.retrying_child URL TOKEN_FILE

It says `ready`, waits for a line, says the attempt with its items as JSON (the intent is durable before the effect), and
executes. It settles nothing: whoever reads its word does.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys

import aiohttp

from remediator.actions.base import Call
from remediator.actions.retry_payments import RetryFailedPayments, RetryFailedPaymentsParams
from remediator.clock import SystemClock
from remediator.errors import RemediatorError
from remediator.settings import Settings
from tests.unit.cases import settings

AHEAD = 4.0  # seconds until start_by


async def main(url: str, token: str) -> None:
    """One attempt."""
    entry = {"payments": {"payments": {"url": url, "token_file": token}}}
    known = Settings.model_validate({**settings().model_dump(), **entry})
    params = RetryFailedPaymentsParams(service="payments")
    async with aiohttp.ClientSession() as session:
        action = RetryFailedPayments(known, session, SystemClock())
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            found = await action.preview(params)
        except RemediatorError as error:
            print(json.dumps({"attempt": "", "why": str(error)}), flush=True)
            return
        attempt, start_by = secrets.token_hex(16), found.target_now + AHEAD
        said = {"attempt": attempt, "start_by": start_by, "items": [dict(item) for item in found.items]}
        print(json.dumps(said), flush=True)
        await action.execute(Call(attempt, params, found.items, found.resource, start_by, 20.0, 0.0))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
