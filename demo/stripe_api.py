"""The payment provider, as the payments service sees it: six calls, and for each every way it can end.

In: the official SDK's asynchronous client. Out: an `Intent` as the provider has it now; or Declined (the bank said no),
Rejected (the request itself is wrong, nothing was charged), Unknown (timeout, reset, 5xx, rate limit: it may or may not
have happened). The SDK's own retries are off: who retries must first know what the row says, and only the caller does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiohttp
import stripe

CALL_SECONDS = 8.0
"""Longest that one call may take, when nothing else is said."""
CALLS_AT_ONCE = 16
"""Connections to the provider; further calls wait."""


class Declined(Exception):
    """The bank refused; `reason` is the provider's code (`card_declined`)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Rejected(Exception):
    """The provider will not take this request, now or later; nothing was charged by it."""

    def __init__(self, reason: str, missing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.missing = missing
        """The object does not exist (404)."""


class Unknown(Exception):
    """Nobody can say whether the call had its effect; `word` says who is to be asked: `provider_timeout`, for one."""

    def __init__(self, reason: str, word: str) -> None:
        super().__init__(reason)
        self.word = word


@dataclass(frozen=True, slots=True)
class Intent:
    """A PaymentIntent as the provider has it: `status` is Stripe's word, `reason` its last error's code."""

    id: str
    status: str
    reason: str | None


class StripeApi:
    """The six calls. One idempotency key names one effect for good."""

    def __init__(self, client: stripe.StripeClient) -> None:
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds
        self._methods = client.v1.payment_methods

    async def create(
        self, key: str, amount_minor: int, currency: str, payment_method: str, metadata: Mapping[str, str]
    ) -> Intent:
        """An intent that is not confirmed: nothing is charged by this. `amount_minor` in cents.

        `metadata` is for whoever looks at the intent in the provider's dashboard: whose order it is.
        """
        with _translated():
            return _intent(
                await self._intents.create_async(
                    {
                        "amount": amount_minor,
                        "currency": currency,
                        "payment_method": payment_method,
                        "metadata": dict(metadata),
                    },
                    {"idempotency_key": key},
                )
            )

    async def confirm(self, key: str, intent: str) -> Intent:
        """Charge the intent."""
        with _translated():
            return _intent(await self._intents.confirm_async(intent, options={"idempotency_key": key}))

    async def cancel(self, key: str, intent: str) -> Intent:
        """Make sure that the intent can never be charged. Rejected when it has been charged meanwhile."""
        with _translated():
            return _intent(await self._intents.cancel_async(intent, options={"idempotency_key": key}))

    async def refund(self, key: str, intent: str) -> None:
        """Give back what the intent took. Rejected when it has taken nothing."""
        with _translated():
            await self._refunds.create_async({"payment_intent": intent}, {"idempotency_key": key})

    async def retrieve(self, intent: str) -> Intent:
        """Read it."""
        with _translated():
            return _intent(await self._intents.retrieve_async(intent))

    async def card_of(self, payment_method: str) -> str | None:
        """The fingerprint of the card behind a payment method: the same for the same card number, and not the number.

        None when it is no card. Rejected when nobody knows the method.
        """
        with _translated():
            found = await self._methods.retrieve_async(payment_method)
        return found.card.fingerprint if found.card else None


@asynccontextmanager
async def open_stripe(base: str, api_key: str, call_seconds: float = CALL_SECONDS) -> AsyncIterator[StripeApi]:
    """The provider at `base` (https://api.stripe.com, or the demo's double); a call takes `call_seconds` at most."""
    stripe.enable_telemetry = False
    connector = aiohttp.TCPConnector(limit=CALLS_AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as session:
        http = stripe.AIOHTTPClient(session=session, timeout=aiohttp.ClientTimeout(total=call_seconds))
        client = stripe.StripeClient(
            api_key, base_addresses={"api": base}, max_network_retries=0, http_client=http, verify_ssl_certs=True
        )
        yield StripeApi(client)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except stripe.CardError as error:
        raise Declined(error.code or "card_declined") from error
    except stripe.RateLimitError as error:
        raise Unknown("the provider asks us to slow down", "provider_rate_limited") from error
    except (stripe.InvalidRequestError, stripe.AuthenticationError, stripe.PermissionError) as error:
        raise Rejected(error.code or "invalid_request", missing=error.http_status == 404) from error
    except (TimeoutError, stripe.StripeError, aiohttp.ClientError) as error:
        # The SDK wraps what went wrong in two lines of advice; its cause says it in a word.
        cause = error.__cause__ or error
        raise Unknown(type(cause).__name__, _word(error, cause)) from error


def _word(error: BaseException, cause: BaseException) -> str:
    """Whether nobody answered in time, nobody was there, or the provider answered and could not."""
    if isinstance(cause, TimeoutError):
        return "provider_timeout"
    lost = isinstance(error, stripe.APIConnectionError | aiohttp.ClientError)
    return "provider_unreachable" if lost else "provider_error"


def _intent(found: stripe.PaymentIntent) -> Intent:
    error = found.last_payment_error
    return Intent(found.id, found.status, (error.code or "declined") if error else None)
