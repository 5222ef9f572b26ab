"""A payments service that owns its rows, as docs/payments-contract.md has it: list, retry one, ask what an attempt did.

In: an entry of `settings.payments`. Out: the owner's answers as values. Nothing here knows a card, a key or a provider:
the owner decides, and refuses what is late, repeated or not as it was listed. No retry, no connection used twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from remediator.effect_call import NotSent, Unsure, call_once
from remediator.errors import Permanent
from remediator.fetch import get_bytes
from remediator.settings import PaymentsOwner, secret

MAX_BYTES = 1024 * 1024  # 100 payments and 100 that are left out are 30 KB


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


Answer = TypeVar("Answer", bound=_Answer)


class Retryable(_Answer):
    """A failed payment that its owner would retry. `amount_minor` in the smallest unit; `failed_at` exact."""

    id: int
    order_ref: str
    amount_minor: int
    currency: str
    reason: str
    failed_at: str


class LeftOut(_Answer):
    """A failed payment that its owner would not retry, and the contract's word for why."""

    id: int
    why: str


class Answering(_Answer):
    """Of the payments tried in the last `seconds`: how many the provider answered, and how many it did not."""

    answered: int = 0
    unanswered: int = 0
    seconds: float = 60.0


class Failures(_Answer):
    """Failed payments of the last hour with one reason."""

    reason: str | None
    payments: int
    newest_seconds_ago: float


class Listed(_Answer):
    """What the owner says now. `now` is UNIX seconds on the clock that it compares `start_by` with."""

    now: float
    provider: Answering = Answering()
    failures_of_an_hour: tuple[Failures, ...] = ()
    retryable: tuple[Retryable, ...] = ()
    retryable_in_all: int = 0
    left_out: tuple[LeftOut, ...] = ()


class Begun(_Answer):
    """A payment that an attempt began to retry; `status` is open, succeeded or failed."""

    id: int
    status: str
    failure_reason: str | None = None


class Attempted(_Answer):
    """All that an attempt began, none of it under way unseen; `now` as in `Listed`."""

    now: float
    begun: tuple[Begun, ...] = Field(default=())


class Ended(StrEnum):
    """What one retry's answer proves. `not_begun`: the owner refused, or no connection was made."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    OPEN = "open"
    NOT_BEGUN = "not_begun"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Retried:
    """How one retry ended; `detail` a few words without secrets."""

    ended: Ended
    detail: str


class Owner:
    """One payments service."""

    def __init__(self, settings: PaymentsOwner, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._base = settings.url.rstrip("/")

    async def listed(self, limit: int) -> Listed:
        """What may be retried now, the oldest first. Raises Transient or Permanent."""
        return _as(Listed, await self._asked(f"/v1/retries?limit={limit}"))

    async def attempted(self, attempt: str) -> Attempted:
        """What an attempt began. Raises Transient or Permanent."""
        return _as(Attempted, await self._asked(f"/v1/retries/{attempt}"))

    async def retry(self, item: Mapping[str, Any], attempt: str, start_by: float, within: float) -> Retried:
        """Ask for one payment, once, on a connection of its own; never raises for what the owner answers."""
        url = f"{self._base}/v1/payments/{int(item['id'])}/retry"
        headers = {**self._token(), "X-Attempt-Id": attempt, "X-Start-By": f"{start_by:.3f}"}
        try:
            said = await call_once("POST", url, headers, within, json={"failed_at": item["failed_at"]})
        except NotSent as error:
            return Retried(Ended.NOT_BEGUN, f"no connection: {error}")
        except Unsure as error:
            return Retried(Ended.UNKNOWN, str(error))
        return _retried(said.status, said.headers.get("X-Retry-Refused"), said.body)

    def _token(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {secret(self._settings.token_file)}"}

    async def _asked(self, path: str) -> bytes:
        within = self._settings.timeout
        return await get_bytes(self._session, self._base + path, within=within, limit=MAX_BYTES, headers=self._token())


def _as(model: type[Answer], body: bytes) -> Answer:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        said = f"{error.error_count()} faults, the first in {error.errors()[0]['loc']}"
        raise Permanent(f"The payments service answers not what the contract says: {said}") from error


def _retried(status: int, refused: str | None, body: bytes) -> Retried:
    """200 has ended, 202 is open; a refusal bears the owner's own mark; everything else may have begun."""
    if refused is not None:
        # Repeated: this very attempt has begun it, by a copy of the call that somebody on the way has made.
        return Retried(Ended.UNKNOWN if refused == "repeated" else Ended.NOT_BEGUN, refused)
    if status in (200, 202):
        try:
            begun = Begun.model_validate_json(body)
        except ValidationError:
            return Retried(Ended.UNKNOWN, f"status {status}, and not what the contract says")
        known = {"succeeded": Ended.SUCCEEDED, "refunded": Ended.SUCCEEDED, "failed": Ended.FAILED}
        return Retried(known.get(begun.status, Ended.OPEN), begun.failure_reason or begun.status)
    return Retried(Ended.UNKNOWN, f"status {status}")


def summed(retried: Sequence[Retried]) -> str:
    """`3 succeeded, 1 not_begun (late)`, for a sentence."""
    counts: dict[str, int] = {}
    for one in retried:
        shown = one.ended.value if one.ended is Ended.SUCCEEDED else f"{one.ended.value} ({one.detail})"
        counts[shown] = counts.get(shown, 0) + 1
    return ", ".join(f"{count} {shown}" for shown, count in counts.items()) or "none asked for"
