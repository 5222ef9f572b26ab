"""Drills of the runbook payment-failures-spike: the provider fails for a while; and banks that decline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from demo.drills.base import Drill, Finding, Story
from demo.stack import Stack, StackError, end, first_json

WELL_AFTER = 12.0  # seconds from the alert on until the provider is well again
WATCHED = 60.0  # seconds in which nothing may happen after the declines
MOST = 10


@contextmanager
def failing_provider(stack: Stack, story: Story) -> Iterator[None]:
    """Six of ten new payments get no answer from the provider, until some seconds after the alert."""
    process = stack.start_fault("provider-fails", "--percent", "60", "--seconds", "240")
    first_json(process, ("percent",))
    story.times["fault"] = time.time()
    story.notes["fault"] = "the provider answers four of ten new payments"
    try:
        yield
    finally:
        _well(stack, story)
        end(process)


def approve(stack: Stack, story: Story) -> None:
    """A person's part: the provider's trouble ends, and somebody agrees to what is asked."""
    firing = story.times.get("firing")
    if firing is not None and "well" not in story.times and time.time() - firing > WELL_AFTER:
        _well(stack, story)
    if "well" not in story.times or "approved" in story.times:
        return
    for asked in stack.api("/api/v1/approvals")["approvals"]:
        if asked["runbook"] != RUNBOOK:
            continue
        said = {"digest": asked["digest"], "reason": "drill: the provider answers again", "who": "drill"}
        try:
            stack.api(f"/api/v1/approvals/{asked['id']}/approve", said)
        except StackError:
            return  # the list has changed in this very moment: what is asked now is another question
        story.times["approved"] = time.time()
        story.notes["approved"] = asked["summary"]


def inspect_retried(stack: Stack, story: Story) -> list[Finding]:
    """By the provider's ledger: who was retried paid once, the right amount; and nobody else was retried.

    A card that its bank declines now, as three of a hundred are at any time, was retried as it should be, and stays so.
    """
    found = _ledger(stack)
    rows = _rows(
        stack,
        "select p.order_ref, p.amount_minor, p.status, r.attempt, coalesce(p.failure_reason, '')"
        " from payment_retries r join payments p on p.id = r.payment_id",
    )
    attempts = {row[3] for row in rows}
    paid = [row for row in rows if row[2] in ("succeeded", "refunded")]
    declined = [row for row in rows if row[2] == "failed" and row[4] == "card_declined"]
    wrong = [row for row in paid if found["orders"].get(row[0]) != [1, int(row[1])]]
    return [
        Finding("failed payments were retried, at most ten", 1 <= len(rows) <= MOST, f"{len(rows)} (payment_retries)"),
        Finding("in one attempt, which was approved", len(attempts) == 1 and "approved" in story.times, f"{attempts}"),
        Finding(
            "all of them are paid, but for cards that were declined (database)",
            len(paid) + len(declined) == len(rows) and len(paid) > len(declined),
            f"{len(paid)} paid, {len(declined)} declined of {len(rows)}",
        ),
        Finding("each order was charged once, its amount (ledger)", not wrong, f"{wrong or 'all'}"),
        *_never(found),
    ]


@contextmanager
def declining_banks(stack: Stack, story: Story) -> Iterator[None]:
    """Banks decline eighty payments in a row: many failures, and none of the provider's or the platform's."""
    story.times["fault"] = time.time()
    story.notes["fault"] = "banks decline eighty payments"
    stack.fault("declined-cards", "--count", "80")
    yield


def inspect_untouched(stack: Stack, story: Story) -> list[Finding]:
    """For a minute nothing is retried, nothing asked, and no intent is confirmed after its decline."""
    time.sleep(WATCHED)
    declined = _rows(
        stack,
        "select count(*) from payments where failure_reason = 'card_declined'"  # noqa: S608 - a number of ours
        f" and created_at > to_timestamp({story.times['fault']:.3f})",
    )
    retried = _rows(stack, "select count(*) from payment_retries")
    asked = [one for one in stack.api("/api/v1/approvals")["approvals"] if one["runbook"] == RUNBOOK]
    return [
        Finding("cards were declined (database)", int(declined[0][0]) >= 80, f"{declined[0][0]} payments"),
        Finding("no payment was retried (payment_retries)", retried == [["0"]], f"{retried[0][0]} retries"),
        Finding("nobody was asked", not asked, f"{len(asked)} questions"),
        *_never(_ledger(stack)),
    ]


def _never(found: Any) -> list[Finding]:
    again = found["confirmed_after_decline"]
    return [
        Finding("no intent was charged twice (ledger)", found["twice"] == {}, f"{found['twice'] or 'none'}"),
        Finding("no decline was tried again (ledger)", again == 0, f"{again} confirmations after a decline"),
    ]


def _well(stack: Stack, story: Story) -> None:
    if "well" not in story.times:
        stack.fault("provider-well")
        story.times["well"] = time.time()


def _ledger(stack: Stack) -> Any:
    return stack.fault("provider-ledger")[-1]


def _rows(stack: Stack, statement: str) -> list[list[str]]:
    return [line.split("|") for line in stack.sql(statement).splitlines()]


RUNBOOK = "payment-failures-spike"
ALERTS = ("PaymentSuccessRateLow", "PaymentSuccessRateCritical")

HEALS = Drill(
    RUNBOOK,
    "The provider fails for a while; failed payments are retried when a person agrees",
    RUNBOOK,
    ALERTS,
    failing_provider,
    inspect_retried,
    seconds=420,
    meanwhile=approve,
)
DECLINES = Drill(
    f"{RUNBOOK}-declines",
    "Banks decline cards: nothing is retried, nobody is asked",
    RUNBOOK,
    ALERTS,
    declining_banks,
    inspect_untouched,
    expect=("",),
    until="fault",
    untouched=True,
)
DRILLS = (HEALS, DECLINES)
