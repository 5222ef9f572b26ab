"""A body is parsed once, and never remembered for long."""

from __future__ import annotations

import pytest

from remediator.alerts import Unreadable, parse
from remediator.parsed import Parsed
from tests.support.deliveries import alert, delivery


def body(number: int) -> bytes:
    return delivery([alert(labels={"service": f"{number:03}"})])


def test_what_was_kept_is_given_once() -> None:
    """The very value that was parsed; after that it is parsed again, and is the same."""
    parsed, notification = Parsed(), parse(body(1))
    parsed.keep(body(1), notification)
    assert parsed.take(body(1)) is notification
    again = parsed.take(body(1))
    assert again is not notification
    assert again == notification


def test_what_nobody_routes_here_is_forgotten() -> None:
    """Another replica routed them: the oldest make room, and what has none is parsed when it is asked for."""
    parsed, kept = Parsed(most=10 * len(body(0))), [parse(body(number)) for number in range(25)]
    for number, notification in enumerate(kept):
        parsed.keep(body(number), notification)
        parsed.keep(body(number), notification)
    same = [parsed.take(body(number)) is notification for number, notification in enumerate(kept)]
    assert same == [False] * 15 + [True] * 10


def test_one_that_is_too_large_is_not_kept() -> None:
    """A body beyond the bound is parsed again."""
    parsed, notification = Parsed(most=10), parse(body(1))
    parsed.keep(body(1), notification)
    assert parsed.take(body(1)) is not notification


def test_what_cannot_be_read_says_so() -> None:
    """As `parse` does."""
    with pytest.raises(Unreadable):
        Parsed().take(b"{")
