"""Retry failed payments through the service that owns them, ten a call: one first, then a look, then the others.

It lists, asks for ids out of the preview, and reads how each ended. Which payment may be retried, with which intent and
key, whether the order is paid otherwise, what a card has had: all of that is the owner's (docs/payments-contract.md),
decided in its own transaction together with `start_by` and the attempt's id. Only a canary that was paid lets the
others go; whatever nobody knows stops them. Asks one person in every mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import aiohttp
from pydantic import BaseModel, ConfigDict, Field

from remediator.actions.base import Action, Call, Item, Outcome, Preview, Result, Risk, Settled, Settlement
from remediator.clock import Clock
from remediator.errors import Fault, Permanent
from remediator.payments import Ended, Listed, Owner, Retried, summed
from remediator.reasons import Reason, Refusal
from remediator.settings import Settings

MOST = 10
"""`prepctl payments:retry --batch-size 10`, the handbook."""
ENDED = frozenset({"succeeded", "failed"})
"""Words of an owner for a payment that nothing comes of any more; any other one may still take money."""
UNANSWERED = 0.1
"""Share of the latest payments without the provider's answer from which on a retry would only add to the pile."""


class RetryFailedPaymentsParams(BaseModel):
    """`service`: name of an entry of `settings.payments`; `batch_size` payments at most, the first one included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: str = Field(min_length=1, max_length=128)
    batch_size: int = Field(default=MOST, ge=1, le=MOST)


class RetryFailedPayments(Action):
    """Ask the owner to take the money of orders that the provider or the platform failed."""

    name: ClassVar[str] = "retry_failed_payments"
    risk: ClassVar[Risk] = Risk.FINANCIAL
    idempotent: ClassVar[bool] = True  # per payment the owner knows what began, and nothing begins twice
    deadline: ClassVar[float] = 60.0  # one call of the provider's takes up to 8 s, a payment up to three
    params_model: ClassVar[type[BaseModel]] = RetryFailedPaymentsParams

    def __init__(self, settings: Settings, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._settings = settings
        self._session = session
        self._clock = clock

    @classmethod
    def listed(cls, settings: Settings) -> Sequence[str]:
        return sorted(settings.payments)

    @classmethod
    def obstacles(cls, settings: Settings, service: str) -> tuple[Fault, ...]:
        if service in settings.payments:
            return ()
        said = "is not listed: none of its payments is ever retried"
        return (Fault(f"payments.{service}", said, "list it, once it offers docs/payments-contract.md"),)

    async def preview(self, params: BaseModel) -> Preview:
        wanted = RetryFailedPaymentsParams.model_validate(params.model_dump())
        resource = f"payments:{wanted.service}"
        owner = self._owner(wanted.service)
        if owner is None:
            sentence = f"{wanted.service} is not in the settings' list of payments services."
            refusal = Refusal(Reason.TARGET_NOT_ALLOWED, sentence)
            return Preview(resource, "Nothing may be retried.", (), self._clock.now(), (refusal,))
        listed = await owner.listed(wanted.batch_size)
        items = tuple(one.model_dump() for one in listed.retryable[: wanted.batch_size])
        return Preview(
            resource=resource,
            summary=_summary(wanted.service, listed, len(items)),
            items=items,
            target_now=listed.now,
            refusals=_refusals(listed),
            left_out=tuple(one.model_dump() for one in listed.left_out[:20]),
        )

    async def execute(self, call: Call) -> Outcome:
        params = RetryFailedPaymentsParams.model_validate(call.params.model_dump())
        owner = self._owner(params.service)
        if owner is None:
            return Outcome(Result.FAILED, f"{params.service} is not in the settings any more; nothing was sent.")
        until = self._clock.boottime() + call.deadline
        asked: list[tuple[Item, Retried]] = []
        for item in call.items[:MOST]:
            left = until - self._clock.boottime() - 1.0
            if left <= 0:
                break
            asked.append((item, await owner.retry(item, call.attempt, call.start_by, left)))
            if _stops(asked):
                break
        return _outcome(call, asked)

    async def settle(self, call: Call) -> Settled:
        """Done: all that it began has ended. Not done: the owner began nothing, and would refuse it as late."""
        params = RetryFailedPaymentsParams.model_validate(call.params.model_dump())
        owner = self._owner(params.service)
        if owner is None:
            raise Permanent(f"{params.service} is not in the settings any more: it cannot be asked.")
        found = await owner.attempted(call.attempt)
        still = [one.id for one in found.begun if one.status not in ENDED]
        evidence = {"owner_now": found.now, "begun": [one.model_dump() for one in found.begun]}
        if still:
            sentence = f"Not known whether the money was taken: payments {still} are open; their owner goes on asking."
            return Settled(Settlement.UNKNOWN, sentence, evidence)
        if found.now <= call.start_by:
            return Settled(Settlement.UNKNOWN, "The owner would still begin a call of this attempt.", evidence)
        if not found.begun:
            return Settled(Settlement.NOT_DONE, "The owner began nothing, and would refuse it as late now.", evidence)
        paid = sum(one.status == "succeeded" for one in found.begun)
        return Settled(Settlement.DONE, f"{len(found.begun)} retried, {paid} of them paid.", evidence)

    def _owner(self, service: str) -> Owner | None:
        entry = self._settings.payments.get(service)
        return None if entry is None else Owner(entry, self._session)


def _refusals(listed: Listed) -> tuple[Refusal, ...]:
    """While the provider leaves payments unanswered, nothing is added to them. Without traffic the canary tells."""
    known = listed.provider
    tried = known.answered + known.unanswered
    if not tried or known.unanswered <= UNANSWERED * tried:
        return ()
    sentence = f"The provider left {known.unanswered} of {tried} payments of the last {known.seconds:.0f} s unanswered."
    return (Refusal(Reason.PROVIDER_FAILING, sentence),)


def _summary(service: str, listed: Listed, count: int) -> str:
    sums: dict[str, int] = {}
    for one in listed.retryable[:count]:
        sums[one.currency] = sums.get(one.currency, 0) + one.amount_minor
    money = ", ".join(f"{amount / 100:.2f} {currency}" for currency, amount in sorted(sums.items()))
    of = f" of {listed.retryable_in_all}" if listed.retryable_in_all > count else ""
    worth = f", {money}" if money else ""
    return f"Retry {count}{of} failed payments of {service}{worth}: one first, the others once it is paid."


def _stops(asked: Sequence[tuple[Item, Retried]]) -> bool:
    """The canary must be paid. After it: a refusal of one payment says nothing of the next, all else does."""
    canary = not any(one.ended is Ended.SUCCEEDED for _, one in asked)
    last = asked[-1][1]
    if last.ended is Ended.NOT_BEGUN:
        return last.detail in ("late", "early", "not_allowed", "no_attempt", "unavailable", "provider_unavailable")
    return last.ended in (Ended.OPEN, Ended.UNKNOWN) or (canary and last.ended is not Ended.SUCCEEDED)


def _outcome(call: Call, asked: Sequence[tuple[Item, Retried]]) -> Outcome:
    """Nothing began: failed. One whose end nobody knows: in doubt. Else done, whatever the bank said."""
    touched = tuple(item for item, one in asked if one.ended is not Ended.NOT_BEGUN)
    said = f"{len(asked)} of {len(call.items)} asked for: {summed([one for _, one in asked])}."
    if not touched:
        return Outcome(Result.FAILED, f"Nothing began. {said}")
    if any(one.ended in (Ended.OPEN, Ended.UNKNOWN) for _, one in asked):
        return Outcome(Result.IN_DOUBT, said, touched)
    return Outcome(Result.DONE, said, touched)
