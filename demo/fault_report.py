"""What the faults share: how they tell what they did, and how they fail."""

from __future__ import annotations

import json


class FaultError(Exception):
    """The fault could not be put in; the message says what was tried and what was seen."""


def tell(event: str, **facts: object) -> None:
    """One JSON object on a line of standard output, at once."""
    print(json.dumps({"event": event, **facts}, default=str), flush=True)
