"""Evidence about payments: how its owner says they fail, and what the provider's own page says. Reads only.

No order, no card, no payment stands in it: reasons and counts. The provider's page is a word for people and never
forbids or allows anything; without a way out it is switched off by the settings, and the evidence says so.
"""

from __future__ import annotations

import asyncio
import json

from remediator.captured import Captured, Source
from remediator.errors import Permanent, RemediatorError
from remediator.fetch import describe, get_json
from remediator.payments import Owner
from remediator.settings import PaymentsOwner

LISTED = 100
WORDS = 200  # characters of the page's own words


async def recent_failures(source: Source) -> Captured:
    """Failed payments of the last hour by reason, what may be retried, and why the others may not."""
    listed = await Owner(_owner(source), source.session).listed(LISTED)
    why: dict[str, int] = {}
    for one in listed.left_out:
        why[one.why] = why.get(one.why, 0) + 1
    told = {
        "failures_of_an_hour": [one.model_dump() for one in listed.failures_of_an_hour],
        "retryable": listed.retryable_in_all,
        "left_out": why,
        "provider": listed.provider.model_dump(),
    }
    reasons = ", ".join(f"{one.payments} {one.reason}" for one in listed.failures_of_an_hour) or "none"
    said = f"failed within an hour: {reasons}; {listed.retryable_in_all} may be retried"
    return Captured(json.dumps(told, indent=2), said)


async def stripe_status(source: Source) -> Captured:
    """What the provider says of itself (`/api/v2/status.json` of Statuspage); a page that is silent is told as such."""
    entry = _owner(source)
    if entry.status_page is None:
        return Captured("switched off", f"not asked: payments.{source.service}.status_page is not set")
    try:
        async with asyncio.timeout(entry.timeout):
            answer = await get_json(source.session, entry.status_page, within=entry.timeout)
        status = answer["status"]
        indicator, words = str(status["indicator"])[:WORDS], str(status["description"])[:WORDS]
    except (RemediatorError, TimeoutError) as error:
        return Captured(describe(error), "the provider's page does not answer, which proves nothing")
    except (KeyError, TypeError):
        return Captured(str(answer)[:1000], "the provider's page answers something else than a status")
    return Captured(json.dumps({"indicator": indicator, "description": words}), f"{indicator}: {words}")


def _owner(source: Source) -> PaymentsOwner:
    entry = source.settings.payments.get(source.service)
    if entry is None:
        raise Permanent(f"{source.service} is not in the settings' list of payments services")
    return entry
