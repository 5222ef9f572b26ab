"""Orders of the demo: seeded, so that two runs with one seed send the same orders in the same order of arrival.

In: a seed. Out: bodies for POST /v1/checks and POST /v1/payments, and how long to wait until the next one. The shares
(how many orders break a rule, how many cards are declined) are those of a quiet day. It must never do I/O or ask a
clock.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any, TypeAlias

Body: TypeAlias = dict[str, Any]

WOBBLE_SECONDS = 1200.0
"""Length of the demo's "day": the rate rises and falls by WOBBLE_SHARE of itself in this time."""
WOBBLE_SHARE = 0.12

RULE_SETS = {"food-safety": 0.6, "allergens": 0.3, "alcohol": 0.1}
ALLERGENS = ("celery", "eggs", "fish", "gluten", "milk", "nuts", "sesame", "soya")
CARDS = {"pm_demo_": 0.97, "pm_card_chargeCustomerFail": 0.03}
"""Cards of the double that pay, one of 10,000 by the digits added (demo/stripe_double.py); and Stripe's test card that
attaches and is declined when charged (docs.stripe.com/testing)."""
SLIP = 0.01
"""Share of items that something is wrong with."""

SAMPLE_RULE_SET = "food-safety"
SAMPLE_ORDER: Mapping[str, Any] = {
    "items": [{"holding": "cold", "temperature_c": 4, "hours_since_prep": 6, "allergens": []}],
    "delivery": {"minutes": 35, "region": "CA"},
    "kitchen": {"permit": "commissary", "permit_days_left": 120, "inspection_grade": 94},
}
"""An order that passes: what /health/deep and the drills check."""


def rate(base: float, seconds: float) -> float:
    """Arrivals a second, `seconds` after the start: `base` with a slow wave on it.

    >>> round(rate(6.0, 300.0), 2)  # a quarter of the wave: its top
    6.72
    """
    return base * (1.0 + WOBBLE_SHARE * math.sin(2 * math.pi * seconds / WOBBLE_SECONDS))


class Orders:
    """One stream of orders. `name` keeps the streams of one seed apart."""

    def __init__(self, seed: int, name: str, run: str) -> None:
        self._random = random.Random(f"{seed}/{name}")
        self._run = run
        self._count = 0

    def gap(self, base: float, seconds: float) -> float:
        """Seconds until the next order: independent arrivals (exponential) at the present rate."""
        return self._random.expovariate(rate(base, seconds))

    def reference(self) -> str:
        """A new order's reference; `run` keeps those of two runs apart, since an order is paid once."""
        self._count += 1
        return f"{self._run}-{self._count:07d}"

    def check(self) -> Body:
        """The body of a compliance check."""
        return {
            "order_ref": self.reference(),
            "rule_set": self._pick(RULE_SETS),
            "order": {
                "items": [self._item() for _ in range(self._random.randint(1, 6))],
                "delivery": {"minutes": self._random.randint(15, 75), "region": "CA"},
                "kitchen": {
                    "permit": "commissary",
                    "permit_days_left": self._random.randint(5, 360),
                    "inspection_grade": 92,
                },
                "guest": {"age": self._random.randint(19, 70) if self._slips() else self._random.randint(21, 70)},
                "amount_minor": self._amount(),
                "currency": "usd",
                "alcohol_units": self._random.choice((0, 0, 0, 1, 2, 6)),
            },
        }

    def payment(self) -> Body:
        """The body of a payment."""
        return {
            "order_ref": self.reference(),
            "amount_minor": self._amount(),
            "currency": "usd",
            "payment_method": self._card(),
        }

    def chance(self, share: float) -> bool:
        """True for this share of calls."""
        return self._random.random() < share

    def _pick(self, shares: Mapping[str, float]) -> str:
        return self._random.choices(list(shares), list(shares.values()))[0]

    def _card(self) -> str:
        card = self._pick(CARDS)
        return f"{card}{self._random.randrange(10_000):04}" if card.endswith("_") else card

    def _slips(self) -> bool:
        return self.chance(SLIP)

    def _amount(self) -> int:
        """Cents: most orders near 30 dollars, few large ones."""
        return max(500, min(200_000, int(self._random.lognormvariate(8.0, 0.5))))

    def _item(self) -> Mapping[str, Any]:
        holding = self._random.choice(("cold", "hot", "ambient"))
        good = {"cold": (1, 5), "hot": (61, 78), "ambient": (16, 22)}[holding]
        return {
            "holding": holding,
            "temperature_c": 30 if self._slips() else self._random.randint(*good),
            "hours_since_prep": self._random.randint(1, 30),
            "allergens": self._random.sample(ALLERGENS, self._random.randint(0, 3)),
        }
