"""When a panel counts as moved by a fault, for what goes up and down by itself."""

from __future__ import annotations

from collections.abc import Sequence

from tests.e2e.panels import Value, beyond, pinned, stayed

RESTLESS = (0, 4, 1, 4, 4, 2)


def values(*told: Sequence[int]) -> list[list[Value]]:
    """One series, a value a second, each part after the one before."""
    at, parts = 0, []
    for part in told:
        parts.append([Value("busy", float(at + number), float(value)) for number, value in enumerate(part)])
        at += len(part)
    return parts


def test_all_busy_for_long_is_moved() -> None:
    """Half of the time it is so on a platform that is well, so neither range nor mean tells."""
    before, during = values(RESTLESS, (2, *[4] * 14, 0))
    assert not beyond(before, during)
    assert not stayed(before, during)
    assert pinned(before, during)


def test_all_busy_for_a_moment_is_not() -> None:
    """As before, only longer looked at."""
    before, during = values(RESTLESS, (*RESTLESS, *[4] * 11, *RESTLESS))
    assert not pinned(before, during)


def test_what_stands_where_it_stood_is_not() -> None:
    """Nothing happens, and nothing has."""
    before, during = values((4,) * 6, (4,) * 30)
    assert not (beyond(before, during) or stayed(before, during) or pinned(before, during))
