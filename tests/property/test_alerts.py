"""Whatever bytes come: parsed to something storable, or Unreadable with a known cause. Nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from remediator.alerts import MAX_LABELS, MAX_VALUE, Alert, Unreadable, parse
from remediator.journal import InboxRow
from remediator.metrics import CAUSES
from remediator.webhook import split
from tests.support.deliveries import alert, delivery, read
from tests.unit.cases import book

ANY_TEXT = st.text(st.characters(), max_size=40)  # surrogates and NUL included
LABELS = st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def check(body: bytes) -> None:
    """The one promise of `parse`."""
    try:
        found = parse(body)
    except Unreadable as error:
        assert error.cause in CAUSES
        return
    for one in found.alerts:
        assert one.status in ("firing", "resolved")
        assert one.name
        assert len(one.labels) <= MAX_LABELS
        for text in (one.fingerprint, *one.labels, *one.labels.values(), *one.annotations.values()):
            assert "\x00" not in text
            assert len(text.encode()) <= 4 * MAX_VALUE  # `encode` raises for a lone surrogate
        assert Alert.from_json(json.loads(json.dumps(one.as_json(), allow_nan=False))) == one


@given(st.binary(max_size=300))
def test_any_bytes(body: bytes) -> None:
    """Noise is a dead letter, never an exception of another kind."""
    check(body)


@given(st.integers(0, len(read("firing_10")) - 1), st.binary(min_size=1, max_size=6))
def test_a_damaged_real_body(at: int, noise: bytes) -> None:
    """A real body with a few bytes overwritten anywhere."""
    body = bytearray(read("firing_10"))
    body[at : at + len(noise)] = noise
    check(bytes(body))


@given(st.integers(0, len(read("firing_10"))))
def test_a_cut_real_body(at: int) -> None:
    """A real body that ends too early."""
    check(read("firing_10")[:at])


@given(JSON)
def test_any_json(data: Any) -> None:
    """JSON of any shape, NaN and Infinity included."""
    check(json.dumps(data).encode())


@given(st.dictionaries(st.sampled_from(sorted(json.loads(read("firing_1")))), JSON, max_size=3))
def test_a_real_body_with_other_values(changes: dict[str, Any]) -> None:
    """The known fields with values of any type."""
    check(json.dumps(json.loads(read("firing_1")) | changes).encode())


@given(st.dictionaries(st.sampled_from(sorted(alert())), JSON, max_size=3), LABELS)
def test_an_alert_with_other_values(changes: dict[str, Any], labels: dict[str, str]) -> None:
    """The known fields of an alert with values of any type, and labels of any text."""
    check(delivery([{**alert(labels=labels), **changes}]))


@given(st.lists(LABELS, min_size=1, max_size=5))
def test_every_alert_of_a_delivery_is_routed(several: list[dict[str, str]]) -> None:
    """None is lost on the way to its episode, and none gets a key that another target shares."""
    body = delivery([alert(labels=labels, fingerprint=f"{n:016x}") for n, labels in enumerate(several)])
    try:
        expected = parse(body).alerts
    except Unreadable:
        return
    found = split(InboxRow(1, "delivery", None, 0.0, body), [book()], "test")
    assert [Alert.from_json(json.loads(one.body)) for one in found] == list(expected)
    assert [one.key for one in found] == [f"nt:{one.fingerprint}" for one in expected]
