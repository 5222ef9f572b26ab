"""The preview's words and numbers, and how the drills are read in panels."""

from __future__ import annotations

from typing import Any

import pytest

from dashboards.parts import scoped, spoken
from dashboards.preview import PreviewError, _limits, _seconds, _tile, named, number
from dashboards.queries import committed, filled, panels
from demo.drills.registry import ALL
from tests.e2e.panels import ALWAYS, CONCERNED, LEFT_OFF, Value, beyond, changed, crossed
from tests.support.panels import named_alerts


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("up{}", 'up{job=~"$job", instance=~"$instance"}'),
        ('a:b:c{x="1"}', 'a:b:c{job=~"$job", x="1"}'),
        ('slo:events{slo="x"}', 'slo:events{slo="x"}'),
        ('count(ALERTS{severity="P0"})', 'count(ALERTS{severity="P0"})'),
        ("a{}\n  / b{}", 'a{job=~"$job", instance=~"$instance"} / b{job=~"$job", instance=~"$instance"}'),
    ],
)
def test_selectors_get_the_dashboards_variables(expr: str, expected: str) -> None:
    """A scraped series both, a recorded one its job, an objective and ALERTS none."""
    assert scoped(expr) == expected


def test_variables_are_filled_in_whole() -> None:
    """`$job` is not the beginning of another name, and what is chosen is not all."""
    expr = 'rate(x{job=~"$job", service=~"$service"}[$__rate_interval])'
    assert filled(expr, service="redis") == 'rate(x{job=~".+", service=~"redis"}[1m])'


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.05, "percentunit", "5 %"),
        (256 * 1024 * 1024, "bytes", "256 MiB"),
        (300, "s", "5 min"),
        (2.5, "s", "2.5 s"),
        (1209600, "s", "14 days"),
        (3, "short", "3"),
    ],
)
def test_numbers_are_spoken_with_their_unit(value: float, unit: str, expected: str) -> None:
    """In a description."""
    assert spoken(value, unit) == expected


@pytest.mark.parametrize(
    ("legend", "expected"),
    [("{{service}} to {{ backend }}", "payments to "), ("__auto", "instance=x, service=payments"), ("open", "open")],
)
def test_a_series_has_grafanas_name(legend: str, expected: str) -> None:
    """A label that is not there is nothing."""
    assert named(legend, {"__name__": "up", "service": "payments", "instance": "x"}) == expected.strip()


def test_what_cannot_be_drawn_is_no_number() -> None:
    """NaN and infinity."""
    assert [number(text) for text in ("NaN", "+Inf", "-Inf", "0", "1.5")] == [None, None, None, 0.0, 1.5]


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("1h30m", 5400), ("2s", 2), ("500ms", 0.5)])
def test_durations(text: str, expected: float) -> None:
    """As Prometheus writes them."""
    assert _seconds(text) == expected
    with pytest.raises(PreviewError, match="is no duration"):
        _seconds(f"{text}!")


def test_a_tile_is_a_word_or_a_coloured_number() -> None:
    """The word of its value; else the colour of the highest threshold that it has reached."""
    steps = [{"value": None, "color": "green"}, {"value": 0.8, "color": "orange"}, {"value": 0.95, "color": "red"}]
    words = [{"type": "value", "options": {"1": {"text": "up", "color": "green"}}}]
    panel: dict[str, Any] = {"fieldConfig": {"defaults": {"thresholds": {"steps": steps}}}, "options": {}}
    for value, colour in (("0.5", "green"), ("0.8", "orange"), ("0.99", "red"), ("NaN", "green")):
        assert _tile(panel, "x", {"metric": {}, "value": [0, value]})["colour"] == colour
    panel["fieldConfig"]["defaults"]["mappings"] = words
    assert _tile(panel, "", {"metric": {}, "value": [0, "1"]})["text"] == "up"


def test_a_threshold_line_has_its_alerts_colour() -> None:
    """Above: what begins there; below: what ends there."""
    above = [{"color": "green"}, {"value": 0.8, "color": "orange"}, {"value": 0.9, "color": "red"}]
    below = [{"color": "red"}, {"value": 0.03, "color": "orange"}, {"value": 0.1, "color": "green"}]
    assert [each["colour"] for each in _limits(above)] == ["orange", "red"]
    assert [each["colour"] for each in _limits(below)] == ["red", "orange"]


def test_every_drill_has_its_panels() -> None:
    """Whatever alert a drill brings about, some panel is held to show it; and no panel is named that is not there."""
    shown = {(uid, panel["title"]): panel for uid, dashboard in committed().items() for panel in panels(dashboard)}
    told = {alert for panel in shown.values() for alert in named_alerts(panel)}
    assert {alert for drill in ALL.values() for alert in drill.alertnames} <= told | CONCERNED.keys()
    assert {place for places in (ALWAYS, LEFT_OFF, *CONCERNED.values()) for place in places} <= shown.keys()


def values(*numbers: float, series: str = "a") -> list[Value]:
    return [Value(series, float(at), value) for at, value in enumerate(numbers)]


def test_a_threshold_is_crossed_only_by_going_over_it() -> None:
    """Noise below it is no movement, nor is a value that was beyond it all the time."""
    assert crossed(values(0.1), values(0.2, 0.95), [0.9])
    assert crossed(values(0.1), values(0.95), [0.9])
    assert not crossed(values(0.1), values(0.2, 0.89), [0.9])
    assert not crossed(values(0.95), values(0.95, 0.99), [0.9])
    assert not crossed(values(0.1), [], [0.9])


def test_a_count_has_changed_when_it_had_two_values_or_came_or_went() -> None:
    """What stands at one number all the time has not."""
    assert changed(values(0, 1, 0))
    assert changed([*values(1, 1, 1), *values(1, series="b")])
    assert not changed(values(1, 1, 1))
    assert not changed([])


def test_a_value_has_moved_when_it_left_where_it_had_been() -> None:
    """Series by series; one that is new counts when it is not 0."""
    assert beyond(values(1, 2), values(1, 3))
    assert beyond(values(1, 1), values(1, 0))
    assert not beyond(values(1, 2), values(1.5, 2.05))
    assert not beyond(values(1, 1), values(1, 1))
    assert beyond(values(1), values(1, series="b"))
    assert not beyond(values(1), values(0, series="b"))
    assert not beyond(values(1), [])
