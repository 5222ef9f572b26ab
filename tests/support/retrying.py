"""Retries of payments on the demo platform: the service with its token, the double's faults, the ledger, the action."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import aiohttp

from remediator.actions.base import Call, Outcome, Preview
from remediator.actions.retry_payments import RetryFailedPayments, RetryFailedPaymentsParams
from remediator.clock import SystemClock
from remediator.settings import Settings
from tests.integration.demo_platform import Platform
from tests.support.servers import Reply, Service, fetch, post_json
from tests.unit.cases import settings

TOKEN = "retry-token-of-the-tests"
PARAMS = RetryFailedPaymentsParams(service="payments")
HOURS = "now() - interval '1 hour'"


def token_file(platform: Platform) -> Path:
    """The file with the token that the service asks for."""
    file = platform.secrets / "payments_retry_token"
    file.write_text(TOKEN)
    return file


def paying(platform: Platform, **env: str) -> Service:
    """The payments service that may be asked to retry, quick to give up; not started yet."""
    quick = {
        "PREP_RETRY_TOKEN_FILE": str(token_file(platform)),
        "PREP_SETTLE_EVERY_SECONDS": "0.2",
        "PREP_SETTLE_AFTER_SECONDS": "2",
        "PREP_STRIPE_CALL_SECONDS": "0.7",
    }
    return platform.service("payments", **(quick | env))


def faults(platform: Platform, **shares: float | str) -> None:
    """What goes wrong at the double from now on; without words nothing."""
    assert post_json(f"{platform.url('stripe')}/_config/faults", shares).status == 200


def ledger(platform: Platform) -> Any:
    """The double's own count: charges, those of an intent twice, declines, and by order how often and how much."""
    return fetch(f"{platform.url('stripe')}/_config/charges?orders=1").json()


def failed(platform: Platform, order_ref: str, **columns: str) -> int:
    """A payment that the provider failed a minute ago, as the service leaves it; its id. Values are SQL."""
    row = {
        "order_ref": f"'{order_ref}'",
        "amount_minor": "2500",
        "currency": "'usd'",
        "provider": "'stripe'",
        "method": "'card'",
        "status": "'failed'",
        "failure_reason": "'provider_timeout'",
        "payment_method": "'pm_demo_0001'",
        "created_at": "now() - interval '2 min'",
        "finalized_at": "now() - interval '1 min'",
        **columns,
    }
    return int(
        platform.sql(f"insert into payments ({', '.join(row)}) values ({', '.join(row.values())}) returning id")[0][0]
    )


def listed(platform: Platform, limit: int = 100) -> Any:
    """GET /v1/retries."""
    return fetch(f"{platform.url('payments')}/v1/retries?limit={limit}", headers=_bearer()).json()


def failed_at(platform: Platform, number: int) -> str:
    """When a payment failed, as its owner writes it."""
    exact = "to_char(finalized_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    return platform.sql(f"select {exact} from payments where id = {number}")[0][0]


def retry(
    platform: Platform, number: int, attempt: str = "", ahead: float = 5.0, at: str = "", **headers: str
) -> Reply:
    """POST /v1/payments/{id}/retry as a caller who has just listed it."""
    sent = {**_bearer(), "X-Attempt-Id": attempt or secrets.token_hex(16), "X-Start-By": f"{time.time() + ahead:.3f}"}
    body = {"failed_at": at or failed_at(platform, number)}
    return post_json(f"{platform.url('payments')}/v1/payments/{number}/retry", body, sent | headers, timeout=30)


def entry(platform: Platform, **changes: Any) -> dict[str, Any]:
    """The service's entry in a remediator's settings."""
    return {"url": platform.url("payments"), "token_file": str(token_file(platform)), **changes}


def knowing(platform: Platform, **changes: Any) -> Settings:
    """A remediator's settings that list the service."""
    listed = {"payments": {"payments": entry(platform, **changes)}}
    return Settings.model_validate({**settings().model_dump(), **listed})


class Remediating:
    """The remediator's action on the service, as the engine calls it: preview, execute, settle."""

    def __init__(self, platform: Platform, session: aiohttp.ClientSession) -> None:
        self.action = RetryFailedPayments(knowing(platform), session, SystemClock())

    def call(self, found: Preview, ahead: float = 10.0, deadline: float = 20.0) -> Call:
        """The call that the engine would make of a preview."""
        start_by = found.target_now + ahead
        return Call(secrets.token_hex(16), PARAMS, found.items, found.resource, start_by, deadline, time.time())

    async def all(self) -> tuple[Preview, Outcome]:
        """Preview, and execute what it lists."""
        found = await self.action.preview(PARAMS)
        return found, await self.action.execute(self.call(found))


def _bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}
