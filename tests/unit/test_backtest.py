"""The backtest's pure parts: spans of time, deliveries, what-if numbers, and the one word an episode ends with."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import replace
from importlib.metadata import EntryPoint
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from backtest import command
from backtest.deliveries import GROUP_INTERVAL, Firing, firings, merged, timeline
from backtest.errors import Unusable
from backtest.outcome import State, decided
from backtest.past import held, moment
from backtest.pretended import ASKS, ASSUMED, FAMILIES, actions
from backtest.spans import Series, Span, gaps, of_points
from backtest.what_if import GUARDS, NUMBERS, changed, names
from prepctl.plugins import GROUP
from remediator.actions.registry import CLASSES, NAMES
from remediator.alerts import parse
from remediator.events import Event, Kind
from remediator.settings import Guards
from tests.unit import cases

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_800_000_000.0
SET = {"labels": {"alertname": "Slow", "service": "a"}, "cut": False}


def test_points_are_spans_until_the_next_point() -> None:
    """Without a break one span; a missing point ends it one step after the last one."""
    points = [[0, "1"], [15, "7"], [45, "1"]]
    assert of_points(points, 15) == [Span(0, 30, 1), Span(45, 60, 1)]
    assert of_points(points[:2], 15, by_value=True) == [Span(0, 15, 1), Span(15, 30, 7)]


def test_pieces_of_a_series_are_joined() -> None:
    """What was read in two answers is one span where they touch."""
    series = Series({}, [Span(0, 30)])
    series.add([Span(30, 45), Span(60, 75)])
    assert series.spans == [Span(0, 45), Span(60, 75)]


def test_what_was_so_when_and_when_it_changes() -> None:
    """A span holds from its start up to, and without, its end."""
    series = Series({}, [Span(10, 20), Span(30, 40)])
    assert [series.at(at) is not None for at in (9, 10, 19.9, 20, 30, 40)] == [False, True, True, False, True, False]
    assert [series.change(at) for at in (0, 10, 20, 35, 40)] == [10, 20, 30, 40, None]


def test_gaps_are_what_spans_leave_out() -> None:
    """At both ends, and between them."""
    assert gaps([Span(10, 20), Span(30, 40)], 0, 50) == [Span(0, 10), Span(20, 30), Span(40, 50)]
    assert gaps([], 0, 5) == [Span(0, 5)]


def test_an_alert_gets_the_external_labels_of_its_server() -> None:
    """As Prometheus does when it sends: an own label of that name stays."""
    own = Series({"alertname": "Slow", "alertstate": "firing", "zone": "mine"}, [Span(100, 160)])
    pending = Series({"alertname": "Slow", "alertstate": "pending"}, [Span(40, 100)])
    (found,) = firings([own, pending], {"environment": "test", "zone": "theirs"}, 0, 1000)
    assert found.labels == {"alertname": "Slow", "zone": "mine", "environment": "test"}
    assert (found.starts_at, found.ends_at, found.cut) == (100, 160, False)


def test_the_ends_of_the_history_are_known_as_such() -> None:
    """What fired at its beginning has no known age; what fires at its end has no end."""
    series = Series({"alertname": "Slow", "alertstate": "firing"}, [Span(0, 30), Span(990, 1015)])
    first, last = firings([series], {}, 0, 1000)
    assert (first.cut, last.ends_at) == (True, None)


def test_deliveries_come_as_alertmanager_sends_them() -> None:
    """Firing at once; resolved at the group's next round; nothing when it fires again before that."""
    fired = [Firing(starts_at=0, ends_at=90, **SET), Firing(starts_at=500, ends_at=510, **SET)]  # type: ignore[arg-type]
    again = Firing(starts_at=520, ends_at=None, **SET)  # type: ignore[arg-type]
    sent = [(at, parse(body).alerts[0]) for at, body in timeline([*fired, again])]
    assert [(at, alert.status) for at, alert in sent] == [
        (0, "firing"),
        (2 * GROUP_INTERVAL, "resolved"),
        (500, "firing"),
        (520, "firing"),
    ]
    assert {alert.starts_at for _, alert in sent} == {0, 500, 520}


def test_alerts_of_one_target_are_one_stretch() -> None:
    """Two label sets of one episode: it is over when both are."""
    one, other = (Firing(starts_at=at, ends_at=end, **SET) for at, end in ((0, 50), (30, 80)))  # type: ignore[arg-type]
    assert merged([other, one]) == [Span(0, 80)]
    assert merged([one, Firing(starts_at=40, ends_at=None, **SET)]) == [Span(0, math.inf)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30d", NOW - 30 * 86400), ("0s", NOW), ("2027-01-15T08:00:00Z", 1_800_000_000.0)],
)
def test_a_moment_is_a_duration_or_a_time(text: str, expected: float) -> None:
    """Back from now, or as it is written."""
    assert moment(text, NOW, "--since") == expected


@pytest.mark.parametrize("text", ["30", "yesterday", "2027-01-15T08:00:00"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """With the option's name; a time without a zone is nobody's."""
    with pytest.raises(Unusable, match="--since") as refused:
        moment(text, NOW, "--since")
    assert refused.value.code == 2


# -- what-if ------------------------------------------------------------------------------------------


def test_numbers_are_changed_where_they_stand() -> None:
    """Of the settings, of every runbook, of one; nothing else."""
    books = (cases.book(), cases.book(name="other"))
    settings, made = changed(
        ["guards.storm_episodes=20", "limits.cooldown=10m", "other:settle=2m"], cases.settings(), books
    )
    assert settings.guards == cases.settings().guards.model_copy(update={"storm_episodes": 20})
    assert [book.limits.cooldown for book in made] == [600, 600]
    assert [book.settle for book in made] == [books[0].settle, 120]
    assert made[0] == books[0].model_copy(update={"limits": books[0].limits.model_copy(update={"cooldown": 600.0})})


@pytest.mark.parametrize(
    "wish",
    [
        "limits.cooldown",
        "limits.nothing=1",
        "guards.budget_failures=2",
        "guards.storm_episodes=1",
        "limits.cooldown=10",
        "limits.cooldown=0s",
        "nobody:settle=1m",
        "mode=auto",
    ],
)
def test_what_cannot_be_set_is_refused(wish: str) -> None:
    """Unknown names, values under their floor, a bare number for a time; never silently another number."""
    with pytest.raises(Unusable) as refused:
        changed([wish], cases.settings(), (cases.book(),))
    assert refused.value.code == 2


def test_every_number_that_may_be_set_exists() -> None:
    """A guard that was renamed is noticed."""
    assert set(GUARDS) <= set(Guards.model_fields)
    assert all(name.removeprefix("limits.") for name in NUMBERS)


# -- the end of an episode --------------------------------------------------------------------------------


def told(*events: tuple[Kind, dict[str, Any]]) -> list[Event]:
    """An opened episode and what happened to it, ten seconds apart."""
    number = count(2)
    opened = Event("1", "e", 1, Kind.OPENED, NOW, {"alert": cases.alert().as_json()})
    return [opened, *(Event(str(n), "e", n, kind, NOW + 10 * n, data) for (kind, data), n in zip(events, number))]  # noqa: B905


def refused(reason: str) -> tuple[Kind, dict[str, Any]]:
    return Kind.REFUSED, {"reason": reason, "sentence": f"Because of {reason}.", "earliest": None, "rung": "mild"}


def closed(reason: str) -> tuple[Kind, dict[str, Any]]:
    return Kind.CLOSED, {"reason": reason, "sentence": "The rule is not true any more."}


def handed_over(reason: str) -> tuple[Kind, dict[str, Any]]:
    return Kind.HANDED_OVER, {"reason": reason, "sentence": "s.", "alertname": "a", "severity": "P2"}


INTENT = (Kind.INTENT, {"rung": "mild", "action": "restart_service", "resource": "docker:prep/a"})
ASKED = (Kind.NEEDS_APPROVAL, {"rung": "mild", "action": "restart_service", "resource": "docker:prep/a"})


@pytest.mark.parametrize(
    ("events", "state", "reason"),
    [
        ([refused("settling"), INTENT, closed("fixed")], State.ACT, ""),
        ([refused("cooldown"), INTENT, handed_over("not_fixed")], State.ACT, ""),
        ([ASKED, handed_over("approval_expired")], State.ASK, ""),
        ([refused("settling"), closed("cleared")], State.OVER, ""),
        ([refused("settling"), refused("cooldown"), closed("cleared")], State.REFUSED, "cooldown"),
        ([refused("storm"), handed_over("stale_alert")], State.REFUSED, "storm"),
        ([handed_over("stale_alert")], State.REFUSED, "stale_alert"),
        ([handed_over("recurrence")], State.REFUSED, "recurrence"),
        ([refused("blocked_by_cause"), closed("cleared")], State.BLOCKED, "blocked_by_cause"),
        ([refused("rule_unknown")], State.UNKNOWN, "rule_unknown"),
        ([refused("settling")], State.UNKNOWN, ""),
    ],
)
def test_one_word_for_each_end(events: list[tuple[Kind, dict[str, Any]]], state: State, reason: str) -> None:
    """What it waited for is no end; what forbade it is."""
    came = decided(told(*events))
    assert (came.state, came.reason) == (state, reason)
    assert came.sentence.endswith(".")


def test_the_reason_that_stood_longest_counts() -> None:
    """A second of another one at the end says less."""
    at = iter((0.0, 600.0, 601.0))
    events = told(refused("cooldown"), refused("vantage_disagrees"), closed("cleared"))
    moved = [events[0], *(replace(event, at=NOW + next(at)) for event in events[1:])]
    assert decided(moved).reason == "cooldown"


def test_waiting_is_told() -> None:
    """It would have acted only after a refusal: for how long, and why."""
    came = decided(told(refused("cooldown"), INTENT))
    assert came.held == 10.0
    assert "after 10s of waiting (cooldown)" in came.sentence


# -- the page, the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ASSUMED, *names(), *(state.value for state in State)])
def test_the_page_says_it(name: str) -> None:
    """Every assumption, every number that may be set, every end."""
    assert f"`{name}`" in (ROOT / "docs" / "backtest.md").read_text()


def test_prepctl_finds_it() -> None:
    """By its entry point, which loads."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert EntryPoint("backtest", project["entry-points"][GROUP]["backtest"], GROUP).load() is command.main


# -- what stands in for the outside -------------------------------------------------------------------------


def test_every_action_has_its_stand_in() -> None:
    """A new action is replayed too, and somebody has said what its limits belong to."""
    made = actions(cases.settings(), known=False, now=lambda: NOW)
    assert made.keys() == NAMES == FAMILIES.keys()
    assert set(ASKS) <= NAMES
    for real in CLASSES:
        stand_in = made[real.name]
        assert (stand_in.risk, stand_in.deadline, stand_in.params_model) == (
            real.risk,
            real.deadline,
            real.params_model,
        )


async def test_unknown_never_frees() -> None:
    """Without the settings all servers of PostgreSQL are one resource, and Redis always asks."""
    made = actions(cases.settings(), known=False, now=lambda: NOW)
    params = [made["cancel_query"].params_model.model_validate({"service": name, "min_age": 300}) for name in "ab"]
    resources = {(await made["cancel_query"].preview(each)).resource for each in params}
    assert len(resources) == 1
    redis = made["restart_redis"].params_model.model_validate({"service": "redis"})
    assert (await made["restart_redis"].preview(redis)).asks


async def test_what_the_settings_forbid_is_refused() -> None:
    """A service that is not listed cannot be acted on, then as now."""
    made = actions(cases.settings(), known=True, now=lambda: NOW)
    params = made["restart_service"].params_model.model_validate({"service": "unlisted"})
    assert [refusal.reason for refusal in (await made["restart_service"].preview(params)).refusals]
    listed = made["restart_service"].params_model.model_validate({"service": "engine"})
    assert not (await made["restart_service"].preview(listed)).refusals
    assert json.dumps([dict(item) for item in (await made["restart_service"].preview(listed)).items])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(20.0, "1m"), (320.0, "5m"), (3599.0, "59m"), (7000.0, "1h"), (47 * 3600.0, "47h"), (2e6, "23d")],
)
def test_the_advice_asks_for_no_more_than_there_is(seconds: float, said: str) -> None:
    """A server that is five minutes old has no hour."""
    assert held(seconds) == said
