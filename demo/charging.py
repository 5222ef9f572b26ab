"""One row of `payments` and its one PaymentIntent: from the first call to the row's end.

In: a row's id and what is to be paid. Out: the row, ended by what the provider says, or left `pending` when nobody
knows. Every step is guarded by the word `pending` in its own statement, so whoever works on a row (the request that
made it, `settle`, a retry) may be killed, frozen or late, and another may go on.

**One intent, one key for each call, for good.** The intent is made unconfirmed, its id is written into the row, and
only then it is confirmed. Keys are made of the row's id: repeating a call is asking for its answer again. A new key is
never made, also not after an answer 500, which the provider repeats to the same key: what that one did, a person finds
out. The provider forgets keys after 24 hours, so a row older than KEY_HOURS is asked about and never confirmed
(Stripe, "Idempotent requests").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import structlog

from demo.service import Log, Pool
from demo.stripe_api import Declined, Intent, Rejected, StripeApi, Unknown

KEY_HOURS = 23
"""Age of a row, in hours, up to which its keys are known to the provider; it keeps them for 24."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What one row is to take. `amount_minor` in the currency's smallest unit, `method` the provider's `pm_...`."""

    number: int
    order_ref: str
    amount_minor: int
    currency: str
    method: str


class Charging:
    """Takes the money of one row, once, and ends the row."""

    def __init__(self, pool: Pool, stripe: StripeApi) -> None:
        self._pool = pool
        self._stripe = stripe
        self._log: Log = structlog.get_logger("demo")

    async def charge(self, wanted: Charge) -> None:
        """Make the intent, write it down, confirm it, end the row by what came of it."""
        number = wanted.number
        metadata = {"order_ref": wanted.order_ref, "payment": str(number)}
        try:
            intent = await self._stripe.create(
                f"prep-payment-{number}", wanted.amount_minor, wanted.currency, wanted.method, metadata
            )
        except (Declined, Rejected) as refused:
            await self.finish(number, "failed", refused.reason)
            return
        except Unknown as error:
            self._log.warning("payment is open: no intent", payment=number, reason=str(error))
            await self._note(number, error.word)
            return
        noted = await self._pool.fetchval(
            "UPDATE payments SET stripe_payment_intent = $2, attempts = attempts + 1"
            " WHERE id = $1 AND status = 'pending' AND stripe_payment_intent IS NULL RETURNING id",
            number, intent.id,
        )  # fmt: skip
        if noted is not None:
            await self._confirm(number, intent.id)

    async def resume(self, number: int, intent: str, confirm: bool = True) -> None:
        """Ask the provider what became of the row's one intent, and go on from there.

        Without `confirm` nothing is charged by this: its key may be forgotten.
        """
        try:
            found = await self._stripe.retrieve(intent)
        except Rejected as rejected:
            if rejected.missing:
                await self.finish(number, "failed", "intent_missing")
            else:
                self._log.error("payment is open: the provider refuses to tell", payment=number, reason=rejected.reason)
            return
        except (Declined, Unknown) as error:
            self._log.warning("payment is open", payment=number, reason=str(error))
            return
        if found.status == "requires_confirmation" and confirm:
            await self._confirm(number, intent)
        else:
            await self._conclude(number, found)

    async def finish(self, number: int, status: str, reason: str | None) -> None:
        """End the row, and the retry that it is in, in one statement."""
        await self._pool.execute(
            "WITH ended AS (UPDATE payments SET status = $2, failure_reason = $3, finalized_at = clock_timestamp()"
            " WHERE id = $1 AND status = 'pending' RETURNING id)"
            " UPDATE payment_retries SET outcome = $2, failure_reason = $3, ended_at = clock_timestamp()"
            " FROM ended WHERE payment_id = ended.id AND outcome IS NULL",
            number, status, reason,
        )  # fmt: skip

    async def _confirm(self, number: int, intent: str) -> None:
        try:
            await self._conclude(number, await self._stripe.confirm(f"prep-payment-{number}-confirm", intent))
        except Declined as declined:
            await self.finish(number, "failed", declined.reason)
        except Rejected:
            await self.resume(number, intent, confirm=False)
        except Unknown as error:
            self._log.warning("payment is open: not known whether it was charged", payment=number, reason=str(error))

    async def _conclude(self, number: int, intent: Intent) -> None:
        """End the row by the intent's status (Stripe, "PaymentIntent lifecycle"); processing stays open."""
        match intent.status:
            case "succeeded":
                await self.finish(number, "succeeded", None)
            case "requires_payment_method":
                await self.finish(number, "failed", intent.reason or "declined")
            case "canceled":
                await self.finish(number, "failed", "canceled")
            case "requires_action":
                await self._cancel(number, intent.id)
            case _:
                self._log.info("payment is open", payment=number, intent_status=intent.status)

    async def _cancel(self, number: int, intent: str) -> None:
        """The bank wants to see the customer, which this service cannot arrange.

        An intent that is left open could still be charged after the order was paid otherwise.
        """
        try:
            await self._stripe.cancel(f"prep-payment-{number}-cancel", intent)
        except (Declined, Rejected, Unknown) as error:
            self._log.warning("payment is open: its intent could not be cancelled", payment=number, reason=str(error))
            return
        await self.finish(number, "failed", "authentication_required")

    async def _note(self, number: int, word: str) -> None:
        """Why the row stays open."""
        await self._pool.execute(
            "UPDATE payments SET failure_reason = $2 WHERE id = $1 AND status = 'pending'", number, word
        )


async def lock_order(connection: Any, order_ref: str) -> None:
    """Hold the order until the transaction ends: paying, retrying and cancelling it exclude each other.

    `hashtextextended`: two orders of one hash wait for each other, and nothing else comes of it.
    """
    await cast(Any, connection).execute("SELECT pg_advisory_xact_lock(hashtextextended('order/' || $1, 0))", order_ref)
